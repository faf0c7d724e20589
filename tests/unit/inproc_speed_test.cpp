// What a message over inproc costs: allocations (none), and time against a bare ring. Times are reported, not judged: the machine may be busy.
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "unit/inproc_world.hpp"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define EVPL_COUNTS_ALLOCATIONS 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define EVPL_COUNTS_ALLOCATIONS 0
#endif
#endif
#ifndef EVPL_COUNTS_ALLOCATIONS
#define EVPL_COUNTS_ALLOCATIONS 1
#endif

#if EVPL_COUNTS_ALLOCATIONS
namespace {
std::atomic<std::uint64_t> allocations{0};
}
// operator new ends here, too. The C library's own entry does the work.
extern "C" void* __libc_malloc(std::size_t);
extern "C" [[gnu::weak]] void* malloc(std::size_t bytes) {
    allocations.fetch_add(1, std::memory_order_relaxed);
    return __libc_malloc(bytes);
}
#endif

namespace evpl::transport::inproc_test {
namespace {

std::uint64_t allocations_so_far() {
#if EVPL_COUNTS_ALLOCATIONS
    return allocations.load(std::memory_order_relaxed);
#else
    return 0;
#endif
}

/// Takes note of sizes only.
class Meter final : public Sink {
public:
    void opened() override { open = true; }
    void delivered(Buffer&& bytes, const Arrival&) override {
        received += bytes.size();
        last = std::move(bytes);
    }
    void landed(std::uint32_t) override {}
    void ended() override {}
    void sent(std::size_t bytes) override { sent_bytes += bytes; }
    void send_failed(Error) override {}
    void writable() override { may_write = true; }
    void completed(OperationId, Error, Buffer&&) override {}
    void closed(Error) override {}
    void retired() override { over = true; }

    SendQueue outbox;
    Link* link = nullptr;
    Buffer last;
    std::uint64_t received = 0, sent_bytes = 0;
    bool open = false, over = false, may_write = false;
};

struct MeterDoor final : Acceptor {
    Meter* meter = nullptr;
    bool accepted(Link& link) override {
        link.sink = meter;
        link.outbox = &meter->outbox;
        meter->link = &link;
        return true;
    }
    bool taken(int, const Address&) override { return false; }
    void paused(Error) override {}
    void failed(Error) override {}
};

struct MeterPair {
    explicit MeterPair(bool two_loops) : second(two_loops ? std::make_unique<FakeLoop>() : nullptr), b(two_loops ? *second : a) {
        const Endpoint at = endpoint(fresh_name("meter"));
        Diagnostic why;
        door.meter = &server;
        b.enter();
        EXPECT_TRUE(b.port->listen(at, false, door, why).ok());
        a.enter();
        auto made = a.port->connect(at, Address{}, client, client.outbox, why);
        EXPECT_TRUE(made.ok());
        client.link = *made;
        for (int i = 0; i < 5; ++i) turn();
        EXPECT_TRUE(client.open && server.open);
    }
    ~MeterPair() {
        drop();
        a.enter();
        a.port->close(*client.link, How::abort);
        for (int i = 0; i < 5; ++i) turn();
        EXPECT_TRUE(client.over && server.over);
    }
    void turn() {
        a.turn();
        b.turn();
    }
    void drop() {
        a.enter();
        client.last.reset();
        b.enter();
        server.last.reset();
    }
    FakeLoop a;
    std::unique_ptr<FakeLoop> second;
    FakeLoop& b;
    MeterDoor door;
    Meter client, server;
};

void expect_no_allocations(bool two_loops, std::uint32_t size, int count) {
    MeterPair pair(two_loops);
    std::uint64_t before = 0, system_before = 0;
    for (int i = -count / 10; i < count; ++i) {
        if (i == 0) {
            before = allocations_so_far();
            system_before = pair.a.heap().allocations() + pair.b.heap().allocations();
        }
        pair.a.enter();
        auto slice = pair.a.heap().allocate(size);
        ASSERT_TRUE(slice.ok());
        ASSERT_TRUE(pair.client.outbox.push(*std::move(slice)));
        if (i % 16 == 0) pair.a.port->flush(*pair.client.link);
        if (i % 16 == 0) pair.turn();
    }
    const std::uint64_t during = allocations_so_far() - before;
    EXPECT_EQ(during, 0u);
    EXPECT_EQ(pair.a.heap().allocations() + pair.b.heap().allocations(), system_before);
    pair.a.port->flush(*pair.client.link);
    for (int i = 0; i < 20; ++i) pair.turn();
    pair.drop();
}

// Sanitizers see the same paths in fewer rounds.
constexpr int million = EVPL_COUNTS_ALLOCATIONS ? 1'000'000 : 20'000;

TEST(InprocSpeedTest, AllocatesNothingForAMillionSmallMessages) { expect_no_allocations(true, 64, million); }
TEST(InprocSpeedTest, AllocatesNothingForLargeMessages) { expect_no_allocations(true, 8192, million / 10); }
TEST(InprocSpeedTest, AllocatesNothingWithinOneLoop) {
    expect_no_allocations(false, 64, million / 10);
    expect_no_allocations(false, 8192, million / 10);
}

#if EVPL_COUNTS_ALLOCATIONS
TEST(InprocSpeedTest, CountsAllocations) {
    const std::uint64_t before = allocations_so_far();
    void* volatile array = std::malloc(100);
    std::free(array);
    if (allocations_so_far() == before) GTEST_SKIP() << "another malloc is linked in: only the heaps' own counts were checked";
}
#endif

// -- time ------------------------------------------------------------------------------------------------------

struct Words {
    std::uint64_t words[8];
};

/// The floor: a single-producer single-consumer ring of 64-byte messages (as bench/floor/shm_ring.cpp).
class BareRing {
public:
    void push(const Words& words) {
        const auto at = head_.load(std::memory_order_relaxed);
        words_[at % 64] = words;
        head_.store(at + 1, std::memory_order_release);
    }
    bool pop(Words& words) {
        if (at_ == seen_ && at_ == (seen_ = head_.load(std::memory_order_acquire))) return false;
        words = words_[at_++ % 64];
        return true;
    }

private:
    alignas(64) std::atomic<std::uint64_t> head_{0};
    alignas(64) std::uint64_t at_ = 0, seen_ = 0;
    alignas(64) Words words_[64];
};

void pin_to(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    sched_setaffinity(0, sizeof set, &set);
}

std::int64_t clock_ns() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1'000'000'000LL + t.tv_nsec;
}

/// The shortest mean of several short runs, within a third of a second: the machine's other work only ever adds.
template <class RoundTrip>
double best_ns(RoundTrip round_trip, int runs, int count) {
    double best = 1e18;
    const std::int64_t until = clock_ns() + 330'000'000;
    for (int run = 0; run < runs && (run == 0 || clock_ns() < until); ++run) {
        const std::int64_t start = clock_ns();
        for (int i = 0; i < count; ++i) round_trip();
        best = std::min(best, double(clock_ns() - start) / count);
    }
    return best;
}

class Pinned {
public:
    Pinned() {
        sched_getaffinity(0, sizeof before_, &before_);
        pin_to(1);
    }
    ~Pinned() { sched_setaffinity(0, sizeof before_, &before_); }

private:
    cpu_set_t before_;
};

double bare_ring_ns(int runs, int count) {
    auto there = std::make_unique<BareRing>(), back = std::make_unique<BareRing>();
    std::thread echo([&] {
        pin_to(0);
        for (Words words;;) {
            while (!there->pop(words)) {}
            back->push(words);
            if (words.words[0] == 0) return;
        }
    });
    Words words{{1}};
    const auto round_trip = [&] {
        there->push(words);
        while (!back->pop(words)) {}
    };
    const double ns = best_ns(round_trip, runs, count);
    words.words[0] = 0;
    round_trip();
    echo.join();
    return ns;
}

void echo_once(FakeLoop& loop, Meter& end, std::uint64_t& seen) {
    loop.port->poll(64);
    if (end.received == seen) return;
    seen = end.received;
    static_cast<void>(end.outbox.push(std::move(end.last)));
    loop.port->flush(*end.link);
}

/// The first byte of the message decides: zero ends the echo.
double inproc_ns(std::uint32_t size, int runs, int count) {
    MeterPair pair(true);
    memory::Heap::set_current(nullptr);
    std::atomic<bool> stop{false};
    std::thread echo([&] {
        pin_to(0);
        pair.b.enter();
        std::uint64_t seen = 0;
        while (!stop.load(std::memory_order_relaxed)) {
            for (int i = 0; i < 100; ++i) echo_once(pair.b, pair.server, seen);
            pair.b.heap().drain_returns();
            memory::Heap::current()->flush_departures();
        }
        memory::Heap::set_current(nullptr);
    });
    pair.a.enter();
    auto first = pair.a.heap().allocate(size);
    EXPECT_TRUE(first.ok());
    std::memset(first->data(), 1, size);
    pair.client.last = *std::move(first);
    const auto round_trip = [&] {
        const std::uint64_t before = pair.client.received;
        static_cast<void>(pair.client.outbox.push(std::move(pair.client.last)));
        pair.a.port->flush(*pair.client.link);
        while (pair.client.received < before + size) pair.a.port->poll(64);
    };
    const double ns = best_ns(round_trip, runs, count);
    stop = true;
    echo.join();
    return ns;
}

TEST(InprocSpeedTest, ReportsRoundTripsBetweenTwoThreads) {
    if (std::thread::hardware_concurrency() < 2) GTEST_SKIP() << "needs two processors";
    const Pinned pinned;
    constexpr int runs = 100, count = 500;
    const double ring = bare_ring_ns(runs, count);
    std::printf("bare ring of 64 B: %.0f ns there and back\n", ring);
    RecordProperty("ring_ns", int(ring));
    for (const std::uint32_t size : {16u, 64u, 256u, 4096u}) {
        const double ns = inproc_ns(size, runs, count);
        std::printf("inproc %4u B: %.0f ns there and back, %.2f of the bare ring\n", size, ns, ns / ring);
        RecordProperty("inproc_" + std::to_string(size) + "_ns", int(ns));
        EXPECT_GT(ns, 0);
    }
}

TEST(InprocSpeedTest, ReportsMessagesOneWay) {
    if (std::thread::hardware_concurrency() < 2) GTEST_SKIP() << "needs two processors";
    const Pinned pinned;
    constexpr int runs = 50, batch = 32;
    for (const std::uint32_t size : {64u, 65536u}) {
        const int messages = size > 1000 ? 320 : 3200;
        MeterPair pair(true);
        std::atomic<bool> done{false};
        std::thread reader([&] {
            pin_to(0);
            pair.b.enter();
            while (!done.load(std::memory_order_relaxed)) {
                pair.b.port->poll(64);
                pair.server.last.reset();
                pair.b.heap().drain_returns();
                memory::Heap::current()->flush_departures();
            }
            memory::Heap::set_current(nullptr);
        });
        pair.a.enter();
        const auto send_batch = [&] {
            for (int k = 0; k < batch; ++k) {
                auto slice = pair.a.heap().allocate(size);
                if (slice) static_cast<void>(pair.client.outbox.push(*std::move(slice)));
            }
            while (pair.a.port->flush(*pair.client.link) == Flushed::blocked) {
                while (!std::exchange(pair.client.may_write, false)) pair.a.port->poll(64);
            }
            pair.a.heap().drain_returns();
        };
        const double ns = best_ns(send_batch, runs, messages / batch) / batch;
        done = true;
        reader.join();
        std::printf("inproc one way, %u B: %.0f ns per message\n", size, ns);
        for (int i = 0; i < 50; ++i) pair.turn();
    }
}

}  // namespace
}  // namespace evpl::transport::inproc_test
