#pragma once

#include <atomic>
#include <cstdint>

namespace evpl::transport {

/// Wakes a loop from other threads. Ringing costs one fence, and a system call only when the loop sleeps.
/// Lives as long as the process (a reused control block), so that a late ring is harmless.
class Bell {
public:
    /// After publishing work with a release store. Thread: any. True: a system call was made.
    bool ring() noexcept {
        std::atomic_thread_fence(std::memory_order_seq_cst);  // pairs with the one in prepare_sleep
        if (state_.load(std::memory_order_relaxed) != sleeping) return false;
        return ring_sleeper();
    }

    // -- the loop's side
    /// Announces sleep. The loop then looks at all its queues once more before it waits.
    void prepare_sleep() noexcept {
        state_.store(sleeping, std::memory_order_release);  // the descriptor comes with it
        std::atomic_thread_fence(std::memory_order_seq_cst);
    }
    /// True: it rang meanwhile, or will in a moment.
    bool cancel_sleep() noexcept {
        const bool rang = state_.exchange(awake, std::memory_order_acquire) == rung;
        rings_ += rang ? 1 : 0;
        return rang;
    }
    /// The eventfd to wait on with EPOLLET (each write is an edge, so nobody reads it), -1 before open().
    int fd() const noexcept { return fd_.load(std::memory_order_relaxed); }
    bool open() noexcept;
    /// Returns when no ringer is about to write to the descriptor.
    void close() noexcept;

private:
    enum State : std::uint32_t { awake, sleeping, rung };
    bool ring_sleeper() noexcept;

    std::atomic<std::uint32_t> state_{awake};
    std::atomic<int> fd_{-1};
    std::uint64_t rings_ = 0;  // the loop's: how often a ringer has written, or is about to
};

}  // namespace evpl::transport
