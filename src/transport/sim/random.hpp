#pragma once

#include <cstdint>

namespace evpl::transport::sim {

/// Repeatable numbers: xoshiro256** (Blackman and Vigna, 2018), its state filled by splitmix64.
class Random {
public:
    explicit Random(std::uint64_t seed) noexcept {
        for (std::uint64_t& word : state_) {
            seed += 0x9e3779b97f4a7c15u;
            std::uint64_t z = seed;
            z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
            z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
            word = z ^ (z >> 31);
        }
    }
    std::uint64_t next() noexcept {
        const std::uint64_t result = rotate(state_[1] * 5, 7) * 9;
        const std::uint64_t shifted = state_[1] << 17;
        state_[2] ^= state_[0];
        state_[3] ^= state_[1];
        state_[1] ^= state_[2];
        state_[0] ^= state_[3];
        state_[2] ^= shifted;
        state_[3] = rotate(state_[3], 45);
        return result;
    }
    /// 0 to n - 1; n is small enough for the bias of the remainder not to matter.
    std::uint64_t below(std::uint64_t n) noexcept { return n > 1 ? next() % n : 0; }
    /// A chance of zero draws no number.
    bool chance(std::uint32_t per_mille) noexcept { return per_mille != 0 && below(1000) < per_mille; }

private:
    static std::uint64_t rotate(std::uint64_t x, int k) noexcept { return (x << k) | (x >> (64 - k)); }
    std::uint64_t state_[4];
};

}  // namespace evpl::transport::sim
