// From a name to an open connection: both families raced, failures told, nothing left behind.
#include "core/connector.hpp"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <deque>
#include <optional>
#include <string>

#include "core/loop_core.hpp"
#include "evpl/evpl.hpp"
#include "support/dns_server.hpp"
#include "support/patience.hpp"
#include "support/peer.hpp"
#include "support/world.hpp"

namespace evpl::test {
namespace {

using How = DnsServer::How;

/// A TCP socket at [::1]:port, listening when `backlog` is not negative.
Fd socket_at_ipv6(std::uint16_t port, int backlog) {
    Fd fd(::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const int on = 1;
    setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    sockaddr_in6 address{};
    address.sin6_family = AF_INET6;
    address.sin6_addr = in6addr_loopback;
    address.sin6_port = htons(port);
    if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return Fd();
    if (backlog >= 0 && ::listen(fd.get(), backlog) != 0) return Fd();
    return fd;
}

/// [::1]:port with a full backlog: the kernel drops each SYN, as a broken IPv6 path does.
struct BlackHole6 {
    Fd listener;
    std::deque<Fd> filling;

    explicit BlackHole6(std::uint16_t port) : listener(socket_at_ipv6(port, 0)) {
        sockaddr_in6 address{};
        address.sin6_family = AF_INET6;
        address.sin6_addr = in6addr_loopback;
        address.sin6_port = htons(port);
        for (int i = 0; listener && i < 8; ++i) {
            filling.emplace_back(::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
            if (::connect(filling.back().get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 && errno != EINPROGRESS) return;
            if (!wait_ready(filling.back().get(), POLLOUT, 100)) {
                works = true;
                return;
            }
        }
    }
    bool works = false;
};

bool has_ipv6_loopback() { return bool(socket_at_ipv6(0, 0)); }

class ConnectorTest : public testing::Test {
protected:
    void SetUp() override {
#ifndef EVPL_WITH_CARES
        GTEST_SKIP() << "built without c-ares";
#endif
    }
    /// Ends the loop and checks that nothing is left.
    void TearDown() override {
        listener.reset();
        loop.reset();
        baseline.expect_back();
    }
    std::uint16_t listen_at(const std::string& host) {
        auto made = evpl::listen(*loop, "tcp://" + host + ":0", server);
        EXPECT_TRUE(made.ok()) << loop->last_failure();
        if (!made) return 0;
        listener.emplace(*std::move(made));
        return listener->port();
    }
    static std::string at(const std::string& name, std::uint16_t port) { return "tcp://" + name + ":" + std::to_string(port); }
    ConnectionRef dial(const std::string& url, Limit limit = {}) {
        const auto made = connect(*loop, url, client, limit);
        EXPECT_TRUE(made.ok()) << loop->last_failure();
        EXPECT_EQ(client.opens + client.closes, 0) << "news comes by callback";
        return made ? *made : ConnectionRef{};
    }
    [[nodiscard]] bool until_decided(Duration limit = 15_s) {
        return drive(
            *loop, [&] { return client.opens + client.closes > 0; }, limit);
    }
    core::Resolver& resolver() { return *CoreAccess::core(*loop)->resolver(); }
    /// After everybody has closed: no attempt, question, socket or timer keeps the loop.
    void expect_idle() {
        listener.reset();
        if (client.open()) client.get()->close();
        ASSERT_TRUE(drive(*loop, [&] { return !client.open() && !server.open(); }));
        loop->run_until_idle();
        EXPECT_EQ(resolver().asking() + resolver().orphaned() + resolver().sockets(), 0u);
    }

    DnsServer names;
    Baseline baseline;
    PlainPeer server, client;
    std::optional<Loop> loop{std::in_place, names.options()};
    std::optional<Listener> listener;
};

// Goal: an address is never asked for.
TEST_F(ConnectorTest, NeedsNoServerForAddresses) {
    const std::uint16_t port = listen_at("127.0.0.1");
    const ConnectionRef ref = dial(at("127.0.0.1", port));
    EXPECT_EQ(static_cast<core::ConnectionState*>(ref.get())->connector, nullptr) << "straight to the port";
    ASSERT_TRUE(until_decided());
    EXPECT_TRUE(client.open()) << client.closed_with;
    EXPECT_EQ(names.questions(), 0);
    expect_idle();
}

// Goal: localhost is both loopbacks: whichever has a listener.
TEST_F(ConnectorTest, TriesBothLoopbacks) {
    for (const char* host : {"127.0.0.1", "[::1]"}) {
        if (host[0] == '[' && !has_ipv6_loopback()) continue;
        SCOPED_TRACE(host);
        PlainPeer here, there;
        auto at_host = listen(*loop, "tcp://" + std::string(host) + ":0", here);
        ASSERT_TRUE(at_host.ok());
        const Stopwatch watch;
        ASSERT_TRUE(connect(*loop, at("localhost", at_host->port()), there).ok());
        ASSERT_TRUE(drive(*loop, [&] { return there.opens + there.closes > 0; }));
        EXPECT_TRUE(there.open()) << there.closed_with;
        EXPECT_LT(watch.elapsed(), 200_ms * patience) << "a refusal is not waited for";
        there.get()->close();
        ASSERT_TRUE(drive(*loop, [&] { return there.closed() && here.closed(); }));
    }
    EXPECT_EQ(names.questions(), 0);
    expect_idle();
}

// Goal: the IPv6 address is tried first, and its connection is the one that opens.
TEST_F(ConnectorTest, PrefersIpv6) {
    if (!has_ipv6_loopback()) GTEST_SKIP() << "no IPv6 here";
    const std::uint16_t port = listen_at("*");
    names.set("both.example", {{.addresses = {"127.0.0.1"}}, {.addresses = {"::1"}}});
    dial(at("both.example", port));
    ASSERT_TRUE(until_decided());
    ASSERT_TRUE(client.open()) << client.closed_with;
    EXPECT_EQ(client.get()->remote_address().family, Address::Family::ipv6);
    EXPECT_EQ(client.get()->remote_address().port, port);
    drive_for(*loop, 300_ms);
    EXPECT_EQ(listener->metrics().accepted, 1u) << "nobody else was tried";
    expect_idle();
}

// Goal: an IPv6 path that swallows everything costs 250 ms, and IPv4 wins.
TEST_F(ConnectorTest, FallsBackToIpv4WhenIpv6IsSilent) {
    if (!has_ipv6_loopback()) GTEST_SKIP() << "no IPv6 here";
    const std::uint16_t port = listen_at("127.0.0.1");
    BlackHole6 hole(port);
    if (!hole.works) GTEST_SKIP() << "this kernel lets connects through a full backlog";
    names.set("both.example", {{.addresses = {"127.0.0.1"}}, {.addresses = {"::1"}}});
    const Stopwatch watch;
    dial(at("both.example", port));
    ASSERT_TRUE(until_decided());
    ASSERT_TRUE(client.open()) << client.closed_with;
    EXPECT_GE(watch.elapsed(), 250_ms);
    EXPECT_LT(watch.elapsed(), 250_ms + 100_ms * patience);
    EXPECT_EQ(client.get()->remote_address().family, Address::Family::ipv4);
    client.get()->send("through");
    EXPECT_TRUE(drive(*loop, [&] { return server.received == "through"; }));
    expect_idle();
}

// Goal: an attempt that is slow may still win after the next one has begun and failed.
TEST_F(ConnectorTest, LetsAnEarlierAttemptWin) {
    if (!has_ipv6_loopback()) GTEST_SKIP() << "no IPv6 here";
    const std::uint16_t port = unused_port();
    BlackHole6 hole(port);
    if (!hole.works) GTEST_SKIP() << "this kernel lets connects through a full backlog";
    names.set("both.example", {{.addresses = {"127.0.0.1"}}, {.addresses = {"::1"}}});  // IPv4 is refused
    dial(at("both.example", port), within(10_s));
    drive_for(*loop, 400_ms);
    EXPECT_EQ(client.opens + client.closes, 0);
    hole.filling.clear();
    while (const Fd accepted{::accept(hole.listener.get(), nullptr, nullptr)}) {}  // room: the next SYN gets through
    EXPECT_TRUE(until_decided());
    EXPECT_TRUE(client.open()) << client.closed_with;
    expect_idle();
}

// Goal: bytes queued before there was a link are sent on the winner, and what the peer sends at once is received.
TEST_F(ConnectorTest, KeepsWhatWasQueued) {
    const std::uint16_t port = listen_at("127.0.0.1");
    server.when_open = [](Connection& c) { c.send("welcome"); };
    names.set("late.example", {{.addresses = {"127.0.0.9", "127.0.0.1"}, .delay = 50_ms}, {}});
    const ConnectionRef ref = dial(at("late.example", port));
    ref.get()->send(pattern(300'000));
    EXPECT_EQ(ref.get()->queued(), 300'000u);
    EXPECT_EQ(ref.get()->native_fd(), -1);
    EXPECT_EQ(ref.get()->remote_address().family, Address::Family::none);
    EXPECT_FALSE(ref.get()->is_open());
    EXPECT_TRUE(ref.get()->recv().empty());
    ref.get()->flush();
    ref.get()->shutdown();
    client.when_recv = {};
    EXPECT_TRUE(drive(*loop, [&] { return client.closed() && server.closed(); }));
    EXPECT_EQ(server.received, pattern(300'000));
    EXPECT_EQ(client.received, "welcome");
    EXPECT_EQ(client.closed_with, Errc::end);
    expect_idle();
}

// Goal: all addresses are tried; refused tells more than unreachable, which groups are for TCP whatever the routes of this machine.
TEST_F(ConnectorTest, TellsTheMostTellingFailure) {
    const std::uint16_t port = unused_port();
    names.set("nobody.example", {{.addresses = {"127.0.0.1", "127.0.0.2", "224.0.0.1", "127.0.0.3"}}, {.addresses = {"ff02::1", "::1"}}});
    dial(at("nobody.example", port), within(5_s));
    ASSERT_TRUE(until_decided());
    EXPECT_EQ(client.closed_with, Errc::refused);
    EXPECT_EQ(client.closed_with.step(), Step::connect);
    EXPECT_EQ(client.opens, 0);
    expect_idle();
}

TEST_F(ConnectorTest, TellsNamesThatDoNotResolve) {
    struct Case {
        const char* name;
        DnsAnswer answer;
        Errc code;
    };
    const Case cases[] = {{"nowhere.example", {.addresses = {}, .code = 3}, Errc::name_not_found},
                          {"empty.example", {}, Errc::name_not_found},
                          {"broken.example", {.addresses = {}, .code = 2}, Errc::name_failed},
                          {"silent.example", {.how = How::silence}, Errc::timed_out}};
    for (const Case& one : cases) {
        SCOPED_TRACE(one.name);
        names.set_both(one.name, one.answer);
        PlainPeer here;
        ASSERT_TRUE(connect(*loop, at(one.name, 9), here, within(8_s)).ok());
        EXPECT_TRUE(drive(*loop, [&] { return here.closed(); }));
        EXPECT_EQ(here.closed_with, one.code);
        EXPECT_EQ(here.closed_with.step(), Step::resolve);
        EXPECT_EQ(here.opens, 0);
    }
    expect_idle();
}

// Goal: what no name can be is told at once, with a sentence.
TEST_F(ConnectorTest, RefusesWhatIsNoName) {
    const std::pair<const char*, Errc> cases[] = {{"tcp://*:80", Errc::bad_endpoint}, {"tcp://[fe80::1%25none]:80", Errc::bad_endpoint}};
    for (const auto& [url, code] : cases) {
        const auto made = connect(*loop, url, client);
        ASSERT_FALSE(made.ok()) << url;
        EXPECT_TRUE(made.error() == code || made.error() == Errc::name_not_found) << made.error();
        EXPECT_FALSE(loop->last_failure().empty());
    }
    struct Quiet {};
    EXPECT_FALSE(connect_datagram(*loop, "udp://*:80", Quiet{}).ok());
    EXPECT_EQ(client.closes, 0);
}

// Goal: a silent server costs the limit and no more; the loop turns meanwhile.
TEST_F(ConnectorTest, KeepsToTheLimitWhileResolving) {
    names.set_both("silent.example", {.how = How::silence});
    int ticks = 0;
    auto pulse = *loop->every(5_ms, [&] { ++ticks; });
    const Stopwatch watch;
    dial(at("silent.example", 9), within(200_ms));
    ASSERT_TRUE(until_decided());
    EXPECT_GE(watch.elapsed(), 200_ms);
    EXPECT_LT(watch.elapsed(), 400_ms * patience);
    EXPECT_EQ(client.closed_with, Errc::timed_out);
    EXPECT_EQ(client.closed_with.step(), Step::resolve);
    EXPECT_GT(ticks, 15);
    pulse.cancel();
    expect_idle();
}

TEST_F(ConnectorTest, KeepsToTheLimitWhileTrying) {
    BlackHole hole;
    if (!hole.fill()) GTEST_SKIP() << "this kernel lets connects through a full backlog";
    names.set("hole.example", {{.addresses = {"127.0.0.1"}}, {}});
    dial(at("hole.example", hole.port), within(300_ms));
    ASSERT_TRUE(until_decided());
    EXPECT_EQ(client.closed_with, Errc::timed_out);
    EXPECT_EQ(client.closed_with.step(), Step::connect);
    expect_idle();
}

// Goal: closing at any stage ends with cancelled, exactly once, and the attempts go with it.
TEST_F(ConnectorTest, CancelsAtAnyStage) {
    BlackHole hole;
    if (!hole.fill()) GTEST_SKIP() << "this kernel lets connects through a full backlog";
    names.set_both("silent.example", {.how = How::silence});
    names.set("hole.example", {{.addresses = {"127.0.0.1"}}, {}});
    names.set("both.example", {{.addresses = {"127.0.0.1"}}, {.how = How::silence}});
    const std::uint16_t port = listen_at("127.0.0.1");
    const std::pair<std::string, Duration> cases[] = {{at("silent.example", 9), 0_ms},        {at("silent.example", 9), 20_ms},
                                                      {at("hole.example", hole.port), 40_ms}, {at("localhost", port), 0_ms},
                                                      {at("both.example", port), 30_ms},      {at("hole.example", hole.port), 300_ms}};
    for (const auto& [url, after] : cases) {
        SCOPED_TRACE(url);
        PlainPeer here;
        const auto made = connect(*loop, url, here);
        ASSERT_TRUE(made.ok());
        if (after > 0_ms) drive_for(*loop, after);
        ASSERT_NE(made->get(), nullptr);
        made->get()->close();
        made->get()->close();
        EXPECT_EQ(here.closes, 0);
        EXPECT_TRUE(drive(*loop, [&] { return here.closed(); }));
        EXPECT_EQ(here.closed_with, Errc::cancelled);
        EXPECT_EQ(here.opens, 0);
        drive_for(*loop, 5_ms);
        EXPECT_EQ(here.closes, 1);
    }
    expect_idle();
}

// Goal: a loop may end at any stage.
TEST_F(ConnectorTest, EndsWithItsLoop) {
    BlackHole hole;
    if (!hole.fill()) GTEST_SKIP() << "this kernel lets connects through a full backlog";
    names.set_both("silent.example", {.how = How::silence});
    names.set_both("slow.example", {.addresses = {"127.0.0.1"}, .delay = 30_ms});
    names.set("hole.example", {{.addresses = {"127.0.0.1", "127.0.0.1", "240.0.0.1"}}, {}});
    for (const Duration after : {0_ms, 1_ms, 10_ms, 35_ms, 300_ms}) {
        std::deque<PlainPeer> peers(40);
        for (std::size_t i = 0; i < peers.size(); ++i) {
            const char* name = i % 4 == 0 ? "silent.example" : i % 4 == 1 ? "slow.example" : i % 4 == 2 ? "hole.example" : "localhost";
            ASSERT_TRUE(connect(*loop, at(name, hole.port), peers[i]).ok());
        }
        if (after > 0_ms) drive_for(*loop, after);
        loop.reset();
        for (const PlainPeer& peer : peers) EXPECT_EQ(peer.closes, 1);
        loop.emplace(names.options());
    }
}

// Goal: a thousand connects by name at once all open.
TEST_F(ConnectorTest, OpensAThousandByName) {
    struct Counter {
        int& opens;
        int& closes;
        void on_open(Connection& c) {
            ++opens;
            c.close();
        }
        void on_close(Connection&, Error) { ++closes; }
    };
    struct Quiet {
        void on_recv(Connection& c) { (void)c.recv(); }
    };
    auto many = listen<Quiet>(*loop, "tcp://127.0.0.1:0");
    ASSERT_TRUE(many.ok());
    names.set("*", {{.addresses = {"127.0.0.1"}}, {}});
    int opens = 0, closes = 0;
    for (int i = 0; i < 1000; ++i) {
        ASSERT_TRUE(connect(*loop, at("host" + std::to_string(i % 250) + ".example", many->port()), [&](Connection&) { return Counter{opens, closes}; }).ok());
    }
    EXPECT_TRUE(drive(*loop, [&] { return closes == 1000; }));
    EXPECT_EQ(opens, 1000);
    many->close();
    expect_idle();
}

// Goal: no descriptor is left for any attempt: told as such, and nothing leaks.
TEST_F(ConnectorTest, TellsWhenItIsOutOfDescriptors) {
    const std::uint16_t port = listen_at("127.0.0.1");
    dial(at("localhost", port));
    ASSERT_TRUE(until_decided());
    ASSERT_TRUE(drive(*loop, [&] { return server.open(); }));
    rlimit before{};
    getrlimit(RLIMIT_NOFILE, &before);
    const rlimit none{3, before.rlim_max};
    setrlimit(RLIMIT_NOFILE, &none);
    PlainPeer other;
    const auto made = connect(*loop, at("localhost", port), other);
    setrlimit(RLIMIT_NOFILE, &before);
    ASSERT_FALSE(made.ok());
    EXPECT_EQ(made.error(), Errc::too_many_files);
    EXPECT_NE(loop->last_failure().find("localhost"), std::string_view::npos) << loop->last_failure();
    EXPECT_EQ(other.closes, 0);
    expect_idle();
}

// -- datagrams -------------------------------------------------------------------------------------------------

struct UdpPeer {
    int opens = 0, closes = 0;
    std::string received;
    Error closed_with;
    void on_open(Datagram&) { ++opens; }
    void on_recv(Datagram& d) {
        while (d.has_packet()) {
            const Packet packet = d.recv();
            received.append(reinterpret_cast<const char*>(packet.bytes.data()), packet.bytes.size());
        }
    }
    void on_close(Datagram&, Error why) {
        ++closes;
        closed_with = why;
    }
};

class DatagramConnectorTest : public ConnectorTest {
protected:
    UdpPeer udp_server, udp_client;
};

// Goal: what is sent before the name is resolved arrives; on_open comes when it is.
TEST_F(DatagramConnectorTest, ResolvesAndSends) {
    UdpPeer here, there;
    const auto bound = bind(*loop, "udp://127.0.0.1:0", here);
    ASSERT_TRUE(bound.ok());
    const std::uint16_t port = bound->get()->local_address().port;
    names.set("udp.example", {{.addresses = {"127.0.0.1"}, .delay = 30_ms}, {}});
    for (const char* name : {"udp.example", "localhost", "127.0.0.1"}) {
        SCOPED_TRACE(name);
        there = {};
        here.received.clear();
        const auto made = connect_datagram(*loop, "udp://" + std::string(name) + ":" + std::to_string(port), there, within(5_s));
        ASSERT_TRUE(made.ok()) << loop->last_failure();
        EXPECT_TRUE(bool(made->get()->send("early")));
        EXPECT_FALSE(made->get()->url().empty());
        EXPECT_EQ(there.opens, 0);
        EXPECT_TRUE(drive(*loop, [&] { return here.received == "early"; })) << here.received;
        EXPECT_EQ(there.opens, 1);
        EXPECT_EQ(made->get()->remote_address().port, port);
        made->get()->close();
        EXPECT_TRUE(drive(*loop, [&] { return there.closes == 1; }));
    }
    bound->get()->close();
    EXPECT_TRUE(drive(*loop, [&] { return here.closes == 1; }));
    expect_idle();
}

// Goal: failures and the limit are told by on_close, once.
TEST_F(DatagramConnectorTest, TellsFailures) {
    names.set_both("silent.example", {.how = How::silence});
    names.set_both("broken.example", {.addresses = {}, .code = 2});
    const std::pair<const char*, Errc> cases[] = {
        {"silent.example", Errc::timed_out}, {"broken.example", Errc::name_failed}, {"nowhere.example", Errc::name_not_found}};
    for (const auto& [name, code] : cases) {
        SCOPED_TRACE(name);
        UdpPeer there;
        ASSERT_TRUE(connect_datagram(*loop, "udp://" + std::string(name) + ":9", there, within(300_ms)).ok());
        EXPECT_TRUE(drive(*loop, [&] { return there.closes > 0; }));
        EXPECT_EQ(there.closed_with, code);
        EXPECT_EQ(there.closed_with.step(), Step::resolve);
        EXPECT_EQ(there.opens, 0);
    }
    expect_idle();
}

// Goal: an address that the system refuses is passed over for the next one.
TEST_F(DatagramConnectorTest, TakesTheFirstAddressThatWorks) {
    names.set("mixed.example", {{.addresses = {"255.255.255.255", "127.0.0.1"}}, {}});  // broadcast needs a permission
    UdpPeer there;
    const auto made = connect_datagram(*loop, "udp://mixed.example:9", there);
    ASSERT_TRUE(made.ok());
    EXPECT_TRUE(drive(*loop, [&] { return there.opens + there.closes > 0; }));
    EXPECT_EQ(there.opens, 1) << there.closed_with;
    made->get()->close();
    EXPECT_TRUE(drive(*loop, [&] { return there.closes == 1; }));
    expect_idle();
}

// Goal: closing, stopping and ending the loop while a name is resolved are clean.
TEST_F(DatagramConnectorTest, ClosesWhileResolving) {
    names.set_both("silent.example", {.how = How::silence});
    UdpPeer there;
    const auto made = connect_datagram(*loop, "udp://silent.example:9", there);
    ASSERT_TRUE(made.ok());
    drive_for(*loop, 20_ms);
    made->get()->close();
    EXPECT_TRUE(drive(*loop, [&] { return there.closes == 1; }));
    EXPECT_EQ(made->get(), nullptr);
    expect_idle();
    UdpPeer last;
    ASSERT_TRUE(connect_datagram(*loop, "udp://silent.example:9", last).ok());
    drive_for(*loop, 20_ms);
    loop.reset();
    EXPECT_EQ(last.closes, 1);
    loop.emplace(names.options());
}

}  // namespace
}  // namespace evpl::test
