#pragma once

#include <string_view>

#include "evpl/log.hpp"

namespace evpl::base {

/// One line for the program's log sink, if it wants lines of this level. Thread: any. Cost without a sink: one load.
bool log_enabled(LogLevel level) noexcept;
void log_line(LogLevel level, std::string_view line) noexcept;
/// printf-style; cut at 511 bytes.
[[gnu::format(printf, 2, 3)]] void log_format(LogLevel level, const char* format, ...) noexcept;

}  // namespace evpl::base
