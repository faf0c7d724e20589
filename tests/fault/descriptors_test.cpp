// Out of descriptors: what is open is served, what wants in waits, and everything goes on by itself.
#include <atomic>

#include "support/helper.hpp"
#include "support/holder.hpp"
#include "support/limits.hpp"
#include "support/world.hpp"

namespace evpl::test {
namespace {

const RegisterHelper hold("hold", &hold_main);

class DescriptorsTest : public TransportTest {
protected:
    void SetUp() override {
        TransportTest::SetUp();
        const std::string_view url = GetParam().url;
        const bool reachable = url.find("127.0.0.1") != url.npos || url.find('%') != url.npos;
        if (!reachable || GetParam().kind == Kind::message) GTEST_SKIP() << "plain sockets do not reach " << GetParam().name;
        set_log([](void*, LogLevel level, std::string_view) { warnings_ += level >= LogLevel::warning; }, nullptr, LogLevel::warning);
        warnings_ = 0;
    }
    void TearDown() override { set_log(nullptr); }

    static std::string place_of(const Listener& listener) {
        const std::string url(listener.url());
        return listener.port() != 0 ? "tcp:" + std::to_string(listener.port()) : "unix:" + url.substr(url.find("://") + 3);
    }
    static inline std::atomic<int> warnings_ = 0;
};

// Goal: with EMFILE on accept the open connections are served, nothing spins, and accepting resumes when descriptors
// are back.
TEST_P(DescriptorsTest, PausesAcceptingAndResumesByItself) {
    constexpr std::size_t room = 6, wanted = 20;
    Crowd crowd;
    Peer server, client;
    World world{GetParam()};
    Child peers;
    ASSERT_TRUE(world.open(server, client));
    Listener* listener = world.listen(crowd);
    ASSERT_NE(listener, nullptr);
    ASSERT_TRUE(peers.start_helper("hold", {place_of(*listener), std::to_string(wanted), "1"}));
    FileLimit limit{limit_with_room(room)};
    ASSERT_TRUE(world.until([&] { return crowd.members.size() >= room - 1 && world.loop().metrics().accept_pauses >= 1; }));
    EXPECT_LT(crowd.members.size(), wanted);

    client.get()->send("served");
    EXPECT_TRUE(world.until([&] { return server.received == "served"; })) << "open connections are served";
    const double quiet_before = cpu_seconds();
    const std::uint64_t turns_before = world.loop().metrics().turns;
    const Stopwatch watch;
    while (watch.elapsed() < 1_s) world.loop().run_once(100_ms);
    EXPECT_LT(cpu_seconds() - quiet_before, 0.05 * patience) << "accepting spins";
    EXPECT_LT(world.loop().metrics().turns - turns_before, 200u);
    EXPECT_GE(warnings_, 1);
    EXPECT_LE(warnings_, 3) << "the log says so once, not once per try";
    EXPECT_GE(listener->metrics().accept_pauses, 1u);

    limit.lift();
    EXPECT_TRUE(world.until([&] { return crowd.members.size() == wanted; }, 5_s)) << crowd.members.size();
    EXPECT_TRUE(world.until([&] { return peers.has_said("connected 20"); }));
    EXPECT_EQ(crowd.closes, 0);
}

// Goal: each listener that waits is in the log, also when another one has had its line just before.
TEST_P(DescriptorsTest, TellsOfEachListenerThatWaits) {
    constexpr std::size_t wanted = 4;
    Crowd first_crowd, second_crowd;
    World world{GetParam()};
    Child first_peers, second_peers;
    Listener* first = world.listen(first_crowd);
    Listener* second = world.listen(second_crowd);
    ASSERT_TRUE(first != nullptr && second != nullptr);
    world.loop().run_once();
    ASSERT_TRUE(first_peers.start_helper("hold", {place_of(*first), std::to_string(wanted), "1"}));
    ASSERT_TRUE(second_peers.start_helper("hold", {place_of(*second), std::to_string(wanted), "1"}));
    FileLimit limit{limit_with_room(wanted / 2)};
    EXPECT_TRUE(world.until([&] { return first->metrics().accept_pauses >= 1 && second->metrics().accept_pauses >= 1; }));
    EXPECT_GE(warnings_, 2);

    limit.lift();
    EXPECT_TRUE(world.until([&] { return first_crowd.members.size() == wanted && second_crowd.members.size() == wanted; }, 5_s));
}

// Goal: descriptors that closing connections give back are used again without any help.
TEST_P(DescriptorsTest, UsesDescriptorsThatComeBack) {
    constexpr std::size_t room = 5, wanted = 12;
    Crowd crowd;
    World world{GetParam()};
    Child peers;
    Listener* listener = world.listen(crowd);
    ASSERT_NE(listener, nullptr);
    world.loop().run_once();
    ASSERT_TRUE(peers.start_helper("hold", {place_of(*listener), std::to_string(wanted), "1"}));
    FileLimit limit{limit_with_room(room)};
    ASSERT_TRUE(world.until([&] { return world.loop().metrics().accept_pauses >= 1; }));
    std::size_t closed = 0;
    EXPECT_TRUE(world.until(
        [&] {
            if (crowd.members.size() > closed) {
                if (Connection* c = crowd.members[closed++].get()) c->close();
            }
            return crowd.members.size() == wanted;
        },
        20_s))
        << crowd.members.size();
}

// Goal: a connect without a descriptor is a named error, and the next one works.
TEST_P(DescriptorsTest, NamesTheErrorOfAConnect) {
    PlainPeer server, failed, client;
    World world{GetParam()};
    ASSERT_NE(world.listen(server), nullptr);
    world.loop().run_once();
    {
        FileLimit limit{limit_with_room(0)};
        const auto made = connect(world.loop(), world.where(), failed);
        Error told = made.error();
        if (made) {
            ASSERT_TRUE(world.until([&] { return failed.closed(); }));
            told = failed.closed_with;
        }
        EXPECT_EQ(told, Errc::too_many_files);
    }
    client.ref = world.dial(client);
    EXPECT_TRUE(world.until([&] { return client.open() && server.open(); }));
}

// Goal: a loop that can open nothing at all says so and does not fall over.
TEST_P(DescriptorsTest, SaysThatALoopCannotRun) {
    PlainPeer server;
    World world{GetParam()};
    {
        FileLimit limit{limit_with_room(0)};
        EXPECT_EQ(listen(world.loop(), fresh_url(GetParam()), server).error(), Errc::too_many_files);
        EXPECT_FALSE(world.loop().last_failure().empty());
        world.loop().run_once();
        EXPECT_FALSE(world.loop().native_fd().ok());
    }
    EXPECT_NE(world.listen(server), nullptr) << "and works once it can";
}

INSTANTIATE_TEST_SUITE_P(Fault, DescriptorsTest, connection_rows(), name_of_row);

}  // namespace
}  // namespace evpl::test
