#pragma once

#include "core/loop_core.hpp"
#include "memory/domain.hpp"

namespace evpl::core {

enum class Keyed : std::uint8_t { yes, later, never };

/// Sees to it that a device of `domain` may touch the last `unkeyed` slices of `queue`; those it may are counted off. Memory of a slab
/// without a key is asked to be registered, off this thread, and copied meanwhile into a block that has one; the caller's own memory
/// is always copied. later: no block has a key yet; the loop's bell rings when the registrar has answered. never: registration failed.
Keyed key_tail(LoopCore& core, memory::Domain& domain, transport::SliceQueue& queue, std::uint32_t& unkeyed) noexcept;

}  // namespace evpl::core
