#include "transport/bell.hpp"

#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

namespace evpl::transport {

bool Bell::ring_sleeper() noexcept {
    std::uint32_t expected = sleeping;
    if (!state_.compare_exchange_strong(expected, rung, std::memory_order_acq_rel)) return false;  // another one was first
    const std::uint64_t one = 1;
    // Cannot fail but by EAGAIN at 2^64 - 2 rings not looked at, and then the loop is woken anyway.
    const auto written = ::write(fd_.load(std::memory_order_relaxed), &one, sizeof one);
    return written == sizeof one;
}

bool Bell::open() noexcept {
    if (fd() >= 0) return true;
    fd_.store(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), std::memory_order_relaxed);
    return fd() >= 0;
}

void Bell::close() noexcept {
    cancel_sleep();
    const int old = fd();
    if (old < 0) return;
    // A ringer between its exchange and its write still needs the descriptor.
    for (std::uint64_t written = 0; written < rings_;) {
        std::uint64_t count = 0;
        if (::read(old, &count, sizeof count) == sizeof count) written += count;
        else sched_yield();
    }
    rings_ = 0;
    fd_.store(-1, std::memory_order_relaxed);
    ::close(old);
}

}  // namespace evpl::transport
