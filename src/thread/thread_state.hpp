#pragma once

#include <pthread.h>

#include <condition_variable>
#include <cstddef>
#include <mutex>

#include "evpl/thread.hpp"

namespace evpl {

/// A thread and the loop it runs. The loop is built, run and destroyed on the thread; its room is here, so that a reference to it
/// stays an address as long as the Thread lives.
struct Thread::State {
    ThreadOptions options;
    pthread_t thread{};
    std::mutex mutex;
    std::condition_variable changed;
    LoopRef ref;
    Error error;
    bool started = false;
    bool joined = false;
    char name[16] = {};
    /// Runs on the thread after the last connection's on_close, before the loop is destroyed.
    void (*ended)(void* context, Loop& loop) = nullptr;
    void* ended_context = nullptr;
    alignas(Loop) std::byte room[sizeof(Loop)];

    Loop& loop() noexcept { return *std::launder(reinterpret_cast<Loop*>(room)); }
    static void* run(void* context) noexcept;
    Error pin() const noexcept;
};

}  // namespace evpl
