#pragma once

#include "transport/sleeper.hpp"

namespace evpl::transport {

/// An epoll set (epoll(7)) as the loop's sleeper, with nanosecond waits where the kernel has epoll_pwait2(2).
/// Errors: too_many_files, out_of_memory.
Result<Sleeper*> open_epoll_sleeper() noexcept;

}  // namespace evpl::transport
