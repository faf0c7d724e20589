#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <span>
#include <utility>

#include "evpl/buffer.hpp"

#pragma GCC visibility push(default)
namespace evpl {

/// A sequence of slices: what recv gives and send takes. Up to four are held inline.
/// Move-only; belongs to one loop's thread, as its Buffers do.
class Chain {
public:
    /// So many slices need no array.
    static constexpr std::uint32_t inline_slices = 4;

    Chain() noexcept : slices_(inline_array()) {}
    /// A chain of one slice.
    Chain(Buffer slice) noexcept : Chain() { append_unchecked(std::move(slice)); }
    /// Moving leaves the other empty. Errors: none.
    Chain(Chain&& other) noexcept : Chain() { take(other); }
    /// Ends what this one holds, then takes over what the other does.
    Chain& operator=(Chain&& other) noexcept {
        if (this != &other) {
            clear();
            take(other);
        }
        return *this;
    }
    ~Chain() {
        if (!is_inline()) [[unlikely]]
            clear();
        for (Buffer *slice = slices_, *last = slice + count_; slice != last; ++slice) slice->~Buffer();
    }

    /// Sum of the slices' sizes in bytes.
    std::size_t size() const noexcept { return size_bytes_; }
    /// No bytes.
    bool empty() const noexcept { return size_bytes_ == 0; }
    /// The slices, in order; their bytes may be changed, their sizes not.
    std::span<Buffer> slices() noexcept { return {slices_, count_}; }
    /// The slices, in order.
    std::span<const Buffer> slices() const noexcept { return {slices_, count_}; }
    /// The first slice, for range-based for.
    const Buffer* begin() const noexcept { return slices_; }
    /// Behind the last slice.
    const Buffer* end() const noexcept { return slices_ + count_; }

    /// Adds a slice at the end; empty ones are dropped. False: out of memory, `slice` is untouched.
    /// Cost: a move; beyond four slices an array from the thread's pool.
    [[nodiscard]] bool append(Buffer&& slice) noexcept {
        if (slice.empty()) return true;
        if (count_ == capacity_ && !grow(count_ + 1)) return false;
        append_unchecked(std::move(slice));
        return true;
    }
    /// Adds all slices of `other`, which is empty afterwards. False: out of memory, both are untouched.
    [[nodiscard]] bool append(Chain&& other) noexcept;

    /// Takes the first `n` bytes (all, if there are fewer) out of this chain.
    /// Splits a slice by sharing it. Out of memory shortens what is taken; it is never empty unless n or size() is 0.
    [[nodiscard]] Chain take_front(std::size_t n) noexcept;

    /// Drops the first `n` bytes (all, if there are fewer).
    void drop_front(std::size_t n) noexcept;

    /// Shares all slices: another chain over the same bytes. An empty result for a non-empty chain means out of memory.
    [[nodiscard]] Chain share() const noexcept;

    /// Copies up to target.size() bytes, starting at `offset`; returns how many.
    std::size_t copy_to(std::span<std::byte> target, std::size_t offset = 0) const noexcept;

    /// Drops all slices.
    void clear() noexcept;

private:
    Buffer* inline_array() noexcept { return reinterpret_cast<Buffer*>(inline_); }
    bool is_inline() const noexcept { return capacity_ == inline_slices; }
    void append_unchecked(Buffer&& slice) noexcept {
        if (slice.empty()) return;
        size_bytes_ += slice.size();
        new (slices_ + count_) Buffer(std::move(slice));
        ++count_;
    }
    bool grow(std::uint32_t wanted) noexcept;
    void take(Chain& other) noexcept {
        if (!other.is_inline()) [[unlikely]]
            return take_array(other);
        count_ = std::exchange(other.count_, 0);
        Buffer* from = other.slices_;
        for (Buffer *to = slices_, *last = to + count_; to != last; ++to, ++from) new (to) Buffer(std::move(*from));
        size_bytes_ = std::exchange(other.size_bytes_, 0);
    }
    void take_array(Chain& other) noexcept;
    void free_array() noexcept;

    Buffer* slices_;
    std::size_t size_bytes_ = 0;
    std::uint32_t count_ = 0;
    std::uint32_t capacity_ = inline_slices;
    alignas(Buffer) std::byte inline_[inline_slices * sizeof(Buffer)];
};

}  // namespace evpl
#pragma GCC visibility pop
