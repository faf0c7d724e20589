// io_uring where it is forbidden, short of memory, overrun, in other hands, or nested.
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <thread>

#include "support/helper.hpp"
#include "support/leave.hpp"
#include "support/sockets.hpp"
#include "support/world.hpp"

namespace evpl::test {
namespace {

const Row uring_row{"uring", "uring", "uring://127.0.0.1:0", Kind::stream};

/// From now on io_uring_setup(2) with at least `entries_least` entries fails with `error` in this process.
bool forbid_rings(unsigned entries_least, int error) {
    sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args[0])),  // little-endian: the lower half
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, entries_least, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | unsigned(error)),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    sock_fprog filter{std::size(program), program};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

/// forbidden ERRNO ENTRIES_LEAST URL: one exchange over URL; says how it went, and what the log said.
int forbidden_main(const std::vector<std::string>& arguments) {
    if (!forbid_rings(unsigned(std::stoul(arguments[1])), std::stoi(arguments[0]))) {
        std::printf("no seccomp\n");
        return 0;
    }
    static int lines = 0;
    set_log(
        [](void*, LogLevel, std::string_view line) {
            if (line.find("is absent,") == line.npos && line.find("smaller ring") == line.npos) return;
            ++lines;
            std::printf("log: %.*s\n", int(line.size()), line.data());
        },
        nullptr, LogLevel::info);
    const TransportInfo* info = info_of("uring");
    std::printf("present %d, %.*s, %.*s\n", info->present, int(info->reason.size()), info->reason.data(), int(info->remedy.size()), info->remedy.data());
    Peer server, client;
    Loop loop;
    auto listener = listen(loop, arguments[2], server);
    if (!listener) {
        std::printf("refused: %.*s\n", int(loop.last_failure().size()), loop.last_failure().data());
        return 0;
    }
    const auto made = connect(loop, dial_url(arguments[2], listener->url()), client);
    if (!made || !drive(
                     loop, [&] { return client.open() && server.open(); }, 5_s))
        return 1;
    client.get()->send("hello");
    if (!drive(
            loop, [&] { return server.received == "hello"; }, 5_s))
        return 1;
    std::printf("exchanged, lines %d\n", lines);
    return 0;
}
const RegisterHelper forbidden("forbidden-uring", &forbidden_main);

std::string with_rings_forbidden(int error, unsigned entries_least, const std::string& url) {
    Child child;
    EXPECT_TRUE(child.start_helper("forbidden-uring", {std::to_string(error), std::to_string(entries_least), url}));
    EXPECT_TRUE(await([&] { return child.has_said("exchanged") || child.has_said("refused") || child.has_said("no seccomp"); }, 10_s)) << child.said();
    return std::string(child.said());
}

/// As many descriptors as asked for, if the hard limit has them, until its end.
class Descriptors {
public:
    explicit Descriptors(rlim_t wanted) {
        getrlimit(RLIMIT_NOFILE, &before_);
        const rlimit raised{std::max(before_.rlim_cur, std::min(wanted, before_.rlim_max)), before_.rlim_max};
        setrlimit(RLIMIT_NOFILE, &raised);
    }
    Descriptors(const Descriptors&) = delete;
    ~Descriptors() { setrlimit(RLIMIT_NOFILE, &before_); }
    rlim_t most() const { return before_.rlim_max; }

private:
    rlimit before_{};
};

class UringTest : public testing::Test {
protected:
    void SetUp() override {
        if (const auto why = absence(uring_row)) GTEST_SKIP() << *why;
    }
};

#define EVPL_NEEDS_SECCOMP(said)                                                                                                                               \
    if ((said).find("no seccomp") != std::string::npos) GTEST_SKIP() << "seccomp filters cannot be set here"

// Goal: where a container forbids io_uring, whoever leaves the choice to us is served by epoll, and told once how to change that.
TEST(UringAbsentTest, FallsBackToEpollWhereItIsForbidden) {
    for (const int error : {EPERM, ENOSYS, ENOMEM}) {
        for (const char* url : {"stream://127.0.0.1:0", "tcp://127.0.0.1:0?engine=uring", "unix://@evpl-uring-absent?engine=uring"}) {
            const std::string said = with_rings_forbidden(error, 0, url);
            EVPL_NEEDS_SECCOMP(said);
            EXPECT_NE(said.find("present 0"), said.npos) << said;
            EXPECT_NE(said.find("exchanged, lines 1"), said.npos) << said;
            EXPECT_NE(said.find("Remedy: "), said.npos) << said;
        }
    }
}

TEST(UringAbsentTest, SaysWhyItIsAbsentToWhoNamesIt) {
    const std::string said = with_rings_forbidden(EPERM, 0, "uring://127.0.0.1:0");
    EVPL_NEEDS_SECCOMP(said);
    EXPECT_NE(said.find("refused: uring:// is not present here: io_uring is forbidden here"), said.npos) << said;
}

// Goal: with memory for a small ring only, there is a small ring.
TEST_F(UringTest, TakesASmallerRingWhenMemoryIsShort) {
    const std::string said = with_rings_forbidden(ENOMEM, 32, "uring://127.0.0.1:0");
    EVPL_NEEDS_SECCOMP(said);
    EXPECT_NE(said.find("present 1"), said.npos) << said;
    EXPECT_NE(said.find("smaller ring"), said.npos) << said;
    EXPECT_NE(said.find("exchanged"), said.npos) << said;
}

class UringQueryTest : public testing::TestWithParam<const char*> {
protected:
    void SetUp() override {
        if (const auto why = absence(uring_row)) GTEST_SKIP() << *why;
    }
};

// Goal: many more connections speak at once than there are receive buffers and queue entries; every byte comes back, in order.
TEST_P(UringQueryTest, ServesMoreConnectionsThanItHasBuffers) {
    constexpr std::size_t many = sanitized ? 150 : 400, bytes = 24'000;
    struct Caller {
        PatternCheck& check;
        int& closed;
        void on_open(Connection& c) { c.send(pattern(bytes)); }
        void on_recv(Connection& c) { check.take_all(c); }
        void on_close(Connection&, Error) { ++closed; }
    };
    std::deque<PatternCheck> checks(many);
    std::deque<PlainPeer> servers;
    int closed = 0;
    World world{uring_row};
    ASSERT_NE(world.listen(
                  [&](Connection&) -> PlainPeer& {
                      servers.emplace_back().when_recv = [](Connection& c) { c.send(c.recv(SIZE_MAX)); };
                      return servers.back();
                  },
                  GetParam()),
              nullptr);
    for (PatternCheck& check : checks) ASSERT_TRUE(connect<Caller>(world.loop(), world.where(), Limit{}, std::ref(check), std::ref(closed)).ok());
    EXPECT_TRUE(world.until(
        [&] {
            for (const PatternCheck& check : checks)
                if (check.bytes < bytes) return false;
            return true;
        },
        30_s));
    for (const PatternCheck& check : checks) EXPECT_TRUE(check.good && check.bytes == bytes) << check.bytes;
    EXPECT_EQ(closed, 0);
    world.end();
}
INSTANTIATE_TEST_SUITE_P(Fault, UringQueryTest, testing::Values("tier=0", "tier=1&entries=8", "tier=2", "tier=2&entries=8"),
                         [](const auto& row) { return "query" + std::to_string(row.index); });

// Goal: nested in a host's loop, before or after the ring exists, everything wakes the host.
TEST_F(UringTest, WakesTheLoopThatItIsNestedIn) {
    for (const bool nested_first : {true, false}) {
        Peer server, client;
        World world{uring_row};
        int fd = -1;
        if (nested_first) fd = *world.loop().native_fd();
        ASSERT_NE(world.listen(server), nullptr);
        client.ref = world.dial(client);
        if (!nested_first) fd = *world.loop().native_fd();
        EXPECT_EQ(*world.loop().native_fd(), fd) << "the descriptor stays the same";
        const auto host_until = [&](auto done) {
            const Stopwatch watch;
            while (!done() && watch.elapsed() < 5_s) {
                EXPECT_TRUE(wait_ready(fd, POLLIN, 5000)) << "nobody woke the host";
                world.loop().run_once(0_s);
            }
            return done();
        };
        ASSERT_TRUE(host_until([&] { return client.open() && server.open(); }));
        client.get()->send("out");
        world.loop().run_once(0_s);
        ASSERT_TRUE(host_until([&] { return server.received == "out"; }));
        server.get()->send("back");
        world.loop().run_once(0_s);
        ASSERT_TRUE(host_until([&] { return client.received == "back"; }));
        std::thread([loop = world.loop().ref()] { loop.post([] {}); }).join();
        EXPECT_TRUE(wait_ready(fd, POLLIN, 5000)) << "a post wakes the host";
    }
}

// Goal: a loop may be set up on one thread and run on another; moving it once it has run ends its connections by name.
TEST_F(UringTest, EndsItsConnectionsWhenTheLoopMovesToAnotherThread) {
    Peer server, client;
    World world{uring_row, World::quiet(), World::Check::by_caller};
    ASSERT_TRUE(world.open(server, client));
    std::thread([&] {
        for (int i = 0; i < 20 && !(server.closed() && client.closed()); ++i) world.loop().run_once(10_ms);
    }).join();
    EXPECT_EQ(client.closed_with, Errc::misuse);
    EXPECT_EQ(server.closed_with, Errc::misuse);
}

/// crowd PORT COUNT: COUNT connections at once, one message and its echo on each; holds them until it is told to end.
int crowd_main(const std::vector<std::string>& arguments) {
    const auto port = std::uint16_t(std::stoul(arguments[0]));
    const std::size_t count = std::stoul(arguments[1]);
    rlimit limit{};
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    std::vector<Fd> clients;
    while (clients.size() < count) {
        clients.push_back(plain_dial(port));
        if (!clients.back() || ::send(clients.back().get(), &count, sizeof count, 0) != sizeof count) return 1;
    }
    std::printf("connected\n");
    for (const Fd& client : clients) {
        std::size_t echo = 0;
        if (::recv(client.get(), &echo, sizeof echo, MSG_WAITALL) != sizeof echo || echo != count) return 1;
    }
    std::printf("echoed\n");
    char word = 0;
    while (::read(0, &word, 1) > 0) {}
    return 0;
}
const RegisterHelper crowd("crowd", &crowd_main);

// Goal: very many connections at once, from two processes; each is answered, and each ends.
TEST_F(UringTest, ServesACrowdFromTwoProcesses) {
    constexpr std::size_t wanted = sanitized ? 1500 : 15'000, spare = 200;
    Descriptors descriptors(wanted + spare);
    if (descriptors.most() < 1000) GTEST_SKIP() << "no more than " << descriptors.most() << " descriptors here (ulimit -Hn)";
    const std::size_t many = std::min<std::size_t>(wanted, descriptors.most() - spare);
    struct CountedEcho {
        std::size_t& open;
        void on_open(Connection&) { ++open; }
        void on_recv(Connection& c) { c.send(c.recv(SIZE_MAX)); }
        void on_close(Connection&, Error) { --open; }
    };
    std::size_t open = 0;
    {
        World world{uring_row, World::quiet(), World::Check::by_caller};
        ASSERT_NE(world.listen([&](Connection&) { return CountedEcho{open}; }), nullptr);
        const std::string port = world.where().substr(world.where().rfind(':') + 1);
        Child clients[2];
        for (Child& child : clients) ASSERT_TRUE(child.start_helper("crowd", {port, std::to_string(many / 2)}));
        EXPECT_TRUE(world.until([&] { return clients[0].has_said("echoed") && clients[1].has_said("echoed"); }, 60_s));
        EXPECT_EQ(open, many / 2 * 2);
        EXPECT_EQ(world.loop().metrics().connections_open, many / 2 * 2);
        for (Child& child : clients) child.close_input();
        EXPECT_TRUE(world.until([&] { return open == 0; }, 60_s));
    }
}

// Goal: a loop that goes with thousands of connections waits until the kernel has ended every operation, as its memory goes, too.
TEST_F(UringTest, GivesUpNoOperationWhenItsLoopGoesWithManyConnections) {
    constexpr std::size_t many = 4000, spare = 200;  // the kernel hands over about 20 ends at a time
    Descriptors descriptors(many + spare);
    if (descriptors.most() < many + spare) GTEST_SKIP() << "no more than " << descriptors.most() << " descriptors here (ulimit -Hn)";
    static std::atomic<unsigned> errors;
    errors = 0;
    set_log([](void*, LogLevel, std::string_view line) noexcept { errors += line.starts_with("uring: "); }, nullptr, LogLevel::error);
    {
        World world{uring_row, World::quiet(), World::Check::by_caller};
        std::size_t open = 0;
        struct Idle {
            std::size_t& open;
            void on_open(Connection&) { ++open; }
        };
        ASSERT_NE(world.listen([&](Connection&) { return Idle{open}; }), nullptr);
        Child clients;
        ASSERT_TRUE(clients.start_helper("crowd", {world.where().substr(world.where().rfind(':') + 1), std::to_string(many)}));
        EXPECT_TRUE(world.until([&] { return open == many; }, 60_s)) << open;
    }
    set_log(nullptr);
    EXPECT_EQ(errors, 0u);
}

// Goal: an idle connection holds no receive buffer.
TEST_F(UringTest, HoldsNoBuffersForIdleConnections) {
    constexpr std::size_t many = 200;
    std::deque<PlainPeer> servers, clients(many);
    World world{uring_row};
    ASSERT_NE(world.listen([&](Connection&) -> PlainPeer& { return servers.emplace_back(); }), nullptr);
    for (PlainPeer& client : clients) client.ref = world.dial(client);
    ASSERT_TRUE(world.until([&] { return servers.size() == many; }));
    EXPECT_LE(world.loop().metrics().slab_bytes, 4u << 20);
}

}  // namespace
}  // namespace evpl::test
