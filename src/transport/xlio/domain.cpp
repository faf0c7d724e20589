#include "transport/xlio/domain.hpp"

#include <cerrno>
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
    const std::uint64_t lkey = region->lkey;
    const std::lock_guard lock(mutex_);
    if (!free_.empty()) {
        const std::uint32_t number = free_.front();
        free_.pop();
        regions_[number] = region;
        return lkey | std::uint64_t(number) << 32;
    }
    const std::uint32_t number = regions_.size();
    abi::MemoryRegion* kept = region;
    if (free_.reserve(number + 1) && regions_.push(std::move(kept))) return lkey | std::uint64_t(number) << 32;
    calls_.dereg_mr(region);
    return Error(Errc::out_of_memory, Step::open);
}

void Domain::deregister_memory(std::byte*, std::size_t, std::uint64_t key) noexcept {
    const std::lock_guard lock(mutex_);
    auto number = std::uint32_t(key >> 32);
    calls_.dereg_mr(regions_[number]);
    regions_[number] = nullptr;
    (void)free_.push(std::move(number));  // reserved
}

}  // namespace evpl::transport::xlio
