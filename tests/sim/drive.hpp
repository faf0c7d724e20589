#pragma once

// Runs loops in virtual time: all on this thread, in turns, with the simulated network's clock as the only clock.

#include <time.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <span>

#include "base/clock.hpp"
#include "evpl/loop.hpp"
#include "transport/sim/sim.hpp"

namespace evpl::sim_test {

/// While it lives, threads that have a SimNet live in its time; others keep the system's. Made before the loops.
class VirtualTime {
public:
    VirtualTime() noexcept { base::set_clock(&clock); }
    ~VirtualTime() { base::set_clock(nullptr); }
    VirtualTime(const VirtualTime&) = delete;
    VirtualTime& operator=(const VirtualTime&) = delete;

private:
    static std::int64_t clock() noexcept {
        if (const auto* net = transport::SimNet::current(); net != nullptr) return net->now_ns();
        timespec at;
        clock_gettime(CLOCK_MONOTONIC, &at);
        return std::int64_t(at.tv_sec) * 1'000'000'000 + at.tv_nsec;
    }
};

/// Turns of all loops until none of them does anything. Loops answer each other through the net within one instant,
/// hence the rounds. False: they are still busy after so many turns that something must be spinning.
inline bool run_until_quiet(transport::SimNet& net, std::span<Loop* const> loops) {
    unsigned quiet = 0;
    for (unsigned round = 0; round < 100'000; ++round) {
        bool busy = false;
        for (Loop* loop : loops) {
            busy |= loop->run_once();
            net.settle();  // the registrar is the only other thread: its answers come between turns
        }
        quiet = busy || net.completions_waiting() ? 0 : quiet + 1;
        if (quiet == 3) return true;
    }
    return false;
}

/// Runs the loops for so long in virtual time, or until `done()` after a quiet moment. The clock jumps from event to
/// event of the net; a loop's timers are looked at in ticks of 1 ms, growing to 50 ms while nothing happens, so they
/// come late by up to that. False: a loop never came to rest.
template <class Done>
bool run_until(transport::SimNet& net, std::span<Loop* const> loops, Duration most, Done done) {
    constexpr std::int64_t tick_least = 1'000'000, tick_most = 50'000'000;
    const std::int64_t until = net.now_ns() + most.ns;
    std::int64_t tick = tick_least;
    for (;;) {
        const std::uint64_t upcalls = net.upcalls();
        if (!run_until_quiet(net, loops)) return false;
        if (done() || net.now_ns() >= until) return true;
        const bool happened = net.upcalls() != upcalls || net.next_event_ns() <= net.now_ns() + tick;
        tick = happened ? tick_least : std::min(tick * 2, tick_most);
        const std::int64_t next = std::min({net.next_event_ns(), net.now_ns() + tick, until});
        net.advance(Duration::of_ns(next - net.now_ns()));
    }
}

inline bool run(transport::SimNet& net, std::span<Loop* const> loops, Duration time) {
    return run_until(net, loops, time, [] { return false; });
}

}  // namespace evpl::sim_test
