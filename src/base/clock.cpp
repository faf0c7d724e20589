#include "base/clock.hpp"

namespace evpl::base {

void set_clock(ClockFn clock) noexcept { detail::clock_override.store(clock, std::memory_order_relaxed); }

}  // namespace evpl::base
