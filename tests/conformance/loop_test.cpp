// The loop itself: posts, deferrals, timers, watches, its own descriptor. No transport takes part: names end in /loop.
#include <poll.h>
#include <sys/eventfd.h>

#include <atomic>
#include <memory>
#include <thread>

#include "support/sockets.hpp"
#include "support/world.hpp"

namespace evpl::test {
namespace {

/// By the way it waits.
class LoopTest : public testing::TestWithParam<Mode> {
protected:
    LoopOptions options() const {
        LoopOptions made;
        made.mode = GetParam();
        made.stall = 10_s;
        return made;
    }
};

// Goal: posts of several threads all run, each thread's in its order.
TEST_P(LoopTest, RunsPostsInOrderPerThread) {
    constexpr int threads = 4, each = 2000;
    std::vector<std::vector<int>> order(threads);
    Loop loop(options());
    const LoopRef ref = loop.ref();
    std::vector<std::thread> posters;
    for (int t = 0; t < threads; ++t)
        posters.emplace_back([&, t] {
            for (int i = 0; i < each; ++i) EXPECT_TRUE(ref.post([&order, t, i] { order[std::size_t(t)].push_back(i); }));
        });
    EXPECT_TRUE(drive(loop, [&] {
        std::size_t all = 0;
        for (const auto& one : order) all += one.size();
        return all == threads * each;
    }));
    for (std::thread& poster : posters) poster.join();
    for (const auto& one : order) EXPECT_TRUE(std::is_sorted(one.begin(), one.end()));
    EXPECT_GE(loop.metrics().posts_run, std::uint64_t(threads * each));
}

// Goal: a post wakes a loop that sleeps without a timer.
TEST_P(LoopTest, WakesASleepingLoop) {
    std::atomic<bool> ran = false;
    Loop loop(options());
    const LoopRef ref = loop.ref();
    std::thread poster([&] {
        for (int i = 0; i < 50; ++i) {
            ran = false;
            ref.post([&] { ran = true; });
            EXPECT_TRUE(await([&] { return ran.load(); }, 5_s));
        }
        ref.stop();
    });
    EXPECT_EQ(loop.run(), 0);
    poster.join();
}

// Goal: a post to a loop that has ended is answered false, and its task is destroyed here and now.
TEST_P(LoopTest, AnswersFalseOnceTheLoopHasEnded) {
    auto token = std::make_shared<int>(1);
    LoopRef ref;
    {
        Loop loop(options());
        ref = loop.ref();
        EXPECT_TRUE(ref.post([token] {}));
        loop.run_once();
    }
    EXPECT_FALSE(ref.post([token] { ADD_FAILURE() << "ran on an ended loop"; }));
    EXPECT_EQ(token.use_count(), 1);
    ref.stop();
    EXPECT_FALSE(LoopRef().post([] {}));
    Loop next(options());
    EXPECT_FALSE(ref.post([] { ADD_FAILURE() << "ran on another loop"; })) << "the name is not used again";
    EXPECT_FALSE(ref == next.ref());
    next.run_once();
}

// Goal: what was posted and never run is destroyed with the loop; posting while the loop ends is answered one way or
// the other.
TEST_P(LoopTest, LosesNoTaskWhenItEnds) {
    std::atomic<int> alive = 0;
    struct Token {
        std::atomic<int>* count;
        explicit Token(std::atomic<int>* c) noexcept : count(c) { ++*count; }
        Token(Token&& other) noexcept : count(std::exchange(other.count, nullptr)) {}
        ~Token() {
            if (count != nullptr) --*count;
        }
    };
    for (int round = 0; round < 20; ++round) {
        auto loop = std::make_unique<Loop>(options());
        const LoopRef ref = loop->ref();
        std::thread poster([&] {
            while (ref.post([token = Token(&alive)] {})) {}
        });
        for (int i = 0; i < 20; ++i) loop->run_once();
        loop.reset();
        poster.join();
        EXPECT_EQ(alive, 0);
    }
}

// Goal: timers run once, never early, and in the order of their times.
TEST_P(LoopTest, RunsTimersInOrderAndNeverEarly) {
    std::vector<int> order;
    Loop loop(options());
    const Stopwatch watch;
    std::vector<Timer> timers;
    for (const int ms : {30, 10, 50, 20, 40, 0}) {
        auto timer = loop.after(Duration::of_ns(ms * 1'000'000ll), [&order, &watch, ms] {
            EXPECT_GE(watch.elapsed(), Duration::of_ns(ms * 1'000'000ll));
            order.push_back(ms);
        });
        ASSERT_TRUE(timer.ok());
        timers.push_back(*std::move(timer));
    }
    EXPECT_TRUE(drive(loop, [&] { return order.size() == 6; }));
    EXPECT_EQ(order, (std::vector<int>{0, 10, 20, 30, 40, 50}));
    for (const Timer& timer : timers) EXPECT_FALSE(timer.pending());
}

// Goal: a dropped or cancelled timer does not run, also when it is cancelled by another of the same time or by itself.
TEST_P(LoopTest, CancelsTimers) {
    int ran = 0, times = 0;
    Loop loop(options());
    Timer other, self;
    {
        auto dropped = loop.after(1_ms, [&] { ran += 100; });
    }
    auto killer = loop.after(5_ms, [&] { other.cancel(); });
    other = *loop.after(5_ms, [&] { ran += 100; });
    self = *loop.every(2_ms, [&] {
        if (++times == 3) self.cancel();
    });
    loop.after(1_ms, [&] { ran += 10; })->release();
    EXPECT_TRUE(drive(loop, [&] { return ran == 10 && times == 3; }));  // however long the machine did something else
    drive_for(loop, 20_ms);
    EXPECT_EQ(ran, 10);
    EXPECT_EQ(times, 3);
}

// Goal: a late periodic timer runs once, not once per missed period.
TEST_P(LoopTest, DoesNotMakeUpForMissedPeriods) {
    int ran = 0;
    Loop loop(options());
    auto timer = loop.every(10_ms, [&] { ++ran; });
    const Stopwatch watch;
    while (watch.elapsed() < 105_ms) {  // nobody turns the loop meanwhile
    }
    loop.run_once();
    EXPECT_EQ(ran, 1);
    EXPECT_TRUE(drive(loop, [&] { return ran == 2; }));
    timer->cancel();
}

// Goal: deferred work runs in order; what it defers itself runs too, without starving the loop.
TEST_P(LoopTest, RunsDeferredWorkInOrder) {
    std::vector<int> order;
    bool timer_ran = false;
    Loop loop(options());
    std::function<void()> again = [&] {
        if (timer_ran) return;
        EXPECT_TRUE(loop.defer([&] { again(); }));
    };
    auto timer = loop.after(5_ms, [&] { timer_ran = true; });
    loop.defer([&] { order.push_back(1); });
    loop.defer([&] { order.push_back(2); });
    loop.defer([&] { again(); });
    EXPECT_TRUE(drive(loop, [&] { return timer_ran && order.size() == 2; }));
    EXPECT_EQ(order, (std::vector<int>{1, 2}));
}

// Goal: a foreign descriptor is watched while the Watch lives, and no longer.
TEST_P(LoopTest, WatchesForeignDescriptors) {
    const Fd event(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    struct Seen {
        int fd;
        int calls = 0;
    } seen{event.get()};
    Loop loop(options());
    auto watch = loop.watch(
        event.get(), Ready::read,
        [](void* context, Ready what) {
            auto& here = *static_cast<Seen*>(context);
            ++here.calls;
            EXPECT_TRUE(has(what, Ready::read));
            eventfd_t value = 0;
            eventfd_read(here.fd, &value);
        },
        &seen);
    ASSERT_TRUE(watch.ok());
    drive_for(loop, 10_ms);
    EXPECT_EQ(seen.calls, 0);
    eventfd_write(event.get(), 1);
    EXPECT_TRUE(drive(loop, [&] { return seen.calls == 1; }));
    watch->cancel();
    eventfd_write(event.get(), 1);
    drive_for(loop, 10_ms);
    EXPECT_EQ(seen.calls, 1);
    EXPECT_FALSE(loop.watch(
                         -1, Ready::read, [](void*, Ready) {}, nullptr)
                     .ok());
}

// Goal: a host loop may wait on the loop's descriptor alone: it tells of posts, timers and bytes.
TEST_P(LoopTest, NestsInAnotherEventLoop) {
    int posts = 0, timers = 0;
    PlainPeer server, client;
    Loop loop(options());
    const auto fd = loop.native_fd();
    ASSERT_TRUE(fd.ok());
    auto listener = listen(loop, "tcp://127.0.0.1:0", server);
    ASSERT_TRUE(listener.ok());
    ASSERT_TRUE(connect(loop, listener->url(), client).ok());
    auto timer = loop.after(30_ms, [&] { ++timers; });
    loop.run_once();
    std::thread poster([ref = loop.ref(), &posts] { EXPECT_TRUE(ref.post([&posts] { ++posts; })); });
    const Stopwatch watch;
    bool sent = false;
    while ((posts < 1 || timers < 1 || server.received.empty()) && watch.elapsed() < 10_s * patience) {
        if (wait_ready(*fd, POLLIN, 1000)) loop.run_once();
        if (client.open() && !std::exchange(sent, true)) client.ref.get()->send("x"), loop.run_once();
    }
    poster.join();
    EXPECT_EQ(posts, 1);
    EXPECT_EQ(timers, 1);
    EXPECT_EQ(server.received, "x");
    while (wait_ready(*fd, POLLIN, 0) && watch.elapsed() < 20_s) loop.run_once();
    EXPECT_FALSE(wait_ready(*fd, POLLIN, 20)) << "it falls silent when there is nothing to do";
}

// Goal: what has expired, been posted or deferred and thrown does not take the loop with it.
TEST_P(LoopTest, GoesOnWhenATaskThrows) {
    int after = 0;
    Loop loop(options());
    loop.defer([] { throw 1; });
    loop.post([] { throw 2; });
    auto timer = loop.after(1_ms, [] { throw 3; });
    auto last = loop.after(5_ms, [&] { ++after; });
    EXPECT_TRUE(drive(loop, [&] { return after == 1; }));
}

// Goal: buffers come in the sizes promised, what they share stays, and the loop's limit is an answer.
TEST_P(LoopTest, AllocatesWithinItsLimits) {
    LoopOptions small = options();
    small.memory_bytes_max = 8u << 20;
    Loop loop(small);
    EXPECT_EQ(loop.allocate(1)->size(), 1u);
    EXPECT_EQ(loop.allocate(2u << 20)->size(), 2u << 20);
    EXPECT_EQ(loop.allocate((2u << 20) + 1).error(), Errc::too_large);
    std::vector<Buffer> held;
    Error end;
    while (end.ok() && held.size() < 100) {
        auto more = loop.allocate(1u << 20);
        if (more) held.push_back(*std::move(more));
        else end = more.error();
    }
    EXPECT_EQ(end, Errc::out_of_buffers);
    EXPECT_LE(held.size(), 8u);
    EXPECT_LE(loop.metrics().slab_bytes, small.memory_bytes_max);
    held.clear();
    EXPECT_TRUE(loop.allocate(1u << 20).ok()) << "what came back can be had again";
}

std::string name_of_mode(const testing::TestParamInfo<Mode>& info) {
    return info.param == Mode::hybrid ? "loop_hybrid" : info.param == Mode::poll ? "loop_poll" : "loop_event";
}
INSTANTIATE_TEST_SUITE_P(Conformance, LoopTest, testing::Values(Mode::hybrid, Mode::poll, Mode::event), name_of_mode);

}  // namespace
}  // namespace evpl::test
