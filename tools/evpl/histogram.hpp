#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>

namespace tool {

/// Which bucket a number belongs to: each power of two above 2048 is cut into 1024 buckets.
namespace log_linear {
inline constexpr unsigned digits = 10;
inline constexpr std::uint64_t half = 1u << digits;

constexpr std::size_t bucket_of(std::uint64_t n) noexcept {
    const unsigned shift = n < 2 * half ? 0 : unsigned(std::bit_width(n)) - digits - 1;
    return shift * half + (n >> shift);
}
/// The largest number that falls into bucket i.
constexpr std::uint64_t last_of(std::size_t i) noexcept {
    const std::uint64_t shift = i < 2 * half ? 0 : i / half - 1;
    return ((i - shift * half + 1) << shift) - 1;
}
static_assert(bucket_of(2047) == 2047 && last_of(2047) == 2047);
static_assert(bucket_of(2048) == 2048 && bucket_of(2049) == 2048 && last_of(2048) == 2049);
}  // namespace log_linear

/// Counts times from 1 ns to 100 s in log-linear buckets: exact below 2048 ns, and within 1/1024 above, which is three
/// significant digits. 224 KiB, all of it inside the object: record() allocates nothing and costs a few instructions.
/// One writer; histograms of several threads are merged afterwards.
class Histogram {
public:
    /// Longer times are counted as this long; max() still tells the truth.
    static constexpr std::uint64_t limit_ns = 100'000'000'000;

    void record(std::uint64_t ns) noexcept {
        ++counts_[log_linear::bucket_of(std::min(ns, limit_ns))];
        ++count_;
        sum_ += double(ns);
        min_ = std::min(min_, ns);
        max_ = std::max(max_, ns);
    }

    void merge(const Histogram& other) noexcept {
        for (std::size_t i = 0; i < buckets; ++i) counts_[i] += other.counts_[i];
        count_ += other.count_;
        sum_ += other.sum_;
        min_ = std::min(min_, other.min_);
        max_ = std::max(max_, other.max_);
    }

    void clear() noexcept { *this = Histogram{}; }

    std::uint64_t count() const noexcept { return count_; }
    std::uint64_t min() const noexcept { return count_ == 0 ? 0 : min_; }
    std::uint64_t max() const noexcept { return max_; }
    double mean() const noexcept { return count_ == 0 ? 0 : sum_ / double(count_); }

    /// The least recorded time that `percent` of all records do not exceed, rounded up to the end of its bucket but
    /// never beyond max(). 0 when nothing was recorded.
    std::uint64_t percentile(double percent) const noexcept {
        if (count_ == 0) return 0;
        // The factor keeps 99.9 % of 1000 at 999: in binary it would be a hair above.
        const double wanted = std::ceil(std::clamp(percent, 0.0, 100.0) / 100 * double(count_) * (1 - 1e-12));
        const auto rank = std::clamp<std::uint64_t>(std::uint64_t(wanted), 1, count_);
        std::uint64_t seen = 0;
        for (std::size_t i = 0; i < buckets; ++i) {
            seen += counts_[i];
            if (seen >= rank) return i + 1 == buckets ? max_ : std::clamp(log_linear::last_of(i), min_, max_);
        }
        return max_;
    }

private:
    static constexpr std::size_t buckets = log_linear::bucket_of(limit_ns) + 1;
    std::array<std::uint64_t, buckets> counts_{};
    std::uint64_t count_ = 0;
    std::uint64_t min_ = UINT64_MAX;
    std::uint64_t max_ = 0;
    double sum_ = 0;
};

}  // namespace tool
