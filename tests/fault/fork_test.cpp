// fork and exec with live loops: a child may exit or become another program; the parent does not notice.
#include <fcntl.h>
#include <sys/wait.h>

#include <set>

#include "support/helper.hpp"
#include "support/leave.hpp"
#include "support/world.hpp"

namespace evpl::test {
namespace {

std::set<int> descriptors_now() {
    std::set<int> all;
    DIR* listing = opendir("/proc/self/fd");
    while (const dirent* entry = readdir(listing))
        if (entry->d_name[0] != '.' && std::atoi(entry->d_name) != dirfd(listing)) all.insert(std::atoi(entry->d_name));
    closedir(listing);
    return all;
}

int count_descriptors_main(const std::vector<std::string>&) {
    std::printf("open %d\n", open_descriptors());
    return 0;
}
const RegisterHelper count_descriptors("count-descriptors", &count_descriptors_main);

class ForkTest : public TransportTest {
protected:
    void expect_alive(World& world, Peer& server, Peer& client) {
        server.received.clear();
        client.get()->send("still here");
        EXPECT_TRUE(world.until([&] { return server.received == "still here"; }));
        EXPECT_EQ(server.closes + client.closes, 0);
    }
    static int wait_for(pid_t child) {
        int status = 0;
        while (waitpid(child, &status, 0) < 0 && errno == EINTR) {}
        return status;
    }
};

// Goal: every descriptor the library opens closes itself on exec.
TEST_P(ForkTest, MarksEveryDescriptorCloseOnExec) {
    const std::set<int> before = descriptors_now();
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    EXPECT_TRUE(world.loop().native_fd().ok());
    auto timer = world.loop().after(1_s, [] {});
    for (const int fd : descriptors_now())
        if (before.count(fd) == 0) {
            EXPECT_NE(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0) << "descriptor " << fd;
        }
}

// Goal: a child that exits at once leaves the parent's connections alone.
TEST_P(ForkTest, LetsAChildExit) {
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    client.get()->send("before ");
    const pid_t child = fork();
    if (child == 0) _exit(7);
    ASSERT_GT(child, 0);
    EXPECT_EQ(WEXITSTATUS(wait_for(child)), 7);
    ASSERT_TRUE(world.until([&] { return server.received == "before "; }));
    expect_alive(world, server, client);
}

// Goal: a child that becomes another program holds none of our descriptors, also while it lives.
TEST_P(ForkTest, LetsAChildExec) {
    int inheritable = 0;
    for (const int fd : descriptors_now()) inheritable += (fcntl(fd, F_GETFD) & FD_CLOEXEC) == 0;
    Peer server, client;
    World world{GetParam()};
    Child child;
    ASSERT_TRUE(world.open(server, client));
    ASSERT_TRUE(child.start_helper("count-descriptors", {}));
    ASSERT_TRUE(world.until([&] { return child.has_said("\n"); }));
    EXPECT_TRUE(child.has_said("open " + std::to_string(inheritable) + "\n")) << child.said() << "not " << inheritable;
    expect_alive(world, server, client);
    client.get()->close();
    EXPECT_TRUE(world.until([&] { return server.ends == 1 || server.closed(); }));
}

// Goal: a child that uses the loop nevertheless gets a named error, takes nothing of the parent's, and may have a loop of its own.
TEST_P(ForkTest, TellsAChildThatUsesTheLoop) {
    Peer server, client, another;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    drive_for(world.loop(), 5_ms);  // it has slept: what it sleeps in is open
    client.get()->send("before ");
    const pid_t child = fork();
    if (child == 0) {
        const bool turned = world.loop().run_once(10_ms);
        const int code = world.loop().run();
        const bool named = world.loop().last_failure().find("forked child") != std::string_view::npos;
        const auto dialled = connect(world.loop(), world.where(), another);
        Loop own(World::quiet());
        bool fired = false;
        auto timer = own.after(1_ms, [&] { fired = true; });
        const bool lives = drive(own, [&] { return fired; });
        leave(!turned && code == 1 && named && !dialled && dialled.error() == Errc::misuse && lives ? 7 : 1);
    }
    ASSERT_GT(child, 0);
    EXPECT_EQ(WEXITSTATUS(wait_for(child)), 7);
    ASSERT_TRUE(world.until([&] { return server.received == "before "; }));
    expect_alive(world, server, client);
}

INSTANTIATE_TEST_SUITE_P(Fault, ForkTest, connection_rows(), name_of_row);

}  // namespace
}  // namespace evpl::test
