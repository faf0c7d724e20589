#pragma once

#include <atomic>
#include <cstdint>

#include "core/mailbox.hpp"
#include "transport/bell.hpp"

namespace evpl::core {

class LoopCore;

/// The part of a loop that other threads may name: mailbox, bell, stop request. Control blocks live as long as the process and
/// serve one loop after another; the mailbox's epoch tells them apart, so a late call from another thread is refused, never lost.
class LoopControl {
public:
    /// Null: out of memory. Thread: any.
    static LoopControl* take(LoopCore& core) noexcept;
    /// Posts are refused from here on; what is left in the mailbox is destroyed on this thread.
    void give_back(std::uint32_t next_generation) noexcept;

    std::uint32_t epoch() const noexcept { return mailbox.epoch(); }
    /// Stops the loop of `epoch`, if it is still this one. Thread: any; async-signal-safe.
    void request_stop(std::uint32_t epoch, std::int64_t drain_ns) noexcept;
    bool stop_requested() const noexcept { return (stop_.load(std::memory_order_acquire) & 1) != 0; }
    std::int64_t drain_ns() const noexcept { return drain_ns_.load(std::memory_order_relaxed); }
    void clear_stop() noexcept { stop_.store(std::uint64_t(epoch()) << 1, std::memory_order_release); }

    Mailbox mailbox;
    transport::Bell bell;
    /// The loop it serves now; read on that loop's thread, null in between.
    std::atomic<LoopCore*> core{nullptr};
    /// Slot generations of the next loop start here, so that references to a former loop stay stale.
    std::uint32_t first_generation = 1;

private:
    std::atomic<std::uint64_t> stop_{0};  // epoch << 1 | requested
    std::atomic<std::int64_t> drain_ns_{0};
    LoopControl* next_ = nullptr;
};

}  // namespace evpl::core
