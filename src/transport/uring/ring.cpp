#include "transport/uring/ring.hpp"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>

namespace evpl::transport::uring {
namespace {

constexpr std::uint32_t setup_flags = abi::setup_cq_size | abi::setup_clamp | abi::setup_disabled | abi::setup_submit_all | abi::setup_taskrun_flag |
                                      abi::setup_single_issuer | abi::setup_defer_taskrun;
constexpr std::uint32_t features_needed = abi::feature_single_mmap | abi::feature_no_drop | abi::feature_submit_stable | abi::feature_fast_poll |
                                          abi::feature_wait_argument | abi::feature_skip_success;

/// Ends a wait before its least time is over.
constexpr unsigned min_wait_completions = 32;

/// Its address tells threads apart, without a system call.
thread_local char thread_mark;

int setup(std::uint32_t entries, abi::Params& params) noexcept {
    const long fd = ::syscall(__NR_io_uring_setup, entries, &params);
    return fd < 0 ? -errno : int(fd);
}

/// A word that reads as the process's number, and as zero in a forked child (madvise(2), MADV_WIPEONFORK): there the parent's rings,
/// whose memory stays shared, must not be touched. One for the process, never unmapped.
const std::uint32_t* process_word() noexcept {
    static std::uint32_t* const word = []() -> std::uint32_t* {
        void* const page = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (page == MAP_FAILED) return nullptr;
        (void)::madvise(page, 4096, MADV_WIPEONFORK);  // Linux 4.14
        return static_cast<std::uint32_t*>(page);
    }();
    if (word != nullptr) __atomic_store_n(word, std::uint32_t(::getpid()), __ATOMIC_RELAXED);  // also in a child with rings of its own
    return word;
}

bool has_operation(const abi::Probe& probe, abi::Operation operation) noexcept {
    return operation <= probe.last_operation && (probe.each[operation].flags & abi::probe_supported) != 0;
}

Support absent(int error) noexcept {
    switch (error) {
    case EPERM:
    case EACCES:
        return {false, tier_6_1, "io_uring is forbidden here (a seccomp filter, or sysctl kernel.io_uring_disabled)",
                "allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp profile, and set kernel.io_uring_disabled=0"};
    case ENOMEM: return {false, tier_6_1, "the kernel has no memory for the smallest ring", "raise the limit of locked memory (ulimit -l)"};
    case EMFILE:
    case ENFILE: return {false, tier_6_1, "out of descriptors when io_uring was looked for", "raise the limit of descriptors (ulimit -n)"};
    case ENOSYS: return {false, tier_6_1, "this kernel has no io_uring", "run Linux 6.1 or later, with CONFIG_IO_URING"};
    default: return {false, tier_6_1, "this kernel's io_uring is too old", "run Linux 6.1 or later"};
    }
}

Support find_support() noexcept {
    Ring ring;
    if (const auto opened = ring.open({}); !opened) return absent(opened.error().os());
    return {true, ring.tier(), "io_uring of this kernel", ""};
}

}  // namespace

const Support& support() noexcept {
    static const Support found = find_support();
    return found;
}

Result<void> Ring::open(const RingOptions& options) noexcept {
    int error = 0;
    for (std::uint32_t entries = std::max(options.entries, entries_least);; entries /= 2) {
        error = set_up(options, entries);
        if (error != ENOMEM || entries / 2 < entries_least) break;
    }
    process_ = process_word();
    if (error == 0 && process_ == nullptr) error = ENOMEM;
    process_number_ = process_ != nullptr ? __atomic_load_n(process_, __ATOMIC_RELAXED) : 0;  // other threads open rings, too
    if (error == 0) return {};
    close();
    return Error::from_errno(error, Step::open);
}

int Ring::set_up(const RingOptions& options, std::uint32_t entries) noexcept {
    abi::Params params{};
    params.flags = setup_flags | (options.tier >= tier_6_6 ? abi::setup_no_sq_array : 0);
    params.cq_entries = entries * completions_per_entry;
    const abi::Params asked = params;
    int fd = setup(entries, params);
    tier_ = options.tier;
    min_wait_us_ = tier_ >= tier_6_15 && (params.features & abi::feature_min_wait) != 0 ? options.min_wait_us : 0;
    if (fd == -EINVAL && tier_ >= tier_6_6) {
        params = asked;
        params.flags &= ~abi::setup_no_sq_array;
        tier_ = tier_6_1;
        fd = setup(entries, params);
    }
    if (fd < 0) return -fd;
    fd_ = entered_fd_ = fd;
    if ((params.features & features_needed) != features_needed) return EOPNOTSUPP;
    abi::Probe probe{};
    if (call_register(abi::register_probe, &probe, std::size(probe.each)) < 0) return EOPNOTSUPP;
    if (!has_operation(probe, abi::op_send_zero_copy)) return EOPNOTSUPP;  // 6.0, with multishot receive
    if (tier_ >= tier_6_15 && !has_operation(probe, abi::op_epoll_wait)) tier_ = tier_6_6;
    const int error = map(params);
    if (error != 0) close();
    return error;
}

int Ring::map(const abi::Params& params) noexcept {
    rings_bytes_ = params.cq.cqes + params.cq_entries * sizeof(abi::Cqe);
    const bool has_array = (params.flags & abi::setup_no_sq_array) == 0;
    if (has_array) rings_bytes_ = std::max<std::size_t>(rings_bytes_, params.sq.array + params.sq_entries * sizeof(std::uint32_t));
    sqes_bytes_ = params.sq_entries * sizeof(abi::Sqe);
    void* const rings = ::mmap(nullptr, rings_bytes_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd_, abi::map_rings);
    if (rings == MAP_FAILED) return errno;
    rings_ = rings;
    void* const sqes = ::mmap(nullptr, sqes_bytes_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd_, abi::map_entries);
    if (sqes == MAP_FAILED) return errno;
    sqes_ = static_cast<abi::Sqe*>(sqes);
    const auto word = [this](std::uint32_t offset) { return reinterpret_cast<std::uint32_t*>(static_cast<std::byte*>(rings_) + offset); };
    sq_head_ = word(params.sq.head);
    sq_tail_shared_ = word(params.sq.tail);
    sq_flags_ = word(params.sq.flags);
    sq_mask_ = *word(params.sq.ring_mask);
    sq_entries_ = params.sq_entries;
    sq_tail_ = *sq_tail_shared_;
    cq_head_shared_ = word(params.cq.head);
    cq_tail_ = word(params.cq.tail);
    cq_mask_ = *word(params.cq.ring_mask);
    cqes_ = reinterpret_cast<abi::Cqe*>(word(params.cq.cqes));
    cq_head_ = *cq_head_shared_;
    for (std::uint32_t i = 0; has_array && i < sq_entries_; ++i) word(params.sq.array)[i] = i;
    return 0;
}

void Ring::close() noexcept {
    if (fd_ < 0) return;
    if (entered_fd_ != fd_ && owner_ == &thread_mark) {  // the thread's table holds the ring, too
        abi::ResourceUpdate entry{std::uint32_t(entered_fd_), 0, 0};
        (void)::syscall(__NR_io_uring_register, fd_, abi::unregister_ring_descriptors, &entry, 1);
    }
    if (sqes_ != nullptr) ::munmap(sqes_, sqes_bytes_);
    if (rings_ != nullptr) ::munmap(rings_, rings_bytes_);
    ::close(fd_);
    sqes_ = nullptr;
    rings_ = nullptr;
    owner_ = nullptr;
    fd_ = entered_fd_ = -1;
}

bool Ring::usable() const noexcept {
    return fd_ >= 0 && __atomic_load_n(process_, __ATOMIC_RELAXED) == process_number_ && (owner_ == nullptr || owner_ == &thread_mark);
}

// The ring was made disabled, so that it becomes that thread's which runs the loop.
bool Ring::start() noexcept {
    if (call_register(abi::register_enable, nullptr, 0) < 0) return false;
    owner_ = &thread_mark;
    abi::ResourceUpdate entry{UINT32_MAX, 0, std::uint64_t(fd_)};
    if (call_register(abi::register_ring_descriptors, &entry, 1) == 1) {
        entered_fd_ = int(entry.offset);
        enter_flags_ |= abi::enter_registered_ring;
    }
    return true;
}

int Ring::call_register(unsigned what, void* argument, unsigned count) noexcept {
    const long result = ::syscall(__NR_io_uring_register, fd_, what, argument, count);
    return result < 0 ? -errno : int(result);
}

// -- submission ------------------------------------------------------------------------------------------------

bool Ring::push(const abi::Sqe& operation) noexcept {
    if (sq_tail_ - load(sq_head_) >= sq_entries_) return false;
    sqes_[sq_tail_ & sq_mask_] = operation;
    __atomic_store_n(sq_tail_shared_, ++sq_tail_, __ATOMIC_RELEASE);
    return true;
}

void Ring::fill() noexcept {
    while (!backlog_.empty() && push(backlog_.front())) backlog_.pop();
}

bool Ring::put(const abi::Sqe& operation) noexcept {
    if (!usable()) return false;
    if (!backlog_.empty()) fill();
    if (backlog_.empty()) {
        if (push(operation)) [[likely]]
            return true;
        ++counts_.submission_full;
        (void)enter(0, 0);
        if (backlog_.empty() && push(operation)) return true;
    }
    abi::Sqe kept = operation;
    return backlog_.push(std::move(kept));
}

int Ring::enter(unsigned wanted, std::int64_t timeout_ns) noexcept {
    if (!usable() || (owner_ == nullptr && !start())) return EOWNERDEAD;
    for (;;) {
        fill();
        const std::uint32_t before = load(sq_head_);
        const std::uint32_t submissions = sq_tail_ - before;
        const bool more = !backlog_.empty();  // then nobody waits before that is with the kernel, too
        const timespec limit{time_t(timeout_ns / 1'000'000'000), long(timeout_ns % 1'000'000'000)};
        const abi::WaitArgument argument{0, 8, min_wait_us_, timeout_ns == INT64_MAX ? 0 : reinterpret_cast<std::uintptr_t>(&limit)};
        const bool waits = wanted > 0 && !more;
        const unsigned enough = !waits ? 0 : min_wait_us_ > 0 ? min_wait_completions : wanted;
        ++system_calls_;
        if ((load(sq_flags_) & abi::sq_cq_overflow) != 0) [[unlikely]]
            ++counts_.completion_overflows;
        const long result = ::syscall(__NR_io_uring_enter, entered_fd_, submissions, enough, enter_flags_ | (waits ? abi::enter_extended : 0),
                                      waits ? &argument : nullptr, waits ? sizeof argument : 0);
        if (result < 0) return errno;
        if (!more || load(sq_head_) == before) return 0;
    }
}

// -- cancelling ------------------------------------------------------------------------------------------------

void Ring::cancel_now(std::uint64_t user_data) noexcept {
    if (!usable() || owner_ == nullptr) return;  // nothing has been submitted yet
    abi::SyncCancel request{};
    request.address = user_data;
    request.fd = -1;
    request.flags = abi::cancel_all | (user_data == 0 ? abi::cancel_any : 0);
    request.timeout_s = 0;
    request.timeout_ns = 100'000'000;
    (void)call_register(abi::register_sync_cancel, &request, 1);
}

bool Ring::forget(std::uint64_t user_data) noexcept {
    if (!usable()) return false;
    bool found = false;
    const auto idle = [user_data, &found](abi::Sqe& operation) {
        if (operation.user_data != user_data) return;
        found = true;
        operation = {};
        operation.operation = abi::op_nop;
    };
    for (std::uint32_t i = load(sq_head_); i != sq_tail_; ++i) idle(sqes_[i & sq_mask_]);
    for (std::uint32_t i = 0; i < backlog_.size(); ++i) idle(backlog_[i]);
    return found;
}

}  // namespace evpl::transport::uring
