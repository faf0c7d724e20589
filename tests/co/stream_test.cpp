// Coroutines over every transport: what operations give, how deadlines, tokens and the end of a loop end them.
#include <stdexcept>

#include "evpl/co.hpp"
#include "support/world.hpp"

extern thread_local std::size_t news;  // calls of operator new on this thread

namespace evpl::test {
namespace {

class CoTest : public TransportTest {};
class CoStreamTest : public TransportTest {};

/// Counts the frames it lives in.
struct Mark {
    explicit Mark(int& counter) : count(&counter) { ++*count; }
    Mark(const Mark&) = delete;
    ~Mark() { --*count; }
    int* count;
};

co::Task<> echo(co::Stream peer) {
    while (auto bytes = co_await peer.recv())
        if (!co_await peer.send(*std::move(bytes))) break;
}

void fail(std::exception_ptr) { ADD_FAILURE() << "the coroutine threw"; }

/// A loop that serves `session`; what the client coroutines use is declared before it.
struct Served {
    template <class F>
    Served(const Row& row, F session) : loop(World::quiet()) {
        const std::string url = fresh_url(row);
        auto made = co::serve(loop, url, session);
        EXPECT_TRUE(made.ok()) << loop.last_failure();
        if (!made) return;
        where = dial_url(url, made->url());
        listener = *std::move(made);
    }
    template <class F>
    void client(F body) {
        co::spawn(run(*this, body), fail);
    }
    template <class F>
    static co::Task<> run(Served& self, F body) {
        auto peer = co_await co::connect(self.loop, self.where, co::within(10_s));
        EXPECT_TRUE(peer.ok());
        if (peer) co_await body(*std::move(peer));
        self.done = true;
    }
    bool finish() {
        return drive(loop, [&] { return done; });
    }
    bool done = false;
    std::string where;
    Loop loop;
    Listener listener;
};

TEST_P(CoTest, EchoesWhatWasSent) {
    Served world{GetParam(), echo};
    world.client([](co::Stream peer) -> co::Task<> {
        for (int i = 0; i < 50; ++i) {
            const std::string text = pattern(100 + std::size_t(i));
            EXPECT_TRUE((co_await peer.send(text)).ok());
            std::string got;
            while (got.size() < text.size()) {
                auto bytes = co_await peer.recv(co::within(10_s));
                EXPECT_TRUE(bytes.ok());
                if (!bytes) co_return;
                got += text_of(*bytes);
            }
            EXPECT_EQ(got, text);
        }
        EXPECT_TRUE((co_await peer.sent(co::within(10_s))).ok());
    });
    EXPECT_TRUE(world.finish());
}

TEST_P(CoTest, ATimedOutReceiveConsumesNothing) {
    Served world{GetParam(), echo};
    world.client([](co::Stream peer) -> co::Task<> {
        EXPECT_EQ((co_await peer.recv(co::within(20_ms))).error().code(), Errc::timed_out);
        (void)co_await peer.send("hello");
        auto bytes = co_await peer.recv(co::within(10_s));
        EXPECT_TRUE(bytes.ok() && text_of(*bytes) == "hello");
    });
    EXPECT_TRUE(world.finish());
}

TEST_P(CoTest, ACancelledReceiveEndsOnceAndLaterOnesAtOnce) {
    co::Cancel token;
    Served world{GetParam(), echo};
    int cancelled = 0;
    world.client([&](co::Stream peer) -> co::Task<> {
        for (int i = 0; i < 2; ++i) cancelled += (co_await peer.recv(token)).error() == Errc::cancelled;
    });
    drive_for(world.loop, 50_ms);
    EXPECT_EQ(cancelled, 0);
    token.cancel();
    EXPECT_TRUE(world.done);
    EXPECT_EQ(cancelled, 2);
}

TEST_P(CoTest, ACancelledConnectLeavesNothingBehind) {
    co::Cancel token;
    Errc got = Errc::none;
    Served world{GetParam(), echo};
    auto dial = [](Served& served, co::Cancel& cancel, Errc& out) -> co::Task<> {
        out = (co_await co::connect(served.loop, served.where, cancel)).error().code();
    };
    co::spawn(dial(world, token, got), fail);
    token.cancel();
    EXPECT_EQ(got, Errc::cancelled);
    world.listener.close();
    EXPECT_EQ(world.loop.run_until_idle(), 0);
}

TEST_P(CoTest, ThePeersEndIsAnError) {
    Served world{GetParam(), [](co::Stream) -> co::Task<> { co_return; }};
    world.client([](co::Stream peer) -> co::Task<> {
        EXPECT_EQ((co_await peer.recv(co::within(10_s))).error().code(), Errc::end);
    });
    EXPECT_TRUE(world.finish());
}

TEST_P(CoTest, ASessionThatThrowsEndsItsConnectionOnly) {
    Served world{GetParam(), [](co::Stream peer) -> co::Task<> {
        (void)co_await peer.recv();
        throw std::runtime_error("planted");
    }};
    world.client([](co::Stream peer) -> co::Task<> {
        (void)co_await peer.send("x");
        EXPECT_FALSE((co_await peer.recv(co::within(10_s))).ok());
    });
    EXPECT_TRUE(world.finish());
}

TEST_P(CoTest, TheEndOfTheLoopDestroysFramesWhereverTheyWait) {
    int frames = 0;
    {
        Served world{GetParam(), [&frames](co::Stream peer) -> co::Task<> {
            const Mark mark(frames);
            (void)co_await peer.recv();
            if (Connection* c = peer.connection()) (void)co_await co::sleep(c->loop(), 100_s);
        }};
        world.client([&](co::Stream peer) -> co::Task<> {
            const Mark mark(frames);
            (void)co_await peer.send("to sleep");
            EXPECT_FALSE((co_await peer.recv()).ok());
        });
        EXPECT_TRUE(drive(world.loop, [&] { return frames == 2; }));
        drive_for(world.loop, 50_ms);
        EXPECT_EQ(frames, 2);
    }
    EXPECT_EQ(frames, 0);
}

TEST_P(CoTest, ASecondReceiveAtATimeIsMisuse) {
    Served world{GetParam(), echo};
    co::Cancel token;
    world.client([&](co::Stream peer) -> co::Task<> {
        auto second = [](co::Stream& shared) -> co::Task<Errc> { co_return (co_await shared.recv()).error().code(); };
        Errc got = Errc::none;
        auto other = [](co::Task<Errc> task, Errc& out) -> co::Task<> { out = co_await task; };
        auto first = [](co::Stream& shared, co::Cancel& cancel) -> co::Task<> { (void)co_await shared.recv(cancel); };
        co::spawn(first(peer, token), fail);
        co::spawn(other(second(peer), got), fail);
        EXPECT_EQ(got, Errc::misuse);
        token.cancel();
        co_return;
    });
    EXPECT_TRUE(world.finish());
}

TEST_P(CoStreamTest, ReceivesExactlyAndConsumesNothingBefore) {
    Served world{GetParam(), echo};
    world.client([](co::Stream peer) -> co::Task<> {
        (void)co_await peer.send("12345");
        EXPECT_EQ((co_await peer.recv_exactly(8, co::within(50_ms))).error().code(), Errc::timed_out);
        (void)co_await peer.send("678");
        auto bytes = co_await peer.recv_exactly(8, co::within(10_s));
        EXPECT_TRUE(bytes.ok() && text_of(*bytes) == "12345678");
        EXPECT_EQ((co_await peer.recv_message()).error().code(), Errc::not_supported);
    });
    EXPECT_TRUE(world.finish());
}

TEST_P(CoStreamTest, OperationsAllocateNothing) {
    Served world{GetParam(), echo};
    std::size_t made = 1;
    world.client([&](co::Stream peer) -> co::Task<> {
        for (int i = 0; i < 300; ++i) {
            if (i == 100) made = news;
            (void)co_await peer.send("0123456789");
            (void)co_await peer.recv_exactly(10, co::within(10_s));
            (void)co_await peer.sent(co::within(10_s));
        }
        made = news - made;
    });
    EXPECT_TRUE(world.finish());
    EXPECT_EQ(made, 0u);
}

INSTANTIATE_TEST_SUITE_P(All, CoTest, connection_rows(), name_of_row);
INSTANTIATE_TEST_SUITE_P(All, CoStreamTest, stream_rows(), name_of_row);

// Goal: neither a million tasks that end at once nor many that end later grow the stack.
TEST(CoTaskTest, CompletionsDoNotGrowTheStack) {
    Loop loop(World::quiet());
    long sum = 0;
    auto one = [](long i) -> co::Task<long> { co_return i & 1; };
    auto later = [](Loop& on) -> co::Task<> { (void)co_await co::sleep(on, Duration{}); };
    auto all = [](Loop& on, long& out, auto now, auto late) -> co::Task<> {
        for (long i = 0; i < 1'000'000; ++i) out += co_await now(i);
        for (int i = 0; i < 20'000; ++i) co_await late(on);
        out += 1;
    };
    co::spawn(all(loop, sum, one, later), fail);
    EXPECT_EQ(loop.run_until_idle(), 0);
    EXPECT_EQ(sum, 500'001);
}

TEST(CoTaskTest, WhatASpawnedTaskThrowsGoesToTheHook) {
    int heard = 0;
    auto bad = []() -> co::Task<> {
        throw std::runtime_error("planted");
        co_return;
    };
    auto outer = [](co::Task<> inner) -> co::Task<> { co_await inner; };
    co::spawn(outer(bad()), [&](std::exception_ptr) { ++heard; });
    EXPECT_EQ(heard, 1);
}

// Goal: a hook that throws itself takes nobody with it: its exception ends there.
TEST(CoTaskTest, AHookThatThrowsEndsNothing) {
    int heard = 0;
    auto bad = []() -> co::Task<> {
        throw std::runtime_error("planted");
        co_return;
    };
    co::spawn(bad(), [&](std::exception_ptr) {
        ++heard;
        throw std::runtime_error("planted in the hook");
    });
    EXPECT_EQ(heard, 1);
}

// Goal: GCC 12 destroys braced temporaries in co_await expressions twice; operations and their options do not mind.
TEST(CoTaskTest, BracedOptionsAreNotDestroyedTwice) {
    co::Cancel token;
    Served world{rows[0], echo};
    world.client([&](co::Stream peer) -> co::Task<> {
        EXPECT_EQ((co_await peer.recv({co::within(5_ms), token})).error().code(), Errc::timed_out);
        EXPECT_EQ((co_await peer.recv(co::Until{co::within(5_ms), token})).error().code(), Errc::timed_out);
    });
    EXPECT_TRUE(world.finish());
}

}  // namespace
}  // namespace evpl::test
