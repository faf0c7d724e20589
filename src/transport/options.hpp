#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string_view>

#include "evpl/duration.hpp"
#include "evpl/endpoint.hpp"
#include "evpl/result.hpp"

namespace evpl::transport {

/// One option of an endpoint's query: name, type, range and where its value goes. A backend builds a table of them
/// around its settings, whose values before the call are the defaults.
struct OptionSpec {
    enum class Type : std::uint8_t { flag, integer, bytes, duration, text, choice };
    union Target {
        bool* flag;
        std::uint16_t* u16;
        std::uint32_t* u32;
        std::uint64_t* u64;
        std::int64_t* i64;
        Duration* duration;
        std::string_view* text;
    };
    enum class Width : std::uint8_t { none, u16, u32, u64, i64 };

    std::string_view name;
    std::string_view help;     ///< one line for `evpl info`
    std::string_view choices;  ///< of a choice: "stream|msg"
    std::int64_t least = 0;    ///< integer; bytes; durations in nanoseconds; text in bytes
    std::int64_t most = INT64_MAX;
    Target target{};
    Type type = Type::flag;
    Width width = Width::none;

    /// 1 0 on off true false yes no; the bare name means on.
    static constexpr OptionSpec flag(std::string_view name, bool& target, std::string_view help) noexcept {
        OptionSpec spec{name, help, {}, 0, 1, {}, Type::flag, Width::none};
        spec.target.flag = &target;
        return spec;
    }
    /// A decimal number.
    template <class T>
    static constexpr OptionSpec integer(std::string_view name, T& target, std::int64_t least, std::int64_t most, std::string_view help) noexcept {
        return number(Type::integer, name, target, least, most, help);
    }
    /// A decimal number, optionally with k, M or G (also K, KiB, MiB, GiB): powers of 1024.
    template <class T>
    static constexpr OptionSpec bytes(std::string_view name, T& target, std::int64_t least, std::int64_t most, std::string_view help) noexcept {
        return number(Type::bytes, name, target, least, most, help);
    }
    /// A decimal number with its unit, "30s": ns, us, ms, s or min. Zero needs none.
    static constexpr OptionSpec duration(std::string_view name, Duration& target, Duration least, Duration most, std::string_view help) noexcept {
        OptionSpec spec{name, help, {}, least.ns, most.ns, {}, Type::duration, Width::none};
        spec.target.duration = &target;
        return spec;
    }
    /// Anything of least to most bytes. The view points into the endpoint.
    static constexpr OptionSpec text(std::string_view name, std::string_view& target, std::int64_t least, std::int64_t most, std::string_view help) noexcept {
        OptionSpec spec{name, help, {}, least, most, {}, Type::text, Width::none};
        spec.target.text = &target;
        return spec;
    }
    /// One of the words in `choices`, separated by '|'. The view points into `choices`.
    static constexpr OptionSpec choice(std::string_view name, std::string_view& target, std::string_view choices, std::string_view help) noexcept {
        OptionSpec spec{name, help, choices, 0, 0, {}, Type::choice, Width::none};
        spec.target.text = &target;
        return spec;
    }

private:
    template <class T>
    static constexpr OptionSpec number(Type type, std::string_view name, T& target, std::int64_t least, std::int64_t most, std::string_view help) noexcept {
        if constexpr (sizeof(T) < 8) most = most < std::int64_t(std::numeric_limits<T>::max()) ? most : std::int64_t(std::numeric_limits<T>::max());
        if constexpr (std::is_unsigned_v<T>) least = least > 0 ? least : 0;
        OptionSpec spec{name, help, {}, least, most, {}, type, Width::none};
        if constexpr (std::is_same_v<T, std::uint16_t>) spec.target.u16 = &target, spec.width = Width::u16;
        else if constexpr (std::is_same_v<T, std::uint32_t>) spec.target.u32 = &target, spec.width = Width::u32;
        else if constexpr (std::is_same_v<T, std::uint64_t>) spec.target.u64 = &target, spec.width = Width::u64;
        else {
            static_assert(std::is_same_v<T, std::int64_t>, "u16, u32, u64 or i64");
            spec.target.i64 = &target, spec.width = Width::i64;
        }
        return spec;
    }
};

/// Reads the endpoint's whole query into the targets of `specs`. What is not named keeps its default.
/// Errors: unknown_option, bad_option (also for an option given twice), with a sentence in `why`; targets of options that
/// stand before the bad one are set already. Thread: any. Cost: options times specs; no allocation.
Result<void> read_options(const Endpoint& endpoint, std::span<const OptionSpec> specs, Diagnostic& why) noexcept;

}  // namespace evpl::transport
