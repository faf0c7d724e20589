#pragma once

#include <time.h>
#ifdef __x86_64__
#include <x86intrin.h>
#endif

#include <atomic>
#include <cstdint>

namespace evpl::base {

/// Stands in for the system's clock: nanoseconds that never go back.
using ClockFn = std::int64_t (*)() noexcept;

namespace detail {
inline std::atomic<ClockFn> clock_override{nullptr};
inline std::atomic<bool> cycles_are_time{false};
}

/// Replaces the clock of the whole process; null brings CLOCK_MONOTONIC back. For tests in virtual time, before any
/// loop runs. Thread: any.
void set_clock(ClockFn clock) noexcept;

/// set_clock() is in force.
inline bool is_virtual_time() noexcept { return detail::clock_override.load(std::memory_order_relaxed) != nullptr; }

/// Monotonic time in nanoseconds. Thread: any. Cost: one load and the vdso(7), about 25 ns.
inline std::int64_t clock_ns() noexcept {
    if (const ClockFn clock = detail::clock_override.load(std::memory_order_relaxed); clock != nullptr) [[unlikely]]
        return clock();
    timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);  // cannot fail: the clock exists and `at` is ours
    return std::int64_t(at.tv_sec) * 1'000'000'000 + at.tv_nsec;
}

/// Counts up for measuring spans: the processor's cycles where the kernel tells time by them, else nanoseconds. What a count is worth
/// tells a CycleScale. A cycle is never longer than a nanosecond. Thread: any. Cost: 10 ns.
inline std::uint64_t cycles() noexcept {
#ifdef __x86_64__
    if (detail::cycles_are_time.load(std::memory_order_relaxed)) [[likely]]
        return __rdtsc();
#endif
    return std::uint64_t(clock_ns());
}

/// What cycles() were worth since this was made. Thread: any.
class CycleScale {
public:
    CycleScale() noexcept;
    /// Cost: a reading of the clock.
    std::int64_t ns(std::uint64_t spent_cycles) const noexcept;

private:
    std::uint64_t start_cycles_;
    std::int64_t start_ns_;
};

/// The time, for many readings close together: never less than clock_ns(), and 4 us more at most. Between two readings
/// of the clock it counts the processor's cycles, taking each for a whole nanosecond, which none is longer than, so there
/// is nothing to calibrate. Where cycles are no clock, or set_clock() is in force, it is clock_ns().
/// Thread: one. Cost: 10 ns (rdtsc), once in 4096 cycles 40 ns; the very first reading of a process 50 us.
class BurstClock {
public:
    std::int64_t ceiling_ns() noexcept {
#ifdef __x86_64__
        const std::uint64_t passed = __rdtsc() - read_cycles_;  // huge should the counter ever step back
        if (passed < valid_cycles_ && !is_virtual_time()) [[likely]]
            return read_ns_ + std::int64_t(passed);
#endif
        return read();
    }

private:
    std::int64_t read() noexcept;

    std::uint64_t read_cycles_ = 0;
    std::uint64_t valid_cycles_ = 0;  // how long a reading of the clock serves; 0: not at all
    std::int64_t read_ns_ = 0;
    bool asked_ = false;
};

}  // namespace evpl::base
