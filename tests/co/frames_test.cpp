// Where frames come from: the pool of their thread, which grows with use and shrinks without.
#include <gtest/gtest.h>

#include <array>
#include <thread>

#include "evpl/co.hpp"

extern thread_local std::size_t news;  // calls of operator new on this thread

namespace evpl::test {
namespace {

#ifdef __SANITIZE_ADDRESS__
constexpr bool pooled = false;  // a pool would hide a late use
#else
constexpr bool pooled = true;
#endif

/// How many of so many frames at a time were new.
std::size_t crowd() {
    std::array<void*, 50> frames;
    const std::size_t before = news;
    for (void*& frame : frames) frame = co::detail::take_frame(1000);
    const std::size_t made = news - before;
    for (void* frame : frames) co::detail::give_frame(frame, 1000);
    return made;
}

/// On a thread of its own, whose pool is empty.
template <class F>
void alone(F body) {
    std::thread(body).join();
}

TEST(CoFramesTest, FramesAreUsedAgain) {
    alone([] {
        EXPECT_EQ(crowd(), 50u);
        EXPECT_EQ(crowd(), pooled ? 0u : 50u);
    });
}

TEST(CoFramesTest, WhatACrowdLeftIsGivenBackWhileOthersComeAndGo) {
    alone([] {
        (void)crowd();
        for (int i = 0; i < 10'000; ++i) co::detail::give_frame(co::detail::take_frame(100), 100);
        EXPECT_EQ(crowd(), 50u);
    });
}

TEST(CoFramesTest, WhoComesAndGoesFindsAFrameEveryTime) {
    if (!pooled) GTEST_SKIP() << "frames are not pooled under AddressSanitizer";
    alone([] {
        (void)crowd();
        const std::size_t before = news;
        for (int i = 0; i < 10'000; ++i) co::detail::give_frame(co::detail::take_frame(1000), 1000);
        EXPECT_EQ(news, before);
    });
}

TEST(CoFramesTest, LargeFramesAreNotKept) {
    alone([] {
        for (int i = 0; i < 2; ++i) {
            const std::size_t before = news;
            co::detail::give_frame(co::detail::take_frame(5000), 5000);
            EXPECT_EQ(news - before, 1u);
        }
    });
}

}  // namespace
}  // namespace evpl::test
