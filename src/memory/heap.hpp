#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "evpl/result.hpp"
#include "memory/block.hpp"
#include "memory/slab.hpp"

namespace evpl::memory {

/// Size classes: 2 KiB << n, n = 0..10, up to 2 MiB.
inline constexpr unsigned size_classes = 11;
inline constexpr std::uint32_t block_bytes_min = 2u << 10;
inline constexpr std::uint32_t block_bytes_max = 2u << 20;

constexpr unsigned size_class_of(std::uint32_t bytes) noexcept { return bytes <= block_bytes_min ? 0u : 32u - unsigned(__builtin_clz(bytes - 1)) - 11u; }
constexpr std::uint32_t class_bytes(unsigned size_class) noexcept { return block_bytes_min << size_class; }

/// The memory of one loop: blocks of its slabs, last in first out, and descriptors for parcels and wrapped memory.
/// All calls on the owning thread unless said otherwise. It may outlive its loop while its blocks are still out.
class Heap {
public:
    /// Null: out of memory.
    static Heap* create(std::size_t bytes_max) noexcept;
    /// The loop is done with it. Freed now, or when the last block has come home.
    void retire() noexcept;

    /// A slice of `size_bytes` from the fitting class. Errors: out_of_buffers, out_of_memory, too_large.
    Result<Buffer> allocate(std::uint32_t size_bytes) noexcept;
    /// `region`: devices know the memory by its keys; null: by none.
    Result<Buffer> wrap(std::byte* data, std::uint32_t size_bytes, void (*release)(void*), void* context, Slab* region = nullptr) noexcept;
    /// A copy of `from` in the fitting class.
    Result<Buffer> copy(const std::byte* from, std::uint32_t size_bytes) noexcept;

    /// A proxy descriptor, which takes over one reference on `origin`; null: out of memory.
    Descriptor* make_proxy(detail::Block* origin) noexcept;

    /// Blocks that other threads let go come back into use. Cost when there are none: one load.
    void drain_returns() noexcept {
        if (returns_.load(std::memory_order_relaxed) != nullptr) [[unlikely]]
            take_returns();
    }
    /// Gives slabs back that were wholly free at the last trim and still are. Call now and then, and before a long sleep.
    /// True: another call after a while may free more.
    bool trim() noexcept;

    std::size_t slab_bytes_held() const noexcept { return slab_count_ * slab_bytes; }
    std::uint64_t blocks_out() const noexcept { return blocks_out_; }
    std::uint64_t allocations() const noexcept { return system_allocations_; }  ///< calls of the system's allocator or mmap so far

    /// The heap of the loop that runs on this thread; null outside a loop.
    static Heap* current() noexcept;
    static void set_current(Heap* heap) noexcept;
    /// Sends the blocks of other loops home that were let go while this heap was the current one. Once per turn.
    /// Cost when there are none: one load.
    void flush_departures() noexcept {
        if (departures_.count > 0) [[unlikely]]
            depart();
    }

    /// A block of this heap lost its last reference on its own thread.
    void release_here(detail::Block* block) noexcept;
    /// The last reference on a proxy is gone. Thread: the one that counted it.
    static void release_proxy(Descriptor* descriptor) noexcept;
    /// A descriptor's block was let go on a foreign thread. Thread: any.
    static void send_home(Descriptor* descriptor) noexcept;
    static void send_home_now(Heap* home, detail::Block* first, detail::Block* last) noexcept;

private:
    /// Blocks of other loops, collected so that one batch costs one locked instruction.
    struct Departures {
        static constexpr unsigned homes_max = 8;
        struct List {
            Heap* home;
            detail::Block* first;
            detail::Block* last;
        };
        List lists[homes_max];
        unsigned count = 0;
    };

    Heap() noexcept = default;
    ~Heap();
    Error grow(unsigned size_class) noexcept;
    void release(detail::Block* block) noexcept;
    void take_returns() noexcept;
    void accept_list(detail::Block* list) noexcept;
    Descriptor* take_descriptor() noexcept;
    void put_descriptor(Descriptor* descriptor) noexcept;
    static void drop_homeless(detail::Block*& list) noexcept;
    static void count_apart(detail::Block* origin) noexcept;
    bool finish_if_empty() noexcept;
    void depart() noexcept;
    void leave_for(Heap* home, Descriptor* descriptor) noexcept;

    detail::Block* free_[size_classes] = {};
    Slab* slabs_ = nullptr;
    std::size_t slab_count_ = 0;
    std::size_t slab_count_max_ = 0;
    std::uint64_t blocks_out_ = 0;
    std::uint64_t descriptors_out_ = 0;
    std::uint64_t system_allocations_ = 0;
    detail::Block* free_descriptors_ = nullptr;
    void* descriptor_chunks_ = nullptr;
    bool retired_ = false;
    unsigned accepting_ = 0;  // accept_list() is under way: the heap must stay
    Departures departures_;
    std::atomic<detail::Block*> returns_{nullptr};
};

}  // namespace evpl::memory
