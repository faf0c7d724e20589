#include "memory/slab.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <mutex>
#include <new>

#include "base/log_line.hpp"
#include "memory/registrar.hpp"

namespace evpl::memory {

struct SlabStore::State {
    mutable std::mutex mutex;
    Slab* first = nullptr;
    std::size_t bytes = 0;
    std::size_t huge_bytes = 0;
    std::size_t bytes_max = 0;
    SlabHook hook = nullptr;
    void* hook_context = nullptr;
    bool huge_refused = false;
};

namespace {

std::size_t half_of_memory() noexcept {
    const long pages = sysconf(_SC_PHYS_PAGES);
    const long page_bytes = sysconf(_SC_PAGESIZE);
    return pages > 0 && page_bytes > 0 ? std::size_t(pages) / 2 * std::size_t(page_bytes) : std::size_t(1) << 32;
}

// MADV_POPULATE_WRITE (madvise(2), Linux 5.14) answers an error where touching a page would raise SIGBUS: in a control group whose
// huge page limit is lower than what is free. Where the kernel lacks it huge pages are not used.
std::byte* map_huge() noexcept {
    void* at = mmap(nullptr, slab_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | (21 << 26), -1, 0);
    if (at == MAP_FAILED) return nullptr;
    constexpr int populate_write = 23;
    if (madvise(at, slab_bytes, populate_write) == 0) return static_cast<std::byte*>(at);
    munmap(at, slab_bytes);
    return nullptr;
}

std::byte* map_normal() noexcept {
    // Twice the size, so that an aligned slab lies within; the rest is given back.
    void* at = mmap(nullptr, 2 * slab_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) return nullptr;
    const auto start = reinterpret_cast<std::uintptr_t>(at);
    const auto base = (start + slab_bytes - 1) & ~(slab_bytes - 1);
    if (base > start) munmap(at, base - start);
    if (const std::size_t tail = start + slab_bytes - base; tail > 0) munmap(reinterpret_cast<void*>(base + slab_bytes), tail);
    return reinterpret_cast<std::byte*>(base);
}

}  // namespace

SlabStore& SlabStore::instance() noexcept {
    // Never destroyed: buffers may be released by static destructors.
    alignas(SlabStore) static std::byte room[sizeof(SlabStore)];
    static SlabStore* const store = new (room) SlabStore;
    return *store;
}

SlabStore::SlabStore() noexcept {
    alignas(State) static std::byte room[sizeof(State)];
    state_ = new (room) State;
    state_->bytes_max = half_of_memory();
}

Result<Slab*> SlabStore::take() noexcept {
    auto* slab = new (std::nothrow) Slab;
    if (slab == nullptr) return Errc::out_of_memory;
    const std::lock_guard lock(state_->mutex);
    if (state_->bytes + slab_bytes > state_->bytes_max) {
        delete slab;
        return Errc::out_of_buffers;
    }
    slab->base = map_huge();
    slab->huge = slab->base != nullptr;
    if (!slab->huge) slab->base = map_normal();
    if (slab->base == nullptr) {
        delete slab;
        return Error(Errc::out_of_memory, Step::none, Who::system, ENOMEM);
    }
    if (!slab->huge && !state_->huge_refused) {
        state_->huge_refused = true;
        base::log_line(LogLevel::info, "buffers use normal pages: no free 2 MiB huge page (sysctl vm.nr_hugepages=N provides them)");
    }
    enlist(*slab);
    state_->bytes += slab_bytes;
    if (slab->huge) state_->huge_bytes += slab_bytes;
    if (state_->hook != nullptr) state_->hook(state_->hook_context, {slab->base, slab_bytes, true, slab->huge});
    return slab;
}

/// Under the mutex.
void SlabStore::enlist(Slab& slab) noexcept {
    slab.next = state_->first;
    if (state_->first != nullptr) state_->first->previous = &slab;
    state_->first = &slab;
}

void SlabStore::adopt(Slab& foreign) noexcept {
    const std::lock_guard lock(state_->mutex);
    enlist(foreign);
}

void SlabStore::give_back(Slab* slab) noexcept {
    for (const Slab::Key& key : slab->keys) {
        // Pending: the registrar has it in hand; what it is told now comes after that.
        const KeyState state = key.state.load(std::memory_order_acquire);
        if (state == KeyState::ready || state == KeyState::pending) return Registrar::instance().deregister(slab);
    }
    unmap(slab);
}

void SlabStore::unmap(Slab* slab) noexcept {
    {
        const std::lock_guard lock(state_->mutex);
        if (slab->previous != nullptr) slab->previous->next = slab->next;
        else state_->first = slab->next;
        if (slab->next != nullptr) slab->next->previous = slab->previous;
        if (!slab->is_foreign()) {
            state_->bytes -= slab_bytes;
            if (slab->huge) state_->huge_bytes -= slab_bytes;
            if (state_->hook != nullptr) state_->hook(state_->hook_context, {slab->base, slab_bytes, false, slab->huge});
        }
    }
    if (slab->is_foreign()) return slab->end(*slab);
    munmap(slab->base, slab_bytes);
    delete slab;
}

void SlabStore::set_hook(SlabHook hook, void* context) noexcept {
    const std::lock_guard lock(state_->mutex);
    state_->hook = hook;
    state_->hook_context = context;
    for (Slab* s = state_->first; s != nullptr && hook != nullptr; s = s->next) {
        if (!s->is_foreign()) hook(context, {s->base, slab_bytes, true, s->huge});
    }
}

void SlabStore::visit_all(void (*visit)(void*, Slab&), void* context) noexcept {
    const std::lock_guard lock(state_->mutex);
    for (Slab* s = state_->first; s != nullptr; s = s->next) visit(context, *s);
}

void SlabStore::set_limit(std::size_t bytes) noexcept {
    const std::lock_guard lock(state_->mutex);
    state_->bytes_max = bytes;
}

MemoryUse SlabStore::use() const noexcept {
    const std::lock_guard lock(state_->mutex);
    return {state_->bytes, state_->huge_bytes, state_->bytes_max};
}

}  // namespace evpl::memory

namespace evpl {

void set_slab_hook(SlabHook hook, void* context) noexcept { memory::SlabStore::instance().set_hook(hook, context); }
void limit_process_memory(std::size_t bytes) noexcept { memory::SlabStore::instance().set_limit(bytes); }
MemoryUse memory_use() noexcept { return memory::SlabStore::instance().use(); }

}  // namespace evpl
