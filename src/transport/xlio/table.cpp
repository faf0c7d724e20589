#include "transport/xlio/table.hpp"

#include <dlfcn.h>
#include <sys/mman.h>

#include <cstddef>
#include <cstdio>
#include <cstring>
#include <string>

namespace evpl::transport::xlio {
namespace {

using GetSockOpt = int(int, int, int, void*, socklen_t*);
constexpr const char* upgrade = "install libxlio 3.60.4 to 3.70.2";

/// A function pointer that lies in the same library as `anchor`.
bool is_beside(const void* function, const Dl_info& anchor) noexcept {
    Dl_info found{};
    return function != nullptr && dladdr(function, &found) != 0 && found.dli_fbase == anchor.dli_fbase;
}

bool all_beside(const void* const* slots, const void* exit) noexcept {
    Dl_info anchor{};
    if (exit == nullptr || dladdr(exit, &anchor) == 0 || slots[abi::slot_exit] != exit) return false;
    for (unsigned i = 0; i < abi::slot_count; ++i)
        if (!is_beside(slots[i], anchor)) return false;
    return true;
}

const void* const* slots_at(const abi::TableHead* table, std::size_t offset) noexcept {
    return reinterpret_cast<const void* const*>(reinterpret_cast<const std::byte*>(table) + offset);
}

#ifndef EVPL_XLIO_STATIC
/// libibverbs comes with the library; a library that brings the calls itself is asked first.
bool load_verbs(void* library, abi::Calls& calls) noexcept {
    void* source = library;
    if (dlsym(library, "ibv_reg_mr") == nullptr) source = dlopen("libibverbs.so.1", RTLD_NOW | RTLD_LOCAL);
    if (source == nullptr) return false;
    calls.reg_mr = reinterpret_cast<decltype(calls.reg_mr)>(dlsym(source, "ibv_reg_mr"));
    calls.dereg_mr = reinterpret_cast<decltype(calls.dereg_mr)>(dlsym(source, "ibv_dereg_mr"));
    return calls.reg_mr != nullptr && calls.dereg_mr != nullptr;
}
#endif

// What the library keeps its buffers in. It asks once, for all of them; we give it ordinary memory that may become huge pages.
void* allocate(std::size_t bytes) noexcept {
    constexpr std::size_t huge = 2u << 20;
    const std::size_t rounded = (bytes + huge - 1) & ~(huge - 1);
    void* at = ::mmap(nullptr, rounded, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) return nullptr;
    ::madvise(at, rounded, MADV_HUGEPAGE);
    return at;
}
void keep(void*) noexcept {}  // with the process: rings of other threads may still point into it

}  // namespace

const void* const* find_slots(const abi::TableHead* table, const void* exit, const char*& name, char (&why)[200]) noexcept {
    if (table->magic != abi::magic) {
        std::snprintf(why, sizeof why, "this is no libxlio: its function table begins with %#llx", static_cast<unsigned long long>(table->magic));
        return nullptr;
    }
    for (const abi::Layout& layout : abi::layouts) {
        if (layout.cap_mask != table->cap_mask) continue;
        const void* const* slots = slots_at(table, layout.first_slot);
        name = layout.name;
        if (all_beside(slots, exit)) return slots;
        std::snprintf(why, sizeof why, "the function table says layout %s, but its functions lie elsewhere", layout.name);
        return nullptr;
    }
    std::snprintf(why, sizeof why, "this libxlio's function table (%#llx) is neither layout A (3.60.0 to 3.60.4) nor B (3.61.0 to 3.70.2)",
                  static_cast<unsigned long long>(table->cap_mask));
    return nullptr;
}

#ifdef EVPL_XLIO_STATIC
}  // namespace evpl::transport::xlio

// Linked in, the functions have their own names, and nothing stands between them and us. libibverbs is linked, too.
extern "C" {
namespace evpl::transport::xlio::abi {
#define EVPL_LINKED(name, theirs, result, arguments) result theirs arguments;
EVPL_XLIO_SLOTS(EVPL_LINKED)
#undef EVPL_LINKED
MemoryRegion* ibv_reg_mr(ProtectionDomain*, void* at, std::size_t bytes, int access);
int ibv_dereg_mr(MemoryRegion*);
}  // namespace evpl::transport::xlio::abi
}

namespace evpl::transport::xlio {

Obstacle open_library(const char*, abi::Calls& calls, const char*& layout) {
#define EVPL_TAKE(name, theirs, result, arguments) calls.name = &abi::theirs;
    EVPL_XLIO_SLOTS(EVPL_TAKE)
#undef EVPL_TAKE
    calls.reg_mr = &abi::ibv_reg_mr;
    calls.dereg_mr = &abi::ibv_dereg_mr;
    layout = "none";
    return {};
}
const bool is_linked_in = true;
#else
const bool is_linked_in = false;

Obstacle open_library(const char* path, abi::Calls& calls, const char*& layout) {
    void* const handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);  // stays: it leaves a thread behind
    if (handle == nullptr) {
        const char* const said = dlerror();
        return {std::string(path) + " cannot be loaded: " + (said != nullptr ? said : "?"),
                "install libxlio 3.60.4 or later, or name it with EVPL_XLIO_LIBRARY"};
    }
    auto* const ask = reinterpret_cast<GetSockOpt*>(dlsym(handle, "getsockopt"));
    void* const exit = dlsym(handle, "xlio_exit");
    const abi::TableHead* table = nullptr;
    socklen_t size = sizeof table;
    if (ask == nullptr || exit == nullptr || ask(abi::api_descriptor, SOL_SOCKET, abi::get_api, &table, &size) != 0 || table == nullptr)
        return {"this libxlio has no Ultra API", upgrade};
    char why[200];
    const void* const* slots = find_slots(table, exit, layout, why);
    if (slots == nullptr) return {why, upgrade};
    static_assert(sizeof(abi::Calls) == (abi::slot_count + 2) * sizeof(void*));
    std::memcpy(static_cast<void*>(&calls), slots, abi::slot_count * sizeof(void*));
    if (!load_verbs(handle, calls)) return {"libibverbs.so.1 cannot be loaded", "install libibverbs1"};
    return {};
}
#endif

abi::InitAttr init_attributes(void (*registered)(void*, std::size_t, std::size_t)) noexcept { return {0, registered, &allocate, &keep}; }

}  // namespace evpl::transport::xlio
