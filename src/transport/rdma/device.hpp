#pragma once

#include <atomic>

#include "memory/domain.hpp"
#include "transport/common/region_table.hpp"
#include "transport/rdma/verbs.hpp"

namespace evpl::transport::rdma {

/// An opened device with our protection domain on it. Made when the first queue pair needs it, and kept: the connection manager keeps the
/// device open, too. One that has been removed goes, with its domain's number, when nobody uses it any more.
class Device final : public memory::Domain {
public:
    /// The one of an id's `verbs`. Errors: out_of_memory, device_error. Thread: the control thread.
    static Result<Device*> of(ibv_context* context) noexcept;
    /// All that there ever were, the newest first. Thread: the control thread.
    static Device* first() noexcept;
    Device* next() const noexcept { return next_; }
    /// Ends those that are removed and unused. Thread: the control thread.
    static void sweep() noexcept;
    ~Device() override;

    /// Whoever has queues on it, or may still look at its keys, is a user. Thread: any.
    void use() noexcept { users_.fetch_add(1, std::memory_order_relaxed); }
    void leave() noexcept { users_.fetch_sub(1, std::memory_order_release); }

    Result<std::uint64_t> register_memory(std::byte* base, std::size_t size_bytes) noexcept override;
    void deregister_memory(std::byte* base, std::size_t size_bytes, std::uint64_t key) noexcept override;
    /// Why memory was refused: where it is the limit of locked memory, one line in the log says what to raise. Thread: any.
    static Error refusal(int os, std::size_t size_bytes, Step step) noexcept;
    static std::uint32_t lkey_of(std::uint64_t key) noexcept { return RegionTable<ibv_mr>::lkey_of(key); }

    /// Windows of a queue pair, which a peer's SEND can take back.
    bool has_windows() const noexcept {
        constexpr unsigned kinds = IBV_DEVICE_MEM_WINDOW_TYPE_2A | IBV_DEVICE_MEM_WINDOW_TYPE_2B;
        return (limits.device_cap_flags & kinds) != 0 && (limits.device_cap_flags & IBV_DEVICE_MEM_MGT_EXTENSIONS) != 0 && limits.max_mw > 0;
    }

    ibv_context* context = nullptr;
    ibv_pd* pd = nullptr;
    ibv_device_attr limits{};
    std::atomic<bool> removed{false};

private:
    Device() noexcept = default;
    Device* next_ = nullptr;
    std::atomic<unsigned> users_{0};
    RegionTable<ibv_mr> regions_;
};

}  // namespace evpl::transport::rdma
