// A callback that blocks its loop.
#include <atomic>

#include "support/world.hpp"

namespace evpl::test {
namespace {

class StallTest : public testing::Test {
protected:
    void SetUp() override {
        set_log([](void*, LogLevel, std::string_view line) { told_ += line.find("works too long") != line.npos; }, nullptr, LogLevel::warning);
        told_ = 0;
    }
    void TearDown() override { set_log(nullptr); }

    static void block(Duration span) {
        for (const Stopwatch watch; watch.elapsed() < span;) {}
    }
    static inline std::atomic<int> told_ = 0;
};

// Goal: a turn that takes longer than it may is counted and told, once; a turn that does not is neither.
TEST_F(StallTest, CountsAndTellsATurnThatTakesTooLong) {
    LoopOptions options = World::quiet();
    options.stall = 100_ms;
    Loop loop(options);
    bool ran = false;
    loop.defer([&] { ran = true; });
    EXPECT_TRUE(drive(loop, [&] { return ran; }));
    const std::uint64_t before = loop.metrics().stalls;
    const int told_before = told_;
    loop.defer([] { block(110_ms); });
    loop.run_once(1_ms);
    EXPECT_EQ(loop.metrics().stalls, before + 1);
    EXPECT_EQ(told_, told_before + 1);
}

// Goal: while one thread's callback blocks, another thread's connections are served.
TEST_F(StallTest, LeavesOtherThreadsAlone) {
    std::atomic<bool> blocks = true, blocked = false;
    auto thread = Thread::start({.loop = World::quiet()});
    ASSERT_TRUE(thread.ok());
    ASSERT_TRUE(thread->post([&] {
        for (blocked = true; blocks;) {}
    }));
    ASSERT_TRUE(await([&] { return blocked.load(); }));
    {
        Peer server, client;
        World world{rows[0], World::quiet(), World::Check::by_caller};
        server.when_recv = [](Connection& c) { c.send(c.recv()); };
        EXPECT_TRUE(world.open(server, client));
        if (client.open()) client.get()->send("hello");
        EXPECT_TRUE(world.until([&] { return client.received == "hello"; }));
    }
    blocks = false;
    thread->stop();
    thread->join();
}

}  // namespace
}  // namespace evpl::test
