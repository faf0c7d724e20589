#pragma once

#include <atomic>
#include <cstdint>

#include "evpl/result.hpp"
#include "memory/ring_queue.hpp"
#include "transport/uring/abi.hpp"

namespace evpl::transport::uring {

/// Sets of kernel features, each containing those before. A lower one can be forced (?tier=, uring.tier).
enum Tier : std::uint8_t {
    tier_6_1,  ///< multishot accept and receive, buffer rings, deferred task work: without these io_uring is absent here
    tier_6_6,  ///< no array between the submission queue and its entries
    tier_6_15  ///< buffers consumed bit by bit; older kernels have it from 6.12 on, but may report a multishot's bytes out of order
};
inline constexpr Tier tier_most = tier_6_15;

struct RingOptions {
    Tier tier = tier_most;
    std::uint32_t entries = 256;    ///< of the submission queue; the completion queue has 16 times as many
    std::uint32_t min_wait_us = 0;  ///< a wait collects completions for so long, unless there are many; where the kernel can (6.12)
};
inline constexpr std::uint32_t entries_least = 8;
inline constexpr std::uint32_t completions_per_entry = 16;

/// What this process may use, found out once by opening a ring.
struct Support {
    bool present = false;
    Tier tier = tier_6_1;
    const char* reason = "";
    const char* remedy = "";
};
const Support& support() noexcept;

/// What is rare, and should be seen to have happened.
struct RingCounts {
    std::uint64_t submission_full = 0;       ///< the kernel was entered early, for room in the submission queue
    std::uint64_t completion_overflows = 0;  ///< enters while the kernel kept completions that the queue had no room for
};

/// One io_uring: two queues in memory shared with the kernel. It belongs to the thread that first enters the kernel with it
/// (SINGLE_ISSUER); elsewhere, and in a forked child, it is dead: enter() says so and put() does nothing.
class Ring {
public:
    Ring() noexcept = default;
    ~Ring() { close(); }
    Ring(const Ring&) = delete;
    Ring& operator=(const Ring&) = delete;

    /// With half of the entries, and half of that, while the kernel has no memory for more (RLIMIT_MEMLOCK).
    /// Errors: too_many_files, out_of_memory, not_supported.
    Result<void> open(const RingOptions& options) noexcept;
    void close() noexcept;

    /// An operation for the next enter(). When the queue is full the kernel is entered at once; what it does not take waits here.
    /// False: out of memory, or dead.
    bool put(const abi::Sqe& operation) noexcept;
    bool has_submissions() const noexcept { return sq_tail_ != load(sq_head_) || !backlog_.empty(); }

    /// The number of the last operation put, and whether the kernel has not seen it yet.
    std::uint32_t last_put() const noexcept { return sq_tail_ + backlog_.size(); }
    bool is_queued(std::uint32_t number) const noexcept { return std::int32_t(number - load(sq_head_)) > 0; }

    /// Submits, and collects what has completed; waits for `wanted` completions, up to timeout_ns (INT64_MAX: for ever).
    /// 0, or an errno: ETIME and EINTR when nothing came, EOWNERDEAD when the ring is not this thread's.
    int enter(unsigned wanted, std::int64_t timeout_ns) noexcept;
    /// The kernel has work that only an enter() does.
    bool wants_enter() const noexcept { return (load(sq_flags_) & (abi::sq_taskrun | abi::sq_cq_overflow)) != 0; }
    /// A part of that: completions under way. An enter() runs some of them.
    bool has_task_work() const noexcept { return (load(sq_flags_) & abi::sq_taskrun) != 0; }
    bool has_completions() const noexcept { return cq_head_ != load(cq_tail_); }
    bool take(abi::Cqe& out) noexcept {
        if (!has_completions()) return false;
        out = cqes_[cq_head_ & cq_mask_];
        __atomic_store_n(cq_head_shared_, ++cq_head_, __ATOMIC_RELEASE);
        return true;
    }

    /// io_uring_register(2); negative: an errno.
    int call_register(unsigned what, void* argument, unsigned count) noexcept;
    /// Ends every operation under way, those of `user_data` only when it is not 0. Their completions follow with the next enter().
    void cancel_now(std::uint64_t user_data) noexcept;
    /// Operations that the kernel has not seen yet become idle ones. False: there was none.
    bool forget(std::uint64_t user_data) noexcept;

    bool usable() const noexcept;
    int fd() const noexcept { return fd_; }
    Tier tier() const noexcept { return tier_; }
    std::uint32_t entries() const noexcept { return sq_entries_; }
    std::uint64_t system_calls() const noexcept { return system_calls_; }
    bool has_least_wait() const noexcept { return min_wait_us_ > 0; }
    const RingCounts& counts() const noexcept { return counts_; }

private:
    static std::uint32_t load(const std::uint32_t* shared) noexcept { return __atomic_load_n(shared, __ATOMIC_ACQUIRE); }
    int set_up(const RingOptions& options, std::uint32_t entries) noexcept;
    int map(const abi::Params& params) noexcept;
    bool start() noexcept;
    void fill() noexcept;
    bool push(const abi::Sqe& operation) noexcept;

    int fd_ = -1;
    int entered_fd_ = -1;  ///< fd_, or its number among the thread's registered rings
    std::uint32_t enter_flags_ = abi::enter_get_events;
    Tier tier_ = tier_6_1;
    const void* owner_ = nullptr;             ///< the thread's mark; null before the first enter()
    const std::uint32_t* process_ = nullptr;  ///< reads process_number_ here, and something else in a forked child
    std::uint32_t process_number_ = 0;

    std::uint32_t* sq_head_ = nullptr;
    std::uint32_t* sq_tail_shared_ = nullptr;
    std::uint32_t* sq_flags_ = nullptr;
    abi::Sqe* sqes_ = nullptr;
    std::uint32_t sq_tail_ = 0, sq_mask_ = 0, sq_entries_ = 0;

    std::uint32_t* cq_head_shared_ = nullptr;
    std::uint32_t* cq_tail_ = nullptr;
    abi::Cqe* cqes_ = nullptr;
    std::uint32_t cq_head_ = 0, cq_mask_ = 0;

    memory::RingQueue<abi::Sqe, 1> backlog_;
    std::uint32_t min_wait_us_ = 0;
    std::uint64_t system_calls_ = 0;
    RingCounts counts_;
    void* rings_ = nullptr;
    std::size_t rings_bytes_ = 0, sqes_bytes_ = 0;
};

}  // namespace evpl::transport::uring
