#include "base/forks.hpp"

#include <pthread.h>

namespace evpl::base {
namespace {

// Written in a child before it has a second thread.
constinit std::uint32_t count = 0;

}  // namespace

std::uint32_t forks() noexcept {
    // Without memory for the handler a child is not told apart; nothing else depends on it.
    static const int registered = pthread_atfork(nullptr, nullptr, [] { ++count; });
    (void)registered;
    return count;
}

}  // namespace evpl::base
