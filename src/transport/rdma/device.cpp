#include "transport/rdma/device.hpp"

#include <sys/resource.h>

#include <cerrno>
#include <new>

#include "base/log_line.hpp"
#include "transport/rdma/control.hpp"

namespace evpl::transport::rdma {
namespace {

Device* all = nullptr;

/// Memory that a device uses is locked, and a process may lock so much.
void tell_memlock(std::size_t wanted_bytes) noexcept {
    rlimit limit{};
    ::getrlimit(RLIMIT_MEMLOCK, &limit);
    base::log_format(LogLevel::warning,
                     "rdma: %zu KiB more cannot be registered; the limit of locked memory is %llu KiB: raise it (ulimit -l unlimited, LimitMEMLOCK=infinity)",
                     wanted_bytes >> 10, static_cast<unsigned long long>(limit.rlim_cur >> 10));
}

}  // namespace

Device* Device::first() noexcept { return all; }

Result<Device*> Device::of(ibv_context* context) noexcept {
    for (Device* each = all; each != nullptr; each = each->next_) {
        if (each->context == context && !each->removed.load(std::memory_order_relaxed)) return each;
    }
    auto* made = new (std::nothrow) Device;
    if (made == nullptr) return Error(Errc::out_of_memory, Step::open);
    made->context = context;
    // The list is kept: what is on it stays open, also when the last id of a removed device goes.
    (void)verbs().rdma_get_devices(nullptr);
    made->pd = verbs().ibv_alloc_pd(context);
    if (made->pd == nullptr || verbs().ibv_query_device(context, &made->limits) != 0) {
        const Error error = Error::from_errno(errno, Step::open);
        delete made;
        return error;
    }
    make_nonblocking(context->async_fd);
    made->next_ = all;
    all = made;
    return made;
}

/// Deregisters all slabs, so that the next domain may have the number.
Device::~Device() {
    retire();
    if (pd != nullptr && verbs().ibv_dealloc_pd(pd) != 0)
        base::log_format(LogLevel::warning, "rdma: a protection domain could not be given back: errno %d", errno);
}

void Device::sweep() noexcept {
    for (Device** at = &all; *at != nullptr;) {
        Device* const each = *at;
        if (!each->removed.load(std::memory_order_relaxed) || each->users_.load(std::memory_order_acquire) > 0) {
            at = &each->next_;
            continue;
        }
        *at = each->next_;
        delete each;
    }
}

Result<std::uint64_t> Device::register_memory(std::byte* base, std::size_t size_bytes) noexcept {
    if (removed.load(std::memory_order_relaxed)) return Error(Errc::device_lost, Step::open);
    ibv_mr* region = verbs().ibv_reg_mr(pd, base, size_bytes, IBV_ACCESS_LOCAL_WRITE);
    if (region == nullptr) return refusal(errno, size_bytes, Step::open);
    auto key = regions_.add(region, region->lkey);
    if (!key) verbs().ibv_dereg_mr(region);
    return key;
}

Error Device::refusal(int os, std::size_t size_bytes, Step step) noexcept {
    if (os == ENOMEM) tell_memlock(size_bytes);
    return Error::from_errno(os, step);
}

void Device::deregister_memory(std::byte*, std::size_t, std::uint64_t key) noexcept {
    verbs().ibv_dereg_mr(regions_.remove(key));  // of a device that is gone: fails, and frees what is ours
}

}  // namespace evpl::transport::rdma
