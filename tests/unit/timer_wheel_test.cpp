#include "core/timer_wheel.hpp"

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

#include "evpl/timer.hpp"

namespace evpl::core {
namespace {

constexpr std::int64_t tick_ns = 1024;
constexpr std::int64_t hour_ns = 3'600'000'000'000;

/// Runs everything due until `now_ns`, as a loop would.
unsigned expire_all(TimerWheel& wheel, std::int64_t now_ns) {
    unsigned calls = 0;
    while (wheel.next_due_ns() <= now_ns) calls += wheel.expire(now_ns, 64);
    return calls;
}

TEST(TimerWheelTest, EmptyWheelHasNothingDue) {
    TimerWheel wheel;
    EXPECT_EQ(wheel.next_due_ns(), INT64_MAX);
    EXPECT_EQ(wheel.expire(hour_ns, 64), 0u);
    EXPECT_EQ(wheel.timers(), 0u);
}

TEST(TimerWheelTest, FiresOnceAndNeverEarly) {
    TimerWheel wheel;
    int runs = 0;
    const TimerHandle timer = wheel.add(1'000'001, 5'000'000, [&] { ++runs; });
    EXPECT_TRUE(TimerWheel::pending(timer));
    EXPECT_EQ(expire_all(wheel, 6'000'000), 0u);
    EXPECT_EQ(expire_all(wheel, 6'000'001 + tick_ns), 1u);
    EXPECT_EQ(runs, 1);
    EXPECT_FALSE(TimerWheel::pending(timer));
    EXPECT_EQ(expire_all(wheel, hour_ns), 0u);
}

TEST(TimerWheelTest, EqualDeadlinesRunInOrderOfCreation) {
    TimerWheel wheel;
    std::vector<int> order;
    for (int i = 0; i < 10; ++i) wheel.add(0, hour_ns, [&order, i] { order.push_back(i); });
    expire_all(wheel, 2 * hour_ns);
    EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}));
}

TEST(TimerWheelTest, CancelDestroysTheTaskAtOnce) {
    TimerWheel wheel;
    auto captured = std::make_shared<int>(0);
    const TimerHandle timer = wheel.add(0, hour_ns, [captured] {});
    EXPECT_TRUE(TimerWheel::cancel(timer));
    EXPECT_EQ(captured.use_count(), 1);
    EXPECT_FALSE(TimerWheel::cancel(timer));
    EXPECT_EQ(wheel.next_due_ns(), INT64_MAX);
}

// Goal: a handle whose place serves another timer by now does that timer no harm.
TEST(TimerWheelTest, StaleHandleIsHarmless) {
    TimerWheel wheel;
    int runs = 0;
    std::vector<TimerHandle> former;
    bool reused = false;
    while (!reused) {
        former.push_back(wheel.add(0, 1000, [] {}));
        TimerWheel::cancel(former.back());
        const TimerHandle present = wheel.add(0, 1000, [&] { ++runs; });
        for (const TimerHandle one : former) {
            reused |= one.chunk == present.chunk && one.row() == present.row();
            EXPECT_FALSE(TimerWheel::pending(one));
            EXPECT_FALSE(TimerWheel::cancel(one));
        }
        expire_all(wheel, hour_ns);
        EXPECT_EQ(std::exchange(runs, 0), 1);
        ASSERT_LT(former.size(), 100u);
    }
}

// Goal: handlers are declared before their loop, so their timers are dropped after it.
TEST(TimerWheelTest, HandleMayOutliveTheWheel) {
    TimerHandle left;
    auto captured = std::make_shared<int>(0);
    {
        TimerWheel wheel;
        left = wheel.add(0, hour_ns, [captured] {});
    }
    EXPECT_EQ(captured.use_count(), 1);
    EXPECT_FALSE(TimerWheel::cancel(left));
    TimerWheel next;  // takes over the chunk
    const TimerHandle reused = next.add(0, hour_ns, [] {});
    EXPECT_FALSE(TimerWheel::pending(left));
    EXPECT_FALSE(TimerWheel::cancel(left));
    EXPECT_TRUE(TimerWheel::pending(reused));
}

TEST(TimerWheelTest, EmptyTimerAnswersHarmlessly) {
    Timer timer;
    timer.cancel();
    EXPECT_FALSE(timer.pending());
}

TEST(TimerWheelTest, CallbackMayCancelOthersDueInTheSamePass) {
    TimerWheel wheel;
    int runs = 0;
    TimerHandle second;
    wheel.add(0, 1000, [&] { EXPECT_TRUE(TimerWheel::cancel(second)); });
    second = wheel.add(0, 1000, [&] { ++runs; });
    EXPECT_EQ(expire_all(wheel, hour_ns), 1u);
    EXPECT_EQ(runs, 0);
}

TEST(TimerWheelTest, CallbackMayCancelItself) {
    TimerWheel wheel;
    TimerHandle once, again;
    auto captured = std::make_shared<int>(0);
    once = wheel.add(0, 1000, [&] { EXPECT_FALSE(TimerWheel::cancel(once)); });
    again = wheel.add(
        0, 1000,
        [&again, captured] {
            EXPECT_TRUE(TimerWheel::pending(again));
            EXPECT_TRUE(TimerWheel::cancel(again));
            EXPECT_FALSE(TimerWheel::pending(again));
            ++*captured;  // the capture is still alive
        },
        1000);
    EXPECT_EQ(expire_all(wheel, hour_ns), 2u);
    EXPECT_EQ(*captured, 1);
    EXPECT_EQ(captured.use_count(), 1);
    EXPECT_EQ(wheel.timers(), 0u);
}

// Goal: a zero delay set in a callback waits for the next pass; a pass always ends.
TEST(TimerWheelTest, WhatACallbackAddsWaitsForTheNextPass) {
    TimerWheel wheel;
    int runs = 0;
    struct Again {
        TimerWheel& wheel;
        int& runs;
        void operator()() const {
            ++runs;
            wheel.add(5000, 0, Again{*this});
        }
    };
    wheel.add(5000, 0, Again{wheel, runs});
    EXPECT_EQ(wheel.expire(7000, 1000), 1u);
    EXPECT_EQ(wheel.expire(9000, 1000), 1u);
    EXPECT_EQ(runs, 2);
}

TEST(TimerWheelTest, BudgetLeavesTheRestDue) {
    TimerWheel wheel;
    int runs = 0;
    for (int i = 0; i < 10; ++i) wheel.add(0, 1000 + i * 5000, [&] { ++runs; });
    const std::int64_t now_ns = 1'000'000;
    EXPECT_EQ(wheel.expire(now_ns, 4), 4u);
    EXPECT_LE(wheel.next_due_ns(), now_ns);
    EXPECT_EQ(wheel.expire(now_ns, 100), 6u);
    EXPECT_EQ(wheel.next_due_ns(), INT64_MAX);
}

TEST(TimerWheelTest, PeriodicRunsOnTheGridAndOnceWhenLate) {
    TimerWheel wheel;
    int runs = 0;
    const TimerHandle timer = wheel.add(
        0, 1'000'000, [&] { ++runs; }, 1'000'000);
    expire_all(wheel, 1'002'000);
    EXPECT_EQ(runs, 1);
    expire_all(wheel, 5'500'000);  // four were missed
    EXPECT_EQ(runs, 2);
    expire_all(wheel, 5'999'999);
    EXPECT_EQ(runs, 2);
    expire_all(wheel, 6'002'000);  // back on the grid
    EXPECT_EQ(runs, 3);
    EXPECT_TRUE(TimerWheel::cancel(timer));
}

TEST(TimerWheelTest, ThrowingTaskIsReportedAndTheOthersRun) {
    int threw = 0, runs = 0;
    TimerWheel wheel([](void* context) { ++*static_cast<int*>(context); }, &threw);
    const TimerHandle again = wheel.add(
        0, 1000, [] { throw std::runtime_error("ours"); }, 10'000'000);
    wheel.add(0, 2000, [&] { ++runs; });
    expire_all(wheel, 1'000'000);
    EXPECT_EQ(threw, 1);
    EXPECT_EQ(runs, 1);
    EXPECT_TRUE(TimerWheel::pending(again));
}

TEST(TimerWheelTest, ForeverNeverFires) {
    TimerWheel wheel;
    int runs = 0;
    wheel.add(1, INT64_MAX, [&] { ++runs; });
    EXPECT_EQ(wheel.next_due_ns(), INT64_MAX);
    wheel.expire(INT64_MAX, 64);
    EXPECT_EQ(runs, 0);
    EXPECT_EQ(wheel.timers(), 1u);
}

// Goal: clocks start anywhere and jump, up to the end of 63 bits.
TEST(TimerWheelTest, FarFutureClocksAndDelays) {
    for (const std::int64_t start_ns : {std::int64_t(0), hour_ns, std::int64_t(1) << 58, (std::int64_t(1) << 58) - 1, INT64_MAX - 10 * hour_ns}) {
        TimerWheel wheel;
        int runs = 0;
        wheel.add(start_ns, hour_ns, [&] { ++runs; });
        wheel.add(start_ns, -5, [&] { ++runs; });
        EXPECT_EQ(expire_all(wheel, start_ns + tick_ns), 1u);
        EXPECT_EQ(expire_all(wheel, start_ns + hour_ns - 1), 0u);
        EXPECT_EQ(expire_all(wheel, start_ns + 2 * hour_ns), 1u);
        EXPECT_EQ(runs, 2);
    }
}

// Goal: 100 000 equal deadlines move between levels in steps, and none is lost or early on the way.
TEST(TimerWheelTest, LargeCascadesAreCutInPieces) {
    TimerWheel wheel;
    constexpr unsigned count = 100'000;
    std::int64_t now_ns = 0;
    unsigned runs = 0;
    for (unsigned i = 0; i < count; ++i) wheel.add(0, 30'000'000'000 + i, [&] { runs += now_ns >= 30'000'000'000; });
    unsigned turns = 0;
    while (wheel.timers() != 0 && turns < 1'000'000) {
        now_ns = std::max(now_ns, wheel.next_due_ns());
        wheel.expire(now_ns, 64);
        ++turns;
    }
    EXPECT_EQ(runs, count);
    EXPECT_GT(turns, count / 64);
}

// Goal: a cascade that was cut and whose rest was cancelled does not hold back what is set afterwards.
TEST(TimerWheelTest, CancelDuringACutCascade) {
    TimerWheel wheel;
    std::vector<TimerHandle> timers;
    for (unsigned i = 0; i < 2 * AlarmWheel::moved_max; ++i) timers.push_back(wheel.add(0, hour_ns, [] {}));
    std::int64_t now_ns = wheel.next_due_ns();
    wheel.expire(now_ns, 64);
    EXPECT_LE(wheel.next_due_ns(), now_ns);
    for (const TimerHandle timer : timers) TimerWheel::cancel(timer);
    now_ns += 10 * hour_ns;
    int runs = 0;
    wheel.add(now_ns, 1000, [&] { ++runs; });
    expire_all(wheel, now_ns + 1000 + tick_ns);
    EXPECT_EQ(runs, 1);
}

struct Deadline : Alarm {
    int runs = 0;
    Deadline() noexcept {
        due_fn = [](Alarm& alarm) { ++static_cast<Deadline&>(alarm).runs; };
    }
};

TEST(TimerWheelTest, AlarmsAreEmbeddedAndMayBeSetAnew) {
    TimerWheel wheel;
    Deadline deadline;
    wheel.cancel_alarm(deadline);  // harmless
    wheel.set_alarm(deadline, 0, 5000);
    wheel.set_alarm(deadline, 0, 50'000);
    EXPECT_EQ(expire_all(wheel, 40'000), 0u);
    EXPECT_EQ(expire_all(wheel, 60'000), 1u);
    EXPECT_FALSE(deadline.is_set());
    wheel.set_alarm(deadline, 60'000, 70'000);
    wheel.cancel_alarm(deadline);
    EXPECT_EQ(expire_all(wheel, hour_ns), 0u);
    EXPECT_EQ(deadline.runs, 1);
}

TEST(TimerWheelTest, TaskDestructorsMayUseTheWheel) {
    TimerHandle other;
    struct Canceller {
        TimerWheel* wheel;
        TimerHandle* other;
        explicit Canceller(TimerWheel& w, TimerHandle& o) : wheel(&w), other(&o) {}
        Canceller(Canceller&& from) noexcept : wheel(std::exchange(from.wheel, nullptr)), other(from.other) {}
        ~Canceller() {
            if (wheel == nullptr) return;
            TimerWheel::cancel(*other);
            wheel->add(0, 1000, [] {});
        }
        void operator()() const {}
    };
    TimerWheel wheel;
    other = wheel.add(0, hour_ns, [] {});
    TimerWheel::cancel(wheel.add(0, hour_ns, Canceller{wheel, other}));
    EXPECT_FALSE(TimerWheel::pending(other));
    EXPECT_EQ(wheel.timers(), 1u);
    other = wheel.add(0, hour_ns, [] {});
    wheel.add(0, hour_ns, Canceller{wheel, other});  // destroyed with the wheel
}

// Goal: no timer is early, lost, run twice or out of order of its tick, whatever is added, cancelled and skipped.
// Method: random commands against a std::multimap; delays of every magnitude.
RC_GTEST_PROP(TimerWheelModel, AgreesWithAMultimap, ()) {
    TimerWheel wheel;
    std::multimap<std::int64_t, int> model;  // due_ns -> id
    std::map<int, std::pair<TimerHandle, std::int64_t>> handles;
    std::vector<int> fired;
    const auto spread = [](int bits_max) {
        const int bits = *rc::gen::inRange(0, bits_max);
        return *rc::gen::inRange<std::int64_t>(0, (std::int64_t(1) << bits) + 1);
    };
    std::int64_t now_ns = spread(60);
    const int steps = *rc::gen::inRange(1, 200);
    for (int id = 0; id < steps; ++id) {
        const int command = *rc::gen::inRange(0, 10);
        if (command < 5) {
            const std::int64_t delay_ns = spread(50);
            handles[id] = {wheel.add(now_ns, delay_ns, [&fired, id] { fired.push_back(id); }), now_ns + delay_ns};
            model.emplace(now_ns + delay_ns, id);
        } else if (command < 7 && !handles.empty()) {
            auto victim = handles.begin();
            std::advance(victim, *rc::gen::inRange<std::size_t>(0, handles.size()));
            bool modelled = false;
            for (auto [at, end] = model.equal_range(victim->second.second); at != end; ++at)
                if (at->second == victim->first) {
                    model.erase(at);
                    modelled = true;
                    break;
                }
            RC_ASSERT(TimerWheel::cancel(victim->second.first) == modelled);
            handles.erase(victim);
        } else {
            now_ns += spread(50);
            const unsigned budget = *rc::gen::element(1u, 3u, 1000u);
            fired.clear();
            while (wheel.next_due_ns() <= now_ns) wheel.expire(now_ns, budget);
            std::uint64_t last_tick = 0;
            for (const int one : fired) {
                const std::int64_t due_ns = handles.at(one).second;
                RC_ASSERT(due_ns <= now_ns);
                const std::uint64_t due_tick = std::uint64_t(due_ns + tick_ns - 1) / tick_ns;
                RC_ASSERT(due_tick >= last_tick);
                last_tick = due_tick;
                bool modelled = false;
                for (auto [at, end] = model.equal_range(due_ns); at != end; ++at)
                    if (at->second == one) {
                        model.erase(at);
                        modelled = true;
                        break;
                    }
                RC_ASSERT(modelled);
            }
        }
        RC_ASSERT(wheel.timers() == model.size());
        // Nothing whose tick has begun is left, and the next wake-up is not too late.
        if (!model.empty() && command >= 7) RC_ASSERT(model.begin()->first > now_ns - tick_ns);
        if (!model.empty()) RC_ASSERT(wheel.next_due_ns() < model.begin()->first + tick_ns);
    }
}

}  // namespace
}  // namespace evpl::core
