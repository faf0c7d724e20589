// wire=raw: one message is one SEND, and nothing of ours is on the wire. Each link has receives of its own, so that a peer that knows of no
// credits takes nobody else's; who sends more than there are receives is stopped by the device, for as long as its retries last.

#include <arpa/inet.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "transport/rdma/port.hpp"

namespace evpl::transport::rdma {

void RdmaPort::received_raw(Rail& rail, const ibv_wc& done) {
    RdmaLink* const link = rail.links.find(done.qp_num);
    if (link == nullptr || link->own_receives.empty()) return;
    Buffer block = std::move(link->own_receives.front());
    link->own_receives.pop();
    if (link->state == RdmaLink::State::free || link->state == RdmaLink::State::over) return;
    // While it connects, the manager has ended the queue pair, and tells why: what the peer said when it refused comes behind its receives.
    if (link->state == RdmaLink::State::connecting && done.status == IBV_WC_WR_FLUSH_ERR) return;
    if (done.status != IBV_WC_SUCCESS) return end_link(*link, failure_of(done, Step::recv, true));
    const bool tells = done.opcode == IBV_WC_RECV_RDMA_WITH_IMM;  // its bytes are elsewhere
    if (!tells && (done.opcode != IBV_WC_RECV || done.byte_len > block.size())) return end_link(*link, Error(Errc::protocol_error, Step::recv, Who::peer));
    link->traffic = true;
    touch(*link);
    if (link->state == RdmaLink::State::answering) open_link(*link);  // it counts as established
    if (tells) return take_word(*link, ntohl(done.imm_data));
    // Soft-RoCE's kernel tells of a key by the bit that user space knows as IP_CSUM_OK, which has no other meaning on such a queue pair.
    const bool names_key = (done.wc_flags & (IBV_WC_WITH_INV | IBV_WC_IP_CSUM_OK)) != 0 && (done.wc_flags & IBV_WC_WITH_IMM) == 0;
    std::uint32_t key = names_key ? done.invalidated_rkey : 0;
    if (key != 0 && !take_back(*link, key) && (done.wc_flags & IBV_WC_WITH_INV) == 0) key = 0;
    block.truncate(done.byte_len);
    if (block.empty() || block.size() > copied_bytes_most) return deliver(*link, std::move(block), true, key);
    Buffer copied = block_.copy(block.data(), block.size());
    if (!copied) return end_link(*link, Error(Errc::out_of_buffers, Step::recv));
    deliver(*link, std::move(copied), true, key);
}

/// As many receives as were asked for. False: memory or its registration is missing.
bool RdmaPort::post_own_receives(RdmaLink& link) noexcept {
    constexpr unsigned most = 32;
    ibv_recv_wr requests[most];
    ibv_sge places[most];
    while (link.own_receives.size() < link.receives) {
        const unsigned wanted = std::min(most, link.receives - link.own_receives.size());
        if (link.rail->dead || !link.own_receives.reserve(wanted)) return false;
        const std::uint32_t before = link.own_receives.size();
        unsigned n = 0;
        for (; n < wanted; ++n) {
            Buffer block;
            std::uint32_t lkey;
            if (!fill(*link.rail, block, link.block_bytes, lkey)) break;
            places[n] = {reinterpret_cast<std::uintptr_t>(block.data()), link.block_bytes, lkey};
            requests[n] = {own_receive, &requests[n + 1], &places[n], 1};
            (void)link.own_receives.push(std::move(block));  // reserved
        }
        if (n == 0) return false;
        requests[n - 1].next = nullptr;
        ibv_recv_wr* refused = nullptr;
        if (const int failed = ibv_post_recv(link.qp, requests, &refused); failed != 0) {
            // Blocks of refused receives stay until the queue pair is gone, as all others do.
            end_link(link, Error::from_errno(failed, Step::recv));
            return true;
        }
        if (link.own_receives.size() - before < wanted) return false;
    }
    return true;
}

/// After a batch, as settle() of links with credits.
void RdmaPort::settle_raw(RdmaLink& link) {
    if (link.rail == nullptr) return;  // the user has yet to accept it
    if (link.state == RdmaLink::State::open) deliver_held(link);
    if (link.state != RdmaLink::State::over) {
        link.starving = !post_own_receives(link);
        const bool hopeless = link.rail->refused && (link.own_receives.empty() || link.state != RdmaLink::State::open);
        if (link.starving && hopeless) {
            end_link(link, Error(Errc::out_of_buffers, Step::open, Who::system, ENOMEM));
            return tell_end(link);
        }
        if (link.starving) tick_by(host.now_ns() + retry_ns);
    }
    if (link.state == RdmaLink::State::connecting || link.state == RdmaLink::State::answering) {
        if (!link.greeted && !link.starving) greet(link);
        return;
    }
    if (link.state == RdmaLink::State::open && !link.waiting.empty()) post_waiting(link);
    if (link.state == RdmaLink::State::open && link.blocked && may_post(link, requests_kept)) {
        link.blocked = false;
        link.sink->writable();
    }
    if (link.state == RdmaLink::State::open && link.draining && link.outbox->empty() && link.waiting.empty() && link.requests_out == 0) {
        end_link(link, Error(Errc::end, Step::close, Who::local));  // the peer's device has all; disconnecting tells the peer
    }
    if (link.state == RdmaLink::State::over) tell_end(link);
}

/// A message of more slices than one SEND gathers becomes one slice. False: no memory that the device knows, yet.
bool RdmaPort::gather_into_one(RdmaLink& link) noexcept {
    SendQueue& outbox = *link.outbox;
    std::uint32_t bytes = 0, last = 0, pieces = 0;
    for (;; ++last) {
        bytes += outbox[last].size();
        pieces += outbox[last].empty() ? 0 : 1;
        if ((BufferAccess::flags(outbox[last]) & BufferAccess::end_of_message) != 0) break;
    }
    if (pieces <= link.rail->queues->gather_most) return true;
    Buffer whole;
    std::uint32_t lkey;
    if (!fill(*link.rail, whole, bytes, lkey)) {
        if (link.rail->refused) {
            end_link(link, Error(Errc::out_of_buffers, Step::send, Who::system, ENOMEM));
            return false;
        }
        tick_by(host.now_ns() + retry_ns);
        link.starving = true;  // the alarm looks here again
        return false;
    }
    const std::uint32_t flags = BufferAccess::flags(outbox[last]);
    for (std::uint32_t at = 0, i = 0; i <= last; ++i) {
        Buffer& slice = outbox[0];
        std::memcpy(whole.data() + at, slice.data(), slice.size());
        at += slice.size();
        if (i < last) outbox.pop();
    }
    BufferAccess::set_flags(whole, flags);
    outbox.replace_front(std::move(whole));
    return true;
}

}  // namespace evpl::transport::rdma
