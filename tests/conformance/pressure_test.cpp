// Back-pressure: what waits is bounded, who is too fast is paused, who is too slow is noticed.
#include "support/world.hpp"

namespace evpl::test {
namespace {

class PressureTest : public TransportTest {};

/// `reader` does not read, and `sender` sends until it is stopped. False: it never is.
[[nodiscard]] bool fill(World& world, PlainPeer& sender, PlainPeer& reader, Pump& pump) {
    reader.when_recv = [](Connection&) {};
    sender.when_writable = std::ref(pump);
    pump(*sender.get());
    return world.until_stuck(pump);
}

// Goal: a reader that does not read stops the sender at the marks, in bounded memory; once it reads, all arrives.
TEST_P(PressureTest, StopsTheSenderOfAReaderThatDoesNotRead) {
    EVPL_NEEDS(receive_pause);
    PatternCheck check;
    Pump pump{.total = 48u << 20, .least = 10'000};
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    ASSERT_TRUE(fill(world, client, server, pump)) << "the sender is not stopped";
    EXPECT_LT(pump.sent, pump.total);
    EXPECT_GT(pump.pauses, 0u);
    const QueueLimits limits = client.get()->limits();
    EXPECT_LE(client.get()->queued(), limits.send_high + pump.most);
    EXPECT_LE(server.get()->available(), limits.receive + world.loop().options().batch_bytes + pump.most);
    EXPECT_LE(world.loop().metrics().slab_bytes, 32u << 20);
    EXPECT_GE(server.get()->metrics().receive_pauses, 1u);
    EXPECT_GE(client.get()->metrics().send_pauses, 1u);

    server.when_recv = [&](Connection& c) { check.take_all(c); };
    server.when_recv(*server.get());
    EXPECT_TRUE(world.until([&] { return check.bytes >= pump.total || !check.good; }, 40_s)) << check.bytes;
    EXPECT_TRUE(check.good);
    EXPECT_EQ(check.bytes, pump.total);
}

// Goal: who does not read for now may send as much as it likes, also to a peer that can send nothing more; and two that neither read nor can
// send fall silent.
TEST_P(PressureTest, SendsOnWhileItDoesNotReadItself) {
    EVPL_NEEDS(receive_pause);
    PatternCheck check{.key = 9};
    Pump to_server{.total = 48u << 20, .least = 10'000}, to_client{.key = 9, .total = 8u << 20, .most = 50'000}, more{.key = 10, .total = 48u << 20};
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    ASSERT_TRUE(fill(world, client, server, to_server));

    server.when_writable = std::ref(to_client);
    client.when_recv = [&](Connection& c) { check.take_all(c); };
    to_client(*server.get());
    EXPECT_TRUE(world.until([&] { return check.bytes >= to_client.total || !check.good; }, 40_s)) << check.bytes;
    EXPECT_TRUE(check.good);

    ASSERT_TRUE(fill(world, server, client, more));
    const LoopMetrics before = world.loop().metrics();
    drive_for(world.loop(), 200_ms);
    const LoopMetrics after = world.loop().metrics();
    const std::uint64_t work = (after.turns - after.empty_polls) - (before.turns - before.empty_polls);
    EXPECT_LE(work, 10u) << "they tell each other the same again and again";
}

// Goal: a reader that takes a little in each turn gets everything, and never more than its limit waits.
TEST_P(PressureTest, ServesASlowReaderWithinItsLimit) {
    EVPL_NEEDS(receive_pause);
    PatternCheck check;
    std::size_t most_waiting = 0;
    Pump pump{.total = reduced ? 512u << 10 : 3u << 20, .most = 20'000};
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    QueueLimits limits = server.get()->limits();
    limits.receive = 64u << 10;
    server.get()->set_limits(limits);
    EXPECT_EQ(server.get()->limits().receive, limits.receive);
    server.when_recv = [](Connection&) {};
    client.when_writable = std::ref(pump);
    pump(*client.get());
    EXPECT_TRUE(world.until(
        [&] {
            most_waiting = std::max(most_waiting, server.get()->available());
            check.take(server.get()->recv(16u << 10));
            return check.bytes >= pump.total || !check.good;
        },
        40_s))
        << check.bytes;
    EXPECT_TRUE(check.good);
    EXPECT_LE(most_waiting, limits.receive + world.loop().options().batch_bytes + pump.most);
}

// Goal: send says pause from the high-water mark on, and on_writable comes at the low one.
TEST_P(PressureTest, PausesAtTheHighMarkAndResumesAtTheLowOne) {
    const std::string piece = pattern(16u << 10);
    std::size_t at_writable = SIZE_MAX;
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    Connection& c = *client.get();
    QueueLimits limits = c.limits();
    limits.send_high = 256u << 10;
    limits.send_low = 64u << 10;
    c.set_limits(limits);
    client.when_writable = [&](Connection& now) { at_writable = std::min(at_writable, now.queued()); };
    EXPECT_GE(c.send_room(), limits.send_high);
    Flow flow = Flow::State::go;
    for (int i = 0; i < 1000 && flow; ++i) {
        const std::size_t below = limits.send_high - c.queued();  // a message transport has room for whole messages
        EXPECT_EQ(c.send_room(), c.caps().kind == Kind::message ? std::max<std::size_t>(below, c.caps().message_bytes_max) : below);
        flow = c.send(piece);
        ASSERT_EQ(bool(flow), c.queued() < limits.send_high) << "go below the mark only";
    }
    ASSERT_TRUE(flow.paused());
    EXPECT_EQ(c.send_room(), 0u);
    EXPECT_TRUE(world.until([&] { return at_writable != SIZE_MAX; }));
    EXPECT_LE(at_writable, limits.send_low);
    EXPECT_EQ(client.writables, 1);
    EXPECT_TRUE(world.until([&] { return c.queued() == 0; }));
}

// Goal: try_send takes what fits and leaves what does not, untouched.
TEST_P(PressureTest, TriesToSendWithoutGoingOver) {
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    Connection& c = *client.get();
    QueueLimits limits = c.limits();
    limits.send_high = 20'000;
    limits.send_low = 10'000;
    c.set_limits(limits);
    Chain small = chain_of(world.loop(), pattern(15'000), 15'000), large = chain_of(world.loop(), pattern(9000), 1000);
    EXPECT_TRUE(c.try_send(small));
    EXPECT_TRUE(small.empty());
    EXPECT_FALSE(c.try_send(large));
    EXPECT_EQ(large.size(), 9000u);
    EXPECT_EQ(text_of(large), pattern(9000));
    EXPECT_TRUE(world.until([&] { return c.queued() == 0; }));
    EXPECT_TRUE(c.try_send(large));
    EXPECT_TRUE(world.until([&] { return server.received.size() == 24'000; }));
}

// Goal: a send past the hard limit ends the connection with send_limit instead of filling the memory.
TEST_P(PressureTest, EndsPastTheHardLimit) {
    EVPL_NEEDS(receive_pause);
    const std::string piece = pattern(32u << 10);
    Errc answer = Errc::none;
    PlainPeer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    server.when_recv = [](Connection&) {};
    QueueLimits limits = client.get()->limits();
    limits.send_hard = 4u << 20;
    client.get()->set_limits(limits);
    std::size_t most = 0;
    for (int i = 0; i < 1000 && answer == Errc::none; ++i) {
        answer = client.get()->send(piece).error();
        if (answer == Errc::none) most = std::max(most, client.get()->queued());
    }
    EXPECT_EQ(answer, Errc::send_limit);
    EXPECT_LE(most, limits.send_hard);
    EXPECT_TRUE(world.until([&] { return client.closed(); }));
    EXPECT_EQ(client.closed_with, Errc::send_limit);
    EXPECT_EQ(client.closed_with.who(), Who::local);
}

// Goal: a peer that never sends is noticed by deadline_recv, not early and not much later.
TEST_P(PressureTest, NoticesAPeerThatNeverSends) {
    PlainPeer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    const Stopwatch watch;
    server.get()->deadline_recv(120_ms);
    EXPECT_TRUE(world.until_closed(server, client));
    EXPECT_GE(watch.elapsed(), 120_ms);
    EXPECT_LT(watch.elapsed(), 1_s * patience);
    EXPECT_EQ(server.closed_with, Errc::timed_out);
    EXPECT_EQ(server.closed_with.step(), Step::recv);
    EXPECT_TRUE(is_departure(client.closed_with)) << client.closed_with;
}

// Goal: each byte that arrives puts deadline_recv off; turning it off ends it.
TEST_P(PressureTest, CountsIdleTimeFromTheLastByte) {
    constexpr Duration deadline = 200_ms, stall = 100_ms;
    constexpr int bytes = 15;
    for (int attempt = 0; attempt < 20; ++attempt) {
        PlainPeer server, client;
        World world{GetParam()};
        ASSERT_TRUE(world.open(server, client));
        server.get()->deadline_recv(deadline);
        Duration longest;  // between two bytes, on a machine that may have other things to do
        for (int i = 0; i < bytes && !server.closed(); ++i) {
            const Stopwatch watch;
            client.get()->send("x");
            drive_for(world.loop(), 20_ms);
            longest = std::max(longest, watch.elapsed());
        }
        if (longest >= stall) continue;  // nothing can be told
        ASSERT_FALSE(server.closed()) << "with bytes never more than " << longest.ns / 1'000'000 << " ms apart";
        server.get()->deadline_recv(Duration::forever());
        drive_for(world.loop(), deadline + 100_ms);
        EXPECT_FALSE(server.closed());
        EXPECT_EQ(server.received.size(), std::size_t(bytes));
        return;
    }
    GTEST_SKIP() << "the machine never ran this for " << bytes << " times 20 ms without a stall of 100 ms";
}

// Goal: queued bytes that make no progress are noticed by deadline_send.
TEST_P(PressureTest, NoticesAPeerThatNeverReads) {
    EVPL_NEEDS(receive_pause);
    Pump pump{.total = 64u << 20};
    PlainPeer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    server.when_recv = [](Connection&) {};
    client.get()->deadline_send(200_ms);
    client.when_writable = std::ref(pump);
    pump(*client.get());
    EXPECT_TRUE(world.until([&] { return client.closed(); }));
    EXPECT_EQ(client.closed_with, Errc::timed_out);
    EXPECT_EQ(client.closed_with.step(), Step::send);
    EXPECT_LT(pump.sent, pump.total);
}

// Goal: deadline_send leaves a connection with nothing to send alone, and one whose bytes move.
TEST_P(PressureTest, KeepsConnectionsThatMakeProgress) {
    PatternCheck check;
    Pump pump{.total = 8u << 20};
    PlainPeer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    server.when_recv = [&](Connection& c) { check.take_all(c); };
    client.get()->deadline_send(150_ms * patience);
    drive_for(world.loop(), 250_ms * patience);
    ASSERT_FALSE(client.closed()) << "idle is not stalled";
    client.when_writable = std::ref(pump);
    pump(*client.get());
    EXPECT_TRUE(world.until([&] { return check.bytes >= pump.total; }));
    EXPECT_TRUE(check.good);
    drive_for(world.loop(), 250_ms * patience);
    EXPECT_FALSE(client.closed());
}

// Goal: who stands still himself, in a callback or with the whole process, does not take it for the peer's stall.
TEST_P(PressureTest, DoesNotTakeItsOwnStallForThePeers) {
    EVPL_NEEDS(receive_pause);
    PatternCheck check;
    Pump pump{.total = 16u << 20};
    PlainPeer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    ASSERT_TRUE(fill(world, client, server, pump));
    const Duration deadline = 50_ms * patience;
    client.get()->deadline_send(deadline);
    server.when_recv = [&](Connection& c) { check.take_all(c); };
    check.take_all(*server.get());  // there is room now, and this loop will hear of it late
    for (const Stopwatch watch; watch.elapsed() < deadline + 20_ms;) {}
    EXPECT_TRUE(world.until([&] { return check.bytes >= pump.total || client.closed(); }));
    EXPECT_FALSE(client.closed()) << client.closed_with;
    EXPECT_TRUE(check.good);
    EXPECT_EQ(check.bytes, pump.total);
}

// Goal: a loop that is always late gets rid of a stuck peer all the same.
TEST_P(PressureTest, EndsAStuckPeerThoughItIsAlwaysLateItself) {
    EVPL_NEEDS(receive_pause);
    Pump pump{.total = 64u << 20};
    PlainPeer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    ASSERT_TRUE(fill(world, client, server, pump));
    client.get()->deadline_send(10_ms);
    int stalls = 0;
    for (; stalls < 50 && !client.closed(); ++stalls) {
        for (const Stopwatch watch; watch.elapsed() < 20_ms;) {}
        drive_for(world.loop(), 1_ms);
    }
    EXPECT_TRUE(client.closed());
    EXPECT_EQ(client.closed_with, Errc::timed_out);
    EXPECT_GT(stalls, 3) << "the loop's own stalls are counted as the peer's";
}

// Goal: limits can be lowered below what waits already; nothing is lost.
TEST_P(PressureTest, LosesNothingWhenLimitsAreLowered) {
    EVPL_NEEDS(receive_pause);
    PatternCheck check;
    Pump pump{.total = 2u << 20};
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    server.when_recv = [](Connection&) {};
    client.when_writable = std::ref(pump);
    pump(*client.get());
    ASSERT_TRUE(world.until([&] { return server.get()->available() > 500'000; }));
    QueueLimits limits = server.get()->limits();
    limits.receive = 1000;
    server.get()->set_limits(limits);
    drive_for(world.loop(), 20_ms);
    EXPECT_TRUE(world.until([&] {
        check.take(server.get()->recv(300'000));
        return check.bytes >= pump.total || !check.good;
    }));
    EXPECT_TRUE(check.good);
}

INSTANTIATE_TEST_SUITE_P(Conformance, PressureTest, connection_rows(), name_of_row);

}  // namespace
}  // namespace evpl::test
