#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>

#include "memory/array_pool.hpp"

namespace evpl::memory {

/// A queue in a ring that grows by doubling; `inline_count` (a power of two) elements need no array.
/// push fails only without memory. An empty queue gives its array back in shrink().
template <class T, std::uint32_t inline_count>
class RingQueue {
    static_assert((inline_count & (inline_count - 1)) == 0);

public:
    RingQueue() noexcept : items_(inline_items()) {}
    RingQueue(const RingQueue&) = delete;
    RingQueue& operator=(const RingQueue&) = delete;
    ~RingQueue() {
        clear();
        shrink();
    }

    bool empty() const noexcept { return head_ == tail_; }
    std::uint32_t size() const noexcept { return tail_ - head_; }
    T& operator[](std::uint32_t i) noexcept { return items_[(head_ + i) & mask_]; }
    const T& operator[](std::uint32_t i) const noexcept { return items_[(head_ + i) & mask_]; }
    T& front() noexcept { return items_[head_ & mask_]; }
    T& back() noexcept { return items_[(tail_ - 1) & mask_]; }

    /// Room for `more` further elements. False: out of memory, nothing changed.
    [[nodiscard]] bool reserve(std::uint32_t more) noexcept {
        if (more <= mask_ + 1 - size()) [[likely]]
            return true;
        return grow(std::uint64_t(size()) + more);
    }
    [[nodiscard]] bool push(T&& item) noexcept {
        if (!reserve(1)) [[unlikely]]
            return false;
        push_reserved(std::move(item));
        return true;
    }
    /// After reserve(), which is asked once for several.
    void push_reserved(T&& item) noexcept { new (&items_[tail_++ & mask_]) T(std::move(item)); }
    /// What the element's destructor sets off (a wrapped buffer's release may push here) finds the queue without it.
    [[nodiscard]] bool push_front(T&& item) noexcept {
        if (!reserve(1)) return false;
        new (&items_[--head_ & mask_]) T(std::move(item));
        return true;
    }
    void pop() noexcept {
        T& first = items_[head_++ & mask_];
        [[maybe_unused]] const T gone(std::move(first));
        first.~T();
        if (head_ == tail_) head_ = tail_ = 0;  // a queue that is empty each time stays in its first places, which are in the cache
    }
    void clear() noexcept {
        while (!empty()) pop();
    }
    /// Gives the array back when the queue is empty and beyond its inline room.
    void shrink() noexcept {
        if (!empty() || items_ == inline_items()) return;
        give_array(items_, (mask_ + 1) * sizeof(T));
        items_ = inline_items();
        mask_ = inline_count - 1;
        head_ = tail_ = 0;
    }

private:
    T* inline_items() noexcept { return reinterpret_cast<T*>(inline_); }

    [[gnu::noinline]] bool grow(std::uint64_t wanted) noexcept {
        // Queues that fill and empty with every batch would else double several times each.
        std::uint32_t capacity = std::max(mask_ + 1, array_least);
        while (capacity < wanted) {
            if (capacity > (1u << 30)) return false;
            capacity *= 2;
        }
        auto* bigger = static_cast<T*>(take_array(capacity * sizeof(T)));
        if (bigger == nullptr) return false;
        const std::uint32_t count = size();
        for (std::uint32_t i = 0; i < count; ++i) {
            T& old = (*this)[i];
            new (&bigger[i]) T(std::move(old));
            old.~T();
        }
        if (items_ != inline_items()) give_array(items_, (mask_ + 1) * sizeof(T));
        items_ = bigger;
        mask_ = capacity - 1;
        head_ = 0;
        tail_ = count;
        return true;
    }

    static constexpr std::uint32_t array_least = 16;

    T* items_;
    std::uint32_t head_ = 0;
    std::uint32_t tail_ = 0;
    std::uint32_t mask_ = inline_count - 1;
    alignas(T) std::byte inline_[inline_count * sizeof(T)];
};

}  // namespace evpl::memory
