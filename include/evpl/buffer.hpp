#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "evpl/check.hpp"

#pragma GCC visibility push(default)
namespace evpl {

class Parcel;

namespace detail {
/// The descriptor of one block of memory. Not part of the promises; here only so that moves and shares are inline.
struct Block {
    std::byte* data;     ///< first byte of the block
    std::uint32_t refs;  ///< plain count: a block is counted by one loop only
    std::uint32_t kind;  ///< who takes it back, see memory/block.hpp
    void* owner;         ///< slab, origin block or wrapper, by kind
    Block* next;         ///< free and return lists
};
/// The last reference is gone. Out of line: the cold half of ~Buffer.
void release_block(Block* block) noexcept;
}  // namespace detail

/// A slice of a registered slab: pointer, length, and one reference on its block.
/// Moving is free. A Buffer never leaves its loop's thread; pack() makes a Parcel that may.
/// Made by Loop::allocate, Loop::copy, Loop::wrap, or received.
class Buffer {
public:
    Buffer() noexcept = default;
    /// Moving leaves the other empty. Errors: none.
    Buffer(Buffer&& other) noexcept
        : data_(other.data_), block_(std::exchange(other.block_, nullptr)), size_and_flags_(std::exchange(other.size_and_flags_, 0)) {}
    /// Ends what this one holds, then takes over what the other does.
    Buffer& operator=(Buffer&& other) noexcept {
        if (this != &other) {
            reset();
            data_ = other.data_;
            block_ = std::exchange(other.block_, nullptr);
            size_and_flags_ = std::exchange(other.size_and_flags_, 0);
        }
        return *this;
    }
    ~Buffer() {  // reset() without its stores, which nobody reads
        if (block_ != nullptr && --block_->refs == 0) detail::release_block(block_);
    }

    /// The first byte; may be written, also while other slices share the block. Null or dangling when empty.
    std::byte* data() const noexcept { return data_; }
    /// In bytes.
    std::uint32_t size() const noexcept { return std::uint32_t(size_and_flags_); }
    /// No bytes. A slice of no bytes may still hold a block.
    bool empty() const noexcept { return size() == 0; }
    /// The bytes, for as long as this slice lives.
    std::span<std::byte> bytes() const noexcept { return {data_, size()}; }
    /// Holds a block. Only default-made, moved-from and reset ones do not.
    explicit operator bool() const noexcept { return block_ != nullptr; }

    /// Another reference to bytes [offset, offset + size_bytes) of this slice.
    /// Errors: none; a range outside the slice is misuse and stops the program.
    /// Thread: owning loop. Cost: one plain increment.
    [[nodiscard]] Buffer share(std::uint32_t offset, std::uint32_t size_bytes) const {
        EVPL_CHECK(offset <= size() && size_bytes <= size() - offset, "slice out of range", offset, size_bytes);
        if (block_ != nullptr) ++block_->refs;
        return Buffer(block_, data_ + offset, size_bytes);
    }
    /// Another reference to the whole slice. Thread: owning loop. Cost: one plain increment.
    [[nodiscard]] Buffer share() const { return share(0, size()); }

    /// Drops `n` bytes at the front, or keeps only the first `n`. Out of range stops the program. Cost: none.
    void drop_front(std::uint32_t n) {
        EVPL_CHECK(n <= size(), "drop_front past the end of a slice", n, size());
        data_ += n;
        size_and_flags_ -= n;
    }
    /// Keeps only the first `n` bytes; more than there are stops the program. Cost: none.
    void truncate(std::uint32_t n) {
        EVPL_CHECK(n <= size(), "truncate beyond the end of a slice", n, size());
        size_and_flags_ -= size() - n;
    }

    /// Makes a Parcel, which any thread may carry, open or drop. Leaves this Buffer empty.
    /// Thread: owning loop. Cost: a descriptor from the loop's pool; no copy. An empty Parcel means out of memory
    /// (the Buffer is unchanged then) or an empty Buffer.
    [[nodiscard]] Parcel pack() &&;

    /// Gives the reference back now.
    void reset() noexcept {
        detail::Block* const block = std::exchange(block_, nullptr);
        size_and_flags_ = 0;
        if (block != nullptr && --block->refs == 0) detail::release_block(block);
    }

private:
    friend struct BufferAccess;  // memory/block.hpp: the library's own constructor
    Buffer(detail::Block* block, std::byte* data, std::uint32_t size) noexcept : data_(data), block_(block), size_and_flags_(size) {}

    std::byte* data_ = nullptr;
    detail::Block* block_ = nullptr;
    /// The size below, above it what marks the last slice of a message inside the library's queues. One field: two halves that were stored
    /// one by one and are moved as a whole stall the processor until they are in the cache.
    std::uint64_t size_and_flags_ = 0;
};
static_assert(sizeof(Buffer) == 24);  // four fit in a Chain without a heap block

}  // namespace evpl
#pragma GCC visibility pop
