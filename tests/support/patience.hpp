#pragma once

// How long tests wait: on predicates with deadlines, never a bare sleep. Sanitizers get more time, and so do slow machines.

#include <chrono>
#include <cstdlib>

#include "evpl/duration.hpp"
#include "evpl/loop.hpp"

namespace evpl::test {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool sanitized = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
inline constexpr bool sanitized = true;
#else
inline constexpr bool sanitized = false;
#endif
#else
inline constexpr bool sanitized = false;
#endif

/// What has one thread has little to show to ThreadSanitizer, and takes twenty times as long there: it plays a share of its seeds.
#if defined(__SANITIZE_THREAD__)
inline constexpr unsigned single_thread_share = 8;
#else
inline constexpr unsigned single_thread_share = 1;
#endif

/// How many times slower than usual this machine is, by EVPL_TEST_SLOWNESS: an emulated one says so there.
inline const int slowness = [] {
    const char* text = std::getenv("EVPL_TEST_SLOWNESS");
    const int times = text != nullptr ? std::atoi(text) : 1;
    return times >= 1 ? times : 1;
}();

/// Limits that only catch a hang are multiplied by this; deadlines under test are not.
inline const int patience = (sanitized ? 5 : 1) * slowness;

/// EVPL_TEST_REDUCED: tests are repeated a hundred times, and each does a fraction of its work. Never fewer kinds of things.
inline const bool reduced = std::getenv("EVPL_TEST_REDUCED") != nullptr;

/// Monotonic wall time since construction.
class Stopwatch {
public:
    Duration elapsed() const { return Duration(std::chrono::steady_clock::now() - began_); }
    void restart() { began_ = std::chrono::steady_clock::now(); }

private:
    std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();
};

/// Turns the loop until `done()`; false when that takes longer than `limit` (times the patience of sanitizers).
template <class Done>
[[nodiscard]] bool drive(Loop& loop, Done done, Duration limit = 15_s) {
    const Stopwatch watch;
    while (!done()) {
        if (watch.elapsed() > limit * patience) return false;
        loop.run_once(10_ms);
    }
    return true;
}

/// Turns the loop for so long: to show that something does not happen.
inline void drive_for(Loop& loop, Duration span) {
    const Stopwatch watch;
    while (watch.elapsed() < span) loop.run_once(span - watch.elapsed() < 5_ms ? 1_ms : 5_ms);
}

/// Waits for something that another thread or process does.
template <class Done>
[[nodiscard]] bool await(Done done, Duration limit = 15_s) {
    const Stopwatch watch;
    while (!done()) {
        if (watch.elapsed() > limit * patience) return false;
        const timespec nap{0, 1'000'000};
        nanosleep(&nap, nullptr);  // between two looks at the predicate
    }
    return true;
}

}  // namespace evpl::test
