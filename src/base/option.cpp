#include "base/option.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdarg>
#include <cstdio>
#include <utility>

namespace evpl::base {

namespace {

constexpr std::size_t npos = std::string_view::npos;

// -- values ------------------------------------------------------------------------------------------------------

struct Unit {
    std::string_view name;
    std::int64_t factor;
};
constexpr Unit byte_units[] = {{"", 1}, {"k", 1 << 10}, {"K", 1 << 10}, {"KiB", 1 << 10}, {"M", 1 << 20}, {"MiB", 1 << 20}, {"G", 1 << 30}, {"GiB", 1 << 30}};
constexpr Unit time_units[] = {{"ns", 1}, {"us", 1'000}, {"ms", 1'000'000}, {"s", 1'000'000'000}, {"min", 60'000'000'000}};
constexpr Unit no_units[] = {{"", 1}};

/// A decimal number followed by one of `units`. False: not that, or larger than 64 bits.
bool read_number(std::string_view text, std::span<const Unit> units, std::int64_t& number) noexcept {
    const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (failure != std::errc{}) return false;
    const std::string_view suffix = text.substr(std::size_t(end - text.data()));
    if (number == 0 && suffix.empty()) return true;  // nothing is nothing in every unit
    for (const Unit& unit : units)
        if (unit.name == suffix) return !__builtin_mul_overflow(number, unit.factor, &number);
    return false;
}

bool read_flag(std::string_view text, bool& flag) noexcept {
    constexpr std::string_view on[] = {"", "1", "on", "true", "yes"};
    constexpr std::string_view off[] = {"0", "off", "false", "no"};
    const bool is_on = std::find(std::begin(on), std::end(on), text) != std::end(on);
    const bool is_off = std::find(std::begin(off), std::end(off), text) != std::end(off);
    if (is_on || is_off) flag = is_on;
    return is_on || is_off;
}

bool read_choice(std::string_view text, std::string_view choices, std::string_view& chosen) noexcept {
    while (!choices.empty()) {
        const std::size_t end = choices.find('|');
        if (choices.substr(0, end) == text) {
            chosen = choices.substr(0, end);
            return true;
        }
        choices = end == npos ? std::string_view{} : choices.substr(end + 1);
    }
    return false;
}

void store(const OptionSpec& spec, std::int64_t number) noexcept {
    switch (spec.width) {
    case OptionSpec::Width::u16: *spec.target.u16 = std::uint16_t(number); break;
    case OptionSpec::Width::u32: *spec.target.u32 = std::uint32_t(number); break;
    case OptionSpec::Width::u64: *spec.target.u64 = std::uint64_t(number); break;
    case OptionSpec::Width::i64: *spec.target.i64 = number; break;
    case OptionSpec::Width::none: *spec.target.duration = Duration::of_ns(number); break;
    }
}

bool read_ranged(const OptionSpec& spec, std::string_view text, std::span<const Unit> units) noexcept {
    std::int64_t number = 0;
    if (!read_number(text, units, number) || number < spec.least || number > spec.most) return false;
    store(spec, number);
    return true;
}

}  // namespace

bool read_value(const OptionSpec& spec, std::string_view text) noexcept {
    switch (spec.type) {
    case OptionSpec::Type::flag: return read_flag(text, *spec.target.flag);
    case OptionSpec::Type::integer: return read_ranged(spec, text, no_units);
    case OptionSpec::Type::bytes: return read_ranged(spec, text, byte_units);
    case OptionSpec::Type::duration: return read_ranged(spec, text, time_units);
    case OptionSpec::Type::choice: return read_choice(text, spec.choices, *spec.target.text);
    case OptionSpec::Type::text:
        if (std::int64_t(text.size()) < spec.least || std::int64_t(text.size()) > spec.most) return false;
        *spec.target.text = text;
        return true;
    }
    return false;
}

// -- sentences ---------------------------------------------------------------------------------------------------

Error refuse(Diagnostic& why, Errc code, const char* format, ...) noexcept {
    std::va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(why.text, sizeof why.text, format, arguments);
    va_end(arguments);
    return {code, Step::parse, Who::local};
}

namespace {

/// The largest unit that shows `number` without a fraction: 4096 as "4k".
void show(char* text, std::size_t room_bytes, std::int64_t number, std::span<const Unit> units) noexcept {
    const Unit* best = &units[0];
    for (const Unit& unit : units)
        if (number != 0 && number % unit.factor == 0 && unit.factor > best->factor) best = &unit;
    std::snprintf(text, room_bytes, "%lld%.*s", static_cast<long long>(number / best->factor), int(best->name.size()), best->name.data());
}

}  // namespace

void describe_range(const OptionSpec& spec, char* text, std::size_t room_bytes) noexcept {
    const bool is_bytes = spec.type == OptionSpec::Type::bytes;
    const bool is_time = spec.type == OptionSpec::Type::duration;
    const std::span<const Unit> units = is_bytes ? std::span<const Unit>(byte_units) : is_time ? std::span<const Unit>(time_units) : no_units;
    char least[32], most[32];
    show(least, sizeof least, spec.least, units);
    show(most, sizeof most, spec.most, units);
    const bool bounded = spec.most != INT64_MAX;
    switch (spec.type) {
    case OptionSpec::Type::flag: std::snprintf(text, room_bytes, "write on or off"); break;
    case OptionSpec::Type::choice: std::snprintf(text, room_bytes, "write one of %.*s", EVPL_SHOWN(spec.choices)); break;
    default:
        std::snprintf(text, room_bytes, "write %s from %s%s%s",
                      is_bytes                              ? "a number of bytes (k, M, G)"
                      : is_time                             ? "a time with its unit (ns, us, ms, s, min)"
                      : spec.type == OptionSpec::Type::text ? "a text with a length"
                                                            : "a number",
                      least, bounded ? " to " : " up", bounded ? most : "");
    }
}

namespace {

std::int64_t number_of(const OptionSpec& spec) noexcept {
    switch (spec.width) {
    case OptionSpec::Width::u16: return *spec.target.u16;
    case OptionSpec::Width::u32: return *spec.target.u32;
    case OptionSpec::Width::u64: return std::int64_t(*spec.target.u64);
    case OptionSpec::Width::i64: return *spec.target.i64;
    case OptionSpec::Width::none: return spec.target.duration->ns;
    }
    return 0;
}

}  // namespace

void show_value(const OptionSpec& spec, char* text, std::size_t room_bytes) noexcept {
    switch (spec.type) {
    case OptionSpec::Type::flag: std::snprintf(text, room_bytes, "%s", *spec.target.flag ? "on" : "off"); return;
    case OptionSpec::Type::integer:
        if (number_of(spec) < spec.least) std::snprintf(text, room_bytes, "%s", "");  // not set: the system decides
        else show(text, room_bytes, number_of(spec), no_units);
        return;
    case OptionSpec::Type::bytes: return show(text, room_bytes, number_of(spec), byte_units);
    case OptionSpec::Type::duration: return show(text, room_bytes, number_of(spec), time_units);
    case OptionSpec::Type::choice:
    case OptionSpec::Type::text: {
        const std::string_view chosen = *spec.target.text;
        const std::string_view shown = chosen.empty() ? spec.choices.substr(0, spec.choices.find('|')) : chosen;
        std::snprintf(text, room_bytes, "%.*s", int(shown.size()), shown.empty() ? "" : shown.data());
    }
    }
}

// One row at a time.
std::size_t edit_distance(std::string_view a, std::string_view b) noexcept {
    std::array<std::size_t, 64> row;
    if (a.size() >= row.size() || b.size() >= row.size()) return SIZE_MAX;
    for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
    for (std::size_t i = 1; i <= a.size(); ++i) {
        std::size_t diagonal = std::exchange(row[0], i);
        for (std::size_t j = 1; j <= b.size(); ++j) {
            const std::size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
            diagonal = row[j];
            row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
        }
    }
    return row[b.size()];
}

std::string_view nearest(std::string_view name, std::span<const OptionSpec> specs) noexcept {
    std::string_view best;
    std::size_t least = distance_most(name) + 1;
    for (const OptionSpec& spec : specs) {
        const std::size_t distance = edit_distance(name, spec.name);
        if (distance < least) {
            least = distance;
            best = spec.name;
        }
    }
    return best;
}

void list_names(std::span<const OptionSpec> specs, char* text, std::size_t room_bytes) noexcept {
    std::size_t size = 0;
    text[0] = '\0';
    for (const OptionSpec& spec : specs) {
        if (size + spec.name.size() + sizeof ", ..." > room_bytes) {
            std::snprintf(text + size, room_bytes - size, "...");
            return;
        }
        const bool is_last = &spec == &specs.back();
        size += std::size_t(std::snprintf(text + size, room_bytes - size, "%.*s%s", int(spec.name.size()), spec.name.data(), is_last ? "" : ", "));
    }
}

}  // namespace evpl::base
