#include "base/clock.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <string_view>

namespace evpl::base {

void set_clock(ClockFn clock) noexcept {
    detail::clock_override.store(clock, std::memory_order_relaxed);
    if (clock != nullptr) detail::cycles_are_time.store(false, std::memory_order_relaxed);  // the next CycleScale asks again
}

std::int64_t CycleScale::ns(std::uint64_t spent_cycles) const noexcept {
    const double passed_cycles = double(cycles() - start_cycles_), passed_ns = double(clock_ns() - start_ns_);
    return passed_cycles > 0 ? std::int64_t(double(spent_cycles) * passed_ns / passed_cycles) : 0;
}

#ifdef __x86_64__
namespace {

/// The kernel compares the counters of all cores and watches them; it tells time by them only while they agree.
bool kernel_trusts_cycles() noexcept {
    const int fd = ::open("/sys/devices/system/clocksource/clocksource0/current_clocksource", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    char name[16];
    const ssize_t size = ::read(fd, name, sizeof name);
    ::close(fd);
    return size > 0 && std::string_view(name, std::size_t(size)).starts_with("tsc");
}

/// Counters run faster than 1 GHz wherever the kernel tells time by them, or so we believe; this makes sure.
bool cycles_are_short() noexcept {
    timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    const std::uint64_t start = __rdtsc();
    std::int64_t spent_ns = 0;
    while (spent_ns < 20'000) {
        clock_gettime(CLOCK_MONOTONIC, &to);
        spent_ns = std::int64_t(to.tv_sec - from.tv_sec) * 1'000'000'000 + (to.tv_nsec - from.tv_nsec);
    }
    return std::int64_t(__rdtsc() - start) > spent_ns;
}

bool cycles_are_time() noexcept {
    static const bool are = kernel_trusts_cycles() && cycles_are_short();
    return are;
}

}  // namespace

CycleScale::CycleScale() noexcept {
    detail::cycles_are_time.store(!is_virtual_time() && cycles_are_time(), std::memory_order_relaxed);
    start_cycles_ = cycles();
    start_ns_ = clock_ns();
}

std::int64_t BurstClock::read() noexcept {
    if (is_virtual_time()) return clock_ns();
    if (!asked_) {
        asked_ = true;
        valid_cycles_ = cycles_are_time() ? 4096 : 0;
    }
    read_cycles_ = __rdtsc();  // before the clock is read: what happens in between makes us late, not early
    return read_ns_ = clock_ns();
}
#else
CycleScale::CycleScale() noexcept : start_cycles_(cycles()), start_ns_(clock_ns()) {}
std::int64_t BurstClock::read() noexcept { return clock_ns(); }
#endif

}  // namespace evpl::base
