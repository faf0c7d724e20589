// Handlers and their factories: throwing, refusing, shared and owned.
#include <stdexcept>

#include "conformance/callbacks.hpp"
#include "support/world.hpp"

namespace evpl::test {
namespace {

class HandlerTest : public TransportTest {};
class FrameThrowTest : public TransportTest {};

// Goal: a callback that throws ends its own connection with handler_threw, and nothing else.
TEST_P(HandlerTest, EndsItsOwnConnectionWhenItThrows) {
    for (const From from : {From::open, From::recv, From::writable, From::sent, From::end}) {
        if (from == From::end && !caps().half_close) continue;
        SCOPED_TRACE(from_names[int(from)]);
        Peer server;
        PlainPeer client, witness_server, witness_client;
        Pump to_client{.total = 8u << 20};
        World world{GetParam()};
        ASSERT_TRUE(world.open(witness_server, witness_client));
        const auto fail = [](Connection&) { throw std::runtime_error("as the test wants"); };
        act_in(from, server, client, to_client, fail);
        ASSERT_NE(world.listen(server), nullptr);
        world.dial(client);
        EXPECT_TRUE(world.until_closed(server, client));
        EXPECT_EQ(server.closed_with, Errc::handler_threw);
        EXPECT_EQ(server.closed_with.who(), Who::local);
        EXPECT_TRUE(is_departure(client.closed_with)) << client.closed_with;
        witness_client.get()->send("still here");
        EXPECT_TRUE(world.until([&] { return witness_server.received == "still here"; }));
    }
}

// Goal: an on_close that throws has nothing left to end; the loop goes on.
TEST_P(HandlerTest, SurvivesAThrowingOnClose) {
    PlainPeer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    server.when_close = [](Connection&, Error) { throw std::runtime_error("as the test wants"); };
    client.when_close = server.when_close;
    client.get()->close();
    EXPECT_TRUE(world.until_closed(server, client));
    PlainPeer next_server, next_client;
    EXPECT_TRUE(world.open(next_server, next_client));
    next_client.get()->close();
    EXPECT_TRUE(world.until_closed(next_server, next_client));
}

// Goal: a throwing `frame` is a throwing handler.
TEST_P(FrameThrowTest, EndsItsConnectionWhenFrameThrows) {
    FramedPeer server;
    PlainPeer client;
    World world{GetParam()};
    server.when_frame = [](std::span<const std::byte>) -> Frame { throw 1; };
    ASSERT_TRUE(world.open(server, client));
    client.get()->send("anything");
    EXPECT_TRUE(world.until_closed(server, client));
    EXPECT_EQ(server.closed_with, Errc::handler_threw);
}

/// Refuses every second peer.
struct Doorman {
    struct Session {
        PlainPeer* peer;
        void on_open(Connection& c) { peer->on_open(c); }
        void on_recv(Connection& c) { peer->on_recv(c); }
        void on_close(Connection& c, Error why) { peer->on_close(c, why); }
    };
    PlainPeer* peer;
    int* asked;
    Result<Session> operator()(Connection&) {
        if (++*asked % 2 == 1) return Errc::refused_by_handler;
        return Session{peer};
    }
};

// Goal: a factory may refuse a peer, who sees it; the next peer is taken in.
TEST_P(HandlerTest, LetsAFactoryRefuseAPeer) {
    int asked = 0;
    PlainPeer server, refused, accepted;
    World world{GetParam()};
    Listener* listener = world.listen(Doorman{&server, &asked});
    ASSERT_NE(listener, nullptr);
    world.dial(refused);
    EXPECT_TRUE(world.until([&] { return refused.closed(); }));
    EXPECT_TRUE(is_refusal(refused.closed_with)) << refused.closed_with;
    accepted.ref = world.dial(accepted);
    EXPECT_TRUE(world.until([&] { return accepted.open() && server.open(); }));
    EXPECT_EQ(asked, 2);
    EXPECT_EQ(listener->metrics().refused, 1u);
    EXPECT_EQ(listener->metrics().open, 1u);
    accepted.get()->send("hello");
    EXPECT_TRUE(world.until([&] { return server.received == "hello"; }));
}

// Goal: a factory that throws refuses that peer and no other.
TEST_P(HandlerTest, TakesAThrowingFactoryForARefusal) {
    int asked = 0;
    PlainPeer server, refused, accepted;
    World world{GetParam()};
    ASSERT_NE(world.listen([&](Connection&) -> PlainPeer& {
        if (asked++ == 0) throw std::runtime_error("as the test wants");
        return server;
    }),
              nullptr);
    world.dial(refused);
    EXPECT_TRUE(world.until([&] { return refused.closed(); }));
    EXPECT_TRUE(is_refusal(refused.closed_with)) << refused.closed_with;
    accepted.ref = world.dial(accepted);
    EXPECT_TRUE(world.until([&] { return accepted.open() && server.open(); }));
}

// Goal: a connecting factory that refuses leaves nothing behind: the Result fails, and no callback follows.
TEST_P(HandlerTest, LeavesNothingWhenAConnectingFactoryRefuses) {
    PlainPeer server;
    World world{GetParam()};
    ASSERT_NE(world.listen(server), nullptr);
    struct Unwanted {
        void on_close(Connection&, Error) { ADD_FAILURE() << "nothing was created"; }
    };
    const auto made = connect(world.loop(), world.where(), [](Connection&) -> Result<Unwanted> { return Errc::cancelled; });
    EXPECT_FALSE(made.ok());
    EXPECT_TRUE(made.error() == Errc::cancelled || made.error() == Errc::refused_by_handler) << made.error();
    drive_for(world.loop(), 10_ms);
    EXPECT_FALSE(world.loop().last_failure().empty());
}

/// One object for all connections.
struct Lobby {
    int opens = 0, closes = 0;
    std::string heard;
    std::vector<ConnectionRef> guests;
    void on_open(Connection& c) { ++opens, guests.push_back(c.ref()); }
    void on_recv(Connection& c) { heard += text_of(c.recv()); }
    void on_close(Connection&, Error) { ++closes; }
};

// Goal: a factory that gives a reference shares one handler, which outlives its connections.
TEST_P(HandlerTest, SharesOneHandlerAmongConnections) {
    Lobby lobby;
    std::deque<PlainPeer> clients(5);
    World world{GetParam()};
    ASSERT_NE(world.listen([&](Connection&) -> Lobby& { return lobby; }), nullptr);
    for (PlainPeer& client : clients) {
        client.when_open = [](Connection& c) { c.send("x"); };
        client.ref = world.dial(client);
    }
    EXPECT_TRUE(world.until([&] { return lobby.heard.size() == 5; }));
    EXPECT_EQ(lobby.opens, 5);
    for (PlainPeer& client : clients) client.get()->close();
    EXPECT_TRUE(world.until([&] { return lobby.closes == 5; }));
    for (const ConnectionRef& guest : lobby.guests) EXPECT_EQ(guest.get(), nullptr);
}

/// Built by listen<Session>(loop, url, std::ref(state)).
struct Greeter {
    std::string& greeting;
    Connection& self;
    void on_open(Connection& c) {
        EXPECT_EQ(&c, &self);
        c.send(greeting);
    }
};
struct Listens {
    std::string& heard;
    void on_recv(Connection& c) { heard += text_of(c.recv()); }
};

// Goal: the short forms listen<Session>(...) and connect<Session>(...) build a Session from their arguments, with the
// Connection last where it wants one.
TEST_P(HandlerTest, BuildsSessionsFromArguments) {
    std::string greeting = "good morning", heard;
    World world{GetParam()};
    const std::string url = fresh_url(GetParam());
    auto listener = listen<Greeter>(world.loop(), url, std::ref(greeting));
    ASSERT_TRUE(listener.ok()) << world.loop().last_failure();
    ASSERT_TRUE(connect<Listens>(world.loop(), dial_url(url, listener->url()), within(5_s), std::ref(heard)).ok());
    EXPECT_TRUE(world.until([&] { return heard == greeting; }));
    listener->close();
}

// Goal: a handler object that is moved in keeps its state.
TEST_P(HandlerTest, TakesAHandlerByMove) {
    struct Says {
        std::string words;
        void on_open(Connection& c) { c.send(words); }
    };
    PlainPeer server;
    World world{GetParam()};
    ASSERT_NE(world.listen(server), nullptr);
    world.dial(Says{"moved in"});
    EXPECT_TRUE(world.until([&] { return server.received == "moved in"; }));
}

INSTANTIATE_TEST_SUITE_P(Conformance, HandlerTest, connection_rows(), name_of_row);
INSTANTIATE_TEST_SUITE_P(Conformance, FrameThrowTest, stream_rows(), name_of_row);

}  // namespace
}  // namespace evpl::test
