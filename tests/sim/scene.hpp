#pragma once

// A random program over a simulated network: what it is made of, what is written down while it runs, and what must hold
// in the end. A new program is a class with build(); play() does the rest.

#include <gtest/gtest.h>

#include <cstdlib>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "evpl/evpl.hpp"
#include "sim/drive.hpp"
#include "support/patience.hpp"
#include "transport/sim/random.hpp"
#include "transport/sim/sim.hpp"

namespace evpl::sim_test {

using transport::SimNet;
using transport::SimOptions;
using transport::sim::Random;

/// What byte `at` of a flow is; flows differ.
inline std::byte pattern(std::uint64_t flow, std::uint64_t at) noexcept {
    std::uint64_t z = (flow * 0x9e3779b97f4a7c15u) ^ (at >> 3);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    return std::byte(z >> (8 * (at & 7)));
}

/// What one handler saw: P0 of RELIABILITY is about these.
struct Log {
    std::string name;
    int made = 0, opened = 0, ended = 0, closed = 0, destroyed = 0;
    bool after_close = false;    ///< a callback came after on_close
    std::uint64_t sent = 0;      ///< bytes given to send
    std::uint64_t released = 0;  ///< told by on_sent
    std::uint64_t received = 0;
    std::uint64_t wrong_at = UINT64_MAX;  ///< the first byte that is not the expected one
    bool refused_at_once = false;         ///< connect answered an error: no callback may follow
    Error error;

    void any() { after_close |= closed > 0; }
};

/// The stage of one program.
class Scene {
public:
    Scene(std::uint64_t seed_of_it, const SimOptions& options, unsigned loop_count) : seed(seed_of_it), random(seed_of_it * 31 + 7), net(options) {
        for (unsigned i = 0; i < loop_count; ++i) {
            LoopOptions with;
            with.mode = i % 2 == 0 ? Mode::hybrid : Mode::event;
            with.batch = std::uint32_t(1 + random.below(64));
            owned_.push_back(std::make_unique<Loop>(with));
            loops.push_back(owned_.back().get());
        }
    }
    Log& log(std::string name) {
        logs.emplace_back();
        logs.back().name = std::move(name);
        return logs.back();
    }
    bool all_closed() const {
        for (const Log& each : logs)
            if (each.made > 0 && each.destroyed == 0) return false;
        return true;
    }

    const std::uint64_t seed;
    Random random;
    std::deque<Log> logs;  // before the net and the loops: handlers write here until they are destroyed
    VirtualTime time;
    SimNet net;
    std::vector<Listener> listeners;
    std::vector<Loop*> loops;
    /// Destroys the loops: what is left is closed.
    void drop_loops() {
        listeners.clear();
        loops.clear();
        owned_.clear();
    }

private:
    std::vector<std::unique_ptr<Loop>> owned_;
};

/// A base for handlers that keeps the log honest.
class Logged {
public:
    explicit Logged(Log& log) noexcept : log_(&log) { ++log_->made; }
    Logged(const Logged&) = delete;
    Logged& operator=(const Logged&) = delete;
    ~Logged() { ++log_->destroyed; }

    void on_sent(Connection&, std::size_t bytes) {
        log_->any();
        log_->released += bytes;
    }
    void on_close(Connection&, Error error) {
        log_->any();
        ++log_->closed;
        log_->error = error;
    }

protected:
    Log& log() noexcept {
        log_->any();
        return *log_;
    }
    /// The bytes must be the next ones of `flow`.
    void check(std::uint64_t flow, const Chain& bytes) {
        for (const Buffer& slice : bytes) {
            for (std::uint32_t i = 0; i < slice.size(); ++i, ++log_->received)
                if (slice.data()[i] != pattern(flow, log_->received)) log_->wrong_at = std::min(log_->wrong_at, log_->received);
        }
    }

private:
    Log* log_;
};

struct Program {
    virtual ~Program() = default;
    virtual unsigned loop_count(Random& random) const { return unsigned(1 + random.below(3)); }
    virtual SimOptions options(std::uint64_t seed, Random& random) const = 0;
    /// Listens, connects, sets timers.
    virtual void build(Scene& scene) = 0;
    /// What must hold beyond P0.
    virtual void check(Scene& scene) { (void)scene; }
    /// Longest virtual time until everything is closed: beyond the 30 s of connect and of a silent peer.
    virtual Duration time_most() const { return Duration::of_ns(200'000'000'000); }
};

/// All faults, each off about half of the time.
inline SimOptions any_options(std::uint64_t seed, Random& random) {
    const auto knob = [&](unsigned most) { return std::uint16_t(random.below(2) == 0 ? 0 : random.below(most + 1)); };
    SimOptions options;
    options.seed = seed;
    options.split = knob(900);
    options.stall = knob(100);
    options.clog = knob(400);
    options.refuse = knob(200);
    options.reset = knob(300);
    options.silence = knob(200);
    options.late_retire = knob(500);
    options.early_end = knob(1000);
    options.immediate_sent = knob(700);
    options.lose = knob(300);
    options.duplicate = knob(200);
    options.reorder = knob(300);
    options.truncate = knob(100);
    options.receive_pause = random.below(2) == 0;
    options.half_close = random.below(4) != 0;
    options.poll_only = random.below(2) == 0;
    options.devices = 0;  // protection domains are a test of their own
    options.device_buffers = std::uint32_t(1 + random.below(64));
    options.device_block_bytes = std::uint32_t(64 + random.below(4000));
    options.window_bytes = std::uint32_t(1000 + random.below(100'000));
    options.delay_most = Duration::of_ns(std::int64_t(10'000 + random.below(2'000'000)));
    if (random.below(3) == 0) options.fail_allocation_at = 10 + random.below(200);
    return options;
}

/// What P0 promises, whatever the program did.
inline void check_p0(const Scene& scene) {
    for (const Log& log : scene.logs) {
        SCOPED_TRACE(log.name);
        EXPECT_EQ(log.made, log.destroyed);
        EXPECT_LE(log.opened, 1);
        EXPECT_EQ(log.closed, log.made) << "on_close comes exactly once";
        EXPECT_FALSE(log.after_close) << "on_close is the last callback";
        EXPECT_TRUE(log.closed == 0 || !log.error.ok()) << "an end has a name";
        EXPECT_EQ(log.wrong_at, UINT64_MAX) << "not the bytes that were sent";
        EXPECT_LE(log.released, log.sent);
    }
}

/// Runs one program with one seed; returns the digest of all that happened.
inline std::uint64_t play(Program& program, std::uint64_t seed) {
    SCOPED_TRACE("EVPL_SIM_SEED=" + std::to_string(seed));
    Random random(seed * 1001 + 3);
    const SimOptions options = program.options(seed, random);
    Scene scene(seed, options, program.loop_count(random));
    program.build(scene);
    const auto over = [&] { return scene.all_closed() && scene.net.stats().links_not_retired == 0; };
    EXPECT_TRUE(run_until(scene.net, scene.loops, program.time_most(), over)) << "a loop never came to rest";
    EXPECT_TRUE(over()) << "something never ended: " << scene.net.stats().links_not_retired << " links have not retired";
    check_p0(scene);
    program.check(scene);
    for (const Loop* loop : scene.loops) EXPECT_EQ(loop->metrics().buffers_out, 0u) << "a buffer was not given back";
    const auto stats = scene.net.stats();
    EXPECT_EQ(stats.violations, 0u) << stats.first_violation;
    EXPECT_EQ(stats.links_open, 0u);
    EXPECT_EQ(stats.bytes_held, 0u);
    EXPECT_EQ(stats.device_buffers_held, 0u);
    const std::uint64_t hash = scene.net.trace_hash();
    scene.drop_loops();
    return hash;
}

/// EVPL_SIM_SEED=n plays one seed, EVPL_SIM_SEEDS=n the first n; else `count` of them, or their share (patience.hpp). Stops at the first that fails.
template <class P>
void play_seeds(std::uint64_t count) {
    count /= test::single_thread_share;
    if (const char* more = std::getenv("EVPL_SIM_SEEDS")) count = std::strtoull(more, nullptr, 10);
    std::uint64_t first = 1;
    if (const char* one = std::getenv("EVPL_SIM_SEED")) {
        first = std::strtoull(one, nullptr, 10);
        count = 1;
    }
    for (std::uint64_t seed = first; seed < first + count; ++seed) {
        P program;
        play(program, seed);
        if (testing::Test::HasFailure()) {
            ADD_FAILURE() << "repeat it with EVPL_SIM_SEED=" << seed;
            return;
        }
    }
}

}  // namespace evpl::sim_test
