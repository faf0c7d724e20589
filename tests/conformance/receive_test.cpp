// Pull: recv, recv_exactly, peek and consume, recv_into.
#include "support/world.hpp"

namespace evpl::test {
namespace {

class ReceiveTest : public TransportTest {};
class StreamReceiveTest : public TransportTest {};

// Goal: recv(max) gives no more than max, and the rest stays.
TEST_P(ReceiveTest, HandsOverNoMoreThanAskedFor) {
    const std::string text = pattern(10'000);
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    server.when_recv = [](Connection&) {};  // reads later
    client.get()->send(text);
    ASSERT_TRUE(world.until([&] { return server.get()->available() == text.size(); }));
    EXPECT_TRUE(server.get()->recv(0).empty());
    std::string got;
    while (server.get()->available() > 0) {
        const std::size_t before = server.get()->available();
        const Chain piece = server.get()->recv(7);
        ASSERT_EQ(piece.size(), std::min<std::size_t>(7, before));
        ASSERT_EQ(server.get()->available(), before - piece.size());
        got += text_of(piece);
    }
    EXPECT_EQ(got, text);
    EXPECT_TRUE(server.get()->recv().empty());
}

// Goal: what was not read in on_recv is still there later, and more of it joins behind.
TEST_P(ReceiveTest, KeepsWhatIsNotRead) {
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    server.when_recv = [](Connection&) {};
    client.get()->send("one ");
    ASSERT_TRUE(world.until([&] { return server.get()->available() == 4; }));
    client.get()->send("two");
    ASSERT_TRUE(world.until([&] { return server.get()->available() == 7; }));
    server.drain(*server.get());
    EXPECT_EQ(server.received, "one two");
}

// Goal: peek shows the bytes and leaves them; consume drops them.
TEST_P(ReceiveTest, PeeksWithoutTaking) {
    const std::string text = pattern(3000);
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    server.when_recv = [](Connection&) {};
    client.get()->send(text);
    ASSERT_TRUE(world.until([&] { return server.get()->available() == text.size(); }));
    Connection& c = *server.get();
    std::string seen(100, '\0');
    EXPECT_EQ(c.peek(std::as_writable_bytes(std::span(seen))), 100u);
    EXPECT_EQ(seen, text.substr(0, 100));
    EXPECT_EQ(c.available(), text.size());
    c.consume(60);
    EXPECT_EQ(c.peek(std::as_writable_bytes(std::span(seen))), 100u);
    EXPECT_EQ(seen, text.substr(60, 100));
    EXPECT_EQ(text_of(c.recv()), text.substr(60));
    EXPECT_EQ(c.peek(std::as_writable_bytes(std::span(seen))), 0u);
}

// Goal: recv_exactly gives nothing until all is there, and then exactly that.
TEST_P(StreamReceiveTest, ReceivesExactlyWhatWasAskedFor) {
    const std::string text = pattern(100'000);
    std::string got;
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    server.when_recv = [&](Connection& c) {
        while (true) {
            auto bytes = c.recv_exactly(25'000);
            ASSERT_TRUE(bytes.ok()) << bytes.error();
            if (bytes->empty()) return;
            EXPECT_EQ(bytes->size(), 25'000u);
            got += text_of(*bytes);
        }
    };
    for (std::size_t at = 0; at < text.size(); at += 10'000) {
        client.get()->send(std::string_view(text).substr(at, 10'000));
        drive_for(world.loop(), 2_ms);
        EXPECT_EQ(got.size() % 25'000, 0u);
    }
    EXPECT_TRUE(world.until([&] { return got.size() >= text.size(); }));
    EXPECT_EQ(got, text);
}

// Goal: recv_exactly raises the receive limit, so that a record larger than it can be had.
TEST_P(StreamReceiveTest, RaisesTheReceiveLimitToTheRecord) {
    constexpr std::uint32_t size = 3u << 20;
    PatternCheck check;
    Pump pump{.total = size};
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    QueueLimits limits = server.get()->limits();
    limits.receive = 4096;
    server.get()->set_limits(limits);
    server.when_recv = [&](Connection& c) {
        auto bytes = c.recv_exactly(size);
        ASSERT_TRUE(bytes.ok()) << bytes.error();
        check.take(*bytes);
    };
    client.when_writable = std::ref(pump);
    pump(*client.get());
    EXPECT_TRUE(world.until([&] { return check.bytes > 0; }));
    EXPECT_EQ(check.bytes, size);
    EXPECT_TRUE(check.good);
}

// Goal: a record beyond limits().message is refused, and the connection lives on.
TEST_P(StreamReceiveTest, RefusesToWaitForTooMuch) {
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    QueueLimits limits = server.get()->limits();
    limits.message = 1000;
    server.get()->set_limits(limits);
    EXPECT_EQ(server.get()->recv_exactly(1001).error(), Errc::too_large);
    client.get()->send("alive");
    EXPECT_TRUE(world.until([&] { return server.received == "alive"; }));
}

// Goal: recv_exactly tells when the peer finished too early, in an event, so that nobody waits for ever.
TEST_P(StreamReceiveTest, TellsThatThePeerFinishedBefore) {
    Error told;
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    server.when_recv = [&](Connection& c) {
        auto bytes = c.recv_exactly(100);
        if (bytes) return;
        told = bytes.error();
        c.close();
    };
    client.get()->send(pattern(50));
    client.get()->shutdown();
    EXPECT_TRUE(world.until([&] { return server.closed(); }));
    EXPECT_EQ(told, Errc::end);
    EXPECT_EQ(server.ends, 0) << "the inbox was never empty";
}

// Goal: the same when the end comes long after the last byte.
TEST_P(StreamReceiveTest, TellsThatThePeerFinishedLater) {
    Error told;
    int asked = 0;
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    server.when_recv = [&](Connection& c) {
        ++asked;
        auto bytes = c.recv_exactly(100);
        if (bytes) return;
        told = bytes.error();
        c.close();
    };
    client.get()->send(pattern(50));
    ASSERT_TRUE(world.until([&] { return asked == 1; }));
    client.get()->shutdown();
    EXPECT_TRUE(world.until([&] { return server.closed(); }));
    EXPECT_EQ(told, Errc::end);
    EXPECT_EQ(asked, 2);
}

// Goal: who takes what is there after a recv_exactly that has to wait is told of every further byte again.
TEST_P(StreamReceiveTest, ForgetsRecvExactlyWhenLessIsTaken) {
    std::string taken;
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    server.when_recv = [&](Connection& c) {
        if (taken.empty()) {
            EXPECT_TRUE(c.recv_exactly(100)->empty());
        }
        taken += text_of(c.recv());
    };
    client.get()->send("some");
    ASSERT_TRUE(world.until([&] { return taken == "some"; }));
    client.get()->send("more");
    EXPECT_TRUE(world.until([&] { return taken == "somemore"; }));
}

// Goal: a receive deadline counts from the arrival of bytes, also when the loop had slept, or its hook had worked, for long before.
TEST_P(StreamReceiveTest, CountsADeadlineFromTheArrivalOfBytes) {
    struct Late {
        Peer& client;
        Stopwatch sent;
        bool done = false;
        static void before_wait(void* self, Loop& loop) {
            auto& late = *static_cast<Late*>(self);
            if (std::exchange(late.done, true)) return;
            EXPECT_GT(loop.now(), 0_s);  // the turn's time is that of before the wait
            for (const Stopwatch watch; watch.elapsed() < 60_ms * slowness;) {}
            late.sent.restart();
            late.client.get()->send("late");
            late.client.get()->flush();
        }
    };
    Peer server, client;
    World world{GetParam()};
    world.loop().set_mode(Mode::event);
    ASSERT_TRUE(world.open(server, client));
    Late late{client, {}};
    const Duration deadline = 300_ms * slowness;  // far more than the hook takes, also where others use the processor
    server.when_close = [&](Connection&, Error) { EXPECT_GE(late.sent.elapsed(), deadline); };
    server.get()->deadline_recv(deadline);
    world.loop().on_before_wait(&Late::before_wait, &late);
    EXPECT_TRUE(world.until([&] { return server.closed(); }));
    EXPECT_EQ(server.received, "late");
    EXPECT_EQ(server.closed_with, Errc::timed_out);
    world.loop().on_before_wait(nullptr, nullptr);
}

// Goal: recv_into fills the caller's block, says so once it is full, and what follows comes by recv.
TEST_P(StreamReceiveTest, LandsBytesInTheCallersBlock) {
    constexpr std::uint32_t size = 1u << 20;
    const std::string after = pattern(999, 1, size);
    Buffer landed;
    std::byte* block = nullptr;
    Pump pump{.total = size};
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    auto target = world.loop().allocate(size);
    ASSERT_TRUE(target.ok());
    block = target->data();
    ASSERT_TRUE(server.get()->recv_into(*std::move(target)).ok());
    EXPECT_TRUE(server.get()->landed().empty()) << "nothing has come yet";
    server.when_recv = [&](Connection& c) {
        if (landed.empty()) landed = c.landed();
        if (!landed.empty()) server.drain(c);
    };
    client.when_writable = [&](Connection& c) {
        pump(c);
        if (pump.done()) c.send(after), client.when_writable = nullptr;
    };
    client.when_writable(*client.get());
    EXPECT_TRUE(world.until([&] { return server.received.size() >= after.size(); }));
    ASSERT_EQ(landed.size(), size);
    EXPECT_EQ(landed.data(), block);
    EXPECT_EQ(pattern_mismatch(landed.bytes(), 1, 0), size);
    EXPECT_EQ(server.received, after);
    EXPECT_TRUE(server.get()->landed().empty()) << "it is given back once";
    landed.reset();
}

// Goal: bytes that wait in the inbox already land first.
TEST_P(StreamReceiveTest, LandsWhatWasQueuedFirst) {
    const std::string text = pattern(10'000);
    Buffer landed;
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    server.when_recv = [&](Connection& c) {
        if (landed.empty()) landed = c.landed();
    };
    client.get()->send(std::string_view(text).substr(0, 4000));
    ASSERT_TRUE(world.until([&] { return server.get()->available() == 4000; }));
    auto target = world.loop().allocate(9000);
    ASSERT_TRUE(target.ok());
    ASSERT_TRUE(server.get()->recv_into(*std::move(target)).ok());
    client.get()->send(std::string_view(text).substr(4000));
    ASSERT_TRUE(world.until([&] { return !landed.empty() && server.get()->available() == 1000; }));
    EXPECT_EQ(pattern_mismatch(landed.bytes(), 1, 0), 9000u);
    EXPECT_EQ(text_of(server.get()->recv()), text.substr(9000));
    landed.reset();
}

// Goal: a block that is wholly queued already is full at once, and on_recv still tells.
TEST_P(StreamReceiveTest, LandsABlockThatIsQueuedCompletely) {
    Buffer landed;
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    server.when_recv = [](Connection&) {};
    client.get()->send(pattern(5000));
    ASSERT_TRUE(world.until([&] { return server.get()->available() == 5000; }));
    auto target = world.loop().allocate(2000);
    ASSERT_TRUE(target.ok());
    ASSERT_TRUE(server.get()->recv_into(*std::move(target)).ok());
    server.when_recv = [&](Connection& c) { landed = c.landed(); };
    EXPECT_TRUE(world.until([&] { return !landed.empty(); }));
    EXPECT_EQ(pattern_mismatch(landed.bytes(), 1, 0), 2000u);
    EXPECT_EQ(server.get()->available(), 3000u);
    landed.reset();
}

// Goal: a second recv_into while one is under way is misuse and changes nothing.
TEST_P(StreamReceiveTest, AllowsOneLandingAtATime) {
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    auto first = world.loop().allocate(1000), second = world.loop().allocate(1000);
    ASSERT_TRUE(first.ok() && second.ok());
    EXPECT_TRUE(server.get()->recv_into(*std::move(first)).ok());
    EXPECT_EQ(server.get()->recv_into(*std::move(second)).error(), Errc::misuse);
    Buffer landed;
    server.when_recv = [&](Connection& c) {
        if (landed.empty()) landed = c.landed();
    };
    client.get()->send(pattern(1000));
    EXPECT_TRUE(world.until([&] { return landed.size() == 1000; }));
    landed.reset();
}

// Goal: what has landed when the peer ends comes back, before on_end: nothing that arrived is lost.
TEST_P(StreamReceiveTest, GivesBackWhatHasLandedWhenThePeerEnds) {
    Buffer landed, late;
    int ends_before = -1;
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    server.when_recv = [&](Connection& c) {
        if (landed) {
            late = c.landed();
            return;
        }
        landed = c.landed();
        ends_before = server.ends;
        EXPECT_TRUE(c.recv_into(*world.loop().allocate(100)).ok());
    };
    ASSERT_TRUE(server.get()->recv_into(*world.loop().allocate(50'000)).ok());
    client.get()->send(pattern(20'000));
    ASSERT_TRUE(world.until([&] { return server.get()->metrics().received_bytes == 20'000; }));
    client.get()->shutdown();
    ASSERT_TRUE(world.until([&] { return server.ends == 1; }));
    EXPECT_EQ(ends_before, 0);
    ASSERT_EQ(landed.size(), 20'000u);
    EXPECT_EQ(std::string_view(reinterpret_cast<const char*>(landed.data()), landed.size()), pattern(20'000));
    EXPECT_TRUE(late && late.empty()) << "nothing will land any more";
    landed.reset();
    late.reset();
}

// Goal: a block that is not full when the connection ends is let go: the world's end would see it.
TEST_P(StreamReceiveTest, LetsAHalfFilledBlockGo) {
    int released = 0;
    std::string room(50'000, '\0');
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    auto target = world.loop().wrap(
        std::as_writable_bytes(std::span(room)), [](void* n) { ++*static_cast<int*>(n); }, &released);
    ASSERT_TRUE(target.ok());
    ASSERT_TRUE(server.get()->recv_into(*std::move(target)).ok());
    client.get()->send(pattern(20'000));
    ASSERT_TRUE(world.until([&] { return server.get()->metrics().received_bytes == 20'000; }));
    server.get()->close();
    EXPECT_TRUE(world.until([&] { return server.closed() && released == 1; })) << released;
}

INSTANTIATE_TEST_SUITE_P(Conformance, ReceiveTest, connection_rows(), name_of_row);
INSTANTIATE_TEST_SUITE_P(Conformance, StreamReceiveTest, stream_rows(), name_of_row);

}  // namespace
}  // namespace evpl::test
