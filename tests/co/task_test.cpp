// Tasks by themselves: how they end, wait beside each other, sleep, yield, change threads, and make a program.
#include <pthread.h>

#include <atomic>
#include <stdexcept>
#include <string>
#include <thread>

#include "co/served.hpp"

namespace evpl::test {
namespace {

// Goal: neither a million tasks that end at once nor many that end later grow the stack.
TEST(CoTaskTest, CompletionsDoNotGrowTheStack) {
    Loop loop(World::quiet());
    long sum = 0;
    auto one = [](long i) -> co::Task<long> { co_return i & 1; };
    auto later = [](Loop& on) -> co::Task<> { (void)co_await co::sleep(on, Duration{}); };
    auto all = [](Loop& on, long& out, auto now, auto late) -> co::Task<> {
        for (long i = 0; i < 1'000'000; ++i) out += co_await now(i);
        for (int i = 0; i < 20'000; ++i) co_await late(on);
        out += 1;
    };
    co::spawn(all(loop, sum, one, later), fail);
    EXPECT_EQ(loop.run_until_idle(), 0);
    EXPECT_EQ(sum, 500'001);
}

TEST(CoTaskTest, WhatASpawnedTaskThrowsGoesToTheHook) {
    int heard = 0;
    auto bad = []() -> co::Task<> {
        throw std::runtime_error("planted");
        co_return;
    };
    auto outer = [](co::Task<> inner) -> co::Task<> { co_await inner; };
    co::spawn(outer(bad()), [&](std::exception_ptr) { ++heard; });
    EXPECT_EQ(heard, 1);
}

// Goal: a hook that throws itself takes nobody with it: its exception ends there.
TEST(CoTaskTest, AHookThatThrowsEndsNothing) {
    int heard = 0;
    auto bad = []() -> co::Task<> {
        throw std::runtime_error("planted");
        co_return;
    };
    co::spawn(bad(), [&](std::exception_ptr) {
        ++heard;
        throw std::runtime_error("planted in the hook");
    });
    EXPECT_EQ(heard, 1);
}

/// Starts a coroutine made of a lambda without captures and its arguments.
template <class F, class... Args>
void start(F body, Args&&... args) {
    co::spawn(body(std::forward<Args>(args)...), fail);
}

// -- sleep and yield -------------------------------------------------------------------------------------------

TEST(CoSleepTest, SleepsAtLeastSoLongAndItsLimitEndsItEarlier) {
    Loop loop(World::quiet());
    std::string seen;
    start(
        [](Loop& on, std::string& out) -> co::Task<> {
            const Stopwatch watch;
            if ((co_await co::sleep(on, 20_ms)).ok() && watch.elapsed() >= 20_ms) out += "slept ";
            if ((co_await co::sleep(on, 20_ms, co::within(20_ms))).ok()) out += "just ";
            if ((co_await co::sleep(on, 100_s, co::within(5_ms))).error().code() == Errc::timed_out) out += "limited";
        },
        loop, seen);
    EXPECT_EQ(loop.run_until_idle(), 0);
    EXPECT_EQ(seen, "slept just limited");
}

TEST(CoSleepTest, ATokenEndsASleepUnderWayAndOnesToCome) {
    Loop loop(World::quiet());
    co::Cancel token;
    int cancelled = 0;
    start(
        [](Loop& on, co::Cancel& cancel, int& out) -> co::Task<> {
            for (int i = 0; i < 2; ++i) out += (co_await co::sleep(on, 100_s, cancel)).error().code() == Errc::cancelled;
        },
        loop, token, cancelled);
    EXPECT_EQ(cancelled, 0);
    token.cancel();
    EXPECT_EQ(cancelled, 2);
    EXPECT_EQ(loop.run_until_idle(), 0);  // no timer is left
}

TEST(CoYieldTest, OthersHaveTheirTurnBetween) {
    Loop loop(World::quiet());
    std::string seen;
    const auto body = [](Loop& on, std::string& out, char name) -> co::Task<> {
        for (int i = 0; i < 3; ++i) {
            out += name;
            EXPECT_TRUE((co_await co::yield(on)).ok());
        }
    };
    start(body, loop, seen, 'a');
    start(body, loop, seen, 'b');
    EXPECT_EQ(loop.run_until_idle(), 0);
    EXPECT_EQ(seen, "ababab");
}

TEST(CoYieldTest, TheEndOfTheLoopDestroysWhoYieldsAndSleeps) {
    int frames = 0;
    {
        Loop loop(World::quiet());
        start(
            [](Loop& on, int& count) -> co::Task<> {
                const Mark mark(count);
                co_await co::yield(on);
                ADD_FAILURE() << "the loop never ran";
            },
            loop, frames);
        start(
            [](Loop& on, int& count) -> co::Task<> {
                const Mark mark(count);
                co_await co::sleep(on, 1_ms);
                ADD_FAILURE() << "the loop never ran";
            },
            loop, frames);
        EXPECT_EQ(frames, 2);
    }
    EXPECT_EQ(frames, 0);
}

// -- beside each other -----------------------------------------------------------------------------------------

co::Task<int> number_after(Loop& loop, Duration delay, int number) {
    co_await co::sleep(loop, delay);
    co_return number;
}
co::Task<int> number_now(int number) { co_return number; }
co::Task<int> throws_after(Loop& loop, Duration delay, const char* what) {
    co_await co::sleep(loop, delay);
    throw std::runtime_error(what);
}

TEST(CoJoinTest, AllGivesEveryValueInOrderWhoeverEndsFirst) {
    Loop loop(World::quiet());
    bool done = false;
    start(
        [](Loop& on, bool& out) -> co::Task<> {
            const auto nothing = [](Loop& l) -> co::Task<> { co_await co::sleep(l, 5_ms); };
            const auto text = [](Loop& l) -> co::Task<std::string> {
                co_await co::yield(l);
                co_return std::string(100, 'x');
            };
            auto [one, two, three, four] = co_await co::when_all(number_after(on, 10_ms, 1), number_now(2), text(on), nothing(on));
            static_assert(std::is_same_v<decltype(four), co::Nothing>);
            (void)four;
            out = one == 1 && two == 2 && three == std::string(100, 'x');
        },
        loop, done);
    EXPECT_EQ(loop.run_until_idle(), 0);
    EXPECT_TRUE(done);
}

TEST(CoJoinTest, AllOfWhatEndsAtOnceNeedsNoLoop) {
    int sum = 0;
    start(
        [](int& out) -> co::Task<> {
            auto [one, two] = co_await co::when_all(number_now(1), number_now(2));
            out = one + two;
            out += (co_await co::when_any(number_now(10), number_now(20))).value;
        },
        sum);
    EXPECT_EQ(sum, 13);
}

TEST(CoJoinTest, AllWaitsForTheOthersBeforeItThrows) {
    Loop loop(World::quiet());
    std::string heard;
    bool other_ended = false;
    start(
        [](Loop& on, std::string& what, bool& other) -> co::Task<> {
            const auto slow = [](Loop& l, bool& out) -> co::Task<> {
                co_await co::sleep(l, 20_ms);
                out = true;
            };
            try {
                co_await co::when_all(throws_after(on, 1_ms, "planted"), slow(on, other), throws_after(on, Duration{}, "later in the order"));
            } catch (const std::runtime_error& error) {
                what = error.what();
            }
            EXPECT_TRUE(other);
        },
        loop, heard, other_ended);
    EXPECT_EQ(loop.run_until_idle(), 0);
    EXPECT_EQ(heard, "planted");
}

TEST(CoJoinTest, AnyGivesTheFirstAndDestroysTheOthersWhereTheyWait) {
    Loop loop(World::quiet());
    int frames = 0;
    bool done = false;
    start(
        [](Loop& on, int& count, bool& out) -> co::Task<> {
            const auto marked = [](Loop& l, int& c, Duration delay, int number) -> co::Task<int> {
                const Mark mark(c);
                co_return co_await number_after(l, delay, number);
            };
            const auto [index, value] = co_await co::when_any(marked(on, count, 100_s, 1), marked(on, count, 5_ms, 2), marked(on, count, 200_s, 3));
            EXPECT_EQ(count, 0);
            out = index == 1 && value == 2;
        },
        loop, frames, done);
    EXPECT_EQ(frames, 3);
    EXPECT_EQ(loop.run_until_idle(), 0);  // no timer of the others is left
    EXPECT_TRUE(done);
}

TEST(CoJoinTest, AnyPassesOnWhatTheFirstThrows) {
    Loop loop(World::quiet());
    std::string heard;
    start(
        [](Loop& on, std::string& what) -> co::Task<> {
            try {
                co_await co::when_any(number_after(on, 100_s, 1), throws_after(on, 1_ms, "planted"));
            } catch (const std::runtime_error& error) {
                what = error.what();
            }
        },
        loop, heard);
    EXPECT_EQ(loop.run_until_idle(), 0);
    EXPECT_EQ(heard, "planted");
}

TEST(CoJoinTest, TheEndOfTheLoopDestroysAllWhoWaitBesideEachOther) {
    int frames = 0;
    {
        Loop loop(World::quiet());
        start(
            [](Loop& on, int& count) -> co::Task<> {
                const Mark mark(count);
                const auto marked = [](Loop& l, int& c) -> co::Task<> {
                    const Mark inner(c);
                    co_await co::sleep(l, 100_s);
                };
                co_await co::when_all(marked(on, count), marked(on, count));
                ADD_FAILURE() << "nobody woke";
            },
            loop, frames);
        EXPECT_EQ(frames, 3);
    }
    EXPECT_EQ(frames, 0);
}

// Goal: tasks that end beside each other a hundred thousand times leave the stack flat, whether at once or later.
TEST(CoJoinTest, CompletionsDoNotGrowTheStack) {
    Loop loop(World::quiet());
    long sum = 0;
    start(
        [](Loop& on, long& out) -> co::Task<> {
            for (int i = 0; i < 100'000; ++i) out += std::get<0>(co_await co::when_all(number_now(1), number_now(2)));
            for (int i = 0; i < 5'000; ++i) out += (co_await co::when_any(number_after(on, Duration{}, 1), number_after(on, 100_s, 2))).value;
        },
        loop, sum);
    EXPECT_EQ(loop.run_until_idle(), 0);
    EXPECT_EQ(sum, 105'000);
}

// -- threads ---------------------------------------------------------------------------------------------------

co::Task<> hop(LoopRef to) { EXPECT_TRUE((co_await co::post_to(to)).ok()); }

TEST(CoThreadTest, PostToChangesTheThreadAndBack) {
    auto other = Thread::start();
    ASSERT_TRUE(other.ok());
    Loop home(World::quiet());
    int hops = 0;
    const LoopRef there = other->loop().ref(), here = home.ref();
    start(
        [](LoopRef away, LoopRef back, int& count) -> co::Task<> {
            const pthread_t first = pthread_self();
            for (int i = 0; i < 1000; ++i) {
                co_await hop(away);
                EXPECT_FALSE(pthread_equal(pthread_self(), first));
                EXPECT_TRUE((co_await co::post_to(back)).ok());
                EXPECT_TRUE(pthread_equal(pthread_self(), first));
                ++count;
            }
        },
        there, here, hops);
    EXPECT_TRUE(drive(home, [&] { return hops == 1000; }));
}

TEST(CoThreadTest, PostToAnEndedLoopIsAnErrorAndStaysHere) {
    LoopRef gone;
    { gone = Loop(World::quiet()).ref(); }
    Error got;
    start([](LoopRef to, Error& out) -> co::Task<> { out = (co_await co::post_to(to)).error(); }, gone, got);
    EXPECT_EQ(got.code(), Errc::stopped);
}

TEST(CoThreadTest, WhoIsOnTheWayWhenTheOtherLoopEndsIsDestroyed) {
    int frames = 0;
    {
        Loop other(World::quiet());
        start(
            [](LoopRef to, int& count) -> co::Task<> {
                const Mark mark(count);
                co_await co::post_to(to);
                ADD_FAILURE() << "the loop never ran";
            },
            other.ref(), frames);
        EXPECT_EQ(frames, 1);
    }
    EXPECT_EQ(frames, 0);
}

TEST(CoThreadTest, PostToBesideOthersIsMisuse) {
    Loop loop(World::quiet());
    Errc got = Errc::none;
    start(
        [](LoopRef to, Errc& out) -> co::Task<> {
            const auto leave = [](LoopRef where) -> co::Task<Errc> { co_return (co_await co::post_to(where)).error().code(); };
            out = std::get<0>(co_await co::when_all(leave(to), number_now(1)));
        },
        loop.ref(), got);
    EXPECT_EQ(got, Errc::misuse);
}

// -- a program -------------------------------------------------------------------------------------------------

TEST(CoRunTest, GivesTheStatusOfItsTask) {
    EXPECT_EQ(co::run([](Loop& loop) -> co::Task<int> {
                  co_await co::sleep(loop, 1_ms);
                  co_return 7;
              }),
              7);
    EXPECT_EQ(co::run([](Loop&) -> co::Task<> { co_return; }), 0);
}

TEST(CoRunTest, WhatTheProgramThrowsPassesOn) {
    EXPECT_THROW(co::run([](Loop& loop) -> co::Task<> {
                     co_await co::sleep(loop, 1_ms);
                     throw std::runtime_error("planted");
                 }),
                 std::runtime_error);
}

TEST(CoRunTest, AProgramWhoseLoopIsStoppedIsDestroyedAndGivesOne) {
    int frames = 0;
    EXPECT_EQ(co::run([&](Loop& loop) -> co::Task<int> {
                  const Mark mark(frames);
                  loop.stop();
                  co_await co::sleep(loop, 100_s);
                  co_return 0;
              }),
              1);
    EXPECT_EQ(frames, 0);
}

TEST(CoRunTest, WhatWasSentArrivesAlthoughTheProgramHasEnded) {
    std::string got;
    Loop loop(World::quiet());
    bool ended = false;
    const auto session = [](co::Stream peer, std::string& out, bool& end) -> co::Task<> {
        while (auto bytes = co_await peer.recv()) out += text_of(*bytes);
        end = true;
    };
    auto listener = co::serve(loop, "tcp://127.0.0.1:0", [&](co::Stream peer) { return session(std::move(peer), got, ended); });
    ASSERT_TRUE(listener.ok());
    const std::string url(listener->url());
    std::thread client([&] {
        EXPECT_EQ(co::run([&](Loop& on) -> co::Task<> {
                      auto peer = co_await co::connect(on, url, co::within(10_s));
                      EXPECT_TRUE(peer.ok());
                      if (peer) (void)peer->send("the last words");  // and not waited for
                  }),
                  0);
    });
    EXPECT_TRUE(drive(loop, [&] { return ended; }));
    client.join();
    EXPECT_EQ(got, "the last words");
}

}  // namespace
}  // namespace evpl::test
