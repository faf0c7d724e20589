// How a loop sleeps towards what is due later: by a descriptor armed once, not by a limit on each wait.
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include <gtest/gtest.h>

#include "evpl/evpl.hpp"
#include "support/patience.hpp"

namespace {
std::atomic<int> limited_waits, timers_armed;
}

// Both stand before the C library's in this program.
extern "C" int epoll_pwait2(int fd, epoll_event* events, int events_max, const timespec* limit, const sigset_t* mask) {
    limited_waits += limit != nullptr;
    return int(syscall(SYS_epoll_pwait2, fd, events, events_max, limit, mask, sizeof(std::uint64_t)));
}
extern "C" int timerfd_settime(int fd, int flags, const itimerspec* when, itimerspec* before) noexcept {
    ++timers_armed;
    return int(syscall(SYS_timerfd_settime, fd, flags, when, before));
}

namespace evpl::test {
namespace {

LoopOptions sleeping() {
    LoopOptions options;
    options.mode = Mode::event;
    options.stall = 10_s;
    return options;
}

/// Wakes the loop so many times, each time out of a sleep.
void wake(const LoopRef& ref, int times) {
    for (int i = 0; i < times; ++i) {
        std::atomic<bool> ran = false;
        ASSERT_TRUE(ref.post([&] { ran = true; }));
        ASSERT_TRUE(await([&] { return ran.load(); }));
    }
}

TEST(LoopSleep, ManySleepsTowardsAFarTimerArmItsDescriptorOnce) {
    Loop loop(sleeping());
    const LoopRef ref = loop.ref();
    const Timer far = *loop.after(60_s, [] {});
    std::thread waker([&] {
        wake(ref, 1);  // memory used once is looked at twice, half a second apart: two more alarms at the most
        limited_waits = timers_armed = 0;
        wake(ref, 100);
        EXPECT_EQ(limited_waits, 0);
        EXPECT_LE(timers_armed, 3);
        ref.stop();
    });
    EXPECT_EQ(loop.run(), 0);
    waker.join();
}

TEST(LoopSleep, ANearTimerSetBehindAFarOneFiresInTime) {
    Loop loop(sleeping());
    const LoopRef ref = loop.ref();
    const Timer far = *loop.after(60_s, [] {});
    Timer near;
    Stopwatch watch;
    Duration fired{};
    std::thread waker([&] {
        wake(ref, 3);
        ref.post([&] {
            watch.restart();
            near = *loop.after(30_ms, [&] {
                fired = watch.elapsed();
                loop.stop();
            });
        });
    });
    EXPECT_EQ(loop.run(), 0);
    waker.join();
    EXPECT_GE(fired, 30_ms);
    EXPECT_LT(fired, 10_s);  // not at the far one's time
}

/// False: the machine was too busy to cancel the first timer before its time.
bool cancels_before(Duration early_at) {
    Loop loop(sleeping());
    Stopwatch watch;
    Duration fired{};
    bool was_early = false;
    Timer early = *loop.after(early_at, [&] { was_early = true; });
    const Timer late = *loop.after(early_at * 3, [&] {
        fired = watch.elapsed();
        loop.stop();
    });
    loop.run_once(1_ms);
    const LoopRef ref = loop.ref();
    bool in_time = false;
    std::thread waker([&] {
        ref.post([&] {
            in_time = !was_early;
            early.cancel();
        });
    });
    EXPECT_EQ(loop.run(), 0);
    waker.join();
    EXPECT_GE(fired, early_at * 3);
    EXPECT_TRUE(!in_time || !was_early) << "it was cancelled";
    return in_time;
}

TEST(LoopSleep, ATimerMovedLaterFiresAtItsNewTimeAlthoughTheDescriptorWakesAtTheOld) {
    for (Duration early_at = 40_ms; !cancels_before(early_at); early_at = early_at * 4) ASSERT_LT(early_at, 5_s);
}

TEST(LoopSleep, AnIdleLoopGivesItsMemoryBackWithoutAnyTimer) {
    Loop loop(sleeping());
    const LoopRef ref = loop.ref();
    std::atomic<std::uint64_t> held = 0;
    std::thread watcher([&] {
        const auto look = [&] {
            std::atomic<bool> looked = false;
            if (!ref.post([&] { held = loop.metrics().slab_bytes, looked = true; })) return false;
            return await([&] { return looked.load(); });
        };
        ref.post([&] { EXPECT_TRUE(loop.allocate(100'000).ok()); });
        EXPECT_TRUE(look());
        EXPECT_GT(held, 0u);
        EXPECT_TRUE(await([&] {
            const timespec nap{0, 400'000'000};
            nanosleep(&nap, nullptr);  // an idle time: looking is work
            return look() && held == 0;
        }));
        ref.stop();
    });
    EXPECT_EQ(loop.run(), 0);
    watcher.join();
}

}  // namespace
}  // namespace evpl::test
