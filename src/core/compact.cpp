#include "core/compact.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "evpl/chain.hpp"

namespace evpl::core {
namespace {

constexpr std::uint32_t wasteful = 8;
constexpr std::uint32_t copied_at_once_max = 256u << 10;

bool pins(const Buffer& slice) noexcept {
    return std::uint64_t(slice.size()) * wasteful < memory::block_bytes(slice) && memory::block_bytes(slice) > memory::block_bytes_min;
}

}  // namespace

std::size_t compact_tail(memory::Heap& heap, transport::SliceQueue& queue, std::uint32_t fresh) noexcept {
    const std::uint32_t count = queue.count();
    std::uint32_t i = count - std::min(fresh, count);
    std::size_t copied = 0;
    Chain replaced;  // let go at the end: the release of wrapped memory may run code that uses the queue
    while (i < count) {
        // A run of wasteful slices shares one block.
        std::uint32_t bytes = 0, end = i;
        while (end < count && pins(queue[end]) && bytes + queue[end].size() <= copied_at_once_max) bytes += queue[end++].size();
        if (end == i) {
            ++i;
            continue;
        }
        auto block = heap.allocate(bytes);
        if (!block) return copied;
        std::uint32_t at = 0;
        for (; i < end; ++i) {
            Buffer& old = queue[i];
            const std::uint32_t size = old.size();
            const std::uint32_t flags = BufferAccess::flags(old);
            if (size > 0) std::memcpy(block->data() + at, old.data(), size);
            Buffer before = std::exchange(old, block->share(at, size));
            BufferAccess::set_flags(old, flags);
            at += size;
            if (!replaced.append(std::move(before))) continue;  // no memory to keep it: it goes now
        }
        copied += bytes;
    }
    return copied;
}

}  // namespace evpl::core
