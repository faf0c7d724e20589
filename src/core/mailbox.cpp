#include "core/mailbox.hpp"

#include <sched.h>

#include <new>
#include <utility>

#include "evpl/check.hpp"

namespace evpl::core {

Mailbox::~Mailbox() {
    close();
    discard();
    delete spare_;
    delete[] cells_.load(std::memory_order_acquire);
}

/// The ring, made by whoever comes first; a poster that loses the race drops its own. Null: no memory.
Mailbox::Cell* Mailbox::cells() noexcept {
    Cell* found = cells_.load(std::memory_order_acquire);
    if (found != nullptr) [[likely]]
        return found;
    Cell* const fresh = new (std::nothrow) Cell[cells_max];
    if (fresh == nullptr) return nullptr;
    for (std::uint32_t i = 0; i < cells_max; ++i) fresh[i].sequence.store(i, std::memory_order_relaxed);
    if (cells_.compare_exchange_strong(found, fresh, std::memory_order_acq_rel, std::memory_order_acquire)) return fresh;
    delete[] fresh;
    return found;
}

bool Mailbox::post(Task&& task, std::uint32_t epoch) noexcept {
    if (!overflowing_.load(std::memory_order_acquire)) {
        const Pushed pushed = push_cell(task, epoch);
        if (pushed != Pushed::full) [[likely]]
            return pushed == Pushed::yes;
    }
    return push_overflow(task, epoch);
}

Mailbox::Pushed Mailbox::push_cell(Task& task, std::uint32_t epoch) noexcept {
    std::uint64_t tail = tail_.load(std::memory_order_relaxed);
    if (!takes(tail, epoch)) return Pushed::refused;
    Cell* const ring = cells();
    if (ring == nullptr) return Pushed::refused;
    for (;;) {
        if (!takes(tail, epoch)) return Pushed::refused;
        const std::uint32_t position = position_of(tail);
        Cell& cell = ring[position % cells_max];
        const std::int32_t lead = std::int32_t(cell.sequence.load(std::memory_order_acquire) - position);
        if (lead == 0) {
            // The position must not carry into the closed bit when it wraps.
            const std::uint64_t next = (tail & ~std::uint64_t(UINT32_MAX)) | std::uint32_t(position + 1);
            if (!tail_.compare_exchange_weak(tail, next, std::memory_order_relaxed)) continue;
            cell.task = std::move(task);
            cell.sequence.store(position + 1, std::memory_order_release);
            return Pushed::yes;
        }
        if (lead < 0) return Pushed::full;             // still holds the task of a round ago
        tail = tail_.load(std::memory_order_relaxed);  // somebody else was faster
    }
}

bool Mailbox::push_overflow(Task& task, std::uint32_t epoch) noexcept {
    const std::lock_guard lock(mutex_);
    if (!takes(tail_.load(std::memory_order_relaxed), epoch)) return false;  // close() sets the bit under this mutex
    if (overflow_last_ == nullptr || overflow_last_->end == Batch::tasks_max) {
        Batch* const batch = spare_ != nullptr ? std::exchange(spare_, nullptr) : new (std::nothrow) Batch;
        if (batch == nullptr) return false;
        (overflow_last_ != nullptr ? overflow_last_->next : overflow_) = batch;
        overflow_last_ = batch;
    }
    overflow_last_->tasks[overflow_last_->end++] = std::move(task);
    overflowing_.store(true, std::memory_order_release);
    return true;
}

bool Mailbox::take(Task& task) noexcept {
    if (taken_ != nullptr) [[unlikely]]
        return take_batch(task);
    if (take_cell(task)) return true;
    if (!overflowing_.load(std::memory_order_acquire)) [[likely]]
        return false;
    return take_overflow() ? take_batch(task) : take_cell(task);
}

bool Mailbox::take_cell(Task& task) noexcept {
    Cell* const ring = cells_.load(std::memory_order_acquire);
    if (ring == nullptr) return false;
    Cell& cell = ring[head_ % cells_max];
    if (cell.sequence.load(std::memory_order_acquire) != head_ + 1) return false;
    task = std::move(cell.task);
    cell.sequence.store(head_ + cells_max, std::memory_order_release);
    ++head_;
    return true;
}

/// The whole list at once. False: a cell that was reserved before the list began is not consumed yet.
bool Mailbox::take_overflow() noexcept {
    const std::lock_guard lock(mutex_);
    if (position_of(tail_.load(std::memory_order_relaxed)) != head_) return false;
    taken_ = std::exchange(overflow_, nullptr);
    overflow_last_ = nullptr;
    overflowing_.store(false, std::memory_order_release);
    return taken_ != nullptr;
}

bool Mailbox::take_batch(Task& task) noexcept {
    task = std::move(taken_->tasks[taken_->first++]);
    if (taken_->first < taken_->end) return true;
    Batch* emptied = std::exchange(taken_, taken_->next);
    emptied->next = nullptr;
    emptied->first = emptied->end = 0;
    {
        const std::lock_guard lock(mutex_);
        if (spare_ == nullptr) spare_ = std::exchange(emptied, nullptr);
    }
    delete emptied;
    return true;
}

void Mailbox::close() noexcept {
    const std::lock_guard lock(mutex_);
    tail_.fetch_or(closed_bit, std::memory_order_acq_rel);
}

void Mailbox::discard() noexcept {
    EVPL_CHECK((tail_.load(std::memory_order_relaxed) & closed_bit) != 0, "discard of an open mailbox", 0, 0);
    for (;;) {
        drain(UINT32_MAX, [](Task&) {});
        // A closed tail stands still: what is missing are cells whose posters are about to fill them.
        const bool is_consumed = position_of(tail_.load(std::memory_order_acquire)) == head_;
        if (is_consumed && taken_ == nullptr && !overflowing_.load(std::memory_order_acquire)) return;
        ::sched_yield();
    }
}

std::uint32_t Mailbox::reopen() noexcept {
    const std::lock_guard lock(mutex_);
    const std::uint32_t next = (epoch_of(tail_.load(std::memory_order_relaxed)) + 1) & 0x7fffffff;
    tail_.store(std::uint64_t(next) << 33 | head_, std::memory_order_release);
    return next;
}

}  // namespace evpl::core
