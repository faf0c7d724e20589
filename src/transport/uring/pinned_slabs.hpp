#pragma once

#include <array>

#include "evpl/buffer.hpp"
#include "transport/uring/ring.hpp"

namespace evpl::memory {
struct Slab;
}

namespace evpl::transport::uring {

/// Slabs registered with a ring: the kernel has their pages at hand, and a send by reference out of one does not look them up.
/// A slab is registered with its first such send and stays so until nobody sends by reference any more. Meanwhile one of its blocks is
/// held, so that its heap does not give it back: the kernel would go on sending from memory that is somebody else's.
class PinnedSlabs {
public:
    /// 64 MiB. Sends out of further slabs look their pages up.
    static constexpr unsigned count_max = 32;
    static constexpr int none = -1;

    /// The number under which the ring knows the slab that `slice` lies in; `none`: it does not, and does not take it.
    int number_of(Ring& ring, const Buffer& slice) noexcept;
    void release(Ring& ring) noexcept;
    unsigned count() const noexcept { return count_; }

private:
    struct Pinned {
        const memory::Slab* slab = nullptr;
        Buffer keeper;
    };
    bool pin(Ring& ring, unsigned number, std::byte* base, std::size_t bytes) noexcept;

    std::array<Pinned, count_max> slabs_;
    unsigned count_ = 0;
    bool open_ = false;     ///< the ring has a table
    bool refused_ = false;  ///< by RLIMIT_MEMLOCK: not asked again
};

}  // namespace evpl::transport::uring
