// Order and integrity: what arrives is what was sent, whatever the sizes, the slices and the traffic the other way.
#include "support/world.hpp"

namespace evpl::test {
namespace {

class TransferTest : public TransportTest {};

// Goal: every size from one byte to 8 MiB arrives whole.
TEST_P(TransferTest, DeliversEverySizeWhole) {
    for (const std::size_t size : {1u, 2u, 63u, 64u, 65u, 1000u, 4096u, 65535u, 65536u, 1u << 20, 8u << 20}) {
        PatternCheck check;
        Pump pump{.total = size, .least = 1u << 20, .most = 1u << 20};
        Peer server, client;
        World world{GetParam()};
        ASSERT_TRUE(world.open(server, client));
        server.when_recv = [&](Connection& c) { check.take_all(c); };
        client.when_writable = std::ref(pump);
        pump(*client.get());
        EXPECT_TRUE(world.until([&] { return check.bytes >= size; }, 30_s)) << check.bytes << " of " << size;
        EXPECT_EQ(check.bytes, size);
        EXPECT_TRUE(check.good);
        EXPECT_EQ(client.closes + server.closes, 0);
    }
}

// Goal: pieces of random size keep their order; nothing comes twice or is lost.
TEST_P(TransferTest, KeepsOrderOfRandomSizes) {
    PatternCheck check{.key = seed()};
    Pump pump{.key = seed(), .total = 6u << 20, .least = 1, .most = 70'000};
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    server.when_recv = [&](Connection& c) { check.take_all(c); };
    client.when_writable = std::ref(pump);
    pump(*client.get());
    EXPECT_TRUE(world.until([&] { return check.bytes >= pump.total || !check.good; }, 30_s)) << "seed " << seed();
    EXPECT_TRUE(check.good) << "seed " << seed();
    EXPECT_EQ(check.bytes, pump.total);
    EXPECT_TRUE(world.until([&] { return client.sent_bytes == pump.total; }));
}

// Goal: many small sends of one turn arrive in order.
TEST_P(TransferTest, KeepsOrderOfManySmallSends) {
    PatternCheck check;
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    server.when_recv = [&](Connection& c) { check.take_all(c); };
    const std::string text = pattern(30'000);
    for (std::size_t at = 0; at < text.size(); at += 3) ASSERT_EQ(client.get()->send(std::string_view(text).substr(at, 3)).error(), Errc::none);
    EXPECT_TRUE(world.until([&] { return check.bytes >= text.size(); }));
    EXPECT_TRUE(check.good);
    EXPECT_EQ(check.bytes, text.size());
}

// Goal: one send of a thousand slices of odd sizes arrives as one run of bytes.
TEST_P(TransferTest, KeepsOrderOfManySlices) {
    PatternCheck check;
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    server.when_recv = [&](Connection& c) { check.take_all(c); };
    const std::string text = pattern(61'000);
    Chain chain = chain_of(world.loop(), text, 61);
    ASSERT_EQ(chain.slices().size(), 1000u);
    EXPECT_EQ(client.get()->send(std::move(chain)).error(), Errc::none);
    EXPECT_TRUE(world.until([&] { return check.bytes >= text.size(); }));
    EXPECT_TRUE(check.good);
    EXPECT_EQ(check.bytes, text.size());
}

// Goal: large buffers leave by reference and in order, mixed with small ones that are copied.
TEST_P(TransferTest, KeepsOrderOfLargeAndSmallBuffers) {
    PatternCheck check;
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    server.when_recv = [&](Connection& c) { check.take_all(c); };
    const std::size_t most = caps().kind == Kind::message ? caps().message_bytes_max : 2u << 20;
    std::size_t total = 0;
    for (const std::size_t size : {200'000u, 3u, 70'000u, 1u, 1'000'000u, 40u, 2'000'000u, 17u}) {
        auto buffer = world.loop().allocate(std::uint32_t(std::min(size, most)));
        ASSERT_TRUE(buffer.ok());
        fill_pattern(buffer->bytes(), 1, total);
        total += buffer->size();
        ASSERT_EQ(client.get()->send(*std::move(buffer)).error(), Errc::none);
    }
    EXPECT_TRUE(world.until([&] { return check.bytes >= total || !check.good; }));
    EXPECT_TRUE(check.good);
    EXPECT_EQ(check.bytes, total);
}

// Goal: a span is copied before send returns.
TEST_P(TransferTest, CopiesSpansBeforeSendReturns) {
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    std::string text = "the first words";
    client.get()->send(text);
    text.assign(text.size(), '!');
    EXPECT_TRUE(world.until([&] { return server.received.size() >= text.size(); }));
    EXPECT_EQ(server.received, "the first words");
}

// Goal: the caller's own memory can be sent without a copy, and is released exactly once.
TEST_P(TransferTest, SendsWrappedMemoryAndReleasesItOnce) {
    std::string text = pattern(100'000);
    int released = 0;
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    auto wrapped = world.loop().wrap(
        std::as_writable_bytes(std::span(text)), [](void* n) { ++*static_cast<int*>(n); }, &released);
    ASSERT_TRUE(wrapped.ok());
    client.get()->send(*std::move(wrapped));
    EXPECT_TRUE(world.until([&] { return server.received.size() >= text.size(); }));
    EXPECT_EQ(server.received, text);
    server.received.clear();
    EXPECT_TRUE(world.until([&] { return client.sent_bytes == text.size(); }));
    client.get()->close();
    EXPECT_TRUE(world.until([&] { return client.closed() && released > 0; }));
    world.end();
    EXPECT_EQ(released, 1);
}

// Goal: slices that the application holds stay intact, while more arrives and after the connection is gone.
TEST_P(TransferTest, LeavesHeldSlicesIntact) {
    std::vector<Chain> held;
    std::size_t bytes = 0;
    Pump pump{.total = 2u << 20, .least = 1, .most = 20'000};
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    server.when_recv = [&](Connection& c) {
        while (c.available() > 0) bytes += held.emplace_back(c.recv()).size();
    };
    client.when_writable = std::ref(pump);
    pump(*client.get());
    ASSERT_TRUE(world.until([&] { return bytes == pump.total; }));
    client.get()->close();
    server.get()->close();
    ASSERT_TRUE(world.until_closed(server, client));
    PatternCheck check;
    for (const Chain& chain : held) check.take(chain);
    EXPECT_TRUE(check.good);
    EXPECT_EQ(check.bytes, pump.total);
    held.clear();
}

// Goal: both sides send as fast as they can at the same time, and each gets exactly what the other sent.
TEST_P(TransferTest, CarriesBothDirectionsAtOnce) {
    PatternCheck at_server{.key = 7}, at_client{.key = 8};
    Pump from_client{.key = 7, .total = 3u << 20, .most = 50'000}, from_server{.key = 8, .total = 3u << 20, .most = 30'000};
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    server.when_recv = [&](Connection& c) { at_server.take_all(c); };
    client.when_recv = [&](Connection& c) { at_client.take_all(c); };
    server.when_writable = std::ref(from_server);
    client.when_writable = std::ref(from_client);
    from_server(*server.get());
    from_client(*client.get());
    EXPECT_TRUE(world.until([&] { return at_server.bytes >= from_client.total && at_client.bytes >= from_server.total; }, 30_s));
    EXPECT_TRUE(at_server.good);
    EXPECT_TRUE(at_client.good);
    EXPECT_EQ(at_server.bytes, from_client.total);
    EXPECT_EQ(at_client.bytes, from_server.total);
}

/// The first program of the documentation.
struct Echo {
    void on_recv(Connection& peer) { peer.send(peer.recv(peer.send_room())); }
    void on_writable(Connection& peer) { on_recv(peer); }
};

// Goal: the echo server of the documentation returns all it gets, to a client that sends and reads at once and then
// finishes.
TEST_P(TransferTest, EchoesAsTheDocumentationSays) {
    const bool half_close = caps().half_close;  // asked before a world is there: it opens one of its own
    PatternCheck check;
    Pump pump{.total = 4u << 20, .most = 100'000};
    Peer client;
    World world{GetParam()};
    ASSERT_NE(world.listen([](Connection&) { return Echo{}; }), nullptr);
    client.when_open = client.when_writable = [&](Connection& c) {
        pump(c);
        if (pump.done() && half_close) c.shutdown();
    };
    client.when_recv = [&](Connection& c) { check.take_all(c); };
    client.ref = world.dial(client);
    EXPECT_TRUE(world.until([&] { return check.bytes >= pump.total || client.closed(); }, 10_s)) << check.bytes;
    EXPECT_TRUE(check.good);
    EXPECT_EQ(check.bytes, pump.total);
}

// Goal: the bytes on_sent reports add up to the bytes sent, and queued() returns to nothing.
TEST_P(TransferTest, ReportsEverySentByteOnce) {
    PatternCheck check;
    Pump pump{.total = 3'000'017, .most = 90'000};
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    server.when_recv = [&](Connection& c) { check.take_all(c); };
    client.when_writable = std::ref(pump);
    pump(*client.get());
    EXPECT_TRUE(world.until([&] { return client.sent_bytes >= pump.total && check.bytes >= pump.total; }));
    drive_for(world.loop(), 20_ms);
    EXPECT_EQ(client.sent_bytes, pump.total);
    EXPECT_EQ(client.get()->queued(), 0u);
    EXPECT_EQ(client.get()->metrics().sent_bytes, pump.total);
    EXPECT_EQ(server.get()->metrics().received_bytes, pump.total);
}

// Goal: what is sent before the connection opens leaves when it opens.
TEST_P(TransferTest, SendsWhatWasQueuedBeforeOpening) {
    Peer server, client;
    World world{GetParam()};
    ASSERT_NE(world.listen(server), nullptr);
    client.ref = world.dial(client);
    ASSERT_NE(client.get(), nullptr);
    EXPECT_EQ(client.get()->send("early").error(), Errc::none);
    EXPECT_TRUE(world.until([&] { return server.received.size() >= 5; }));
    EXPECT_EQ(server.received, "early");
    EXPECT_EQ(client.opens, 1);
}

// Goal: flush() inside a callback and outside moves the bytes without the end of the turn, and harms nothing.
TEST_P(TransferTest, FlushesAtOnce) {
    PatternCheck check;
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    server.when_recv = [&](Connection& c) { check.take_all(c); };
    const std::string text = pattern(5000);
    for (std::size_t at = 0; at < text.size(); at += 100) {
        client.get()->send(std::string_view(text).substr(at, 100));
        client.get()->flush();
    }
    EXPECT_TRUE(world.until([&] { return check.bytes >= text.size(); }));
    EXPECT_TRUE(check.good);
}

// Goal: two hundred connections at once do not mix their bytes.
TEST_P(TransferTest, KeepsConnectionsApart) {
    constexpr int count = 200;
    std::vector<PatternCheck> checks(count);
    std::deque<Pump> pumps;
    std::deque<Peer> clients;
    World world{GetParam()};
    ASSERT_NE(world.listen([](Connection&) { return EchoAll{}; }), nullptr);
    for (int i = 0; i < count; ++i) {
        checks[std::size_t(i)].key = std::uint64_t(i);
        Pump& pump = pumps.emplace_back(Pump{.key = std::uint64_t(i), .total = 20'000 + std::size_t(i), .most = 3000});
        Peer& client = clients.emplace_back();
        client.when_open = client.when_writable = std::ref(pump);
        client.when_recv = [&check = checks[std::size_t(i)]](Connection& c) { check.take_all(c); };
        world.dial(client);
    }
    EXPECT_TRUE(world.until(
        [&] {
            for (int i = 0; i < count; ++i)
                if (checks[std::size_t(i)].bytes < pumps[std::size_t(i)].total) return false;
            return true;
        },
        30_s));
    for (const PatternCheck& check : checks) EXPECT_TRUE(check.good) << check.key;
}

INSTANTIATE_TEST_SUITE_P(Conformance, TransferTest, connection_rows(), name_of_row);

}  // namespace
}  // namespace evpl::test
