#pragma once

#include "memory/ring_queue.hpp"
#include "transport/queue.hpp"

namespace evpl::transport::socket {

/// Sends by reference (MSG_ZEROCOPY, kernel documentation networking/msg_zerocopy; or IORING_OP_SEND_ZC): each call has the next number,
/// and its slices stay here until the kernel reports that number done.
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
    /// Room for one more call of so many slices, one of them perhaps sent in part: started() cannot fail then. False: out of memory.
    [[nodiscard]] bool reserve(std::uint32_t slices) noexcept { return calls.reserve(1) && held.reserve(slices + 1); }
    /// A call has taken `bytes` from the front of `from`, whose slices move here.
    void started(SliceQueue& from, std::size_t bytes) noexcept;
    /// True: the kernel has copied so often that calls by reference should end.
    bool done(std::uint32_t number, bool copied) noexcept;
    /// Lets go of what is done, in order; its bytes.
    std::size_t release() noexcept;
};

}  // namespace evpl::transport::socket
