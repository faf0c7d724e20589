// Programs that we did not write, as peers: socat, ncat and python3. A program that is not installed is skipped, and
// says so.
#include <sys/stat.h>

#include <fstream>
#include <iterator>

#include "support/helper.hpp"
#include "support/world.hpp"

namespace evpl::test {
namespace {

struct Echo {
    void on_recv(Connection& peer) { peer.send(peer.recv(peer.send_room())); }
    void on_writable(Connection& peer) { on_recv(peer); }
};

/// A file of this test's own.
struct TemporaryFile {
    std::string path;
    explicit TemporaryFile(std::string_view content = {}) : path(scratch_directory() + "/file-" + std::to_string(next_++)) {
        std::ofstream(path, std::ios::binary) << content;
    }
    ~TemporaryFile() { ::unlink(path.c_str()); }
    std::string content() const {
        std::ifstream in(path, std::ios::binary);
        return {std::istreambuf_iterator<char>(in), {}};
    }
    static inline int next_ = 0;
};

class ForeignTest : public testing::Test {
protected:
    static constexpr std::size_t size = 1u << 20;
    static constexpr Row tcp{"tcp", "tcp", "tcp://127.0.0.1:0", Kind::stream};
    static constexpr Row unix_file{"unix", "unix", "unix://%/#.sock", Kind::stream};
    static constexpr Row udp{"udp", "udp", "udp://127.0.0.1:0", Kind::datagram};

    /// Runs a client that copies its input to our echo server and what comes back to its output.
    void expect_echo(const Row& row, const std::string& program, const std::function<std::vector<std::string>(const Listener&)>& command) {
        const auto path = find_program(program);
        if (!path) GTEST_SKIP() << program << " is not installed";
        const std::string text = pattern(size);
        const TemporaryFile in(text), out;
        World world{row};
        Listener* listener = world.listen([](Connection&) { return Echo{}; });
        ASSERT_NE(listener, nullptr);
        std::vector<std::string> words = command(*listener);
        words.insert(words.begin(), *path);
        Child child;
        ASSERT_TRUE(child.start(words, in.path.c_str(), out.path.c_str()));
        std::optional<int> code;
        EXPECT_TRUE(world.until([&] { return (code = child.ended()).has_value(); }, 30_s));
        EXPECT_EQ(code, 0);
        EXPECT_EQ(out.content() == text, true) << out.content().size() << " of " << size << " bytes came back";
    }

    /// Our client against a server that answers with what it gets.
    void expect_echo_from(const std::string& program, const std::function<std::vector<std::string>(std::uint16_t port)>& command) {
        const auto path = find_program(program);
        if (!path) GTEST_SKIP() << program << " is not installed";
        PatternCheck check;
        const std::uint16_t port = unused_port();
        std::vector<std::string> words = command(port);
        words.insert(words.begin(), *path);
        World world{tcp};
        Child child;
        ASSERT_TRUE(child.start(words));
        ASSERT_TRUE(await([&] { return bool(plain_dial(port)); })) << program << " does not listen";
        Pump pump{.total = size};
        Peer client;
        client.when_open = client.when_writable = [&](Connection& c) {
            pump(c);
            if (pump.done()) c.shutdown();
        };
        client.when_recv = [&](Connection& c) { check.take_all(c); };
        ASSERT_TRUE(connect(world.loop(), "tcp://127.0.0.1:" + std::to_string(port), client).ok());
        EXPECT_TRUE(world.until([&] { return client.closed(); }, 30_s)) << check.bytes;
        EXPECT_EQ(client.closed_with, Errc::end);
        EXPECT_TRUE(check.good);
        EXPECT_EQ(check.bytes, pump.total);
    }
};

// Goal: socat's TCP and Unix clients get everything back, after they have finished sending.
TEST_F(ForeignTest, EchoesToSocatOverTcp) {
    expect_echo(tcp, "socat", [](const Listener& at) { return std::vector<std::string>{"-t", "20", "-", "TCP:127.0.0.1:" + std::to_string(at.port())}; });
}
TEST_F(ForeignTest, EchoesToSocatOverUnix) {
    expect_echo(unix_file, "socat", [](const Listener& at) {
        const std::string url(at.url());
        return std::vector<std::string>{"-t", "20", "-", "UNIX-CONNECT:" + url.substr(url.find("://") + 3)};
    });
}

// Goal: so does ncat.
TEST_F(ForeignTest, EchoesToNcat) {
    expect_echo(tcp, "ncat", [](const Listener& at) { return std::vector<std::string>{"127.0.0.1", std::to_string(at.port())}; });
}

constexpr const char* python_client = R"(
import socket, sys, threading
peer = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
data = sys.stdin.buffer.read()
def send():
    for at in range(0, len(data), 7777):
        peer.sendall(data[at:at + 7777])
    peer.shutdown(socket.SHUT_WR)
threading.Thread(target=send).start()
while piece := peer.recv(5000):
    sys.stdout.buffer.write(piece)
)";

// Goal: Python's sockets, which read and write in odd sizes at once, get everything back.
TEST_F(ForeignTest, EchoesToPython) {
    expect_echo(tcp, "python3", [](const Listener& at) { return std::vector<std::string>{"-c", python_client, std::to_string(at.port())}; });
}

constexpr const char* python_server = R"(
import socket, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    peer, _ = server.accept()
    try:
        while data := peer.recv(3000):
            peer.sendall(data)
    except OSError:
        pass
    peer.close()
)";

// Goal: our client gets everything back from servers of others.
TEST_F(ForeignTest, IsEchoedByPython) {
    expect_echo_from("python3", [](std::uint16_t port) { return std::vector<std::string>{"-c", python_server, std::to_string(port)}; });
}
TEST_F(ForeignTest, IsEchoedBySocat) {
    expect_echo_from("socat", [](std::uint16_t port) {
        return std::vector<std::string>{"-t", "20", "TCP-LISTEN:" + std::to_string(port) + ",bind=127.0.0.1,reuseaddr,fork", "EXEC:cat"};
    });
}

constexpr const char* python_datagrams = R"(
import socket, sys
peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
peer.settimeout(5)
for size in list(range(0, 200)) + [1000, 1472, 1473, 9000, 60000]:
    data = bytes((size + i) % 251 for i in range(size))
    peer.sendto(data, ("127.0.0.1", int(sys.argv[1])))
    if peer.recvfrom(65536)[0] != data:
        sys.exit("size %d came back wrong" % size)
)";

struct DatagramEcho {
    void on_recv(Datagram& d) {
        while (d.has_packet()) {
            Packet packet = d.recv();
            d.send_to(packet.from, std::move(packet.bytes));
        }
    }
};

// Goal: Python's datagrams of all sizes come back as they were.
TEST_F(ForeignTest, EchoesDatagramsToPython) {
    const auto path = find_program("python3");
    if (!path) GTEST_SKIP() << "python3 is not installed";
    World world{udp};
    Child child;
    auto made = evpl::bind(world.loop(), "udp://127.0.0.1:0", DatagramEcho{});
    ASSERT_TRUE(made.ok()) << world.loop().last_failure();
    ASSERT_TRUE(child.start({*path, "-c", python_datagrams, std::to_string(made->get()->local_address().port)}));
    std::optional<int> code;
    EXPECT_TRUE(world.until([&] { return (code = child.ended()).has_value(); }, 30_s));
    EXPECT_EQ(code, 0);
}

}  // namespace
}  // namespace evpl::test
