// Bytes and messages over inproc: order, integrity, windows, pausing.
#include <random>

#include "unit/inproc_world.hpp"

namespace evpl::transport::inproc_test {
namespace {

class InprocBytesTest : public testing::TestWithParam<Where> {};
class InprocMessageTest : public testing::TestWithParam<Where> {};

TEST_P(InprocBytesTest, CarriesASmallMessageThereAndBack) {
    Pair pair{GetParam()};
    pair.client.send("how are you?", true);
    EXPECT_EQ(pair.client.sent_bytes, 12u) << "a copy is sent at once";
    ASSERT_TRUE(pair.until([&] { return pair.server.received.size() == 12; }));
    EXPECT_EQ(pair.server.received, "how are you?");
    pair.server.send("fine, thanks", true);
    ASSERT_TRUE(pair.until([&] { return pair.client.received.size() == 12; }));
    EXPECT_EQ(pair.client.received, "fine, thanks");
    EXPECT_EQ(pair.client.link->caps->kind, GetParam().messages ? Kind::message : Kind::stream);
}

// Goal: each size around the borders of units, entries, blocks and the window arrives whole, and is reported sent once.
TEST_P(InprocBytesTest, CarriesEverySizeWhole) {
    for (const std::size_t size :
         {1, 2, 39, 40, 41, 111, 112, 113, 231, 232, 233, 351, 352, 353, 4095, 65536, 262143, 262144, 262145, 1048576, 1048577, 2097152, 5000000}) {
        SCOPED_TRACE(size);
        Pair pair{GetParam()};
        pair.client.send(pattern(size), true);
        ASSERT_TRUE(pair.until([&] { return pair.server.received.size() >= size; }));
        EXPECT_TRUE(pair.server.received == pattern(size));
        EXPECT_EQ(pair.client.sent_bytes, size);
        EXPECT_EQ(pair.client.outbox.count(), 0u);
        if (GetParam().messages) {
            ASSERT_EQ(pair.server.messages.size(), 1u);
        }
    }
}

// Goal: slices of random sizes, flushed at random times while the reader works in small batches, keep order and ends.
TEST_P(InprocBytesTest, KeepsOrderOfRandomSlices) {
    for (unsigned seed = 1; seed <= 2; ++seed) {
        SCOPED_TRACE(seed);
        std::minstd_rand dice{seed};
        Pair pair{GetParam()};
        std::string all;
        std::vector<std::string> messages;
        for (int i = 0; i < 1000; ++i) {
            const std::size_t most = dice() % 10 == 0 ? 300'000 : dice() % 2 == 0 ? 500 : 40;
            const std::string text = pattern(dice() % most, dice());
            all += text;
            messages.push_back(text);
            pair.client.put(text, true, 1 + dice() % 100'000);
            if (dice() % 4 == 0) pair.client.flush();
            if (dice() % 4 == 0) pair.b.turn(1 + dice() % 8);
            if (dice() % 8 == 0) pair.turn();
        }
        pair.client.flush();
        ASSERT_TRUE(pair.until([&] { return pair.server.received.size() >= all.size(); }));
        EXPECT_TRUE(pair.server.received == all);
        pair.settle();
        EXPECT_EQ(pair.client.sent_bytes, all.size());
        if (GetParam().messages) {
            EXPECT_TRUE(pair.server.messages == messages) << "empty messages count, too";
        }
    }
}

// Goal: small slices share entries, in order.
TEST_P(InprocBytesTest, PutsSmallSlicesTogether) {
    Pair pair{GetParam()};
    const std::string text = pattern(30'000);
    pair.client.put(text, true, 3);
    pair.client.flush();
    ASSERT_TRUE(pair.until([&] { return pair.server.received.size() >= text.size(); }));
    EXPECT_TRUE(pair.server.received == text);
    EXPECT_LE(pair.server.deliveries, 30'000 / 300);
}

// Goal: a large slice arrives as the same memory.
TEST_P(InprocBytesTest, CarriesLargeSlicesByReference) {
    Pair pair{GetParam()};
    pair.server.keep = true;
    pair.a.enter();
    auto slice = pair.a.heap().allocate(100'000);
    ASSERT_TRUE(slice.ok());
    const std::string text = pattern(100'000);
    std::memcpy(slice->data(), text.data(), text.size());
    const std::byte* const memory = slice->data();
    pair.client.put(*std::move(slice), true);
    pair.client.flush();
    ASSERT_TRUE(pair.until([&] { return !pair.server.kept.empty(); }));
    EXPECT_EQ(pair.server.kept[0].data(), memory);
    EXPECT_GT(pair.a.heap().blocks_out(), 0u);
    // Back to where it came from, and still the same memory.
    pair.client.keep = true;
    pair.b.enter();
    Buffer back = std::move(pair.server.kept[0]);
    pair.server.kept.clear();
    pair.server.put(std::move(back), true);
    pair.server.flush();
    ASSERT_TRUE(pair.until([&] { return !pair.client.kept.empty(); }));
    EXPECT_EQ(pair.client.kept[0].data(), memory);
    EXPECT_TRUE(pair.client.received == text);
}

// Goal: wrapped memory travels without a copy and is released once, when the reader has let go.
TEST_P(InprocBytesTest, ReleasesWrappedMemoryWhenTheReaderLetsGo) {
    Pair pair{GetParam()};
    pair.server.keep = true;
    std::string text = pattern(50'000);
    int released = 0;
    pair.a.enter();
    auto wrapped = pair.a.heap().wrap(
        reinterpret_cast<std::byte*>(text.data()), std::uint32_t(text.size()), [](void* n) { ++*static_cast<int*>(n); }, &released);
    ASSERT_TRUE(wrapped.ok());
    pair.client.put(*std::move(wrapped), true);
    pair.client.flush();
    ASSERT_TRUE(pair.until([&] { return !pair.server.kept.empty(); }));
    pair.settle();
    EXPECT_EQ(released, 0);
    EXPECT_EQ(static_cast<const void*>(pair.server.kept[0].data()), text.data());
    pair.b.enter();
    pair.server.kept.clear();
    pair.settle();
    EXPECT_EQ(released, 1);
}

// Goal: a paused reader gets nothing, the sender stops at the window, memory is bounded, and nothing is lost.
TEST_P(InprocBytesTest, StopsAtTheWindowOfAPausedReader) {
    Pair pair{GetParam()};
    pair.server.check_only = true;
    pair.b.port->pause(*pair.server.link);
    constexpr std::size_t total = 8u << 20;
    pair.client.put(pattern(total), true, 50'000);
    EXPECT_EQ(pair.client.flush(), Flushed::blocked);
    pair.settle();
    EXPECT_EQ(pair.server.received_bytes, 0u);
    EXPECT_LE(pair.client.sent_bytes, 1u << 20);
    EXPECT_GT(pair.client.sent_bytes, 900u << 10);
    const std::size_t stopped_at = pair.client.sent_bytes;
    pair.settle();
    EXPECT_EQ(pair.client.sent_bytes, stopped_at);
    pair.b.port->resume(*pair.server.link);
    EXPECT_EQ(pair.server.received_bytes, 0u) << "no upcall from inside resume";
    ASSERT_TRUE(pair.until([&] { return pair.server.received_bytes >= total; }));
    EXPECT_TRUE(pair.server.good);
    EXPECT_EQ(pair.client.sent_bytes, total);
}

// Goal: empty and tiny messages to a paused reader are bounded as well.
TEST_P(InprocMessageTest, BoundsEmptyMessages) {
    Pair pair{GetParam()};
    pair.b.port->pause(*pair.server.link);
    for (int i = 0; i < 40'000; ++i) pair.client.put("", true);
    EXPECT_EQ(pair.client.flush(), Flushed::blocked);
    pair.settle();
    EXPECT_GT(pair.client.outbox.count(), 20'000u);
    pair.b.port->resume(*pair.server.link);
    ASSERT_TRUE(pair.until([&] { return pair.server.messages.size() == 40'000; }));
}

// Goal: a sink may pause inside delivered: what follows waits.
TEST_P(InprocBytesTest, PausesInsideDelivered) {
    Pair pair{GetParam()};
    pair.server.pausing = true;
    pair.server.pause_after = 1000;
    const std::string text = pattern(20'000);
    pair.client.put(text, true, 100);
    pair.client.flush();
    pair.settle();
    const std::size_t before = pair.server.received_bytes;
    EXPECT_GE(before, 1000u);
    EXPECT_LT(before, 2000u);
    pair.settle();
    EXPECT_EQ(pair.server.received_bytes, before);
    pair.b.port->resume(*pair.server.link);
    ASSERT_TRUE(pair.until([&] { return pair.server.received_bytes == text.size(); }));
    EXPECT_TRUE(pair.server.received == text);
}

// Goal: one poll takes in about a batch of bytes, and a delivery is no larger.
TEST_P(InprocBytesTest, PollsAtMostABatchOfBytes) {
    Pair pair{GetParam()};
    pair.server.check_only = true;
    pair.client.put(pattern(900'000), true, 900'000);
    pair.client.flush();
    pair.b.turn();
    EXPECT_GT(pair.server.received_bytes, 0u);
    EXPECT_LE(pair.server.received_bytes, 512u << 10);
    ASSERT_TRUE(pair.until([&] { return pair.server.received_bytes == 900'000; }));
    EXPECT_LE(pair.server.largest, 256u << 10);
}

// Goal: a reader that does not poll fills the ring; the writer is told when there is room, and order is kept.
TEST_P(InprocBytesTest, GoesOnWhenAFullRingHasRoomAgain) {
    Pair pair{GetParam()};
    std::string all;
    for (int i = 0; i < 2000; ++i) {
        const std::string text = pattern(200, all.size());
        all += text;
        pair.client.put(text, true);
    }
    EXPECT_EQ(pair.client.flush(), Flushed::blocked);
    EXPECT_LT(pair.client.sent_bytes, all.size());
    ASSERT_TRUE(pair.until([&] { return pair.server.received.size() == all.size(); }));
    EXPECT_TRUE(pair.server.received == all);
    EXPECT_EQ(pair.client.sent_bytes, all.size());
}

// Goal: many links share the rings without mixing or starving.
TEST_P(InprocBytesTest, KeepsManyLinksApart) {
    Pair pair{GetParam()};
    constexpr int count = 100;
    std::deque<End> clients, servers;
    for (int i = 0; i < count; ++i) {
        pair.door.ready.push_back(&servers.emplace_back(pair.b));
        clients.emplace_back(pair.a).connect(pair.url);
    }
    const auto all = [&](auto wanted) {
        return pair.until([&] {
            for (End& end : clients)
                if (std::exchange(end.writables, 0) > 0 && end.closes == 0) end.flush();
            for (int i = 0; i < count; ++i)
                if (!wanted(clients[std::size_t(i)], servers[std::size_t(i)], i)) return false;
            return true;
        });
    };
    ASSERT_TRUE(all([](End& c, End& s, int) { return c.opens == 1 && s.opens == 1; }));
    for (int i = 0; i < count; ++i) {
        clients[std::size_t(i)].put(pattern(20'000 + std::size_t(i), std::size_t(i)), true, 150);
        clients[std::size_t(i)].flush();
    }
    EXPECT_TRUE(all([](End&, End& s, int i) { return s.received.size() == 20'000u + std::size_t(i); }));
    for (int i = 0; i < count; ++i) EXPECT_TRUE(servers[std::size_t(i)].received == pattern(20'000 + std::size_t(i), std::size_t(i))) << i;
    for (End& end : clients) end.close(How::abort);
    EXPECT_TRUE(all([](End& c, End& s, int) { return c.over() && s.over(); }));
}

// Goal: a message above the limit ends its link with too_large, and the other end with reset.
TEST_P(InprocMessageTest, EndsALinkWhoseMessageIsTooLarge) {
    Pair pair{GetParam()};
    pair.server.check_only = true;
    EXPECT_EQ(pair.client.link->caps->message_bytes_max, 16u << 20);
    pair.client.put(pattern((16u << 20) + 1), true);
    pair.client.flush();
    ASSERT_TRUE(pair.until([&] { return pair.client.over() && pair.server.over(); }));
    EXPECT_EQ(pair.client.why, Errc::too_large);
    EXPECT_EQ(pair.server.why, Errc::reset);
    EXPECT_TRUE(pair.server.messages.empty());
}

TEST_P(InprocMessageTest, CarriesTheLargestMessage) {
    Pair pair{GetParam()};
    pair.server.check_only = true;
    pair.client.put(pattern(16u << 20), true);
    pair.client.flush();
    ASSERT_TRUE(pair.until([&] { return pair.server.received_bytes == 16u << 20; }));
    EXPECT_TRUE(pair.server.good);
    EXPECT_EQ(pair.server.messages.size(), 1u);
}

// Goal: received slices stay intact after their link, and the port that sent them, are gone.
TEST_P(InprocBytesTest, LeavesHeldSlicesIntact) {
    std::vector<Buffer> kept;
    std::string received;
    const std::string text = pattern(600'000);
    {
        Pair pair{GetParam()};
        pair.server.keep = true;
        pair.client.put(text, true, 7001);
        pair.client.flush();
        ASSERT_TRUE(pair.until([&] { return pair.server.received.size() == text.size(); }));
        pair.client.close(How::abort);
        ASSERT_TRUE(pair.until([&] { return pair.client.over() && pair.server.over(); }));
        if (GetParam().two_loops) {
            pair.a.end();
            pair.b.enter();
        }
        for (const Buffer& slice : pair.server.kept) received.append(reinterpret_cast<const char*>(slice.data()), slice.size());
        EXPECT_TRUE(received == text);
        pair.server.kept.clear();
    }
}

// Goal: the outbox may hold bytes before the link opens.
TEST_P(InprocBytesTest, SendsWhatWaitedForTheOpening) {
    Pair pair{GetParam(), "early", false};
    pair.client.connect(pair.url);
    pair.client.put("early", true);
    EXPECT_EQ(pair.client.flush(), Flushed::blocked);
    EXPECT_TRUE(pair.until([&] { return pair.server.received == "early"; }));
}

INSTANTIATE_TEST_SUITE_P(Inproc, InprocBytesTest, everywhere(), name_of_where);
INSTANTIATE_TEST_SUITE_P(Inproc, InprocMessageTest, with_messages(), name_of_where);

}  // namespace
}  // namespace evpl::transport::inproc_test
