#include "memory/region.hpp"

#include <new>

#include "evpl/region.hpp"

namespace evpl {
namespace memory {
namespace {

/// No device knows it any more.
void end_region(Slab& slab) {
    auto& region = static_cast<RegionSlab&>(slab);
    if (region.release != nullptr) region.release(region.context);
    delete &region;
}

}  // namespace

void RegionSlab::unref() noexcept {
    if (refs.fetch_sub(1, std::memory_order_acq_rel) == 1) SlabStore::instance().give_back(this);
}

}  // namespace memory

Result<Region> Region::make(std::span<std::byte> bytes, void (*release)(void* context), void* context) noexcept {
    if (bytes.empty()) return Errc::misuse;
    auto* slab = new (std::nothrow) memory::RegionSlab;
    if (slab == nullptr) return Errc::out_of_memory;
    slab->base = bytes.data();
    slab->size_bytes = bytes.size();
    slab->end = &memory::end_region;
    slab->release = release;
    slab->context = context;
    memory::SlabStore::instance().adopt(*slab);
    return Region(slab);
}

Region::~Region() {
    if (slab_ != nullptr) slab_->unref();
}

std::span<std::byte> Region::bytes() const noexcept { return slab_ != nullptr ? std::span(slab_->base, slab_->size_bytes) : std::span<std::byte>(); }

}  // namespace evpl
