// The same promises between two threads: the server's loop in an evpl::Thread, the client's here.
#include <atomic>

#include "support/world.hpp"

namespace evpl::test {
namespace {

/// What the server's thread tells the test's.
struct Shared {
    std::atomic<int> alive = 0, opens = 0, closes = 0;
    std::atomic<std::size_t> heard = 0;
    std::atomic<bool> good = true;
    std::atomic<Errc> closed_with = Errc::none;
};

/// Echoes, and checks what it hears against the pattern of key 1.
struct EchoSession {
    Shared& shared;
    PatternCheck check;
    explicit EchoSession(Shared& s) : shared(s) { ++shared.alive; }
    EchoSession(const EchoSession&) = delete;
    ~EchoSession() { --shared.alive; }
    void on_open(Connection&) { ++shared.opens; }
    void on_recv(Connection& c) {
        while (const std::size_t room = c.send_room()) {
            Chain chain = c.recv(room);
            if (chain.empty()) return;
            check.take(chain);
            shared.heard += chain.size();
            if (!check.good) shared.good = false;
            c.send(std::move(chain));
        }
    }
    void on_writable(Connection& c) { on_recv(c); }
    void on_close(Connection&, Error why) {
        ++shared.closes;
        shared.closed_with = why.code();
    }
};

/// Reads nothing.
struct DeafSession {
    Shared& shared;
    void on_open(Connection&) { ++shared.opens; }
    void on_recv(Connection&) {}
    void on_close(Connection&, Error) { ++shared.closes; }
};

class TwoThreadTest : public TransportTest {
protected:
    /// Starts the server's thread with a listener on it.
    template <class Session>
    void serve() {
        ThreadOptions options;
        options.loop = World::quiet();
        options.name = "server";
        auto started = Thread::start(options);
        ASSERT_TRUE(started.ok()) << started.error();
        thread_ = *std::move(started);
        const std::string asked = fresh_url(GetParam());
        ASSERT_TRUE(thread_.run([&] {
            auto made = listen(thread_.loop(), asked, [this](Connection&) { return Session{shared_}; });
            ASSERT_TRUE(made.ok()) << thread_.loop().last_failure();
            listener_ = *std::move(made);
            where_ = dial_url(asked, listener_.url());
        }));
    }
    void stop_listening() {
        thread_.run([this] { listener_.close(); });
    }
    void SetUp() override {
        TransportTest::SetUp();
        if (!IsSkipped()) (void)caps();
        before_.emplace();
    }
    void TearDown() override {
        if (!thread_) return;
        stop_listening();
        thread_.stop();
        thread_.join();
        thread_ = Thread();
        before_->expect_back();
        EXPECT_EQ(shared_.alive, 0);
        EXPECT_EQ(shared_.opens, shared_.closes);
    }

    Shared shared_;
    std::optional<Baseline> before_;
    Thread thread_;
    Listener listener_;
    std::string where_;
};

// Goal: a stream of bytes crosses between two threads both ways, whole and in order.
TEST_P(TwoThreadTest, EchoesBetweenThreads) {
    PatternCheck check;
    Pump pump{.total = 8u << 20, .most = 100'000};
    PlainPeer client;
    serve<EchoSession>();
    ASSERT_FALSE(where_.empty());
    World world{GetParam(), World::quiet(), World::Check::by_caller};
    client.when_open = client.when_writable = std::ref(pump);
    client.when_recv = [&](Connection& c) { check.take_all(c); };
    ASSERT_TRUE(connect(world.loop(), where_, client).ok());
    EXPECT_TRUE(world.until([&] { return check.bytes >= pump.total || client.closed(); }, 30_s)) << check.bytes;
    EXPECT_TRUE(check.good && shared_.good);
    EXPECT_EQ(check.bytes, pump.total);
}

// Goal: thousands of short connections between two threads open, speak and end, each exactly once.
TEST_P(TwoThreadTest, OpensAndClosesManyConnections) {
    constexpr int total = sanitized ? 300 : 1500;
    struct Caller {
        int& done;
        int& bad;
        void on_open(Connection& c) { c.send(pattern(100)); }
        void on_recv(Connection& c) {
            if (c.available() < 100) return;
            if (text_of(c.recv(100)) != pattern(100)) ++bad;
            c.close();
        }
        void on_close(Connection&, Error why) {
            if (why != Errc::closed) ++bad;
            ++done;
        }
    };
    int done = 0, bad = 0, started = 0;
    serve<EchoSession>();
    ASSERT_FALSE(where_.empty());
    World world{GetParam(), World::quiet(), World::Check::by_caller};
    EXPECT_TRUE(world.until(
        [&] {
            for (; started < total && started - done < 50; ++started)
                EXPECT_TRUE(connect<Caller>(world.loop(), where_, Limit{}, std::ref(done), std::ref(bad)).ok());
            return done == total;
        },
        40_s))
        << done;
    EXPECT_EQ(bad, 0);
    EXPECT_TRUE(await([&] { return shared_.closes == total; })) << shared_.closes;
    EXPECT_EQ(shared_.alive, 0);
}

// Goal: a thread that ends with live connections ends them in good order, and the peer notices.
TEST_P(TwoThreadTest, EndsItsConnectionsWhenTheThreadEnds) {
    PlainPeer client;
    serve<EchoSession>();
    ASSERT_FALSE(where_.empty());
    World world{GetParam(), World::quiet(), World::Check::by_caller};
    ASSERT_TRUE(connect(world.loop(), where_, client).ok());
    ASSERT_TRUE(world.until([&] { return client.open() && shared_.opens == 1; }));
    stop_listening();
    thread_.stop();
    EXPECT_TRUE(world.until([&] { return client.closed(); }));
    EXPECT_TRUE(is_departure(client.closed_with)) << client.closed_with;
    thread_.join();
    EXPECT_EQ(shared_.closes, 1);
    EXPECT_EQ(shared_.closed_with.load(), Errc::stopped);
    EXPECT_FALSE(thread_.post([] {})) << "it has ended";
}

// Goal: the client's loop is destroyed with bytes under way; the server sees the end of the connection and no false
// bytes.
TEST_P(TwoThreadTest, SurvivesThePeersLoopBeingDestroyed) {
    Pump pump{.total = 64u << 20};
    PlainPeer client;
    serve<EchoSession>();
    ASSERT_FALSE(where_.empty());
    {
        World world{GetParam(), World::quiet(), World::Check::by_caller};
        client.when_open = client.when_writable = std::ref(pump);
        client.when_recv = [](Connection&) {};
        ASSERT_TRUE(connect(world.loop(), where_, client).ok());
        ASSERT_TRUE(world.until([&] { return shared_.heard > 100'000; }));
    }
    EXPECT_EQ(client.closes, 1);
    EXPECT_TRUE(await([&] { return shared_.closes == 1; }));
    EXPECT_TRUE(shared_.good);
}

// Goal: back-pressure reaches over threads: a deaf server stops the sender, in bounded memory.
TEST_P(TwoThreadTest, StopsTheSenderAcrossThreads) {
    EVPL_NEEDS(receive_pause);
    Pump pump{.total = 256u << 20};
    PlainPeer client;
    serve<DeafSession>();
    ASSERT_FALSE(where_.empty());
    World world{GetParam(), World::quiet(), World::Check::by_caller};
    client.when_open = client.when_writable = std::ref(pump);
    ASSERT_TRUE(connect(world.loop(), where_, client).ok());
    ASSERT_TRUE(world.until([&] { return pump.pauses > 0; }));
    EXPECT_TRUE(world.until_stuck(pump));
    EXPECT_LT(pump.sent, 40u << 20);
    EXPECT_LT(memory_use().slab_bytes, 80u << 20);
}

// Goal: a connection is named by its reference from another thread and closed there by a post.
TEST_P(TwoThreadTest, ClosesAConnectionFromAnotherThread) {
    PlainPeer client;
    serve<EchoSession>();
    ASSERT_FALSE(where_.empty());
    World world{GetParam(), World::quiet(), World::Check::by_caller};
    ASSERT_TRUE(connect(world.loop(), where_, client).ok());
    ASSERT_TRUE(world.until([&] { return client.open(); }));
    const LoopRef home = world.loop().ref();
    const ConnectionRef ref = client.ref;
    ASSERT_TRUE(thread_.post([home, ref] {
        home.post([ref] {
            if (Connection* c = ref.get()) c->close();
        });
    }));
    EXPECT_TRUE(world.until([&] { return client.closed(); }));
    EXPECT_TRUE(await([&] { return shared_.closes == 1; }));
}

// Goal: bytes received on one thread travel as parcels to another and leave by a connection there, without a copy.
TEST_P(TwoThreadTest, CarriesParcelsBetweenLoops) {
    PatternCheck check;
    PlainPeer client;
    serve<EchoSession>();
    ASSERT_FALSE(where_.empty());
    World world{GetParam(), World::quiet(), World::Check::by_caller};
    client.when_recv = [&](Connection& c) { check.take_all(c); };
    ASSERT_TRUE(connect(world.loop(), where_, client).ok());
    ASSERT_TRUE(world.until([&] { return client.open(); }));
    const LoopRef home = world.loop().ref();
    const ConnectionRef ref = client.ref;
    constexpr std::size_t count = 40, size = 30'000;
    for (std::size_t i = 0; i < count; ++i)
        ASSERT_TRUE(thread_.post([this, home, ref, i] {
            auto made = thread_.loop().allocate(size);
            if (!made) return;
            fill_pattern(made->bytes(), 1, i * size);
            home.post([ref, parcel = std::move(*made).pack()]() mutable {
                if (Connection* c = ref.get()) c->send(Chain(std::move(parcel).open(c->loop())));
            });
        }));
    EXPECT_TRUE(world.until([&] { return check.bytes >= count * size || client.closed(); })) << check.bytes;
    EXPECT_TRUE(check.good);
}

INSTANTIATE_TEST_SUITE_P(Conformance, TwoThreadTest, connection_rows(), name_of_row);

}  // namespace
}  // namespace evpl::test
