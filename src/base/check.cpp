#include "evpl/check.hpp"

#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>

#include "base/log_line.hpp"

namespace evpl {

namespace {

int compose(const CheckFailure& failure, char* text, std::size_t room_bytes) noexcept {
    const int wanted =
        std::snprintf(text, room_bytes, "evpl: check failed: %s (%llu, %llu) at %s:%d", failure.what, static_cast<unsigned long long>(failure.first),
                      static_cast<unsigned long long>(failure.second), failure.file, failure.line);
    if (wanted < 0) return 0;
    return wanted < int(room_bytes) ? wanted : int(room_bytes) - 1;
}

/// A program that stops says why, as assert(3) does, also when no log sink is set.
void print_and_stop(const CheckFailure& failure) {
    char text[512];
    int size = compose(failure, text, sizeof text - 1);
    text[size++] = '\n';
    [[maybe_unused]] const auto written = ::write(STDERR_FILENO, text, std::size_t(size));
    std::abort();
}

constinit std::atomic<CheckHandler> current_handler{print_and_stop};

/// True while this thread reports a failure: a sink or handler that fails a check itself must not report for ever.
constinit thread_local bool reporting = false;

struct Reporting {
    Reporting() noexcept { reporting = true; }
    ~Reporting() { reporting = false; }  // a test's handler may throw
};

}  // namespace

CheckHandler set_check_handler(CheckHandler handler) noexcept {
    return current_handler.exchange(handler != nullptr ? handler : print_and_stop, std::memory_order_acq_rel);
}

void detail::check_failed(const CheckFailure& failure) {
    if (reporting) print_and_stop(failure);
    const Reporting guard;
    char text[512];
    const int size = compose(failure, text, sizeof text);
    base::log_line(LogLevel::error, {text, std::size_t(size)});
    current_handler.load(std::memory_order_acquire)(failure);
    std::abort();
}

}  // namespace evpl
