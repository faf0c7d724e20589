// What a link owes its peer and its sink: openings, ends, credit, and waiting for room in a ring.

#include <utility>

#include "transport/inproc/port.hpp"

namespace evpl::transport::inproc {

// -- to the peer -----------------------------------------------------------------------------------------------

template <class Body>
bool InprocPort::say(End& end, What what, InprocLink* to, std::uint32_t generation, const Body& body) noexcept {
    if (!end.out->has_room(1)) return false;
    end.out->write(what, to, generation, body);
    touch(end);
    return true;
}
template bool InprocPort::say(End&, What, InprocLink*, std::uint32_t, const ReplyBody&) noexcept;
template bool InprocPort::say(End&, What, InprocLink*, std::uint32_t, const RequestBody&) noexcept;
template bool InprocPort::say(End&, What, InprocLink*, std::uint32_t, const NoBody&) noexcept;

void InprocPort::touch(End& end) noexcept {
    if (end.touched || end.peer_bell == nullptr) return;
    end.touched = true;
    end.next_touched = std::exchange(touched_, &end);
}

/// One fence for each loop that was sent something, and a system call for those that sleep.
void InprocPort::ring_bells() noexcept {
    while (End* end = touched_) {
        touched_ = end->next_touched;
        end->touched = false;
        end->peer_bell->ring();
    }
}

bool InprocPort::say_one(InprocLink& link, std::uint8_t what) noexcept {
    End& end = *link.end;
    switch (what) {
    case InprocLink::say_connect: return say(end, What::connect, nullptr, 0, ConnectBody{&link, link.listening, link.generation, link.serial});
    case InprocLink::say_accept: return say(end, What::accept, link.peer, link.peer_generation, AcceptBody{&link, link.generation});
    case InprocLink::say_refuse: return say(end, What::refuse, link.peer, link.peer_generation, NoBody{});
    case InprocLink::say_credit:
        if (!say(end, What::credit, link.peer, link.peer_generation, CreditBody{link.taken + window_charge})) return false;
        link.granted = link.taken + window_charge;
        return true;
    case InprocLink::say_end: return say(end, What::end, link.peer, link.peer_generation, NoBody{});
    case InprocLink::say_finish: return say(end, What::finish, link.peer, link.peer_generation, NoBody{});
    default: return say(end, What::reset, link.peer, link.peer_generation, NoBody{});
    }
}

/// Says all that the link has to say. False: the ring is full, and the link waits for room.
bool InprocPort::speak(InprocLink& link) noexcept {
    if (link.end == nullptr) link.says = 0;
    while (link.says != 0) {
        const auto what = std::uint8_t(link.says & -link.says);
        if (!say_replies(*link.end) || !say_one(link, what)) {
            wait_for_room(link, true);
            return false;
        }
        link.says &= std::uint8_t(~what);
    }
    return true;
}

void InprocPort::wait_for_room(InprocLink& link, bool ring_is_full) noexcept {
    End& end = *link.end;
    if (ring_is_full) {
        end.full = true;
        if (end.out->ask_notice()) touch(end);
    }
    if (std::exchange(link.stuck, true)) return;
    link.next_stuck = nullptr;
    if (end.stuck_first == nullptr) end.stuck_first = &link;
    else end.stuck_last->next_stuck = &link;
    end.stuck_last = &link;
}

/// There may be room again: everybody who waited has a try, in order.
void InprocPort::unstick(End& end) {
    if (end.full && !end.out->may_go_on()) return;
    if (std::exchange(end.full, false)) end.retry = true;
    if (!std::exchange(end.retry, false)) return;
    if (!say_replies(end)) {
        end.full = true;
        if (end.out->ask_notice()) touch(end);
        return;
    }
    InprocLink* list = std::exchange(end.stuck_first, nullptr);
    while (list != nullptr) {
        InprocLink& link = *list;
        list = link.next_stuck;
        link.stuck = false;
        if (!speak(link)) continue;
        if (link.state == InprocLink::State::over) {
            owe(link);
        } else if (post_operations(link) && std::exchange(link.blocked, false)) {
            link.sink->writable();
        }
    }
}

// -- to the sink -----------------------------------------------------------------------------------------------

void InprocPort::owe(InprocLink& link) noexcept {
    if (!in_poll_) host.poll_again();
    if (std::exchange(link.owed, true)) return;
    link.next_owed = nullptr;
    if (owed_first_ == nullptr) owed_first_ = &link;
    else owed_last_->next_owed = &link;
    owed_last_ = &link;
}

void InprocPort::settle_owed() {
    InprocLink* list = std::exchange(owed_first_, nullptr);
    while (list != nullptr) {
        InprocLink& link = *list;
        list = link.next_owed;
        link.owed = false;
        settle(link);
    }
    if (owed_first_ != nullptr) host.poll_again();
}

void InprocPort::settle(InprocLink& link) {
    if (link.state == InprocLink::State::open) {
        deliver_held(link);
        if (link.draining || link.finishing) {
            std::size_t sent = 0;
            if (link.hindered) look_closer(link, sent);
            else push_all(link, sent);
            if (sent > 0) link.sink->sent(sent);
        }
    }
    if (link.state != InprocLink::State::over) return;
    if (!link.closed_told) {
        complete_all(link);
        while (link.exposures != nullptr) drop_exposure(*link.exposures);
        link.held.clear();
        link.closed_told = true;
        if (link.sink != nullptr) link.sink->closed(link.error);
    }
    // It stays until it has said its last, and until the answer to its connect has come.
    if (link.says != 0 || link.awaits_answer || link.stuck || link.owed) return;
    if (link.sink != nullptr) link.sink->retired();
    release(link);
}

// -- from the peer ---------------------------------------------------------------------------------------------

/// All entries but bytes.
void InprocPort::hear(End& end, Mark mark) {
    Ring& in = *end.in;
    InprocLink* const link = in.link();
    const bool meant = link != nullptr && link->generation == mark.generation() && link->state == InprocLink::State::open;
    switch (mark.what()) {
    case What::credit: {
        const std::uint64_t limit = in.body<CreditBody>().limit;
        in.pass(1);
        if (!meant) return;
        link->limit = limit;
        if (!link->stuck && std::exchange(link->blocked, false)) link->sink->writable();
        return;
    }
    case What::request: {
        const auto body = in.body<RequestBody>();
        in.pass(1);
        return serve(end, link, mark, body);
    }
    case What::reply: {
        const auto body = in.body<ReplyBody>();
        in.pass(1);
        return replied(end, body);
    }
    case What::connect: {
        const auto body = in.body<ConnectBody>();
        in.pass(1);
        return called(end, body);
    }
    case What::accept:
    case What::refuse: {
        const auto body = mark.what() == What::accept ? in.body<AcceptBody>() : AcceptBody{nullptr, 0};
        in.pass(1);
        return accepted(link, mark.generation(), body);
    }
    default: break;
    }
    in.pass(1);
    switch (mark.what()) {
    case What::end:
    case What::finish:
        if (meant) hear_end(*link, mark.what() == What::finish);
        return;
    case What::reset:
        if (!meant) return;
        link->peer_lets_go = true;
        return end_link(*link, Error(Errc::reset, Step::recv, Who::peer), false);
    case What::notice: in.free_passed(); return touch(end);
    default:  // goodbye
        return lost(end);
    }
}

void InprocPort::hear_end(InprocLink& link, bool finished) {
    link.end_heard = true;
    if (finished) {
        link.peer_finished = true;
        link.hindered = true;
        if (!link.stuck && std::exchange(link.blocked, false)) link.sink->writable();
    }
    if (link.held.count() == 0) tell_ended(link);
}

void InprocPort::tell_ended(InprocLink& link) {
    if (link.state != InprocLink::State::open || std::exchange(link.ended, true)) return;
    link.sink->ended();
    if (link.end_said) end_link(link, Error(Errc::end, Step::close, Who::peer), false);
}

// -- the end ---------------------------------------------------------------------------------------------------

/// Flushing a link that is not simply open.
Flushed InprocPort::look_closer(InprocLink& link, std::size_t& sent) {
    if (link.state == InprocLink::State::open) {
        if (link.peer_finished) {
            if (link.outbox->count() == 0) {
                end_if_done(link);
                return Flushed::all;
            }
            end_link(link, Error(Errc::reset, Step::send, Who::peer), false);
        } else if (speak(link) && post_operations(link)) {  // the accept comes first, and operations before bytes sent later
            return push_all(link, sent);
        }
    }
    link.blocked = true;
    return Flushed::blocked;
}

/// A draining link that has nothing left ends its direction.
void InprocPort::end_if_done(InprocLink& link) {
    if (link.state != InprocLink::State::open || !(link.draining || link.finishing)) return;
    if (link.outbox->count() > 0 || !link.waiting.empty()) return;
    if (link.finishing) {
        if (link.operations_out > 0) return;
        if (!link.peer_finished) link.says |= InprocLink::say_finish;
        end_link(link, Error(Errc::end, Step::close, Who::local), false);
    } else if (!std::exchange(link.end_said, true)) {
        if (!link.peer_finished) link.says |= InprocLink::say_end;
        if (link.ended) end_link(link, Error(Errc::end, Step::close, Who::local), false);
    }
    speak(link);
}

/// The link is over; its sink hears so in the next poll.
void InprocPort::end_link(InprocLink& link, Error error, bool tell_peer) noexcept {
    if (link.state == InprocLink::State::over) return;
    if (link.state == InprocLink::State::connecting) {
        if ((link.says & InprocLink::say_connect) == 0 && tell_peer) link.awaits_answer = true;
        link.says = 0;
    } else if (tell_peer) {
        // Whoever has not even heard of the accept is simply refused.
        link.says = (link.says & InprocLink::say_accept) != 0 ? InprocLink::say_refuse : InprocLink::say_reset;
    }
    if (link.peer_finished || link.peer_lets_go) link.says = 0;
    link.state = InprocLink::State::over;
    link.hindered = true;
    link.error = error;
    speak(link);
    owe(link);
}

// -- a port at the other end that is gone -----------------------------------------------------------------------

void InprocPort::lost(End& end) {
    end.gone = true;
    some_gone_ = true;
}

void InprocPort::forget_lost_ends() {
    some_gone_ = false;
    ring_bells();
    End* before = last_polled_;
    for (unsigned n = end_count_; n > 0; --n) {
        End& end = *before->next;
        if (!end.gone) {
            before = &end;
            continue;
        }
        for (InprocLink* link = end.stuck_first; link != nullptr; link = link->next_stuck) link->stuck = false;
        end.stuck_first = nullptr;
        end.replies_count = 0;
        visit_links([&](InprocLink& link) {
            if (link.end == &end && link.state != InprocLink::State::free) lose_peer(link);
        });
        for (InprocListening* each = listenings_; each != nullptr; each = each->next) each->forget(end);
        park_operations(end);
        before->next = end.next;
        --end_count_;
        if (last_polled_ == &end) last_polled_ = end_count_ > 0 ? before : nullptr;
        Registry::instance().detach(end);
    }
}

void InprocPort::lose_peer(InprocLink& link) {
    using State = InprocLink::State;
    constexpr Error reset{Errc::reset, Step::recv, Who::peer};
    const bool told = link.closed_told;
    const bool in_order = link.state == State::open && link.peer_finished && link.operations_out == 0 && link.waiting.empty();
    link.peer_lets_go = true;
    link.awaits_answer = false;
    link.says = 0;
    if (link.state == State::open && !in_order) link.error = reset;
    if (!told && !in_order) complete_all(link);
    link.end = nullptr;
    if (in_order) return;  // it had said all it had to say: our side ends in its own time
    if (link.state == State::connecting) end_link(link, Error(Errc::refused, Step::connect, Who::peer), false);
    else if (link.state == State::open) end_link(link, reset, false);
    else owe(link);
}

}  // namespace evpl::transport::inproc
