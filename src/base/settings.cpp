// Configuration by file, environment and program: reading, precedence, and the defaults of option structs.
#include "base/settings.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>

#include "base/log_line.hpp"

extern char** environ;

namespace evpl::base {

namespace {

constexpr std::string_view prefix = "EVPL_";
constexpr std::string_view blanks = " \t\r";

std::string_view trimmed(std::string_view text) noexcept {
    const std::size_t first = text.find_first_not_of(blanks);
    if (first == std::string_view::npos) return {};
    return text.substr(first, text.find_last_not_of(blanks) - first + 1);
}

/// A '#' at the beginning or after a blank begins a comment.
std::string_view without_comment(std::string_view line) noexcept {
    for (std::size_t at = line.find('#'); at != std::string_view::npos; at = line.find('#', at + 1))
        if (at == 0 || blanks.find(line[at - 1]) != std::string_view::npos) return line.substr(0, at);
    return line;
}

char in_variable(char c) noexcept { return c == '.' || c == '-' ? '_' : c >= 'a' && c <= 'z' ? char(c - 'a' + 'A') : c; }

bool is_printable(std::string_view text) noexcept {
    return std::all_of(text.begin(), text.end(), [](unsigned char c) { return c >= 0x20 && c != 0x7f; });
}

/// For sentences: control characters of the outside world end in no log.
std::string shown(std::string_view text) {
    std::string clean(text.substr(0, 64));
    for (char& c : clean)
        if (!is_printable({&c, 1})) c = '?';
    return clean;
}

Error bad() noexcept { return {Errc::bad_option, Step::parse, Who::local}; }

/// The whole of a small file.
Error read_whole(const char* path, std::string& text) {
    const int fd = ::open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a FIFO must not hold us
    if (fd < 0) return Error::from_errno(errno, Step::parse);
    Error error;
    char piece[4096];
    for (;;) {
        const ssize_t n = ::read(fd, piece, sizeof piece);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) error = Error::from_errno(errno, Step::parse);
        if (n <= 0) break;
        if (text.size() + std::size_t(n) > config_bytes_max) {
            error = Error(Errc::too_large, Step::parse);
            break;
        }
        text.append(piece, std::size_t(n));
    }
    ::close(fd);
    return error;
}

}  // namespace

bool Setting::is_for(std::string_view group, std::string_view given) const noexcept {
    std::string_view rest = name;
    const bool variable = origin == ConfigOrigin::environment;
    if (variable) rest.remove_prefix(prefix.size());
    const auto eat = [&rest, variable](std::string_view part) {
        if (rest.size() < part.size()) return false;
        for (std::size_t i = 0; i < part.size(); ++i)
            if (rest[i] != (variable ? in_variable(part[i]) : part[i])) return false;
        rest.remove_prefix(part.size());
        return true;
    };
    return (group.empty() || (eat(group) && eat("."))) && eat(given) && rest.empty();
}

std::array<OptionSpec, core_settings> core_specs(CoreValues& v) noexcept {
    constexpr std::int64_t most = INT64_MAX;
    return {
        OptionSpec::choice("loop.mode", v.mode, "hybrid|poll|event", "how loops wait: LoopOptions::mode"),
        OptionSpec::duration("loop.spin", v.spin, 0_ns, 60_s, "hybrid: longest time to poll before sleeping"),
        OptionSpec::bytes("loop.memory_bytes_max", v.memory_bytes_max, 2 << 20, most, "slabs a loop may hold"),
        OptionSpec::integer("loop.batch", v.batch, 1, 1 << 20, "events, timers, posts and deferrals of one kind per turn"),
        OptionSpec::bytes("loop.batch_bytes", v.batch_bytes, 1, 1 << 30, "bytes read before callbacks run"),
        OptionSpec::duration("loop.stall", v.stall, 1_us, Duration::forever(), "a longer turn is counted and logged"),
        OptionSpec::text("loop.dns_servers", v.dns_servers, 1, 255, "name servers instead of the system's, \"127.0.0.1:5353,...\""),
        OptionSpec::bytes("limits.receive", v.receive, 1, 1 << 30, "unread bytes of a connection that stop reading"),
        OptionSpec::bytes("limits.send_low", v.send_low, 0, 1 << 30, "on_writable comes when the outbox has drained to here"),
        OptionSpec::bytes("limits.send_high", v.send_high, 1, 1 << 30, "send answers pause from here"),
        OptionSpec::bytes("limits.send_hard", v.send_hard, 1, 1 << 30, "a send past this ends the connection"),
        OptionSpec::bytes("limits.message", v.message, 1, 1 << 30, "largest framed message"),
        OptionSpec::integer("pool.threads", v.threads, 0, 1024, "threads of a ThreadPool; 0: one per usable CPU"),
        OptionSpec::flag("pool.pin", v.pin, "pin thread i of a ThreadPool to the i-th usable CPU"),
    };
}

void Settings::read_line(std::string_view line, const std::string& where) {
    const std::string_view item = trimmed(without_comment(line));
    if (item.empty()) return;
    const std::size_t equals = item.find('=');
    const std::string_view name = trimmed(item.substr(0, equals));
    const std::string_view value = equals == std::string_view::npos ? std::string_view{} : trimmed(item.substr(equals + 1));
    if (name.empty() || value.empty() || !is_printable(item) || line.size() > config_line_bytes_max)
        return note({bad(), "", where + ": \"" + shown(item) + "\" is no setting: write name = value"});
    for (const Setting& other : settings_) {
        if (other.name != name || other.origin != ConfigOrigin::file) continue;
        if (other.where.substr(0, other.where.rfind(':')) == where.substr(0, where.rfind(':')))
            return note({bad(), "", where + ": " + shown(name) + " stands at " + other.where + " already: give it once"});
    }
    add({std::string(name), std::string(value), ConfigOrigin::file, where});
}

void Settings::read_text(std::string_view text, std::string_view path) {
    for (unsigned number = 1; !text.empty(); ++number) {
        const std::size_t end = text.find('\n');
        read_line(text.substr(0, end), std::string(path) + ":" + std::to_string(number));
        text = end == std::string_view::npos ? std::string_view{} : text.substr(end + 1);
    }
}

void Settings::read_file(const char* path, std::string_view said_by) {
    std::string text;
    const Error error = read_whole(path, text);
    if (error.ok()) return read_text(text, path);
    std::string sentence = std::string(said_by) + shown(path) + ": cannot read the settings: ";
    sentence += error.code() == Errc::too_large ? "the file is larger than 64 KiB" : std::strerror(error.os());
    note({error, "", std::move(sentence)});
}

void Settings::read_environment(const char* const* variables) {
    for (; variables != nullptr && *variables != nullptr; ++variables) {
        const std::string_view variable = *variables;
        const std::size_t equals = variable.find('=');
        if (!variable.starts_with(prefix) || equals == std::string_view::npos || equals + 1 == variable.size()) continue;
        const std::string name(variable.substr(0, equals));
        if (name == "EVPL_CONFIG") continue;
        add({name, std::string(variable.substr(equals + 1)), ConfigOrigin::environment, name});
    }
}

const Setting* Settings::find(std::string_view group, std::string_view name) const noexcept {
    const Setting* best = nullptr;
    for (const Setting& one : settings_)  // of equals the last counts
        if ((best == nullptr || one.origin >= best->origin) && one.is_for(group, name)) best = &one;
    return best;
}

void Settings::settle() {
    const CoreValues built_in;
    for (const OptionSpec& spec : core_specs(core_)) {
        const Setting* found = find("", spec.name);
        if (found == nullptr || read_value(spec, found->value)) continue;
        Diagnostic why;
        const Error error = refuse_setting(*found, spec, why);
        note({error, std::string(spec.name), why.text});
    }
    if (core_.send_low <= core_.send_high && core_.send_high <= core_.send_hard) return;
    note({bad(), "limits.send_high",
          "limits.send_low, send_high and send_hard must not fall: they are " + std::to_string(core_.send_low) + ", " + std::to_string(core_.send_high) +
              " and " + std::to_string(core_.send_hard) + " bytes"});
    core_.send_low = built_in.send_low, core_.send_high = built_in.send_high, core_.send_hard = built_in.send_hard;
}

const Fault* Settings::fault_of(std::string_view group) const noexcept {
    for (const Fault& fault : faults_) {
        const std::string_view name = fault.name;
        if (name.empty() || (name.starts_with(group) && name.substr(group.size()).starts_with('.'))) return &fault;
    }
    return nullptr;
}

Error refuse_setting(const Setting& setting, const OptionSpec& spec, Diagnostic& why) noexcept {
    char range[120], value[49];
    describe_range(spec, range, sizeof range);
    std::snprintf(value, sizeof value, "%s", setting.value.c_str());
    for (char* c = value; *c != '\0'; ++c)
        if (!is_printable({c, 1})) *c = '?';
    const bool variable = setting.origin == ConfigOrigin::environment;
    return refuse(why, Errc::bad_option, "%.*s%sbad value \"%s\" of %.*s: %s", EVPL_SHOWN(setting.where), setting.where.empty() ? "" : ": ", value,
                  EVPL_SHOWN(variable ? std::string_view("this variable") : std::string_view(setting.name)), range);
}

// -- the process's -----------------------------------------------------------------------------------------------

namespace {

struct Staged {
    std::mutex mutex;
    std::vector<Setting> settings;
    bool read = false;
};
/// Never destroyed: threads may outlive main().
Staged& staged() noexcept {
    alignas(Staged) static std::byte room[sizeof(Staged)];
    static Staged* const made = new (room) Staged;
    return *made;
}

void read_all(Settings& settings) noexcept {
    Staged& given = staged();
    const std::lock_guard lock(given.mutex);
    given.read = true;
    try {
        for (Setting& one : given.settings) settings.add(std::move(one));
        const char* const file = std::getenv("EVPL_CONFIG");
        if (file != nullptr && *file != '\0') settings.read_file(file, "EVPL_CONFIG=");
        settings.read_environment(environ);
        settings.settle();
    } catch (const std::bad_alloc&) {
        try {
            settings.note({Error(Errc::out_of_memory, Step::parse), "", "no memory for the configuration"});
        } catch (const std::bad_alloc&) {}
    }
    given.settings = {};
    for (const Fault& fault : settings.faults()) log_line(LogLevel::warning, fault.sentence);
}

}  // namespace

const Settings& settings() noexcept {
    alignas(Settings) static std::byte room[sizeof(Settings)];
    static const Settings* const made = [] {
        auto* settings = new (room) Settings;
        read_all(*settings);
        return settings;
    }();
    return *made;
}

Error stage(std::vector<Setting> more) noexcept {
    Staged& given = staged();
    const std::lock_guard lock(given.mutex);
    if (given.read) return {Errc::misuse, Step::parse, Who::local};
    try {
        given.settings.reserve(given.settings.size() + more.size());
    } catch (const std::bad_alloc&) {
        return {Errc::out_of_memory, Step::parse, Who::local};
    }
    for (Setting& one : more) given.settings.push_back(std::move(one));
    return {};
}

}  // namespace evpl::base

namespace evpl {

const char* name_of(ConfigOrigin origin) noexcept {
    switch (origin) {
    case ConfigOrigin::built_in: return "default";
    case ConfigOrigin::file: return "file";
    case ConfigOrigin::environment: return "environment";
    case ConfigOrigin::program: return "program";
    }
    return "?";
}

namespace detail {

std::int64_t configured(Known setting) noexcept {
    const base::CoreValues& core = base::settings().core();
    switch (setting) {
    case Known::loop_mode: return core.mode == "poll" ? 1 : core.mode == "event" ? 2 : 0;
    case Known::loop_spin: return core.spin.ns;
    case Known::loop_memory_bytes_max: return std::int64_t(core.memory_bytes_max);
    case Known::loop_batch: return core.batch;
    case Known::loop_batch_bytes: return core.batch_bytes;
    case Known::loop_stall: return core.stall.ns;
    case Known::limits_receive: return core.receive;
    case Known::limits_send_low: return core.send_low;
    case Known::limits_send_high: return core.send_high;
    case Known::limits_send_hard: return core.send_hard;
    case Known::limits_message: return core.message;
    case Known::pool_threads: return core.threads;
    case Known::pool_pin: return core.pin ? 1 : 0;
    }
    return 0;
}

// The view is of a whole string of ours, so it is terminated.
const char* configured_dns_servers() noexcept { return base::settings().core().dns_servers.data(); }

}  // namespace detail
}  // namespace evpl
