#include "evpl/log.hpp"

#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <mutex>

#include "base/log_line.hpp"

namespace evpl {

namespace {

constexpr std::uint8_t silent = 255;  // above every level

/// Sink and context change together, and readers must never pair a new sink with an old context: a sequence lock.
/// The words are atomics with release and acquire of their own, so that neither fences nor a data race are needed.
struct Sinks {
    std::atomic<std::uint8_t> least{silent};
    std::atomic<std::uint32_t> sequence{0};  // odd: a change is under way
    std::atomic<LogSink> sink{nullptr};
    std::atomic<void*> context{nullptr};
    std::mutex writers;
};
constinit Sinks sinks;

struct Target {
    LogSink sink;
    void* context;
};

Target current_target() noexcept {
    for (;;) {
        const std::uint32_t before = sinks.sequence.load(std::memory_order_acquire);
        const Target target{sinks.sink.load(std::memory_order_acquire), sinks.context.load(std::memory_order_acquire)};
        if (before % 2 == 0 && sinks.sequence.load(std::memory_order_relaxed) == before) return target;
    }
}

}  // namespace

void set_log(LogSink sink, void* context, LogLevel least) noexcept {
    const std::lock_guard lock(sinks.writers);
    const std::uint32_t sequence = sinks.sequence.load(std::memory_order_relaxed);
    sinks.sequence.store(sequence + 1, std::memory_order_relaxed);
    sinks.sink.store(sink, std::memory_order_release);
    sinks.context.store(context, std::memory_order_release);
    sinks.sequence.store(sequence + 2, std::memory_order_release);
    sinks.least.store(sink != nullptr ? std::uint8_t(least) : silent, std::memory_order_relaxed);
}

namespace base {

bool log_enabled(LogLevel level) noexcept { return std::uint8_t(level) >= sinks.least.load(std::memory_order_relaxed); }

void log_line(LogLevel level, std::string_view line) noexcept {
    if (!log_enabled(level)) return;
    const Target target = current_target();
    if (target.sink != nullptr) target.sink(target.context, level, line);
}

void log_format(LogLevel level, const char* format, ...) noexcept {
    if (!log_enabled(level)) return;
    char text[512];
    std::va_list arguments;
    va_start(arguments, format);
    const int wanted = std::vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (wanted < 0) return;
    std::size_t size = std::size_t(wanted);
    if (size >= sizeof text) {
        size = sizeof text - 1;
        std::memcpy(text + size - 3, "...", 3);
    }
    log_line(level, {text, size});
}

}  // namespace base

}  // namespace evpl
