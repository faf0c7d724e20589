#include "core/loop_control.hpp"

#include <mutex>
#include <new>

namespace evpl::core {
namespace {
std::mutex pool_mutex;
LoopControl* pool = nullptr;
}  // namespace

LoopControl* LoopControl::take(LoopCore& core) noexcept {
    LoopControl* control = nullptr;
    {
        const std::lock_guard lock(pool_mutex);
        if (pool != nullptr) {
            control = pool;
            pool = control->next_;
        }
    }
    if (control != nullptr) {
        control->mailbox.reopen();
    } else {
        control = new (std::nothrow) LoopControl;
        if (control == nullptr) return nullptr;
    }
    control->clear_stop();
    control->core.store(&core, std::memory_order_release);
    return control;
}

void LoopControl::give_back(std::uint32_t next_generation) noexcept {
    core.store(nullptr, std::memory_order_release);
    mailbox.close();
    mailbox.discard();
    bell.close();
    first_generation = next_generation;
    const std::lock_guard lock(pool_mutex);
    next_ = pool;
    pool = this;
}

void LoopControl::request_stop(std::uint32_t epoch, std::int64_t drain_ns) noexcept {
    drain_ns_.store(drain_ns, std::memory_order_relaxed);
    std::uint64_t expected = std::uint64_t(epoch) << 1;
    // A second request only makes the drain shorter.
    if (stop_.compare_exchange_strong(expected, expected | 1, std::memory_order_acq_rel) || expected == ((std::uint64_t(epoch) << 1) | 1)) {
        bell.ring();
    }
}

}  // namespace evpl::core
