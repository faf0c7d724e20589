// Goal: through an echo server, whatever the network does, P0 holds: each connection ends once with a name, nothing
// leaks, and what comes back is an exact prefix of what was sent. Without losses all of it comes back. Method: random
// clients on a simulated network, one seed after the other, in virtual time.

#include "sim/scene.hpp"

namespace evpl::sim_test {
namespace {

struct EchoServer : Logged {
    using Logged::Logged;
    bool messages = false;
    EchoServer(Log& of, Connection& peer) : Logged(of), messages(peer.caps().kind == Kind::message) {}
    void on_open(Connection&) { ++log().opened; }
    void on_recv(Connection& peer) {
        log();
        while (peer.is_open() && peer.send_room() > 0) {
            Chain bytes = next(peer);
            if (bytes.empty()) return;
            log().sent += bytes.size();
            if (!peer.send(std::move(bytes))) return;
        }
    }
    void on_writable(Connection& peer) { on_recv(peer); }

private:
    Chain next(Connection& peer) {
        if (!messages) return peer.recv(peer.send_room());
        auto whole = peer.recv_message();
        return whole ? *std::move(whole) : Chain();
    }
};

/// Sends its flow as room allows, reads what comes back, and ends in the way it was told to.
struct EchoClient : Logged {
    enum class Manner { orderly, abrupt };

    EchoClient(Log& of, Random& numbers, std::uint64_t number, std::uint64_t bytes, Manner how)
        : Logged(of), random(numbers.next()), flow(number), total(bytes), manner(how) {
        leave_at = manner == Manner::abrupt ? random.below(total + 1) : UINT64_MAX;
    }

    void on_open(Connection& peer) {
        ++log().opened;
        pump(peer);
    }
    void on_writable(Connection& peer) {
        log();
        pump(peer);
    }
    void on_recv(Connection& peer) {
        log();
        while (peer.available() > 0) {
            Chain bytes = peer.recv(1 + random.below(20'000));
            if (bytes.empty()) break;
            check(flow, bytes);
        }
        if (log().received >= leave_at) return peer.close();
        if (log().received == total && !peer.caps().half_close) peer.close();
    }
    void on_end(Connection& peer) {
        ++log().ended;
        peer.close();
    }

private:
    void pump(Connection& peer) {
        while (log().sent < total && peer.send_room() > 0) {
            const std::uint64_t most = std::min<std::uint64_t>({total - log().sent, peer.send_room(), 10'000});
            const std::uint32_t size = std::uint32_t(1 + random.below(most));
            auto slice = peer.loop().allocate(size);
            if (!slice) return peer.close(slice.error());
            for (std::uint32_t i = 0; i < size; ++i) slice->data()[i] = pattern(flow, log().sent + i);
            log().sent += size;
            if (!peer.send(*std::move(slice))) break;
        }
        if (log().sent == total && peer.caps().half_close && !shut) {
            shut = true;
            peer.shutdown();
        }
    }

    Random random;
    std::uint64_t flow, total;
    Manner manner;
    std::uint64_t leave_at;
    bool shut = false;
};

struct EchoProgram : Program {
    SimOptions options(std::uint64_t seed, Random& random) const override { return any_options(seed, random); }
    virtual EchoClient::Manner manner(Random& random) const { return random.below(4) == 0 ? EchoClient::Manner::abrupt : EchoClient::Manner::orderly; }

    void build(Scene& scene) override {
        const std::string url = scene.random.below(2) == 0 ? "sim://echo" : "sim://echo?mode=msg";
        auto listener =
            listen(*scene.loops[0], url, [&scene](Connection& peer) { return EchoServer(scene.log("server " + std::string(peer.remote_name())), peer); });
        EXPECT_TRUE(listener.ok()) << scene.loops[0]->last_failure();
        if (!listener) return;
        scene.listeners.push_back(*std::move(listener));
        const std::uint64_t clients = 1 + scene.random.below(6);
        for (std::uint64_t flow = 1; flow <= clients; ++flow) {
            Log& log = scene.log("client " + std::to_string(flow));
            client_logs.push_back(&log);
            const std::uint64_t bytes = 1 + scene.random.below(scene.random.below(3) == 0 ? 200'000 : 5'000);
            totals.push_back(bytes);
            Loop& loop = *scene.loops[scene.random.below(scene.loops.size())];
            const auto how = manner(scene.random);
            const auto begun = connect(loop, url, [&log, &scene, flow, bytes, how](Connection&) { return EchoClient(log, scene.random, flow, bytes, how); });
            log.refused_at_once = !begun;
            EXPECT_TRUE(begun.ok() || begun.error() == Errc::out_of_memory) << loop.last_failure();
        }
    }
    void check(Scene&) override {
        for (const Log* log : client_logs) {
            EXPECT_EQ(log->made, log->refused_at_once ? 0 : 1);
            EXPECT_LE(log->received, log->sent);
        }
    }

    std::vector<const Log*> client_logs;
    std::vector<std::uint64_t> totals;
};

/// Delays, splits and full devices, but nothing is lost.
struct LosslessEcho : EchoProgram {
    SimOptions options(std::uint64_t seed, Random& random) const override {
        SimOptions options = any_options(seed, random);
        options.refuse = options.reset = options.silence = 0;
        options.fail_allocation_at = 0;
        options.receive_pause = true;
        return options;
    }
    EchoClient::Manner manner(Random&) const override { return EchoClient::Manner::orderly; }
    void check(Scene& scene) override {
        EchoProgram::check(scene);
        for (std::size_t i = 0; i < client_logs.size(); ++i) {
            EXPECT_EQ(client_logs[i]->received, totals[i]);
            EXPECT_EQ(client_logs[i]->opened, 1);
        }
    }
};

TEST(SimEcho, KeepsP0UnderAllFaults) { play_seeds<EchoProgram>(300); }

TEST(SimEcho, EverythingComesBackWhenNothingIsLost) { play_seeds<LosslessEcho>(150); }

/// One to three devices, each with a protection domain of its own: what is received from one goes out through another.
struct DomainEcho : EchoProgram {
    SimOptions options(std::uint64_t seed, Random& random) const override {
        SimOptions options = any_options(seed, random);
        options.devices = 1 + unsigned(random.below(3));
        return options;
    }
};
TEST(SimEcho, TheDeviceIsOnlyGivenMemoryOfItsDomain) { play_seeds<DomainEcho>(100); }

TEST(SimEcho, TheSameSeedGivesTheSameEvents) {
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
        EchoProgram first, second;
        EXPECT_EQ(play(first, seed), play(second, seed)) << "seed " << seed;
    }
}

/// Loops destroyed in the middle: everything ends there and then.
struct CutShortEcho : EchoProgram {
    void check(Scene&) override {}
};
TEST(SimEcho, LoopsThatGoInTheMiddleEndEverything) {
    for (std::uint64_t seed = 1; seed <= 50; ++seed) {
        SCOPED_TRACE("seed " + std::to_string(seed));
        CutShortEcho program;
        Random random(seed);
        Scene scene(seed, program.options(seed, random), 2);
        program.build(scene);
        run(scene.net, scene.loops, Duration::of_ns(std::int64_t(random.below(10'000'000))));
        scene.drop_loops();
        check_p0(scene);
        EXPECT_EQ(scene.net.stats().links_not_retired, 0u);
        EXPECT_EQ(scene.net.stats().device_buffers_held, 0u);
    }
}

}  // namespace
}  // namespace evpl::sim_test
