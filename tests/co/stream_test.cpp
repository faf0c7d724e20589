// Coroutines over every transport: what operations give, how deadlines, tokens and the end of a loop end them.
#include <stdexcept>

#include "co/served.hpp"

namespace evpl::test {
namespace {

class CoTest : public TransportTest {};
class CoStreamTest : public TransportTest {};

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
