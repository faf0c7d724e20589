#pragma once

#include <compare>
#include <cstdint>

#pragma GCC visibility push(default)
namespace evpl {

/// A span of time in nanoseconds. Accepts any type with `count()` and `period` (std::chrono durations do),
/// so that this header needs none of the standard library.
struct Duration {
    std::int64_t ns = 0;  ///< nanoseconds; may be negative

    constexpr Duration() noexcept = default;
    /// So many nanoseconds.
    static constexpr Duration of_ns(std::int64_t value) noexcept { return Duration{value}; }

    /// From a duration with `count()` and `period` (num, den in seconds). Rounds towards zero.
    template <class Other>
        requires requires(const Other& d) {
            d.count();
            Other::period::num;
            Other::period::den;
        }
    constexpr Duration(const Other& other) noexcept
        : ns(static_cast<std::int64_t>(other.count() * (1'000'000'000.0L * Other::period::num / Other::period::den))) {}

    friend constexpr bool operator==(Duration, Duration) noexcept = default;
    friend constexpr auto operator<=>(Duration a, Duration b) noexcept { return a.ns <=> b.ns; }
    friend constexpr Duration operator+(Duration a, Duration b) noexcept { return of_ns(a.ns + b.ns); }
    friend constexpr Duration operator-(Duration a, Duration b) noexcept { return of_ns(a.ns - b.ns); }
    friend constexpr Duration operator*(Duration a, std::int64_t n) noexcept { return of_ns(a.ns * n); }

    /// Longer than any deadline: "no limit".
    static constexpr Duration forever() noexcept { return of_ns(INT64_MAX); }

private:
    constexpr explicit Duration(std::int64_t value) noexcept : ns(value) {}
};

inline namespace literals {
constexpr Duration operator""_ns(unsigned long long n) noexcept { return Duration::of_ns(std::int64_t(n)); }
constexpr Duration operator""_us(unsigned long long n) noexcept { return Duration::of_ns(std::int64_t(n) * 1'000); }
constexpr Duration operator""_ms(unsigned long long n) noexcept { return Duration::of_ns(std::int64_t(n) * 1'000'000); }
constexpr Duration operator""_s(unsigned long long n) noexcept { return Duration::of_ns(std::int64_t(n) * 1'000'000'000); }
constexpr Duration operator""_min(unsigned long long n) noexcept { return Duration::of_ns(std::int64_t(n) * 60'000'000'000); }
}  // namespace literals

/// How long an operation may take, counted from the call that receives it.
/// Trivially destructible: such a value may be a temporary inside a co_await expression (GCC 12 destroys a
/// braced temporary with a destructor twice there).
struct Limit {
    Duration duration = Duration::forever();  ///< forever: no limit
};

/// `connect(loop, url, handler, within(3_s))`: the operation ends with Errc::timed_out after `duration`.
constexpr Limit within(Duration duration) noexcept { return Limit{duration}; }

}  // namespace evpl
#pragma GCC visibility pop
