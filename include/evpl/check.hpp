#pragma once

#include <cstdint>

#pragma GCC visibility push(default)
namespace evpl {

/// A broken rule that would corrupt memory: what was checked, where, and up to two values.
struct CheckFailure {
    const char* what;      ///< the broken rule, in words
    const char* file;      ///< of the check
    int line;              ///< of the check
    std::uint64_t first;   ///< first of the values that broke it
    std::uint64_t second;  ///< the second
};

/// Called after the failure was logged; the default stops the program. A handler that returns lets it stop all the same.
using CheckHandler = void (*)(const CheckFailure&);

/// Replaces the handler, returns the previous one. Thread: any.
CheckHandler set_check_handler(CheckHandler handler) noexcept;

namespace detail {
[[noreturn, gnu::cold]] void check_failed(const CheckFailure& failure);
}

}  // namespace evpl
#pragma GCC visibility pop

/// Our own or our caller's mistake, never the outside world's: logs the values and stops the program.
#define EVPL_CHECK(condition, what, first, second)                                                                                                             \
    (static_cast<bool>(condition) ? static_cast<void>(0)                                                                                                       \
                                  : ::evpl::detail::check_failed({what, __FILE__, __LINE__, std::uint64_t(first), std::uint64_t(second)}))
