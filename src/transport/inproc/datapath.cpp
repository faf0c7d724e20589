// Bytes: from the rings to the sinks, from the outboxes to the rings. Everything rare is in link.cpp.

#include <algorithm>

#include "transport/inproc/port.hpp"

namespace evpl::transport::inproc {
namespace {

constexpr Arrival part{};
constexpr Arrival whole{.end_of_message = true};

}  // namespace

// -- receive ---------------------------------------------------------------------------------------------------

unsigned InprocPort::poll(unsigned budget) {
    if (new_ends_.load(std::memory_order_relaxed) != nullptr) [[unlikely]]
        take_new_ends();
    in_poll_ = true;
    bytes_left_ = batch_bytes_;
    unsigned done = 0;
    for (unsigned n = end_count_; n > 0 && done < budget && bytes_left_ > 0; --n) {
        End& end = *(last_polled_ = last_polled_->next);
        if (end.in->peek()) done += receive(end, budget - done);
        if (end.waits()) [[unlikely]]
            unstick(end);
    }
    if (some_gone_) [[unlikely]]
        forget_lost_ends();
    if (backlogs_) [[unlikely]]
        serve_backlogs();
    if (owed_first_ != nullptr) [[unlikely]]
        settle_owed();
    if (touched_ != nullptr) ring_bells();
    in_poll_ = false;
    return done;
}

/// One end's entries. The room they took is given back in quarters, so that the peer goes on while we work.
unsigned InprocPort::receive(End& end, unsigned budget) {
    Ring& in = *end.in;
    unsigned done = 0;
    while (done < budget && bytes_left_ > 0) {
        const Mark mark = in.peek();
        if (!mark) break;
        receive_one(end, mark);
        ++done;
        if (in.passed() >= Ring::units / 4) in.free_passed();
    }
    in.free_passed();
    return done;
}

void InprocPort::receive_one(End& end, Mark mark) {
    switch (mark.what()) {
    case What::bytes: return receive_bytes(*end.in, mark, false);
    case What::last_bytes: return receive_bytes(*end.in, mark, true);
    case What::block: return receive_block(end, mark, false);
    case What::last_block: return receive_block(end, mark, true);
    default: return hear(end, mark);
    }
}

void InprocPort::receive_bytes(Ring& in, Mark mark, bool last) {
    InprocLink& link = *in.link();
    const std::uint32_t size = mark.size();
    if (link.generation != mark.generation() || link.state != InprocLink::State::open) [[unlikely]] {
        return in.pass(Ring::units_for(size));  // a late one, for a link that is over
    }
    Buffer slice;
    if (size > 0) {
        const std::span<std::byte> room = block_.room(Ring::inline_bytes_most);
        if (room.empty()) [[unlikely]] {
            in.pass(Ring::units_for(size));
            return end_link(link, Error(Errc::out_of_buffers, Step::recv, Who::local), true);
        }
        in.copy_out(room.data(), size);
        slice = block_.cut(size);
    }
    in.pass(Ring::units_for(size));
    deliver(link, std::move(slice), last);
}

void InprocPort::receive_block(End& end, Mark mark, bool last) {
    Ring& in = *end.in;
    InprocLink& link = *in.link();
    const BlockBody body = in.body<BlockBody>();
    in.pass(1);
    if (link.generation != mark.generation() || link.state != InprocLink::State::open) [[unlikely]]
        return Pipe::drop(body);
    deliver(link, BufferAccess::adopt(body.block, body.data, body.size), last);
}

inline void InprocPort::count_taken(InprocLink& link, std::uint32_t size) {
    bytes_left_ -= std::min(bytes_left_, size);
    link.taken += size + entry_charge;
    if (link.taken + window_charge - link.granted < window_charge / 4) [[likely]]
        return;
    link.says |= InprocLink::say_credit;
    speak(link);
}

void InprocPort::deliver(InprocLink& link, Buffer&& bytes, bool last) {
    if (link.receive_paused || link.held.count() > 0) [[unlikely]]
        return hold(link, std::move(bytes), last);
    const std::uint32_t size = bytes.size();
    BufferAccess::set_flags(bytes, last ? BufferAccess::end_of_message : 0);
    link.sink->delivered(std::move(bytes), last ? whole : part);
    count_taken(link, size);
}

/// Told in order with what the peer sent.
void InprocPort::deliver_word(InprocLink& link, std::uint32_t word) {
    Buffer mark;
    BufferAccess::set_flags(mark, is_word);
    if (!link.held_words.push(std::move(word)) || !link.held.push(std::move(mark))) {
        return end_link(link, Error(Errc::out_of_memory, Step::recv, Who::local), true);
    }
    deliver_held(link);
}

/// The peer may send up to the window, and what it sends to a paused link waits here.
void InprocPort::hold(InprocLink& link, Buffer&& bytes, bool last) {
    BufferAccess::set_flags(bytes, last ? BufferAccess::end_of_message : 0);
    if (!link.held.push(std::move(bytes))) end_link(link, Error(Errc::out_of_memory, Step::recv, Who::local), true);
}

void InprocPort::deliver_held(InprocLink& link) {
    while (link.held.count() > 0 && !link.receive_paused && link.state == InprocLink::State::open) {
        if (bytes_left_ == 0) return owe(link);  // the rest in the next batch
        Buffer bytes = link.held.pop();
        const std::uint32_t size = bytes.size();
        if ((BufferAccess::flags(bytes) & is_word) != 0) {
            link.sink->delivered({}, {.immediate = link.held_words.front(), .has_immediate = true});
            link.held_words.pop();
        } else {
            const bool last = (BufferAccess::flags(bytes) & BufferAccess::end_of_message) != 0;
            link.sink->delivered(std::move(bytes), last ? whole : part);
        }
        count_taken(link, size);
    }
    if (link.held.count() > 0) return;
    link.held.shrink();
    if (link.end_heard) tell_ended(link);
}

void InprocPort::resume(Link& base) {
    auto& link = static_cast<InprocLink&>(base);
    link.receive_paused = false;
    if (link.held.count() > 0) owe(link);
}

// -- send ------------------------------------------------------------------------------------------------------

Flushed InprocPort::flush(Link& base) {
    auto& link = static_cast<InprocLink&>(base);
    std::size_t sent = 0;
    const Flushed result = link.hindered ? look_closer(link, sent) : push_all(link, sent);
    if (touched_ != nullptr) ring_bells();
    if (sent > 0) link.sink->sent(sent);
    return result;
}

Flushed InprocPort::push_all(InprocLink& link, std::size_t& sent) {
    SendQueue& outbox = *link.outbox;
    Pushed pushed = Pushed::yes;
    while (outbox.count() > 0 && pushed == Pushed::yes && link.state == InprocLink::State::open) {
        pushed = outbox[0].size() <= Ring::inline_bytes_most ? push_copy(link, sent) : push_reference(link, sent);
    }
    if (pushed == Pushed::yes) [[likely]] {
        if (link.draining || link.finishing) [[unlikely]]
            end_if_done(link);
        return link.state == InprocLink::State::open || outbox.count() == 0 ? Flushed::all : Flushed::blocked;
    }
    link.blocked = true;
    if (pushed == Pushed::ring_is_full) wait_for_room(link, true);
    return Flushed::blocked;
}

/// Small slices, as many as fit into one entry and belong to one message.
InprocPort::Pushed InprocPort::push_copy(InprocLink& link, std::size_t& sent) {
    if (link.limit - link.charged < Ring::inline_bytes_most + entry_charge) [[unlikely]]
        return Pushed::window_is_full;
    Ring& ring = *link.end->out;
    if (!ring.has_room(Ring::entry_units_most)) [[unlikely]]
        return Pushed::ring_is_full;
    SendQueue& outbox = *link.outbox;
    std::uint32_t filled = 0;
    bool last = false;
    do {
        const Buffer& slice = outbox[0];
        const std::uint32_t size = slice.size();
        if (filled + size > Ring::inline_bytes_most) break;
        ring.put(filled, slice.data(), size);
        filled += size;
        last = (BufferAccess::flags(slice) & BufferAccess::end_of_message) != 0;
        outbox.pop();
    } while (!last && outbox.count() > 0);
    sent += filled;
    last &= link.is_message;
    if (filled == 0 && !last) return Pushed::yes;
    if (link.is_message && !fits_message(link, filled, last)) return Pushed::yes;
    link.charged += filled + entry_charge;
    ring.publish(last ? What::last_bytes : What::bytes, filled, link.peer, link.peer_generation);
    touch(*link.end);
    return Pushed::yes;
}

/// A large slice, or as much of it as the window has room for: its reference travels, the bytes stay.
InprocPort::Pushed InprocPort::push_reference(InprocLink& link, std::size_t& sent) {
    SendQueue& outbox = *link.outbox;
    const std::uint32_t size = outbox[0].size();
    std::uint32_t n = std::min(size, block_bytes_most);
    const std::uint64_t left = link.limit - link.charged;
    if (left < std::min(n, block_bytes_least) + entry_charge) return Pushed::window_is_full;
    n = std::uint32_t(std::min<std::uint64_t>(n, left - entry_charge));
    Ring& ring = *link.end->out;
    if (!ring.has_room(Ring::entry_units_most)) return Pushed::ring_is_full;
    const bool all = n == size;
    const bool last = all && link.is_message && (BufferAccess::flags(outbox[0]) & BufferAccess::end_of_message) != 0;
    Buffer taken;
    if (!all) taken = outbox[0].share(0, n);
    const Buffer& travels = all ? outbox[0] : taken;
    std::byte* const data = travels.data();
    detail::Block* const carrier = carrier_of(travels, link.end->peer_bell == nullptr);
    if (carrier == nullptr) [[unlikely]] {  // no memory for a proxy: a small part goes as a copy, which needs none
        n = Ring::inline_bytes_most;
        ring.put(0, data, n);
        taken.reset();
        outbox.drop_front(n);
    } else {
        if (all) taken = outbox.pop();
        else outbox.drop_front(n);
        BufferAccess::detach(taken);
    }
    sent += n;
    if (link.is_message && !fits_message(link, n, last)) {
        if (carrier != nullptr) Pipe::drop({carrier, data, n});
        return Pushed::yes;
    }
    link.charged += n + entry_charge;
    if (carrier == nullptr) [[unlikely]]
        ring.publish(What::bytes, n, link.peer, link.peer_generation);
    else ring.write(last ? What::last_block : What::block, link.peer, link.peer_generation, BlockBody{carrier, data, n});
    touch(*link.end);
    return Pushed::yes;
}

/// What carries the slice's reference: the block itself within a loop, a proxy between loops (as in Buffer::pack). Null: no memory.
detail::Block* InprocPort::carrier_of(const Buffer& slice, bool same_loop) noexcept {
    detail::Block* block = BufferAccess::block(slice);
    if (same_loop || block == nullptr || (block->kind == memory::proxy && block->refs == 1)) return block;
    memory::Heap* heap = &host.heap();  // counts the references of what came from elsewhere
    if (block->kind == memory::slab_block) heap = static_cast<memory::Slab*>(block->owner)->heap;
    else if (block->kind == memory::wrapper) heap = static_cast<memory::Descriptor*>(block)->home;
    return heap->make_proxy(block);
}

/// False: the message has become too long, and the link is over.
bool InprocPort::fits_message(InprocLink& link, std::uint32_t size, bool last) {
    link.message_bytes += size;
    if (link.message_bytes > message_bytes_most) [[unlikely]] {
        end_link(link, Error(Errc::too_large, Step::send, Who::local), true);
        return false;
    }
    if (last) link.message_bytes = 0;
    return true;
}

// -- sleep -----------------------------------------------------------------------------------------------------

Armed InprocPort::arm() {
    Armed armed;
    armed.work_waiting = new_ends_.load(std::memory_order_acquire) != nullptr || owed_first_ != nullptr || backlogs_;
    End* end = last_polled_;
    for (unsigned n = end_count_; n > 0; --n) {
        end = end->next;
        armed.work_waiting |= bool(end->in->peek()) || (end->waits() && (end->retry || end->out->may_go_on()));
    }
    return armed;
}

}  // namespace evpl::transport::inproc
