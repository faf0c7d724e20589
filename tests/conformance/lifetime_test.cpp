// Who lives how long: references, listeners, the loop, and stopping with everything alive.
#include <thread>

#include "support/sockets.hpp"
#include "support/world.hpp"

namespace evpl::test {
namespace {

class LifetimeTest : public TransportTest {};

/// `count` connections between two crowds.
[[nodiscard]] bool open_many(World& world, Crowd& servers, Crowd& clients, std::size_t count) {
    if (world.listen(servers) == nullptr) return false;
    for (std::size_t i = 0; i < count; ++i) world.dial(clients);
    return world.until([&] { return servers.members.size() == count && clients.members.size() == count; });
}

// Goal: a reference turns null when its connection has closed, and stays so when the slot is used again.
TEST_P(LifetimeTest, TurnsReferencesNullForGood) {
    std::vector<ConnectionRef> old;
    for (int round = 0; round < 3; ++round) {
        PlainPeer server, client;
        World world{GetParam()};
        for (int i = 0; i < 20; ++i) {
            PlainPeer one_server, one_client;
            ASSERT_TRUE(world.open(one_server, one_client));
            const ConnectionRef ref = one_client.ref;
            EXPECT_EQ(ref, one_client.get()->ref());
            one_client.when_close = [&](Connection& c, Error) { EXPECT_TRUE(ref.get() == nullptr || ref.get() == &c); };
            one_client.get()->close();
            ASSERT_TRUE(world.until_closed(one_server, one_client));
            for (const ConnectionRef& former : old) {
                ASSERT_EQ(former.get(), nullptr);
                ASSERT_FALSE(former == ref) << "no two connections have one name";
            }
            EXPECT_EQ(ref.get(), nullptr);
            old.push_back(ref);
        }
    }
    EXPECT_EQ(ConnectionRef().get(), nullptr);
}

// Goal: dropping a listener stops accepting and leaves its connections.
TEST_P(LifetimeTest, KeepsConnectionsWhenTheirListenerIsDropped) {
    Peer server, client;
    PlainPeer late;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    world.stop_listening();
    client.get()->send("hello");
    EXPECT_TRUE(world.until([&] { return server.received == "hello"; }));
    world.dial(late, within(3_s * patience));
    EXPECT_TRUE(world.until([&] { return late.closed(); }));
    EXPECT_TRUE(is_refusal(late.closed_with)) << late.closed_with;
    server.get()->send("and back");
    EXPECT_TRUE(world.until([&] { return client.received == "and back"; }));
}

// Goal: at the limit of open connections accepting waits, and goes on when one closes.
TEST_P(LifetimeTest, AcceptsUpToTheLimitOfAListener) {
    Crowd servers;
    std::deque<PlainPeer> clients(5);
    World world{GetParam()};
    Listener* listener = world.listen(servers);
    ASSERT_NE(listener, nullptr);
    listener->limit_connections(3);
    for (PlainPeer& client : clients) client.ref = world.dial(client);
    ASSERT_TRUE(world.until([&] { return servers.members.size() == 3; }));
    drive_for(world.loop(), 50_ms);
    EXPECT_EQ(servers.members.size(), 3u);
    EXPECT_EQ(listener->metrics().open, 3u);
    servers.members[0].get()->close();
    servers.members[1].get()->close();
    EXPECT_TRUE(world.until([&] { return servers.members.size() == 5; }));
    drive_for(world.loop(), 20_ms);
    EXPECT_EQ(listener->metrics().open, 3u);
    listener->limit_connections(0);
}

// Goal: a paused listener accepts nobody; resumed, it accepts who waited.
TEST_P(LifetimeTest, PausesAndResumesAccepting) {
    Crowd servers;
    PlainPeer client;
    World world{GetParam()};
    Listener* listener = world.listen(servers);
    ASSERT_NE(listener, nullptr);
    listener->pause();
    world.dial(client);
    drive_for(world.loop(), 50_ms);
    EXPECT_TRUE(servers.members.empty());
    listener->resume();
    EXPECT_TRUE(world.until([&] { return servers.members.size() == 1 && client.open(); }));
}

// Goal: one callback may send the same buffer to all connections.
TEST_P(LifetimeTest, BroadcastsFromOneCallback) {
    constexpr std::size_t count = 200;
    constexpr std::size_t size = 5000;
    Crowd servers, clients;
    World world{GetParam()};
    ASSERT_TRUE(open_many(world, servers, clients, count));
    servers.when_recv = [&](Connection& c) {
        auto text = c.loop().copy(pattern(size));
        ASSERT_TRUE(text.ok());
        for (const ConnectionRef& member : servers.members) EXPECT_EQ(member.get()->send(Chain(text->share())).error(), Errc::none);
    };
    clients.members[0].get()->send("!");
    EXPECT_TRUE(world.until([&] { return clients.heard >= count * size; })) << clients.heard;
    EXPECT_EQ(clients.heard, count * size);
}

// Goal: one callback may close all connections, its own among them.
TEST_P(LifetimeTest, ClosesAllFromOneCallback) {
    constexpr std::size_t count = 200;
    Crowd servers, clients;
    World world{GetParam()};
    ASSERT_TRUE(open_many(world, servers, clients, count));
    servers.when_recv = [&](Connection&) {
        for (const ConnectionRef& member : servers.members)
            if (Connection* other = member.get()) other->close();
        EXPECT_EQ(servers.closes, 0);
    };
    clients.members[7].get()->send("!");
    EXPECT_TRUE(world.until([&] { return servers.closes == int(count) && clients.closes == int(count); }));
    for (const Error& why : servers.reasons) EXPECT_EQ(why, Errc::closed);
    for (const Error& why : clients.reasons) EXPECT_TRUE(is_departure(why)) << why;
}

// Goal: stop() ends run() after every connection had its on_close(stopped).
TEST_P(LifetimeTest, StopsWithEverythingAlive) {
    constexpr std::size_t count = 50;
    Crowd servers, clients;
    World world{GetParam()};
    ASSERT_TRUE(open_many(world, servers, clients, count));
    auto timer = world.loop().after(5_ms, [&] { world.loop().stop(); });
    EXPECT_EQ(world.loop().run(), 0);
    EXPECT_EQ(servers.closes, int(count));
    EXPECT_EQ(clients.closes, int(count));
    for (const Error& why : servers.reasons) EXPECT_TRUE(why == Errc::stopped || is_departure(why)) << why;
    EXPECT_GT(std::count_if(servers.reasons.begin(), servers.reasons.end(), [](Error e) { return e == Errc::stopped; }), 0);
}

// Goal: stop() from within a callback works as from elsewhere.
TEST_P(LifetimeTest, StopsFromACallback) {
    PlainPeer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    server.when_recv = [](Connection& c) { c.loop().stop(); };
    client.get()->send("stop");
    EXPECT_EQ(world.loop().run(), 0);
    EXPECT_EQ(server.closes + client.closes, 2);
    EXPECT_EQ(server.closed_with, Errc::stopped);
}

// Goal: stop(within) lets what is queued arrive before it ends.
TEST_P(LifetimeTest, DrainsBeforeItStops) {
    PatternCheck check;
    Pump pump{.total = 450'000};
    PlainPeer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    server.when_recv = [&](Connection& c) { check.take_all(c); };
    pump(*client.get());
    ASSERT_TRUE(pump.done());
    const Stopwatch watch;
    world.loop().stop(within(20_s));
    EXPECT_TRUE(world.loop().stopping());
    EXPECT_EQ(world.loop().run(), 0);
    EXPECT_LT(watch.elapsed(), 10_s * patience) << "nobody kept it waiting";
    EXPECT_TRUE(check.good);
    EXPECT_EQ(check.bytes, pump.total);
    EXPECT_EQ(server.closes + client.closes, 2);
    EXPECT_EQ(client.closed_with, Errc::end) << client.closed_with;
}

// Goal: stop(within) ends at its limit when a peer does not follow.
TEST_P(LifetimeTest, StopsAtTheLimitOfTheDrain) {
    EVPL_NEEDS(receive_pause);
    // More than the buffers of any kernel have room for (Linux: 4 MiB to send and at most 32 MiB to receive), whenever that is that they grow:
    // a queue that is only stuck for now could drain after all, and then nobody waits for the limit.
    constexpr std::uint32_t plenty = 48u << 20;
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    server.when_recv = [](Connection&) {};
    Connection& c = *client.get();
    QueueLimits limits = c.limits();
    limits.send_high = plenty;
    limits.send_hard = 2 * plenty;
    c.set_limits(limits);
    auto piece = world.loop().copy(pattern(16u << 10));
    ASSERT_TRUE(piece.ok());
    while (c.queued() < plenty) ASSERT_EQ(c.send(Chain(piece->share())).error(), Errc::none);
    const Stopwatch watch;
    world.loop().stop(within(150_ms));
    EXPECT_EQ(world.loop().run(), 0);
    EXPECT_GE(watch.elapsed(), 150_ms);
    EXPECT_LT(watch.elapsed(), 3_s * patience);
    EXPECT_EQ(server.closes + client.closes, 2);
    EXPECT_EQ(client.closed_with, Errc::stopped) << client.closed_with;
}

// Goal: a loop that is destroyed closes what is left, each with its on_close, in whatever state it is.
TEST_P(LifetimeTest, ClosesWhatIsLeftWhenTheLoopIsDestroyed) {
    Pump pump{.total = 8u << 20};
    Peer server, client;
    PlainPeer connecting;
    {
        World world{GetParam()};
        ASSERT_TRUE(world.open(server, client));
        server.when_recv = [](Connection&) {};
        pump(*client.get());
        drive_for(world.loop(), 5_ms);
        world.stop_listening();
        auto listener = listen(world.loop(), fresh_url(GetParam()), [](Connection&) -> Result<PlainPeer> { return Errc::refused_by_handler; });
        ASSERT_TRUE(listener.ok());
        world.dial(connecting);
    }
    EXPECT_EQ(server.closes, 1);
    EXPECT_EQ(client.closes, 1);
    EXPECT_EQ(connecting.closes, 1);
    EXPECT_EQ(connecting.opens, 0);
    EXPECT_EQ(client.ref.get(), nullptr);
}

// Goal: a listener may outlive its loop; it is then empty of effect.
TEST_P(LifetimeTest, LetsAListenerOutliveItsLoop) {
    PlainPeer server;
    World world{GetParam()};
    auto listener = listen(world.loop(), fresh_url(GetParam()), server);
    ASSERT_TRUE(listener.ok());
    Listener kept = *std::move(listener);
    world.end_loop_only();
    kept.pause();
    kept.close();
}

// Goal: run_until_idle returns once the last connection has ended and nothing else is left.
TEST_P(LifetimeTest, RunsUntilNothingIsLeft) {
    PlainPeer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    world.stop_listening();
    client.get()->send("bye");
    client.get()->shutdown();
    EXPECT_EQ(world.loop().run_until_idle(), 0);
    EXPECT_EQ(server.received, "bye");
    EXPECT_EQ(server.closes + client.closes, 2);
}

INSTANTIATE_TEST_SUITE_P(Conformance, LifetimeTest, connection_rows(), name_of_row);

}  // namespace
}  // namespace evpl::test
