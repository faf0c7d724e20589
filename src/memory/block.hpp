#pragma once

#include <cstdint>

#include "evpl/buffer.hpp"
#include "evpl/chain.hpp"
#include "evpl/parcel.hpp"

namespace evpl {

/// The library's own door to slices: making them from blocks, and the marks they carry inside queues.
struct BufferAccess {
    static constexpr std::uint32_t end_of_message = 1;  ///< last slice of a message
    static constexpr std::uint32_t has_descriptor = 2;  ///< a descriptor travels with this slice's first byte
    static constexpr std::uint32_t has_key = 4;         ///< last slice of a message that takes back an exposed key

    /// Adopts one reference on `block`.
    static Buffer adopt(detail::Block* block, std::byte* data, std::uint32_t size) noexcept { return Buffer(block, data, size); }
    static detail::Block* block(const Buffer& buffer) noexcept { return buffer.block_; }
    static std::uint32_t flags(const Buffer& buffer) noexcept { return std::uint32_t(buffer.size_and_flags_ >> 32); }
    static void set_flags(Buffer& buffer, std::uint32_t flags) noexcept { buffer.size_and_flags_ = buffer.size() | std::uint64_t(flags) << 32; }
    /// Gives up the reference without releasing it.
    static detail::Block* detach(Buffer& buffer) noexcept {
        buffer.size_and_flags_ = 0;
        return std::exchange(buffer.block_, nullptr);
    }
    static Parcel parcel(detail::Block* block, std::byte* data, std::uint32_t size) noexcept { return Parcel(block, data, size); }
};

namespace memory {

class Heap;

/// Values of Block::kind.
enum BlockKind : std::uint32_t {
    slab_block,  ///< part of a slab; owner is the Slab
    proxy,       ///< stands on one loop (or in a Parcel) for one reference on another loop's block; owner is that block
    wrapper      ///< the caller's memory; owner is the Slab of its Region, or null, see Descriptor
};

/// Proxies and wrappers: a Block with the heap it must go home to. From the heap's pool.
struct Descriptor : detail::Block {
    Heap* home;                      ///< whose pool it came from, and whose thread counts the origin's references
    std::uint32_t size_bytes;        ///< wrapper: of the memory
    void (*release)(void* context);  ///< wrapper: called when the last reference is gone
    void* context;
};

/// No other slice of the block is alive.
inline bool is_sole(const Buffer& buffer) noexcept { return BufferAccess::block(buffer)->refs == 1; }

/// The slice is alone in a slab's block, from its start, and the block has `size_bytes`.
bool can_grow_to(const Buffer& buffer, std::uint32_t size_bytes) noexcept;

/// Bytes of the block that `buffer` holds alive.
std::uint32_t block_bytes(const Buffer& buffer) noexcept;

}  // namespace memory
}  // namespace evpl
