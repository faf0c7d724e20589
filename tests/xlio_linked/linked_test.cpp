// libxlio linked into the program, as EVPL_XLIO_STATIC of the build does it: found without loading, and used as the loaded one is.
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <string>

#include "evpl/evpl.hpp"
#include "support/patience.hpp"
#include "support/pattern.hpp"
#include "support/watchdog.hpp"

namespace evpl::test {
namespace {

const TransportInfo& xlio_info() {
    for (const TransportInfo& info : transports())
        if (info.scheme == "xlio") return info;
    std::abort();
}

struct Echo {
    void on_recv(Connection& peer) { peer.send(peer.recv(peer.send_room())); }
    void on_writable(Connection& peer) { on_recv(peer); }
};

struct Client {
    std::size_t total = 1 << 20, sent = 0, got = 0;
    bool good = true, closed = false;
    std::string scheme;

    void pump(Connection& peer) {
        while (sent < total && peer.send_room() > 0) {
            const std::size_t n = std::min({std::size_t(50'000), total - sent, peer.send_room()});
            peer.send(pattern(n, 1, sent));
            sent += n;
        }
    }
    void on_open(Connection& peer) {
        scheme = peer.transport();
        pump(peer);
    }
    void on_writable(Connection& peer) { pump(peer); }
    void on_recv(Connection& peer) {
        const Chain chain = peer.recv();
        for (const Buffer& slice : chain) {
            good = good && pattern_mismatch(slice.bytes(), 1, got) == slice.size();
            got += slice.size();
        }
        if (got == total) peer.close();
    }
    void on_close(Connection&, Error) { closed = true; }
};

TEST(XlioLinked, IsFoundWithoutLoading) {
    EXPECT_TRUE(xlio_info().present);
    EXPECT_EQ(xlio_info().reason, "libxlio is linked in");
    const int fd = ::socket(AF_INET, SOCK_STREAM, 0);  // the process keeps its own sockets
    EXPECT_GE(fd, 0);
    ::close(fd);
}

TEST(XlioLinked, CarriesBytesBothWays) {
    Loop loop;
    Client client;
    auto listener = listen(loop, "xlio://127.0.0.1:0", [](Connection&) { return Echo{}; });
    ASSERT_TRUE(listener);
    ASSERT_TRUE(connect(loop, std::string(listener->url()), client));
    for (const Stopwatch watch; !client.closed && watch.elapsed() < 30_s * patience;) loop.run_once(1_ms);
    EXPECT_EQ(client.got, client.total);
    EXPECT_TRUE(client.good);
    EXPECT_EQ(client.scheme, "xlio");
    EXPECT_EQ(loop.metrics().fallbacks, 0u);
}

}  // namespace
}  // namespace evpl::test

int main(int argc, char** argv) {
    setenv("EVPL_XLIO_CHECK", "off", 1);  // there is no card here
    testing::InitGoogleTest(&argc, argv);
    evpl::test::keep_watch();
    return RUN_ALL_TESTS();
}
