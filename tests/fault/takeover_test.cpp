// A new process takes the place of an old one: it gets the listening socket, and nobody who wants in notices.
#include <unistd.h>

#include <map>
#include <string>

#include "support/helper.hpp"
#include "support/limits.hpp"
#include "support/world.hpp"

namespace evpl::test {
namespace {

/// Tells who it is.
struct Answer {
    std::string_view word;
    void on_recv(Connection& c) {
        (void)c.recv();
        c.send(word);
    }
    void on_end(Connection& c) { c.close(); }
};

std::string with_descriptor(const std::string& url, int fd) { return with_option(url, "fd=" + std::to_string(fd)); }

/// Listens at the URL until its input ends.
int new_process_main(const std::vector<std::string>& arguments) {
    Loop loop(World::quiet());
    auto listener = evpl::listen<Answer>(loop, arguments[0], "new");
    if (!listener) {
        std::printf("failed: %.*s\n", int(loop.last_failure().size()), loop.last_failure().data());
        return 1;
    }
    std::printf("listening\n");
    fcntl(0, F_SETFL, O_NONBLOCK);
    for (char byte = 0; ::read(0, &byte, 1) < 0 && errno == EAGAIN;) loop.run_once(10_ms);
    return 0;
}
const RegisterHelper new_process("new_process", &new_process_main);

/// Connections that ask who is there, one after the other.
class Askers {
public:
    void start(World& world, int count) {
        world_ = &world;
        for (; count > 0; --count) ask();
    }
    void stop() { stopped_ = true; }
    int answered_by(const std::string& word) { return answers_[word]; }
    int failed = 0, open = 0;

private:
    struct Asker {
        Askers* all;
        std::string answer;
        void on_open(Connection& c) { c.send("who?"); }
        void on_recv(Connection& c) {
            answer += text_of(c.recv());
            if (answer.size() == 3) c.close();
        }
        void on_close(Connection&, Error) {
            --all->open;
            const bool answered = answer.size() == 3;
            if (answered) ++all->answers_[answer];
            else ++all->failed;
            if (answered && !all->stopped_) all->ask();
        }
    };
    void ask() {
        ++open;
        (void)world_->dial(Asker{this, {}});
    }

    World* world_ = nullptr;
    std::map<std::string, int> answers_;
    bool stopped_ = false;
};

class TakeoverTest : public TransportTest {};

// Goal: while requests arrive all the time, an old process hands its socket over and stops listening; each request is answered by one of
// the two, and none is refused, reset or lost.
TEST_P(TakeoverTest, FailsNoRequest) {
    Askers askers;
    World world{GetParam()};
    Child successor;
    Listener* listener = world.listen([](Connection&) { return Answer{"old"}; });
    ASSERT_NE(listener, nullptr);
    askers.start(world, 8);
    ASSERT_TRUE(world.until([&] { return askers.answered_by("old") >= 20; }));

    const int fd = listener->hand_over();
    if (fd < 0) {
        askers.stop();
        ASSERT_TRUE(world.until([&] { return askers.open == 0; }));
        GTEST_SKIP() << GetParam().name << " has no socket to hand over";
    }
    EXPECT_EQ(listener->hand_over(), fd);
    Fd inherited(fcntl(fd, F_DUPFD, 3));
    ASSERT_TRUE(successor.start_helper("new_process", {with_descriptor(world.where(), inherited.get())}));
    inherited.reset();
    ASSERT_TRUE(world.until([&] { return successor.has_said("\n"); }));
    ASSERT_EQ(successor.said(), "listening\n");
    ASSERT_TRUE(world.until([&] { return askers.answered_by("new") >= 5; })) << "both serve now";
    world.stop_listening();
    ASSERT_TRUE(world.until([&] { return askers.answered_by("new") >= 200; }));
    askers.stop();
    ASSERT_TRUE(world.until([&] { return askers.open == 0; }));
    EXPECT_EQ(askers.failed, 0);
}

// Goal: the file of a Unix socket stays with the process that listens now, and goes with it.
TEST_P(TakeoverTest, LeavesTheSocketFileToTheSuccessor) {
    const std::string_view row_url = GetParam().url;
    if (!row_url.starts_with("unix://%") && !row_url.starts_with("uring-unix://%")) GTEST_SKIP() << GetParam().name << " has no file";
    World world{GetParam()};
    Child successor;
    Listener* listener = world.listen([](Connection&) { return Answer{"old"}; });
    ASSERT_NE(listener, nullptr);
    const std::string url(listener->url()), file = url.substr(url.find("://") + 3);
    Fd inherited(fcntl(listener->hand_over(), F_DUPFD, 3));
    ASSERT_TRUE(successor.start_helper("new_process", {with_descriptor(world.where(), inherited.get())}));
    inherited.reset();
    ASSERT_TRUE(world.until([&] { return successor.has_said("listening"); })) << successor.said();
    world.stop_listening();
    EXPECT_EQ(::access(file.c_str(), F_OK), 0);
    successor.close_input();
    ASSERT_TRUE(world.until([&] { return successor.ended().has_value(); }));
    EXPECT_NE(::access(file.c_str(), F_OK), 0);
}

// Goal: a descriptor that is not the socket the URL means is refused with a sentence, and stays the caller's.
TEST(InheritedSocketTest, RefusesAnotherSocket) {
    const Fd listening = plain_socket(SOCK_STREAM, 5), other = plain_socket(SOCK_STREAM, 5), deaf = plain_socket(SOCK_STREAM);
    const std::string url = "tcp://127.0.0.1:" + std::to_string(port_of(listening.get()));
    Loop loop(World::quiet());
    const auto refused = [&](const std::string& at, int fd, std::string_view sentence) {
        const auto listener = evpl::listen<Answer>(loop, with_descriptor(at, fd), "old");
        ASSERT_FALSE(listener.ok()) << at;
        EXPECT_EQ(listener.error(), Errc::bad_option);
        EXPECT_NE(loop.last_failure().find(sentence), std::string_view::npos) << loop.last_failure();
        EXPECT_NE(loop.last_failure().find("fd=" + std::to_string(fd)), std::string_view::npos) << loop.last_failure();
    };
    refused(url, 987'654, "is not a listening socket: Bad file descriptor");
    refused(url, deaf.get(), "is not a listening socket");
    refused(url, 0, "is not a listening socket");
    refused(url, other.get(), "listens elsewhere");
    refused("tcp://127.0.0.2:0", listening.get(), "listens elsewhere");
    refused("unix:///tmp/evpl-takeover", listening.get(), "listens elsewhere");
    for (const Fd* fd : {&listening, &other, &deaf}) EXPECT_GE(fcntl(fd->get(), F_GETFD), 0);
    EXPECT_EQ(fcntl(listening.get(), F_GETFL) & O_NONBLOCK, 0) << "nothing was changed";
}

// Goal: whatever goes wrong after the socket was found to be the right one has a name, and leaves it with the caller, listening.
TEST(InheritedSocketTest, StaysTheCallersAfterAnError) {
    const Fd listening = plain_socket(SOCK_STREAM, 5);
    const std::string url = with_descriptor("tcp://127.0.0.1:0", listening.get());
    Loop loop(World::quiet());
    EXPECT_EQ(evpl::listen<Answer>(loop, url + "&congestion=nosuch", "new").error(), Errc::bad_option);
    {
        const FileLimit none{limit_with_room(0)};
        EXPECT_EQ(evpl::listen<Answer>(loop, url, "new").error(), Errc::too_many_files);
    }
    EXPECT_TRUE(plain_dial(port_of(listening.get())));
    const auto listener = evpl::listen<Answer>(loop, with_descriptor("tcp://127.0.0.1:0", fcntl(listening.get(), F_DUPFD_CLOEXEC, 0)), "new");
    EXPECT_TRUE(listener.ok()) << loop.last_failure();
}

// Goal: what was taken over belongs to the library: it is closed with the listener, and not twice.
TEST(InheritedSocketTest, OwnsWhatItTookOver) {
    const Baseline baseline;
    Fd socket = plain_socket(SOCK_STREAM, 5);
    const std::uint16_t port = port_of(socket.get());
    const int given = fcntl(socket.get(), F_DUPFD_CLOEXEC, 0);
    socket.reset();
    {
        Loop loop(World::quiet());
        auto listener = evpl::listen<Answer>(loop, with_descriptor("tcp://*:0", given), "new");
        ASSERT_TRUE(listener.ok()) << loop.last_failure();
        EXPECT_LT(fcntl(given, F_GETFD), 0) << "its number is free again";
        EXPECT_EQ(listener->port(), port);
        EXPECT_TRUE(plain_dial(port));
        listener->close();
        EXPECT_EQ(listener->hand_over(), -1);
        EXPECT_FALSE(plain_dial(port));
    }
    baseline.expect_back();
}

INSTANTIATE_TEST_SUITE_P(Fault, TakeoverTest, connection_rows(), name_of_row);

}  // namespace
}  // namespace evpl::test
