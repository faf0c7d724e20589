// close(): from anywhere, once, with on_close once and last.
#include "conformance/callbacks.hpp"
#include "support/world.hpp"

namespace evpl::test {
namespace {

class CloseTest : public TransportTest {};

/// Everything a closed connection may still be asked, and what it answers.
void expect_closed_answers(Loop& loop, Connection& c) {
    EXPECT_FALSE(c.is_open());
    EXPECT_EQ(c.send("late").error(), Errc::misuse);
    Chain chain = chain_of(loop, "late", 4);
    EXPECT_FALSE(c.try_send(chain));
    EXPECT_EQ(chain.size(), 4u);
    EXPECT_EQ(c.send(std::move(chain)).error(), Errc::misuse);
    EXPECT_EQ(c.send_room(), 0u);
    EXPECT_TRUE(c.recv().empty());
    EXPECT_EQ(c.available(), 0u);
    EXPECT_FALSE(c.recv_exactly(1).ok());
    EXPECT_FALSE(c.recv_message().ok());
    EXPECT_TRUE(c.landed().empty());
    std::byte room[1];
    EXPECT_EQ(c.peek(room), 0u);
    c.consume(1);
    if (auto target = loop.allocate(10)) {
        EXPECT_EQ(c.recv_into(*std::move(target)).error(), Errc::misuse);
    }
    c.shutdown();
    c.flush();
    c.deadline_recv(1_ms);
    c.deadline_send(1_ms);
    c.close();
    c.close(Error(Errc::protocol_error));
}

// Goal: close() inside every callback marks; on_close(closed) follows once and last, and the calls after it answer
// misuse.
TEST_P(CloseTest, ClosesInsideEveryCallback) {
    const bool half_close = caps().half_close;  // asked before a world is there: it opens one of its own
    for (const From from : {From::open, From::recv, From::writable, From::sent, From::end}) {
        SCOPED_TRACE(from_names[int(from)]);
        bool called = false;
        Peer server;
        PlainPeer client;
        Pump to_client{.total = 8u << 20};
        World world{GetParam()};
        const auto close_now = [&](Connection& c) {
            if (std::exchange(called, true)) return;
            c.close();
            EXPECT_EQ(server.closes, 0) << "on_close runs after the callback";
            expect_closed_answers(c.loop(), c);
        };
        act_in(from, server, client, to_client, close_now);
        ASSERT_NE(world.listen(server), nullptr);
        world.dial(client);
        if (from == From::end && !half_close) continue;  // there the end is the close
        EXPECT_TRUE(world.until_closed(server, client)) << server.closes << client.closes;
        EXPECT_EQ(server.closed_with, Errc::closed);
        EXPECT_TRUE(is_departure(client.closed_with)) << client.closed_with;
        drive_for(world.loop(), 10_ms);
        EXPECT_EQ(server.closes, 1);
        EXPECT_EQ(client.closes, 1);
    }
}

// Goal: calls inside on_close are answered like all calls on a closed connection.
TEST_P(CloseTest, AnswersMisuseInsideOnClose) {
    PlainPeer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    client.when_close = [&](Connection& c, Error) { expect_closed_answers(c.loop(), c); };
    server.when_close = client.when_close;
    client.get()->close();
    EXPECT_TRUE(world.until_closed(server, client));
    EXPECT_EQ(client.closed_with, Errc::closed);
}

// Goal: on_close tells the reason that close(reason) was given, unchanged.
TEST_P(CloseTest, TellsTheReasonItWasGiven) {
    PlainPeer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    const Error reason{Errc::protocol_error, Step::recv, Who::peer, 42};
    client.get()->close(reason);
    EXPECT_TRUE(world.until_closed(server, client));
    EXPECT_EQ(client.closed_with, reason);
    EXPECT_TRUE(is_departure(server.closed_with)) << server.closed_with;
}

// Goal: the first of two reasons counts.
TEST_P(CloseTest, KeepsTheFirstReason) {
    PlainPeer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    Connection& c = *client.get();
    c.close();
    c.close(Error(Errc::protocol_error));
    EXPECT_TRUE(world.until_closed(server, client));
    EXPECT_EQ(client.closed_with, Errc::closed);
}

// Goal: a closed connection's error names step, code and cause sensibly.
TEST_P(CloseTest, NamesWhoEndedIt) {
    PlainPeer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    client.get()->close();
    EXPECT_TRUE(world.until_closed(server, client));
    EXPECT_EQ(client.closed_with.who(), Who::local) << client.closed_with;
    if (server.closed_with == Errc::reset) {
        EXPECT_EQ(server.closed_with.who(), Who::peer) << server.closed_with;
    }
    char text[100];
    EXPECT_GT(client.closed_with.describe(text, sizeof text), 0u);
}

// Goal: what close() drops is dropped whole: what did arrive is a prefix.
TEST_P(CloseTest, LeavesAPrefixAtThePeer) {
    PatternCheck check;
    Pump pump{.total = 4u << 20};
    PlainPeer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    server.when_recv = [&](Connection& c) {
        check.take_all(c);
        if (check.bytes > 500'000 && client.get() != nullptr) client.get()->close();
    };
    client.when_writable = std::ref(pump);
    pump(*client.get());
    EXPECT_TRUE(world.until_closed(server, client));
    EXPECT_TRUE(check.good);
    EXPECT_LE(check.bytes, pump.sent);
}

// Goal: closing with unread bytes is seen by the sender as an end or a reset, never as success of what was lost.
TEST_P(CloseTest, TellsTheSenderOfUnreadBytes) {
    Pump pump{.total = 64u << 20};
    PlainPeer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    server.when_recv = [](Connection&) {};
    client.when_writable = std::ref(pump);
    pump(*client.get());
    ASSERT_TRUE(world.until([&] { return server.get()->available() > 0; }));
    server.get()->close();
    EXPECT_TRUE(world.until_closed(server, client));
    EXPECT_TRUE(is_departure(client.closed_with)) << client.closed_with;
    EXPECT_LT(client.sent_bytes, pump.total);
}

// Goal: both sides closing in the same turn give one on_close each.
TEST_P(CloseTest, SurvivesBothSidesClosingAtOnce) {
    PlainPeer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    client.get()->send("in flight");
    server.get()->send("in flight");
    client.get()->close();
    server.get()->close();
    EXPECT_TRUE(world.until_closed(server, client));
    drive_for(world.loop(), 10_ms);
    EXPECT_EQ(client.closes + server.closes, 2);
    EXPECT_EQ(client.closed_with, Errc::closed);
    EXPECT_EQ(server.closed_with, Errc::closed);
}

// Goal: one connection's end leaves the traffic of another alone.
TEST_P(CloseTest, LeavesOtherConnectionsAlone) {
    PatternCheck check;
    Pump pump{.total = 4u << 20};
    PlainPeer server, client, doomed_server, doomed_client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    ASSERT_TRUE(world.open(doomed_server, doomed_client));
    server.when_recv = [&](Connection& c) {
        check.take_all(c);
        if (doomed_client.get() != nullptr) doomed_client.get()->close();
    };
    client.when_writable = std::ref(pump);
    pump(*client.get());
    EXPECT_TRUE(world.until([&] { return check.bytes >= pump.total && doomed_server.closed(); }));
    EXPECT_TRUE(check.good);
    EXPECT_EQ(server.closes + client.closes, 0);
}

/// Lives in the connection's own allocation; neither copied nor moved.
struct Counted {
    int* alive;
    int* closes;
    Counted(int* alive_now, int* closes_now) : alive(alive_now), closes(closes_now) { ++*alive; }
    Counted(const Counted&) = delete;
    Counted& operator=(const Counted&) = delete;
    ~Counted() {
        EXPECT_EQ(callback_depth, 0);
        --*alive;
    }
    void on_close(Connection&, Error) {
        EXPECT_GT(*alive, 0) << "destroyed before on_close";
        ++*closes;
    }
};

// Goal: a handler is built on accept, need not be movable, and is destroyed after on_close.
TEST_P(CloseTest, DestroysTheHandlerAfterOnClose) {
    int alive = 0, closes = 0;
    {
        PlainPeer client;
        World world{GetParam()};
        ASSERT_NE(world.listen([&](Connection&) { return Counted{&alive, &closes}; }), nullptr);
        client.ref = world.dial(client);
        ASSERT_TRUE(world.until([&] { return client.open() && alive == 1; }));
        client.get()->close();
        EXPECT_TRUE(world.until([&] { return closes == 1 && alive == 0; }));
    }
    EXPECT_EQ(alive, 0);
    EXPECT_EQ(closes, 1);
}

// Goal: a handler without any event is a handler; bytes nobody reads stop at the limit, and its end is the default one.
TEST_P(CloseTest, LivesWithAHandlerThatHandlesNothing) {
    struct Nothing {};
    PlainPeer client;
    World world{GetParam()};
    ASSERT_NE(world.listen([](Connection&) { return Nothing{}; }), nullptr);
    client.ref = world.dial(client);
    ASSERT_TRUE(world.until([&] { return client.open(); }));
    client.get()->send("to nobody");
    client.get()->shutdown();
    drive_for(world.loop(), 20_ms);
    EXPECT_LE(client.closes, 1);
}

INSTANTIATE_TEST_SUITE_P(Conformance, CloseTest, connection_rows(), name_of_row);

}  // namespace
}  // namespace evpl::test
