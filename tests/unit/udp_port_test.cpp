// The udp port at its contract: a sink and an outbox on one side, the kernel's loopback on the other. Calls of sendmmsg(2) can be made to
// fail on demand, as the loopback never runs out of room.
#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "evpl/endpoint.hpp"
#include "transport/common/sockets/datagram.hpp"
#include "transport/common/sockets/port.hpp"
#include "transport/socket/socket.hpp"
#include "transport/uring/port.hpp"
#include "transport/uring/uring.hpp"
#include "unit/port_host.hpp"

namespace {

/// What the next sendmmsg calls of this thread do: 0 sends, -1 sends one message only, else the call fails with this errno.
thread_local std::deque<int> send_script;
/// True: every message with a UDP_SEGMENT note fails with this errno.
thread_local int refuse_segments_with = 0;
thread_local unsigned send_calls = 0;
thread_local unsigned messages_sent = 0;
thread_local unsigned trains_sent = 0;

void forget_sends() {
    send_script.clear();
    refuse_segments_with = 0;
    send_calls = messages_sent = trains_sent = 0;
}

}  // namespace

// Stands before the C library's in this program.
extern "C" int sendmmsg(int fd, mmsghdr* messages, unsigned count, int flags) {
    ++send_calls;
    if (!send_script.empty()) {
        const int todo = send_script.front();
        send_script.pop_front();
        if (todo > 0) {
            errno = todo;
            return -1;
        }
        if (todo < 0) count = 1;
    }
    if (refuse_segments_with != 0) {
        unsigned plain = 0;
        while (plain < count && messages[plain].msg_hdr.msg_controllen == 0) ++plain;
        if (plain == 0) {
            errno = refuse_segments_with;
            return -1;
        }
        count = plain;
    }
    const auto sent = int(syscall(SYS_sendmmsg, fd, messages, count, flags));
    for (int i = 0; i < sent; ++i) {
        ++messages_sent;
        trains_sent += messages[i].msg_hdr.msg_controllen > 0 ? 1 : 0;
    }
    return sent;
}

namespace evpl::transport {
namespace {

struct Got {
    std::string bytes;
    Address from, to;
    bool truncated;
    friend bool operator==(const Got& a, const std::string& text) { return a.bytes == text; }
};

struct Recorder final : Sink {
    std::vector<Got> got;
    std::vector<Buffer> kept;
    std::vector<Error> errors;
    std::size_t sent_bytes = 0;
    unsigned upcalls = 0, merged = 0, writables = 0;
    unsigned openings = 0, closings = 0, retirements = 0;
    Error end;
    bool keep = false;
    std::function<void()> on_delivered;

    void opened() override { ++openings; }
    void delivered(Buffer&& bytes, const Arrival& arrival) override {
        EXPECT_EQ(openings, 1u) << "delivered before opened";
        EXPECT_TRUE(arrival.end_of_message);
        EXPECT_NE(arrival.source, nullptr);
        ++upcalls;
        const std::string all(reinterpret_cast<const char*>(bytes.data()), bytes.size());
        const std::size_t step = arrival.segment_bytes > 0 ? arrival.segment_bytes : std::max<std::size_t>(all.size(), 1);
        merged += arrival.segment_bytes > 0 ? 1 : 0;
        std::size_t at = 0;
        do {
            got.push_back({all.substr(at, step), *arrival.source, arrival.local != nullptr ? *arrival.local : Address{}, arrival.truncated});
            at += step;
        } while (at < all.size());
        if (keep) kept.push_back(std::move(bytes));
        if (on_delivered) on_delivered();
    }
    void landed(std::uint32_t) override { ADD_FAILURE(); }
    void ended() override { ADD_FAILURE(); }
    void sent(std::size_t bytes) override { sent_bytes += bytes; }
    void send_failed(Error error) override { errors.push_back(error); }
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

/// A datagram socket of a port with all that core would have.
struct Side {
    Recorder sink;
    SendQueue outbox;
    Link* link = nullptr;
    Address at;  ///< where others reach it
};

Address literal(std::string_view host, std::uint16_t port = 0) { return *Address::parse(host, port); }

std::string letters(std::size_t size, unsigned seed) {
    std::string text(size, '\0');
    for (std::size_t i = 0; i < size; ++i) text[i] = char((i * 31 + seed * 17 + (i >> 8)) & 0xff);
    return text;
}

class UdpSides : public ::testing::Test {
protected:
    void SetUp() override {
        forget_sends();
        if (through_ring && !uring::support().present) GTEST_SKIP() << uring::support().reason;
        auto opened = (through_ring ? uring_transport() : socket_transport()).open(host);
        ASSERT_TRUE(opened.ok());
        port.reset(*opened);
    }
    void TearDown() override {
        forget_sends();
        for (auto& side : sides) {
            side->sink.kept.clear();
            side->outbox.clear();
        }
        port.reset();
        EXPECT_LE(host.heap().blocks_out(), 0u) << "blocks leaked";
    }

    Side& bound(std::string_view url) { return add(url, nullptr); }
    Side& connected(std::string_view url, const Address& to) { return add(url, &to); }

    Side& add(std::string_view url, const Address* to) {
        sides.push_back(std::make_unique<Side>());
        Side& side = *sides.back();
        Diagnostic why;
        const auto endpoint = Endpoint::parse((through_ring ? "uring-" : "") + std::string(url));
        EXPECT_TRUE(endpoint.ok()) << url;
        const auto link = port->bind(*endpoint, to, side.sink, side.outbox, why);
        EXPECT_TRUE(link.ok()) << url << ": " << why.text;
        if (!link) return side;
        EXPECT_EQ(side.sink.openings, 0u) << "an upcall from inside bind";
        side.link = *link;
        side.at = port->local_address(*side.link);
        return side;
    }

    void queue(Side& from, std::string_view text, const Address* to = nullptr, std::size_t piece = SIZE_MAX) {
        std::size_t at = 0;
        do {
            const std::size_t n = std::min(piece, text.size() - at);
            auto slice = host.heap().copy(reinterpret_cast<const std::byte*>(text.data()) + at, std::uint32_t(n));
            ASSERT_TRUE(slice.ok());
            at += n;
            if (at == text.size()) BufferAccess::set_flags(*slice, BufferAccess::end_of_message);
            ASSERT_TRUE(from.outbox.push(*std::move(slice)));
        } while (at < text.size());
        if (to == nullptr) return;
        Address copy = *to;
        ASSERT_TRUE(from.outbox.destinations.push(std::move(copy)));
    }

    template <class Done>
    bool until(Done done, int turns = 300) {
        for (int i = 0; i < turns && !done(); ++i) host.turn(*port, 10);
        return done();
    }
    void settle(int turns = 20) {
        for (int i = 0; i < turns; ++i) host.turn(*port, 1);
    }

    const uring::PortCounts& ring_counts() const { return static_cast<const uring::UringPort&>(*port).counts(); }

    bool through_ring = false;
    PortHost host;
    std::unique_ptr<Port> port;
    std::vector<std::unique_ptr<Side>> sides;
};

/// Kernel sockets told by epoll, and through io_uring.
class UdpPort : public UdpSides, public ::testing::WithParamInterface<bool> {
protected:
    UdpPort() { through_ring = GetParam(); }
};

TEST_P(UdpPort, OpensOnceAndClosesOnce) {
    Side& one = bound("udp://127.0.0.1:0");
    EXPECT_EQ(one.at.family, Address::Family::ipv4);
    EXPECT_NE(one.at.port, 0);
    EXPECT_TRUE(one.link->caps->segmentation);
    EXPECT_EQ(one.link->caps->kind, Kind::datagram);
    settle();
    EXPECT_EQ(one.sink.openings, 1u);
    port->close(*one.link, How::abort);
    EXPECT_EQ(one.sink.closings, 0u) << "an upcall from inside close";
    EXPECT_TRUE(until([&] { return one.sink.retirements == 1; }));
    EXPECT_EQ(one.sink.closings, 1u);
    EXPECT_EQ(one.sink.end, Errc::closed);
    EXPECT_TRUE(one.sink.errors.empty());
}

// Goal: every legal size arrives whole and in order. Method: sizes around each limit, 0 to 65,507, between two connected ends.
TEST_P(UdpPort, CarriesEverySizeWhole) {
    Side& to = bound("udp://127.0.0.1:0");
    Side& from = connected("udp://127.0.0.1:9", to.at);
    std::vector<std::string> expected;
    for (const std::size_t size : {1u,    0u,    2u,    63u,   64u,    65u,    0u,     0u,     1400u,  1472u,  2047u,  2048u,  2049u, 4095u,
                                   4096u, 4097u, 8192u, 9000u, 32768u, 65000u, 65486u, 65487u, 65488u, 65506u, 65507u, 65507u, 1u,    0u})
        expected.push_back(letters(size, unsigned(expected.size())));
    std::size_t bytes = 0;
    for (const auto& text : expected) {
        queue(from, text, nullptr, 7000);
        bytes += text.size();
        EXPECT_EQ(port->flush(*from.link), Flushed::all);
        settle(2);
    }
    EXPECT_TRUE(until([&] { return to.sink.got.size() == expected.size(); }));
    ASSERT_EQ(to.sink.got.size(), expected.size());
    for (std::size_t i = 0; i < expected.size(); ++i) {
        EXPECT_TRUE(to.sink.got[i] == expected[i]) << i << ": " << to.sink.got[i].bytes.size() << " of " << expected[i].size();
        EXPECT_FALSE(to.sink.got[i].truncated);
        EXPECT_EQ(to.sink.got[i].from, from.at);
        EXPECT_EQ(to.sink.got[i].to, to.at);
    }
    EXPECT_EQ(from.sink.sent_bytes, bytes);
    EXPECT_TRUE(from.sink.errors.empty());
    EXPECT_EQ(from.outbox.count(), 0u);
}

// Goal: nothing is cut either when many large ones arrive at once and are all kept.
TEST_P(UdpPort, ManyLargeOnesAtOnceAreKeptWhole) {
    Side& to = bound("udp://127.0.0.1:0?rcvbuf=4M");
    Side& from = bound("udp://127.0.0.1:0?segmentation=off");
    EXPECT_FALSE(from.link->caps->segmentation);
    to.sink.keep = true;
    for (unsigned i = 0; i < 40; ++i) queue(from, letters(i % 3 == 0 ? 65507 : i % 3 == 1 ? 5000 : 10, i), &to.at);
    EXPECT_EQ(port->flush(*from.link), Flushed::all);
    until([&] { return to.sink.got.size() == 40; });
    ASSERT_EQ(to.sink.got.size(), 40u);
    for (unsigned i = 0; i < 40; ++i) {
        const std::string expected = letters(i % 3 == 0 ? 65507 : i % 3 == 1 ? 5000 : 10, i);
        ASSERT_EQ(to.sink.kept[i].size(), expected.size());
        EXPECT_EQ(std::memcmp(to.sink.kept[i].data(), expected.data(), expected.size()), 0) << i;
    }
}

// Goal: a burst of equal datagrams leaves as few sends, arrives merged, and is the same packet by packet.
TEST_P(UdpPort, EqualSizesTravelAsTrains) {
    Side& to = bound("udp://127.0.0.1:0");
    Side& from = bound("udp://127.0.0.1:0");
    for (const std::size_t size : {1u, 64u, 100u, 1400u, 9000u}) {
        to.sink.got.clear();
        to.sink.merged = to.sink.upcalls = 0;
        forget_sends();
        const unsigned count = 130;
        for (unsigned i = 0; i < count; ++i) queue(from, letters(i == count - 1 && size > 1 ? size / 2 : size, i), &to.at);
        EXPECT_EQ(port->flush(*from.link), Flushed::all);
        EXPECT_TRUE(until([&] { return to.sink.got.size() == count; }));
        ASSERT_EQ(to.sink.got.size(), count) << size;
        for (unsigned i = 0; i < count; ++i) ASSERT_EQ(to.sink.got[i].bytes, letters(i == count - 1 && size > 1 ? size / 2 : size, i)) << size << " " << i;
        EXPECT_LT(messages_sent, count / 5) << size;
        EXPECT_EQ(send_calls, 1u);
        EXPECT_GT(to.sink.merged, 0u);
        EXPECT_LT(to.sink.upcalls, count / 5);
    }
    EXPECT_TRUE(from.sink.errors.empty());
}

TEST_P(UdpPort, WithoutSegmentationEachGoesAlone) {
    Side& to = bound("udp://127.0.0.1:0?segmentation=off");
    Side& from = bound("udp://127.0.0.1:0");
    Side& plain = bound("udp://127.0.0.1:0?segmentation=0");
    for (unsigned i = 0; i < 100; ++i) {
        queue(from, letters(64, i), &to.at);
        queue(plain, letters(64, i), &to.at);
    }
    EXPECT_EQ(port->flush(*from.link), Flushed::all);
    EXPECT_EQ(messages_sent, 2u);
    EXPECT_EQ(port->flush(*plain.link), Flushed::all);
    EXPECT_EQ(messages_sent, 102u);
    EXPECT_TRUE(until([&] { return to.sink.got.size() == 200; }));
    ASSERT_EQ(to.sink.got.size(), 200u);
    EXPECT_EQ(to.sink.merged, 0u);
    for (unsigned i = 0; i < 200; ++i) EXPECT_EQ(to.sink.got[i].bytes, letters(64, i % 100));
}

// Goal: sizes, destinations and pieces in any mixture keep their order for each destination, and empty ones are not lost.
TEST_P(UdpPort, MixedSizesAndDestinationsKeepTheirOrder) {
    Side* to[3] = {&bound("udp://127.0.0.1:0"), &bound("udp://127.0.0.1:0"), &bound("udp://127.0.0.1:0?segmentation=off")};
    Side& from = bound("udp://127.0.0.1:0");
    std::vector<std::string> expected[3];
    std::uint32_t dice = 12345;
    const auto roll = [&](std::uint32_t n) {
        dice = dice * 1664525 + 1013904223;
        return (dice >> 8) % n;
    };
    for (unsigned round = 0; round < 40; ++round) {
        for (unsigned i = 0; i < 30;) {
            const unsigned target = roll(3), size = roll(4) == 0 ? roll(3000) : roll(2) * 64, run = 1 + roll(6);
            for (unsigned n = 0; n < run; ++n, ++i) {
                expected[target].push_back(letters(size, dice + n));
                queue(from, expected[target].back(), &to[target]->at, roll(2) == 0 ? SIZE_MAX : 33);
            }
        }
        EXPECT_EQ(port->flush(*from.link), Flushed::all);
        EXPECT_TRUE(from.outbox.destinations.empty());
        EXPECT_TRUE(until([&] {
            for (unsigned t = 0; t < 3; ++t)
                if (to[t]->sink.got.size() != expected[t].size()) return false;
            return true;
        }));
    }
    for (unsigned t = 0; t < 3; ++t) {
        ASSERT_EQ(to[t]->sink.got.size(), expected[t].size());
        for (std::size_t i = 0; i < expected[t].size(); ++i) ASSERT_TRUE(to[t]->sink.got[i] == expected[t][i]) << t << " " << i;
    }
    EXPECT_TRUE(from.sink.errors.empty());
}

TEST_P(UdpPort, AnswersGoWhereTheDatagramCameFrom) {
    Side& server = bound("udp://0.0.0.0:0");
    const Address there = literal("127.0.0.2", server.at.port);
    Side& client = connected("udp://127.0.0.2:1", there);
    queue(client, "ping");
    port->flush(*client.link);
    ASSERT_TRUE(until([&] { return server.sink.got.size() == 1; }));
    EXPECT_EQ(server.sink.got[0].from, client.at);
    EXPECT_EQ(server.sink.got[0].to, there) << "packet info of a wildcard socket";
    EXPECT_EQ(port->remote_address(*client.link), there);
}

TEST_P(UdpPort, ConnectedEndsHearOnlyTheirPeer) {
    Side& peer = bound("udp://127.0.0.1:0");
    Side& stranger = bound("udp://127.0.0.1:0");
    Side& end = connected("udp://127.0.0.1:1", peer.at);
    queue(stranger, "no", &end.at);
    queue(peer, "yes", &end.at);
    port->flush(*stranger.link);
    port->flush(*peer.link);
    ASSERT_TRUE(until([&] { return !end.sink.got.empty(); }));
    EXPECT_EQ(end.sink.got.size(), 1u);
    EXPECT_EQ(end.sink.got[0].bytes, "yes");
    EXPECT_EQ(end.sink.got[0].from, peer.at);
}

bool has_ipv6() {
    const int fd = ::socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return false;
    sockaddr_in6 name{};
    name.sin6_family = AF_INET6;
    name.sin6_addr = in6addr_loopback;
    const bool good = ::bind(fd, reinterpret_cast<sockaddr*>(&name), sizeof name) == 0;
    ::close(fd);
    return good;
}

TEST_P(UdpPort, SpeaksIpv6) {
    if (!has_ipv6()) GTEST_SKIP() << "no IPv6 loopback here";
    Side& to = bound("udp://[::1]:0");
    Side& from = bound("udp://[::1]:0");
    for (unsigned i = 0; i < 70; ++i) queue(from, letters(1000, i), &to.at);
    queue(from, letters(65507, 1), &to.at);
    EXPECT_EQ(port->flush(*from.link), Flushed::all);
    ASSERT_TRUE(until([&] { return to.sink.got.size() == 71; }));
    for (unsigned i = 0; i < 70; ++i) ASSERT_EQ(to.sink.got[i].bytes, letters(1000, i));
    EXPECT_EQ(to.sink.got[70].bytes, letters(65507, 1));
    EXPECT_EQ(to.sink.got[0].from, from.at);
    EXPECT_EQ(to.sink.got[0].to, to.at);
    EXPECT_GT(to.sink.merged, 0u);
}

// Goal: "*" serves both families, knows where each datagram was sent to, and answers both.
TEST_P(UdpPort, OneSocketForBothFamilies) {
    if (!has_ipv6()) GTEST_SKIP() << "no IPv6 loopback here";
    Side& both = bound("udp://*:0");
    const Address v4 = literal("127.0.0.1", both.at.port), v6 = literal("::1", both.at.port);
    Side& one = connected("udp://127.0.0.1:1", v4);
    Side& two = connected("udp://[::1]:1", v6);
    queue(one, "from four");
    queue(two, "from six");
    port->flush(*one.link);
    port->flush(*two.link);
    ASSERT_TRUE(until([&] { return both.sink.got.size() == 2; }));
    const unsigned first = both.sink.got[0].bytes == "from four" ? 0 : 1;
    EXPECT_EQ(both.sink.got[first].from, one.at);
    EXPECT_EQ(both.sink.got[first].to, v4);
    EXPECT_EQ(both.sink.got[1 - first].from, two.at);
    EXPECT_EQ(both.sink.got[1 - first].to, v6);
    for (unsigned i = 0; i < 3; ++i) queue(both, letters(50, i), &one.at);
    for (unsigned i = 0; i < 3; ++i) queue(both, letters(50, i), &two.at);
    EXPECT_EQ(port->flush(*both.link), Flushed::all);
    ASSERT_TRUE(until([&] { return one.sink.got.size() == 3 && two.sink.got.size() == 3; }));
    EXPECT_TRUE(both.sink.errors.empty());
}

// Goal: a peer that is not there is told as errors, one for each datagram lost, and the socket lives.
TEST_P(UdpPort, RefusedDatagramsDoNotClose) {
    Side& peer = bound("udp://127.0.0.1:0");
    const Address there = peer.at;
    Side& end = connected("udp://127.0.0.1:1", there);
    settle();
    port->close(*peer.link, How::abort);
    settle();
    std::size_t bytes = 0;
    for (unsigned i = 0; i < 10; ++i) {
        queue(end, letters(10 + i, i));
        bytes += 10 + i;
    }
    EXPECT_EQ(port->flush(*end.link), Flushed::all);
    settle();
    EXPECT_FALSE(end.sink.errors.empty());
    EXPECT_LE(end.sink.errors.size(), 10u);
    for (const Error& error : end.sink.errors) {
        EXPECT_EQ(error.code(), Errc::refused);
        EXPECT_EQ(error.step(), Step::send);
    }
    EXPECT_EQ(end.sink.sent_bytes, bytes);
    EXPECT_EQ(end.sink.closings, 0u);
    // Somebody is there again: it works.
    char url[64];
    std::snprintf(url, sizeof url, "udp://127.0.0.1:%u", there.port);
    Side& again = bound(url);
    queue(end, "hello");
    EXPECT_EQ(port->flush(*end.link), Flushed::all);
    EXPECT_TRUE(until([&] { return again.sink.got.size() == 1; }));
}

// Goal: a refused train is told, tried again, and the rest of the queue is not lost.
TEST_P(UdpPort, RefusedTrainsDoNotClose) {
    Side& peer = bound("udp://127.0.0.1:0");
    Side& end = connected("udp://127.0.0.1:1", peer.at);
    settle();
    port->close(*peer.link, How::abort);
    settle();
    for (unsigned round = 0; round < 4; ++round) {
        for (unsigned i = 0; i < 200; ++i) queue(end, letters(64, i));
        EXPECT_EQ(port->flush(*end.link), Flushed::all);
    }
    settle();
    EXPECT_FALSE(end.sink.errors.empty());
    EXPECT_EQ(end.sink.sent_bytes, 4u * 200 * 64);
    EXPECT_EQ(end.sink.closings, 0u);
    EXPECT_EQ(end.outbox.count(), 0u);
}

TEST_P(UdpPort, OneBadDestinationDoesNotStopTheOthers) {
    Side& to = bound("udp://127.0.0.1:0");
    Side& from = bound("udp://127.0.0.1:0");
    const Address nowhere = literal("127.0.0.1", 0), broadcast = literal("255.255.255.255", 9), six = literal("::1", 9), none{};
    for (const Address* bad : {&nowhere, &nowhere, &nowhere, &broadcast, &six, &none}) {
        queue(from, "first", &to.at);
        queue(from, "lost!", bad);
    }
    queue(from, "last", &to.at);
    EXPECT_EQ(port->flush(*from.link), Flushed::all);
    ASSERT_TRUE(until([&] { return to.sink.got.size() == 7; }));
    EXPECT_EQ(to.sink.got[6].bytes, "last");
    EXPECT_EQ(from.sink.errors.size(), 6u);
    EXPECT_EQ(from.sink.sent_bytes, 6u * 10 + 4);
    settle();
    EXPECT_EQ(from.sink.closings, 0u);
}

// Goal: a peer with a bad address does not cost others the trains: port 0 is refused, train or not.
TEST_P(UdpPort, ABadDestinationKeepsSegmentationAlive) {
    Side& to = bound("udp://127.0.0.1:0");
    Side& from = bound("udp://127.0.0.1:0");
    const Address nowhere = literal("127.0.0.1", 0);
    for (unsigned i = 0; i < 10; ++i) queue(from, letters(64, i), &nowhere);
    EXPECT_EQ(port->flush(*from.link), Flushed::all);
    EXPECT_EQ(from.sink.errors.size(), 10u);
    forget_sends();
    for (unsigned i = 0; i < 10; ++i) queue(from, letters(64, i), &to.at);
    EXPECT_EQ(port->flush(*from.link), Flushed::all);
    EXPECT_EQ(trains_sent, 1u);
    EXPECT_TRUE(until([&] { return to.sink.got.size() == 10; }));
}

TEST_P(UdpPort, TooLargeIsDroppedAndTold) {
    Side& to = bound("udp://127.0.0.1:0");
    Side& from = bound("udp://127.0.0.1:0");
    queue(from, letters(65508, 1), &to.at);
    queue(from, "next", &to.at);
    queue(from, letters(60000, 1), &to.at, 40);  // more pieces than one message may have
    queue(from, "last", &to.at);
    EXPECT_EQ(port->flush(*from.link), Flushed::all);
    ASSERT_TRUE(until([&] { return to.sink.got.size() == 2; }));
    EXPECT_EQ(to.sink.got[0].bytes, "next");
    EXPECT_EQ(to.sink.got[1].bytes, "last");
    ASSERT_EQ(from.sink.errors.size(), 2u);
    EXPECT_EQ(from.sink.errors[0].code(), Error::from_errno(EMSGSIZE, Step::send).code());
    EXPECT_EQ(from.sink.sent_bytes, 65508u + 4 + 60000 + 4);
}

// -- what the loopback never does, by script

class UdpPortRefused : public UdpSides, public ::testing::WithParamInterface<int> {};

// Goal: where segmentation is refused everything arrives nevertheless, and it is not tried for ever.
TEST_P(UdpPortRefused, TrainsFallBackToSingles) {
    Side& to = bound("udp://127.0.0.1:0");
    Side& from = bound("udp://127.0.0.1:0");
    refuse_segments_with = GetParam();
    for (unsigned round = 0; round < 3; ++round) {
        send_calls = 0;
        to.sink.got.clear();
        for (unsigned i = 0; i < 100; ++i) queue(from, letters(i < 50 ? 64 : 65, i), &to.at);
        EXPECT_EQ(port->flush(*from.link), Flushed::all);
        ASSERT_TRUE(until([&] { return to.sink.got.size() == 100; })) << to.sink.got.size();
        for (unsigned i = 0; i < 100; ++i) ASSERT_EQ(to.sink.got[i].bytes, letters(i < 50 ? 64 : 65, i)) << i;
        if (round > 0) {
            EXPECT_EQ(send_calls, 2u);  // 100 messages, 64 at a time
        }
    }
    EXPECT_TRUE(from.sink.errors.empty());
    EXPECT_EQ(from.sink.sent_bytes, 3u * (50 * 64 + 50 * 65));
    refuse_segments_with = 0;
    trains_sent = 0;
    for (unsigned i = 0; i < 10; ++i) queue(from, letters(32, i), &to.at);
    port->flush(*from.link);
    const bool by_size = GetParam() == EMSGSIZE || GetParam() == EINVAL;
    EXPECT_EQ(trains_sent, by_size ? 1u : 0u) << "smaller ones may still go as trains";
    EXPECT_EQ(host.log.empty(), by_size);
}
INSTANTIATE_TEST_SUITE_P(Errors, UdpPortRefused, ::testing::Values(EIO, EINVAL, EMSGSIZE, EOPNOTSUPP));

TEST_P(UdpPort, AFullSocketBlocksAndBecomesWritable) {
    Side& to = bound("udp://127.0.0.1:0");
    Side& from = bound("udp://127.0.0.1:0?sndbuf=4k");
    settle();
    for (unsigned round = 0; round < 3; ++round) {
        for (unsigned i = 0; i < 5; ++i) queue(from, letters(100 * i, i), &to.at);
        send_script = {-1, -1, EAGAIN};
        EXPECT_EQ(port->flush(*from.link), Flushed::blocked);
        EXPECT_EQ(from.outbox.destinations.size(), 3u);
        EXPECT_EQ(port->flush(*from.link), Flushed::blocked) << "not tried before writable";
        EXPECT_TRUE(until([&] { return from.sink.writables == round + 1; }));
        EXPECT_EQ(port->flush(*from.link), Flushed::all);
        EXPECT_TRUE(until([&] { return to.sink.got.size() == 5 * (round + 1); }));
        settle();
    }
    EXPECT_EQ(from.sink.writables, 3u);
    EXPECT_EQ(from.sink.sent_bytes, 3u * 1000);
    EXPECT_TRUE(from.sink.errors.empty());
}

TEST_P(UdpPort, KernelOutOfMemoryIsTriedAgain) {
    Side& to = bound("udp://127.0.0.1:0");
    Side& from = bound("udp://127.0.0.1:0");
    settle();
    for (const int error : {ENOBUFS, ENOMEM}) {
        const unsigned before = from.sink.writables;
        queue(from, "patience", &to.at);
        send_script = {EINTR, error};
        EXPECT_EQ(port->flush(*from.link), Flushed::blocked);
        EXPECT_TRUE(until([&] { return from.sink.writables == before + 1; }));
        EXPECT_EQ(port->flush(*from.link), Flushed::all);
    }
    EXPECT_TRUE(until([&] { return to.sink.got.size() == 2; }));
    // Also when it is closed meanwhile.
    queue(from, "never", &to.at);
    send_script = {ENOBUFS};
    EXPECT_EQ(port->flush(*from.link), Flushed::blocked);
    port->close(*from.link, How::abort);
    EXPECT_TRUE(until([&] { return from.sink.retirements == 1; }));
    EXPECT_TRUE(from.sink.errors.empty());
}

TEST_P(UdpPort, AFilteredDatagramIsDroppedAndTold) {
    Side& to = bound("udp://127.0.0.1:0");
    Side& from = bound("udp://127.0.0.1:0");
    queue(from, "one", &to.at);
    queue(from, "four", &to.at);
    send_script = {-1, EPERM};
    EXPECT_EQ(port->flush(*from.link), Flushed::all);
    EXPECT_TRUE(until([&] { return to.sink.got.size() == 1; }));
    ASSERT_EQ(from.sink.errors.size(), 1u);
    EXPECT_EQ(from.sink.errors[0].code(), Error::from_errno(EPERM, Step::send).code());
    EXPECT_EQ(from.sink.sent_bytes, 7u);
}

TEST_P(UdpPort, FinishSendsWhatIsQueued) {
    Side& to = bound("udp://127.0.0.1:0");
    Side& from = bound("udp://127.0.0.1:0");
    settle();
    queue(from, "farewell", &to.at);
    port->close(*from.link, How::finish);
    EXPECT_EQ(port->flush(*from.link), Flushed::all);
    EXPECT_TRUE(until([&] { return from.sink.retirements == 1; }));
    EXPECT_TRUE(until([&] { return to.sink.got.size() == 1; }));
}

// -- receive: limits

TEST_P(UdpPort, PausedReceiveWaitsInTheKernel) {
    Side& to = bound("udp://127.0.0.1:0");
    Side& from = bound("udp://127.0.0.1:0");
    settle();
    port->pause(*to.link);
    for (unsigned i = 0; i < 50; ++i) queue(from, letters(i, i), &to.at);
    port->flush(*from.link);
    settle();
    EXPECT_TRUE(to.sink.got.empty());
    port->resume(*to.link);
    EXPECT_TRUE(to.sink.got.empty()) << "an upcall from inside resume";
    EXPECT_TRUE(until([&] { return to.sink.got.size() == 50; }));
}

// Goal: a sink that pauses in the middle of a batch gets no more than that batch, and all of the rest later.
TEST_P(UdpPort, PauseInTheMiddleLosesNothing) {
    Side& to = bound("udp://127.0.0.1:0?segmentation=off");
    Side& from = bound("udp://127.0.0.1:0");
    settle();
    to.sink.on_delivered = [&] { port->pause(*to.link); };
    for (unsigned i = 0; i < 200; ++i) queue(from, letters(20, i), &to.at);
    port->flush(*from.link);
    std::size_t last = 0;
    for (unsigned round = 0; round < 250 && to.sink.got.size() < 200; ++round) {
        settle(3);
        EXPECT_LE(to.sink.got.size() - last, socket::DatagramReceive::slots_max);
        last = to.sink.got.size();
        port->resume(*to.link);
    }
    ASSERT_EQ(to.sink.got.size(), 200u);
    for (unsigned i = 0; i < 200; ++i) EXPECT_EQ(to.sink.got[i].bytes, letters(20, i));
    if (through_ring) {
        EXPECT_GT(ring_counts().late, 0u) << "some had been received when the pause came";
    }
}

// Goal: more at once than there are receive buffers; all arrive, in order.
TEST_P(UdpPort, ABurstBeyondTheReceiveBuffersArrives) {
    constexpr unsigned many = 300;
    Side& to = bound("udp://127.0.0.1:0?segmentation=off&rcvbuf=4M");
    Side& from = bound("udp://127.0.0.1:0");
    settle();
    for (unsigned i = 0; i < many; ++i) queue(from, letters(20, i), &to.at);
    port->flush(*from.link);
    EXPECT_TRUE(until([&] { return to.sink.got.size() == many; }));
    for (unsigned i = 0; i < to.sink.got.size(); ++i) EXPECT_EQ(to.sink.got[i].bytes, letters(20, i));
    if (through_ring) {
        EXPECT_GT(ring_counts().starved, 0u);
    }
}

TEST_P(UdpPort, ASmallBatchIsContinuedInTheNextTurn) {
    host.batch = 4096;
    Side& to = bound("udp://127.0.0.1:0?segmentation=off");
    Side& from = bound("udp://127.0.0.1:0");
    settle();
    for (unsigned i = 0; i < 200; ++i) queue(from, letters(30, i), &to.at);
    port->flush(*from.link);
    host.turn(*port, 10);
    EXPECT_LT(to.sink.got.size(), 100u);
    EXPECT_TRUE(until([&] { return to.sink.got.size() == 200; }));
}

TEST_P(UdpPort, ClosingInsideDeliveredStopsAtOnce) {
    Side& to = bound("udp://127.0.0.1:0?segmentation=off");
    Side& from = bound("udp://127.0.0.1:0");
    settle();
    to.sink.on_delivered = [&] { port->close(*to.link, How::abort); };
    for (unsigned i = 0; i < 20; ++i) queue(from, letters(30, i), &to.at);
    port->flush(*from.link);
    EXPECT_TRUE(until([&] { return to.sink.retirements == 1; }));
    EXPECT_EQ(to.sink.got.size(), 1u);
}

// Goal: without buffers datagrams wait in the kernel and come when there are some.
TEST_P(UdpPort, OutOfBuffersWaits) {
    Side& to = bound("udp://127.0.0.1:0?rcvbuf=4M&segmentation=off");
    Side& from = bound("udp://127.0.0.1:0");
    settle();
    to.sink.keep = true;
    std::vector<Buffer> hoard;
    constexpr unsigned large = 40, large_bytes = 5000;
    for (unsigned i = 0; i < large; ++i) queue(from, letters(large_bytes, i), &to.at);
    queue(from, "small", &to.at);
    for (const std::uint32_t size : {large_bytes, 5u}) {  // keep the slabs of the datagrams sent
        auto spare = host.heap().allocate(size);
        ASSERT_TRUE(spare.ok());
        hoard.push_back(*std::move(spare));
    }
    for (;;) {
        auto taken = host.heap().allocate(2u << 20);
        if (!taken) break;
        hoard.push_back(*std::move(taken));
    }
    for (const std::uint32_t size : {64u << 10, 256u << 10, 128u << 10}) {
        for (;;) {
            auto taken = host.heap().allocate(size);
            if (!taken) break;
            hoard.push_back(*std::move(taken));
        }
    }
    port->flush(*from.link);
    settle();
    EXPECT_LT(to.sink.got.size(), large + 1);
    hoard.clear();
    EXPECT_TRUE(until([&] { return to.sink.got.size() == large + 1; })) << to.sink.got.size();
    for (unsigned i = 0; i < to.sink.got.size() - 1; ++i) EXPECT_EQ(to.sink.got[i].bytes, letters(large_bytes, i));
}

// Goal: a steady flow of small ones touches the same memory again and again.
TEST_P(UdpPort, SmallOnesReuseTheirMemory) {
    Side& to = bound("udp://127.0.0.1:0");
    Side& from = bound("udp://127.0.0.1:0");
    std::uint64_t allocations = 0;
    for (unsigned round = 0; round < 200; ++round) {
        for (unsigned i = 0; i < 64; ++i) queue(from, letters(round % 2 == 0 ? 64 : 1 + i, i), &to.at);
        port->flush(*from.link);
        settle(2);
        if (round == 20) allocations = host.heap().allocations();
    }
    EXPECT_TRUE(until([&] { return to.sink.got.size() == 200u * 64; }));
    EXPECT_EQ(host.heap().allocations(), allocations);
}

// -- options and groups

TEST_P(UdpPort, MulticastOverTheLoopback) {
    Side& one = bound("udp://0.0.0.0:0?reuseport=1");
    const Address group = literal("239.77.1.2", one.at.port), local = literal("127.0.0.1");
    Side& from = bound("udp://127.0.0.1:0?interface=127.0.0.1&ttl=0");
    ASSERT_TRUE(port->join(*one.link, group, local, false).ok());
    EXPECT_FALSE(port->join(*one.link, group, local, false).ok()) << "joined twice";
    for (unsigned i = 0; i < 5; ++i) queue(from, letters(10, i), &group);
    EXPECT_EQ(port->flush(*from.link), Flushed::all);
    ASSERT_TRUE(until([&] { return one.sink.got.size() == 5; })) << from.sink.errors.size();
    EXPECT_EQ(one.sink.got[0].to, group);
    EXPECT_EQ(one.sink.got[0].from, from.at);
    ASSERT_TRUE(port->join(*one.link, group, local, true).ok());
    EXPECT_FALSE(port->join(*one.link, group, local, true).ok()) << "left twice";
    queue(from, "nobody", &group);
    port->flush(*from.link);
    settle();
    EXPECT_EQ(one.sink.got.size(), 5u);
    EXPECT_EQ(port->join(*one.link, local, {}, false).error().code(), Errc::misuse);
}

TEST_P(UdpPort, MulticastOverIpv6) {
    if (!has_ipv6()) GTEST_SKIP() << "no IPv6 loopback here";
    Side& one = bound("udp://[::]:0");
    Address group = literal("ff01::77", one.at.port);
    const Address local = literal("::1");
    Side& from = bound("udp://[::1]:0?interface=::1");
    ASSERT_TRUE(port->join(*one.link, group, local, false).ok());
    queue(from, "hello", &group);
    EXPECT_EQ(port->flush(*from.link), Flushed::all);
    EXPECT_EQ(port->join(*one.link, group, literal("2001:db8::1"), false).error().code(), Errc::address_unavailable);
    const bool routed = from.sink.errors.empty();
    if (routed) {
        EXPECT_TRUE(until([&] { return one.sink.got.size() == 1; }));
    }
    EXPECT_TRUE(port->join(*one.link, group, local, true).ok());
    if (!routed) GTEST_SKIP() << "joined and left; no IPv6 multicast route over the loopback here (ip -6 route show table local)";
}

TEST_P(UdpPort, OptionsReachTheSocket) {
    Side& one = bound("udp://127.0.0.1:0?tos=16&ttl=7&loop=0&broadcast=1&rcvbuf=100k&sndbuf=50k");
    const int fd = port->native_fd(*one.link);
    const auto value = [&](int level, int name) {
        int v = -1;
        socklen_t size = sizeof v;
        getsockopt(fd, level, name, &v, &size);
        return v;
    };
    EXPECT_EQ(value(IPPROTO_IP, IP_TOS), 16);
    EXPECT_EQ(value(IPPROTO_IP, IP_MULTICAST_TTL), 7);
    EXPECT_EQ(value(IPPROTO_IP, IP_MULTICAST_LOOP), 0);
    EXPECT_EQ(value(SOL_SOCKET, SO_BROADCAST), 1);
    EXPECT_EQ(value(SOL_SOCKET, SO_RCVBUF), 200 << 10);  // the kernel doubles it (socket(7))
    EXPECT_EQ(value(SOL_SOCKET, SO_SNDBUF), 100 << 10);
    Side& two = bound("udp://127.0.0.1:0");
    const int other = port->native_fd(*two.link);
    int room = 0;
    socklen_t size = sizeof room;
    getsockopt(other, SOL_SOCKET, SO_RCVBUF, &room, &size);
    EXPECT_GE(room, 212'992);
}

TEST_P(UdpPort, BadEndpointsAreRefusedWithAReason) {
    Recorder sink;
    SendQueue outbox;
    const auto fails = [&](std::string_view url, const Address* to, Errc code) {
        Diagnostic why;
        const auto endpoint = Endpoint::parse(url);
        ASSERT_TRUE(endpoint.ok()) << url;
        const auto link = port->bind(*endpoint, to, sink, outbox, why);
        ASSERT_FALSE(link.ok()) << url;
        EXPECT_EQ(link.error().code(), code) << url << ": " << why.text;
        EXPECT_NE(why.text[0], '\0') << url;
    };
    const Side& taken = bound("udp://127.0.0.1:0");
    char url[64];
    std::snprintf(url, sizeof url, "udp://127.0.0.1:%u", taken.at.port);
    fails(url, nullptr, Errc::address_in_use);
    fails("udp://192.0.2.1:7000", nullptr, Errc::address_unavailable);
    fails("udp://127.0.0.1:0?colour=red", nullptr, Errc::unknown_option);
    fails("udp://127.0.0.1:0?ttl=256", nullptr, Errc::bad_option);
    fails("udp://127.0.0.1:0?interface=eth0", nullptr, Errc::bad_option);
    fails("udp://127.0.0.1:0?interface=192.0.2.1", nullptr, Errc::bad_option);
    const Address broadcast = literal("255.255.255.255", 9);
    {
        Diagnostic why;  // without the option broadcast=1; without a route it does not get that far
        const auto link = port->bind(*Endpoint::parse("udp://255.255.255.255:9"), &broadcast, sink, outbox, why);
        ASSERT_FALSE(link.ok());
        EXPECT_TRUE(link.error().code() == Errc::permission_denied || link.error().code() == Errc::unreachable) << why.text;
    }
    settle();
    EXPECT_EQ(sink.openings + sink.closings + sink.retirements, 0u);
}

INSTANTIATE_TEST_SUITE_P(Engine, UdpPort, testing::Bool(), [](const auto& row) { return row.param ? "uring" : "epoll"; });

}  // namespace
}  // namespace evpl::transport
