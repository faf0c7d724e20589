// Networks that are not as wide as usual: four local ports, an MTU of 576. Each in a network namespace of its own, in a process of its own.
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>

#include <fstream>

#include "support/helper.hpp"
#include "support/world.hpp"

namespace evpl::test {
namespace {

/// From here on this process has a network with a loopback alone. False: not permitted.
bool enter_own_network(int mtu) {
    if (unshare(CLONE_NEWNET) != 0) return false;
    const Fd any(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    ifreq request{};
    std::strcpy(request.ifr_name, "lo");
    request.ifr_mtu = mtu;
    if (ioctl(any.get(), SIOCSIFMTU, &request) != 0) return false;
    request.ifr_flags = IFF_UP | IFF_LOOPBACK | IFF_RUNNING;
    return ioctl(any.get(), SIOCSIFFLAGS, &request) == 0;
}

constexpr int not_permitted = 77;

/// Dials more often than there are local ports. Says how many opened, and how the others ended.
int few_ports_main(const std::vector<std::string>& arguments) {
    constexpr int wanted = 10;
    if (!enter_own_network(65536)) return not_permitted;
    std::ofstream range("/proc/sys/net/ipv4/ip_local_port_range");
    if (!(range << "40000 40003" << std::flush)) return not_permitted;
    Crowd server;
    std::vector<Peer> clients(wanted);
    int refused_at_once = 0, other = 0;
    Duration longest;
    Loop loop(World::quiet());
    const std::string url = arguments.at(0) + "://127.0.0.1:7000";
    auto listener = listen(loop, url, server);
    if (!listener) return 1;
    for (Peer& client : clients) {
        const Stopwatch watch;
        auto made = connect(loop, url, client);
        if (!made) ++(made.error() == Errc::address_unavailable ? refused_at_once : other);
        if (!drive(loop, [&] { return !made || client.opens > 0 || client.closed(); })) return 1;
        longest = std::max(longest, watch.elapsed());
    }
    int opened = 0, named = refused_at_once;
    for (const Peer& client : clients) {
        opened += client.opens;
        if (client.closed()) ++(client.closed_with == Errc::address_unavailable ? named : other);
    }
    std::printf("opened %d unavailable %d other %d %s\n", opened, named, other, longest < 1_s * patience ? "soon" : "late");
    return 0;
}
const RegisterHelper few_ports("few-ports", &few_ports_main);

struct Counter {
    std::size_t whole = 0, broken = 0, errors = 0, opens = 0;
    void on_open(Datagram&) { ++opens; }
    void on_recv(Datagram& socket) {
        while (socket.has_packet()) {
            const Packet packet = socket.recv();
            const std::string text(reinterpret_cast<const char*>(packet.bytes.data()), packet.bytes.size());
            ++(!packet.truncated && text == pattern(text.size(), text.size()) ? whole : broken);
        }
    }
    void on_error(Datagram&, Error) { ++errors; }
};

/// Sends datagrams of all kinds of sizes, some in bursts that a device would cut up. Says what arrived.
int small_mtu_main(const std::vector<std::string>& arguments) {
    if (!enter_own_network(576)) return not_permitted;
    Counter server, client;
    Loop loop(World::quiet());
    auto bound = evpl::bind(loop, arguments.at(0) + "://127.0.0.1:0", server);
    if (!bound) return 1;
    auto dialled = connect_datagram(loop, std::string(bound->get()->url()), client);
    if (!dialled) return 1;
    if (!drive(loop, [&] { return client.opens == 1; })) return 1;
    std::size_t sent = 0;
    for (const std::size_t size : {1u, 500u, 548u, 549u, 1472u, 9000u, 40'000u, 65'507u, 600u, 600u, 600u, 1200u, 1200u}) {
        const std::string bytes = pattern(size, size);
        dialled->get()->send(std::as_bytes(std::span<const char>(bytes)));
        ++sent;
        if (!drive(loop, [&] { return server.whole + server.broken + client.errors >= sent; })) break;
    }
    std::printf("sent %zu whole %zu broken %zu errors %zu\n", sent, server.whole, server.broken, client.errors);
    return 0;
}
const RegisterHelper small_mtu("small-mtu", &small_mtu_main);

class OwnNetworkTest : public TransportTest {
protected:
    void SetUp() override {
        TransportTest::SetUp();
        if (std::string_view(GetParam().url).find("127.0.0.1") == std::string_view::npos)
            GTEST_SKIP() << GetParam().name << " does not use this network";
    }
    /// What the helper says; nothing when such a network is not permitted.
    std::optional<std::string> say(const char* helper) {
        Child child;
        EXPECT_TRUE(child.start_helper(helper, {GetParam().scheme}));
        std::optional<int> code;
        EXPECT_TRUE(await([&] { return (code = child.ended()).has_value(); }, 30_s));
        if (code == not_permitted) return std::nullopt;
        EXPECT_EQ(code, 0) << child.said();
        return child.said();
    }
};
class OwnNetworkStreamTest : public OwnNetworkTest {};
class OwnNetworkPacketTest : public OwnNetworkTest {};

// Goal: without a local port left a connect ends soon, by name; those that have one work.
TEST_P(OwnNetworkStreamTest, NamesTheErrorWithoutALocalPort) {
    const auto said = say("few-ports");
    if (!said) GTEST_SKIP() << "needs to make a network namespace, and to write its sysctls";
    EXPECT_EQ(*said, "opened 4 unavailable 6 other 0 soon\n");
}

// Goal: datagrams larger than the way allows arrive whole.
TEST_P(OwnNetworkPacketTest, CarriesWholeDatagramsOverASmallMtu) {
    const auto said = say("small-mtu");
    if (!said) GTEST_SKIP() << "needs to make a network namespace";
    EXPECT_EQ(*said, "sent 13 whole 13 broken 0 errors 0\n");
}

INSTANTIATE_TEST_SUITE_P(Fault, OwnNetworkStreamTest, stream_rows(), name_of_row);
INSTANTIATE_TEST_SUITE_P(Fault, OwnNetworkPacketTest, datagram_rows(), name_of_row);

}  // namespace
}  // namespace evpl::test
