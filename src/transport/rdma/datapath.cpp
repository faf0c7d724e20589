// The data path of a port: completions to sinks, outboxes to queue pairs.

#include <arpa/inet.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "transport/rdma/port.hpp"

namespace evpl::transport::rdma {
namespace {

constexpr unsigned completions_per_poll = 32;

}  // namespace

/// `raw`: whether a message fits is between the users.
Error failure_of(const ibv_wc& done, Step step, bool raw) noexcept {
    switch (done.status) {
    case IBV_WC_WR_FLUSH_ERR: return Error(Errc::reset, step, Who::peer);
    case IBV_WC_RETRY_EXC_ERR:
    case IBV_WC_RESP_TIMEOUT_ERR: return Error(Errc::peer_silent, step, Who::peer);
    case IBV_WC_RNR_RETRY_EXC_ERR: return Error(Errc::receive_limit, step, Who::peer);  // the peer never had a receive ready
    case IBV_WC_REM_ACCESS_ERR: return Error(Errc::remote_access, Step::remote, Who::peer);
    case IBV_WC_REM_INV_REQ_ERR:
    case IBV_WC_LOC_LEN_ERR: return Error(raw ? Errc::too_large : Errc::protocol_error, step, Who::peer);
    case IBV_WC_LOC_QP_OP_ERR:  // so soft-RoCE speaks of a receive that is too small; no other of ours is malformed
        if (raw && step == Step::recv) return Error(Errc::too_large, step, Who::peer);
        return Error(Errc::device_error, step, Who::system, int(done.status));
    case IBV_WC_REM_OP_ERR:
    case IBV_WC_REM_ABORT_ERR: return Error(Errc::device_error, step, Who::peer, int(done.status));
    default: return Error(Errc::device_error, step, Who::system, int(done.status));
    }
}

// -- completions -----------------------------------------------------------------------------------------------

unsigned RdmaPort::poll(unsigned budget) {
    unsigned done = 0;
    if (due_ != nullptr) return_credits();
    if (mailbox_.has_news()) done += hear();
    if (backlogs_) serve_backlogs();
    for (Rail* rail = rails_; rail != nullptr; rail = rail->next) done += poll_rail(*rail, budget);
    settle();
    return done;
}

unsigned RdmaPort::poll_rail(Rail& rail, unsigned budget) {
    unsigned done = 0;
    if (rail.dead) return 0;
    const unsigned early = std::exchange(rail.early_count, 0);
    for (unsigned i = 0; i < early; ++i) complete(rail, rail.early[i]);
    done += early;
    ibv_wc batch[completions_per_poll];
    while (done < budget && !rail.dead) {
        const int got = ibv_poll_cq(rail.queues->cq, int(std::min(budget - done, completions_per_poll)), batch);
        if (got <= 0) break;
        for (int i = 0; i < got; ++i) complete(rail, batch[i]);
        done += unsigned(got);
    }
    if (rail.crowded && done > 0) relieve(rail);
    if (rail.receives_out < rail.promised) post_receives(rail, rail.promised - rail.receives_out);  // what links took that are over
    return done;
}

/// The completion queue was spoken for; some of it is free again. Who was refused may not have a completion of its own to wait for.
void RdmaPort::relieve(Rail& rail) {
    rail.crowded = false;
    visit_links([&](RdmaLink& link) {
        if (link.rail == &rail && (link.blocked || link.draining || link.owed > 0 || !link.waiting.empty())) touch(link);
    });
}

void RdmaPort::drain_rail(Rail& rail) {
    while (poll_rail(rail, completions_per_poll) == completions_per_poll) {
    }
}

void RdmaPort::complete(Rail& rail, const ibv_wc& done) {
    if ((done.wr_id & own_receive) == own_receive) received_raw(rail, done);
    else if ((done.wr_id & receive_bit) != 0) received(rail, done);
    else sent(rail, done);
}

Armed RdmaPort::arm() {
    bool work = due_ != nullptr || touched_first_ != nullptr || mailbox_.has_news();
    for (Rail* rail = rails_; rail != nullptr; rail = rail->next) {
        work |= rail->early_count > 0;
        if (rail->armed || rail->dead || rail->early_count > 0) continue;
        // Armed before, a completion has made the channel readable. Armed now, one may have come just before: looked at once more.
        if (ibv_req_notify_cq(rail->queues->cq, 0) != 0) continue;
        rail->armed = true;
        const int got = ibv_poll_cq(rail->queues->cq, int(std::size(rail->early)), rail->early);
        rail->early_count = got > 0 ? unsigned(got) : 0;
        work |= got > 0;
    }
    return {work, INT64_MAX};
}

std::uint32_t Rail::ready(std::uint32_t) {
    ibv_cq* queue = nullptr;
    void* context = nullptr;
    while (verbs().ibv_get_cq_event(queues->channel, &queue, &context) == 0) {
        armed = false;
        constexpr unsigned batch = 64;  // acknowledging takes a lock
        if (++unacknowledged < batch) continue;
        verbs().ibv_ack_cq_events(queues->cq, std::exchange(unacknowledged, 0));
    }
    port->host.poll_again();
    return 0;
}

// -- receiving -------------------------------------------------------------------------------------------------

void RdmaPort::received(Rail& rail, const ibv_wc& done) {
    const auto slot = std::uint32_t(done.wr_id);
    if (slot >= rail.queues->receives_most || rail.receives_out == 0) return;
    --rail.receives_out;
    RdmaLink* const link = rail.links.find(done.qp_num);
    const bool live = link != nullptr && link->state != RdmaLink::State::free && link->state != RdmaLink::State::over;
    if (live && done.status == IBV_WC_SUCCESS) {
        const bool tells = done.opcode == IBV_WC_RECV_RDMA_WITH_IMM;  // its 32 bits are the peer's user's, a SEND's are the peer's own
        if (link->granted == link->owed || (done.wc_flags & IBV_WC_WITH_IMM) == 0 || (done.opcode != IBV_WC_RECV && !tells)) {
            end_link(*link, Error(Errc::protocol_error, Step::recv, Who::peer));
        } else {
            --link->granted;
            --rail.promised;
            link->traffic = true;
            touch(*link);
            if (link->state == RdmaLink::State::answering) open_link(*link);
            const std::uint32_t note = ntohl(done.imm_data);
            const bool ends_message = !tells && (note & Note::end_of_message) != 0;
            if (tells) [[unlikely]] take_word(*link, note);
            else if (done.byte_len > 0 || ends_message) take_payload(*link, rail, slot, done.byte_len, ends_message);
            if (!tells) take_note(*link, note);
        }
    } else if (live) {
        end_link(*link, failure_of(done, Step::recv, false));
    }
    rail.free_slots[rail.free_count++] = slot;
}

void RdmaPort::take_payload(RdmaLink& link, Rail& rail, std::uint32_t slot, std::uint32_t bytes, bool end_of_message) {
    const bool valid = !link.end_heard && (link.is_message || !end_of_message) && bytes <= rail.queues->block_bytes;
    link.message_bytes = link.is_message ? link.message_bytes + bytes : 0;
    if (!valid) return end_link(link, Error(Errc::protocol_error, Step::recv, Who::peer));
    if (link.message_bytes > message_bytes_most) return end_link(link, Error(Errc::too_large, Step::recv, Who::peer));
    if (end_of_message) link.message_bytes = 0;
    Buffer& block = rail.slots[slot].block;
    if (bytes > copied_bytes_most) {
        Buffer whole = std::move(block);
        whole.truncate(bytes);
        return deliver(link, std::move(whole), end_of_message);
    }
    if (bytes == 0) return deliver(link, {}, end_of_message);
    const auto room = block_.room(bytes);
    if (room.empty()) return end_link(link, Error(Errc::out_of_buffers, Step::recv));
    std::memcpy(room.data(), block.data(), bytes);
    deliver(link, block_.cut(bytes), end_of_message);
}

void RdmaPort::deliver(RdmaLink& link, Buffer&& bytes, bool end_of_message, std::uint32_t invalidated_key) {
    if (link.receive_paused || !link.held.empty() || link.state == RdmaLink::State::connecting) {
        if (!link.held.push({std::move(bytes), end_of_message, invalidated_key})) end_link(link, Error(Errc::out_of_memory, Step::recv));
        return;
    }
    Arrival arrival;
    arrival.end_of_message = end_of_message;
    arrival.invalidated_key = invalidated_key;
    link.sink->delivered(std::move(bytes), arrival);
}

void RdmaPort::deliver_held(RdmaLink& link) {
    while (!link.held.empty() && !link.receive_paused && link.state == RdmaLink::State::open) {
        RdmaLink::Received first = std::move(link.held.front());
        link.held.pop();
        Arrival arrival;
        arrival.has_immediate = first.is_word;
        arrival.immediate = first.word;
        arrival.end_of_message = first.end_of_message;
        arrival.invalidated_key = first.invalidated_key;
        link.sink->delivered(std::move(first.bytes), arrival);
    }
}

/// A write of the peer's is done. Told in order with what it sent.
void RdmaPort::take_word(RdmaLink& link, std::uint32_t word) {
    if (link.end_heard) return end_link(link, Error(Errc::protocol_error, Step::recv, Who::peer));
    if (!link.held.push({{}, false, 0, word, true})) return end_link(link, Error(Errc::out_of_memory, Step::recv));
    deliver_held(link);
}

void RdmaPort::resume(Link& base) {
    auto& link = static_cast<RdmaLink&>(base);
    link.receive_paused = false;
    touch(link);  // what is held is delivered by the next poll, and credits are granted again
    host.poll_again();
}

void RdmaPort::take_note(RdmaLink& link, std::uint32_t note) {
    if (link.state == RdmaLink::State::over) return;
    if ((note & ~Note::known) != 0) return end_link(link, Error(Errc::protocol_error, Step::recv, Who::peer));
    link.credits += note & Note::credit_mask;
    if (link.credits > Note::credit_mask) return end_link(link, Error(Errc::protocol_error, Step::recv, Who::peer));
    if ((note & Note::end_of_stream) != 0) link.end_heard = true;
}

// -- receive memory and credits --------------------------------------------------------------------------------

/// There is a block that the device knows. False: later.
bool RdmaPort::fill(Rail& rail, Buffer& block, std::uint32_t block_bytes, std::uint32_t& lkey) noexcept {
    if (!block) {
        auto made = host.heap().allocate(block_bytes);
        if (!made) return false;
        block = *std::move(made);
    }
    memory::Slab& slab = *memory::slab_of(block);
    std::uint64_t key;
    Device& device = *rail.queues->device;
    if (device.key_of(slab, key) != nullptr) {
        lkey = Device::lkey_of(key);
        rail.refused = false;
        return true;
    }
    if (slab.keys[device.number()].state.load(std::memory_order_acquire) == memory::KeyState::failed) {
        rail.refused = true;
        block = {};  // the next try may get one of another slab
        return false;
    }
    device.request(slab, [](void* bell) { static_cast<Bell*>(bell)->ring(); }, &host.bell());
    return false;
}

unsigned RdmaPort::post_receives(Rail& rail, unsigned count) noexcept {
    constexpr unsigned most = 32;
    ibv_recv_wr requests[most];
    ibv_sge places[most];
    unsigned posted = 0;
    while (posted < count && !rail.dead) {
        unsigned n = 0;
        for (; n < most && posted + n < count && rail.free_count > 0 && rail.receives_out + rail.own_receives + n < rail.queues->receives_most; ++n) {
            const std::uint32_t slot = rail.free_slots[rail.free_count - 1];
            std::uint32_t lkey;
            if (!fill(rail, rail.slots[slot].block, rail.queues->block_bytes, lkey)) break;
            --rail.free_count;
            places[n] = {reinterpret_cast<std::uintptr_t>(rail.slots[slot].block.data()), rail.queues->block_bytes, lkey};
            requests[n] = {receive_bit | slot, &requests[n + 1], &places[n], 1};
        }
        if (n == 0) break;
        requests[n - 1].next = nullptr;
        ibv_recv_wr* refused = nullptr;
        const bool all = ibv_post_srq_recv(rail.queues->srq, requests, &refused) == 0;
        const unsigned taken = all || refused == nullptr ? n : unsigned(refused - requests);
        for (unsigned i = taken; i < n; ++i) rail.free_slots[rail.free_count++] = std::uint32_t(requests[i].wr_id);
        rail.receives_out += taken;
        posted += taken;
        if (taken < most) break;
    }
    return posted;
}

/// Lets the peer send up to `wanted` more; as many as there are receives for.
std::uint32_t RdmaPort::grant(RdmaLink& link, std::uint32_t wanted) noexcept {
    Rail& rail = *link.rail;
    unsigned spare = rail.receives_out > rail.promised ? rail.receives_out - rail.promised : 0;
    if (spare < wanted) spare += post_receives(rail, wanted - spare);
    const std::uint32_t got = std::min(wanted, spare);
    rail.promised += got;
    link.granted += got;
    link.owed += got;
    return got;
}

/// Half of what a peer may send has been used: it gets more, and the more it sends the more, while there is plenty.
void RdmaPort::settle(RdmaLink& link) {
    if (link.state == RdmaLink::State::over) return tell_end(link);
    if (link.is_raw) return settle_raw(link);
    if (!link.held.empty()) deliver_held(link);
    if (link.end_heard && !link.ended && link.held.empty() && link.state == RdmaLink::State::open) {
        link.ended = true;
        link.sink->ended();
    }
    if (link.state != RdmaLink::State::over && !link.receive_paused && (link.starving || link.granted <= link.target / 2)) {
        const bool plenty = link.rail->promised < link.rail->queues->receives_most / 2;
        if (link.state == RdmaLink::State::open) link.target = plenty ? std::min(link.target * 2, link.window) : credits_least;
        if (link.target > link.granted) grant(link, link.target - link.granted);
        link.starving = link.granted < credits_least;
        const bool hopeless = link.rail->refused && (link.granted == 0 || link.state != RdmaLink::State::open);
        if (link.starving && hopeless) end_link(link, Error(Errc::out_of_buffers, Step::open, Who::system, ENOMEM));
        if (link.starving) tick_by(host.now_ns() + retry_ns);
    }
    if (link.state == RdmaLink::State::over) return tell_end(link);
    if (link.state == RdmaLink::State::connecting || link.state == RdmaLink::State::answering) {
        if (!link.greeted && link.granted >= credits_least) greet(link);
        return;
    }
    if (link.state == RdmaLink::State::open && !link.waiting.empty()) post_waiting(link);
    if (link.state == RdmaLink::State::open && link.blocked && may_post(link, requests_kept) && link.credits > credits_kept) {
        link.blocked = false;
        link.sink->writable();
    }
    if (link.state == RdmaLink::State::open && link.draining) say_end(link);
    if (link.state == RdmaLink::State::open) end_if_done(link);
    if (link.state == RdmaLink::State::over) return tell_end(link);
    if (link.owed > 0 && !link.note_due && (link.owed * 2 >= link.target || link.granted - link.owed <= 1)) {
        link.note_due = true;  // payload that is sent in this turn takes them along
        link.next_due = std::exchange(due_, &link);
        host.poll_again();
    }
}

void RdmaPort::return_credits() {
    RdmaLink* link = std::exchange(due_, nullptr);
    while (link != nullptr) {
        RdmaLink& one = *link;
        link = one.next_due;
        one.note_due = false;
        if (one.state != RdmaLink::State::open || one.owed == 0) continue;
        if (one.credits > 0 && may_post(one, 0)) say_note(one, 0, Sent::note);
        // Otherwise the peer's next note, or the next completion, brings the link here again.
    }
}

// -- sending ---------------------------------------------------------------------------------------------------

bool RdmaPort::may_post(const RdmaLink& link, std::uint32_t kept) const noexcept {
    Rail& rail = *link.rail;
    if (rail.dead || link.requests_out + kept >= link.depth) return false;
    rail.crowded |= rail.requests_out + rail.queues->receives_most >= rail.queues->completions_most;
    return !rail.crowded;
}

/// Work requests that leave with one doorbell.
class RdmaPort::SendBatch {
public:
    static constexpr unsigned most = 16;
    ibv_send_wr requests[most];
    ibv_sge slices[most * gather_most];
    Request entries[most];
    unsigned count = 0;
    unsigned slice_count = 0;

    bool full() const noexcept { return count == most; }
};

Flushed RdmaPort::flush(Link& base) {
    auto& link = static_cast<RdmaLink&>(base);
    if (link.state != RdmaLink::State::open) return Flushed::blocked;
    if ((link.waiting.empty() || post_waiting(link)) && push_outbox(link)) {
        if (link.draining && !link.is_raw) say_end(link);
        return Flushed::all;
    }
    link.blocked = true;
    return Flushed::blocked;
}

/// True: the outbox is empty.
bool RdmaPort::push_outbox(RdmaLink& link) {
    SendBatch batch;
    while (!link.outbox->empty() && link.state == RdmaLink::State::open) {
        batch.count = batch.slice_count = 0;
        const std::uint32_t room = link.depth - link.requests_out - std::min(link.depth - link.requests_out, requests_kept);
        while (!link.outbox->empty() && !batch.full() && batch.count < room && link.credits > credits_kept && may_post(link, requests_kept)) {
            if (!gather(link, batch)) break;
        }
        if (batch.count == 0) return false;
        for (unsigned i = 0; i + 1 < batch.count; ++i) batch.requests[i].next = &batch.requests[i + 1];
        batch.requests[batch.count - 1].send_flags |= IBV_SEND_SIGNALED;  // tells of those before it, too
        for (unsigned i = 0; i < batch.count; ++i) posted(link, batch.entries[i]);
        if (!post(link, batch.requests[0])) return false;
    }
    return link.outbox->empty();
}

/// The next SEND of the outbox: slices up to what the peer takes, or to the end of a message. False: no memory to note them.
bool RdmaPort::gather(RdmaLink& link, SendBatch& batch) {
    SendQueue& outbox = *link.outbox;
    if (link.is_raw && !gather_into_one(link)) return false;
    if (!link.requests.reserve(batch.count + 1) || !link.with_device.reserve(gather_most)) return false;
    ibv_sge* const first = &batch.slices[batch.slice_count];
    Request entry;
    std::uint32_t note = 0, flags = 0;
    int pieces = 0;
    while (!outbox.empty() && unsigned(pieces) < link.rail->queues->gather_most && entry.bytes < link.peer_block && note == 0) {
        Buffer& front = outbox[0];
        const std::uint32_t take = std::min(front.size(), link.peer_block - entry.bytes);
        const bool whole = take == front.size();
        if (whole) flags = BufferAccess::flags(front);
        if (whole && link.is_message && (flags & BufferAccess::end_of_message) != 0) note = Note::end_of_message;
        if (take > 0) {
            std::uint64_t key = 0;
            const memory::Slab* slab = memory::slab_of(front);
            if (slab == nullptr || link.domain->key_of(*slab, key) == nullptr) {  // core has seen to it
                end_link(link, Error(Errc::device_error, Step::send));
                return false;
            }
            first[pieces++] = {reinterpret_cast<std::uintptr_t>(front.data()), take, Device::lkey_of(key)};
            (void)link.with_device.push(whole ? outbox.pop() : front.share(0, take));  // reserved
            ++entry.slices;
            if (!whole) outbox.drop_front(take);
        } else {
            outbox.pop();
        }
        entry.bytes += take;
    }
    const std::uint32_t credits = std::min(link.owed, Note::credit_mask);
    link.owed -= credits;
    link.credits -= link.is_raw ? 0 : 1;
    ibv_send_wr& request = batch.requests[batch.count];
    request = {};
    request.wr_id = std::uint16_t(link.next_number + batch.count);
    request.sg_list = first;
    request.num_sge = pieces;
    request.opcode = link.is_raw ? IBV_WR_SEND : IBV_WR_SEND_WITH_IMM;
    if (!link.is_raw) request.imm_data = htonl(note | credits);
    if ((flags & BufferAccess::has_key) != 0) {
        request.opcode = IBV_WR_SEND_WITH_INV;
        request.invalidate_rkey = std::uint32_t(outbox.keys.front());
        outbox.keys.pop();
    }
    if (entry.bytes <= link.inline_bytes) request.send_flags |= IBV_SEND_INLINE;
    if (std::exchange(link.fence, false)) request.send_flags |= IBV_SEND_FENCE;
    batch.entries[batch.count++] = entry;
    batch.slice_count += unsigned(pieces);
    return true;
}

void RdmaPort::posted(RdmaLink& link, Request request) noexcept {
    (void)link.requests.push(std::move(request));  // reserved
    ++link.next_number;
    ++link.requests_out;
    ++link.rail->requests_out;
}

/// Requests that the device refuses end the link; they stay counted until the queue pair is gone.
bool RdmaPort::post(RdmaLink& link, ibv_send_wr& first) noexcept {
    ibv_send_wr* refused = nullptr;
    const int failed = ibv_post_send(link.qp, &first, &refused);
    if (failed != 0) end_link(link, Error::from_errno(failed, Step::send));
    return failed == 0;
}

/// A SEND without payload: flags, and the credits that are owed.
void RdmaPort::say_note(RdmaLink& link, std::uint32_t flags, Sent what) {
    if (!link.requests.reserve(1)) return;
    const std::uint32_t credits = std::min(link.owed, Note::credit_mask);
    link.owed -= credits;
    --link.credits;
    ibv_send_wr request{};
    request.wr_id = link.next_number;
    request.opcode = IBV_WR_SEND_WITH_IMM;
    request.send_flags = IBV_SEND_SIGNALED;
    request.imm_data = htonl(flags | credits);
    if (std::exchange(link.fence, false)) request.send_flags |= IBV_SEND_FENCE;
    posted(link, {0, 0, what});
    post(link, request);
}

void RdmaPort::say_end(RdmaLink& link) {
    if (link.end_said || !link.outbox->empty() || !link.waiting.empty()) return;
    if (link.credits <= credits_kept || !may_post(link, 1)) return;  // asked again after the next completion
    link.end_said = true;
    say_note(link, Note::end_of_stream, Sent::end);
}

/// A write of nothing: the peer's device answers, nobody else hears of it.
void RdmaPort::probe(RdmaLink& link) {
    if (!may_post(link, 0) || !link.requests.reserve(1)) return;
    ibv_send_wr request{};
    request.wr_id = link.next_number;
    request.opcode = IBV_WR_RDMA_WRITE;
    request.send_flags = IBV_SEND_SIGNALED;
    posted(link, {0, 0, Sent::probe});
    post(link, request);
}

void RdmaPort::sent(Rail& rail, const ibv_wc& done) {
    // By its queue pair, not by its id: a device that is gone completes what nobody has posted.
    RdmaLink* const found = rail.links.find(done.qp_num);
    if (found == nullptr || found->requests_out == 0) return;
    RdmaLink& link = *found;
    const auto first = std::uint16_t(link.next_number - link.requests_out);
    const unsigned count = unsigned(std::uint16_t(std::uint16_t(done.wr_id) - first)) + 1;
    if (count > link.requests_out) return;
    std::size_t bytes = 0;
    if (done.status != IBV_WC_SUCCESS) {
        pass_requests(link, count - 1, bytes, {});  // those before it went well
        if (bytes > 0 && link.state == RdmaLink::State::open) link.sink->sent(bytes);
        return send_failed(link, done);
    }
    pass_requests(link, count, bytes, {});
    if (link.state != RdmaLink::State::open) return;
    link.traffic = true;
    touch(link);
    if (bytes > 0) link.sink->sent(bytes);
}

/// The device is through with `count` requests.
void RdmaPort::pass_requests(RdmaLink& link, unsigned count, std::size_t& bytes, Error error) {
    for (; count > 0; --count) {
        const Request request = link.requests.front();
        link.requests.pop();
        --link.requests_out;
        --link.rail->requests_out;
        bytes += request.bytes;
        for (unsigned i = 0; i < request.slices; ++i) link.with_device.pop();
        if (request.what == Sent::operation) operation_done(link, error);
        else if (request.what == Sent::window && error.ok()) window_bound(link);
        else if (request.what == Sent::end && error.ok()) link.end_acked = true;
    }
}

void RdmaPort::send_failed(RdmaLink& link, const ibv_wc& done) {
    const Error error = failure_of(done, Step::send, link.is_raw);
    std::size_t bytes = 0;
    pass_requests(link, 1, bytes, error);
    end_link(link, error);
}

// -- after a batch ---------------------------------------------------------------------------------------------

void RdmaPort::touch(RdmaLink& link) noexcept {
    if (std::exchange(link.touched, true)) return;
    link.next_touched = nullptr;
    (touched_first_ == nullptr ? touched_first_ : touched_last_->next_touched) = &link;
    touched_last_ = &link;
}

void RdmaPort::untouch(RdmaLink& link) noexcept {
    if (link.touched) {
        RdmaLink* before = nullptr;
        for (RdmaLink* each = touched_first_; each != &link; each = each->next_touched) before = each;
        (before == nullptr ? touched_first_ : before->next_touched) = link.next_touched;
        if (touched_last_ == &link) touched_last_ = before;
    }
    if (link.note_due) {
        RdmaLink** at = &due_;
        while (*at != &link) at = &(*at)->next_due;
        *at = link.next_due;
    }
}

void RdmaPort::settle() {
    while (RdmaLink* link = touched_first_) {
        touched_first_ = link->next_touched;
        link->touched = false;
        settle(*link);
    }
}

}  // namespace evpl::transport::rdma
