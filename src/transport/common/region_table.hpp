#pragma once

#include <cstdint>
#include <mutex>
#include <utility>

#include "evpl/result.hpp"
#include "memory/ring_queue.hpp"

namespace evpl::transport {

/// Memory regions that a device has registered, by number: a slab's key is the region's lkey with its number above it, so that sending needs
/// the key alone, and deregistering finds the region. Thread: the registrar's, and whoever deregisters in its place.
template <class Region>
class RegionTable {
public:
    static std::uint32_t lkey_of(std::uint64_t key) noexcept { return std::uint32_t(key); }

    /// The key of a fresh region. Errors: out_of_memory; the region is still the caller's.
    Result<std::uint64_t> add(Region* region, std::uint32_t lkey) noexcept {
        const std::lock_guard lock(mutex_);
        std::uint32_t number = regions_.size();
        if (!free_.empty()) {
            number = free_.front();
            free_.pop();
            regions_[number] = region;
        } else if (!free_.reserve(number + 1) || !regions_.push(std::move(region))) {
            return Error(Errc::out_of_memory, Step::open);
        }
        return lkey | std::uint64_t(number) << 32;
    }
    /// The region of a key, which is no more.
    Region* remove(std::uint64_t key) noexcept {
        const std::lock_guard lock(mutex_);
        auto number = std::uint32_t(key >> 32);
        Region* const region = std::exchange(regions_[number], nullptr);
        (void)free_.push(std::move(number));  // reserved
        return region;
    }

private:
    std::mutex mutex_;
    memory::RingQueue<Region*, 8> regions_;
    memory::RingQueue<std::uint32_t, 8> free_;
};

}  // namespace evpl::transport
