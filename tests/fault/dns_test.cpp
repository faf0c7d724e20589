// Names: a server that answers well, badly, late or never. The loop turns all the while.
#include <atomic>
#include <thread>

#include "support/sockets.hpp"
#include "support/world.hpp"

namespace evpl::test {
namespace {

enum class Answers { well, two_addresses, many_addresses, no_such_name, failure, garbage, truncated, never };

/// A name server of our own on its own thread.
class NameServer {
public:
    explicit NameServer(Answers how) : how_(how), socket_(plain_socket(SOCK_DGRAM)), address_("127.0.0.1:" + std::to_string(port_of(socket_.get()))) {
        thread_ = std::thread([this] { serve(); });
    }
    ~NameServer() {
        over_ = true;
        thread_.join();
    }
    LoopOptions options() const {
        LoopOptions made = World::quiet();
        made.dns_servers = address_.c_str();
        return made;
    }
    int questions() const { return questions_; }

private:
    void serve() {
        while (!over_) {
            if (!wait_ready(socket_.get(), POLLIN, 10)) continue;
            unsigned char question[512];
            sockaddr_in from{};
            socklen_t size = sizeof from;
            const ssize_t n = recvfrom(socket_.get(), question, sizeof question, 0, reinterpret_cast<sockaddr*>(&from), &size);
            if (n < 12) continue;
            ++questions_;
            const std::string answer = answer_to(std::string(reinterpret_cast<char*>(question), std::size_t(n)));
            if (!answer.empty()) sendto(socket_.get(), answer.data(), answer.size(), 0, reinterpret_cast<sockaddr*>(&from), size);
        }
    }

    std::string answer_to(const std::string& question) const {
        std::size_t end = 12;  // the name, its type and its class
        while (end < question.size() && question[end] != 0) end += std::size_t(static_cast<unsigned char>(question[end])) + 1;
        end += 5;
        if (end > question.size() || how_ == Answers::never) return {};
        const bool ipv4 = question[end - 3] == 1;
        if (how_ == Answers::garbage) return question.substr(0, 2) + pattern(120, 99);
        unsigned char code = 0;
        std::vector<std::string> addresses;
        if (how_ == Answers::no_such_name) code = 3;
        if (how_ == Answers::failure) code = 2;
        if (ipv4 && (how_ == Answers::well || how_ == Answers::truncated)) addresses = {std::string("\x7f\0\0\1", 4)};
        if (ipv4 && how_ == Answers::two_addresses) addresses = {std::string("\x7f\0\0\x09", 4), std::string("\x7f\0\0\1", 4)};
        if (ipv4 && how_ == Answers::many_addresses) addresses.assign(80, std::string("\x7f\0\0\1", 4));
        std::string answer = question.substr(0, 2);
        answer += '\x81';
        answer += char(0x80 | code);
        answer += std::string("\0\1\0", 3) + char(addresses.size()) + std::string(4, '\0') + question.substr(12, end - 12);
        for (const std::string& address : addresses) answer += std::string("\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4", 12) + address;
        if (how_ == Answers::truncated) answer.resize(answer.size() - 3);
        return answer;
    }

    Answers how_;
    Fd socket_;
    std::string address_;
    std::atomic<bool> over_ = false;
    std::atomic<int> questions_ = 0;
    std::thread thread_;
};

/// Ticks every 2 ms and notes the longest gap.
struct Pulse {
    Stopwatch last;
    Duration longest;
    Timer timer;
    explicit Pulse(Loop& loop) {
        timer = *loop.every(2_ms, [this] {
            longest = std::max(longest, last.elapsed());
            last.restart();
        });
    }
};

constexpr Row tcp{"tcp", "tcp", "tcp://127.0.0.1:0", Kind::stream};

class NameTest : public testing::Test {
protected:
    void SetUp() override {
#ifndef EVPL_WITH_CARES
        GTEST_SKIP() << "built without c-ares: names are the system's";
#endif
    }
    static std::string at_name(const Listener& listener) { return "tcp://server.example:" + std::to_string(listener.port()); }

    /// Connects by a name that this server answers so; gives how it ended.
    Error outcome(Answers how, Duration limit) {
        NameServer names(how);
        PlainPeer client;
        World world{tcp, names.options()};
        Pulse pulse(world.loop());
        EXPECT_TRUE(connect(world.loop(), "tcp://server.example:9", client, within(limit)).ok()) << world.loop().last_failure();
        EXPECT_EQ(client.closes, 0) << "news comes by callback";
        const Stopwatch watch;
        EXPECT_TRUE(world.until([&] { return client.closed(); }));
        EXPECT_LT(watch.elapsed(), limit + 1_s * patience);
        EXPECT_LT(pulse.longest, 150_ms * patience) << "the loop was blocked";
        EXPECT_EQ(client.opens, 0);
        EXPECT_GT(names.questions(), 0);
        pulse.timer.cancel();
        return client.closed_with;
    }
};

// Goal: a name is resolved and connected to.
TEST_F(NameTest, ConnectsByName) {
    for (const Answers how : {Answers::well, Answers::two_addresses, Answers::many_addresses}) {
        SCOPED_TRACE(int(how));
        NameServer names(how);
        PlainPeer server, client;
        World world{tcp, names.options()};
        Listener* listener = world.listen(server);
        ASSERT_NE(listener, nullptr);
        ASSERT_TRUE(connect(world.loop(), at_name(*listener), client, within(10_s)).ok()) << world.loop().last_failure();
        EXPECT_TRUE(world.until([&] { return client.closed() || (client.open() && server.open()); }));
        EXPECT_TRUE(client.open()) << client.closed_with;
    }
}

// Goal: a name that does not exist is told as such.
TEST_F(NameTest, TellsANameThatDoesNotExist) {
    const Error error = outcome(Answers::no_such_name, 10_s);
    EXPECT_EQ(error, Errc::name_not_found);
    EXPECT_EQ(error.step(), Step::resolve);
}

// Goal: a server that fails is told apart from a name that does not exist.
TEST_F(NameTest, TellsAServerThatFails) {
    const Error error = outcome(Answers::failure, 20_s);
    EXPECT_EQ(error, Errc::name_failed);
    EXPECT_EQ(error.step(), Step::resolve);
}

// Goal: garbage is an error, never a crash, and keeps to the limit.
TEST_F(NameTest, SurvivesGarbage) {
    for (const Answers how : {Answers::garbage, Answers::truncated}) {
        const Error error = outcome(how, 1500_ms);
        EXPECT_TRUE(error == Errc::name_failed || error == Errc::timed_out) << error;
        EXPECT_EQ(error.step(), Step::resolve);
    }
}

// Goal: a server that never answers costs the limit of the connect and no more; the loop turns.
TEST_F(NameTest, KeepsToTheLimitWhenNobodyAnswers) {
    const Stopwatch watch;
    const Error error = outcome(Answers::never, 300_ms);
    EXPECT_EQ(error, Errc::timed_out);
    EXPECT_EQ(error.step(), Step::resolve);
    EXPECT_GE(watch.elapsed(), 300_ms);
}

// Goal: a connect that still waits for its name can be cancelled.
TEST_F(NameTest, CancelsWhileResolving) {
    NameServer names(Answers::never);
    PlainPeer client;
    World world{tcp, names.options()};
    const auto ref = connect(world.loop(), "tcp://server.example:9", client);
    ASSERT_TRUE(ref.ok());
    ASSERT_TRUE(world.until([&] { return names.questions() > 0; }));
    ref->get()->close();
    EXPECT_TRUE(world.until([&] { return client.closed(); }, 1_s));
    EXPECT_EQ(client.closed_with, Errc::cancelled);
}

// Goal: a loop may be destroyed with names under way.
TEST_F(NameTest, EndsTheLoopWhileResolving) {
    NameServer names(Answers::never);
    std::deque<PlainPeer> clients(50);
    {
        World world{tcp, names.options()};
        for (std::size_t i = 0; i < clients.size(); ++i) ASSERT_TRUE(connect(world.loop(), "tcp://host" + std::to_string(i) + ".example:9", clients[i]).ok());
        ASSERT_TRUE(world.until([&] { return names.questions() >= 10; }));
    }
    for (const PlainPeer& client : clients) EXPECT_EQ(client.closes, 1);
}

// Goal: literal addresses and localhost need no name server.
TEST_F(NameTest, NeedsNoServerForAddresses) {
    NameServer names(Answers::never);
    PlainPeer server, client, by_name, other_server;
    World world{tcp, names.options()};
    Listener* listener = world.listen(server);
    ASSERT_NE(listener, nullptr);
    const Stopwatch watch;
    world.dial(client);
    EXPECT_TRUE(world.until([&] { return client.open(); }));
    listener = world.listen(other_server);
    ASSERT_TRUE(connect(world.loop(), "tcp://localhost:" + std::to_string(listener->port()), by_name).ok());
    EXPECT_TRUE(world.until([&] { return by_name.open(); })) << by_name.closed_with;
    EXPECT_LT(watch.elapsed(), 1_s * patience);
    EXPECT_EQ(names.questions(), 0);
}

// Goal: a thousand names at once with a dead server end each with its own error, in bounded memory.
TEST_F(NameTest, EndsAThousandLookupsOfADeadServer) {
    NameServer names(Answers::never);
    int closes = 0, timed_out = 0;
    struct Lookup {
        int& closes;
        int& timed_out;
        void on_close(Connection&, Error why) { ++closes, timed_out += why == Errc::timed_out; }
    };
    World world{tcp, names.options()};
    for (int i = 0; i < 1000; ++i)
        ASSERT_TRUE(connect<Lookup>(world.loop(), "tcp://host" + std::to_string(i) + ".example:9", within(500_ms), std::ref(closes), std::ref(timed_out)).ok());
    EXPECT_TRUE(world.until([&] { return closes == 1000; })) << closes;
    EXPECT_EQ(timed_out, 1000);
}

// Goal: a connected datagram socket resolves in the same way.
TEST_F(NameTest, ResolvesForDatagramsToo) {
    struct Client {
        int& opens;
        Error& ended;
        void on_open(Datagram&) { ++opens; }
        void on_close(Datagram&, Error why) { ended = why; }
    };
    for (const Answers how : {Answers::well, Answers::never}) {
        NameServer names(how);
        int opens = 0;
        Error ended;
        World world{tcp, names.options()};
        auto made = connect_datagram(
            world.loop(), "udp://server.example:9",
            [&](Datagram&) {
                return Client{opens, ended};
            },
            within(300_ms));
        ASSERT_TRUE(made.ok()) << world.loop().last_failure();
        EXPECT_TRUE(world.until([&] { return opens == 1 || !ended.ok(); }));
        EXPECT_EQ(opens, how == Answers::well ? 1 : 0);
        if (how == Answers::never) {
            EXPECT_EQ(ended, Errc::timed_out);
        }
    }
}

}  // namespace
}  // namespace evpl::test
