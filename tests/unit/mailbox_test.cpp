#include "core/mailbox.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

namespace evpl::core {
namespace {

constexpr auto run = [](Task& task) { task(); };

TEST(MailboxTest, KeepsOrderThroughRingAndOverflow) {
    Mailbox mailbox;
    std::vector<int> seen;
    constexpr int count = 5000;  // several times the ring
    EXPECT_TRUE(mailbox.empty());
    for (int i = 0; i < count; ++i) ASSERT_TRUE(mailbox.post([&seen, i] { seen.push_back(i); }));
    EXPECT_FALSE(mailbox.empty());
    while (!mailbox.empty()) EXPECT_GT(mailbox.drain(7, run), 0u);
    ASSERT_EQ(seen.size(), std::size_t(count));
    for (int i = 0; i < count; ++i) EXPECT_EQ(seen[std::size_t(i)], i);
}

// Goal: a post made while overflowed tasks wait on the consumer's side does not overtake them.
TEST(MailboxTest, LaterPostsDoNotOvertakeTheOverflow) {
    Mailbox mailbox;
    std::vector<int> seen;
    int next = 0;
    const auto post = [&] {
        ASSERT_TRUE(mailbox.post([&seen, i = next] { seen.push_back(i); }));
        ++next;
    };
    for (int i = 0; i < 1100; ++i) post();
    mailbox.drain(1030, run);  // into the overflow, which is now taken
    for (int i = 0; i < 2000; ++i) post();
    while (!mailbox.empty()) mailbox.drain(64, run);
    ASSERT_EQ(seen.size(), std::size_t(next));
    for (int i = 0; i < next; ++i) EXPECT_EQ(seen[std::size_t(i)], i);
}

TEST(MailboxTest, BudgetBoundsTasksPostedByTasks) {
    Mailbox mailbox;
    struct Again {
        Mailbox& mailbox;
        void operator()() const { EXPECT_TRUE(mailbox.post(Again{mailbox})); }
    };
    ASSERT_TRUE(mailbox.post(Again{mailbox}));
    EXPECT_EQ(mailbox.drain(100, run), 100u);
    EXPECT_FALSE(mailbox.empty());
}

TEST(MailboxTest, ClosedMailboxRefusesAndLeavesTheTaskAlone) {
    Mailbox mailbox;
    int runs = 0;
    ASSERT_TRUE(mailbox.post([&] { ++runs; }));
    mailbox.close();
    mailbox.close();  // twice is once
    Task refused([&] { runs += 100; });
    EXPECT_FALSE(mailbox.post(std::move(refused)));
    EXPECT_TRUE(bool(refused));
    EXPECT_EQ(mailbox.drain(64, run), 1u);
    EXPECT_EQ(runs, 1);
}

TEST(MailboxTest, DiscardDestroysWithoutRunning) {
    auto captured = std::make_shared<int>(0);
    Mailbox mailbox;
    for (int i = 0; i < 3000; ++i) ASSERT_TRUE(mailbox.post([captured] { ++*captured; }));
    mailbox.drain(1500, run);
    mailbox.close();
    mailbox.discard();
    EXPECT_EQ(captured.use_count(), 1);
    EXPECT_EQ(*captured, 1500);
    EXPECT_TRUE(mailbox.empty());
}

TEST(MailboxTest, DestructorDestroysWhatIsLeft) {
    auto captured = std::make_shared<int>(0);
    {
        Mailbox mailbox;
        for (int i = 0; i < 3000; ++i) ASSERT_TRUE(mailbox.post([captured] {}));
    }
    EXPECT_EQ(captured.use_count(), 1);
}

// Goal: a control block that serves the next loop refuses posts meant for the former one.
TEST(MailboxTest, ReopenedMailboxRefusesTheFormerEpoch) {
    Mailbox mailbox;
    const std::uint32_t former = mailbox.epoch();
    ASSERT_TRUE(mailbox.post([] {}, former));
    mailbox.close();
    mailbox.discard();
    const std::uint32_t present = mailbox.reopen();
    EXPECT_NE(former, present);
    EXPECT_EQ(mailbox.epoch(), present);
    EXPECT_FALSE(mailbox.post([] {}, former));
    EXPECT_TRUE(mailbox.post([] {}, present));
    EXPECT_EQ(mailbox.drain(64, run), 1u);
}

TEST(MailboxTest, ThrowingRunConsumesItsTaskOnly) {
    Mailbox mailbox;
    int runs = 0;
    ASSERT_TRUE(mailbox.post([] { throw std::runtime_error("ours"); }));
    ASSERT_TRUE(mailbox.post([&] { ++runs; }));
    EXPECT_THROW(mailbox.drain(64, run), std::runtime_error);
    EXPECT_EQ(mailbox.drain(64, run), 1u);
    EXPECT_EQ(runs, 1);
}

// Goal: order per poster while the ring overflows and empties again and again.
TEST(MailboxTest, KeepsOrderPerPosterAcrossThreads) {
    constexpr int posters = 4, each = 50'000;
    Mailbox mailbox;
    std::vector<int> next(posters, 0);
    int wrong = 0;
    std::vector<std::thread> threads;
    for (int p = 0; p < posters; ++p)
        threads.emplace_back([&, p] {
            for (int i = 0; i < each; ++i) ASSERT_TRUE(mailbox.post([&next, &wrong, p, i] { wrong += next[std::size_t(p)]++ != i; }));
        });
    unsigned done = 0, round = 0;
    while (done < posters * each) {
        done += mailbox.drain(++round % 3 == 0 ? 5000 : 13, run);
        if (round % 64 == 0) std::this_thread::yield();  // lets the ring fill
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(wrong, 0);
    EXPECT_TRUE(mailbox.empty());
}

// Goal: whatever races with close(), each task is run, discarded or refused exactly once, and accepted ones end here.
TEST(MailboxTest, CloseRacesLoseAndRepeatNothing) {
    constexpr int posters = 3;
    for (int round = 0; round < 300; ++round) {
        std::atomic<int> alive{0}, accepted{0};
        int ran = 0;
        struct Counted {
            std::atomic<int>* alive;
            int* ran;
            Counted(std::atomic<int>& a, int& r) : alive(&a), ran(&r) { ++*alive; }
            Counted(Counted&& from) noexcept : alive(std::exchange(from.alive, nullptr)), ran(from.ran) {}
            ~Counted() {
                if (alive != nullptr) --*alive;
            }
            void operator()() const { ++*ran; }
        };
        {
            Mailbox mailbox;
            std::vector<std::thread> threads;
            for (int p = 0; p < posters; ++p)
                threads.emplace_back([&] {
                    while (mailbox.post(Counted{alive, ran})) ++accepted;
                });
            unsigned drained = 0;
            while (drained < unsigned(round * 20)) drained += mailbox.drain(64, run);
            mailbox.close();
            if (round % 2 == 0) mailbox.discard();
            else
                while (mailbox.drain(64, run) > 0) {}
            for (std::thread& thread : threads) thread.join();
            if (round % 2 != 0) {
                mailbox.drain(UINT32_MAX, run);
                EXPECT_EQ(ran, accepted.load());
            }
        }
        ASSERT_EQ(alive.load(), 0);
    }
}

// Goal: the ring is made once although several threads post first.
TEST(MailboxTest, FirstPostsRace) {
    for (int round = 0; round < 200; ++round) {
        Mailbox mailbox;
        std::atomic<int> ready{0};
        int runs = 0;
        std::vector<std::thread> threads;
        for (int p = 0; p < 2; ++p)
            threads.emplace_back([&] {
                for (++ready; ready < 2;) std::this_thread::yield();
                ASSERT_TRUE(mailbox.post([&] { ++runs; }));
            });
        for (std::thread& thread : threads) thread.join();
        mailbox.drain(64, run);
        ASSERT_EQ(runs, 2);
    }
}

}  // namespace
}  // namespace evpl::core
