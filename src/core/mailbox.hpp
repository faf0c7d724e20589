#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>

#include "evpl/task.hpp"

namespace evpl::core {

/// Tasks from any thread for one consumer: a bounded ring of cells without locks, and behind it a list under a mutex for
/// when the ring is full. Order is kept per posting thread. Whoever posts rings the loop's bell afterwards.
///
/// Why the order holds: a poster that sees `overflowing_` joins the list; the consumer takes the list only when every cell
/// reserved before is consumed, clears the flag then, and runs what it took before it looks at the ring again.
class Mailbox {
public:
    static constexpr std::uint32_t cells_max = 1024;  // 80 KiB, allocated by the first post

    Mailbox() noexcept = default;
    ~Mailbox();
    Mailbox(const Mailbox&) = delete;
    Mailbox& operator=(const Mailbox&) = delete;

    // -- any thread ----------------------------------------------------------------------------------------------
    /// Takes the task. False: closed, of another epoch, or no memory; the task is then untouched and the caller's to destroy.
    /// Cost: one locked instruction; no allocation once the ring exists and is not full.
    bool post(Task&& task, std::uint32_t epoch) noexcept;
    bool post(Task&& task) noexcept { return post(std::move(task), epoch()); }
    /// Counts reopenings (31 bits). A control block that serves one loop after another gives each its own, so that a late
    /// post to the former loop is refused in the same instruction that would reserve its cell.
    std::uint32_t epoch() const noexcept { return epoch_of(tail_.load(std::memory_order_acquire)); }

    // -- the consumer's thread -----------------------------------------------------------------------------------
    /// Calls run(Task&) for up to `budget` tasks; returns how many. The task is destroyed after the call. `run` may throw: that task is
    /// consumed, the others stay.
    template <class Run>
    unsigned drain(unsigned budget, Run&& run) {
        unsigned count = 0;
        for (; count < budget; ++count) {
            Task task;
            if (!take(task)) break;
            run(task);
        }
        return count;
    }
    /// Nothing can be taken now. A poster half way through its post rings the bell when it is done.
    bool empty() const noexcept {
        const Cell* const ring = cells_.load(std::memory_order_acquire);
        if (taken_ != nullptr || ring == nullptr) return taken_ == nullptr;
        if (ring[head_ % cells_max].sequence.load(std::memory_order_acquire) == head_ + 1) return false;
        return !overflowing_.load(std::memory_order_acquire) || position_of(tail_.load(std::memory_order_relaxed)) != head_;
    }
    /// From now on posts answer false. What was posted before can still be drained.
    void close() noexcept;
    /// Destroys everything that is left. Only after close(); waits for posters that are half way through (some instructions).
    void discard() noexcept;
    /// Takes posts again, of the next epoch, which it returns. Only after discard().
    std::uint32_t reopen() noexcept;

private:
    /// Vyukov's bounded queue: `sequence` == position: free for that position; position + 1: filled.
    struct Cell {
        std::atomic<std::uint32_t> sequence;
        Task task;
    };
    struct Batch {
        static constexpr std::uint32_t tasks_max = 63;
        Batch* next = nullptr;
        std::uint32_t first = 0, end = 0;
        Task tasks[tasks_max];
    };
    enum class Pushed : std::uint8_t { yes, full, refused };

    // tail_: position in the low half (wraps; the ring's size divides 2^32), then the closed bit, then the epoch.
    static constexpr std::uint64_t closed_bit = std::uint64_t(1) << 32;
    static std::uint32_t position_of(std::uint64_t tail) noexcept { return std::uint32_t(tail); }
    static std::uint32_t epoch_of(std::uint64_t tail) noexcept { return std::uint32_t(tail >> 33); }
    static bool takes(std::uint64_t tail, std::uint32_t epoch) noexcept { return (tail & closed_bit) == 0 && epoch_of(tail) == epoch; }

    Cell* cells() noexcept;
    Pushed push_cell(Task& task, std::uint32_t epoch) noexcept;
    bool push_overflow(Task& task, std::uint32_t epoch) noexcept;
    bool take(Task& task) noexcept;
    bool take_cell(Task& task) noexcept;
    bool take_batch(Task& task) noexcept;
    bool take_overflow() noexcept;

    // the posters' line
    alignas(64) std::atomic<std::uint64_t> tail_{0};
    // read by all, rarely written
    alignas(64) std::atomic<Cell*> cells_{nullptr};
    std::atomic<bool> overflowing_{false};  // written under mutex_
    std::mutex mutex_;
    Batch* overflow_ = nullptr;       // under mutex_
    Batch* overflow_last_ = nullptr;  // under mutex_
    Batch* spare_ = nullptr;          // under mutex_: one emptied batch, for the next overflow
    // the consumer's line
    alignas(64) std::uint32_t head_ = 0;
    Batch* taken_ = nullptr;  // from the overflow: older than anything in the ring
};

}  // namespace evpl::core
