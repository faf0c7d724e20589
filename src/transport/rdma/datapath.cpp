// The data path of a port: completions to sinks, outboxes to queue pairs.

#include <arpa/inet.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "transport/rdma/port.hpp"

namespace evpl::transport::rdma {

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
    if (rail.dead) return 0;
    ibv_wc batch[completions_per_poll];
    int got = int(std::exchange(rail.early_count, 0));
    std::copy_n(rail.early, got, batch);
    unsigned done = 0;
    for (int most = got;;) {
        for (int i = 0; i < got; ++i) complete(rail, batch[i]);
        if (fresh_.count > 0) deliver_fresh();
        done += unsigned(got);
        if (got < most || done >= budget || rail.dead) break;  // there are no more, or not for now
        most = int(std::min(budget - done, completions_per_poll));
        got = std::max(ibv_poll_cq(rail.queues->cq, most, batch), 0);
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
    while (poll_rail(rail, completions_per_poll) == completions_per_poll) {}
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
            if (tells) [[unlikely]]
                take_word(*link, note);
            else if (done.byte_len > 0 || ends_message) take_payload(*link, rail, slot, done.byte_len, ends_message);
            else ++link->notes;
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
    if (end_of_message && bytes - 1 < copied_bytes_most && is_prompt(link)) [[likely]] {
        Buffer& payload = next_fresh(link) = block_.copy(rail.slots[slot].block.data(), bytes);
        if (!payload) [[unlikely]]
            return end_link(link, Error(Errc::out_of_buffers, Step::recv));
        ++fresh_.count;
        return;
    }
    Buffer& block = rail.slots[slot].block;
    Buffer payload;
    if (bytes > copied_bytes_most) {
        payload = std::move(block);
        rail.slots[slot].place.length = 0;
        payload.truncate(bytes);
    } else if (bytes > 0) {
        payload = block_.copy(block.data(), bytes);
        if (!payload) [[unlikely]]
            return end_link(link, Error(Errc::out_of_buffers, Step::recv));
    }
    deliver(link, std::move(payload), end_of_message);
}

/// The sink is told at once of what comes for the link.
bool RdmaPort::is_prompt(const RdmaLink& link) const noexcept { return !link.receive_paused && link.held.empty() && link.state != RdmaLink::State::connecting; }

/// Where the link's next small message goes. What came before for another one has been told.
Buffer& RdmaPort::next_fresh(RdmaLink& link) {
    if (fresh_.link != &link && fresh_.count > 0) deliver_fresh();
    fresh_.link = &link;
    return fresh_.messages[fresh_.count];
}

void RdmaPort::deliver(RdmaLink& link, Buffer&& bytes, bool end_of_message, std::uint32_t invalidated_key) {
    if (!is_prompt(link)) {
        if (!link.held.push({std::move(bytes), end_of_message, invalidated_key})) end_link(link, Error(Errc::out_of_memory, Step::recv));
        return;
    }
    if (end_of_message && invalidated_key == 0 && bytes.size() - 1 < copied_bytes_most) [[likely]] {
        next_fresh(link) = std::move(bytes);
        ++fresh_.count;
        return;
    }
    if (fresh_.count > 0) deliver_fresh();
    Arrival arrival;
    arrival.end_of_message = end_of_message;
    arrival.invalidated_key = invalidated_key;
    link.sink->delivered(std::move(bytes), arrival);
}

void RdmaPort::deliver_fresh() {
    const std::span messages(fresh_.messages, std::exchange(fresh_.count, 0));
    fresh_.link->sink->delivered_messages(messages);
    for (Buffer& left : messages) left.reset();
}

void RdmaPort::deliver_held(RdmaLink& link) {
    if (fresh_.count > 0) deliver_fresh();  // came before
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
    device.request(
        slab, [](void* bell) { static_cast<Bell*>(bell)->ring(); }, &host.bell());
    return false;
}

/// The slot has a block that the device knows, as most have from their use before. False: later.
bool RdmaPort::make_ready(Rail& rail, Rail::Slot& slot) noexcept {
    if (slot.place.length != 0) [[likely]]
        return true;
    std::uint32_t lkey;
    if (!fill(rail, slot.block, rail.queues->block_bytes, lkey)) return false;
    slot.place = {reinterpret_cast<std::uintptr_t>(slot.block.data()), rail.queues->block_bytes, lkey};
    return true;
}

unsigned RdmaPort::post_receives(Rail& rail, unsigned count) noexcept {
    const unsigned out = rail.receives_out + rail.own_receives;
    if (rail.dead || out >= rail.queues->receives_most) return 0;
    const unsigned most = std::min({count, rail.free_count, rail.queues->receives_most - out});
    const std::uint32_t* const top = rail.free_slots + rail.free_count;
    ibv_recv_wr* first = nullptr;
    ibv_recv_wr** next = &first;
    for (unsigned n = 0; n < most; ++n) {
        Rail::Slot& slot = rail.slots[top[-1 - int(n)]];
        if (!make_ready(rail, slot)) break;
        *next = &slot.request;
        next = &slot.request.next;
    }
    *next = nullptr;
    if (first == nullptr) return 0;
    ibv_recv_wr* refused = nullptr;
    if (ibv_post_srq_recv(rail.queues->srq, first, &refused) == 0) refused = nullptr;
    unsigned taken = 0;
    for (const ibv_recv_wr* each = first; each != refused; each = each->next) ++taken;
    rail.free_count -= taken;
    rail.receives_out += taken;
    return taken;
}

void RdmaPort::set_aside(RdmaLink& link, std::uint32_t receives) noexcept {
    link.rail->set_aside += receives - link.set_aside;
    link.set_aside = receives;
}

/// Lets the peer send up to `wanted` more; as many as there are receives for. What a link uses up comes back to it first: a newcomer that took
/// it, while others keep more than they use, would leave it without any for good.
std::uint32_t RdmaPort::grant(RdmaLink& link, std::uint32_t wanted) noexcept {
    Rail& rail = *link.rail;
    set_aside(link, link.set_aside == 0 ? 0 : std::max(link.granted, credits_least));
    const unsigned others = rail.set_aside - link.set_aside + rail.own_receives;
    const unsigned most = rail.queues->receives_most > others ? rail.queues->receives_most - others : 0;
    if (link.set_aside == 0 && most < credits_least) return 0;
    wanted = std::min(wanted, most > link.granted ? most - link.granted : 0);
    unsigned spare = rail.receives_out > rail.promised ? rail.receives_out - rail.promised : 0;
    if (spare < wanted) spare += post_receives(rail, wanted - spare);
    const std::uint32_t got = std::min(wanted, spare);
    rail.promised += got;
    link.granted += got;
    link.owed += got;
    if (got > 0) set_aside(link, std::max(link.granted, credits_least));
    return got;
}

/// Half of what a peer may send has been used: it gets more, and the more it sends the more, while there is plenty.
void RdmaPort::grant_for_payload(RdmaLink& link) {
    const bool plenty = link.rail->set_aside < link.rail->queues->receives_most / 2;
    if (link.state == RdmaLink::State::open) link.target = plenty ? std::min(link.target * 2, link.window) : credits_least;
    if (link.target > link.granted) grant(link, link.target - link.granted);
    link.notes = 0;
    link.starving = link.granted < credits_least;
    const bool hopeless = link.rail->refused && (link.granted == 0 || link.state != RdmaLink::State::open);
    if (link.starving && hopeless) end_link(link, Error(Errc::out_of_buffers, Step::open, Who::system, ENOMEM));
    if (link.starving) tick_by(host.now_ns() + retry_ns);
}

/// While receiving is paused, payload is not granted anew. What returned credits is: it held nothing up, and who cannot return any more would
/// wait for us to read while we wait for it to let us send. Told once the peer knows of none.
void RdmaPort::grant_for_notes(RdmaLink& link) noexcept {
    link.notes -= grant(link, link.notes);
    link.starving = link.granted == 0;
    if (link.starving) tick_by(host.now_ns() + retry_ns);
}

void RdmaPort::settle(RdmaLink& link) {
    if (link.state == RdmaLink::State::over) return tell_end(link);
    if (link.is_raw) return settle_raw(link);
    if (!link.held.empty()) deliver_held(link);
    if (link.end_heard && !link.ended && link.held.empty() && link.state == RdmaLink::State::open) {
        link.ended = true;
        link.sink->ended();
    }
    if (link.state != RdmaLink::State::over) {
        if (link.receive_paused) {
            if (link.notes > 0 && link.granted == link.owed) grant_for_notes(link);
        } else if (link.starving || link.granted <= link.target / 2) {
            grant_for_payload(link);
        }
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
    if (link.owed > 0 && !link.note_due && (link.owed * 2 >= link.target || link.granted - link.owed <= credits_kept)) {
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

SendBatch::SendBatch() noexcept {
    for (unsigned i = 0; i + 1 < most; ++i) requests[i].next = &requests[i + 1];
}

/// Further SENDs that the link may post with one doorbell. None: a completion, or a credit, tells when to ask again.
unsigned RdmaPort::send_room(const RdmaLink& link) const noexcept {
    if (link.credits <= credits_kept || !may_post(link, requests_kept)) return 0;
    const Rail& rail = *link.rail;
    return std::min({SendBatch::most, link.depth - link.requests_out - requests_kept, link.credits - credits_kept,
                     rail.queues->completions_most - rail.queues->receives_most - rail.requests_out});
}

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
    SendBatch& batch = batch_;
    while (!link.outbox->empty() && link.state == RdmaLink::State::open) {
        const unsigned room = send_room(link);
        if (room == 0 || !link.requests.reserve(room)) return false;
        batch.count = batch.slice_count = batch.copied_count = 0;
        do gather_small(link, batch, room);
        while (batch.count < room && !link.outbox->empty() && gather(link, batch));
        if (batch.count == 0) return false;
        ibv_send_wr& last = batch.requests[batch.count - 1];
        ibv_send_wr* const next = std::exchange(last.next, nullptr);
        last.send_flags |= IBV_SEND_SIGNALED;  // tells of those before it, too
        const bool taken = post(link, batch.requests[0]);
        last.next = next;
        // The end of wrapped memory may run the program's code, which may send and flush: `batch` is free by then.
        detail::Block* copied[SendBatch::most];
        const unsigned copied_count = batch.copied_count;
        std::copy_n(batch.copied, copied_count, copied);
        for (unsigned i = 0; i < copied_count; ++i) BufferAccess::adopt(copied[i], nullptr, 0).reset();
        if (!taken) return false;
    }
    return link.outbox->empty();
}

/// Small messages in one piece, as most are, up to the first that is not. The device copies them while they are posted: it needs no key for
/// them, and nothing is kept of them but their sizes.
void RdmaPort::gather_small(RdmaLink& link, SendBatch& batch, unsigned room) noexcept {
    if (!link.is_message || link.fence) return;
    SendQueue& outbox = *link.outbox;
    const std::uint32_t most = std::min(link.inline_bytes, link.peer_block);
    const bool is_raw = link.is_raw;
    std::uint32_t credits = is_raw ? 0 : std::min(link.owed, Note::credit_mask);
    ibv_send_wr* request = &batch.requests[batch.count];
    ibv_sge* place = &batch.slices[batch.slice_count];
    std::uint16_t number = link.next_number;
    const unsigned wanted = std::min(outbox.count(), room - batch.count);
    std::uint32_t sum = 0;
    unsigned n = 0;
    for (; n < wanted; ++n, ++request, ++place) {
        Buffer& front = outbox[0];
        const std::uint32_t bytes = front.size();
        if (bytes == 0 || bytes > most || BufferAccess::flags(front) != BufferAccess::end_of_message) break;
        *place = {reinterpret_cast<std::uintptr_t>(front.data()), bytes, 0};
        request->wr_id = number++;
        request->sg_list = place;
        request->num_sge = 1;
        request->opcode = is_raw ? IBV_WR_SEND : IBV_WR_SEND_WITH_IMM;
        request->send_flags = IBV_SEND_INLINE;
        request->imm_data = is_raw ? 0 : htonl(Note::end_of_message | (n == 0 ? credits : 0));
        batch.copied[batch.copied_count + n] = BufferAccess::detach(front);
        outbox.pop_moved(bytes);
        sum += bytes;
    }
    if (n == 0) return;
    batch.count += n;
    batch.slice_count += n;
    batch.copied_count += n;
    link.owed -= credits;
    link.credits -= is_raw ? 0 : n;
    posted(link, {sum, 0, Sent::payload, std::uint8_t(n)});
}

/// The next SEND of the outbox: slices up to what the peer takes, or to the end of a message. False: no memory to note them.
bool RdmaPort::gather(RdmaLink& link, SendBatch& batch) {
    SendQueue& outbox = *link.outbox;
    if (link.is_raw && !gather_into_one(link)) return false;
    if (!link.with_device.reserve(gather_most)) return false;
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
            link.with_device.push_reserved(whole ? outbox.pop() : front.share(0, take));
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
    request.wr_id = link.next_number;
    request.sg_list = first;
    request.num_sge = pieces;
    request.opcode = link.is_raw ? IBV_WR_SEND : IBV_WR_SEND_WITH_IMM;
    request.imm_data = link.is_raw ? 0 : htonl(note | credits);
    request.send_flags = entry.bytes <= link.inline_bytes ? IBV_SEND_INLINE : 0;
    if ((flags & BufferAccess::has_key) != 0) {
        request.opcode = IBV_WR_SEND_WITH_INV;
        request.invalidate_rkey = std::uint32_t(outbox.keys.front());
        outbox.keys.pop();
    }
    if (std::exchange(link.fence, false)) request.send_flags |= IBV_SEND_FENCE;
    ++batch.count;
    batch.slice_count += unsigned(pieces);
    posted(link, entry);
    return true;
}

void RdmaPort::posted(RdmaLink& link, Request request) noexcept {
    link.next_number = std::uint16_t(link.next_number + request.count);
    link.requests_out += request.count;
    link.rail->requests_out += request.count;
    link.requests.push_reserved(std::move(request));
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

/// The device is through with `count` requests. Within a run, as only a failure is, nobody is told: the run's bytes are its last one's.
void RdmaPort::pass_requests(RdmaLink& link, unsigned count, std::size_t& bytes, Error error) {
    while (count > 0) {
        Request& first = link.requests.front();
        const unsigned passed = std::min<unsigned>(count, first.count);
        count -= passed;
        link.requests_out -= passed;
        link.rail->requests_out -= passed;
        first.count = std::uint8_t(first.count - passed);
        if (first.count > 0) return;
        const Request request = first;
        link.requests.pop();
        bytes += request.bytes;
        for (unsigned i = 0; i < request.slices; ++i) link.with_device.pop();
        if (request.what == Sent::payload) [[likely]]
            continue;
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
