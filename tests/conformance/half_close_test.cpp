// shutdown() and on_end: each direction ends on its own where the transport can do that.
#include "support/world.hpp"

namespace evpl::test {
namespace {

class EndTest : public TransportTest {};

// Goal: the client finishes first; the server answers all the same, and both end in good order.
TEST_P(EndTest, LetsTheOtherDirectionGoOn) {
    EVPL_NEEDS(half_close);
    PatternCheck at_server{.key = 1}, at_client{.key = 2};
    Pump request{.key = 1, .total = 1u << 20}, answer{.key = 2, .total = 2u << 20};
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    server.when_recv = [&](Connection& c) { at_server.take_all(c); };
    client.when_recv = [&](Connection& c) { at_client.take_all(c); };
    server.when_end = server.when_writable = [&](Connection& c) {
        if (server.ends == 0) return;
        EXPECT_EQ(at_server.bytes, request.total) << "the end comes after the bytes";
        answer(c);
        if (answer.done()) c.shutdown();
    };
    client.when_writable = [&](Connection& c) {
        request(c);
        if (request.done()) c.shutdown();
    };
    client.when_writable(*client.get());
    EXPECT_TRUE(world.until_closed(server, client, 30_s));
    EXPECT_TRUE(at_server.good && at_client.good);
    EXPECT_EQ(at_client.bytes, answer.total);
    EXPECT_EQ(server.closed_with, Errc::end);
    EXPECT_EQ(client.closed_with, Errc::end);
    EXPECT_EQ(server.ends + client.ends, 2);
}

// Goal: both sides finish at once with bytes in flight both ways; none are lost.
TEST_P(EndTest, FinishesBothDirectionsAtOnce) {
    EVPL_NEEDS(half_close);
    PatternCheck at_server{.key = 3}, at_client{.key = 4};
    Pump from_client{.key = 3, .total = 400'000}, from_server{.key = 4, .total = 300'000};
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    server.when_recv = [&](Connection& c) { at_server.take_all(c); };
    client.when_recv = [&](Connection& c) { at_client.take_all(c); };
    from_client(*client.get());
    from_server(*server.get());
    ASSERT_TRUE(from_client.done() && from_server.done());
    client.get()->shutdown();
    server.get()->shutdown();
    EXPECT_TRUE(world.until_closed(server, client));
    EXPECT_TRUE(at_server.good && at_client.good);
    EXPECT_EQ(at_server.bytes, from_client.total);
    EXPECT_EQ(at_client.bytes, from_server.total);
    EXPECT_EQ(server.closed_with, Errc::end);
    EXPECT_EQ(client.closed_with, Errc::end);
}

// Goal: shutdown drains what is queued, on every transport; a handler without on_end then closes by default.
TEST_P(EndTest, DrainsBeforeItEnds) {
    PatternCheck check;
    Pump pump{.total = 400'000};
    PlainPeer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    server.when_recv = [&](Connection& c) { check.take_all(c); };
    pump(*client.get());
    ASSERT_TRUE(pump.done());
    client.get()->shutdown();
    EXPECT_TRUE(world.until_closed(server, client));
    EXPECT_TRUE(check.good);
    EXPECT_EQ(check.bytes, pump.total);
    EXPECT_EQ(server.closed_with, Errc::end);
    EXPECT_EQ(client.closed_with, Errc::end);
}

// Goal: the default answer to the peer's end is to drain the outbox and close: an echo loses nothing.
TEST_P(EndTest, DrainsTheOutboxByDefaultWhenThePeerEnds) {
    EVPL_NEEDS(half_close);
    PatternCheck check;
    Pump pump{.total = 3u << 20};
    PlainPeer server;
    Peer client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    server.when_recv = server.when_writable = [](Connection& c) { EchoAll().on_recv(c); };
    client.when_recv = [&](Connection& c) { check.take_all(c); };
    client.when_writable = [&](Connection& c) {
        pump(c);
        if (pump.done()) c.shutdown();
    };
    client.when_writable(*client.get());
    EXPECT_TRUE(world.until_closed(server, client, 30_s)) << check.bytes;
    EXPECT_TRUE(check.good);
    EXPECT_EQ(check.bytes, pump.total);
    EXPECT_EQ(server.closed_with, Errc::end);
    EXPECT_EQ(client.closed_with, Errc::end);
}

// Goal: on_end waits until the inbox was read.
TEST_P(EndTest, TellsTheEndWhenTheInboxIsEmpty) {
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    server.when_recv = [](Connection&) {};
    client.get()->send("last words");
    client.get()->shutdown();
    ASSERT_TRUE(world.until([&] { return server.get() != nullptr && server.get()->available() == 10; }));
    drive_for(world.loop(), 30_ms);
    EXPECT_EQ(server.ends, 0);
    ASSERT_FALSE(server.closed()) << server.closed_with;
    server.drain(*server.get());
    EXPECT_EQ(server.received, "last words");
    EXPECT_TRUE(world.until([&] { return server.ends == 1 || server.closed(); }));
}

// Goal: after shutdown a send is misuse, also a try_send; receiving goes on.
TEST_P(EndTest, TakesNoMoreSendsAfterShutdown) {
    EVPL_NEEDS(half_close);
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    client.get()->send("a");
    client.get()->shutdown();
    client.get()->shutdown();
    EXPECT_EQ(client.get()->send("b").error(), Errc::misuse);
    Chain chain = chain_of(world.loop(), "c", 1);
    EXPECT_FALSE(client.get()->try_send(chain));
    EXPECT_EQ(text_of(chain), "c") << "what was not taken stays";
    EXPECT_TRUE(world.until([&] { return server.ends == 1; }));
    server.get()->send("still here");
    EXPECT_TRUE(world.until([&] { return client.received == "still here"; }));
    EXPECT_EQ(server.received, "a");
    server.get()->shutdown();
    EXPECT_TRUE(world.until_closed(server, client));
    EXPECT_EQ(client.closed_with, Errc::end);
}

// Goal: a peer that never ends its side is given up after the limit of shutdown.
TEST_P(EndTest, GivesUpAfterTheLimitOfShutdown) {
    EVPL_NEEDS(half_close);
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    const Stopwatch watch;
    client.get()->shutdown(within(150_ms));
    EXPECT_TRUE(world.until([&] { return client.closed(); }));
    EXPECT_EQ(client.closed_with, Errc::timed_out);
    EXPECT_GE(watch.elapsed(), 150_ms);
    EXPECT_LT(watch.elapsed(), 2_s * patience);
}

// Goal: a peer that never reads does not hold a shutdown with a limit for ever.
TEST_P(EndTest, GivesUpDrainingAfterTheLimitOfShutdown) {
    EVPL_NEEDS(receive_pause);
    Pump pump{.total = 32u << 20};
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    server.when_recv = [](Connection&) {};
    pump(*client.get());
    ASSERT_GT(pump.pauses, 0u);
    client.get()->shutdown(within(150_ms));
    EXPECT_TRUE(world.until([&] { return client.closed(); }));
    EXPECT_EQ(client.closed_with, Errc::timed_out);
}

// Goal: shutdown inside on_open and inside on_recv works as outside.
TEST_P(EndTest, AnswersAndEndsInsideCallbacks) {
    Peer server, client;
    World world{GetParam()};
    ASSERT_NE(world.listen(server), nullptr);
    server.when_recv = [&](Connection& c) {
        server.drain(c);
        if (server.received.size() < 7) return;
        c.send("answer");
        c.shutdown();
    };
    client.when_open = [](Connection& c) { c.send("request"); };
    client.when_end = [](Connection& c) { c.shutdown(); };
    client.ref = world.dial(client);
    EXPECT_TRUE(world.until_closed(server, client));
    EXPECT_EQ(client.received, "answer");
    EXPECT_EQ(server.closed_with, Errc::end);
    EXPECT_EQ(client.closed_with, Errc::end);
}

INSTANTIATE_TEST_SUITE_P(Conformance, EndTest, connection_rows(), name_of_row);

}  // namespace
}  // namespace evpl::test
