// The ring layer by itself: full queues, tiers, threads and forked children.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <set>
#include <thread>

#include "transport/uring/ring.hpp"

namespace evpl::transport::uring {
namespace {

class RingTest : public testing::Test {
protected:
    void SetUp() override {
        if (!support().present) GTEST_SKIP() << support().reason;
    }
    static abi::Sqe idle(std::uint64_t name) {
        abi::Sqe operation;
        operation.operation = abi::op_nop;
        operation.user_data = name;
        return operation;
    }
    /// Enters until `count` operations have completed; the names seen.
    static std::multiset<std::uint64_t> collect(Ring& ring, std::size_t count) {
        std::multiset<std::uint64_t> seen;
        abi::Cqe done;
        for (int i = 0; i < 1000 && seen.size() < count; ++i) {
            EXPECT_EQ(ring.enter(0, 0), 0);
            while (ring.take(done)) seen.insert(done.user_data);
        }
        return seen;
    }
};

TEST_F(RingTest, OpensAtEachTier) {
    for (const Tier tier : {tier_6_1, tier_6_6, tier_6_15}) {
        Ring ring;
        ASSERT_TRUE(ring.open({tier, 16}).ok());
        EXPECT_LE(ring.tier(), tier);
        EXPECT_GE(ring.entries(), 16u);
        ASSERT_TRUE(ring.put(idle(7)));
        EXPECT_EQ(collect(ring, 1).count(7), 1u);
    }
}

// Goal: neither a full submission queue nor an overflowing completion queue loses an operation.
TEST_F(RingTest, KeepsEveryOperationWhenBothQueuesAreFull) {
    constexpr std::uint64_t many = 1000;
    Ring ring;
    ASSERT_TRUE(ring.open({tier_most, 8}).ok());
    ASSERT_LT(ring.entries() * completions_per_entry, many);
    for (std::uint64_t i = 1; i <= many; ++i) ASSERT_TRUE(ring.put(idle(i)));
    const auto seen = collect(ring, many);
    EXPECT_EQ(seen.size(), many);
    for (std::uint64_t i = 1; i <= many; ++i) EXPECT_EQ(seen.count(i), 1u) << i;
    EXPECT_FALSE(ring.has_submissions());
    EXPECT_FALSE(ring.has_completions());
}

// Goal: an operation that the kernel has not seen can be taken back.
TEST_F(RingTest, ForgetsWhatWasNotSubmitted) {
    Ring ring;
    ASSERT_TRUE(ring.open({tier_most, 8}).ok());
    ASSERT_TRUE(ring.put(idle(5)));
    EXPECT_TRUE(ring.is_queued(ring.last_put()));
    EXPECT_TRUE(ring.forget(5));
    EXPECT_FALSE(ring.forget(5));
    const auto seen = collect(ring, 1);
    EXPECT_EQ(seen.count(5), 0u);
    EXPECT_EQ(seen.count(0), 1u);
    EXPECT_FALSE(ring.is_queued(ring.last_put()));
}

TEST_F(RingTest, CancelsWhatWaits) {
    int pipes[2];
    ASSERT_EQ(pipe(pipes), 0);
    Ring ring;
    ASSERT_TRUE(ring.open({tier_most, 8}).ok());
    abi::Sqe poll;
    poll.operation = abi::op_poll_add;
    poll.fd = pipes[0];
    poll.operation_flags = 1;  // POLLIN
    poll.user_data = 9;
    ASSERT_TRUE(ring.put(poll));
    ASSERT_EQ(ring.enter(0, 0), 0);
    EXPECT_FALSE(ring.has_completions());
    ring.cancel_now(9);
    abi::Cqe done{};
    for (int i = 0; i < 100 && !ring.take(done); ++i) (void)ring.enter(0, 0);
    EXPECT_EQ(done.user_data, 9u);
    EXPECT_EQ(done.result, -ECANCELED);
    close(pipes[0]);
    close(pipes[1]);
}

TEST_F(RingTest, WaitsNoLongerThanAsked) {
    Ring ring;
    ASSERT_TRUE(ring.open({tier_most, 8}).ok());
    EXPECT_EQ(ring.enter(1, 1'000'000), ETIME);
}

// Goal: a ring that is asked to collects completions for a while before it wakes, but not beyond a batch of them.
TEST_F(RingTest, CollectsCompletionsForItsLeastWait) {
    constexpr std::int64_t least_us = 30'000, least_ns = least_us * 1000;
    Ring ring;
    ASSERT_TRUE(ring.open({tier_most, 64, std::uint32_t(least_us)}).ok());
    if (!ring.has_least_wait()) GTEST_SKIP() << "this kernel has no least wait (Linux 6.12)";
    const auto nanoseconds_for = [&](int operations) {
        for (int i = 0; i < operations; ++i) EXPECT_TRUE(ring.put(idle(7)));
        const auto began = std::chrono::steady_clock::now();
        EXPECT_EQ(ring.enter(1, 60'000'000'000), 0);
        const auto took = std::chrono::steady_clock::now() - began;
        abi::Cqe done;
        while (ring.take(done)) --operations;
        EXPECT_EQ(operations, 0);
        return std::chrono::duration_cast<std::chrono::nanoseconds>(took).count();
    };
    EXPECT_GE(nanoseconds_for(1), least_ns);
    std::int64_t fastest = INT64_MAX;
    for (int i = 0; i < 5; ++i) fastest = std::min(fastest, nanoseconds_for(40));
    EXPECT_LT(fastest, least_ns) << "a batch is enough";
}

// Goal: the thread that entered first has the ring; another one is told, and breaks nothing.
TEST_F(RingTest, BelongsToTheThreadThatEnteredFirst) {
    Ring ring;
    ASSERT_TRUE(ring.open({tier_most, 8}).ok());
    ASSERT_EQ(ring.enter(0, 0), 0);
    std::thread([&ring] {
        EXPECT_FALSE(ring.usable());
        EXPECT_FALSE(ring.put(idle(1)));
        EXPECT_EQ(ring.enter(0, 0), EOWNERDEAD);
    }).join();
    ASSERT_TRUE(ring.put(idle(2)));
    EXPECT_EQ(collect(ring, 1).count(2), 1u);
}

// Goal: a forked child, which shares the ring's memory, cannot disturb its parent, and can have a ring of its own.
TEST_F(RingTest, IsDeadInAForkedChild) {
    Ring ring;
    ASSERT_TRUE(ring.open({tier_most, 8}).ok());
    ASSERT_TRUE(ring.put(idle(3)));
    const pid_t child = fork();
    if (child == 0) {
        bool good = !ring.usable() && !ring.put(idle(4)) && ring.enter(0, 0) == EOWNERDEAD && !ring.forget(3);
        Ring own;
        good = good && own.open({tier_most, 8}).ok() && own.put(idle(5)) && own.enter(0, 0) == 0 && !ring.usable();
        _exit(good ? 7 : 1);
    }
    ASSERT_GT(child, 0);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(WEXITSTATUS(status), 7);
    const auto seen = collect(ring, 1);
    EXPECT_EQ(seen.count(3), 1u);
    EXPECT_EQ(seen.count(4), 0u);
}

}  // namespace
}  // namespace evpl::transport::uring
