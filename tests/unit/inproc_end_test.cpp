// How links begin and end over inproc: connect, refuse, half-close, finish, abort, and ports that go away.
#include <algorithm>

#include "unit/inproc_world.hpp"

namespace evpl::transport::inproc_test {
namespace {

class InprocEndTest : public testing::TestWithParam<Where> {};

// -- beginning -------------------------------------------------------------------------------------------------

TEST_P(InprocEndTest, RefusesANameNobodyListensAt) {
    FakeLoop loop;
    End client(loop);
    client.connect(fresh_name("nobody"));
    EXPECT_TRUE(loop.again()) << "the loop has to poll for the news";
    EXPECT_TRUE(loop.port->arm().work_waiting);
    loop.turn();
    EXPECT_EQ(client.why, Errc::refused);
    EXPECT_EQ(client.why.who(), Who::peer);
    EXPECT_TRUE(client.over());
    EXPECT_EQ(client.opens, 0);
}

TEST_P(InprocEndTest, RefusesWhatTheAcceptorRefuses) {
    Pair pair{GetParam(), "refuse", false};
    pair.door.ready.clear();
    pair.client.connect(pair.url);
    ASSERT_TRUE(pair.until([&] { return pair.client.over(); }));
    EXPECT_EQ(pair.client.why, Errc::refused);
    EXPECT_EQ(pair.door.callers, 1);
}

// Goal: stream and message listeners of one name are different places.
TEST_P(InprocEndTest, RefusesTheOtherMode) {
    Pair pair{GetParam(), "mode", false};
    pair.client.connect(pair.url.substr(0, pair.url.find('?')) + (GetParam().messages ? "?mode=stream" : "?mode=msg"));
    ASSERT_TRUE(pair.until([&] { return pair.client.over(); }));
    EXPECT_EQ(pair.client.why, Errc::refused);
    EXPECT_EQ(pair.door.callers, 0);
}

TEST_P(InprocEndTest, NamesOptionsItDoesNotKnow) {
    FakeLoop loop;
    End client(loop);
    Door door;
    const auto why_of = [&](const char* url) {
        Diagnostic why;
        const auto connected = loop.port->connect(endpoint(url), Address{}, client, client.outbox, why);
        EXPECT_FALSE(connected.ok());
        Diagnostic other;
        EXPECT_EQ(loop.port->listen(endpoint(url), false, door, other).error(), connected.error());
        Diagnostic third;
        EXPECT_EQ(inproc_transport().caps(inproc_transport().schemes()[0], endpoint(url), third).error(), connected.error());
        EXPECT_FALSE(why.view().empty());
        return connected.error().code();
    };
    EXPECT_EQ(why_of("inproc://x?colour=red"), Errc::unknown_option);
    EXPECT_EQ(why_of("inproc://x?mode=datagram"), Errc::bad_option);
}

TEST_P(InprocEndTest, TellsWhereItListens) {
    FakeLoop loop;
    Door door;
    door.listen(loop, GetParam().messages ? "inproc://a%20b%3fc?mode=msg" : "inproc://a%20b%3fc");
    EXPECT_EQ(door.listening->url(), GetParam().messages ? "inproc://a%20b%3Fc?mode=msg" : "inproc://a%20b%3Fc");
    EXPECT_EQ(endpoint(door.listening->url()).host(), "a b?c");
    Door second;
    Diagnostic why;
    const auto taken = loop.port->listen(endpoint(door.listening->url()), false, second, why);
    EXPECT_EQ(taken.error(), Errc::address_in_use);
    EXPECT_NE(why.view().find("inproc://a%20b"), std::string_view::npos);
    door.listening->close();
    second.listen(loop, "inproc://a%20b%3fc");
    second.listening->close();
}

// Goal: loops that share a name take turns.
TEST_P(InprocEndTest, SharesANameBetweenLoops) {
    const std::string url = fresh_name("shared");
    FakeLoop client_loop, one, two;
    Door first, second;
    first.listen(one, url, true);
    second.listen(two, url, true);
    Diagnostic why;
    Door third;
    EXPECT_EQ(one.port->listen(endpoint(url), false, third, why).error(), Errc::address_in_use);
    std::deque<End> clients, servers;
    for (int i = 0; i < 10; ++i) {
        first.ready.push_back(&servers.emplace_back(one));
        second.ready.push_back(&servers.emplace_back(two));
        clients.emplace_back(client_loop).connect(url);
    }
    for (int i = 0; i < 10; ++i) client_loop.turn(), one.turn(), two.turn();
    EXPECT_EQ(first.callers, 5);
    EXPECT_EQ(second.callers, 5);
    for (End& client : clients) client.close(How::abort);
    for (int i = 0; i < 10; ++i) client_loop.turn(), one.turn(), two.turn();
}

TEST_P(InprocEndTest, KeepsCallersOfAPausedListener) {
    Pair pair{GetParam(), "paused", false};
    pair.door.listening->pause();
    End second(pair.a), refused(pair.a);
    End second_server(pair.b);
    pair.door.ready.push_back(&second_server);
    pair.client.connect(pair.url);
    second.connect(pair.url);
    refused.connect(pair.url);
    pair.settle();
    EXPECT_EQ(pair.door.callers, 0);
    pair.door.listening->resume();
    EXPECT_EQ(pair.door.callers, 0) << "no upcall from inside resume";
    ASSERT_TRUE(pair.until([&] { return pair.client.opens == 1 && second.opens == 1 && refused.over(); }));
    EXPECT_EQ(pair.door.callers, 3);
    second.close(How::abort);
    pair.settle();
}

TEST_P(InprocEndTest, RefusesCallersWhenTheListenerCloses) {
    Pair pair{GetParam(), "closing", false};
    pair.door.listening->pause();
    pair.client.connect(pair.url);
    pair.settle();
    pair.door.listening->close();
    ASSERT_TRUE(pair.until([&] { return pair.client.over(); }));
    EXPECT_EQ(pair.client.why, Errc::refused);
    End late(pair.a);
    late.connect(pair.url);
    ASSERT_TRUE(pair.until([&] { return late.over(); }));
    EXPECT_EQ(late.why, Errc::refused);
}

// Goal: a listener that closes while a connect is on its way refuses it; links that were accepted stay.
TEST_P(InprocEndTest, LeavesAcceptedLinksWhenTheListenerCloses) {
    Pair pair{GetParam()};
    End late(pair.a);
    late.connect(pair.url);
    pair.door.listening->close();
    ASSERT_TRUE(pair.until([&] { return late.over(); }));
    EXPECT_EQ(late.why, Errc::refused);
    pair.client.send("still there", true);
    EXPECT_TRUE(pair.until([&] { return pair.server.received == "still there"; }));
}

// Goal: a connect that is given up before the answer leaves nothing behind on either side.
TEST_P(InprocEndTest, GivesUpAConnectOnItsWay) {
    for (int polls = 0; polls < 3; ++polls) {
        Pair pair{GetParam(), "given-up", false};
        pair.client.connect(pair.url);
        if (polls > 0) pair.b.turn();
        pair.client.close(How::abort);
        EXPECT_EQ(pair.client.closes, 0);
        ASSERT_TRUE(pair.until([&] { return pair.client.over(); }));
        EXPECT_EQ(pair.client.why, Errc::closed);
        pair.settle();
        if (pair.server.link != nullptr) {
            EXPECT_TRUE(pair.server.over());
            EXPECT_EQ(pair.server.why, Errc::reset);
        }
    }
}

// -- ending ----------------------------------------------------------------------------------------------------

TEST_P(InprocEndTest, EndsOneDirectionAfterTheOther) {
    Pair pair{GetParam()};
    pair.client.put(pattern(700'000), true, 9000);
    pair.client.flush();
    pair.client.close(How::drain);
    EXPECT_EQ(pair.client.closes, 0);
    ASSERT_TRUE(pair.until([&] { return pair.server.ends == 1; }));
    EXPECT_TRUE(pair.server.received == pattern(700'000)) << "the end comes after the bytes";
    pair.settle();
    EXPECT_EQ(pair.client.closes + pair.server.closes, 0);
    pair.server.put(pattern(300'000), true);
    pair.server.flush();
    pair.server.close(How::drain);
    ASSERT_TRUE(pair.until([&] { return pair.client.over() && pair.server.over(); }));
    EXPECT_TRUE(pair.client.received == pattern(300'000));
    EXPECT_EQ(pair.client.ends, 1);
    EXPECT_EQ(pair.client.why, Errc::end);
    EXPECT_EQ(pair.server.why, Errc::end);
}

TEST_P(InprocEndTest, EndsBothDirectionsAtOnce) {
    Pair pair{GetParam()};
    pair.client.send("from the client", true);
    pair.server.send("from the server", true);
    pair.client.close(How::drain);
    pair.server.close(How::drain);
    ASSERT_TRUE(pair.until([&] { return pair.client.over() && pair.server.over(); }));
    EXPECT_EQ(pair.client.received, "from the server");
    EXPECT_EQ(pair.server.received, "from the client");
    EXPECT_EQ(pair.client.why, Errc::end);
    EXPECT_EQ(pair.server.why, Errc::end);
}

// Goal: a paused reader hears of the end after the bytes that waited for it.
TEST_P(InprocEndTest, TellsTheEndAfterWhatWasHeld) {
    Pair pair{GetParam()};
    pair.b.port->pause(*pair.server.link);
    pair.client.send(pattern(5000), true);
    pair.client.close(How::drain);
    pair.settle();
    EXPECT_EQ(pair.server.ends, 0);
    pair.b.port->resume(*pair.server.link);
    ASSERT_TRUE(pair.until([&] { return pair.server.ends == 1; }));
    EXPECT_EQ(pair.server.received.size(), 5000u);
}

TEST_P(InprocEndTest, FinishesAfterItsBytes) {
    Pair pair{GetParam()};
    pair.client.put(pattern(3u << 20), true, 30'000);
    EXPECT_EQ(pair.client.flush(), Flushed::blocked);
    pair.client.close(How::finish);
    ASSERT_TRUE(pair.until([&] { return pair.client.over() && pair.server.ends == 1; }));
    EXPECT_EQ(pair.client.why, Errc::end);
    EXPECT_TRUE(pair.server.received == pattern(3u << 20));
    EXPECT_EQ(pair.server.closes, 0) << "our side ends in its own time";
    pair.server.close(How::drain);
    ASSERT_TRUE(pair.until([&] { return pair.server.over(); }));
    EXPECT_EQ(pair.server.why, Errc::end);
}

// Goal: sending to a peer that has finished is a reset, as over TCP.
TEST_P(InprocEndTest, ResetsWhoSendsToAFinishedPeer) {
    Pair pair{GetParam()};
    pair.client.close(How::finish);
    ASSERT_TRUE(pair.until([&] { return pair.client.over() && pair.server.ends == 1; }));
    pair.server.send("anybody there?", true);
    ASSERT_TRUE(pair.until([&] { return pair.server.over(); }));
    EXPECT_EQ(pair.server.why, Errc::reset);
    EXPECT_EQ(pair.server.sent_bytes, 0u);
}

// Goal: whoever is blocked by a peer that then finishes hears of it.
TEST_P(InprocEndTest, WakesAWriterBlockedByAPeerThatFinishes) {
    Pair pair{GetParam()};
    pair.b.port->pause(*pair.server.link);
    pair.client.put(pattern(4u << 20), true);
    EXPECT_EQ(pair.client.flush(), Flushed::blocked);
    pair.settle();
    pair.server.close(How::finish);
    ASSERT_TRUE(pair.until([&] { return pair.client.over() && pair.server.over(); }));
    EXPECT_EQ(pair.client.why, Errc::reset);
    EXPECT_EQ(pair.client.ends, 1);
}

TEST_P(InprocEndTest, AbortsAndThePeerSeesAReset) {
    Pair pair{GetParam()};
    pair.client.send("prefix", true);
    pair.client.put(pattern(3u << 20), true);
    pair.client.close(How::abort);
    EXPECT_EQ(pair.client.closes, 0) << "no upcall from inside close";
    ASSERT_TRUE(pair.until([&] { return pair.client.over() && pair.server.over(); }));
    EXPECT_EQ(pair.client.why, Errc::closed);
    EXPECT_EQ(pair.client.why.who(), Who::local);
    EXPECT_EQ(pair.server.why, Errc::reset);
    EXPECT_EQ(pair.server.why.who(), Who::peer);
    EXPECT_EQ(pair.server.received, "prefix") << "what had left arrives before the reset";
}

TEST_P(InprocEndTest, AbortsBothSidesAtOnce) {
    Pair pair{GetParam()};
    pair.client.send(pattern(100'000), true);
    pair.server.send(pattern(100'000), true);
    pair.client.close(How::abort);
    pair.server.close(How::abort);
    pair.client.close(How::abort);
    ASSERT_TRUE(pair.until([&] { return pair.client.over() && pair.server.over(); }));
    EXPECT_EQ(pair.client.why, Errc::closed);
    EXPECT_EQ(pair.server.why, Errc::closed);
}

TEST_P(InprocEndTest, BecomesHarsherOnRequest) {
    Pair pair{GetParam()};
    pair.b.port->pause(*pair.server.link);
    pair.client.put(pattern(4u << 20), true);
    pair.client.flush();
    pair.client.close(How::drain);
    pair.settle();
    EXPECT_EQ(pair.client.closes, 0) << "draining waits for the reader";
    pair.client.close(How::finish);
    pair.settle();
    EXPECT_EQ(pair.client.closes, 0);
    pair.client.close(How::abort);
    ASSERT_TRUE(pair.until([&] { return pair.client.over() && pair.server.over(); }));
    EXPECT_EQ(pair.client.why, Errc::closed);
    EXPECT_EQ(pair.server.why, Errc::reset);
}

// Goal: a link's memory is used again, and what was meant for the former link does not reach the next one.
TEST_P(InprocEndTest, DropsWhatWasMeantForAFormerLink) {
    Pair pair{GetParam()};
    for (int round = 0; round < 50; ++round) {
        End client(pair.a), server(pair.b);
        pair.door.ready.push_back(&server);
        client.connect(pair.url);
        ASSERT_TRUE(pair.until([&] { return client.opens == 1 && server.opens == 1; }));
        client.put(pattern(40), true);
        client.put(pattern(4000), true);
        client.flush();
        if (round % 2 == 0) server.close(How::abort);
        else client.close(How::abort);
        ASSERT_TRUE(pair.until([&] { return client.over() && server.over(); }));
    }
    pair.client.send("only this", true);
    ASSERT_TRUE(pair.until([&] { return pair.server.received == "only this"; }));
    EXPECT_EQ(pair.server.deliveries, 1);
}

// Goal: closing works while the ring is full: the peer hears of it when there is room, and only then the link retires.
TEST_P(InprocEndTest, AbortsThroughAFullRing) {
    Pair pair{GetParam()};
    std::deque<End> ends, server_ends;
    const auto all = [](std::deque<End>& list, auto wanted) { return std::all_of(list.begin(), list.end(), wanted); };
    for (int i = 0; i < 5; ++i) {
        pair.door.ready.push_back(&server_ends.emplace_back(pair.b));
        ends.emplace_back(pair.a).connect(pair.url);
    }
    ASSERT_TRUE(pair.until([&] { return all(ends, [](End& e) { return e.opens == 1; }); }));
    for (int i = 0; i < 2000; ++i) pair.client.put(pattern(300), true);
    EXPECT_EQ(pair.client.flush(), Flushed::blocked);
    for (End& end : ends) end.close(How::abort);
    pair.a.turn(GetParam().two_loops ? 64 : 1);
    EXPECT_TRUE(all(ends, [](End& e) { return e.closes == 1; })) << "closed() does not wait for the peer";
    EXPECT_EQ(ends.back().retires, 0) << "retired() waits until the peer was told";
    ASSERT_TRUE(pair.until([&] { return all(ends, [](End& e) { return e.over(); }) && all(server_ends, [](End& e) { return e.over(); }); }));
    for (End& end : server_ends) EXPECT_EQ(end.why, Errc::reset);
    EXPECT_TRUE(pair.until([&] { return pair.server.received_bytes == 600'000; }));
}

// -- ports that go away ----------------------------------------------------------------------------------------

class InprocPortDeathTest : public testing::TestWithParam<Where> {};

TEST_P(InprocPortDeathTest, ResetsThePeersOfAPortThatGoes) {
    for (const bool server_goes : {false, true}) {
        SCOPED_TRACE(server_goes);
        Pair pair{GetParam()};
        pair.client.put(pattern(400'000), true);
        pair.client.flush();
        pair.server.put(pattern(400), true);
        pair.server.flush();
        End& goes = server_goes ? pair.server : pair.client;
        End& stays = server_goes ? pair.client : pair.server;
        goes.abandoned = true;
        goes.loop->enter();
        goes.outbox.clear();
        goes.loop->end();
        for (int i = 0; i < 10; ++i) stays.loop->turn();
        EXPECT_TRUE(stays.over());
        EXPECT_EQ(stays.why, Errc::reset);
        EXPECT_EQ(stays.received_bytes, server_goes ? 400u : 400'000u) << "what had left arrives before the reset";
    }
}

TEST_P(InprocPortDeathTest, RefusesConnectsOnTheirWay) {
    Pair pair{GetParam(), "dying", false};
    pair.client.connect(pair.url);
    pair.b.end();
    for (int i = 0; i < 3; ++i) pair.a.turn();
    EXPECT_TRUE(pair.client.over());
    EXPECT_EQ(pair.client.why, Errc::refused);
    End late(pair.a);
    late.connect(pair.url);
    pair.a.turn();
    EXPECT_EQ(late.why, Errc::refused);
}

// Goal: a port that finished its links in order before it went leaves the peers to end in order.
TEST_P(InprocPortDeathTest, LetsAPeerEndInOrderAfterAFinish) {
    Pair pair{GetParam()};
    pair.server.send("bye", true);
    pair.server.close(How::finish);
    for (int i = 0; i < 3; ++i) pair.b.turn();
    ASSERT_TRUE(pair.server.over());
    pair.b.end();
    for (int i = 0; i < 3; ++i) pair.a.turn();
    EXPECT_EQ(pair.client.received, "bye");
    EXPECT_EQ(pair.client.ends, 1);
    EXPECT_EQ(pair.client.closes, 0);
    pair.client.close(How::drain);
    for (int i = 0; i < 3; ++i) pair.a.turn();
    EXPECT_TRUE(pair.client.over());
    EXPECT_EQ(pair.client.why, Errc::end);
}

// Goal: both ports go without ever polling again; nothing leaks (the address sanitizer looks).
TEST_P(InprocPortDeathTest, LeaksNothingWhenBothGo) {
    for (const bool server_first : {false, true}) {
        Pair pair{GetParam()};
        pair.client.put(pattern(500'000), true, 10'000);
        pair.client.flush();
        pair.server.put(pattern(500'000), true, 10'000);
        pair.server.flush();
        pair.b.port->pause(*pair.server.link);
        pair.b.turn();
        for (End* end : {&pair.client, &pair.server}) {
            end->abandoned = true;
            end->loop->enter();
            end->outbox.clear();
        }
        (server_first ? pair.b : pair.a).end();
        (server_first ? pair.a : pair.b).end();
    }
}

// Goal: the other links of a loop go on when one peer's port is gone, and a new port can take the name.
TEST_P(InprocPortDeathTest, GoesOnWithOtherPorts) {
    Pair pair{GetParam()};
    FakeLoop third;
    Door door;
    const std::string url = fresh_name("third");
    door.listen(third, url);
    End client(pair.a), server(third);
    door.ready.push_back(&server);
    client.connect(url);
    for (int i = 0; i < 5; ++i) pair.a.turn(), third.turn();
    ASSERT_EQ(client.opens + server.opens, 2);
    pair.server.abandoned = true;
    pair.b.end();
    for (int i = 0; i < 5; ++i) pair.a.turn(), third.turn();
    EXPECT_TRUE(pair.client.over());
    client.send("hello", true);
    for (int i = 0; i < 5; ++i) pair.a.turn(), third.turn();
    EXPECT_EQ(server.received, "hello");
    Door again;
    again.listen(third, pair.url);
    End second(pair.a), second_server(third);
    again.ready.push_back(&second_server);
    second.connect(pair.url);
    for (int i = 0; i < 5; ++i) pair.a.turn(), third.turn();
    EXPECT_EQ(second.opens + second_server.opens, 2);
    client.close(How::abort);
    second.close(How::abort);
    for (int i = 0; i < 5; ++i) pair.a.turn(), third.turn();
}

INSTANTIATE_TEST_SUITE_P(Inproc, InprocEndTest, everywhere(), name_of_where);
INSTANTIATE_TEST_SUITE_P(Inproc, InprocPortDeathTest, testing::Values(Where{true, false}, Where{true, true}), name_of_where);

}  // namespace
}  // namespace evpl::transport::inproc_test
