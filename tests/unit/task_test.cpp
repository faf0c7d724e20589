#include "evpl/task.hpp"

#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <stdexcept>

namespace evpl {
namespace {

TEST(TaskTest, RunsItsCallable) {
    int runs = 0;
    Task task([&runs] { ++runs; });
    EXPECT_TRUE(bool(task));
    task();
    task();
    EXPECT_EQ(runs, 2);
}

TEST(TaskTest, EmptyTaskIsFalse) { EXPECT_FALSE(bool(Task{})); }

// Goal: the capture is destroyed exactly once, wherever the task went.
TEST(TaskTest, MovesAndDestroysItsCaptureOnce) {
    auto shared = std::make_shared<int>(0);
    Task first([shared] { ++*shared; });
    EXPECT_EQ(shared.use_count(), 2);
    Task second(std::move(first));
    EXPECT_FALSE(bool(first));
    EXPECT_EQ(shared.use_count(), 2);
    second();
    Task third([] {});
    third = std::move(second);
    third();
    EXPECT_EQ(*shared, 2);
    third.reset();
    EXPECT_FALSE(bool(third));
    EXPECT_EQ(shared.use_count(), 1);
}

TEST(TaskTest, AssignmentDestroysTheFormerCapture) {
    auto former = std::make_shared<int>(0);
    Task task([former] {});
    task = Task([] {});
    EXPECT_EQ(former.use_count(), 1);
    Task& same = task;
    task = std::move(same);
    EXPECT_TRUE(bool(task));
}

TEST(TaskTest, TakesMoveOnlyCallablesOf48Bytes) {
    auto owned = std::make_unique<int>(7);
    std::array<char, 32> more{};
    int seen = 0;
    auto callable = [owned = std::move(owned), more, &seen] { seen = *owned + more[0]; };
    static_assert(sizeof(callable) == Task::room_bytes);
    Task task(std::move(callable));
    task();
    EXPECT_EQ(seen, 7);
}

TEST(TaskTest, LetsExceptionsThrough) {
    Task task([] { throw std::runtime_error("ours"); });
    EXPECT_THROW(task(), std::runtime_error);
    EXPECT_TRUE(bool(task));
}

}  // namespace
}  // namespace evpl
