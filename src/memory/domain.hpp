#pragma once

#include <cstddef>
#include <cstdint>

#include "evpl/result.hpp"
#include "memory/block.hpp"
#include "memory/slab.hpp"

namespace evpl::memory {

/// A protection domain of a device: memory must be registered in it before the device may touch it.
/// Registration takes time and may lock: it runs on the registrar's thread, never on a loop.
class Domain {
public:
    /// Takes the next free number. A domain beyond domains_max is not enrolled and registers nothing.
    Domain() noexcept;
    /// Waits until the registrar is done with it and deregisters what it still has. Not on a loop's hot path.
    virtual ~Domain();
    Domain(const Domain&) = delete;
    Domain& operator=(const Domain&) = delete;

    /// On the registrar's thread. Errors: whatever the device says; the slab stays unusable for this domain.
    virtual Result<std::uint64_t> register_memory(std::byte* base, std::size_t size_bytes) noexcept = 0;
    virtual void deregister_memory(std::byte* base, std::size_t size_bytes, std::uint64_t key) noexcept = 0;

    bool enrolled() const noexcept { return number_ < domains_max; }
    unsigned number() const noexcept { return number_; }

    /// The slab's key, or null when it has none yet. Thread: any. Cost: two loads.
    const std::uint64_t* key_of(const Slab& slab, std::uint64_t& room) const noexcept {
        if (!enrolled()) return nullptr;
        const Slab::Key& key = slab.keys[number_];
        if (key.state.load(std::memory_order_acquire) != KeyState::ready) return nullptr;
        room = key.value.load(std::memory_order_relaxed);
        return &room;
    }
    /// Asks for a key, once; `done(context)` is called on the registrar's thread when the answer is there (ring a bell, no more).
    /// The slab must stay with its heap until then: a heap does not give back a slab with a pending key.
    void request(Slab& slab, void (*done)(void* context), void* context) noexcept;

protected:
    /// Derived destructors call this first: deregistering needs the derived object.
    void retire() noexcept;

private:
    unsigned number_ = domains_max;
    bool retired_ = false;
};

/// The slab a buffer's bytes lie in, or that stands for the region they lie in; null for other wrapped memory.
inline Slab* slab_of(const Buffer& buffer) noexcept {
    const detail::Block* block = BufferAccess::block(buffer);
    while (block != nullptr && block->kind == proxy) block = static_cast<const detail::Block*>(block->owner);
    return block != nullptr ? static_cast<Slab*>(block->owner) : nullptr;  // a wrapper without a region has none
}

}  // namespace evpl::memory
