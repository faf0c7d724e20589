#pragma once

#include <cstdint>
#include <memory>

#include "memory/heap.hpp"
#include "transport/uring/ring.hpp"

namespace evpl::transport::uring {

/// A group of receive buffers that the kernel fills for whichever socket has bytes, so that an idle connection holds none. They are
/// blocks of the loop's slabs: what arrives is handed on as a slice, and the group gets another block.
/// Incremental: the kernel fills a block bit by bit, and slices are cut off it as the bytes come. Else every receive uses a block up.
class BufferGroup {
public:
    BufferGroup(memory::Heap& heap, std::uint16_t number, std::uint32_t block_bytes, std::uint32_t count) noexcept
        : heap_(heap), number_(number), block_bytes_(block_bytes), count_(count) {}
    ~BufferGroup();
    BufferGroup(const BufferGroup&) = delete;
    BufferGroup& operator=(const BufferGroup&) = delete;

    /// Registers the group and fills it. Errors: out_of_memory, those of io_uring_register(2).
    Result<void> open(Ring& ring, bool incremental) noexcept;
    /// What the receive that ended with `done` put into its buffer, as a slice; empty when nothing was received.
    Buffer take(const abi::Cqe& done) noexcept;
    /// Blocks in the place of those that were used up. Once per batch. False: the heap has none, and the group is empty.
    bool refill() noexcept;

    std::uint16_t number() const noexcept { return number_; }
    std::uint32_t block_bytes() const noexcept { return block_bytes_; }
    bool is_open() const noexcept { return entries_ != nullptr; }

private:
    struct Slot {
        Buffer block;
        std::uint32_t used = 0;  ///< incremental: handed on
        std::uint16_t next = 0;  ///< in the list of empty ones
    };
    static constexpr std::uint16_t none = 0xffff;
    void offer(std::uint16_t id) noexcept;

    memory::Heap& heap_;
    const std::uint16_t number_;
    const std::uint32_t block_bytes_;
    const std::uint32_t count_;
    bool incremental_ = false;
    std::uint16_t tail_ = 0;
    std::uint16_t empty_ = none;
    std::uint32_t empty_count_ = 0;
    abi::ProvidedBuffer* entries_ = nullptr;
    std::size_t entries_bytes_ = 0;
    std::unique_ptr<Slot[]> slots_;
};

}  // namespace evpl::transport::uring
