#pragma once

#include <cstdint>
#include <string>

#include <evpl/loop.hpp>

#include "histogram.hpp"

namespace tool {

enum class Test { latency, rate, stream, connect };
const char* name_of(Test test) noexcept;

/// What the command line asks for. Zero means: what suits the test, see plan_of().
struct PerfOptions {
    std::string url;  ///< of a running server; empty with `all`
    bool all = false;
    std::string test;
    std::uint32_t size = 0, depth = 0, connections = 1, threads = 1;
    double seconds = 1, warmup_s = -1, rate = 0;
    std::uint64_t count = 0, seed = 1;
    evpl::Mode mode = evpl::LoopOptions{}.mode;
    std::string json;
    bool progress = false;
};

/// One measurement, complete: every number is decided.
struct Plan {
    std::string url;
    Test test = Test::latency;
    std::uint32_t size = 64;        ///< bytes of a message
    std::uint32_t depth = 1;        ///< most messages in flight per connection (with `rate`: datagrams only)
    std::uint32_t connections = 1;  ///< over all threads
    std::uint32_t threads = 1;
    double seconds = 1;       ///< how long to measure, unless `count` says how much
    double warmup_s = 0.2;    ///< not counted
    std::uint64_t count = 0;  ///< messages to measure; 0: by time
    double rate = 0;          ///< messages per second to send, whatever comes back; 0: closed loop
    std::uint64_t seed = 1;
    evpl::Mode mode = evpl::LoopOptions{}.mode;
    bool progress = false;
};

/// What came of it.
struct Outcome {
    Histogram times;  ///< round trips, or for Test::connect the time from connect to the first reply
    double seconds = 0;
    std::uint64_t lost = 0;     ///< datagrams without a reply in time
    std::uint64_t late = 0;     ///< replies after that, and doubles
    std::uint64_t unsent = 0;   ///< open loop: due, but not sent by the end
    std::uint64_t retries = 0;  ///< connects repeated because no local port was free
    bool corrupt = false;       ///< the failure is that wrong bytes came back
    std::string failure;        ///< one sentence; empty when all went well

    std::uint64_t messages() const noexcept { return times.count(); }
    double per_second() const noexcept { return seconds > 0 ? double(messages()) / seconds : 0; }
};

/// Runs one measurement from this thread (and plan.threads - 1 more).
Outcome measure(const Plan& plan);

/// `evpl perf`.
int run_perf(const PerfOptions& options);

}  // namespace tool
