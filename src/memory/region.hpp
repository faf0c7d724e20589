#pragma once

#include <atomic>

#include "memory/slab.hpp"

namespace evpl::memory {

/// What a Region and its slices share. Counted with locked instructions: slices may live on different loops.
struct RegionSlab final : Slab {
    std::atomic<std::uint32_t> refs{1};
    void (*release)(void* context) = nullptr;
    void* context = nullptr;

    void ref() noexcept { refs.fetch_add(1, std::memory_order_relaxed); }
    void unref() noexcept;
};

}  // namespace evpl::memory
