// Two soft-RoCE devices at the ends of a cable (make lab, LAB_DEVICES=veth): what the wire and the device do to connections.
#include <gtest/gtest.h>

#include <string>

#include "evpl/evpl.hpp"
#include "rdma/lab_devices.hpp"
#include "support/pattern.hpp"
#include "support/peer.hpp"

namespace evpl::test {
namespace {

/// A server's side that nobody asks anything: it takes what comes and ends when its peer does.
struct Listens {
    void on_recv(Connection& c) { c.recv(SIZE_MAX); }
};

class CableTest : public testing::Test {
protected:
    void SetUp() override {
        here_ = address("EVPL_TEST_RDMA_ADDRESS");
        there_ = address("EVPL_TEST_RDMA_PEER_ADDRESS");
        if (here_.empty() || there_.empty()) GTEST_SKIP() << "needs two RDMA devices on a cable: LAB_DEVICES=veth make lab";
    }
    void TearDown() override {
        if (there_.empty()) return;
        run("tc qdisc del dev v0 root");
        run("ip link set v0 up");
    }
    template <class S, class C>
    void open(Loop& loop, S& server, C& client, const std::string& query = "") {
        auto made = evpl::listen(loop, "rdma://" + here_ + ":0", server);
        ASSERT_TRUE(made.ok()) << loop.last_failure();
        listener_ = *std::move(made);
        auto dialled = evpl::connect(loop, std::string(listener_.url()) + "?source=" + there_ + query, client);
        ASSERT_TRUE(dialled.ok()) << loop.last_failure();
        client.ref = *dialled;
        ASSERT_TRUE(drive(loop, [&] { return client.opens > 0 && server.opens > 0; })) << client.closed_with;
    }
    std::string here_, there_;
    Listener listener_;
};

// Goal: the address asked for decides the device, and both ends know it.
TEST_F(CableTest, ConnectsFromTheSourceAskedFor) {
    Peer server, client;
    Loop loop{quiet()};
    open(loop, server, client);
    ASSERT_FALSE(HasFatalFailure());
    EXPECT_EQ(server.get()->remote_address().family, Address::Family::ipv4);
    char text[64];
    server.get()->remote_address().describe(text, sizeof text);
    EXPECT_EQ(std::string(text).substr(0, there_.size()), there_);
    listener_.close();
}

// Goal: lost packets cost time, not bytes.
TEST_F(CableTest, LosesNothingWhenTheWireLosesPackets) {
    Peer server, client;
    PatternCheck check;
    Pump pump{.total = 300'000, .most = 20'000};
    Loop loop{quiet()};
    open(loop, server, client);
    ASSERT_FALSE(HasFatalFailure());
    server.when_recv = [&](Connection& c) { check.take_all(c); };
    client.when_writable = std::ref(pump);
    ASSERT_EQ(run("tc qdisc add dev v0 root netem loss 3% delay 1ms"), 0);
    pump(*client.get());
    EXPECT_TRUE(drive(
        loop, [&] { return check.bytes == pump.total; }, 60_s))
        << check.bytes;
    EXPECT_TRUE(check.good);
    server.when_end = [](Connection& c) { c.shutdown(); };
    client.get()->shutdown();
    EXPECT_TRUE(drive(
        loop, [&] { return client.closed() && server.closed(); }, 30_s));
    EXPECT_EQ(client.closed_with, Errc::end);
    listener_.close();
}

// Goal: a peer that no answer comes from any more is given up by name, with unsent bytes and without.
TEST_F(CableTest, NoticesADeadWire) {
    Peer client, idle;
    Loop loop{quiet()};
    auto made = evpl::listen(loop, "rdma://" + here_ + ":0", [](Connection&) { return Listens{}; });
    ASSERT_TRUE(made.ok()) << loop.last_failure();
    listener_ = *std::move(made);
    const std::string url = std::string(listener_.url()) + "?ack_timeout=12&retry=3&silent_after=1s&source=" + there_;
    for (Peer* peer : {&client, &idle}) {
        auto dialled = evpl::connect(loop, url, *peer);
        ASSERT_TRUE(dialled.ok()) << loop.last_failure();
        peer->ref = *dialled;
    }
    ASSERT_TRUE(drive(loop, [&] { return client.opens > 0 && idle.opens > 0; }));
    ASSERT_EQ(run("tc qdisc add dev v0 root netem loss 100%"), 0);
    client.get()->send("into the void");
    EXPECT_TRUE(drive(
        loop, [&] { return client.closed() && idle.closed(); }, 30_s));
    EXPECT_EQ(client.closed_with, Errc::peer_silent);
    EXPECT_EQ(idle.closed_with, Errc::peer_silent);
    listener_.close();
}

// Goal: a program that does not speak our way is refused, and harms nobody.
TEST_F(CableTest, RefusesAForeignPeer) {
    Peer server, client;
    Loop loop{quiet()};
    open(loop, server, client);
    ASSERT_FALSE(HasFatalFailure());
    const std::string rping = "timeout 20 rping -c -C 1 -a " + here_ + " -p " + std::to_string(listener_.port());
    ASSERT_EQ(run("command -v rping"), 0);
    ASSERT_EQ(run("sh -c '" + rping + "; echo $? >/tmp/evpl-rping' &"), 0);
    EXPECT_TRUE(drive(
        loop, [&] { return run("test -s /tmp/evpl-rping") == 0; }, 30_s));
    EXPECT_NE(run("test \"$(cat /tmp/evpl-rping)\" = 0"), 0) << "rping was accepted";
    EXPECT_EQ(server.opens, 1);
    client.get()->send("still here");
    EXPECT_TRUE(drive(loop, [&] { return server.received == "still here"; }));
    run("rm -f /tmp/evpl-rping");
    listener_.close();
}

// Goal: a device that is taken away ends its connections by name, whatever they were doing; the loop goes on with another device.
// Method: the command that takes it away waits until this process has ended, as soft-RoCE wants it, and so runs beside it.
TEST_F(CableTest, EndsConnectionsOfARemovedDevice) {
    Peer client, other;
    Pump pump{.total = 500u << 20};
    Loop loop{quiet()};
    auto made = evpl::listen(loop, "rdma://" + here_ + ":0", [](Connection&) { return Listens{}; });
    ASSERT_TRUE(made.ok()) << loop.last_failure();
    auto dialled = evpl::connect(loop, std::string(made->url()) + "?source=" + there_, client);
    ASSERT_TRUE(dialled.ok()) << loop.last_failure();
    client.ref = *dialled;
    client.when_open = client.when_writable = std::ref(pump);
    ASSERT_TRUE(drive(loop, [&] { return client.opens > 0 && client.ref.get()->metrics().sent_bytes > 10'000; }));
    ASSERT_EQ(run("rdma link del rxe1 &"), 0);
    EXPECT_TRUE(drive(
        loop, [&] { return client.closed(); }, 30_s));
    // Memory that is to be registered just then is refused before the news comes.
    EXPECT_TRUE(client.closed_with == Errc::device_lost || client.closed_with == Errc::device_error) << client.closed_with;
    auto again = evpl::connect(loop, std::string(made->url()) + "?source=" + here_, other);
    ASSERT_TRUE(again.ok());
    EXPECT_TRUE(drive(
        loop, [&] { return other.opens > 0 || other.closed(); }, 30_s));
    EXPECT_EQ(other.opens, 1) << other.closed_with;
}

}  // namespace
}  // namespace evpl::test
