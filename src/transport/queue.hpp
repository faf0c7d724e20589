#pragma once

#include <cstddef>
#include <cstdint>

#include "evpl/address.hpp"
#include "memory/block.hpp"
#include "memory/ring_queue.hpp"

namespace evpl::transport {

/// Slices in order, with message ends marked (BufferAccess::end_of_message).
class SliceQueue {
public:
    bool empty() const noexcept { return slices_.empty(); }
    std::size_t bytes() const noexcept { return bytes_; }
    std::uint32_t count() const noexcept { return slices_.size(); }
    Buffer& operator[](std::uint32_t i) noexcept { return slices_[i]; }
    const Buffer& operator[](std::uint32_t i) const noexcept { return slices_[i]; }

    [[nodiscard]] bool reserve(std::uint32_t more) noexcept { return slices_.reserve(more); }
    /// False: out of memory; `slice` is untouched.
    [[nodiscard]] bool push(Buffer&& slice) noexcept {
        if (!slices_.reserve(1)) [[unlikely]]
            return false;
        push_reserved(std::move(slice));
        return true;
    }
    /// After reserve(), which is asked once for several.
    void push_reserved(Buffer&& slice) noexcept {
        bytes_ += slice.size();
        slices_.push_reserved(std::move(slice));
    }
    /// Puts a slice before all others. False: out of memory, and it is gone.
    [[nodiscard]] bool push_front(Buffer&& slice) noexcept {
        const std::uint32_t size = slice.size();
        if (!slices_.push_front(std::move(slice))) return false;
        bytes_ += size;
        return true;
    }
    /// Takes the first slice out whole.
    Buffer pop() noexcept {
        Buffer first = std::move(slices_.front());
        slices_.pop();
        bytes_ -= first.size();
        return first;
    }
    /// Drops the first slice, which was moved from and had `size` bytes.
    void pop_moved(std::uint32_t size) noexcept {
        slices_.pop();
        bytes_ -= size;
    }
    /// Puts `slice` in the place of the first one.
    void replace_front(Buffer&& slice) noexcept {
        bytes_ += slice.size();
        bytes_ -= slices_.front().size();
        slices_.front() = std::move(slice);
    }
    /// Drops the first n bytes, n <= bytes(), and the slices that are used up.
    void drop_front(std::size_t n) noexcept {
        bytes_ -= n;
        while (n > 0 && n >= slices_.front().size()) {
            n -= slices_.front().size();
            slices_.pop();
        }
        if (n > 0) slices_.front().drop_front(std::uint32_t(n));
    }
    void clear() noexcept {
        slices_.clear();
        bytes_ = 0;
    }
    void shrink() noexcept { slices_.shrink(); }

private:
    std::size_t bytes_ = 0;
    memory::RingQueue<Buffer, 2> slices_;
};

/// What a connection or datagram socket wants sent. Core fills it, the port empties it from the front in flush.
/// On message and datagram links every message ends with a marked slice (an empty message is one empty marked slice).
struct SendQueue : SliceQueue {
    /// One per datagram, on unconnected datagram links only; family none: the connected peer.
    memory::RingQueue<Address, 1> destinations;
    /// One per slice with BufferAccess::has_descriptor, in order; the port closes them after sending, core the rest.
    memory::RingQueue<int, 4> descriptors;
    /// One per slice with BufferAccess::has_key, in order: the peer's key that its message takes back.
    memory::RingQueue<std::uint64_t, 1> keys;
};

}  // namespace evpl::transport
