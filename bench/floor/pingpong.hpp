// Shared by the two in-process floors: a single-producer single-consumer ring of 64-byte messages,
// pinning, and the report.
#pragma once
#include <sched.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

struct Message {
    std::uint64_t words[8];
};
static_assert(sizeof(Message) == 64);

// Each side keeps the other's index as it last saw it and looks again only when that says full or
// empty, so that a message costs two cache lines: the slot and the head.
class Ring {
public:
    static constexpr std::uint64_t slots = 64;

    bool push(const Message& message) {
        const auto at = head_.load(std::memory_order_relaxed);
        if (at - tail_seen_ == slots && at - (tail_seen_ = tail_.load(std::memory_order_acquire)) == slots) return false;
        messages_[at % slots] = message;
        head_.store(at + 1, std::memory_order_release);
        return true;
    }
    bool pop(Message& message) {
        const auto at = tail_.load(std::memory_order_relaxed);
        if (at == head_seen_ && at == (head_seen_ = head_.load(std::memory_order_acquire))) return false;
        message = messages_[at % slots];
        tail_.store(at + 1, std::memory_order_release);
        return true;
    }

private:
    alignas(64) std::atomic<std::uint64_t> head_{0};  // written by the producer
    alignas(64) std::uint64_t tail_seen_ = 0;         // producer only
    alignas(64) std::atomic<std::uint64_t> tail_{0};  // written by the consumer
    alignas(64) std::uint64_t head_seen_ = 0;         // consumer only
    alignas(64) Message messages_[slots];
};

inline std::int64_t now_ns() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1'000'000'000LL + t.tv_nsec;
}

inline void pin_to(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set)) perror("sched_setaffinity");
}

inline double seconds_from(int argc, char** argv) {
    for (int i = 1; i + 1 < argc; ++i)
        if (!strcmp(argv[i], "--seconds")) return atof(argv[i + 1]);
    return 1.0;
}

// Runs round_trip() for a tenth of the time unmeasured, then for all of it, and prints one JSON line.
template <class RoundTrip>
void measure(const char* name, double seconds, RoundTrip&& round_trip) {
    const auto warm_until = now_ns() + std::int64_t(seconds * 1e8);
    while (now_ns() < warm_until) round_trip();
    std::vector<std::int64_t> took_ns;
    took_ns.reserve(1u << 24);
    const auto begin = now_ns(), end = begin + std::int64_t(seconds * 1e9);
    auto last = begin;
    while (last < end && took_ns.size() < took_ns.capacity()) {
        round_trip();
        const auto now = now_ns();
        took_ns.push_back(now - last);
        last = now;
    }
    std::sort(took_ns.begin(), took_ns.end());
    const auto at = [&](double q) { return took_ns[std::size_t(q * double(took_ns.size() - 1))]; };
    printf("{\"name\": \"%s\", \"round_trips\": %zu, \"mean_ns\": %.1f, \"p50_ns\": %lld, \"p99_ns\": %lld}\n", name, took_ns.size(),
           double(last - begin) / double(took_ns.size()), (long long)at(0.5), (long long)at(0.99));
}
