#pragma once

#include "memory/ring_queue.hpp"
#include "transport/queue.hpp"

namespace evpl::transport::socket {

/// Sends by reference (MSG_ZEROCOPY, kernel documentation networking/msg_zerocopy): each call gets the next number from the kernel, and
/// its slices stay here until the kernel reports that number done.
struct ZeroCopy {
    struct Call {
        std::uint32_t slices;
        std::size_t bytes;
        bool done;
    };
    memory::RingQueue<Call, 4> calls;  ///< in order; the first has number `first`
    SliceQueue held;
    std::uint32_t first = 0;
    std::uint32_t copied_reports = 0;  ///< the kernel copied after all: by reference only cost then
    bool off = false;

    bool pending() const noexcept { return !calls.empty(); }
};

}  // namespace evpl::transport::socket
