#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "evpl/buffer.hpp"
#include "evpl/result.hpp"

#pragma GCC visibility push(default)
namespace evpl {

namespace memory {
struct RegionSlab;
}

/// Memory of the program's own that devices may use where it lies. Each device that is to send from it, or to read or write into it, registers
/// the whole of it once, on a thread of the library's, at the first use there; until then, and where a device refuses, slices up to 2 MiB
/// are copied, as those of Loop::wrap() always are. Slices are Buffers of Loop::slice(), on any loop.
/// The memory stays the program's. It must be there, and mapped as it is, until `release(context)` has been called: that is once this
/// object and all slices are gone and no device knows the memory any more. There is no cache that would have to guess what was unmapped.
/// Thread: any, one at a time.
class Region {
public:
    constexpr Region() noexcept = default;
    /// Asks no device yet. `release` may be null; it is called on any thread, once, and must not call the library.
    /// Errors: misuse (no bytes), out_of_memory: then nothing is called.
    static Result<Region> make(std::span<std::byte> bytes, void (*release)(void* context) = nullptr, void* context = nullptr) noexcept;
    /// Moving leaves the other empty. Errors: none.
    Region(Region&& other) noexcept : slab_(std::exchange(other.slab_, nullptr)) {}
    /// Lets go of what this one stands for, then takes over what the other does.
    Region& operator=(Region&& other) noexcept {
        Region taken(std::move(other));
        std::swap(slab_, taken.slab_);
        return *this;
    }
    ~Region();

    /// False: it was moved from, or made without memory.
    constexpr explicit operator bool() const noexcept { return slab_ != nullptr; }
    /// What it was made of; empty for none.
    std::span<std::byte> bytes() const noexcept;

private:
    friend class Loop;
    explicit Region(memory::RegionSlab* slab) noexcept : slab_(slab) {}
    memory::RegionSlab* slab_ = nullptr;
};

}  // namespace evpl
#pragma GCC visibility pop
