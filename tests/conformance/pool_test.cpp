// A pool's listener: connections are spread over threads, and each is served by one.
#include <fcntl.h>

#include <array>
#include <atomic>

#include "support/world.hpp"

namespace evpl::test {
namespace {

class PoolTest : public TransportTest {
protected:
    static constexpr std::uint32_t threads = 3;

    void SetUp() override {
        TransportTest::SetUp();
        const std::string_view scheme = GetParam().scheme;
        if (scheme != "tcp" && scheme != "unix" && scheme != "uring" && scheme != "uring-unix") GTEST_SKIP() << scheme << " has no sockets to hand out";
        if (!IsSkipped()) (void)caps();
    }

    struct Served {
        std::atomic<int> opens{0}, closes{0}, elsewhere{0};
    };
    struct Session : EchoAll {
        Served* served;
        const Loop* home;
        Session(Served& at, const Loop& loop) : served(&at), home(&loop) {}
        void on_open(Connection& c) {
            ++served->opens;
            served->elsewhere += &c.loop() != home;
        }
        void on_close(Connection&, Error) { ++served->closes; }
    };

    /// `count` clients open, get back what they send, and close.
    static void call(const std::string& where, std::size_t count) {
        std::deque<PlainPeer> clients(count);
        World world{GetParam(), World::quiet(), World::Check::by_caller};
        for (PlainPeer& client : clients) {
            client.when_open = [](Connection& c) { c.send(pattern(1000)); };
            ASSERT_TRUE(connect(world.loop(), where, client).ok()) << world.loop().last_failure();
        }
        for (PlainPeer& client : clients) {
            ASSERT_TRUE(world.until([&] { return client.received.size() >= 1000 || client.closed(); }));
            EXPECT_EQ(client.received, pattern(1000)) << client.closed_with;
        }
    }

    /// What each thread has served once everybody has gone.
    std::array<int, threads> serve(Spread spread, std::size_t count) {
        std::array<Served, threads> served;
        std::array<int, threads> opens{};
        const Baseline before;
        {
            std::atomic<std::uint32_t> made{0};
            PoolOptions options;
            options.threads = threads;
            options.loop = World::quiet();
            ThreadPool pool(options);
            EXPECT_TRUE(pool.error().ok()) << pool.error();
            const auto number = pool.local<std::uint32_t>([&made](Loop&) { return made++; });
            const std::string asked = fresh_url(GetParam());
            auto listener = pool.listen(
                asked, [&served, number](Connection& c) { return Session(served[number.of(c.loop())], c.loop()); }, spread);
            EXPECT_TRUE(listener.ok()) << pool.last_failure();
            if (!listener) return opens;
            call(dial_url(asked, listener->url()), count);
            listener->close();
            pool.stop(within(5_s));
        }
        for (std::uint32_t i = 0; i < threads; ++i) {
            opens[i] = served[i].opens;
            EXPECT_EQ(served[i].closes, opens[i]);
            EXPECT_EQ(served[i].elsewhere, 0) << "a connection is served where its handler was made";
        }
        before.expect_back();
        return opens;
    }
};

// Goal: handed out, connections go to the threads in turn, and each is served whole by its own.
TEST_P(PoolTest, HandsConnectionsToItsThreadsInTurn) { EXPECT_EQ(serve(Spread::hand_out, 30), (std::array{10, 10, 10})); }

// Goal: by default every connection is served by one of the threads, by whatever means the transport has.
TEST_P(PoolTest, ServesEveryConnectionOnce) {
    const auto opens = serve(Spread::automatic, 30);
    EXPECT_EQ(opens[0] + opens[1] + opens[2], 30);
}

// Goal: a pool hands over the one socket it accepts at, and none where each thread has its own; all threads serve what comes from a socket
// that was handed over.
TEST_P(PoolTest, HandsItsSocketOver) {
    std::array<Served, threads> served;
    std::atomic<std::uint32_t> made{0};
    PoolOptions options;
    options.threads = threads;
    options.loop = World::quiet();
    ThreadPool pool(options);
    const auto number = pool.local<std::uint32_t>([&made](Loop&) { return made++; });
    const auto session = [&served, number](Connection& c) { return Session(served[number.of(c.loop())], c.loop()); };
    const std::string asked = fresh_url(GetParam());
    if (std::string_view(GetParam().scheme).find("unix") == std::string_view::npos) {
        auto each = pool.listen(asked, session, Spread::share_port);
        ASSERT_TRUE(each.ok()) << pool.last_failure();
        EXPECT_EQ(each->hand_over(), -1) << "one of three sockets would leave the others' backlogs behind";
    }
    auto old = pool.listen(asked, session, Spread::hand_out);
    ASSERT_TRUE(old.ok()) << pool.last_failure();
    const std::string where = dial_url(asked, old->url());
    const int fd = old->hand_over();
    ASSERT_GE(fd, 0);
    const int duplicate = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    const std::string inherited = with_option(where, "fd=" + std::to_string(duplicate));
    EXPECT_EQ(pool.listen(inherited, session, Spread::share_port).error(), Errc::not_supported);
    EXPECT_GE(fcntl(duplicate, F_GETFD), 0) << "it is still ours";
    auto next = pool.listen(inherited, session);
    ASSERT_TRUE(next.ok()) << pool.last_failure();
    old->close();
    call(where, 30);
    next->close();
    EXPECT_EQ(next->hand_over(), -1);
    pool.stop(within(5_s));
    for (const Served& one : served) EXPECT_EQ(one.opens, 10);
}

INSTANTIATE_TEST_SUITE_P(Conformance, PoolTest, connection_rows(), name_of_row);

}  // namespace
}  // namespace evpl::test
