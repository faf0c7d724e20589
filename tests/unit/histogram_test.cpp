#include "../../tools/evpl/histogram.hpp"

#include <algorithm>
#include <memory>
#include <random>
#include <vector>

#include <gtest/gtest.h>

namespace {

using tool::Histogram;

std::unique_ptr<Histogram> empty() { return std::make_unique<Histogram>(); }

/// The exact answer, from all values.
std::uint64_t exact(std::vector<std::uint64_t> values, double percent) {
    std::sort(values.begin(), values.end());
    const auto rank = std::size_t(std::ceil(percent / 100 * double(values.size()) - 1e-9));
    return values[std::max<std::size_t>(rank, 1) - 1];
}

TEST(Histogram, OfNothingAnswersZero) {
    const auto h = empty();
    EXPECT_EQ(h->count(), 0u);
    EXPECT_EQ(h->min(), 0u);
    EXPECT_EQ(h->max(), 0u);
    EXPECT_EQ(h->mean(), 0);
    EXPECT_EQ(h->percentile(50), 0u);
    EXPECT_EQ(h->percentile(100), 0u);
}

TEST(Histogram, OfOneValueGivesItForEveryPercentile) {
    for (const std::uint64_t value : {0ull, 1ull, 2047ull, 2048ull, 123'456'789ull, 99'999'999'999ull}) {
        const auto h = empty();
        h->record(value);
        for (const double p : {0.0, 50.0, 99.999, 100.0}) EXPECT_EQ(h->percentile(p), value) << p;
        EXPECT_EQ(h->min(), value);
        EXPECT_EQ(h->max(), value);
        EXPECT_EQ(h->mean(), double(value));
    }
}

TEST(Histogram, IsExactBelow2048) {
    const auto h = empty();
    for (std::uint64_t i = 1; i <= 1000; ++i) h->record(i);
    EXPECT_EQ(h->percentile(50), 500u);
    EXPECT_EQ(h->percentile(99), 990u);
    EXPECT_EQ(h->percentile(99.9), 999u);
    EXPECT_EQ(h->percentile(99.99), 1000u);
    EXPECT_DOUBLE_EQ(h->mean(), 500.5);
}

TEST(Histogram, KeepsThreeDigitsFromOneNanosecondToHundredSeconds) {
    std::mt19937_64 random(7);
    std::uniform_real_distribution<double> exponent(0, 11);  // 1 ns .. 100 s, evenly over the powers of ten
    std::vector<std::uint64_t> values;
    const auto h = empty();
    for (int i = 0; i < 200'000; ++i) {
        values.push_back(std::uint64_t(std::pow(10.0, exponent(random))));
        h->record(values.back());
    }
    for (const double p : {0.1, 1.0, 10.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999, 100.0}) {
        const auto want = double(exact(values, p));
        EXPECT_GE(double(h->percentile(p)), want) << p;
        EXPECT_LE(double(h->percentile(p)), want * (1 + 1.0 / 1024) + 1) << p;
    }
    EXPECT_EQ(h->max(), exact(values, 100));
}

TEST(Histogram, BucketsAreContiguousAndOrdered) {
    using namespace tool::log_linear;
    for (std::size_t i = 0; i < bucket_of(Histogram::limit_ns); ++i) {
        ASSERT_EQ(bucket_of(last_of(i)), i);
        ASSERT_EQ(bucket_of(last_of(i) + 1), i + 1);
    }
}

TEST(Histogram, CountsWhatIsBeyondItsRangeAndTellsItsTrueMaximum) {
    const auto h = empty();
    h->record(10);
    h->record(UINT64_MAX);
    EXPECT_EQ(h->count(), 2u);
    EXPECT_EQ(h->percentile(50), 10u);
    EXPECT_EQ(h->percentile(100), UINT64_MAX);
    EXPECT_EQ(h->max(), UINT64_MAX);
}

TEST(Histogram, MergedEqualsRecordedTogether) {
    std::mt19937_64 random(11);
    const auto all = empty(), one = empty(), two = empty();
    for (int i = 0; i < 50'000; ++i) {
        const std::uint64_t value = random() % 10'000'000;
        all->record(value);
        (i % 3 == 0 ? one : two)->record(value);
    }
    one->merge(*two);
    EXPECT_EQ(one->count(), all->count());
    EXPECT_EQ(one->min(), all->min());
    EXPECT_EQ(one->max(), all->max());
    EXPECT_DOUBLE_EQ(one->mean(), all->mean());
    for (double p = 0; p <= 100; p += 0.5) EXPECT_EQ(one->percentile(p), all->percentile(p)) << p;
    const std::uint64_t before = one->count();
    one->merge(*empty());
    EXPECT_EQ(one->count(), before);
    EXPECT_EQ(one->min(), all->min());
}

TEST(Histogram, ClearForgets) {
    const auto h = empty();
    h->record(5);
    h->clear();
    EXPECT_EQ(h->count(), 0u);
    EXPECT_EQ(h->percentile(100), 0u);
    h->record(7);
    EXPECT_EQ(h->min(), 7u);
}

// Recording must not allocate: everything it touches lies inside the object.
static_assert(std::is_trivially_copyable_v<Histogram>);
static_assert(noexcept(std::declval<Histogram&>().record(1)));

}  // namespace
