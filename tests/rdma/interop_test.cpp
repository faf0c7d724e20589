// Programs that know nothing of evpl, over wire=raw: rdma-core's rping, ucmatose and udaddy, as clients and as servers. Each judges by its
// own exit status what we did, and we by our own what it did.
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "evpl/evpl.hpp"
#include "rdma/lab_devices.hpp"
#include "support/pattern.hpp"
#include "support/peer.hpp"

extern char** environ;

namespace evpl::test {
namespace {

/// A program that runs beside the loop, 25 s at the most.
class Program {
public:
    explicit Program(const std::string& line) {
        std::vector<std::string> words{"timeout", "25"};
        std::istringstream in(line);
        for (std::string word; in >> word;) words.push_back(word);
        std::vector<char*> pointers;
        for (std::string& word : words) pointers.push_back(word.data());
        pointers.push_back(nullptr);
        if (posix_spawnp(&pid_, "timeout", nullptr, nullptr, pointers.data(), environ) != 0) pid_ = -1;
    }
    ~Program() {
        if (pid_ <= 0 || status()) return;
        kill(pid_, SIGTERM);
        waitpid(pid_, nullptr, 0);
    }
    Program(const Program&) = delete;
    Program& operator=(const Program&) = delete;
    /// Of its end; nothing while it runs.
    std::optional<int> status() {
        int how = 0;
        if (!status_ && waitpid(pid_, &how, WNOHANG) == pid_) status_ = WIFEXITED(how) ? WEXITSTATUS(how) : 128 + WTERMSIG(how);
        return status_;
    }

private:
    pid_t pid_ = -1;
    std::optional<int> status_;
};

class InteropTest : public testing::Test {
protected:
    void SetUp() override {
        if (!devices_.present()) GTEST_SKIP() << "needs an RDMA device: make lab";
        ASSERT_EQ(run("command -v rping ucmatose udaddy"), 0) << "the lab's guest has rdmacm-utils";
    }
    std::string here(const std::string& scheme, unsigned port) const { return scheme + devices_.here + ":" + std::to_string(port) + "?wire=raw"; }
    /// Connects to a program as soon as it listens.
    template <class H>
    bool reach(Loop& loop, unsigned port, H& handler) {
        const std::string url = here("rdma://", port) + "&source=" + devices_.source();
        for (const Stopwatch watch; watch.elapsed() < 15_s * patience;) {
            handler = {};
            if (!evpl::connect(loop, url, handler, within(5_s)).ok()) return false;
            if (!drive(loop, [&] { return handler.opened || handler.closed; })) return false;
            if (handler.opened) return true;
        }
        return false;
    }
    Devices devices_;
};

// -- rping -----------------------------------------------------------------------------------------------------

/// What rping's client says of its memory: address, key and size, big-endian. Its server answers with as many bytes that mean nothing.
struct PingMemory {
    static constexpr std::size_t size_bytes = 16;
    static std::string write(const RemoteRegion& region) {
        std::string text;
        for (int shift = 56; shift >= 0; shift -= 8) text += char(region.address >> shift & 0xff);
        for (int shift = 24; shift >= 0; shift -= 8) text += char(region.key >> shift & 0xff);
        for (int shift = 24; shift >= 0; shift -= 8) text += char(region.size_bytes >> shift & 0xff);
        return text;
    }
    static RemoteRegion read(const std::string& text) {
        const auto number = [&](std::size_t at, std::size_t bytes) {
            std::uint64_t value = 0;
            for (std::size_t i = at; i < at + bytes; ++i) value = value << 8 | std::uint8_t(text[i]);
            return value;
        };
        return {number(0, 8), number(8, 4), number(12, 4)};
    }
};

/// rping's server: reads what the client advertises, says so, writes it where the client then wants it, and says so.
struct PingServer {
    int pings = 0, strange = 0;
    bool reads = true;  ///< the next operation, or the one under way
    bool closed = false;
    Error reason;
    Buffer ping;
    void on_recv(Connection& c) {
        const auto message = c.recv_message();
        if (!message || message->size() != PingMemory::size_bytes) {
            ++strange;
            return c.close();
        }
        const RemoteRegion memory = PingMemory::read(text_of(*message));
        if (ping) {
            if (!c.write(memory, 0, std::move(ping))) c.close();
            return;
        }
        auto into = c.loop().allocate(std::uint32_t(memory.size_bytes));
        if (!into || !c.read(memory, 0, *std::move(into))) c.close();
    }
    void on_completed(Connection& c, Completion& done) {
        if (!done.error.ok()) return;
        if (std::exchange(reads, !reads)) {
            constexpr std::string_view begin = "rdma-ping-";
            const std::string_view text(reinterpret_cast<const char*>(done.buffer.data()), done.buffer.size());
            strange += text.substr(0, begin.size()) == begin ? 0 : 1;
            ping = std::move(done.buffer);
        } else {
            ++pings;
        }
        c.send(std::string(PingMemory::size_bytes, '\0'));
    }
    void on_close(Connection&, Error why) {
        closed = true;
        reason = why;
        ping.reset();
    }
};

// Goal: rping's client is served: it gets back, by our RDMA WRITE, what we took from it by RDMA READ, and it looks at every byte.
TEST_F(InteropTest, ServesRpingsClient) {
    constexpr unsigned port = 7201;
    PingServer server;
    Loop loop{quiet()};
    auto listener = evpl::listen(loop, here("rdma://", port), server);
    ASSERT_TRUE(listener.ok()) << loop.last_failure();
    Program client("rping -c -V -C 20 -S 4000 -a " + devices_.here + " -I " + devices_.source() + " -p " + std::to_string(port));
    EXPECT_TRUE(drive(
        loop, [&] { return client.status() && server.closed; }, 30_s));
    EXPECT_EQ(client.status(), 0);
    EXPECT_EQ(server.pings, 20);
    EXPECT_EQ(server.strange, 0);
    EXPECT_TRUE(is_departure(server.reason)) << server.reason;
}

/// rping's client: advertises what is to be read, then where it wants it written, and compares.
struct PingClient {
    static constexpr std::uint32_t size_bytes = 3000;
    bool opened = false, closed = false;
    int pings = 0, different = 0, wanted = 15;
    Error reason;
    Buffer source, target;
    RemoteRegion from, to;
    bool reading = false;

    void on_open(Connection& c) {
        opened = true;
        source = *c.loop().allocate(size_bytes);
        target = *c.loop().allocate(size_bytes);
        const auto exposed = c.expose(source.share(), Access::read), writable = c.expose(target.share(), Access::write);
        if (!exposed || !writable) return c.close();
        from = *exposed;
        to = *writable;
        ask(c);
    }
    void ask(Connection& c) {
        fill_pattern(source.bytes(), std::uint64_t(pings), 0);
        for (std::byte& each : source.bytes()) each |= std::byte(1);
        source.data()[size_bytes - 1] = std::byte(0);  // rping writes back up to the first zero
        reading = true;
        c.send(PingMemory::write(from));
    }
    void on_recv(Connection& c) {
        const auto message = c.recv_message();
        if (!message || message->size() != PingMemory::size_bytes) return c.close();
        if (std::exchange(reading, false)) {
            c.send(PingMemory::write(to));
            return;
        }
        different += std::memcmp(source.data(), target.data(), size_bytes) == 0 ? 0 : 1;
        if (++pings == wanted) return c.shutdown();
        ask(c);
    }
    void on_close(Connection&, Error why) {
        closed = true;
        reason = why;
        source.reset();
        target.reset();
    }
};

// Goal: rping's server serves us: it reads and writes the memory whose address and key we tell it as plain numbers.
TEST_F(InteropTest, IsServedByRpingsServer) {
    constexpr unsigned port = 7202;
    PingClient client;
    Loop loop{quiet()};
    Program server("rping -s -C 15 -S " + std::to_string(PingClient::size_bytes) + " -a " + devices_.here + " -p " + std::to_string(port));
    ASSERT_TRUE(reach(loop, port, client)) << client.reason;
    EXPECT_TRUE(drive(
        loop, [&] { return client.closed && server.status(); }, 30_s))
        << client.pings;
    EXPECT_EQ(client.pings, 15);
    EXPECT_EQ(client.different, 0);
    EXPECT_TRUE(is_departure(client.reason)) << client.reason;
    EXPECT_EQ(server.status(), 0);
}

// -- ucmatose --------------------------------------------------------------------------------------------------

/// Its server sends its messages first and disconnects when the client's have come. As many receives as messages is all it has.
struct Matose {
    static constexpr int messages = 10, size_bytes = 100;
    bool serves = false;
    bool opened = false, closed = false;
    int arrived = 0, strange = 0;
    Error reason;
    void on_open(Connection& c) {
        opened = true;
        if (serves) send_all(c);
    }
    void on_recv(Connection& c) {
        const auto message = c.recv_message();
        strange += message && message->size() == std::size_t(size_bytes) ? 0 : 1;
        if (++arrived < messages) return;
        if (serves) c.shutdown();
        else send_all(c);
    }
    void on_close(Connection&, Error why) {
        closed = true;
        reason = why;
    }
    static void send_all(Connection& c) {
        for (int i = 0; i < messages; ++i) c.send(pattern(size_bytes, std::uint64_t(i)));
    }
};

// Goal: ucmatose's clients, two at a time, get their messages from us, and we theirs.
TEST_F(InteropTest, ServesUcmatosesClients) {
    int ended = 0;
    struct Counted : Matose {
        int* all = nullptr;
        int* wrong = nullptr;
        void on_close(Connection&, Error why) {
            ++*all;
            *wrong += arrived == messages && strange == 0 && is_departure(why) ? 0 : 1;
        }
    };
    int wrong = 0;
    Loop loop{quiet()};
    auto listener = evpl::listen(loop, here("rdma://", 7471), [&](Connection&) {
        Counted one;
        one.serves = true;
        one.all = &ended;
        one.wrong = &wrong;
        return one;
    });
    ASSERT_TRUE(listener.ok()) << loop.last_failure();
    Program client("ucmatose -s " + devices_.here + " -b " + devices_.source() + " -c 2");
    EXPECT_TRUE(drive(
        loop, [&] { return client.status() && ended == 2; }, 30_s))
        << ended;
    EXPECT_EQ(client.status(), 0);
    EXPECT_EQ(ended, 2);
    EXPECT_EQ(wrong, 0);
}

// Goal: ucmatose's server gives us its messages and takes ours.
TEST_F(InteropTest, IsServedByUcmatosesServer) {
    Matose client;
    Loop loop{quiet()};
    Program server("ucmatose -b " + devices_.here);
    ASSERT_TRUE(reach(loop, 7471, client)) << client.reason;
    EXPECT_TRUE(drive(
        loop, [&] { return client.closed && server.status(); }, 30_s))
        << client.arrived;
    EXPECT_EQ(client.arrived, Matose::messages);
    EXPECT_EQ(client.strange, 0);
    EXPECT_TRUE(is_departure(client.reason)) << client.reason;
    EXPECT_EQ(server.status(), 0);
}

// -- udaddy ----------------------------------------------------------------------------------------------------

struct Daddy {
    static constexpr int messages = 10;
    static constexpr std::size_t size_bytes = 100;
    bool serves = false;
    int arrived = 0, strange = 0, failed = 0;
    void on_open(Datagram& socket) {
        for (int i = 0; i < messages && !serves; ++i) socket.send(bytes_of(pattern(size_bytes)));
    }
    void on_recv(Datagram& socket) {
        while (socket.has_packet()) {
            Packet packet = socket.recv();
            ++arrived;
            strange += packet.bytes.size() == size_bytes ? 0 : 1;
            if (serves) socket.send_to(packet.from, std::move(packet.bytes));
        }
    }
    void on_error(Datagram&, Error) { ++failed; }
};

// Goal: udaddy's client finds our socket, and each of its datagrams is answered.
TEST_F(InteropTest, AnswersUdaddysClient) {
    Daddy server{.serves = true};
    Loop loop{quiet()};
    auto socket = evpl::bind(loop, here("rdma-ud://", 7174), server);
    ASSERT_TRUE(socket.ok()) << loop.last_failure();
    Program client("udaddy -s " + devices_.here + " -b " + devices_.source());
    EXPECT_TRUE(drive(
        loop, [&] { return client.status().has_value(); }, 30_s))
        << server.arrived;
    EXPECT_EQ(client.status(), 0);
    EXPECT_EQ(server.arrived, Daddy::messages);
    EXPECT_EQ(server.strange + server.failed, 0);
}

// Goal: we find udaddy's server, and each of our datagrams is answered.
TEST_F(InteropTest, IsAnsweredByUdaddysServer) {
    Daddy client;
    Loop loop{quiet()};
    Program server("udaddy -b " + devices_.here);
    ASSERT_TRUE(await([&] { return run("rdma resource show cm_id | grep -q 'LISTEN.*:7174'") == 0; })) << "udaddy does not listen";
    auto socket = evpl::connect_datagram(loop, here("rdma-ud://", 7174), client);
    ASSERT_TRUE(socket.ok()) << loop.last_failure();
    EXPECT_TRUE(drive(
        loop, [&] { return client.arrived == Daddy::messages && server.status(); }, 30_s))
        << client.arrived;
    EXPECT_EQ(client.arrived, Daddy::messages);
    EXPECT_EQ(client.strange + client.failed, 0);
    EXPECT_EQ(server.status(), 0);
}

}  // namespace
}  // namespace evpl::test
