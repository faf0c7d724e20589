#pragma once

#include <cstdarg>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>

#include "evpl/duration.hpp"
#include "evpl/endpoint.hpp"
#include "evpl/result.hpp"

namespace evpl::base {

/// One named value that a user may give, in an endpoint's query or in the configuration: name, type, range and where the value goes.
/// Whoever has such values builds a table of them around its settings, whose values before are the defaults.
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
    /// Anything of least to most bytes. The view points into the text that was read.
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

/// Puts `text` into the target. False, and the target is untouched: it is not a value of this type, or out of range.
bool read_value(const OptionSpec& spec, std::string_view text) noexcept;
/// The target's value as read_value would take it; always terminated. A choice that was left open is its first word;
/// a number below its range means that the system decides, and is empty.
void show_value(const OptionSpec& spec, char* text, std::size_t room_bytes) noexcept;
/// What would be right, e.g. "write a number from 1 to 65535".
void describe_range(const OptionSpec& spec, char* text, std::size_t room_bytes) noexcept;

/// Levenshtein's distance. Names of more than 63 letters count as far away.
std::size_t edit_distance(std::string_view a, std::string_view b) noexcept;
/// Most letters that may differ between a name and what was probably meant: a third.
constexpr std::size_t distance_most(std::string_view name) noexcept { return name.size() / 3 > 1 ? name.size() / 3 : 1; }
/// The name that was probably meant; empty: none is near.
std::string_view nearest(std::string_view name, std::span<const OptionSpec> specs) noexcept;
/// "a, b, c" of all names; what does not fit ends in "...".
void list_names(std::span<const OptionSpec> specs, char* text, std::size_t room_bytes) noexcept;

/// Writes the sentence (printf-style) and gives the error: parse, local.
[[gnu::format(printf, 3, 4)]] Error refuse(Diagnostic& why, Errc code, const char* format, ...) noexcept;

/// A text for printf's "%.*s", shortened so that the rest of the sentence fits.
#define EVPL_SHOWN(view) int((view).size() < 48 ? (view).size() : 48), ((view).empty() ? "" : (view).data())

}  // namespace evpl::base
