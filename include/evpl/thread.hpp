#pragma once

#include <cstdint>

#include "evpl/loop.hpp"

#pragma GCC visibility push(default)
namespace evpl {

/// How a Thread is made.
struct ThreadOptions {
    LoopOptions loop = {};      ///< of its loop
    int cpu = -1;               ///< pin to this CPU; -1: not pinned
    const char* name = "evpl";  ///< of the thread, first 15 characters (pthread_setname_np(3)); must outlive the thread
};

/// A thread that runs a loop. Move-only.
class Thread {
public:
    Thread() noexcept = default;
    /// Moving leaves the other empty. Errors: none.
    Thread(Thread&& other) noexcept : state_(other.state_) { other.state_ = nullptr; }
    /// Stops and joins the thread this one holds, then takes over the other's.
    Thread& operator=(Thread&& other) noexcept;
    /// stop() and join().
    ~Thread();

    /// Starts a thread and returns when its loop runs. Errors: out_of_memory, bad_option (no such CPU), too_many_files.
    static Result<Thread> start(const ThreadOptions& options = {}) noexcept;

    /// Its loop, while the thread runs. Only post(), stop() and ref() may be called from other threads.
    Loop& loop() const noexcept;
    /// Runs `task` on the thread; false when it has ended.
    bool post(Task task) const noexcept;
    /// Runs `task` on the thread and returns when it has run. False when the thread has ended. Not from the thread itself: misuse, false.
    bool run(Task task) const noexcept;
    /// Asks its loop to stop, as Loop::stop(); does not wait. Thread: any.
    void stop() noexcept;
    /// The same, with a drain.
    void stop(Limit drain) noexcept;
    /// Waits until the thread has ended. Not from the thread itself.
    void join() noexcept;
    /// There is a thread, also one that has ended.
    explicit operator bool() const noexcept { return state_ != nullptr; }

private:
    friend class ThreadPool;
    void set_ended(void (*ended)(void* context, Loop& loop), void* context) noexcept;
    struct State;
    State* state_ = nullptr;
};

}  // namespace evpl
#pragma GCC visibility pop
