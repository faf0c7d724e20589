// A flood of short connections from another process; the ones that were there first are served all the while.
#include <sys/epoll.h>

#include "support/helper.hpp"
#include "support/limits.hpp"
#include "support/world.hpp"

namespace evpl::test {
namespace {

/// Opens `total` connections, `together` at a time: each says one byte, hears it back, and closes. Spread over many
/// client addresses, so that closed ones do not use up the ports.
int burst_main(const std::vector<std::string>& arguments) {
    const auto port = std::uint16_t(std::stoul(arguments.at(0)));
    const std::size_t total = std::stoul(arguments.at(1)), together = std::stoul(arguments.at(2));
    raise_file_limit();
    const Fd epoll(epoll_create1(EPOLL_CLOEXEC));
    std::size_t started = 0, done = 0, failed = 0;
    while (done + failed < total) {
        for (; started < total && started - done - failed < together; ++started) {
            const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
            setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
            const std::string host = "127.0.1." + std::to_string(1 + started % 200);
            const sockaddr_in own = loopback(0, host.c_str()), to = loopback(port);
            epoll_event event{};
            event.events = EPOLLOUT;
            event.data.fd = fd;
            if (fd < 0 || ::bind(fd, reinterpret_cast<const sockaddr*>(&own), sizeof own) != 0 ||
                (::connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0 && errno != EINPROGRESS)) {
                std::perror("burst");
                return 2;
            }
            epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd, &event);
        }
        epoll_event events[128];
        const int count = epoll_wait(epoll.get(), events, 128, 1000);
        for (int e = 0; e < count; ++e) {
            const int fd = events[e].data.fd;
            char byte = 'x';
            if ((events[e].events & EPOLLOUT) != 0 && ::send(fd, &byte, 1, MSG_NOSIGNAL) == 1) {
                events[e].events = EPOLLIN;
                epoll_ctl(epoll.get(), EPOLL_CTL_MOD, fd, &events[e]);
                continue;
            }
            ++(::recv(fd, &byte, 1, 0) == 1 && byte == 'x' ? done : failed);
            ::close(fd);
        }
    }
    std::printf("done %zu failed %zu\n", done, failed);
    return failed == 0 ? 0 : 1;
}
const RegisterHelper burst("burst", &burst_main);

/// Echoes and counts.
struct CountedEcho {
    std::size_t& closes;
    void on_recv(Connection& peer) { peer.send(peer.recv(peer.send_room())); }
    void on_close(Connection&, Error) { ++closes; }
};

class FloodTest : public TransportTest {
protected:
    void SetUp() override {
        TransportTest::SetUp();
        if (std::string_view(GetParam().url).find("127.0.0.1") == std::string_view::npos) GTEST_SKIP() << "plain sockets do not reach " << GetParam().name;
    }
};

// Goal: 20,000 short connections are all served; an established one keeps its answers quick; nothing is left behind.
TEST_P(FloodTest, ServesTwentyThousandShortConnections) {
    constexpr std::size_t total = 20'000;
    std::size_t closes = 0;
    Peer server, client;
    World world{GetParam()};
    Child peers;
    ASSERT_TRUE(world.open(server, client));
    server.when_recv = [](Connection& c) { c.send(c.recv()); };
    Listener* listener = world.listen([&](Connection&) { return CountedEcho{closes}; });
    ASSERT_NE(listener, nullptr);
    ASSERT_TRUE(peers.start_helper("burst", {std::to_string(listener->port()), std::to_string(total), "200"}));
    Duration slowest;
    Stopwatch round_trip;
    client.when_recv = [&](Connection& c) {
        c.recv();
        slowest = std::max(slowest, round_trip.elapsed());
        round_trip.restart();
        c.send("?");
    };
    round_trip.restart();
    client.get()->send("?");
    EXPECT_TRUE(world.until([&] { return peers.has_said("done"); }, 50_s)) << closes;
    EXPECT_TRUE(peers.has_said("done 20000 failed 0")) << peers.said();
    EXPECT_TRUE(world.until([&] { return closes == total; })) << closes;
    EXPECT_LT(slowest, 500_ms * patience);
    EXPECT_EQ(listener->metrics().accepted, total);
    EXPECT_EQ(listener->metrics().open, 0u);
    EXPECT_EQ(world.loop().metrics().connections_open, 2u);
    EXPECT_LE(world.loop().metrics().slab_bytes, 16u << 20);
}

INSTANTIATE_TEST_SUITE_P(Fault, FloodTest, stream_rows(), name_of_row);

}  // namespace
}  // namespace evpl::test
