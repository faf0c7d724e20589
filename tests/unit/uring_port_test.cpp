// The uring port at its contract, where it gets ugly. Each test shows by the port's counts that what it is about has really happened.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <cerrno>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "evpl/endpoint.hpp"
#include "support/patience.hpp"
#include "support/pattern.hpp"
#include "support/sockets.hpp"
#include "transport/common/sockets/zero_copy.hpp"
#include "transport/uring/port.hpp"
#include "transport/uring/uring.hpp"
#include "unit/port_host.hpp"

namespace evpl::transport::uring {
namespace {

using test::Fd;
using test::pattern;
using test::PatternCheck;
using test::plain_dial;

/// A connection's end in the port, with all that core would have.
struct Side final : Sink {
    PatternCheck check;
    SendQueue outbox;
    Link* link = nullptr;
    std::deque<Buffer> kept;
    std::function<void(Side&)> when_delivered;
    bool keep = false;
    unsigned openings = 0, endings = 0, closings = 0, retirements = 0, writables = 0;
    std::size_t sent_bytes = 0;
    Error end;

    void opened() override { ++openings; }
    void delivered(Buffer&& bytes, const Arrival&) override {
        EXPECT_EQ(openings, 1u) << "delivered before opened";
        EXPECT_EQ(endings + closings, 0u) << "delivered after the end";
        check.take(bytes.bytes());
        if (keep) kept.push_back(std::move(bytes));
        if (when_delivered) when_delivered(*this);
    }
    void landed(std::uint32_t) override { ADD_FAILURE(); }
    void ended() override { ++endings; }
    void sent(std::size_t bytes) override { sent_bytes += bytes; }
    void send_failed(Error) override { ADD_FAILURE(); }
    void writable() override { ++writables; }
    void completed(OperationId, Error, Buffer&&) override { ADD_FAILURE(); }
    void closed(Error error) override {
        ++closings;
        end = error;
    }
    void retired() override {
        EXPECT_EQ(closings, 1u);
        ++retirements;
    }
};

struct Door final : Acceptor {
    std::deque<Side> sides;
    std::function<void(Side&)> when_accepted;
    unsigned pauses = 0;

    bool accepted(Link& link) override {
        Side& side = sides.emplace_back();
        side.link = &link;
        link.sink = &side;
        link.outbox = &side.outbox;
        if (when_accepted) when_accepted(side);
        return true;
    }
    bool taken(int, const Address&) override { return false; }
    void paused(Error) override { ++pauses; }
    void failed(Error) override { ADD_FAILURE(); }
};

class UringPortTest : public testing::TestWithParam<int> {
protected:
    void SetUp() override {
        if (!support().present) GTEST_SKIP() << support().reason;
        if (GetParam() > support().tier) GTEST_SKIP() << "this kernel has no more than tier " << int(support().tier);
    }
    void TearDown() override {
        if (!host) return;
        for (Side& side : door.sides) {
            side.kept.clear();
            side.outbox.clear();
        }
        if (listening != nullptr) listening->close();
        port.reset();
        EXPECT_EQ(host->heap().blocks_out(), 0u) << "blocks leaked";
    }

    void open(const std::string& query = {}, std::size_t heap_bytes = 64u << 20) {
        host = std::make_unique<PortHost>(heap_bytes);
        port.reset(static_cast<UringPort*>(*uring_transport().open(*host)));
        const auto at = Endpoint::parse("uring://127.0.0.1:0?tier=" + std::to_string(GetParam()) + (query.empty() ? "" : "&" + query));
        Diagnostic why;
        const auto made = port->listen(*at, false, door, why);
        ASSERT_TRUE(made.ok()) << why.text;
        listening = *made;
    }
    Ring& ring() { return static_cast<RingSleeper&>(**host->sleeper()).ring; }
    const PortCounts& counts() const { return port->counts(); }

    Fd dial() { return plain_dial(listening->port_number()); }
    void turns(int count) {
        for (int i = 0; i < count; ++i) host->turn(*port);
    }
    template <class Done>
    [[nodiscard]] bool until(Done done) {
        const test::Stopwatch watch;
        while (!done()) {
            if (watch.elapsed() > 15_s * test::patience) return false;
            host->turn(*port, 1);
        }
        return true;
    }
    /// `count` connections, all of them open, whose i-th client is the i-th side's peer.
    void connect(std::size_t count) {
        const std::size_t before = door.sides.size();
        for (std::size_t i = 0; i < count; ++i) {
            clients.push_back(dial());
            ASSERT_TRUE(clients.back());
            ASSERT_TRUE(until([&] { return door.sides.size() == before + i + 1 && door.sides.back().openings == 1; }));
        }
    }
    void queue(Side& side, std::string_view text) {
        constexpr std::size_t slice_bytes = 1u << 20;
        for (std::size_t at = 0; at < text.size(); at += slice_bytes) {
            const std::string_view piece = text.substr(at, slice_bytes);
            auto slice = host->heap().copy(reinterpret_cast<const std::byte*>(piece.data()), std::uint32_t(piece.size()));
            ASSERT_TRUE(slice.ok());
            ASSERT_TRUE(side.outbox.push(*std::move(slice)));
        }
    }
    /// Turns in which several links send go through the ring.
    void make_turns_busy() {
        for (int i = 0; i < 4; ++i) (void)port->flush(*door.sides[std::size_t(i) % 2].link);
        turns(1);
    }
    static SocketLink& socket_of(Side& side) { return static_cast<SocketLink&>(*side.link); }

    std::unique_ptr<PortHost> host;
    std::unique_ptr<UringPort> port;
    Door door;
    Listening* listening = nullptr;
    std::deque<Fd> clients;
};

/// Sends pattern 1 from `at` on as far as the socket takes it at once.
void write_what_fits(const Fd& client, std::size_t& at, std::size_t total) {
    while (at < total) {
        const std::string piece = pattern(std::min<std::size_t>(total - at, 64u << 10), 1, at);
        const ssize_t written = ::send(client.get(), piece.data(), piece.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
        if (written <= 0) return;
        at += std::size_t(written);
    }
}

bool read_exactly(const Fd& client, PatternCheck& check, std::size_t total) {
    std::string room(64u << 10, '\0');
    while (check.bytes < total && check.good && test::wait_ready(client.get(), POLLIN, 5000)) {
        const ssize_t got = ::recv(client.get(), room.data(), std::min(room.size(), total - check.bytes), 0);
        if (got <= 0) return false;
        check.take(test::bytes_of(std::string_view(room).substr(0, std::size_t(got))));
    }
    return check.good && check.bytes == total;
}

// Goal: receives that end with ENOBUFS are armed anew once there are buffers; nothing stalls, nothing is lost.
TEST_P(UringPortTest, GoesOnWhenItsReceiveBuffersRanOut) {
    constexpr std::size_t many = 24, bytes = 1u << 20;
    ASSERT_NO_FATAL_FAILURE(open());
    ASSERT_NO_FATAL_FAILURE(connect(many));
    std::size_t written[many] = {};
    EXPECT_TRUE(until([&] {
        bool all = true;
        for (std::size_t i = 0; i < many; ++i) {
            write_what_fits(clients[i], written[i], bytes);
            all = all && door.sides[i].check.bytes == bytes;
        }
        return all;
    }));
    for (const Side& side : door.sides) EXPECT_TRUE(side.check.good);
    EXPECT_GT(counts().starved, 0u);
}

// Goal: a stream that brings much is read by edges, one that brings little by the ring again, and where it changes no byte is lost or moved;
// also when it is paused just then.
TEST_P(UringPortTest, ChangesTheWayItReceivesWithoutLosingBytes) {
    constexpr std::size_t bulk = 4u << 20, little = 100;
    ASSERT_NO_FATAL_FAILURE(open());
    ASSERT_NO_FATAL_FAILURE(connect(1));
    Side& side = door.sides[0];
    std::size_t written = 0, total = 0;
    for (int round = 0; round < 3; ++round) {
        total += bulk;
        unsigned turn = 0;
        EXPECT_TRUE(until([&] {
            write_what_fits(clients[0], written, total);
            if (++turn % 3 == 0) {
                port->pause(*side.link);
                turns(1);
                port->resume(*side.link);
            }
            return side.check.bytes == total;
        })) << side.check.bytes;
        for (int message = 0; message < 20; ++message) {
            total += little;
            EXPECT_TRUE(until([&] {
                write_what_fits(clients[0], written, total);
                return side.check.bytes == total;
            })) << side.check.bytes;
        }
    }
    EXPECT_TRUE(side.check.good);
    EXPECT_GE(counts().ways_changed, 4u);
    clients[0].reset();
    EXPECT_TRUE(until([&] { return side.endings == 1; }));
}

// Goal: with an empty group and an exhausted heap the bytes wait in the kernel, and come when somebody lets a block go.
TEST_P(UringPortTest, WaitsForBlocksWhenTheHeapIsExhaustedToo) {
    constexpr std::size_t many = 8, bytes = 2u << 20;
    ASSERT_NO_FATAL_FAILURE(open({}, 6u << 20));
    door.when_accepted = [](Side& side) { side.keep = true; };
    ASSERT_NO_FATAL_FAILURE(connect(many));
    std::size_t written[many] = {};
    bool let_go = false;
    std::size_t before = 0;
    unsigned turns_without = 0;
    EXPECT_TRUE(until([&] {
        bool all = true;
        std::size_t received = 0;
        for (const Side& side : door.sides) received += side.check.bytes;
        turns_without = received == before ? turns_without + 1 : 0;
        before = received;
        if (turns_without > 20 && !let_go) {
            let_go = true;
            EXPECT_FALSE(host->heap().allocate(256u << 10).ok()) << "nothing comes although there is memory";
        }
        for (std::size_t i = 0; i < many; ++i) {
            write_what_fits(clients[i], written[i], bytes);
            if (let_go) door.sides[i].kept.clear();
            all = all && door.sides[i].check.bytes == bytes;
        }
        return all;
    }));
    for (const Side& side : door.sides) EXPECT_TRUE(side.check.good && side.closings == 0);
    EXPECT_TRUE(let_go) << "the heap was never exhausted";
}

// Goal: when completions come faster than they are taken, the kernel keeps what does not fit in the queue: peers, bytes and their order
// survive, and multishot operations that ended for it are armed anew.
TEST_P(UringPortTest, LosesNothingWhenTheCompletionQueueOverflows) {
    constexpr std::size_t many = 200, pieces = 8, piece = 512;
    ASSERT_NO_FATAL_FAILURE(open("entries=8"));
    host->events_max = 1;
    const auto send_to_all = [&](std::size_t round) {
        const std::string text = pattern(piece, 1, round * piece);
        for (const Fd& client : clients) ASSERT_EQ(::send(client.get(), text.data(), piece, MSG_NOSIGNAL), ssize_t(piece));
    };
    for (std::size_t i = 0; i < many; ++i) clients.push_back(dial());
    send_to_all(0);
    for (std::size_t round = 1; round < pieces; ++round) {
        turns(40);
        send_to_all(round);
    }
    const auto all = [&] {
        std::size_t done = 0;
        for (const Side& side : door.sides) done += side.check.bytes == pieces * piece;
        return done == many;
    };
    EXPECT_TRUE(until(all));
    for (const Side& side : door.sides) EXPECT_TRUE(side.check.good && side.closings == 0);
    EXPECT_GT(ring().counts().completion_overflows, 0u);
    EXPECT_GT(counts().ended_by_themselves, 0u);
}

// Goal: more operations in a turn than the submission queue has room for.
TEST_P(UringPortTest, SendsOnMoreConnectionsThanTheSubmissionQueueHolds) {
    constexpr std::size_t many = 64, bytes = 10'000;
    ASSERT_NO_FATAL_FAILURE(open("entries=8"));
    ASSERT_NO_FATAL_FAILURE(connect(many));
    ASSERT_NO_FATAL_FAILURE(make_turns_busy());
    const std::uint64_t before = ring().counts().submission_full;
    for (Side& side : door.sides) {
        queue(side, pattern(bytes));
        (void)port->flush(*side.link);
    }
    EXPECT_GT(ring().counts().submission_full, before);
    EXPECT_TRUE(until([&] {
        std::size_t done = 0;
        for (const Side& side : door.sides) done += side.sent_bytes == bytes;
        return done == many;
    }));
    for (const Fd& client : clients) {
        PatternCheck check;
        EXPECT_TRUE(read_exactly(client, check, bytes));
    }
}

// Goal: bytes that the kernel had received before its receive was cancelled are kept while the link is paused, and come first afterwards.
TEST_P(UringPortTest, KeepsWhatCameWhileItsReceiveWasCancelled) {
    ASSERT_NO_FATAL_FAILURE(open());
    ASSERT_NO_FATAL_FAILURE(connect(2));
    // Both have bytes, and both completions are there before the first is looked at: whoever is delivered first pauses the other one.
    const auto pause_other = [&](Side& one) {
        for (Side& side : door.sides)
            if (&side != &one) port->pause(*side.link);
        one.when_delivered = nullptr;
    };
    for (Side& side : door.sides) side.when_delivered = pause_other;
    const std::string first = pattern(1000), second = pattern(1000, 1, 1000);
    for (const Fd& client : clients) ASSERT_EQ(::send(client.get(), first.data(), first.size(), 0), 1000);
    ASSERT_TRUE(until([&] { return counts().late > 0; }));
    for (const Fd& client : clients) ASSERT_EQ(::send(client.get(), second.data(), second.size(), 0), 1000);
    turns(20);
    Side& paused = door.sides[door.sides[0].check.bytes == 0 ? 0 : 1];
    EXPECT_EQ(paused.check.bytes, 0u) << "a paused link delivers nothing";
    port->resume(*paused.link);
    EXPECT_TRUE(until([&] { return door.sides[0].check.bytes == 2000 && door.sides[1].check.bytes == 2000; }));
    EXPECT_TRUE(paused.check.good);
}

// Goal: peers that the kernel had accepted before accepting was paused wait for it to go on.
TEST_P(UringPortTest, KeepsPeersThatCameWhileItsAcceptWasCancelled) {
    ASSERT_NO_FATAL_FAILURE(open());
    turns(2);
    for (int i = 0; i < 3; ++i) clients.push_back(dial());
    door.when_accepted = [&](Side&) {
        if (door.sides.size() == 1) listening->pause();
    };
    ASSERT_TRUE(until([&] { return counts().late >= 2; }));
    turns(10);
    EXPECT_EQ(door.sides.size(), 1u);
    listening->resume();
    EXPECT_TRUE(until([&] { return door.sides.size() == 3; }));
}

// Goal: a link that is closed while the kernel receives and sends for it retires when the last of that has ended, once.
TEST_P(UringPortTest, ClosesWithOperationsUnderWay) {
    ASSERT_NO_FATAL_FAILURE(open());
    ASSERT_NO_FATAL_FAILURE(connect(2));
    ASSERT_NO_FATAL_FAILURE(make_turns_busy());
    for (Side& side : door.sides) queue(side, pattern(16u << 20));  // more than the sockets take, as nobody reads
    for (int i = 0; i < 50; ++i) {
        for (Side& side : door.sides) (void)port->flush(*side.link);
        turns(1);
    }
    Side& side = door.sides[0];
    ASSERT_TRUE(socket_of(side).driven->sending);
    const unsigned under_way = socket_of(side).driven->operations;
    EXPECT_GE(under_way, 2u) << "a receive and a send";
    port->close(*side.link, How::abort);
    EXPECT_EQ(side.retirements, 0u);
    EXPECT_EQ(counts().closed_under_way, under_way);
    EXPECT_TRUE(until([&] { return side.retirements == 1; }));
    EXPECT_EQ(side.closings, 1u);
    PatternCheck check;
    EXPECT_FALSE(read_exactly(clients[0], check, 16u << 20)) << "the peer sees a reset, not all of it";
    EXPECT_TRUE(check.good);
    EXPECT_EQ(door.sides[1].closings, 0u);
}

// Goal: what was still in the submission queue when a link was closed never meets the socket that gets its descriptor's number next.
TEST_P(UringPortTest, SparesTheSocketThatGetsTheDescriptorOfAnUnsubmittedOperation) {
    ASSERT_NO_FATAL_FAILURE(open());
    ASSERT_NO_FATAL_FAILURE(connect(2));
    ASSERT_NO_FATAL_FAILURE(make_turns_busy());
    Side& side = door.sides[0];
    const int number = socket_of(side).watched_fd;
    queue(door.sides[1], "theirs");
    queue(side, "never to be seen");
    (void)port->flush(*door.sides[1].link);
    (void)port->flush(*side.link);
    ASSERT_TRUE(socket_of(side).driven->sending);
    port->close(*side.link, How::abort);
    EXPECT_GT(counts().taken_back, 0u);
    const Fd listener = test::plain_socket(SOCK_STREAM, 8);
    // Two descriptors are open until the lowest free number, which was the link's, is taken again.
    Fd next = plain_dial(test::port_of(listener.get()));
    Fd other(::accept(listener.get(), nullptr, nullptr));
    ASSERT_TRUE(listener.get() == number || next.get() == number || other.get() == number);
    EXPECT_TRUE(until([&] { return side.retirements == 1 && door.sides[1].sent_bytes == 6; }));
    char room[64];
    EXPECT_EQ(::recv(next.get(), room, sizeof room, MSG_DONTWAIT), -1) << "nothing was sent to it";
    EXPECT_EQ(::recv(other.get(), room, sizeof room, MSG_DONTWAIT), -1);
    EXPECT_EQ(::recv(clients[1].get(), room, sizeof room, 0), 6);
}

// Goal: a send of which the socket takes a part goes on with the rest, in order.
TEST_P(UringPortTest, GoesOnAfterASendThatTookAPart) {
    constexpr std::size_t bytes = 8u << 20;
    ASSERT_NO_FATAL_FAILURE(open("sndbuf=65536"));
    ASSERT_NO_FATAL_FAILURE(connect(2));
    ASSERT_NO_FATAL_FAILURE(make_turns_busy());
    queue(door.sides[0], pattern(bytes));
    queue(door.sides[1], "x");
    PatternCheck check;
    std::string room(256u << 10, '\0');
    EXPECT_TRUE(until([&] {
        for (Side& side : door.sides) (void)port->flush(*side.link);
        const ssize_t got = ::recv(clients[0].get(), room.data(), room.size(), MSG_DONTWAIT);
        if (got > 0) check.take(test::bytes_of(std::string_view(room).substr(0, std::size_t(got))));
        return check.bytes == bytes || !check.good;
    }));
    EXPECT_TRUE(check.good);
    EXPECT_GT(counts().short_sends, 0u);
}

// Goal: a send that the kernel has no memory for (EAGAIN although the socket reported room) waits a millisecond and is sent again.
// Method: the submitted operation is taken back and answered as the kernel would.
TEST_P(UringPortTest, SendsAgainWhatTheKernelHadNoMemoryFor) {
    ASSERT_NO_FATAL_FAILURE(open());
    ASSERT_NO_FATAL_FAILURE(connect(2));
    ASSERT_NO_FATAL_FAILURE(make_turns_busy());
    for (Side& side : door.sides) {
        queue(side, pattern(100));
        (void)port->flush(*side.link);
    }
    Side& side = door.sides[1];
    const std::uint64_t name = UringPort::name_of_operation(socket_of(side).driven, UringPort::k_send);
    ASSERT_TRUE(ring().forget(name));
    (void)port->complete({name, -EAGAIN, 0});
    EXPECT_EQ(counts().refused_sends, 1u);
    EXPECT_EQ(side.closings, 0u);
    ASSERT_TRUE(until([&] { return side.writables == 1; }));
    EXPECT_EQ(port->flush(*side.link), Flushed::all);
    EXPECT_TRUE(until([&] { return side.sent_bytes == 100; }));
    PatternCheck check;
    EXPECT_TRUE(read_exactly(clients[1], check, 100));
}

// -- by reference ----------------------------------------------------------------------------------------------

class UringReferenceTest : public UringPortTest {
protected:
    static constexpr std::size_t bytes = 256u << 10;

    void SetUp() override {
        UringPortTest::SetUp();
        if (IsSkipped()) return;
        ASSERT_NO_FATAL_FAILURE(open("zerocopy=true"));
        ASSERT_NO_FATAL_FAILURE(connect(1));
    }
    Side& side() { return door.sides[0]; }
    Driven& driven() { return *socket_of(side()).driven; }
    /// Puts a send that the kernel never sees; its name.
    std::uint64_t send_unseen(std::size_t size = bytes) {
        queue(side(), pattern(size, 1, queued));
        queued += size;
        EXPECT_EQ(port->flush(*side().link), Flushed::all);
        EXPECT_TRUE(driven().sending);
        const std::uint64_t name = UringPort::name_of_operation(&driven(), UringPort::k_send, driven().send_number);
        EXPECT_TRUE(ring().forget(name));
        return name;
    }
    void answer(std::uint64_t name, std::int32_t result) { (void)port->complete({name, result, abi::cqe_more}); }
    void notify(std::uint64_t name, bool copied = false) {
        (void)port->complete({name, std::int32_t(copied ? abi::notification_copied : 0), abi::cqe_notification});
    }
    std::size_t queued = 0;
};

// Goal: large sends leave by reference until the kernel has reported four times that it copies, as it does on a loopback; then by copy.
TEST_P(UringReferenceTest, StopsWhenTheKernelCopies) {
    constexpr std::size_t total = 12 * bytes;
    EXPECT_TRUE(side().link->caps->zero_copy_send);
    PatternCheck check;
    std::string room(bytes, '\0');
    while (queued < total) {
        queue(side(), pattern(bytes, 1, queued));
        queued += bytes;
        ASSERT_TRUE(until([&] {
            (void)port->flush(*side().link);
            const ssize_t got = ::recv(clients[0].get(), room.data(), room.size(), MSG_DONTWAIT);
            if (got > 0) check.take(test::bytes_of(std::string_view(room).substr(0, std::size_t(got))));
            return side().sent_bytes == queued && check.bytes == queued;
        }));
    }
    EXPECT_TRUE(check.good);
    EXPECT_GE(counts().copied, 4u);
    EXPECT_EQ(counts().copied, counts().by_reference);
    EXPECT_LT(counts().by_reference, 10u) << "the last ones went by copy";
    EXPECT_TRUE(socket_of(side()).zero_copy->off);
    rlimit locked{};
    ASSERT_EQ(getrlimit(RLIMIT_MEMLOCK, &locked), 0);
    if (locked.rlim_cur >= 8u << 20) {
        EXPECT_EQ(counts().registered, counts().by_reference) << "out of a registered slab";
    }
}

// Goal: small sends are copied.
TEST_P(UringReferenceTest, CopiesWhatIsSmall) {
    queue(side(), pattern(4096));
    (void)port->flush(*side().link);
    PatternCheck check;
    EXPECT_TRUE(until([&] { return side().sent_bytes == 4096; }));
    EXPECT_TRUE(read_exactly(clients[0], check, 4096));
    EXPECT_EQ(counts().by_reference, 0u);
}

// Goal: a slice is let go with the notification, not with the send's completion, and bytes are told in order although notifications are not.
TEST_P(UringReferenceTest, HoldsItsSlicesUntilTheLastNotification) {
    const std::uint64_t idle = host->heap().blocks_out();
    const std::uint64_t first = send_unseen();
    answer(first, bytes / 2);  // in part: the rest is sent anew, under the next name
    ASSERT_TRUE(driven().sending);
    const std::uint64_t second = UringPort::name_of_operation(&driven(), UringPort::k_send, driven().send_number);
    EXPECT_NE(first, second);
    ASSERT_TRUE(ring().forget(second));
    answer(second, bytes / 2);
    const std::uint64_t third = send_unseen();
    answer(third, bytes);
    EXPECT_EQ(side().sent_bytes, 0u);
    notify(third);
    EXPECT_EQ(side().sent_bytes, 0u) << "what was sent before is still being sent";
    const std::uint64_t holding = host->heap().blocks_out();
    EXPECT_GE(holding, idle + 2);
    notify(first);
    EXPECT_EQ(side().sent_bytes, bytes / 2);
    EXPECT_EQ(host->heap().blocks_out(), holding) << "the other half of the slice is under way";
    notify(second);
    EXPECT_EQ(side().sent_bytes, 2 * bytes);
    EXPECT_LT(host->heap().blocks_out(), holding);
    EXPECT_EQ(counts().copied, 0u);
}

// Goal: what is copied behind a send by reference is told after it.
TEST_P(UringReferenceTest, TellsOfCopiesBehindReferencesInOrder) {
    const std::uint64_t first = send_unseen();
    answer(first, bytes);
    turns(2);
    queue(side(), "small");
    (void)port->flush(*side().link);
    turns(5);
    char room[8] = {};
    ASSERT_EQ(::recv(clients[0].get(), room, sizeof room, 0), 5);
    EXPECT_EQ(side().sent_bytes, 0u);
    notify(first);
    EXPECT_EQ(side().sent_bytes, bytes + 5);
}

// Goal: a link that is closed while only a notification is missing retires with that, once.
TEST_P(UringReferenceTest, RetiresWithTheLastNotification) {
    const std::uint64_t name = send_unseen();
    const std::uint64_t holding = host->heap().blocks_out();
    answer(name, bytes);
    port->close(*side().link, How::abort);
    turns(20);
    EXPECT_EQ(side().closings, 1u);
    EXPECT_EQ(side().retirements, 0u) << "the kernel may still read its slices";
    EXPECT_GE(host->heap().blocks_out(), holding);
    notify(name);
    EXPECT_TRUE(until([&] { return side().retirements == 1; }));
}

// Goal: an orderly end waits for the notification, too: the peer gets everything before it.
TEST_P(UringReferenceTest, FinishesAfterTheLastNotification) {
    const std::uint64_t name = send_unseen();
    answer(name, bytes);
    port->close(*side().link, How::finish);
    turns(5);
    EXPECT_EQ(side().closings, 0u);
    notify(name);
    EXPECT_TRUE(until([&] { return side().retirements == 1; }));
    EXPECT_EQ(side().end, Errc::end);
}

// Goal: where pages cannot be pinned (the limit of locked memory) the connection goes on by copy, at once.
TEST_P(UringReferenceTest, CopiesWhenPagesCannotBePinned) {
    const std::uint64_t name = send_unseen();
    answer(name, -ENOMEM);
    EXPECT_TRUE(driven().sending);
    EXPECT_FALSE(driven().by_reference);
    notify(name);
    PatternCheck check;
    EXPECT_TRUE(until([&] { return side().sent_bytes == bytes; }));
    EXPECT_TRUE(read_exactly(clients[0], check, bytes));
    EXPECT_EQ(side().closings, 0u);
}

INSTANTIATE_TEST_SUITE_P(Tier, UringReferenceTest, testing::Values(1, 2), [](const auto& row) { return std::to_string(row.param); });

// Goal: kernels that do not say whether they copy are not asked to send by reference, and the caps say so.
TEST_P(UringPortTest, SendsByReferenceOnlyWhereTheKernelReportsCopies) {
    ASSERT_NO_FATAL_FAILURE(open("zerocopy=true"));
    ASSERT_NO_FATAL_FAILURE(connect(1));
    EXPECT_EQ(door.sides[0].link->caps->zero_copy_send, GetParam() >= tier_6_6);
}

INSTANTIATE_TEST_SUITE_P(Tier, UringPortTest, testing::Values(0, 1, 2), [](const auto& row) { return std::to_string(row.param); });

}  // namespace
}  // namespace evpl::transport::uring
