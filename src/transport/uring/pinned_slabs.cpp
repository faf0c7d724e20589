#include "transport/uring/pinned_slabs.hpp"

#include <sys/uio.h>

#include "memory/domain.hpp"

namespace evpl::transport::uring {

bool PinnedSlabs::pin(Ring& ring, unsigned number, std::byte* base, std::size_t bytes) noexcept {
    iovec range{base, bytes};
    abi::BuffersUpdate update{number, 0, reinterpret_cast<std::uintptr_t>(&range), 0, 1, 0};
    return ring.call_register(abi::register_buffers_update, &update, sizeof update) == 1;
}

int PinnedSlabs::number_of(Ring& ring, const Buffer& slice) noexcept {
    const memory::Slab* const slab = memory::slab_of(slice);
    if (slab == nullptr || slab->is_foreign()) return none;  // the program's own memory is let go of when it asks for that
    for (unsigned i = 0; i < count_; ++i)
        if (slabs_[i].slab == slab) return int(i);
    if (refused_ || count_ == count_max) return none;
    if (!open_) {
        abi::BuffersArgument table{count_max, abi::buffers_sparse, 0, 0, 0};
        open_ = ring.call_register(abi::register_buffers, &table, sizeof table) == 0;
    }
    refused_ = !open_ || !pin(ring, count_, slab->base, memory::slab_bytes);
    if (refused_) return none;
    slabs_[count_] = {slab, slice.share()};
    return int(count_++);
}

// What the kernel still sends from it holds by itself.
void PinnedSlabs::release(Ring& ring) noexcept {
    for (; count_ > 0; --count_) {
        (void)pin(ring, count_ - 1, nullptr, 0);
        slabs_[count_ - 1] = {};
    }
}

}  // namespace evpl::transport::uring
