#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <span>
#include <vector>

#include <evpl/chain.hpp>
#include <evpl/loop.hpp>

namespace tool {

/// The bytes perf sends: byte p of a connection is table[(p + seed) % period]. The table holds two periods, so that any
/// piece of up to one period is contiguous: making and checking run at the speed of memcpy and memcmp. The period is
/// prime, so no message, block or page size divides it: a lost, doubled or swapped piece shows.
class Pattern {
public:
    static constexpr std::size_t period = 65521;

    explicit Pattern(std::uint64_t seed) : table_(2 * period) {
        std::mt19937_64 random(seed);
        for (std::size_t i = 0; i < period; ++i) table_[i] = table_[i + period] = std::byte(random());
    }

    /// Bytes [at, at + n), n up to one period.
    std::span<const std::byte> bytes(std::uint64_t at, std::size_t n) const noexcept { return std::span(table_).subspan(at % period, n); }

    /// How many bytes of `got` agree with the pattern from `at` on: got.size() when all is well.
    std::size_t agreeing(std::uint64_t at, std::span<const std::byte> got) const noexcept {
        for (std::size_t done = 0; done < got.size();) {
            const std::size_t n = std::min(got.size() - done, period);
            const auto want = bytes(at + done, n);
            if (std::memcmp(want.data(), got.data() + done, n) != 0) {
                return done + std::size_t(std::mismatch(want.begin(), want.end(), got.begin() + done).first - want.begin());
            }
            done += n;
        }
        return got.size();
    }

    /// The table as a slice of the loop's memory, for chain(). Empty when there is no memory.
    evpl::Buffer load(evpl::Loop& loop) const {
        auto buffer = loop.copy(std::span<const std::byte>(table_));
        return buffer ? *std::move(buffer) : evpl::Buffer{};
    }

    /// Bytes [at, at + n) by reference on a slice made by load(). Shorter when there is no memory.
    static evpl::Chain chain(const evpl::Buffer& table, std::uint64_t at, std::size_t n) {
        evpl::Chain chain;
        while (n > 0) {
            const std::size_t piece = std::min(n, period);
            if (!chain.append(table.share(std::uint32_t(at % period), std::uint32_t(piece)))) break;
            at += piece;
            n -= piece;
        }
        return chain;
    }

private:
    std::vector<std::byte> table_;
};

}  // namespace tool
