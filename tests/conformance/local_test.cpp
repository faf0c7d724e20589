// What only sockets of one machine can do, by capability: descriptors, credentials, socket files and abstract names.
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "support/sockets.hpp"
#include "support/world.hpp"

namespace evpl::test {
namespace {

class LocalTest : public TransportTest {};

/// Reads all of a file that is open at `fd`.
std::string contents(int fd) {
    char room[100];
    const ssize_t n = ::pread(fd, room, sizeof room, 0);
    return std::string(room, n < 0 ? 0 : std::size_t(n));
}

Fd file_with(std::string_view text) {
    Fd fd(memfd_create("evpl-test", MFD_CLOEXEC));
    if (::write(fd.get(), text.data(), text.size()) < 0) return Fd();
    return fd;
}

// Goal: a descriptor travels with its bytes; both sides keep and close their own.
TEST_P(LocalTest, PassesADescriptorWithItsBytes) {
    EVPL_NEEDS(descriptors);
    Fd received;
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    server.when_recv = [&](Connection& c) {
        server.drain(c);
        const int fd = c.recv_descriptor();
        if (fd >= 0) received.reset(fd);
    };
    {
        const Fd file = file_with("in the file");
        ASSERT_TRUE(file);
        EXPECT_TRUE(client.get()->send_descriptor(file.get(), chain_of(world.loop(), "here it is", 10)).ok());
    }
    ASSERT_TRUE(world.until([&] { return bool(received); }));
    EXPECT_EQ(server.received, "here it is");
    EXPECT_EQ(contents(received.get()), "in the file");
    EXPECT_NE(fcntl(received.get(), F_GETFD) & FD_CLOEXEC, 0);
    EXPECT_EQ(server.get()->recv_descriptor(), -1);
    received.reset();
}

// Goal: several descriptors keep their order among ordinary bytes.
TEST_P(LocalTest, KeepsTheOrderOfDescriptors) {
    EVPL_NEEDS(descriptors);
    std::vector<std::string> seen;
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    server.when_recv = [&](Connection& c) {
        while (c.available() > 0) {
            server.received += text_of(c.recv());
            for (int fd = c.recv_descriptor(); fd >= 0; fd = c.recv_descriptor()) {
                seen.push_back(contents(fd));
                ::close(fd);
            }
        }
    };
    std::string expected;
    for (int i = 0; i < 5; ++i) {
        const Fd file = file_with("file " + std::to_string(i));
        client.get()->send("plain ");
        EXPECT_TRUE(client.get()->send_descriptor(file.get(), chain_of(world.loop(), "with ", 5)).ok());
        expected += "plain with ";
    }
    ASSERT_TRUE(world.until([&] { return server.received.size() >= expected.size() && seen.size() == 5; }));
    EXPECT_EQ(server.received, expected);
    for (int i = 0; i < 5; ++i) EXPECT_EQ(seen[std::size_t(i)], "file " + std::to_string(i));
}

// Goal: a descriptor of a message that is refused does not travel with the next one.
TEST_P(LocalTest, DoesNotKeepTheDescriptorOfARefusedMessage) {
    EVPL_NEEDS(descriptors);
    Fd received;
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    if (client.get()->caps().kind != Kind::message) GTEST_SKIP() << "a stream refuses no size";
    server.when_recv = [&](Connection& c) {
        server.drain(c);
        if (const int fd = c.recv_descriptor(); fd >= 0) received.reset(fd);
    };
    const Fd first = file_with("first"), second = file_with("second");
    const std::string large(client.get()->caps().message_bytes_max + 1, 'x');
    EXPECT_EQ(client.get()->send_descriptor(first.get(), chain_of(world.loop(), large, 64u << 10)).error(), Errc::too_large);
    EXPECT_TRUE(client.get()->send_descriptor(second.get(), chain_of(world.loop(), "small", 5)).ok());
    ASSERT_TRUE(world.until([&] { return bool(received); }));
    EXPECT_EQ(contents(received.get()), "second");
    received.reset();
}

// Goal: a peer that sends descriptors which nobody takes is not read from; all arrive once they are taken.
TEST_P(LocalTest, StopsReadingAtTooManyDescriptors) {
    EVPL_NEEDS(descriptors);
    constexpr int sent = 300;
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    server.when_recv = [&](Connection& c) { server.drain(c); };
    const Fd file = file_with("file");
    const int before = open_descriptors();
    for (int i = 0; i < sent; ++i) EXPECT_TRUE(client.get()->send_descriptor(file.get(), chain_of(world.loop(), "x", 1)).ok());
    // The kernel's buffer takes in what it can; here no more than the bound and one receive come in.
    ASSERT_TRUE(world.until([&] { return server.get()->metrics().receive_pauses > 0; }));
    drive_for(world.loop(), 20_ms);
    EXPECT_LE(server.received.size(), 64u + 16u);
    int taken = 0;
    EXPECT_TRUE(world.until([&] {
        for (int fd = server.get()->recv_descriptor(); fd >= 0; fd = server.get()->recv_descriptor(), ++taken) ::close(fd);
        return taken == sent;
    }));
    EXPECT_EQ(server.received, std::string(sent, 'x'));
    EXPECT_EQ(open_descriptors(), before);
}

// Goal: a receive deadline also ends a peer that is not read from because nobody takes its descriptors: nothing else would.
TEST_P(LocalTest, ADeadlineEndsAPeerWhoseDescriptorsNobodyTakes) {
    EVPL_NEEDS(descriptors);
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    server.when_recv = [&](Connection& c) { server.drain(c); };
    const Fd file = file_with("file");
    const int before = open_descriptors();
    for (int i = 0; i < 100; ++i) EXPECT_TRUE(client.get()->send_descriptor(file.get(), chain_of(world.loop(), "x", 1)).ok());
    ASSERT_TRUE(world.until([&] { return server.get()->metrics().receive_pauses > 0; }));
    server.get()->deadline_recv(20_ms);
    ASSERT_TRUE(world.until([&] { return server.closed() && client.closed(); }));
    EXPECT_EQ(server.closed_with, Errc::timed_out);
    EXPECT_LT(open_descriptors(), before) << "neither connection, nor what came along, is kept";
}

// Goal: descriptors that nobody takes are closed with the connection: the world's end would see them.
TEST_P(LocalTest, ClosesDescriptorsThatNobodyTakes) {
    EVPL_NEEDS(descriptors);
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    const int before = open_descriptors();
    {
        const Fd file = file_with("unwanted");
        for (int i = 0; i < 3; ++i) EXPECT_TRUE(client.get()->send_descriptor(file.get(), chain_of(world.loop(), "x", 1)).ok());
    }
    ASSERT_TRUE(world.until([&] { return server.received.size() == 3; }));
    server.get()->close();
    client.get()->close();
    ASSERT_TRUE(world.until_closed(server, client));
    EXPECT_LT(open_descriptors(), before);
}

// Goal: a descriptor that is none, or comes without bytes, is refused.
TEST_P(LocalTest, RefusesDescriptorsThatAreNone) {
    EVPL_NEEDS(descriptors);
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    EXPECT_FALSE(client.get()->send_descriptor(-1, chain_of(world.loop(), "x", 1)).ok());
    EXPECT_EQ(client.get()->send_descriptor(0, Chain()).error(), Errc::misuse);
    client.get()->send("fine");
    EXPECT_TRUE(world.until([&] { return server.received == "fine"; }));
}

// Goal: the peer's process and user are known.
TEST_P(LocalTest, KnowsThePeersCredentials) {
    EVPL_NEEDS(credentials);
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    for (const Peer* peer : {&server, &client}) {
        const auto who = peer->get()->credentials();
        ASSERT_TRUE(who.ok()) << who.error();
        EXPECT_EQ(who->pid, getpid());
        EXPECT_EQ(who->uid, getuid());
        EXPECT_EQ(who->gid, getgid());
    }
}

// Goal: where descriptors or credentials do not exist the calls say so.
TEST_P(LocalTest, SaysWhatIsNotSupported) {
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    if (!caps().credentials) {
        EXPECT_EQ(client.get()->credentials().error(), Errc::not_supported);
    }
    if (!caps().descriptors) {
        EXPECT_EQ(client.get()->send_descriptor(0, chain_of(world.loop(), "x", 1)).error(), Errc::not_supported);
        EXPECT_EQ(client.get()->recv_descriptor(), -1);
    }
}

/// Rows whose name is a path of the file system.
class SocketFileTest : public TransportTest {
protected:
    void SetUp() override {
        TransportTest::SetUp();
        if (std::string_view(GetParam().url).find('%') == std::string_view::npos) GTEST_SKIP() << GetParam().name << " has no socket file";
    }
    static std::string path_of(const std::string& url) {
        const std::size_t from = url.find("://") + 3;
        return url.substr(from, url.find('?') - from);
    }
};

// Goal: the file appears with the listener and goes with it.
TEST_P(SocketFileTest, RemovesItsFileWhenItCloses) {
    PlainPeer server;
    World world{GetParam()};
    const std::string url = fresh_url(GetParam());
    auto listener = listen(world.loop(), url, server);
    ASSERT_TRUE(listener.ok()) << world.loop().last_failure();
    struct stat about {};
    EXPECT_EQ(::stat(path_of(url).c_str(), &about), 0);
    EXPECT_TRUE(S_ISSOCK(about.st_mode));
    listener->close();
    drive_for(world.loop(), 5_ms);
    EXPECT_NE(::stat(path_of(url).c_str(), &about), 0);
}

// Goal: a file left behind by a program that died is in nobody's way.
TEST_P(SocketFileTest, TakesOverAStaleFile) {
    PlainPeer server, client;
    World world{GetParam()};
    const std::string url = fresh_url(GetParam()), path = path_of(url);
    {
        const Fd dead(::socket(AF_UNIX, (GetParam().kind == Kind::message ? SOCK_SEQPACKET : SOCK_STREAM) | SOCK_CLOEXEC, 0));
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        path.copy(address.sun_path, sizeof address.sun_path - 1);
        ASSERT_EQ(::bind(dead.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    }
    auto listener = listen(world.loop(), url, server);
    ASSERT_TRUE(listener.ok()) << world.loop().last_failure();
    ASSERT_TRUE(connect(world.loop(), url, client).ok());
    EXPECT_TRUE(world.until([&] { return client.open() && server.open(); }));
}

// Goal: a file that is not a socket is never removed.
TEST_P(SocketFileTest, LeavesOtherFilesAlone) {
    PlainPeer server;
    World world{GetParam()};
    const std::string url = fresh_url(GetParam()), path = path_of(url);
    { const Fd file(::open(path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600)); }
    EXPECT_EQ(listen(world.loop(), url, server).error(), Errc::address_in_use);
    EXPECT_EQ(::access(path.c_str(), F_OK), 0);
    ::unlink(path.c_str());
}

// Goal: a path that cannot be is a named error.
TEST_P(SocketFileTest, NamesWhatIsWrongWithAPath) {
    PlainPeer server;
    World world{GetParam()};
    const std::string scheme = GetParam().scheme;
    EXPECT_FALSE(listen(world.loop(), scheme + ":///no/such/directory/socket", server).ok());
    EXPECT_EQ(listen(world.loop(), scheme + "://" + std::string(120, 'x'), server).error(), Errc::bad_endpoint);
    EXPECT_FALSE(world.loop().last_failure().empty());
}

INSTANTIATE_TEST_SUITE_P(Conformance, LocalTest, connection_rows(), name_of_row);
INSTANTIATE_TEST_SUITE_P(Conformance, SocketFileTest, connection_rows(), name_of_row);

}  // namespace
}  // namespace evpl::test
