// Log-linear histogram of nanoseconds: 256 steps per power of two, so a quantile is within 0.4 %.
#pragma once
#include <algorithm>
#include <bit>
#include <cstdint>
#include <vector>

namespace load {

class Histogram {
public:
    void record(std::int64_t value_ns) {
        const auto value = std::uint64_t(std::max<std::int64_t>(value_ns, 0));
        ++counts_[std::min(slot_of(value), counts_.size() - 1)];
        ++total_;
        max_ = std::max(max_, value);
    }

    void clear() {
        std::fill(counts_.begin(), counts_.end(), 0);
        total_ = max_ = 0;
    }

    /// The middle of the step that holds quantile q (0 to 1), in ns; 0 when empty.
    double quantile_ns(double q) const {
        std::uint64_t left = std::max<std::uint64_t>(std::uint64_t(q * double(total_) + 0.5), 1);
        for (std::size_t slot = 0; slot < counts_.size() && total_ > 0; ++slot) {
            if (counts_[slot] >= left) return std::min(middle_of(slot), double(max_));
            left -= counts_[slot];
        }
        return double(max_);
    }
    std::uint64_t max_ns() const { return max_; }
    std::uint64_t total() const { return total_; }

private:
    static constexpr unsigned step_bits = 8;  // 256 steps per power of two
    static constexpr unsigned top_bit = 40;   // about 18 minutes

    static std::size_t slot_of(std::uint64_t value) {
        const unsigned width = unsigned(std::bit_width(value));
        if (width <= step_bits + 1) return std::size_t(value);  // exact below 512 ns
        const unsigned shift = width - step_bits - 1;
        return (std::size_t(shift) << step_bits) + std::size_t(value >> shift);
    }
    static double middle_of(std::size_t slot) {
        if (slot < (2u << step_bits)) return double(slot);
        const unsigned shift = unsigned(slot >> step_bits) - 1;
        const auto low = std::uint64_t((slot & ((1u << step_bits) - 1)) | (1u << step_bits)) << shift;
        return double(low) + double(std::uint64_t(1) << shift) / 2;
    }

    std::vector<std::uint64_t> counts_ = std::vector<std::uint64_t>((top_bit - step_bits + 1) << step_bits);
    std::uint64_t total_ = 0;
    std::uint64_t max_ = 0;
};

}  // namespace load
