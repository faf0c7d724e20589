// What timers cost while many are pending. Delays are drawn up to a minute, victims at random, so that nothing is in a
// cache by luck; drawing both is part of what is measured.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <cstdlib>
#include <vector>

#include "base/clock.hpp"
#include "core/timer_wheel.hpp"
#include "evpl/loop.hpp"

namespace {

using namespace evpl;

/// xorshift64*: a nanosecond a number.
class Random {
public:
    std::uint32_t below(std::uint32_t bound) noexcept { return std::uint32_t((std::uint64_t(draw()) * bound) >> 32); }
    std::uint32_t draw() noexcept {
        state_ ^= state_ >> 12;
        state_ ^= state_ << 25;
        state_ ^= state_ >> 27;
        return std::uint32_t((state_ * 0x2545f4914f6cdd1d) >> 32);
    }
    Duration delay() noexcept { return Duration::of_ns(1'000'000'000 + std::int64_t(draw()) * 14); }

private:
    std::uint64_t state_ = 0x9e3779b97f4a7c15;
};

void draw_only(benchmark::State& state) {  // what the others pay for their random numbers and handles
    const auto count = std::uint32_t(state.range(0));
    Random random;
    std::vector<Timer> timers(count);
    for (auto _ : state) {
        Timer& timer = timers[random.below(count)];
        timer.cancel();
        Duration delay = random.delay();
        benchmark::DoNotOptimize(delay);
    }
}
BENCHMARK(draw_only)->Arg(100'000);

void after_cancel(benchmark::State& state) {  // Timer::cancel() and Loop::after() at random positions, public API
    const auto count = std::uint32_t(state.range(0));
    Loop loop;
    Random random;
    std::uint64_t runs = 0;
    std::vector<Timer> timers;
    for (std::uint32_t i = 0; i < count; ++i) timers.push_back(*loop.after(random.delay(), [&runs] { ++runs; }));
    for (auto _ : state) {
        Timer& timer = timers[random.below(count)];
        timer.cancel();
        timer = *loop.after(random.delay(), [&runs] { ++runs; });
    }
    state.SetItemsProcessed(state.iterations());
    state.counters["pending"] = count;
    state.counters["ran"] = double(runs);  // expected: 0
}
BENCHMARK(after_cancel)->Arg(1)->Arg(1'000)->Arg(100'000);

void after_cancel_destructor(benchmark::State& state) {  // the same with a task that has a destructor to run
    const auto count = std::uint32_t(state.range(0));
    struct Token {
        std::uint64_t* dropped;
        explicit Token(std::uint64_t& d) noexcept : dropped(&d) {}
        Token(Token&& other) noexcept : dropped(std::exchange(other.dropped, nullptr)) {}
        ~Token() {
            if (dropped != nullptr) ++*dropped;
        }
        void operator()() const noexcept {}
    };
    std::uint64_t dropped = 0;
    Loop loop;
    Random random;
    std::vector<Timer> timers;
    for (std::uint32_t i = 0; i < count; ++i) timers.push_back(*loop.after(random.delay(), Token(dropped)));
    for (auto _ : state) {
        Timer& timer = timers[random.below(count)];
        timer.cancel();
        timer = *loop.after(random.delay(), Token(dropped));
    }
    state.SetItemsProcessed(state.iterations());
    state.counters["pending"] = count;
}
BENCHMARK(after_cancel_destructor)->Arg(100'000);

void wheel_add_cancel(benchmark::State& state) {  // the same without the clock
    const auto count = std::uint32_t(state.range(0));
    core::TimerWheel wheel;
    Random random;
    std::uint64_t runs = 0;
    const std::int64_t now_ns = base::clock_ns();
    std::vector<core::TimerHandle> timers;
    for (std::uint32_t i = 0; i < count; ++i) timers.push_back(wheel.add(now_ns, random.delay().ns, [&runs] { ++runs; }));
    for (auto _ : state) {
        core::TimerHandle& timer = timers[random.below(count)];
        core::TimerWheel::cancel(timer);
        timer = wheel.add(now_ns, random.delay().ns, [&runs] { ++runs; });
    }
    state.SetItemsProcessed(state.iterations());
    state.counters["pending"] = count;
}
BENCHMARK(wheel_add_cancel)->Arg(1)->Arg(1'000)->Arg(100'000);

void alarm_set_anew(benchmark::State& state) {  // embedded deadlines, each in a cache line of its own
    const auto count = std::uint32_t(state.range(0));
    struct alignas(64) Deadline : core::Alarm {};
    core::TimerWheel wheel;
    Random random;
    const std::int64_t now_ns = base::clock_ns();
    std::vector<Deadline> deadlines(count);
    for (Deadline& deadline : deadlines) wheel.set_alarm(deadline, now_ns, now_ns + random.delay().ns);
    for (auto _ : state) wheel.set_alarm(deadlines[random.below(count)], now_ns, now_ns + random.delay().ns);
    for (Deadline& deadline : deadlines) wheel.cancel_alarm(deadline);
    state.SetItemsProcessed(state.iterations());
}
BENCHMARK(alarm_set_anew)->Arg(100'000);

void expire_nothing(benchmark::State& state) {  // what each turn pays
    core::TimerWheel wheel;
    Random random;
    std::int64_t now_ns = base::clock_ns();
    for (std::uint32_t i = 0; i < std::uint32_t(state.range(0)); ++i) wheel.add(now_ns, random.delay().ns, [] {});
    for (auto _ : state) {
        benchmark::DoNotOptimize(wheel.expire(now_ns, 64));
        benchmark::DoNotOptimize(wheel.next_due_ns());
    }
}
BENCHMARK(expire_nothing)->Arg(0)->Arg(100'000);

void expire_all(benchmark::State& state) {  // per timer: moved down the levels, called, freed; and the longest call of all
    const auto count = std::uint32_t(state.range(0));
    const bool equal = state.range(1) != 0;  // all due at once: the largest cascades
    std::int64_t longest_ns = 0;
    std::uint64_t runs = 0;
    for (auto _ : state) {
        state.PauseTiming();
        core::TimerWheel wheel;
        Random random;
        std::int64_t now_ns = 0;
        for (std::uint32_t i = 0; i < count; ++i) wheel.add(now_ns, equal ? 30'000'000'000 : random.delay().ns, [&runs] { ++runs; });
        state.ResumeTiming();
        while (wheel.timers() > 0) {
            now_ns = std::max(now_ns, wheel.next_due_ns());
            const std::int64_t before_ns = base::clock_ns();
            wheel.expire(now_ns, 64);
            longest_ns = std::max(longest_ns, base::clock_ns() - before_ns);
        }
    }
    state.SetItemsProcessed(std::int64_t(runs));
    state.counters["ns_per_timer"] = benchmark::Counter(double(runs) / 1e9, benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
    state.counters["longest_us"] = double(longest_ns) / 1000;  // bar: 200 on a quiet machine
}
BENCHMARK(expire_all)->Args({100'000, 0})->Args({100'000, 1})->Unit(benchmark::kMillisecond);

}  // namespace
