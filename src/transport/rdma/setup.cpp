// Everything of a link's life but the bytes: listening, connecting, greeting, ends, and the news of the control thread.

#include <sys/epoll.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <new>
#include <utility>

#include "base/clock.hpp"
#include "base/option.hpp"
#include "transport/rdma/port.hpp"

namespace evpl::transport::rdma {
namespace {

/// How long who accepted stays after an orderly end, so that the last answer of its device reaches the peer.
constexpr std::int64_t linger_ns = 1'000'000'000;

}  // namespace

// -- links by queue pair ---------------------------------------------------------------------------------------

QueuePairTable::~QueuePairTable() {
    for (Page* page : pages_) delete page;
}

bool QueuePairTable::insert(std::uint32_t number, RdmaLink& link) noexcept {
    Page*& page = pages_[number >> 12 & 0xfff];
    if (page == nullptr) page = new (std::nothrow) Page;
    if (page == nullptr) return false;
    page->links[number & 0xfff] = &link;
    ++page->used;
    return true;
}

void QueuePairTable::remove(std::uint32_t number) noexcept {
    Page*& page = pages_[number >> 12 & 0xfff];
    if (page == nullptr || page->links[number & 0xfff] == nullptr) return;
    page->links[number & 0xfff] = nullptr;
    if (--page->used > 0) return;
    delete page;
    page = nullptr;
}

// -- the port --------------------------------------------------------------------------------------------------

RdmaPort::RdmaPort(Host& of_loop, Sleeper& sleeper, Control& control) noexcept
    : host(of_loop), control_(control), sleeper_(sleeper), mailbox_(of_loop.bell()), block_(of_loop.heap()) {}

// No upcalls. The devices let go of everything before the memory goes.
RdmaPort::~RdmaPort() {
    while (listenings_ != nullptr) drop_listening(*listenings_);
    for (Rail* rail = rails_; rail != nullptr; rail = rail->next) {
        if (!rail->given_up) unwatch(*rail);
    }
    visit_links([&](RdmaLink& link) { drop_exposures(link); });
    control_.close(mailbox_);
    while (Rail* rail = rails_) {
        rails_ = rail->next;
        delete rail;
    }
    while (Chunk* chunk = chunks_) {
        chunks_ = chunk->next;
        delete chunk;
    }
}

RdmaLink* RdmaPort::take_link() noexcept {
    if (free_links_ == nullptr) {
        auto* chunk = new (std::nothrow) Chunk;
        if (chunk == nullptr) return nullptr;
        chunk->next = std::exchange(chunks_, chunk);
        for (RdmaLink& link : chunk->links) {
            link.port = this;
            link.next_free = std::exchange(free_links_, &link);
        }
    }
    RdmaLink* link = free_links_;
    free_links_ = std::exchange(link->next_free, nullptr);
    return link;
}

/// Nothing of the link is left with the device.
void RdmaPort::release(RdmaLink& link) {
    untouch(link);
    drop_exposures(link);
    Rail* const rail = link.rail;
    if (rail != nullptr) {
        rail->requests_out -= link.requests_out;
        rail->own_receives -= link.receives;
        rail->links.remove(link.qp_number);
        --rail->link_count;
    }
    const std::uint32_t generation = link.generation + 1;
    link.~RdmaLink();
    new (&link) RdmaLink;
    link.port = this;
    link.generation = generation;
    link.next_free = std::exchange(free_links_, &link);
    if (rail != nullptr) give_up_if_unused(*rail);
}

/// The loop's side of a device's queues; made when the first queue pair on them comes.
Result<Rail*> RdmaPort::rail_of(Queues& queues) noexcept {
    if (queues.rail != nullptr) return static_cast<Rail*>(queues.rail);
    auto* rail = new (std::nothrow) Rail;
    if (rail == nullptr) return Error(Errc::out_of_memory, Step::open);
    rail->port = this;
    rail->queues = &queues;
    rail->slots = new (std::nothrow) Rail::Slot[queues.receives_most];
    rail->free_slots = new (std::nothrow) std::uint32_t[queues.receives_most];
    Error error;
    if (rail->slots == nullptr || rail->free_slots == nullptr) error = Error(Errc::out_of_memory, Step::open);
    else if (const auto added = sleeper_.add(*rail, queues.channel->fd, EPOLLIN); !added) error = added.error();
    if (!error.ok()) {
        delete rail;
        return error;
    }
    for (std::uint32_t i = queues.receives_most; i-- > 0;) {
        rail->slots[i].request = {receive_bit | i, nullptr, &rail->slots[i].place, 1};
        rail->free_slots[rail->free_count++] = i;
    }
    rail->next = std::exchange(rails_, rail);
    queues.rail = rail;
    return rail;
}

/// The queues, or their device, are of no use. They answer nonsense from now on: neither posted to nor polled.
void RdmaPort::lose_rail(Rail& rail, Error why) noexcept {
    rail.dead = true;
    rail.early_count = 0;
    visit_links([&](RdmaLink& link) {
        if (link.rail == &rail) end_link(link, why);
    });
}

void RdmaPort::unwatch(Rail& rail) noexcept {
    sleeper_.remove(rail, false);
    if (rail.unacknowledged > 0) verbs().ibv_ack_cq_events(rail.queues->cq, std::exchange(rail.unacknowledged, 0));
}

/// The same news, for every loop that has queues on the device, also without a connection.
void RdmaPort::queues_lost(Session& notice) {
    const auto rail = rail_of(*notice.queues);  // a connection may be about to ask for it, and finds it dead
    if (!rail) return;                          // without memory for that the queues stay until the loop ends
    (*rail)->notice = &notice;
    lose_rail(**rail, notice.error);
    give_up_if_unused(**rail);
}

/// Lost queues are destroyed: the next connection gets new ones, and the protection domain of a device that is gone can be used for another.
void RdmaPort::give_up_if_unused(Rail& rail) noexcept {
    if (rail.notice == nullptr || rail.link_count > 0 || std::exchange(rail.given_up, true)) return;
    unwatch(rail);
    control_.ask(*rail.notice, Session::ask_give_up);
}

/// They are: the blocks that their receives had are ours again.
void RdmaPort::given_up(Session& notice) noexcept {
    Rail** at = &rails_;
    while (*at != nullptr && (*at)->notice != &notice) at = &(*at)->next;
    Rail* const rail = *at;
    if (rail == nullptr) return control_.forget(notice);
    *at = rail->next;
    delete rail;
    control_.forget(notice);
}

std::size_t RdmaPort::remote_name(const Link& base, std::span<char> room) const {
    const auto& link = static_cast<const RdmaLink&>(base);
    return link.remote.family == Address::Family::none ? 0 : link.remote.describe(room.data(), room.size());
}

// -- news of the control thread --------------------------------------------------------------------------------

unsigned RdmaPort::hear() {
    unsigned count = 0;
    std::uint32_t tells = 0;
    while (Session* session = mailbox_.next(tells)) {
        hear(*session, tells);
        ++count;
    }
    return count;
}

void RdmaPort::hear(Session& session, std::uint32_t tells) {
    if ((tells & Session::tell_destroyed) != 0) return destroyed(session);
    if ((tells & Session::tell_deaf) != 0) return deaf(session);
    if ((tells & Session::tell_lost) != 0) return queues_lost(session);
    if ((tells & Session::tell_given_up) != 0) return given_up(session);
    if ((tells & Session::tell_request) != 0) requested(session);
    RdmaLink* const link = session.link;
    if (link == nullptr) {  // a peer that waits at a listener
        constexpr auto ends = Session::tell_failed | Session::tell_disconnected | Session::tell_removed | Session::tell_broken;
        if ((tells & ends) == 0) return;
        leave_backlogs(session);  // nobody answers it any more
        return control_.ask(session, Session::ask_finish);
    }
    link->has_heard |= (tells & (Session::tell_established | Session::tell_failed)) != 0;
    if ((tells & Session::tell_removed) != 0) {
        const Error lost(Errc::device_lost, Step::none, Who::system);
        if (link->rail != nullptr) lose_rail(*link->rail, lost);
        end_link(*link, lost);
        return ask_finish(*link);
    }
    if ((tells & Session::tell_broken) != 0) return end_link(*link, session.error);
    if ((tells & Session::tell_prepared) != 0 && link->state == RdmaLink::State::connecting) prepared(*link);
    if ((tells & Session::tell_established) != 0) established(*link);
    if ((tells & Session::tell_failed) != 0) {
        // A peer that leaves before the manager has heard that we are connected appears to refuse.
        const bool was_open = link->state == RdmaLink::State::open;
        if (was_open && link->rail != nullptr) drain_rail(*link->rail);
        end_link(*link, was_open ? Error(Errc::reset, Step::recv, Who::peer) : session.error);
    }
    if ((tells & Session::tell_disconnected) == 0) return;
    if (link->rail != nullptr) drain_rail(*link->rail);  // what the peer sent before it went
    disconnected(*link);
}

void RdmaPort::disconnected(RdmaLink& link) {
    if (link.state == RdmaLink::State::over) return ask_finish(link);
    if (link.is_raw && link.state == RdmaLink::State::open && link.requests_out == 0 && link.outbox->empty() && link.waiting.empty()) {
        deliver_held(link);
        link.ended = true;  // there is no other end: nothing of ours is lost, and all of the peer's is here
        link.sink->ended();
        return end_link(link, Error(Errc::end, Step::recv, Who::peer));
    }
    if (link.end_heard && link.end_acked) touch(link);  // in order; told once all is delivered
    else end_link(link, Error(Errc::reset, Step::recv, Who::peer));
}

/// There is a queue pair: receives first, then the greeting that tells of them.
void RdmaPort::prepared(RdmaLink& link) {
    if (!attach(link, *link.session)) return;
    touch(link);
}

bool RdmaPort::attach(RdmaLink& link, Session& session) noexcept {
    const auto rail = rail_of(*session.queues);
    if (rail && std::max((*rail)->receives_out, (*rail)->set_aside) + (*rail)->own_receives + session.receives > session.queues->receives_most) {
        end_link(link, Error(Errc::out_of_buffers, Step::connect));  // the completion queue would not hold what comes
        return false;
    }
    if (!rail || (*rail)->dead || !(*rail)->links.insert(session.qp->qp_num, link)) {
        end_link(link, !rail ? rail.error() : (*rail)->dead ? Error(Errc::device_lost, Step::connect) : Error(Errc::out_of_memory, Step::connect));
        return false;
    }
    link.rail = *rail;
    ++(*rail)->link_count;
    link.receives = session.receives;
    (*rail)->own_receives += session.receives;
    link.block_bytes = session.options.block_bytes;
    if (link.is_raw) link.credits = link.peer_block = UINT32_MAX;  // nobody counts, and the peer says nothing
    link.qp = session.qp;
    link.qp_number = session.qp->qp_num;
    link.depth = session.depth;
    link.inline_bytes = session.inline_bytes;
    link.window = session.options.window;
    link.silent_after_ns = session.options.silent_after.ns;
    link.local = session.local;
    link.remote = session.remote;
    link.domain = session.queues->device;
    link.own_caps = caps_of(session.options, session.inline_bytes, !link.active);
    link.own_caps.remote_invalidate &= session.queues->device->has_windows();
    link.own_caps.remote_atomics &= session.queues->device->limits.atomic_cap != IBV_ATOMIC_NONE;
    return true;
}

/// Connects or accepts, now that there are receives.
void RdmaPort::greet(RdmaLink& link) noexcept {
    link.greeted = true;
    Session& session = *link.session;
    session.ours.block_bytes = link.rail->queues->block_bytes;
    session.ours.message_bytes = link.is_message ? message_bytes_most : 0;
    session.ours.credits = std::uint16_t(link.granted);
    session.ours.is_message = link.is_message;
    link.owed = 0;
    control_.ask(session, link.active ? Session::ask_connect : Session::ask_accept);
}

/// False: what the peer said fits nothing of ours.
bool RdmaPort::meet(RdmaLink& link, const Session& session) noexcept {
    if (link.is_raw) return true;
    if (!session.has_greeted || session.peer.is_message != link.is_message) return false;
    link.credits += session.peer.credits;  // a note may have come before
    link.peer_block = session.peer.block_bytes;
    return true;
}

void RdmaPort::established(RdmaLink& link) {
    if (link.state == RdmaLink::State::answering) return open_link(link);
    if (link.state != RdmaLink::State::connecting) return;
    if (!meet(link, *link.session)) return end_link(link, Error(Errc::protocol_error, Step::connect, Who::peer));
    open_link(link);
}

void RdmaPort::open_link(RdmaLink& link) {
    link.state = RdmaLink::State::open;
    link.own_caps.remote_reads_max = link.session->reads_granted;
    if (!link.held.empty()) touch(link);  // it came before the news that it may
    link.heard_ns = host.now_ns();
    if (link.silent_after_ns > 0) tick_by(host.now_ns() + link.silent_after_ns);
    link.sink->opened();
}

void RdmaPort::destroyed(Session& session) {
    RdmaLink* const link = session.link;
    if (link != nullptr) {
        if (link->rail != nullptr && !link->rail->dead) drain_rail(*link->rail);
        link->finish_asked = true;  // and done
        if (link->state != RdmaLink::State::over) end_link(*link, session.error.ok() ? Error(Errc::reset, Step::connect) : session.error);
        tell_end(*link);  // whoever hears of it may still ask what the peer has said
        link->session = nullptr;
        link->with_device.clear();
        link->sink->retired();
        release(*link);
    } else {
        leave_backlogs(session);
    }
    control_.forget(session);
}

void RdmaPort::leave_backlogs(Session& session) noexcept {
    for (RdmaListening* each = listenings_; each != nullptr; each = each->next) {
        for (std::uint32_t left = each->backlog.size(); left > 0; --left) {
            Session* waiting = each->backlog.front();
            each->backlog.pop();
            if (waiting != &session) (void)each->backlog.push(std::move(waiting));  // into the room it left
        }
    }
}

// -- listening -------------------------------------------------------------------------------------------------

Result<Listening*> RdmaPort::listen(const Endpoint& at, bool shared, Acceptor& acceptor, Diagnostic& why) {
    const auto options = Options::read(at, why);
    if (!options) return options.error();
    auto where = socket::literal_address(at, why);
    if (!where) return where.error();
    where->port = at.port();
    auto* listening = new (std::nothrow) RdmaListening;
    if (listening == nullptr) return Error(Errc::out_of_memory, Step::listen);
    listening->port = this;
    listening->owner = this;
    listening->acceptor = &acceptor;
    const auto bound = control_.listen(mailbox_, socket::to_kernel(*where), *options, shared, listening->number);
    if (!bound) {
        delete listening;
        char text[128];
        bound.error().describe(text, sizeof text);
        if (bound.error() == Errc::address_unavailable) {
            return base::refuse(why, Errc::address_unavailable,
                                "rdma://%.*s:%u: no RDMA device has this address; `rdma link` and `ip address` show which there are", EVPL_SHOWN(at.host()),
                                unsigned(at.port()));
        }
        base::refuse(why, bound.error().code(), "rdma://%.*s:%u: %s", EVPL_SHOWN(at.host()), unsigned(at.port()), text);
        return bound.error();
    }
    listening->bound_port = *bound;
    where->port = *bound;
    char text[64];
    where->describe(text, sizeof text);
    if (at.host() == "*") std::snprintf(text, sizeof text, "*:%u", unsigned(*bound));
    const char* const query = options->is_raw ? "?wire=raw" : options->is_message ? "?mode=msg" : "";
    std::snprintf(listening->url_text, sizeof listening->url_text, "rdma://%s%s", text, query);
    listening->next = std::exchange(listenings_, listening);
    return listening;
}

void RdmaListening::close() noexcept { owner->drop_listening(*this); }

void RdmaListening::resume() noexcept {
    paused = false;
    owner->look_at_backlogs();
}

void RdmaPort::look_at_backlogs() noexcept {
    backlogs_ = true;
    host.poll_again();
}

void RdmaPort::drop_listening(RdmaListening& listening) noexcept {
    control_.close_listening(listening.number);
    for (; !listening.backlog.empty(); listening.backlog.pop()) reject(*listening.backlog.front(), Refusal::closed);
    RdmaListening** at = &listenings_;
    while (*at != &listening) at = &(*at)->next;
    *at = listening.next;
    delete &listening;
}

RdmaListening* RdmaPort::find_listening(std::uint64_t number) noexcept {
    RdmaListening* each = listenings_;
    while (each != nullptr && each->number != number) each = each->next;
    return each;
}

void RdmaPort::reject(Session& session, Refusal why) noexcept {
    session.refusal = why;
    control_.ask(session, Session::ask_reject);
}

void RdmaPort::requested(Session& session) {
    RdmaListening* listening = find_listening(session.listening);
    if (listening == nullptr) return reject(session, Refusal::closed);
    if (!listening->paused && listening->backlog.empty()) return answer(*listening, session);
    Session* waiting = &session;
    if (listening->backlog.size() >= backlog_most || !listening->backlog.push(std::move(waiting))) reject(session, Refusal::busy);
}

/// The device that a listener was at is gone.
void RdmaPort::deaf(Session& notice) {
    if (RdmaListening* each = find_listening(notice.listening)) each->acceptor->failed(Error(Errc::device_lost, Step::listen, Who::system));
    control_.forget(notice);
}

void RdmaPort::serve_backlogs() {
    backlogs_ = false;
    for (RdmaListening *each = listenings_, *next; each != nullptr; each = next) {
        next = each->next;
        while (!each->paused && !each->backlog.empty()) {
            Session& session = *each->backlog.front();
            each->backlog.pop();
            answer(*each, session);
        }
    }
}

void RdmaPort::answer(RdmaListening& listening, Session& session) {
    RdmaLink* link = take_link();
    if (link == nullptr) return reject(session, Refusal::busy);
    link->state = RdmaLink::State::answering;
    link->is_message = session.options.is_message;
    link->is_raw = link->awaits_accept = link->has_heard = session.options.is_raw;
    link->session = &session;
    link->own_caps = caps_of(session.options, session.inline_bytes, true);
    link->caps = &link->own_caps;
    link->local = session.local;
    link->remote = session.remote;
    if (!listening.acceptor->accepted(*link)) {
        link->session = nullptr;
        release(*link);
        return reject(session, Refusal::closed);
    }
    session.link = link;
    if (link->awaits_accept) return;
    if (!meet(*link, session)) return end_link(*link, Error(Errc::protocol_error, Step::accept, Who::peer));
    if (attach(*link, session)) touch(*link);
}

/// The user has seen who it is.
void RdmaPort::admit(Link& base) {
    auto& link = static_cast<RdmaLink&>(base);
    if (link.state != RdmaLink::State::answering || std::exchange(link.accepted, true)) return;
    if (attach(link, *link.session)) touch(link);
    host.poll_again();
}

void RdmaPort::set_private_data(Link& base, std::span<const std::byte> data) {
    auto& link = static_cast<RdmaLink&>(base);
    if (link.session == nullptr || link.greeted || data.size() > sizeof link.session->said) return;
    std::memcpy(link.session->said, data.data(), data.size());  // read once there is something to be asked with it
    link.session->said_bytes = std::uint8_t(data.size());
}

std::span<const std::byte> RdmaPort::private_data(const Link& base) const {
    const auto& link = static_cast<const RdmaLink&>(base);
    if (link.session == nullptr || !link.has_heard || !link.session->has_heard) return {};
    return std::span(link.session->heard).first(link.session->heard_bytes);
}

// -- connecting ------------------------------------------------------------------------------------------------

Result<Link*> RdmaPort::connect(const Endpoint& to, const Address& address, Sink& sink, SendQueue& outbox, Diagnostic& why) {
    const auto options = Options::read(to, why);
    if (!options) return options.error();
    RdmaLink* link = take_link();
    Session* session = link != nullptr ? control_.make(mailbox_) : nullptr;
    if (session == nullptr) {
        if (link != nullptr) release(*link);
        return Error(Errc::out_of_memory, Step::connect);
    }
    link->state = RdmaLink::State::connecting;
    link->active = true;
    link->is_message = options->is_message;
    link->is_raw = options->is_raw;
    link->sink = &sink;
    link->outbox = &outbox;
    link->own_caps = caps_of(*options, options->inline_bytes);
    link->caps = &link->own_caps;
    link->remote = address;
    link->session = session;
    session->link = link;
    session->options = *options;
    session->target = socket::to_kernel(address);
    control_.ask(*session, Session::ask_resolve);
    return link;
}

// -- ends ------------------------------------------------------------------------------------------------------

void RdmaPort::close(Link& base, How how) {
    auto& link = static_cast<RdmaLink&>(base);
    if (link.state == RdmaLink::State::over || link.state == RdmaLink::State::free) return;
    if (how == How::abort) return end_link(link, Error(Errc::closed, Step::close, Who::local));
    link.draining = true;
    link.finishing |= how == How::finish;
    if (link.state == RdmaLink::State::open) touch(link);
    host.poll_again();
}

void RdmaPort::end_if_done(RdmaLink& link) {
    if (!link.end_acked || (!link.ended && !link.finishing)) return;
    link.lingering = !link.active;
    end_link(link, Error(Errc::end, Step::close, Who::local));
}

/// What is left is told by the next poll.
void RdmaPort::end_link(RdmaLink& link, Error error) noexcept {
    if (link.state == RdmaLink::State::over || link.state == RdmaLink::State::free) return;
    link.state = RdmaLink::State::over;
    link.error = error;
    link.starving = false;
    link.held.clear();
    if (link.rail != nullptr) {
        link.rail->promised -= link.granted;
        set_aside(link, 0);
    }
    link.granted = link.owed = 0;
    touch(link);
    host.poll_again();
    if (!link.lingering) return ask_finish(link);
    link.linger_until_ns = host.now_ns() + linger_ns;
    tick_by(link.linger_until_ns);
}

void RdmaPort::ask_finish(RdmaLink& link) noexcept {
    if (link.session == nullptr || std::exchange(link.finish_asked, true)) return;
    const bool unanswered = link.awaits_accept && !link.greeted;
    control_.ask(*link.session, unanswered ? Session::ask_reject : Session::ask_finish);
}

void RdmaPort::tell_end(RdmaLink& link) {
    if (std::exchange(link.closed_told, true)) return;
    drop_operations(link);
    link.sink->closed(link.error);
}

// -- what time brings ------------------------------------------------------------------------------------------

void RdmaPort::tick_by(std::int64_t at_ns) noexcept {
    if (at_ns >= tick_ns_) return;
    tick_ns_ = at_ns;
    host.set_alarm(*this, at_ns);
}

/// Links without receive memory ask again, those that linger leave, those without a sign of life are probed.
void RdmaPort::alarm() {
    tick_ns_ = INT64_MAX;
    const std::int64_t now = host.now_ns();
    visit_links([&](RdmaLink& link) {
        if (link.state == RdmaLink::State::over) {
            if (!link.lingering || link.finish_asked) return;
            if (now >= link.linger_until_ns) ask_finish(link);
            else tick_by(link.linger_until_ns);
            return;
        }
        if (link.starving || (!link.waiting.empty() && !link.awaits_credit())) {
            touch(link);
            host.poll_again();
            tick_by(now + retry_ns);
        }
        if (link.state != RdmaLink::State::open || link.silent_after_ns == 0) return;
        if (std::exchange(link.traffic, false)) link.heard_ns = now;
        else if (now - link.heard_ns >= link.silent_after_ns && link.requests_out == 0) probe(link);
        tick_by(now + link.silent_after_ns);
    });
}

}  // namespace evpl::transport::rdma
