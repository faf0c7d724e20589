// Remote memory: ranges that the peer may use, and reads and writes of the peer's.

#include <arpa/inet.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "transport/rdma/port.hpp"

namespace evpl::transport::rdma {

// -- what the peer may use -------------------------------------------------------------------------------------

/// Registers on the loop's thread: pinning takes some microseconds per MiB.
Result<RemoteRegion> RdmaPort::expose(Link& base, Buffer range, Access access) {
    auto& link = static_cast<RdmaLink&>(base);
    if (link.state != RdmaLink::State::open) return Error(Errc::misuse, Step::remote);
    int rights = 0;
    if ((unsigned(access) & unsigned(Access::read)) != 0) rights |= IBV_ACCESS_REMOTE_READ;
    if ((unsigned(access) & unsigned(Access::write)) != 0) rights |= IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_LOCAL_WRITE;
    if ((unsigned(access) & unsigned(Access::atomic)) != 0) rights |= IBV_ACCESS_REMOTE_ATOMIC | IBV_ACCESS_LOCAL_WRITE;
    if (!link.exposures.reserve(1)) return Error(Errc::out_of_memory, Step::remote);
    const bool by_window = link.own_caps.remote_invalidate;
    ibv_mr* region =
        verbs().ibv_reg_mr(link.rail->queues->device->pd, range.data(), range.size(), by_window ? IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_MW_BIND : rights);
    if (region == nullptr) return Device::refusal(errno, range.size(), Step::remote);
    if (by_window) return bind_window(link, region, std::move(range), rights & ~IBV_ACCESS_LOCAL_WRITE);
    const RemoteRegion out{reinterpret_cast<std::uintptr_t>(range.data()), region->rkey, range.size()};
    (void)link.exposures.push({region, nullptr, region->rkey, true, false, std::move(range)});  // reserved
    return out;
}

namespace {

void drop(Exposure& exposure) noexcept {
    if (exposure.window != nullptr) ibv_dealloc_mw(exposure.window);  // before the region it opens into
    if (exposure.region != nullptr) verbs().ibv_dereg_mr(exposure.region);
    exposure.window = nullptr;
    exposure.region = nullptr;
}

}  // namespace

/// A window of this queue pair into `region`, which is released when that fails. Bound in order with SENDs: who is told of the key finds it
/// valid. Errors: out_of_buffers, as long as the send queue is full.
Result<RemoteRegion> RdmaPort::bind_window(RdmaLink& link, ibv_mr* region, Buffer&& range, int rights) {
    Exposure made{region, nullptr, 0, false, false, std::move(range)};
    const auto failed = [&](Error error) {
        drop(made);
        return error;
    };
    if (!may_post(link, 0)) return failed(Error(Errc::out_of_buffers, Step::remote));
    if (!link.requests.reserve(1)) return failed(Error(Errc::out_of_memory, Step::remote));
    made.window = ibv_alloc_mw(link.rail->queues->device->pd, IBV_MW_TYPE_2);
    if (made.window == nullptr) return failed(Error::from_errno(errno, Step::remote));
    made.key = ibv_inc_rkey(made.window->rkey);
    ibv_send_wr request{};
    request.wr_id = link.next_number;
    request.opcode = IBV_WR_BIND_MW;
    request.send_flags = IBV_SEND_SIGNALED;
    request.bind_mw.mw = made.window;
    request.bind_mw.rkey = made.key;
    request.bind_mw.bind_info = {region, reinterpret_cast<std::uintptr_t>(made.range.data()), made.range.size(), unsigned(rights)};
    const RemoteRegion out{reinterpret_cast<std::uintptr_t>(made.range.data()), made.key, made.range.size()};
    (void)link.exposures.push(std::move(made));  // reserved
    posted(link, {0, 0, Sent::window});
    if (!post(link, request)) return link.error;
    return out;
}

/// The device has bound the oldest window that it had not.
void RdmaPort::window_bound(RdmaLink& link) noexcept {
    for (std::uint32_t i = 0; i < link.exposures.size(); ++i) {
        Exposure& each = link.exposures[i];
        if (std::exchange(each.bound, true)) continue;
        if (each.revoked) take_back(link, each.key);
        return;
    }
}

/// False: nothing is exposed by that key.
bool RdmaPort::take_back(RdmaLink& link, std::uint32_t key) noexcept {
    bool found = false;
    for (std::uint32_t left = link.exposures.size(); left > 0; --left) {
        Exposure each = std::move(link.exposures.front());
        link.exposures.pop();
        if (each.key == key && !found) {
            found = true;
            if (each.bound) {
                drop(each);
                continue;
            }
            // The peer has used it up before we have heard that it is bound: it goes then, lest that word be taken for the next one's.
            each.revoked = true;
            (void)link.exposures.push(std::move(each));
        } else {
            (void)link.exposures.push(std::move(each));  // into the room it left
        }
    }
    return found;
}

Result<void> RdmaPort::revoke(Link& base, const RemoteRegion& region) {
    auto& link = static_cast<RdmaLink&>(base);
    for (std::uint32_t i = 0; i < link.exposures.size(); ++i) {
        Exposure& each = link.exposures[i];
        if (each.key != region.key || reinterpret_cast<std::uintptr_t>(each.range.data()) != region.address || each.revoked) continue;
        each.revoked = true;
        if (each.bound) take_back(link, each.key);  // a window that the device has yet to bind goes when it is: nobody knows of it before
        return {};
    }
    return Error(Errc::misuse, Step::remote);
}

/// The queue pair is gone: nobody uses them any more.
void RdmaPort::drop_exposures(RdmaLink& link) noexcept {
    for (; !link.exposures.empty(); link.exposures.pop()) drop(link.exposures.front());
}

// -- what we use -----------------------------------------------------------------------------------------------

Result<void> RdmaPort::start(Link& base, Operation&& operation) {
    auto& link = static_cast<RdmaLink&>(base);
    if (link.state != RdmaLink::State::open || link.end_said) return Error(Errc::misuse, Step::remote);
    if (operation.reads() && link.own_caps.remote_reads_max == 0) return Error(Errc::not_supported, Step::remote);  // the peer serves none
    if (!link.waiting.push(std::move(operation))) return Error(Errc::out_of_memory, Step::remote);
    post_waiting(link);
    return {};
}

Result<void> RdmaPort::read(Link& link, OperationId operation, const RemoteRegion& region, std::uint64_t offset, Buffer into) {
    return start(link, {operation, region, offset, std::move(into), Operation::Does::read});
}

Result<void> RdmaPort::write(Link& link, OperationId operation, const RemoteRegion& region, std::uint64_t offset, Buffer from) {
    return start(link, {operation, region, offset, std::move(from), Operation::Does::write});
}

Result<void> RdmaPort::write_telling(Link& link, OperationId operation, const RemoteRegion& region, std::uint64_t offset, Buffer from, std::uint32_t word) {
    return start(link, {operation, region, offset, std::move(from), Operation::Does::write_telling, word});
}

Result<void> RdmaPort::atomic(Link& link, OperationId operation, const RemoteRegion& region, std::uint64_t offset, const Atomic& what, Buffer before) {
    return start(link, {operation, region, offset, std::move(before), Operation::Does::atomic, 0, what});
}

namespace {

/// As the device wants it, but for the place of our own bytes.
ibv_send_wr request_of(const Operation& operation) noexcept {
    ibv_send_wr request{};
    request.send_flags = IBV_SEND_SIGNALED;
    if (operation.does == Operation::Does::atomic) {
        request.opcode = operation.what.swaps ? IBV_WR_ATOMIC_CMP_AND_SWP : IBV_WR_ATOMIC_FETCH_AND_ADD;
        request.wr.atomic.remote_addr = operation.region.address + operation.offset;
        request.wr.atomic.rkey = std::uint32_t(operation.region.key);
        request.wr.atomic.compare_add = operation.what.operand;
        request.wr.atomic.swap = operation.what.desired;
        return request;
    }
    request.wr.rdma.remote_addr = operation.region.address + operation.offset;
    request.wr.rdma.rkey = std::uint32_t(operation.region.key);
    request.opcode = operation.reads() ? IBV_WR_RDMA_READ : IBV_WR_RDMA_WRITE;
    if (operation.does == Operation::Does::write_telling) {
        request.opcode = IBV_WR_RDMA_WRITE_WITH_IMM;
        request.imm_data = htonl(operation.word);
    }
    return request;
}

}  // namespace

/// The device knows the operation's memory: the buffer's slab has a key, or a block of ours stands in for it. False: not yet, or
/// `error`.
bool RdmaPort::make_known(RdmaLink& link, Operation& operation, std::uint32_t& lkey, Error& error) {
    Device& device = *link.rail->queues->device;
    Buffer& used = operation.registered ? operation.registered : operation.buffer;
    memory::Slab* slab = memory::slab_of(used);
    const auto refused = [&] { return slab->keys[device.number()].state.load(std::memory_order_acquire) == memory::KeyState::failed; };
    if (slab == nullptr || (slab->is_foreign() && refused())) {  // the caller's own memory
        if (used.size() > memory::block_bytes_max) {
            error = Error(Errc::too_large, Step::remote);
            return false;
        }
        auto block = host.heap().allocate(used.size());
        if (!block) {
            error = Error(block.error().code(), Step::remote);
            return false;
        }
        if (!operation.reads()) std::memcpy(block->data(), used.data(), used.size());
        operation.registered = *std::move(block);
        return make_known(link, operation, lkey, error);
    }
    std::uint64_t key;
    if (device.key_of(*slab, key) != nullptr) {
        lkey = Device::lkey_of(key);
        return true;
    }
    device.request(
        *slab, [](void* bell) { static_cast<Bell*>(bell)->ring(); }, &host.bell());
    if (!slab->is_foreign() && refused()) error = Error(Errc::device_error, Step::remote);
    return false;
}

/// True: none waits any more.
bool RdmaPort::post_waiting(RdmaLink& link) {
    while (!link.waiting.empty()) {
        Operation& first = link.waiting.front();
        const bool tells = first.does == Operation::Does::write_telling;
        if (link.awaits_credit() || !may_post(link, requests_kept) || !link.requests.reserve(1) || !link.operations.reserve(1)) return false;
        std::uint32_t lkey = 0;
        Error error;
        if (!make_known(link, first, lkey, error)) {
            if (!error.ok()) end_link(link, error);
            else tick_by(host.now_ns() + retry_ns);
            return false;
        }
        const Buffer& used = first.registered ? first.registered : first.buffer;
        ibv_sge place{reinterpret_cast<std::uintptr_t>(used.data()), used.size(), lkey};
        ibv_send_wr request = request_of(first);
        request.wr_id = link.next_number;
        request.sg_list = &place;
        request.num_sge = 1;
        if (tells && std::exchange(link.fence, false)) request.send_flags |= IBV_SEND_FENCE;  // as a SEND
        link.credits -= tells && !link.is_raw ? 1 : 0;
        link.fence |= first.reads();
        (void)link.operations.push(std::move(first));  // reserved
        link.waiting.pop();
        posted(link, {0, 0, Sent::operation});
        if (!post(link, request)) return false;
    }
    return true;
}

/// The device is through with the oldest one.
void RdmaPort::operation_done(RdmaLink& link, Error error) {
    Operation done = std::move(link.operations.front());
    link.operations.pop();
    if (done.told) return;
    if (done.registered && done.reads() && error.ok()) std::memcpy(done.buffer.data(), done.registered.data(), done.buffer.size());
    link.sink->completed(done.id, error, std::move(done.buffer));
}

/// The link is over. What the device has keeps its memory until the queue pair is gone.
void RdmaPort::drop_operations(RdmaLink& link) {
    const Error error =
        link.error.code() == Errc::remote_access ? Error(Errc::cancelled, Step::remote) : Error(link.error.code(), Step::remote, link.error.who());
    for (std::uint32_t i = 0; i < link.operations.size(); ++i) {
        Operation& each = link.operations[i];
        if (!std::exchange(each.told, true)) link.sink->completed(each.id, error, {});
    }
    for (; !link.waiting.empty(); link.waiting.pop()) link.sink->completed(link.waiting.front().id, error, std::move(link.waiting.front().buffer));
}

}  // namespace evpl::transport::rdma
