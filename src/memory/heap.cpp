#include "memory/heap.hpp"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <utility>

#include "memory/array_pool.hpp"
#include "memory/domain.hpp"

namespace evpl::memory {
namespace {

constexpr unsigned descriptors_per_chunk = 64;

struct Chunk {
    Chunk* next;
    Descriptor descriptors[descriptors_per_chunk];
};

// What Heap::returns_ holds once its loop is gone: from then on returns go through the mutex.
detail::Block retired_mark_block{};
detail::Block* const retired_mark = &retired_mark_block;

std::recursive_mutex& orphans_mutex() noexcept {
    alignas(std::recursive_mutex) static std::byte room[sizeof(std::recursive_mutex)];
    static std::recursive_mutex* const mutex = new (room) std::recursive_mutex;
    return *mutex;
}

// When a loop ends, Buffers that its program keeps on the loop's former thread go on counting plainly in Block::refs, while proxies of
// the same blocks come back on other threads. From then on the proxies are counted apart, under the mutex, in Block::next, which is
// unused while a block is out: two for each proxy, and one for all Buffers together. Zero: there never was such a proxy.
constexpr std::uintptr_t one_proxy = 2;
constexpr std::uintptr_t buffers_left = 1;

std::uintptr_t holders_of(detail::Block* block) noexcept {
    return reinterpret_cast<std::uintptr_t>(std::atomic_ref(block->next).load(std::memory_order_relaxed));
}
std::uintptr_t set_holders(detail::Block* block, std::uintptr_t holders) noexcept {
    std::atomic_ref(block->next).store(reinterpret_cast<detail::Block*>(holders), std::memory_order_relaxed);
    return holders;
}
void note_buffers_left(detail::Block* block) noexcept { set_holders(block, (holders_of(block) & ~buffers_left) | (block->refs != 0 ? buffers_left : 0)); }

thread_local Heap* current_heap = nullptr;

}  // namespace

Heap* Heap::current() noexcept { return current_heap; }
void Heap::set_current(Heap* heap) noexcept { current_heap = heap; }

Heap* Heap::create(std::size_t bytes_max) noexcept {
    auto* heap = new (std::nothrow) Heap;
    if (heap != nullptr) heap->slab_count_max_ = bytes_max / slab_bytes > 0 ? bytes_max / slab_bytes : 1;
    return heap;
}

Heap::~Heap() {
    while (Slab* slab = slabs_) {
        slabs_ = slab->heap_next;
        std::free(slab->blocks);
        SlabStore::instance().give_back(slab);
    }
    while (auto* chunk = static_cast<Chunk*>(descriptor_chunks_)) {
        descriptor_chunks_ = chunk->next;
        std::free(chunk);
    }
}

// -- taking ----------------------------------------------------------------------------------------------------

Result<Buffer> Heap::allocate(std::uint32_t size_bytes) noexcept {
    if (size_bytes > block_bytes_max) [[unlikely]]
        return Errc::too_large;
    const unsigned size_class = size_class_of(size_bytes);
    detail::Block* block = free_[size_class];
    if (block == nullptr) [[unlikely]] {
        if (const Error error = grow(size_class); !error.ok()) return error;
        block = free_[size_class];
    }
    free_[size_class] = std::exchange(block->next, nullptr);
    block->refs = 1;
    ++static_cast<Slab*>(block->owner)->used;
    ++blocks_out_;
    return BufferAccess::adopt(block, block->data, size_bytes);
}

Result<Buffer> Heap::copy(const std::byte* from, std::uint32_t size_bytes) noexcept {
    auto made = allocate(size_bytes);
    if (made && size_bytes > 0) std::memcpy(made->data(), from, size_bytes);
    return made;
}

Error Heap::grow(unsigned size_class) noexcept {
    drain_returns();
    if (free_[size_class] != nullptr) return {};
    if (slab_count_ >= slab_count_max_) {
        for (unsigned i = 0; i < 2; ++i) trim();  // slabs of other classes may be free: the second round gives them back
        if (slab_count_ >= slab_count_max_) return Errc::out_of_buffers;
    }
    const std::uint32_t bytes = class_bytes(size_class);
    const std::uint32_t count = std::uint32_t(slab_bytes / bytes);
    auto* blocks = static_cast<detail::Block*>(std::malloc(count * sizeof(detail::Block)));
    if (blocks == nullptr) return Errc::out_of_memory;
    const auto taken = SlabStore::instance().take();
    if (!taken) {
        std::free(blocks);
        return taken.error();
    }
    system_allocations_ += 3;
    Slab* slab = *taken;
    slab->heap = this;
    slab->blocks = blocks;
    slab->size_class = size_class;
    slab->block_bytes = bytes;
    slab->block_count = count;
    slab->heap_next = slabs_;
    slabs_ = slab;
    ++slab_count_;
    for (std::uint32_t i = count; i-- > 0;) {  // the lowest address ends up first
        free_[size_class] = new (&blocks[i]) detail::Block{slab->base + std::size_t(i) * bytes, 0, slab_block, slab, free_[size_class]};
    }
    return {};
}

Descriptor* Heap::take_descriptor() noexcept {
    if (free_descriptors_ == nullptr) {
        auto* chunk = static_cast<Chunk*>(std::malloc(sizeof(Chunk)));
        if (chunk == nullptr) return nullptr;
        ++system_allocations_;
        chunk->next = static_cast<Chunk*>(descriptor_chunks_);
        descriptor_chunks_ = chunk;
        for (Descriptor& d : chunk->descriptors) {
            new (&d) Descriptor{};
            d.next = free_descriptors_;
            free_descriptors_ = &d;
        }
    }
    auto* descriptor = static_cast<Descriptor*>(free_descriptors_);
    free_descriptors_ = std::exchange(descriptor->next, nullptr);
    ++descriptors_out_;
    descriptor->home = this;
    descriptor->refs = 1;
    return descriptor;
}

void Heap::put_descriptor(Descriptor* descriptor) noexcept {
    descriptor->owner = nullptr;  // so that retire() finds the proxies that are out
    descriptor->next = free_descriptors_;
    free_descriptors_ = descriptor;
    --descriptors_out_;
}

Result<Buffer> Heap::wrap(std::byte* data, std::uint32_t size_bytes, void (*on_release)(void*), void* context, Slab* region) noexcept {
    Descriptor* descriptor = take_descriptor();
    if (descriptor == nullptr) return Errc::out_of_memory;
    descriptor->kind = wrapper;
    descriptor->data = data;
    descriptor->size_bytes = size_bytes;
    descriptor->owner = region;
    descriptor->release = on_release;
    descriptor->context = context;
    return BufferAccess::adopt(descriptor, data, size_bytes);
}

Descriptor* Heap::make_proxy(detail::Block* origin) noexcept {
    std::unique_lock lock(orphans_mutex(), std::defer_lock);
    if (retired_) [[unlikely]]
        lock.lock();
    Descriptor* descriptor = take_descriptor();
    if (descriptor == nullptr) return nullptr;
    descriptor->kind = proxy;
    descriptor->data = origin->data;
    descriptor->owner = origin;
    if (retired_) [[unlikely]]
        count_apart(origin);
    return descriptor;
}

// -- giving back -----------------------------------------------------------------------------------------------

void Heap::release(detail::Block* block) noexcept {
    if (block->kind == slab_block) [[likely]] {
        auto* slab = static_cast<Slab*>(block->owner);
        --slab->used;
        block->next = free_[slab->size_class];
        free_[slab->size_class] = block;
        --blocks_out_;
    } else {
        auto* descriptor = static_cast<Descriptor*>(block);
        if (descriptor->release != nullptr) descriptor->release(descriptor->context);
        descriptor->release = nullptr;
        put_descriptor(descriptor);
    }
}

void Heap::release_here(detail::Block* block) noexcept {
    if (!retired_) [[likely]]
        return release(block);
    // A buffer that its program kept longer than the loop.
    const std::lock_guard lock(orphans_mutex());
    if (set_holders(block, holders_of(block) & ~buffers_left) != 0) return;
    release(block);
    finish_if_empty();
}

void Heap::release_proxy(Descriptor* descriptor) noexcept {
    if (holders_of(descriptor) != 0) [[unlikely]] {
        const std::lock_guard lock(orphans_mutex());
        if (set_holders(descriptor, holders_of(descriptor) & ~buffers_left) != 0) return;
    }
    send_home(descriptor);
}

// A proxy is home: its reference on the origin ends here, where that is counted.
void Heap::accept_list(detail::Block* list) noexcept {
    ++accepting_;  // what is released here may bring further proxies home, or run the program's code
    while (list != nullptr) {
        auto* descriptor = static_cast<Descriptor*>(list);
        list = descriptor->next;
        auto* origin = static_cast<detail::Block*>(descriptor->owner);
        put_descriptor(descriptor);
        const bool held = retired_ ? set_holders(origin, holders_of(origin) - one_proxy) != 0 : --origin->refs != 0;
        if (held) continue;
        if (origin->kind == proxy) release_proxy(static_cast<Descriptor*>(origin));
        else release(origin);
    }
    --accepting_;
}

void Heap::take_returns() noexcept { accept_list(returns_.exchange(nullptr, std::memory_order_acquire)); }

void Heap::send_home_now(Heap* home, detail::Block* first, detail::Block* last) noexcept {
    detail::Block* head = home->returns_.load(std::memory_order_relaxed);
    do {
        if (head == retired_mark) [[unlikely]] {
            // The blocks in hand are still out, so the heap is there until the mutex is ours.
            const std::lock_guard lock(orphans_mutex());
            last->next = nullptr;
            home->accept_list(first);
            home->finish_if_empty();
            return;
        }
        last->next = head;
    } while (!home->returns_.compare_exchange_weak(head, first, std::memory_order_release, std::memory_order_relaxed));
}

void Heap::send_home(Descriptor* descriptor) noexcept {
    Heap* home = descriptor->home;
    if (current_heap == nullptr) return send_home_now(home, descriptor, descriptor);
    if (current_heap == home) {
        descriptor->next = nullptr;
        return home->accept_list(descriptor);
    }
    current_heap->leave_for(home, descriptor);
}

void Heap::leave_for(Heap* home, Descriptor* descriptor) noexcept {
    for (unsigned i = 0; i < departures_.count; ++i) {
        if (departures_.lists[i].home != home) continue;
        descriptor->next = departures_.lists[i].first;
        departures_.lists[i].first = descriptor;
        return;
    }
    if (departures_.count == Departures::homes_max) depart();
    departures_.lists[departures_.count++] = {home, descriptor, descriptor};
}

void Heap::depart() noexcept {
    // Going home to a retired heap ends references on other heaps, and may run the program's code: both depart again meanwhile.
    while (departures_.count > 0) {
        const Departures now = departures_;
        departures_.count = 0;
        for (unsigned i = 0; i < now.count; ++i) send_home_now(now.lists[i].home, now.lists[i].first, now.lists[i].last);
    }
}

// -- shrinking -------------------------------------------------------------------------------------------------

bool Heap::trim() noexcept {
    drain_returns();
    bool more = false;
    Slab* leaving = nullptr;
    unsigned classes = 0;
    for (Slab** link = &slabs_; *link != nullptr;) {
        Slab* slab = *link;
        bool pending = false;
        for (const Slab::Key& key : slab->keys) pending |= key.state.load(std::memory_order_relaxed) == KeyState::pending;
        if (slab->used == 0 && !pending && slab->idle) {
            *link = slab->heap_next;
            slab->heap_next = leaving;
            leaving = slab;
            slab->heap = nullptr;  // tells its blocks apart
            classes |= 1u << slab->size_class;
            continue;
        }
        slab->idle = slab->used == 0 && !pending;
        more |= slab->used == 0;
        link = &slab->heap_next;
    }
    // One walk per size class, however many slabs go: after a burst there may be hundreds.
    for (unsigned i = 0; classes >> i != 0; ++i) {
        if ((classes >> i & 1u) != 0) drop_homeless(free_[i]);
    }
    while (Slab* slab = leaving) {
        leaving = slab->heap_next;
        --slab_count_;
        std::free(slab->blocks);
        SlabStore::instance().give_back(slab);
    }
    return more;
}

void Heap::drop_homeless(detail::Block*& list) noexcept {
    detail::Block** link = &list;
    for (detail::Block* block = list; block != nullptr; block = block->next) {
        if (static_cast<const Slab*>(block->owner)->heap == nullptr) continue;
        *link = block;
        link = &block->next;
    }
    *link = nullptr;
}

void Heap::retire() noexcept {
    flush_departures();
    const std::lock_guard lock(orphans_mutex());
    accept_list(returns_.exchange(retired_mark, std::memory_order_acquire));
    retired_ = true;
    for (auto* chunk = static_cast<Chunk*>(descriptor_chunks_); chunk != nullptr; chunk = chunk->next) {
        for (Descriptor& descriptor : chunk->descriptors) {
            if (descriptor.kind == proxy && descriptor.owner != nullptr) count_apart(static_cast<detail::Block*>(descriptor.owner));
        }
    }
    finish_if_empty();
}

// One reference of `origin` is a proxy's.
void Heap::count_apart(detail::Block* origin) noexcept {
    --origin->refs;
    set_holders(origin, holders_of(origin) + one_proxy);
    note_buffers_left(origin);
}

bool Heap::finish_if_empty() noexcept {
    if (!retired_ || accepting_ != 0 || blocks_out_ != 0 || descriptors_out_ != 0) return false;
    delete this;
    return true;
}

bool can_grow_to(const Buffer& buffer, std::uint32_t size_bytes) noexcept {
    const detail::Block* block = BufferAccess::block(buffer);
    return block != nullptr && block->kind == slab_block && block->refs == 1 && buffer.data() == block->data &&
           static_cast<const Slab*>(block->owner)->block_bytes >= size_bytes;
}

std::uint32_t block_bytes(const Buffer& buffer) noexcept {
    const detail::Block* block = BufferAccess::block(buffer);
    while (block != nullptr && block->kind == proxy) block = static_cast<const detail::Block*>(block->owner);
    if (block == nullptr) return 0;
    return block->kind == slab_block ? static_cast<const Slab*>(block->owner)->block_bytes : static_cast<const Descriptor*>(block)->size_bytes;
}

}  // namespace evpl::memory

namespace evpl {

using memory::Descriptor;
using memory::Heap;
using memory::Slab;

namespace {

Heap* home_of(const detail::Block* block) noexcept {
    if (block->kind == memory::slab_block) return static_cast<const Slab*>(block->owner)->heap;
    return static_cast<const Descriptor*>(block)->home;
}

}  // namespace

void detail::release_block(Block* block) noexcept {
    if (block->kind == memory::proxy) return Heap::release_proxy(static_cast<Descriptor*>(block));
    Heap* heap = home_of(block);
    heap->release_here(block);
}

Parcel Buffer::pack() && {
    if (block_ == nullptr) return {};
    detail::Block* carried = block_;
    if (block_->kind != memory::proxy || block_->refs > 1) {
        // The proxy goes home to the heap whose thread counts this reference: this one.
        Heap* here = block_->kind == memory::proxy ? Heap::current() : home_of(block_);
        carried = here != nullptr ? here->make_proxy(block_) : nullptr;
        if (carried == nullptr) return {};
    }
    Parcel parcel = BufferAccess::parcel(carried, data_, size());
    block_ = nullptr;  // its reference is the proxy's now
    size_and_flags_ = 0;
    return parcel;
}

void Parcel::drop() noexcept {
    if (block_ != nullptr) Heap::release_proxy(static_cast<Descriptor*>(std::exchange(block_, nullptr)));
}

}  // namespace evpl
