#include "memory/ring_queue.hpp"

#include <gtest/gtest.h>

#include <deque>
#include <memory>
#include <utility>
#include <vector>

#include "unit/property.hpp"

namespace evpl::memory {
namespace {

/// Owns an allocation, so that a leak or a double destruction is seen; counts itself.
struct Item {
    static inline int alive = 0;
    std::unique_ptr<int> value;
    explicit Item(int v) : value(new int(v)) { ++alive; }
    Item(Item&& other) noexcept : value(std::move(other.value)) { ++alive; }
    ~Item() { --alive; }
};

TEST(RingQueueTest, KeepsOrderWhileItGrows) {
    RingQueue<Item, 2> queue;
    for (int i = 0; i < 1000; ++i) ASSERT_TRUE(queue.push(Item(i)));
    EXPECT_EQ(queue.size(), 1000u);
    for (std::uint32_t i = 0; i < 1000; ++i) EXPECT_EQ(*queue[i].value, int(i));
    EXPECT_EQ(*queue.back().value, 999);
    for (int i = 0; i < 1000; ++i) {
        EXPECT_EQ(*queue.front().value, i);
        queue.pop();
    }
    EXPECT_TRUE(queue.empty());
    EXPECT_EQ(Item::alive, 0);
}

TEST(RingQueueTest, WhatIsLeftGoesWithIt) {
    {
        RingQueue<Item, 4> queue;
        for (int i = 0; i < 7; ++i) ASSERT_TRUE(queue.push(Item(i)));
        queue.pop();
        EXPECT_EQ(Item::alive, 6);
    }
    EXPECT_EQ(Item::alive, 0);
}

TEST(RingQueueTest, StartsAgainAtItsFirstPlaceWhenItWasEmptied) {
    RingQueue<int, 4> queue;
    ASSERT_TRUE(queue.push(1));
    int* const first = &queue.front();
    for (int i = 0; i < 10; ++i) {
        queue.pop();
        ASSERT_TRUE(queue.push(int(i)));
        EXPECT_EQ(&queue.front(), first);
    }
    queue.pop();
    ASSERT_TRUE(queue.push_front(7));
    ASSERT_TRUE(queue.push(8));
    EXPECT_EQ(queue[0], 7);
    EXPECT_EQ(queue[1], 8);
    EXPECT_EQ(queue.size(), 2u);
}

TEST(RingQueueTest, ShrinksOnlyWhenEmpty) {
    RingQueue<int, 2> queue;
    for (int i = 0; i < 100; ++i) ASSERT_TRUE(queue.push(int(i)));
    int* const array = &queue.front();
    queue.shrink();
    EXPECT_EQ(&queue.front(), array);
    queue.clear();
    queue.shrink();
    queue.shrink();
    ASSERT_TRUE(queue.push(5));
    const auto* const self = reinterpret_cast<std::byte*>(&queue);
    const auto* const item = reinterpret_cast<std::byte*>(&queue.front());
    EXPECT_TRUE(item >= self && item < self + sizeof queue) << "back in the inline room";
}

TEST(RingQueueTest, RefusesMoreThanItCanCount) {
    RingQueue<int, 2> queue;
    for (int i = 0; i < 5; ++i) ASSERT_TRUE(queue.push(int(i)));
    for (const std::uint32_t more : {3'000'000'000u, UINT32_MAX, UINT32_MAX - 4}) EXPECT_FALSE(queue.reserve(more)) << more;
    EXPECT_EQ(queue.size(), 5u);
    for (std::uint32_t i = 0; i < 5; ++i) EXPECT_EQ(queue[i], int(i));
    EXPECT_TRUE(queue.reserve(0));
}

// Goal: what an element's end sets off finds the queue in order: it may push, and the queue may grow.
TEST(RingQueueTest, AnElementsEndMayUseTheQueue) {
    struct Chatty {
        RingQueue<Chatty, 2>* queue;
        int pushes;
        std::unique_ptr<int> own = std::make_unique<int>(1);
        Chatty(RingQueue<Chatty, 2>* q, int n) : queue(q), pushes(n) {}
        Chatty(Chatty&& other) noexcept : queue(std::exchange(other.queue, nullptr)), pushes(other.pushes), own(std::move(other.own)) {}
        ~Chatty() {
            for (int i = 0; queue != nullptr && i < pushes; ++i) (void)queue->push(Chatty(queue, 0));
            own.reset();
        }
    };
    RingQueue<Chatty, 2> queue;
    ASSERT_TRUE(queue.push(Chatty(&queue, 50)));
    ASSERT_TRUE(queue.push(Chatty(&queue, 0)));
    queue.pop();
    EXPECT_EQ(queue.size(), 51u);
    queue.clear();
}

// Goal: the positions wrap around the array, at each size, without a mistake.
// Method: random pushes, pops, reservations and shrinks against std::deque.
TEST(RingQueueTest, BehavesLikeADeque) {
    for_all([] {
        RingQueue<Item, 2> queue;
        std::deque<int> model;
        int next = 0;
        for (const auto& [what, n] : *rc::gen::arbitrary<std::vector<std::pair<std::uint8_t, std::uint8_t>>>()) {
            switch (what % 8) {
            case 0:
            case 1:
            case 2:
                for (int i = n % 8; i >= 0; --i) {
                    RC_ASSERT(queue.push(Item(next)));
                    model.push_back(next++);
                }
                break;
            case 3:
            case 4:
            case 5:
                for (int i = n % 9; i >= 0 && !model.empty(); --i) {
                    queue.pop();
                    model.pop_front();
                }
                break;
            case 6: RC_ASSERT(queue.reserve(n % 50)); break;
            case 7:
                if (n < 30) queue.clear(), model.clear();
                queue.shrink();
                break;
            }
            RC_ASSERT(queue.size() == model.size());
            RC_ASSERT(queue.empty() == model.empty());
            for (std::uint32_t i = 0; i < model.size(); ++i) RC_ASSERT(*queue[i].value == model[i]);
            if (!model.empty()) RC_ASSERT((*queue.front().value == model.front() && *queue.back().value == model.back()));
            RC_ASSERT(Item::alive == int(model.size()));
        }
    });
    EXPECT_EQ(Item::alive, 0);
}

}  // namespace
}  // namespace evpl::memory
