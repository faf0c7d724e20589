#include "transport/xlio/domain.hpp"

#include <cerrno>
#include <mutex>
#include <new>

namespace evpl::transport::xlio {

Domain* Domain::of(abi::ProtectionDomain* pd, const abi::Calls& calls) noexcept {
    static constinit std::mutex mutex;
    static Domain* all = nullptr;
    const std::lock_guard lock(mutex);
    for (Domain* each = all; each != nullptr; each = each->next_)
        if (each->pd_ == pd) return each;
    auto* made = new (std::nothrow) Domain(pd, calls);
    if (made == nullptr) return nullptr;
    made->next_ = all;
    all = made;
    return made;
}

Result<std::uint64_t> Domain::register_memory(std::byte* base, std::size_t size_bytes) noexcept {
    abi::MemoryRegion* region = calls_.reg_mr(pd_, base, size_bytes, abi::access_local_write);
    if (region == nullptr) return Error::from_errno(errno, Step::open);
    auto key = regions_.add(region, region->lkey);
    if (!key) calls_.dereg_mr(region);
    return key;
}

void Domain::deregister_memory(std::byte*, std::size_t, std::uint64_t key) noexcept { calls_.dereg_mr(regions_.remove(key)); }

}  // namespace evpl::transport::xlio
