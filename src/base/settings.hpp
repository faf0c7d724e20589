#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/option.hpp"
#include "evpl/config.hpp"

namespace evpl::base {

/// A value somebody gave, as text.
struct Setting {
    std::string name;  ///< "loop.spin"; from the environment the variable's own name, "EVPL_LOOP_SPIN"
    std::string value;
    ConfigOrigin origin = ConfigOrigin::built_in;
    std::string where;  ///< "limits.conf:3", the variable's name, or empty

    /// Whether it is meant for the setting called `group`.`name`.
    bool is_for(std::string_view group, std::string_view name) const noexcept;
};

/// Something wrong. A fault without a name is the whole configuration's: a file that cannot be read.
struct Fault {
    Error error;
    std::string name;  ///< "loop.spin" or empty
    std::string sentence;
};

/// The defaults of option structs, in the order of detail::Known, with what is built in.
struct CoreValues {
    std::string_view mode = "hybrid";
    Duration spin = Duration::of_ns(50'000);
    std::uint64_t memory_bytes_max = 1u << 30;
    std::uint32_t batch = 64;
    std::uint32_t batch_bytes = 256u << 10;
    Duration stall = Duration::of_ns(100'000'000);
    std::string_view dns_servers;
    std::uint32_t receive = 1u << 20;
    std::uint32_t send_low = 128u << 10;
    std::uint32_t send_high = 512u << 10;
    std::uint32_t send_hard = 64u << 20;
    std::uint32_t message = 16u << 20;
    std::uint32_t threads = 0;
    bool pin = false;
};
inline constexpr std::size_t core_settings = 14;
/// Their table; names are complete ("loop.spin").
std::array<OptionSpec, core_settings> core_specs(CoreValues& values) noexcept;

/// Largest file of settings.
inline constexpr std::size_t config_bytes_max = 64u << 10;
inline constexpr std::size_t config_line_bytes_max = 512;

/// What a process was given, once read it does not change. May throw std::bad_alloc while it is filled.
class Settings {
public:
    /// Adds the lines of a file. Lines that are no settings become faults.
    void read_text(std::string_view text, std::string_view path);
    /// Reads a file. Errors: those of open(2) and read(2), too_large; they become faults, too.
    void read_file(const char* path, std::string_view said_by);
    /// Adds what begins with EVPL_, but for EVPL_CONFIG itself.
    void read_environment(const char* const* variables);
    void add(Setting setting) { settings_.push_back(std::move(setting)); }
    /// Settles the defaults of option structs; wrong values become faults.
    void settle();

    bool empty() const noexcept { return settings_.empty(); }
    /// The one that counts; null when nobody set it.
    const Setting* find(std::string_view group, std::string_view name) const noexcept;
    const std::vector<Setting>& all() const noexcept { return settings_; }
    const CoreValues& core() const noexcept { return core_; }
    const std::vector<Fault>& faults() const noexcept { return faults_; }
    /// The first fault of the whole or of one of this group's settings; null: none.
    const Fault* fault_of(std::string_view group) const noexcept;
    void note(Fault fault) { faults_.push_back(std::move(fault)); }

private:
    void read_line(std::string_view line, const std::string& where);

    std::vector<Setting> settings_;
    std::vector<Fault> faults_;
    CoreValues core_;
};

/// The process's settings. The first call reads them. Thread: any. Cost afterwards: one load.
const Settings& settings() noexcept;

/// What a program gives before that; misuse when it is too late.
Error stage(std::vector<Setting> more) noexcept;

/// "EVPL_LOOP_SPIN=abc: bad value, write a time ...". The error is bad_option.
Error refuse_setting(const Setting& setting, const OptionSpec& spec, Diagnostic& why) noexcept;

}  // namespace evpl::base
