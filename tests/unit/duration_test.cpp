#include "evpl/duration.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <ratio>
#include <type_traits>

namespace evpl {
namespace {

TEST(DurationTest, LiteralsCountNanoseconds) {
    EXPECT_EQ((1_ns).ns, 1);
    EXPECT_EQ((1_us).ns, 1'000);
    EXPECT_EQ((1_ms).ns, 1'000'000);
    EXPECT_EQ((1_s).ns, 1'000'000'000);
    EXPECT_EQ((1_min).ns, 60'000'000'000);
}

TEST(DurationTest, AcceptsChronoDurations) {
    using namespace std::chrono_literals;
    EXPECT_EQ(Duration(3s), 3_s);
    EXPECT_EQ(Duration(1500us), 1500_us);
    EXPECT_EQ(Duration(2h), 120_min);
    EXPECT_EQ(Duration(-5ms).ns, -5'000'000);
    EXPECT_EQ(Duration(std::chrono::duration<double>(0.25)), 250_ms);
    EXPECT_EQ(Duration(std::chrono::nanoseconds(INT64_MAX - 1)).ns, INT64_MAX - 1);  // no precision is lost on the way
}

TEST(DurationTest, RoundsTowardsZero) {
    using Picoseconds = std::chrono::duration<long long, std::pico>;
    EXPECT_EQ(Duration(Picoseconds(1999)).ns, 1);
    EXPECT_EQ(Duration(Picoseconds(-1999)).ns, -1);
}

TEST(DurationTest, ComparesAndCalculates) {
    EXPECT_LT(1_ms, 1_s);
    EXPECT_EQ(1_s + 500_ms - 200_ms, 1300_ms);
    EXPECT_EQ(10_ms * 3, 30_ms);
    EXPECT_LT(1'000'000_min, Duration::forever());
}

TEST(DurationTest, LimitsAreFitForCoroutines) {
    static_assert(std::is_trivially_destructible_v<Limit>);
    EXPECT_EQ(within(3_s).duration, 3_s);
    EXPECT_EQ(Limit{}.duration, Duration::forever());
}

}  // namespace
}  // namespace evpl
