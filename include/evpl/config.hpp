#pragma once

#include <cstdint>
#include <string_view>

#include "evpl/endpoint.hpp"
#include "evpl/error.hpp"
#include "evpl/result.hpp"

#pragma GCC visibility push(default)
namespace evpl {

/// Where the value of a setting comes from; a later one wins over an earlier one.
enum class ConfigOrigin : std::uint8_t {
    built_in,     ///< nobody set it
    file,         ///< a file given to Config::load, or the one that EVPL_CONFIG names (which wins)
    environment,  ///< a variable like EVPL_LOOP_SPIN
    program       ///< Config::set
};

/// "default", "file", "environment" or "program". Errors: none. Thread: any. Cost: none.
const char* name_of(ConfigOrigin origin) noexcept;

/// One setting as Config::describe shows it. Everything is valid during that call only.
struct ConfigValue {
    std::string_view name;                         ///< "loop.spin", "tcp.keepalive_idle": a group or scheme, a point, the name of the field or URL option
    std::string_view value;                        ///< the value in force, as one would write it; may be empty
    std::string_view help;                         ///< one line: what it is
    std::string_view range;                        ///< what may be written
    ConfigOrigin origin = ConfigOrigin::built_in;  ///< who set it
    std::string_view where;                        ///< "limits.conf:3", "EVPL_LOOP_SPIN"; empty for a default and for the program
};

/// One thing that is wrong in the configuration. Valid during the call that shows it.
struct ConfigFault {
    Error error;                ///< unknown_option, bad_option, or why a file could not be read
    std::string_view sentence;  ///< names the place, the input, and what would be right
};

/// The process's defaults. What a program gives explicitly, in an option struct or in a URL, always wins; what it leaves open is
/// looked for in Config::set, the environment (EVPL_LOOP_SPIN=20us), the file that EVPL_CONFIG names, files given to Config::load
/// (`loop.spin = 20us`, one per line, `#` begins a comment), and else is the built-in default.
///
/// It is read once, when the first Loop, option struct or endpoint needs a default; afterwards load and set answer misuse. A wrong
/// value never stops or prints anything: it is logged once and answered, as an error, by the calls that would use it.
class Config {
public:
    /// Takes the settings of a file, all or none. Later files win over earlier ones.
    /// Errors: unknown_option (with the nearest name), bad_option, too_large (above 64 KiB), misuse (too late), those of open(2) and
    /// read(2); `why` (may be null) gets the sentence with file and line. Thread: any. Cost: reads the file.
    static Result<void> load(const char* path, Diagnostic* why = nullptr) noexcept;

    /// Sets one value, as it would stand in a file: set("loop.spin", "20us"). A second call for the same name replaces the first.
    /// Errors: unknown_option, bad_option, misuse (too late). Thread: any. Cost: some microseconds.
    static Result<void> set(std::string_view name, std::string_view value, Diagnostic* why = nullptr) noexcept;

    /// Shows every setting there is with the value in force, in a fixed order: loop, limits, pool, then the schemes' options.
    /// Reads the configuration if nothing has. Errors: none. Thread: any. Cost: some microseconds per setting.
    static void describe(void (*each)(void* context, const ConfigValue& value), void* context) noexcept;

    /// Shows everything that is wrong in the environment and in EVPL_CONFIG's file; answers how many that is.
    /// Reads the configuration if nothing has. Errors: none. Thread: any. Cost: as describe().
    static std::uint32_t faults(void (*each)(void* context, const ConfigFault& fault), void* context) noexcept;
};

namespace detail {

/// The settings that are defaults of option structs.
enum class Known : std::uint8_t {
    loop_mode,
    loop_spin,
    loop_memory_bytes_max,
    loop_batch,
    loop_batch_bytes,
    loop_stall,
    limits_receive,
    limits_send_low,
    limits_send_high,
    limits_send_hard,
    limits_message,
    pool_threads,
    pool_pin
};
/// The number in force: bytes, nanoseconds, 0 or 1, or an enumerator. Thread: any. Cost: some ns, the first call reads the configuration.
std::int64_t configured(Known setting) noexcept;
/// loop.dns_servers, or null.
const char* configured_dns_servers() noexcept;

}  // namespace detail
}  // namespace evpl
#pragma GCC visibility pop
