#pragma once

#include <cstddef>
#include <cstdint>

#pragma GCC visibility push(default)
namespace evpl {

/// A slab came or went: for programs that register the memory elsewhere.
struct SlabEvent {
    std::byte* base;         ///< where it begins, aligned to its size
    std::size_t size_bytes;  ///< 2 MiB
    bool appeared;           ///< false: about to be unmapped
    bool huge_pages;         ///< backed by a huge page
};
using SlabHook = void (*)(void* context, const SlabEvent& event);

/// Sets the process's slab hook; it is told of the slabs that exist already. Thread: any. The hook may be called from any
/// thread that runs a loop and must not call back into the library.
void set_slab_hook(SlabHook hook, void* context) noexcept;

/// Most bytes of slabs in the whole process; default: half of the machine's memory. At the limit allocation answers out_of_buffers.
void limit_process_memory(std::size_t bytes) noexcept;

/// The process's slabs now, in bytes, and how much of it sits in huge pages.
struct MemoryUse {
    std::size_t slab_bytes;   ///< of all loops, and kept for reuse
    std::size_t huge_bytes;   ///< of these, in huge pages
    std::size_t limit_bytes;  ///< what limit_process_memory() has set, or its default
};
MemoryUse memory_use() noexcept;

}  // namespace evpl
#pragma GCC visibility pop
