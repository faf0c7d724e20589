#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "evpl/buffer.hpp"
#include "evpl/memory.hpp"
#include "evpl/result.hpp"

namespace evpl::memory {

class Heap;

/// All slabs have this size: one huge page of x86-64 and arm64 (with 4 KiB base pages).
inline constexpr std::size_t slab_bytes = 2u << 20;

/// Most protection domains in a process. Each device port needs one; a slab keeps a key for each.
inline constexpr unsigned domains_max = 64;

/// A key that a slab has in a protection domain.
enum class KeyState : std::uint32_t { absent, pending, ready, failed };

/// One mapping of slab_bytes, aligned to its size, cut into blocks of one size class and lent to one heap. Or the program's own memory
/// (Region), of any size, which devices know by keys just so.
struct Slab {
    std::byte* base = nullptr;
    std::size_t size_bytes = slab_bytes;
    void (*end)(Slab& slab) = nullptr;  ///< the program's own: called in place of unmapping
    Heap* heap = nullptr;
    detail::Block* blocks = nullptr;  ///< their descriptors, block_count of them
    std::uint32_t size_class = 0;
    std::uint32_t block_bytes = 0;
    std::uint32_t block_count = 0;
    std::uint32_t used = 0;  ///< blocks in use
    bool huge = false;
    bool idle = false;     ///< was wholly free at the last trim
    Slab* next = nullptr;  ///< in the process's list
    Slab* previous = nullptr;
    Slab* heap_next = nullptr;  ///< in its heap's list

    struct Key {
        std::atomic<KeyState> state{KeyState::absent};
        std::atomic<std::uint64_t> value{0};
    };
    std::array<Key, domains_max> keys;

    bool is_foreign() const noexcept { return end != nullptr; }
};

/// The process's slabs. Thread-safe; called when a heap grows or shrinks, never per message.
class SlabStore {
public:
    static SlabStore& instance() noexcept;

    /// A zero-filled slab without blocks. Huge pages when there are any, else normal ones (a log line says so once).
    /// Errors: out_of_buffers (process limit), out_of_memory.
    Result<Slab*> take() noexcept;
    /// The program's own memory is a slab from now on, until it is given back.
    void adopt(Slab& foreign) noexcept;
    /// Unmaps it; if it is registered with a domain, off this thread, after deregistering.
    void give_back(Slab* slab) noexcept;

    void set_hook(SlabHook hook, void* context) noexcept;
    void set_limit(std::size_t bytes) noexcept;
    MemoryUse use() const noexcept;

    // -- for the registrar
    void unmap(Slab* slab) noexcept;
    template <class F>
    void for_each(F visit) noexcept {
        visit_all([](void* f, Slab& slab) { (*static_cast<F*>(f))(slab); }, &visit);
    }

private:
    SlabStore() noexcept;
    void enlist(Slab& slab) noexcept;
    void visit_all(void (*visit)(void*, Slab&), void* context) noexcept;
    struct State;
    State* state_;
};

}  // namespace evpl::memory
