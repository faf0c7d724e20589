// Signals: the library installs no handlers, never dies of SIGPIPE, and does not notice interruptions.
#include <pthread.h>
#include <signal.h>
#include <time.h>

#include <array>

#include "support/sockets.hpp"
#include "support/world.hpp"

namespace evpl::test {
namespace {

class SignalTest : public TransportTest {};

std::array<struct sigaction, 65> dispositions() {
    std::array<struct sigaction, 65> all{};
    for (int signal = 1; signal < 65; ++signal) sigaction(signal, nullptr, &all[std::size_t(signal)]);
    return all;
}

/// One full exchange of the documentation's echo.
void exchange(const Row& row, std::size_t total) {
    PatternCheck check;
    Pump pump{.total = total};
    PlainPeer client;
    World world{row};
    ASSERT_NE(world.listen([](Connection&) { return EchoAll{}; }), nullptr);
    client.when_open = client.when_writable = std::ref(pump);
    client.when_recv = [&](Connection& c) { check.take_all(c); };
    world.dial(client);
    EXPECT_TRUE(world.until([&] { return check.bytes >= total || client.closed(); }, 30_s)) << check.bytes;
    EXPECT_TRUE(check.good);
    EXPECT_EQ(check.bytes, total);
}

// Goal: what a program set for its signals is what it still has after using the library.
TEST_P(SignalTest, LeavesHandlersAndMaskAlone) {
    const auto before = dispositions();
    sigset_t mask_before, mask_after;
    pthread_sigmask(SIG_SETMASK, nullptr, &mask_before);
    exchange(GetParam(), 100'000);
    pthread_sigmask(SIG_SETMASK, nullptr, &mask_after);
    const auto after = dispositions();
    for (int signal = 1; signal < 65; ++signal) {
        EXPECT_EQ(before[std::size_t(signal)].sa_handler, after[std::size_t(signal)].sa_handler) << "signal " << signal;
        EXPECT_EQ(sigismember(&mask_before, signal), sigismember(&mask_after, signal)) << "signal " << signal;
    }
}

// Goal: sending to a peer that has gone never raises SIGPIPE.
TEST_P(SignalTest, NeverRaisesSigpipe) {
    struct sigaction standard {
    }, former{};
    standard.sa_handler = SIG_DFL;
    sigaction(SIGPIPE, &standard, &former);
    for (int round = 0; round < 20; ++round) {
        PlainPeer server, client;
        World world{GetParam()};
        ASSERT_TRUE(world.open(server, client));
        client.when_recv = client.when_writable = [](Connection& c) { c.send(pattern(1000)), c.flush(); };
        server.get()->send("x");
        server.get()->close();
        for (int i = 0; i < 10 && client.get() != nullptr; ++i) {
            client.get()->send(pattern(5000));
            client.get()->flush();
            world.loop().run_once();
        }
        EXPECT_TRUE(world.until_closed(server, client));
    }
    sigaction(SIGPIPE, &former, nullptr);
}

/// SIGUSR1 at 1 kHz to this thread, without SA_RESTART, while it lives.
class SignalStorm {
public:
    SignalStorm() {
        struct sigaction action {};
        action.sa_handler = [](int) { count_ = count_ + 1; };
        sigaction(SIGUSR1, &action, &former_);
        sigevent event{};
        event.sigev_notify = SIGEV_SIGNAL;
        event.sigev_signo = SIGUSR1;
        timer_create(CLOCK_MONOTONIC, &event, &timer_);
        const itimerspec often{{0, 1'000'000}, {0, 1'000'000}};
        timer_settime(timer_, 0, &often, nullptr);
    }
    ~SignalStorm() {
        timer_delete(timer_);
        sigaction(SIGUSR1, &former_, nullptr);
    }
    static int count() { return count_; }

private:
    static inline volatile sig_atomic_t count_ = 0;
    struct sigaction former_ {};
    timer_t timer_{};
};

// Goal: a thousand interruptions in a second change nothing.
TEST_P(SignalTest, DoesNotNoticeInterruptions) {
    const SignalStorm storm;
    const int before = SignalStorm::count();
    const Stopwatch watch;
    while (watch.elapsed() < 300_ms) exchange(GetParam(), 2u << 20);
    EXPECT_GT(SignalStorm::count(), before + 50);
}

INSTANTIATE_TEST_SUITE_P(Fault, SignalTest, connection_rows(), name_of_row);

// Goal: interrupted waits are not early timers: they come when they are due.
TEST(SignalTimerTest, KeepsTimersOnTimeUnderASignalStorm) {
    const SignalStorm storm;
    bool due = false;
    Loop loop(World::quiet());
    const Stopwatch watch;
    auto timer = loop.after(200_ms, [&] {
        EXPECT_GE(watch.elapsed(), 200_ms);
        due = true;
        loop.stop();
    });
    EXPECT_EQ(loop.run(), 0);
    EXPECT_TRUE(due);
    EXPECT_LT(watch.elapsed(), 1_s * patience);
}

// Goal: run_until_signal ends at SIGTERM and gives the mask back.
TEST(SignalRunTest, StopsAtSigtermAndRestoresTheMask) {
    sigset_t before, after;
    pthread_sigmask(SIG_SETMASK, nullptr, &before);
    PlainPeer server, client;
    Loop loop(World::quiet());
    auto listener = listen(loop, "tcp://127.0.0.1:0", server);
    ASSERT_TRUE(listener.ok());
    ASSERT_TRUE(connect(loop, listener->url(), client).ok());
    auto timer = loop.after(30_ms, [] { ::kill(getpid(), SIGTERM); });
    EXPECT_EQ(loop.run_until_signal(), 0);
    EXPECT_EQ(server.closed_with, Errc::stopped);
    EXPECT_EQ(client.closed_with, Errc::stopped);
    pthread_sigmask(SIG_SETMASK, nullptr, &after);
    for (int signal = 1; signal < 65; ++signal) EXPECT_EQ(sigismember(&before, signal), sigismember(&after, signal));
}

}  // namespace
}  // namespace evpl::test
