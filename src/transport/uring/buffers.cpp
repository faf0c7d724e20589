#include "transport/uring/buffers.hpp"

#include <sys/mman.h>

#include <cerrno>
#include <new>

namespace evpl::transport::uring {

BufferGroup::~BufferGroup() {
    if (entries_ != nullptr) ::munmap(entries_, entries_bytes_);
}

Result<void> BufferGroup::open(Ring& ring, bool incremental) noexcept {
    slots_.reset(new (std::nothrow) Slot[count_]);
    entries_bytes_ = (count_ * sizeof(abi::ProvidedBuffer) + 4095) & ~std::size_t(4095);
    void* const room = ::mmap(nullptr, entries_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (room == MAP_FAILED || slots_ == nullptr) {
        if (room != MAP_FAILED) ::munmap(room, entries_bytes_);
        return Error(Errc::out_of_memory, Step::open);
    }
    abi::BufferRingArgument argument{
        reinterpret_cast<std::uintptr_t>(room), count_, number_, incremental ? abi::buffer_ring_incremental : std::uint16_t(0), {}};
    if (const int result = ring.call_register(abi::register_buffer_ring, &argument, 1); result < 0) {
        ::munmap(room, entries_bytes_);
        return Error::from_errno(-result, Step::open);
    }
    entries_ = static_cast<abi::ProvidedBuffer*>(room);
    incremental_ = incremental;
    for (std::uint32_t i = 0; i < count_; ++i) {
        slots_[i].next = empty_;
        empty_ = std::uint16_t(i);
    }
    empty_count_ = count_;
    (void)refill();
    return {};
}

void BufferGroup::offer(std::uint16_t id) noexcept {
    abi::ProvidedBuffer& entry = entries_[tail_ & (count_ - 1)];
    entry.address = reinterpret_cast<std::uintptr_t>(slots_[id].block.data());
    entry.bytes = block_bytes_;
    entry.id = id;
    ++tail_;
}

bool BufferGroup::refill() noexcept {
    if (empty_count_ == 0) [[likely]]
        return true;
    while (empty_ != none) {
        Slot& slot = slots_[empty_];
        if (!slot.block) {
            auto block = heap_.allocate(block_bytes_);
            if (!block) break;
            slot.block = *std::move(block);
            slot.used = 0;
        }
        const std::uint16_t id = empty_;
        empty_ = slot.next;
        --empty_count_;
        offer(id);
    }
    __atomic_store_n(&entries_[0].tail, tail_, __ATOMIC_RELEASE);
    return empty_count_ < count_;
}

Buffer BufferGroup::take(const abi::Cqe& done) noexcept {
    if ((done.flags & abi::cqe_buffer) == 0) return {};
    const auto id = std::uint16_t(done.flags >> abi::cqe_buffer_shift);
    Slot& slot = slots_[id];
    const std::uint32_t size = done.result > 0 ? std::uint32_t(done.result) : 0;
    Buffer slice;
    if (size > 0) slice = slot.block.share(slot.used, size);
    if (incremental_) slot.used += size;
    if ((done.flags & abi::cqe_buffer_more) != 0) return slice;
    if (size > 0 || slot.used > 0) slot.block.reset();  // the slice keeps it; unused ones are offered again
    slot.next = empty_;
    empty_ = id;
    ++empty_count_;
    return slice;
}

}  // namespace evpl::transport::uring
