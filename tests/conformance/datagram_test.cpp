// Datagrams: each arrives whole and as it was sent, or not at all; a send that fails never closes the socket.
#include <netinet/in.h>
#include <sys/socket.h>

#include "support/sockets.hpp"
#include "support/world.hpp"

namespace evpl::test {
namespace {

struct Got {
    std::string bytes;
    Address from, to;
    bool truncated;
};

/// One end of datagrams: takes note of everything.
struct Socket {
    std::function<void(Datagram&)> when_recv, when_writable;
    std::vector<Got> got;
    std::vector<Error> errors;
    DatagramRef ref;
    int opens = 0, closes = 0, writables = 0;
    Error closed_with;

    Datagram* get() const { return ref.get(); }
    void on_open(Datagram& d) {
        const InCallback guard("on_open");
        EXPECT_EQ(opens++, 0);
        EXPECT_TRUE(d.is_open());
    }
    void on_recv(Datagram& d) {
        const InCallback guard("on_recv");
        EXPECT_EQ(closes, 0);
        if (when_recv) return when_recv(d);
        drain(d);
    }
    void on_writable(Datagram& d) {
        const InCallback guard("on_writable");
        ++writables;
        if (when_writable) when_writable(d);
    }
    void on_error(Datagram& d, Error error) {
        const InCallback guard("on_error");
        EXPECT_TRUE(d.is_open());
        errors.push_back(error);
    }
    void on_close(Datagram& d, Error why) {
        const InCallback guard("on_close");
        EXPECT_FALSE(d.is_open());
        EXPECT_EQ(closes++, 0);
        closed_with = why;
    }
    void drain(Datagram& d) {
        while (d.has_packet()) {
            const Packet packet = d.recv();
            got.push_back({std::string(reinterpret_cast<const char*>(packet.bytes.data()), packet.bytes.size()), packet.from, packet.to, packet.truncated});
        }
    }
};

class PacketTest : public TransportTest {
protected:
    const Caps& datagram_caps() { return info_of(GetParam().scheme)->caps; }
    [[nodiscard]] bool bind_at(World& world, Socket& socket, const std::string& url) {
        auto made = evpl::bind(world.loop(), url, socket);
        EXPECT_TRUE(made.ok()) << url << ": " << world.loop().last_failure();
        if (made) socket.ref = *made;
        return made.ok();
    }
    [[nodiscard]] bool open(World& world, Socket& one, Socket& other) {
        return bind_at(world, one, fresh_url(GetParam())) && bind_at(world, other, fresh_url(GetParam()));
    }
};

// Goal: a socket is open when bind returns, and knows its real address.
TEST_P(PacketTest, IsOpenWhenBindReturns) {
    Socket socket;
    World world{GetParam()};
    ASSERT_TRUE(bind_at(world, socket, fresh_url(GetParam())));
    Datagram& d = *socket.get();
    EXPECT_TRUE(d.is_open());
    EXPECT_EQ(d.transport(), GetParam().scheme);
    EXPECT_EQ(d.caps().kind, Kind::datagram);
    EXPECT_NE(d.local_address().port, 0);
    const auto asked = Endpoint::parse(fresh_url(GetParam()));
    EXPECT_EQ(d.local_address(), *Address::parse(asked->host(), d.local_address().port));
    EXPECT_NE(d.url().find(std::to_string(d.local_address().port)), std::string_view::npos);
    EXPECT_FALSE(d.has_packet());
    EXPECT_TRUE(d.recv().bytes.empty());
    EXPECT_EQ(d.recv().from.family, Address::Family::none);
}

// Goal: between two sockets of this machine datagrams keep their order, their borders and their sender.
TEST_P(PacketTest, KeepsOrderAndBordersOnLoopback) {
    Socket one, other;
    World world{GetParam()};
    ASSERT_TRUE(open(world, one, other));
    const Address to = other.get()->local_address();
    for (std::size_t i = 0; i < 100; ++i) ASSERT_EQ(one.get()->send_to(to, bytes_of(pattern(1 + i * 13, i))).error(), Errc::none);
    ASSERT_TRUE(world.until([&] { return other.got.size() == 100; })) << other.got.size();
    for (std::size_t i = 0; i < 100; ++i) {
        EXPECT_EQ(other.got[i].bytes, pattern(1 + i * 13, i));
        EXPECT_EQ(other.got[i].from, one.get()->local_address());
        EXPECT_FALSE(other.got[i].truncated);
    }
    EXPECT_EQ(one.get()->metrics().sent_packets, 100u);
    EXPECT_EQ(other.get()->metrics().received_packets, 100u);
}

// Goal: an answer goes back to where the question came from.
TEST_P(PacketTest, AnswersTheSender) {
    Socket server, client;
    World world{GetParam()};
    ASSERT_TRUE(open(world, server, client));
    server.when_recv = [](Datagram& d) {
        while (d.has_packet()) {
            Packet packet = d.recv();
            d.send_to(packet.from, std::move(packet.bytes));
        }
    };
    for (int i = 0; i < 20; ++i) {
        client.get()->send_to(server.get()->local_address(), bytes_of(pattern(500, std::uint64_t(i))));
        ASSERT_TRUE(world.until([&] { return client.got.size() == std::size_t(i + 1); }));
        EXPECT_EQ(client.got.back().bytes, pattern(500, std::uint64_t(i)));
        EXPECT_EQ(client.got.back().from, server.get()->local_address());
    }
}

// Goal: an empty datagram is a datagram.
TEST_P(PacketTest, DeliversEmptyDatagrams) {
    Socket one, other;
    World world{GetParam()};
    ASSERT_TRUE(open(world, one, other));
    const Address to = other.get()->local_address();
    EXPECT_EQ(one.get()->send_to(to, std::span<const std::byte>()).error(), Errc::none);
    EXPECT_EQ(one.get()->send_to(to, bytes_of("x")).error(), Errc::none);
    EXPECT_EQ(one.get()->send_to(to, Buffer()).error(), Errc::none);
    ASSERT_TRUE(world.until([&] { return other.got.size() == 3; })) << other.got.size();
    EXPECT_EQ(other.got[0].bytes, "");
    EXPECT_EQ(other.got[1].bytes, "x");
    EXPECT_EQ(other.got[2].bytes, "");
    EXPECT_EQ(other.got[0].from, one.get()->local_address());
}

// Goal: every size up to the largest arrives whole, or says that it was cut; one byte more is refused.
TEST_P(PacketTest, CarriesEverySizeUpToItsLargest) {
    Socket one, other;
    World world{GetParam()};
    ASSERT_TRUE(open(world, one, other));
    const Address to = other.get()->local_address();
    const std::uint32_t most = one.get()->caps().message_bytes_max;
    ASSERT_GT(most, 500u);
    std::vector<std::uint32_t> sizes{1, 2, 511, 512, 1472, 1473, 4096, 9000, 32768, most - 1, most};
    for (const std::uint32_t size : sizes) {
        if (size > most) continue;
        SCOPED_TRACE(size);
        other.got.clear();
        auto bytes = world.loop().allocate(size);
        ASSERT_TRUE(bytes.ok());
        fill_pattern(bytes->bytes(), size, 0);
        ASSERT_EQ(one.get()->send_to(to, *std::move(bytes)).error(), Errc::none);
        ASSERT_TRUE(world.until([&] { return other.got.size() == 1; }, 3_s)) << one.errors.size();
        const Got& got = other.got[0];
        EXPECT_EQ(got.bytes, pattern(got.bytes.size(), size));
        EXPECT_EQ(got.truncated, got.bytes.size() < size);
        if (got.truncated) {
            EXPECT_GE(other.get()->metrics().truncated_packets, 1u);
        }
    }
    auto large = world.loop().allocate(most + 1);
    ASSERT_TRUE(large.ok());
    EXPECT_EQ(one.get()->send_to(to, *std::move(large)).error(), Errc::too_large);
    EXPECT_TRUE(one.get()->is_open());
}

// Goal: bursts of equal sizes, which may leave as one segmented send, arrive datagram by datagram.
TEST_P(PacketTest, KeepsTheBordersOfBursts) {
    Socket one, other;
    World world{GetParam()};
    ASSERT_TRUE(open(world, one, other));
    const Address to = other.get()->local_address();
    std::minstd_rand dice{std::uint32_t(seed())};
    for (const std::size_t size : {1u, 64u, 100u, 1200u, 1472u, 4000u}) {
        SCOPED_TRACE(size);
        std::vector<std::string> sent;
        for (std::uint64_t i = 0; i < 40; ++i) sent.push_back(pattern(size, i));
        sent.push_back(pattern(size / 2 + 1, 1000));  // a shorter one ends a segmented send
        sent.push_back(pattern(size, 1001));
        for (std::uint64_t i = 0; i < 10; ++i) sent.push_back(pattern(1 + dice() % size, i));
        other.got.clear();
        for (const std::string& bytes : sent) ASSERT_EQ(one.get()->send_to(to, bytes_of(bytes)).error(), Errc::none);
        ASSERT_TRUE(world.until([&] { return other.got.size() >= sent.size(); }, 5_s)) << other.got.size() << ", seed " << seed();
        for (std::size_t i = 0; i < sent.size(); ++i) ASSERT_EQ(other.got[i].bytes, sent[i]) << i;
    }
}

// Goal: a burst to several receivers in turn reaches each with its own.
TEST_P(PacketTest, SortsABurstByReceiver) {
    std::deque<Socket> receivers(4);
    Socket sender;
    World world{GetParam()};
    ASSERT_TRUE(bind_at(world, sender, fresh_url(GetParam())));
    for (Socket& receiver : receivers) ASSERT_TRUE(bind_at(world, receiver, fresh_url(GetParam())));
    for (std::size_t i = 0; i < 80; ++i) sender.get()->send_to(receivers[i / 2 % 4].get()->local_address(), bytes_of(pattern(200, i)));
    ASSERT_TRUE(world.until([&] {
        for (const Socket& receiver : receivers)
            if (receiver.got.size() < 20) return false;
        return true;
    })) << receivers[0].got.size()
        << ' ' << receivers[1].got.size() << ' ' << receivers[2].got.size() << ' ' << receivers[3].got.size() << ", errors " << sender.errors.size()
        << (sender.errors.empty() ? Error() : sender.errors[0]);
    for (std::size_t r = 0; r < 4; ++r)
        for (std::size_t k = 0; k < 20; ++k) EXPECT_EQ(receivers[r].got[k].bytes, pattern(200, k / 2 * 8 + r * 2 + k % 2));
}

// Goal: a connected socket sends without an address and hears its peer only.
TEST_P(PacketTest, ConnectsToOnePeer) {
    Socket server, stranger, client;
    World world{GetParam()};
    ASSERT_TRUE(open(world, server, stranger));
    auto made = connect_datagram(world.loop(), server.get()->url(), client, within(3_s));
    ASSERT_TRUE(made.ok()) << world.loop().last_failure();
    client.ref = *made;
    ASSERT_TRUE(world.until([&] { return client.opens == 1; }));
    EXPECT_EQ(client.get()->remote_address(), server.get()->local_address());
    EXPECT_EQ(client.get()->send("to the peer").error(), Errc::none);
    ASSERT_TRUE(world.until([&] { return server.got.size() == 1; }));
    EXPECT_EQ(server.got[0].bytes, "to the peer");
    stranger.get()->send_to(client.get()->local_address(), bytes_of("stranger"));
    drive_for(world.loop(), 10_ms);
    server.get()->send_to(server.got[0].from, bytes_of("friend"));
    ASSERT_TRUE(world.until([&] { return !client.got.empty(); }));
    EXPECT_EQ(client.got[0].bytes, "friend");
    EXPECT_EQ(stranger.get()->send("nobody").error(), Errc::misuse) << "it has no peer";
}

// Goal: nobody at the other end is an error report; the socket stays open and works when somebody comes.
TEST_P(PacketTest, StaysOpenWhenSendsFail) {
    Socket client, late;
    World world{GetParam()};
    std::string url;
    {
        Socket gone;
        ASSERT_TRUE(bind_at(world, gone, fresh_url(GetParam())));
        url = gone.get()->url();
        gone.get()->close();
        ASSERT_TRUE(world.until([&] { return gone.closes == 1; }));
    }
    auto made = connect_datagram(world.loop(), url, client);
    ASSERT_TRUE(made.ok()) << world.loop().last_failure();
    client.ref = *made;
    ASSERT_TRUE(world.until([&] { return client.opens == 1; }));
    int asked = 0;  // some transports look the peer up first, and keep only so many meanwhile
    ASSERT_TRUE(world.until([&] {
        if (++asked < 1000) client.get()->send("anybody?");
        return !client.errors.empty();
    }));
    EXPECT_EQ(client.errors[0], Errc::refused);
    EXPECT_EQ(client.closes, 0);
    ASSERT_TRUE(bind_at(world, late, url));
    EXPECT_TRUE(world.until([&] {
        client.get()->send("anybody?");
        return !late.got.empty();
    }));
    EXPECT_EQ(client.closes, 0);
}

// Goal: a receiver that does not read costs bounded memory; what is dropped is counted.
TEST_P(PacketTest, DropsWhatNobodyReads) {
    Socket sender, receiver;
    World world{GetParam()};
    ASSERT_TRUE(open(world, sender, receiver));
    receiver.when_recv = [](Datagram&) {};
    const std::string bytes = pattern(1200);
    const Address to = receiver.get()->local_address();
    for (int i = 0; i < 400; ++i) {
        for (int k = 0; k < 50; ++k) sender.get()->send_to(to, bytes_of(bytes));
        world.loop().run_once();
    }
    drive_for(world.loop(), 20_ms);
    EXPECT_LE(world.loop().metrics().slab_bytes, 32u << 20);
    EXPECT_TRUE(receiver.get()->is_open());
    std::size_t held = 0;
    receiver.drain(*receiver.get());
    for (const Got& got : receiver.got) {
        held += got.bytes.size();
        EXPECT_EQ(got.bytes, bytes);
    }
    EXPECT_LE(held, (2u << 20) + 65536);
    receiver.when_recv = nullptr;
    receiver.got.clear();
    EXPECT_TRUE(world.until([&] {
        sender.get()->send_to(to, bytes_of("fresh"));
        return !receiver.got.empty() && receiver.got.back().bytes == "fresh";
    })) << "it receives again";
}

// Goal: past the hard limit a datagram is refused and counted; the socket stays open and drains.
TEST_P(PacketTest, RefusesPastTheHardLimit) {
    Socket sender, receiver;
    World world{GetParam()};
    ASSERT_TRUE(open(world, sender, receiver));
    QueueLimits limits = sender.get()->limits();
    limits.send_high = 64u << 10;
    limits.send_low = 16u << 10;
    limits.send_hard = 128u << 10;
    sender.get()->set_limits(limits);
    const std::string bytes = pattern(1000);
    bool paused = false;
    Errc refused = Errc::none;
    for (int i = 0; i < 1000 && refused == Errc::none; ++i) {
        const Flow flow = sender.get()->send_to(receiver.get()->local_address(), bytes_of(bytes));
        paused = paused || flow.paused();
        refused = flow.error();
    }
    EXPECT_TRUE(paused);
    EXPECT_EQ(refused, Errc::send_limit);
    EXPECT_LE(sender.get()->queued(), limits.send_hard);
    EXPECT_GE(sender.get()->metrics().dropped_packets, 1u);
    EXPECT_TRUE(world.until([&] { return sender.get()->queued() == 0 && sender.writables >= 1; }));
    EXPECT_EQ(sender.closes, 0);
}

// Goal: multicast reaches those who joined, and no longer those who left.
TEST_P(PacketTest, ReachesTheMembersOfAGroup) {
    if (!datagram_caps().multicast) GTEST_SKIP() << GetParam().name << " does not claim multicast";
    if (std::string_view(GetParam().url).find("127.0.0.1") == std::string_view::npos) GTEST_SKIP() << "tried with IPv4 only";
    Socket sender, member;
    World world{GetParam()};
    ASSERT_TRUE(bind_at(world, sender, fresh_url(GetParam())));
    ASSERT_TRUE(bind_at(world, member, std::string(GetParam().scheme) + "://0.0.0.0:0"));
    Address group = *Address::parse("239.255.77.77", member.get()->local_address().port);
    const Address interface = *Address::parse("127.0.0.1", 0);
    const auto joined = member.get()->join(group, interface);
    if (!joined) GTEST_SKIP() << "this machine does not join a group on its loopback: error " << name_of(joined.error().code());
    in_addr out{htonl(INADDR_LOOPBACK)};
    setsockopt(sender.get()->native_fd(), IPPROTO_IP, IP_MULTICAST_IF, &out, sizeof out);
    const bool works = world.until(
        [&] {
            sender.get()->send_to(group, bytes_of("to all"));
            return !member.got.empty();
        },
        1_s);
    if (!works) GTEST_SKIP() << "this machine's loopback carries no multicast";
    EXPECT_EQ(member.got[0].bytes, "to all");
    ASSERT_TRUE(member.get()->leave(group, interface).ok());
    drive_for(world.loop(), 10_ms);
    member.drain(*member.get());
    member.got.clear();
    sender.get()->send_to(group, bytes_of("again"));
    drive_for(world.loop(), 50_ms);
    EXPECT_TRUE(member.got.empty());
    EXPECT_FALSE(member.get()->leave(group, interface).ok()) << "it has left already";
}

// Goal: a wrong bind is a named error with a sentence.
TEST_P(PacketTest, NamesWhatIsWrongWithABind) {
    Socket first, second;
    World world{GetParam()};
    ASSERT_TRUE(bind_at(world, first, fresh_url(GetParam())));
    EXPECT_EQ(evpl::bind(world.loop(), first.get()->url(), second).error(), Errc::address_in_use);
    EXPECT_FALSE(world.loop().last_failure().empty());
    EXPECT_EQ(evpl::bind(world.loop(), fresh_url(GetParam(), "no_such_option=1"), second).error(), Errc::unknown_option);
    EXPECT_EQ(evpl::bind(world.loop(), std::string(GetParam().scheme) + "://192.0.2.1:0", second).error(), Errc::address_unavailable);
    EXPECT_EQ(second.opens + second.closes, 0);
}

// Goal: close inside a callback and outside: on_close once and last; afterwards misuse; the reference is null.
TEST_P(PacketTest, ClosesOnce) {
    Socket one, other;
    World world{GetParam()};
    ASSERT_TRUE(open(world, one, other));
    const Address to = other.get()->local_address();
    other.when_recv = [&](Datagram& d) {
        d.close();
        d.close();
        EXPECT_EQ(d.send_to(to, bytes_of("x")).error(), Errc::misuse);
        EXPECT_FALSE(d.has_packet());
        EXPECT_FALSE(d.join(to).ok());
    };
    one.get()->send_to(to, bytes_of("a"));
    one.get()->send_to(to, bytes_of("b"));
    ASSERT_TRUE(world.until([&] { return other.closes == 1; }));
    EXPECT_EQ(other.closed_with, Errc::closed);
    EXPECT_EQ(other.get(), nullptr);
    one.get()->close();
    EXPECT_TRUE(world.until([&] { return one.closes == 1; }));
}

// Goal: a handler that throws ends its own socket only; stop() ends the others.
TEST_P(PacketTest, EndsWithItsHandlerOrItsLoop) {
    Socket thrower, other;
    World world{GetParam()};
    ASSERT_TRUE(open(world, thrower, other));
    thrower.when_recv = [](Datagram&) { throw 1; };
    other.get()->send_to(thrower.get()->local_address(), bytes_of("x"));
    ASSERT_TRUE(world.until([&] { return thrower.closes == 1; }));
    EXPECT_EQ(thrower.closed_with, Errc::handler_threw);
    EXPECT_EQ(other.closes, 0);
    auto timer = world.loop().after(1_ms, [&] { world.loop().stop(); });
    EXPECT_EQ(world.loop().run(), 0);
    EXPECT_EQ(other.closes, 1);
    EXPECT_EQ(other.closed_with, Errc::stopped);
}

INSTANTIATE_TEST_SUITE_P(Conformance, PacketTest, datagram_rows(), name_of_row);

}  // namespace
}  // namespace evpl::test
