// Messages: the same program over message transports and, with a `frame` callback, over streams.
#include "support/world.hpp"

namespace evpl::test {
namespace {

class FramingTest : public TransportTest {};        // streams and messages
class StreamFramingTest : public TransportTest {};  // what only a stream can get wrong
class NativeMessageTest : public TransportTest {};

// Goal: each message arrives whole and alone, in order, whatever its size.
TEST_P(FramingTest, DeliversWholeMessagesInOrder) {
    constexpr std::size_t count = 400;
    std::minstd_rand dice{std::uint32_t(seed())};
    const std::size_t most = std::min<std::size_t>(caps().kind == Kind::message ? caps().message_bytes_max : SIZE_MAX, 100'000);
    std::vector<std::size_t> sizes{4, 5, 8, most, most - 1};
    while (sizes.size() < count) sizes.push_back(std::uniform_int_distribution<std::size_t>(4, most)(dice));
    std::size_t arrived = 0, sent = 0;
    FramedPeer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    server.when_recv = [&](Connection& c) {
        while (true) {
            auto message = c.recv_message();
            ASSERT_TRUE(message.ok()) << message.error();
            if (message->empty()) return;
            ASSERT_LT(arrived, count);
            ASSERT_EQ(message->size(), sizes[arrived]) << "message " << arrived << ", seed " << seed();
            ASSERT_EQ(text_of(*message), FramedPeer::message(sizes[arrived], arrived));
            ++arrived;
        }
    };
    client.when_writable = [&](Connection& c) {
        while (sent < count) {
            const Flow flow = c.send(FramedPeer::message(sizes[sent], sent));
            ASSERT_EQ(flow.error(), Errc::none);
            ++sent;
            if (!flow) return;
        }
    };
    client.when_writable(*client.get());
    EXPECT_TRUE(world.until([&] { return arrived == count || server.closed(); }, 30_s)) << arrived;
    EXPECT_EQ(arrived, count);
}

// Goal: recv_exactly gives exactly that much of a message, and says so when the message has less.
TEST_P(FramingTest, RefusesToReceiveExactlyMoreThanTheMessageHas) {
    Peer client;
    FramedPeer server;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    server.when_recv = [](Connection&) {};
    const std::string first = FramedPeer::message(100, 1), second = FramedPeer::message(50, 2);
    client.get()->send(first);
    client.get()->send(second);
    ASSERT_TRUE(world.until([&] { return server.get()->available() == 150; }));
    EXPECT_EQ(server.get()->recv_exactly(101).error(), Errc::too_large);
    const auto part = server.get()->recv_exactly(60);
    ASSERT_TRUE(part.ok());
    EXPECT_EQ(text_of(*part), first.substr(0, 60));
    EXPECT_EQ(server.get()->recv_exactly(41).error(), Errc::too_large);
    EXPECT_EQ(text_of(server.get()->recv()), first.substr(60));
    EXPECT_EQ(text_of(server.get()->recv()), second);
}

// Goal: recv never crosses the end of a message, and a message may be taken in parts.
TEST_P(FramingTest, StopsRecvAtTheEndOfAMessage) {
    Peer client;
    FramedPeer server;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    server.when_recv = [](Connection&) {};
    const std::string first = FramedPeer::message(100, 1), second = FramedPeer::message(50, 2);
    client.get()->send(first);
    client.get()->send(second);
    ASSERT_TRUE(world.until([&] { return server.get()->available() == 150; }));
    EXPECT_EQ(text_of(server.get()->recv(40)), first.substr(0, 40));
    EXPECT_EQ(text_of(server.get()->recv()), first.substr(40));
    EXPECT_EQ(text_of(server.get()->recv(1000)), second);
    EXPECT_TRUE(server.get()->recv().empty());
}

// Goal: after the last message recv_message says end, and on_end comes when all are taken.
TEST_P(FramingTest, SaysEndAfterTheLastMessage) {
    std::size_t arrived = 0;
    Error last;
    Peer client;
    FramedPeer server;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    server.when_recv = [&](Connection& c) {
        for (auto m = c.recv_message(); m && !m->empty(); m = c.recv_message()) ++arrived;
    };
    server.when_end = [&](Connection& c) {
        last = c.recv_message().error();
        c.close();
    };
    for (int i = 0; i < 20; ++i) client.get()->send(FramedPeer::message(300, std::uint64_t(i)));
    client.get()->shutdown();
    EXPECT_TRUE(world.until_closed(server, client));
    EXPECT_EQ(arrived, 20u);
    if (server.ends > 0) {
        EXPECT_EQ(last, Errc::end);
    }
}

// Goal: a `frame` that looks for an end mark finds it however far and over however many slices it lies.
TEST_P(StreamFramingTest, FindsAnEndMarkFarAway) {
    std::string line = pattern(3000);
    std::replace(line.begin(), line.end(), '\n', ' ');
    line.back() = '\n';
    int lines = 0;
    Peer client;
    FramedPeer server;
    World world{GetParam()};
    server.when_frame = [](std::span<const std::byte> head) {
        const auto end = std::find(head.begin(), head.end(), std::byte('\n'));
        return Frame{.size_bytes = end == head.end() ? 0 : std::uint32_t(end - head.begin()) + 1};
    };
    ASSERT_TRUE(world.open(server, client));
    server.when_recv = [&](Connection& c) {
        for (auto m = c.recv_message(); m && !m->empty(); m = c.recv_message(), ++lines) EXPECT_EQ(text_of(*m), line);
    };
    for (int i = 0; i < 3; ++i)
        for (std::size_t at = 0; at < line.size(); at += 300) {
            client.get()->send(std::string_view(line).substr(at, 300));
            client.get()->flush();
            drive_for(world.loop(), 1_ms);
        }
    EXPECT_TRUE(world.until([&] { return lines == 3; }, 5_s)) << lines;
}

// Goal: messages cut anywhere by the wire are put together again.
TEST_P(StreamFramingTest, PutsScatteredMessagesTogether) {
    std::string wire;
    for (std::size_t i = 0; i < 30; ++i) wire += FramedPeer::message(4 + i * 37 % 211, i);
    std::size_t arrived = 0;
    Peer client;
    FramedPeer server;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    server.when_recv = [&](Connection& c) {
        for (auto m = c.recv_message(); m && !m->empty(); m = c.recv_message(), ++arrived)
            EXPECT_EQ(text_of(*m), FramedPeer::message(4 + arrived * 37 % 211, arrived));
    };
    for (std::size_t at = 0; at < wire.size(); at += 3) {
        client.get()->send(std::string_view(wire).substr(at, 3));
        client.get()->flush();
        world.loop().run_once();
    }
    EXPECT_TRUE(world.until([&] { return arrived == 30; })) << arrived;
}

// Goal: a message that says it is larger than the limit ends the connection at its header, before it is stored.
TEST_P(StreamFramingTest, RefusesOversizeMessagesAtTheHeader) {
    PlainPeer client;
    FramedPeer server;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    QueueLimits limits = server.get()->limits();
    limits.message = 10'000;
    server.get()->set_limits(limits);
    client.get()->send(FramedPeer::message(10'000, 1));
    ASSERT_TRUE(world.until([&] { return server.received.size() == 10'000; }));
    const std::uint32_t lie = 10'001;
    client.get()->send(std::as_bytes(std::span(&lie, 1)));
    EXPECT_TRUE(world.until_closed(server, client));
    EXPECT_EQ(server.closed_with, Errc::too_large);
    EXPECT_TRUE(is_departure(client.closed_with)) << client.closed_with;
}

// Goal: nonsense in a header ends the connection with bad_frame; what came before it was delivered.
TEST_P(StreamFramingTest, EndsWithBadFrameOnNonsense) {
    Peer client;
    FramedPeer server;
    World world{GetParam()};
    client.when_end = [](Connection& c) { c.close(); };
    ASSERT_TRUE(world.open(server, client));
    client.get()->send(FramedPeer::message(64, 1) + std::string(4, '\0'));
    EXPECT_TRUE(world.until_closed(server, client));
    EXPECT_EQ(server.closed_with, Errc::bad_frame);
    EXPECT_EQ(server.received, FramedPeer::message(64, 1));
}

// Goal: a `frame` that never finds an end does not make memory grow past the message limit.
TEST_P(StreamFramingTest, EndsWithTooLargeWhenNoEndIsFound) {
    Pump pump{.total = 64u << 20};
    Peer client;
    FramedPeer server;
    World world{GetParam()};
    client.when_end = [](Connection& c) { c.close(); };
    server.when_frame = [](std::span<const std::byte>) { return Frame{}; };
    ASSERT_TRUE(world.open(server, client));
    QueueLimits limits = server.get()->limits();
    limits.message = 2u << 20;
    server.get()->set_limits(limits);
    client.when_writable = std::ref(pump);
    pump(*client.get());
    EXPECT_TRUE(world.until_closed(server, client));
    EXPECT_EQ(server.closed_with, Errc::too_large);
}

// Goal: a peer that finishes in the middle of a message never passes part of one off as whole.
TEST_P(StreamFramingTest, NeverDeliversPartOfAMessage) {
    int whole = 0;
    Error told;
    Peer client;
    FramedPeer server;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    server.when_recv = [&](Connection& c) {
        auto message = c.recv_message();
        for (; message && !message->empty(); message = c.recv_message()) ++whole;
        if (!message) told = message.error(), c.close();
    };
    server.when_end = [](Connection& c) { c.close(); };
    client.when_end = [](Connection& c) { c.close(); };
    const std::string message = FramedPeer::message(1000, 1);
    client.get()->send(message + message.substr(0, 999));
    client.get()->shutdown();
    EXPECT_TRUE(world.until_closed(server, client));
    EXPECT_EQ(whole, 1);
    EXPECT_TRUE(told == Errc::end || server.closed_with == Errc::truncated) << told << ", " << server.closed_with;
}

// Goal: a stream without `frame` has no messages and says so.
TEST_P(StreamFramingTest, HasNoMessagesWithoutAFrameCallback) {
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    EXPECT_EQ(server.get()->recv_message().error(), Errc::not_supported);
    EXPECT_FALSE(server.closed());
}

// Goal: on a message transport one send is one message, without any `frame`.
TEST_P(NativeMessageTest, KeepsTheBordersOfSends) {
    std::vector<std::size_t> sizes;
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    EXPECT_EQ(client.get()->caps().kind, Kind::message);
    EXPECT_GE(client.get()->caps().message_bytes_max, 4096u);
    server.when_recv = [&](Connection& c) {
        for (auto m = c.recv_message(); m && !m->empty(); m = c.recv_message()) sizes.push_back(m->size());
    };
    const std::vector<std::size_t> sent{1, 10, 1, 4000, 77, 1};
    for (const std::size_t size : sent) client.get()->send(pattern(size));
    client.get()->send(chain_of(world.loop(), pattern(5000), 5));  // a thousand slices are one message, too
    client.get()->send("end");
    EXPECT_TRUE(world.until([&] { return !sizes.empty() && sizes.back() == 3; }));
    EXPECT_EQ(sizes, (std::vector<std::size_t>{1, 10, 1, 4000, 77, 1, 5000, 3}));
}

// Goal: the largest message passes; one byte more is refused as too_large.
TEST_P(NativeMessageTest, RefusesMessagesBeyondItsLargest) {
    const std::uint32_t most = caps().message_bytes_max;
    std::size_t largest = 0;
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    server.when_recv = [&](Connection& c) {
        for (auto m = c.recv_message(); m && !m->empty(); m = c.recv_message()) largest = std::max(largest, m->size());
    };
    EXPECT_EQ(client.get()->send(pattern(most)).error(), Errc::none);
    EXPECT_TRUE(world.until([&] { return largest == most || client.closed() || server.closed(); })) << most;
    EXPECT_EQ(largest, most);
    EXPECT_EQ(client.get()->send(pattern(std::size_t(most) + 1)).error(), Errc::too_large);
}

INSTANTIATE_TEST_SUITE_P(Conformance, FramingTest, connection_rows(), name_of_row);
INSTANTIATE_TEST_SUITE_P(Conformance, StreamFramingTest, stream_rows(), name_of_row);
INSTANTIATE_TEST_SUITE_P(Conformance, NativeMessageTest, message_rows(), name_of_row);

}  // namespace
}  // namespace evpl::test
