// The data path of a simulated port: completions in, outboxes out.

#include <algorithm>

#include "evpl/check.hpp"
#include "transport/sim/world.hpp"

namespace evpl::transport::sim {
namespace {

constexpr std::size_t piece_bytes_most = 64u << 10;
constexpr std::uint32_t pieces_out_most = 1024;  // bounds the empty messages of a link
constexpr unsigned memory_tries_most = 8;        // 1 ms apart; then the link ends with out_of_buffers
constexpr std::int64_t memory_retry_ns = 1'000'000;

}  // namespace

// -- completions -----------------------------------------------------------------------------------------------

void SimPort::post(Done::What what, const SimLink& link, Error error) {
    completions.push_back({what, link.name, 0, error});
    if (armed_ && !world.options.poll_only) host.bell().ring();
}

void SimPort::post_incoming(SimListening& listening) {
    if (listening.posted || listening.paused || listening.waiting || listening.backlog.empty()) return;
    listening.posted = true;
    completions.push_back({Done::What::incoming, {id, 0, 0}, listening.id, {}});
    if (armed_ && !world.options.poll_only) host.bell().ring();
}

void SimPort::post_received(SimLink& link) {
    if (link.receive_posted || link.over || link.state != SimLink::State::open) return;
    if (link.receive_paused && !link.cut_pending) return;
    const bool end_is_next = !link.ended && link.pieces_received == link.pieces_at_end;
    if (link.inbound.empty() && !end_is_next && !link.cut_pending) return;
    link.receive_posted = true;
    post(Done::What::received, link);
}

void SimPort::post_sent(SimLink& link) {
    if (std::exchange(link.sent_posted, true)) return;
    post(Done::What::sent, link);
}

void SimPort::post_writable(SimLink& link) {
    if (!link.blocked || link.clogged || link.over || link.state != SimLink::State::open) return;
    link.blocked = false;
    post(Done::What::writable, link);
}

unsigned SimPort::poll(unsigned budget) {
    world.run_until(world.now);
    unsigned count = unsigned(std::min<std::size_t>(budget, completions.size()));
    for (unsigned i = 0; i < count; ++i) {
        const Done done = completions.front();
        completions.pop_front();
        complete(done);
    }
    return count;
}

Armed SimPort::arm() {
    armed_ = true;
    if (!world.options.poll_only) return {!completions.empty(), INT64_MAX};
    if (!completions.empty()) return {false, 0};
    return {false, world.events.empty() ? INT64_MAX : std::max<std::int64_t>(0, world.events.front().at - world.now)};
}

void SimPort::complete(const Done& done) {
    if (done.what == Done::What::incoming) {
        SimListening* listening = find_listening(std::uint32_t(done.number));
        if (listening == nullptr) return;
        listening->posted = false;
        if (!listening->paused) accept(*listening);
        return;
    }
    SimLink* link = find(done.link);
    if (link == nullptr) return;
    switch (done.what) {
    case Done::What::opened: return opened(*link);
    case Done::What::received: return receive(*link);
    case Done::What::sent: return sent(*link);
    case Done::What::closed: return closed(*link);
    case Done::What::retired: return retired(*link);
    default: break;
    }
    if (link->over) return;
    switch (done.what) {
    case Done::What::send_failed: world.trace("send_failed", link->number, std::uint64_t(done.error.code())); return link->sink->send_failed(done.error);
    case Done::What::writable:
        world.trace("writable", link->number, 0);
        link->sink->writable();
        return pump(*link);
    case Done::What::pump: return pump(*link);
    case Done::What::completed: return completed(*link);
    default: return;
    }
}

// -- opening ---------------------------------------------------------------------------------------------------

void SimPort::accept(SimListening& listening) {
    const LinkName from = listening.backlog.front();
    const std::uint32_t listening_id = listening.id;
    listening.backlog.pop_front();
    SimLink* const caller = world.find(from);
    if (caller == nullptr || caller->over) return post_incoming(listening);  // it gave up
    SimLink* link = take_link(listening.kind);
    if (link == nullptr) {
        listening.backlog.push_front(from);
        listening.waiting = true;
        world.plan(Event::What::accept_again, world.now + memory_retry_ns, {id, 0, 0}, listening_id);
        return listening.acceptor->paused({Errc::out_of_memory, Step::accept, Who::system});
    }
    link->peer = from;
    link->shown_peer = "sim-" + std::to_string(caller->number);
    Event answer;
    answer.at = world.now + world.delay();
    answer.what = Event::What::connect_answered;
    answer.link = from;
    world.trace("accepted", link->number, caller->number);
    if (listening.acceptor->accepted(*link)) {
        EVPL_CHECK(link->sink != nullptr && link->outbox != nullptr, "an accepted link has no sink", link->number, 0);
        answer.other = link->name;
        post(Done::What::opened, *link);
    } else {
        answer.error = {Errc::refused, Step::connect, Who::peer};
        free_link(*link);
    }
    world.plan(std::move(answer));
    if (SimListening* still = find_listening(listening_id)) post_incoming(*still);
}

void SimPort::opened(SimLink& link) {
    if (link.over) return;
    link.state = SimLink::State::open;
    world.trace("opened", link.number, 0);
    link.sink->opened();
    post_writable(link);
    post_received(link);
    if (link.draining) post(Done::What::pump, link);
}

// -- receiving -------------------------------------------------------------------------------------------------

void SimPort::pause(Link& link) {
    if (!world.options.receive_pause) return world.violation("pause of a link that has no receive_pause");
    link.receive_paused = true;
}

void SimPort::resume(Link& base) {
    auto& link = static_cast<SimLink&>(base);
    link.receive_paused = false;
    post_received(link);
}

/// A block of the device's, filled; beyond the cap of blocks that are out, a copy in the loop's memory.
Result<Buffer> SimPort::receive_buffer(const std::byte* from, std::uint32_t size_bytes) {
    if (!world.may_allocate()) return Errc::out_of_memory;
    if (std::uint64_t(device_memory->held()) * 4 < std::uint64_t(device_memory->count()) * 3) {
        DeviceMemory::Block* block = device_memory->take();
        std::copy_n(from, size_bytes, block->bytes);
        auto wrapped = host.heap().wrap(block->bytes, size_bytes, &DeviceMemory::give_back, block);
        if (!wrapped) DeviceMemory::give_back(block);
        return wrapped;
    }
    world.counted.bytes_copied_out += size_bytes;
    return host.heap().copy(from, size_bytes);
}

void SimPort::receive(SimLink& link) {
    link.receive_posted = false;
    if (link.over) return;
    if (link.receive_paused) {
        if (link.cut_pending) end_link(link, link.error);
        return;
    }
    if (!link.inbound.empty() && !deliver(link)) return;
    // The sink may have paused or closed the link just now.
    if (link.over) return;
    if (link.cut_pending && link.inbound.empty()) return end_link(link, link.error);
    if (link.inbound.empty() && !link.receive_paused && !link.ended && link.pieces_received == link.pieces_at_end) {
        link.ended = true;
        world.trace("ended", link.number, 0);
        link.sink->ended();
        end_if_drained(link);
    }
    post_received(link);
}

/// Hands over one block's worth. False: there is no memory for it now.
bool SimPort::deliver(SimLink& link) {
    Fragment& fragment = link.inbound.front();
    const std::uint32_t size = std::uint32_t(std::min<std::size_t>(fragment.left(), world.options.device_block_bytes));
    Buffer bytes;
    if (size > 0) {
        auto landed = receive_buffer(fragment.bytes.data() + fragment.taken, size);
        if (!landed) {
            starve(link, landed.error());
            return false;
        }
        bytes = *std::move(landed);
    }
    link.memory_tries = 0;
    fragment.taken += size;
    const bool last = fragment.left() == 0;
    const bool datagram = link.kind == Kind::datagram;
    const Address source = fragment.source, local = fragment.target;
    Arrival arrival;
    arrival.end_of_message = last && fragment.end_of_message;
    arrival.truncated = fragment.truncated;
    if (datagram) {
        arrival.source = &source;
        arrival.local = &local;
    }
    if (last) {
        if (!datagram && !link.silent) world.plan(Event::What::credited, world.now + world.delay(), link.peer, fragment.bytes.size());
        link.inbound.pop_front();
    }
    world.trace("delivered", link.number, size * 2 + arrival.end_of_message, bytes.bytes());
    link.sink->delivered(std::move(bytes), arrival);
    return true;
}

/// No memory for what has arrived: it stays in the device, and is tried again for a while.
void SimPort::starve(SimLink& link, Error error) {
    if (++link.memory_tries <= memory_tries_most) {
        world.plan(Event::What::receive_again, world.now + memory_retry_ns, link.name);
        return;
    }
    tell_peer_cut(link);
    end_link(link, {error.code(), Step::recv, Who::local});
}

// -- sending ---------------------------------------------------------------------------------------------------

/// A part of the outbox that goes on the wire as one.
struct SimPort::Piece {
    std::size_t bytes = 0;
    std::uint32_t slices = 0;  ///< whole slices to take, when the piece ends a message
    bool end_of_message = false;
    bool fits = false;
    Error error;  ///< a datagram that cannot go
    Address target;
};

Flushed SimPort::flush(Link& base) {
    auto& link = static_cast<SimLink&>(base);
    if (link.over || link.cut_pending) return Flushed::blocked;  // closed() is on its way
    SendQueue& outbox = *link.outbox;
    if (link.end_sent && !outbox.empty()) world.violation("flush after the link's own end was sent");
    if (link.state != SimLink::State::open || link.clogged || link.end_sent) {
        link.blocked = true;
        return Flushed::blocked;
    }
    for (;;) {
        while (!outbox.empty() && outbox[0].empty() && !ends_message(link, outbox[0])) outbox.pop();
        if (outbox.empty()) break;
        if (world.random.chance(world.options.clog)) return clog(link);
        const Piece piece = link.kind == Kind::datagram ? next_datagram(link) : next_piece(link);
        if (!piece.fits) {
            link.blocked = true;
            return Flushed::blocked;
        }
        if (!world.may_allocate() || !take_piece(link, piece)) return clog(link);
        launch(link, piece);
        if (link.over) return Flushed::blocked;
    }
    end_if_drained(link);
    return Flushed::all;
}

/// The device is full for a while.
Flushed SimPort::clog(SimLink& link) {
    link.blocked = true;
    if (!std::exchange(link.clogged, true)) world.plan(Event::What::unclogged, world.now + world.delay(), link.name);
    return Flushed::blocked;
}

bool SimPort::ends_message(const SimLink& link, const Buffer& slice) noexcept {
    return link.kind != Kind::stream && (BufferAccess::flags(slice) & BufferAccess::end_of_message) != 0;
}

SimPort::Piece SimPort::next_piece(SimLink& link) {
    const SendQueue& outbox = *link.outbox;
    Piece piece;
    std::size_t message = outbox.bytes();  // or all there is: pieces of a stream do not depend on how it was sliced
    if (link.kind == Kind::message) {
        message = 0;
        while (piece.slices < outbox.count() && !piece.end_of_message) {
            message += outbox[piece.slices].size();
            piece.end_of_message = ends_message(link, outbox[piece.slices++]);
        }
    }
    const std::size_t room = world.options.window_bytes - std::min<std::size_t>(world.options.window_bytes, link.window_used);
    piece.bytes = std::min({message, room, piece_bytes_most});
    piece.fits = (piece.bytes > 0 || message == 0) && link.pieces_out < pieces_out_most;
    if (piece.bytes > 0 && world.random.chance(world.options.split)) piece.bytes = 1 + world.random.below(std::min<std::size_t>(piece.bytes, 1460));
    if (piece.bytes < message) piece.end_of_message = false;
    if (!piece.end_of_message) piece.slices = 0;
    return piece;
}

SimPort::Piece SimPort::next_datagram(SimLink& link) {
    SendQueue& outbox = *link.outbox;
    Piece piece;
    while (piece.slices < outbox.count() && !piece.end_of_message) {
        piece.bytes += outbox[piece.slices].size();
        piece.end_of_message = ends_message(link, outbox[piece.slices++]);
    }
    if (!piece.end_of_message) world.violation("a datagram without an end");
    piece.end_of_message = true;
    piece.fits = link.held.empty() || link.held.bytes() + piece.bytes <= world.options.window_bytes;
    piece.fits &= link.pieces_unread < pieces_out_most;
    if (!piece.fits) return piece;
    if (link.target.empty()) {
        if (outbox.destinations.empty()) {
            world.violation("a datagram without a destination");
        } else {
            piece.target = outbox.destinations.front();
            outbox.destinations.pop();
        }
        if (piece.target.family == Address::Family::none) piece.error = {Errc::unreachable, Step::send, Who::local};
    }
    if (piece.bytes > world.options.device_block_bytes) piece.error = {Errc::too_large, Step::send, Who::local};
    return piece;
}

/// The device may read the slice only when its slab is registered where the link is.
void SimPort::check_key(SimLink& link, const Buffer& slice) {
    const memory::Domain* device = link.domain;
    if (device == nullptr) return;
    std::uint64_t room;
    const memory::Slab* slab = memory::slab_of(slice);
    if (slab == nullptr || device->key_of(*slab, room) == nullptr) world.violation("a slice without a key in the link's domain");
}

/// Moves the piece's slices to the device. False: no memory for the list.
bool SimPort::take_piece(SimLink& link, const Piece& piece) {
    SendQueue& outbox = *link.outbox;
    std::size_t left = piece.bytes;
    std::uint32_t count = piece.slices;
    for (std::size_t sum = 0; piece.slices == 0 && sum < left; ++count) sum += outbox[count].size();
    if (!link.held.reserve(count)) return false;
    for (std::uint32_t i = 0; i < count; ++i) {
        if (!outbox[0].empty()) check_key(link, outbox[0]);
        Buffer taken;
        if (piece.slices != 0 || outbox[0].size() <= left) {
            taken = outbox.pop();
        } else {
            taken = outbox[0].share(0, std::uint32_t(left));
            outbox.drop_front(left);
        }
        left -= taken.size();
        if (taken.empty()) continue;
        const bool pushed = link.held.push(std::move(taken));
        EVPL_CHECK(pushed, "a reserved queue had no room", count, i);
    }
    return true;
}

void SimPort::launch(SimLink& link, const Piece& piece) {
    if (link.kind != Kind::datagram) {
        link.window_used += piece.bytes;
        ++link.pieces_out;
    }
    ++link.pieces_unread;
    link.transmit_at = std::max(link.transmit_at, world.now + 1 + world.delay() / 4);
    Event event;
    event.what = Event::What::transmit;
    event.at = link.transmit_at;
    event.then = world.next_arrival(link);
    event.link = link.name;
    event.number = piece.bytes;
    event.error = piece.error;
    event.fragment.end_of_message = piece.end_of_message;
    event.fragment.target = piece.target;
    const bool alone = link.pieces_unread == 1 && link.held.bytes() == piece.bytes;
    if (alone && world.random.chance(world.options.immediate_sent)) {
        world.transmit_next(link, event);
        return sent(link);
    }
    world.plan(std::move(event));
}

void SimPort::sent(SimLink& link) {
    link.sent_posted = false;
    const std::size_t bytes = std::exchange(link.sent_ready, 0);
    if (bytes == 0 || link.closed_told) return;
    link.held.drop_front(bytes);
    link.read_bytes -= bytes;
    world.trace("sent", link.number, bytes);
    link.sink->sent(bytes);
}

// -- remote memory ---------------------------------------------------------------------------------------------

/// One operation has been answered.
void SimPort::completed(SimLink& link) {
    const auto done = std::find_if(link.operations.begin(), link.operations.end(), [](const RemoteOperation& each) { return each.posted; });
    if (done == link.operations.end()) return;
    RemoteOperation operation = std::move(*done);
    link.operations.erase(done);
    world.trace("completed", link.number, std::uint64_t(operation.error.code()), operation.buffer.bytes());
    link.sink->completed(operation.id, operation.error, std::move(operation.buffer));
}

// -- the end ---------------------------------------------------------------------------------------------------

/// A draining link sends by itself what its outbox still has.
void SimPort::pump(SimLink& link) {
    if (!link.draining || link.over || link.state != SimLink::State::open) return;
    if (link.outbox->empty()) end_if_drained(link);
    else flush(link);
}

void SimPort::end_if_drained(SimLink& link) {
    if (!link.draining || link.over || link.state != SimLink::State::open) return;
    if (link.pieces_unread != 0 || !link.outbox->empty()) return;
    constexpr Error closed_here{Errc::closed, Step::close, Who::local};
    if (link.kind == Kind::datagram) return end_link(link, closed_here);
    if (!std::exchange(link.end_sent, true) && !link.silent) {
        const bool early = world.random.chance(world.options.early_end);
        world.plan(Event::What::end_arrives, early ? world.now + 1 : world.next_arrival(link), link.peer, link.pieces_sent);
    }
    const Error end{Errc::end, Step::none, Who::peer};
    if (link.how == How::drain) {
        if (link.ended) end_link(link, end);
        return;
    }
    // What has arrived and is not wanted any more: the peer learns that it was not read, behind all that it was sent.
    if (!link.inbound.empty() && !link.silent)
        world.plan(Event::What::cut_arrives, world.next_arrival(link), link.peer, 0, {Errc::reset, Step::recv, Who::peer});
    end_link(link, link.ended ? end : closed_here);
}

void SimPort::end_link(SimLink& link, Error error) {
    if (std::exchange(link.over, true)) return;
    link.error = error;
    link.inbound.clear();
    std::erase_if(world.bindings, [&](const Binding& each) { return each.link == link.name; });
    post(Done::What::closed, link);
}

void SimPort::closed(SimLink& link) {
    while (!link.operations.empty()) {  // each ends exactly once, and before the link does
        if (!std::exchange(link.operations.front().posted, true)) link.operations.front().error = link.error;
        completed(link);
    }
    link.exposed.clear();
    link.closed_told = true;
    world.trace("closed", link.number, std::uint64_t(link.error.code()));
    if (world.random.chance(world.options.late_retire)) {
        world.plan(Event::What::retires, world.now + world.long_delay(), link.name);
    } else {
        post(Done::What::retired, link);
    }
    link.sink->closed(link.error);
}

void SimPort::retired(SimLink& link) {
    link.held.clear();
    world.trace("retired", link.number, 0);
    link.sink->retired();
    free_link(link);
}

}  // namespace evpl::transport::sim
