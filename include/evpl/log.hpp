#pragma once

#include <cstdint>
#include <string_view>

#pragma GCC visibility push(default)
namespace evpl {

enum class LogLevel : std::uint8_t { debug, info, warning, error };

/// Receives one line without a line end. May be called from any thread that uses the library; must not call back into it.
using LogSink = void (*)(void* context, LogLevel level, std::string_view line);

/// Sets the process's log sink (null: silence, the default) and the least level that reaches it.
/// Thread: any; lines of other threads that are under way may still reach the old sink.
void set_log(LogSink sink, void* context = nullptr, LogLevel least = LogLevel::info) noexcept;

}  // namespace evpl
#pragma GCC visibility pop
