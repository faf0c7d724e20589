// Networks that are not as wide as usual: four local ports, an MTU of 576. Each in a network namespace of its own, in a process of its own.
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>

#include <fstream>
#include <sstream>

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

/// Of this network: what TCP has counted under this name.
long tcp_counter(std::string_view name) {
    std::ifstream file("/proc/self/net/netstat");
    for (std::string names, values; std::getline(file, names) && std::getline(file, values);) {
        std::istringstream each_name(names), each_value(values);
        for (std::string is, value; each_name >> is && each_value >> value;)
            if (is == name) return std::atol(value.c_str());
    }
    return -1;
}

bool run_quietly(const std::string& command) { return std::system((command + " >/dev/null 2>&1").c_str()) == 0; }

/// Loses the first keepalive probe of an idle connection, and says how many were lost and whether the connection lasts.
int lost_probe_main(const std::vector<std::string>&) {
    if (!enter_own_network(65536)) return not_permitted;
    Peer server, client;
    Loop loop(World::quiet());
    auto listener = listen(loop, "tcp://127.0.0.1:7000?keepalive_idle=1s&silent_after=4s", server);
    if (!listener || !connect(loop, "tcp://127.0.0.1:7000", client)) return 1;
    if (!drive(loop, [&] { return server.opens > 0 && client.opens > 0; })) return 1;
    if (!run_quietly("nft add table inet cut") || !run_quietly("nft add chain inet cut in '{ type filter hook input priority 0; policy drop; }'"))
        return not_permitted;
    if (!drive(loop, [] { return tcp_counter("TCPKeepAlive") > 0; })) return 1;
    if (!run_quietly("nft delete table inet cut")) return 1;
    const long lost = tcp_counter("TCPKeepAlive");
    drive_for(loop, 6_s);  // longer than the patience, and than five seconds between two probes would be
    std::printf("lost %s, closes %d\n", lost > 0 ? "some" : "none", server.closes + client.closes);
    return 0;
}
const RegisterHelper lost_probe("lost-probe", &lost_probe_main);

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

/// What a helper says; nothing when such a network is not permitted.
std::optional<std::string> said_by(const char* helper, std::vector<std::string> arguments) {
    Child child;
    EXPECT_TRUE(child.start_helper(helper, std::move(arguments)));
    std::optional<int> code;
    EXPECT_TRUE(await([&] { return (code = child.ended()).has_value(); }, 30_s));
    if (code == not_permitted) return std::nullopt;
    EXPECT_EQ(code, 0) << child.said();
    return child.said();
}

class OwnNetworkTest : public TransportTest {
protected:
    void SetUp() override {
        TransportTest::SetUp();
        if (std::string_view(GetParam().url).find("127.0.0.1") == std::string_view::npos) GTEST_SKIP() << GetParam().name << " does not use this network";
    }
    static std::optional<std::string> say(const char* helper) { return said_by(helper, {GetParam().scheme}); }
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

// Goal: one lost probe is not the end of an idle connection: by default there are many tries before the patience is over.
TEST(IdleTest, SurvivesALostProbe) {
    const auto said = said_by("lost-probe", {});
    if (!said) GTEST_SKIP() << "needs to make a network namespace, and nft in it";
    EXPECT_EQ(*said, "lost some, closes 0\n");
}

INSTANTIATE_TEST_SUITE_P(Fault, OwnNetworkStreamTest, stream_rows(), name_of_row);
INSTANTIATE_TEST_SUITE_P(Fault, OwnNetworkPacketTest, datagram_rows(), name_of_row);

}  // namespace
}  // namespace evpl::test
