#pragma once

#include "memory/heap.hpp"
#include "transport/queue.hpp"

namespace evpl::core {

/// A slice that uses less than 1/8 of its block pins memory that others need: such slices among the last `fresh` ones of `queue` are
/// copied together into one fitting block. Returns the bytes copied. Out of buffers leaves them where they are.
std::size_t compact_tail(memory::Heap& heap, transport::SliceQueue& queue, std::uint32_t fresh) noexcept;

}  // namespace evpl::core
