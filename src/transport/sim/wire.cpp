// What happens between the devices, in virtual time: arrivals, answers, and faults.

#include <algorithm>
#include <cstring>

#include "transport/sim/world.hpp"

namespace evpl::transport::sim {
namespace {

// std::push_heap keeps the greatest in front: here the earliest, and of one instant the one planned first.
bool later(const Event& a, const Event& b) noexcept { return a.at != b.at ? a.at > b.at : a.order > b.order; }

constexpr std::size_t backlog_most = 128;            // as a listen(2) backlog; beyond: refused
constexpr std::size_t datagrams_waiting_most = 256;  // at a paused receiver; beyond: lost
constexpr Error refused{Errc::refused, Step::connect, Who::peer};
constexpr Error reset_by_peer{Errc::reset, Step::recv, Who::peer};
constexpr Error cut_by_network{Errc::reset, Step::recv, Who::system};

}  // namespace

std::int64_t World::delay() noexcept {
    const std::int64_t least = options.delay_least.ns, most = options.delay_most.ns;
    const std::int64_t drawn = most > least ? least + std::int64_t(random.below(std::uint64_t(most - least + 1))) : least;
    return drawn > 0 ? drawn : 1;
}

std::int64_t World::long_delay() noexcept { return 1 + std::int64_t(random.below(50 * std::uint64_t(options.delay_most.ns) + 1)); }

std::int64_t World::next_arrival(SimLink& from) {
    std::int64_t trip = delay();
    if (random.chance(options.stall)) trip += long_delay();
    from.arrive_at = std::max(from.arrive_at, std::max(now, from.transmit_at) + trip);
    if (SimLink* to = find(from.peer)) to->inbound_until = std::max(to->inbound_until, from.arrive_at);
    return from.arrive_at;
}

void World::plan(Event&& event) {
    event.order = ++order;
    events.push_back(std::move(event));
    std::push_heap(events.begin(), events.end(), later);
}

void World::plan(Event::What what, std::int64_t at, const LinkName& link, std::uint64_t number, Error error) {
    Event event;
    event.at = at;
    event.what = what;
    event.link = link;
    event.number = number;
    event.error = error;
    plan(std::move(event));
}

void World::run_until(std::int64_t until) {
    while (!events.empty() && events.front().at <= until) {
        std::pop_heap(events.begin(), events.end(), later);
        Event event = std::move(events.back());
        events.pop_back();
        now = std::max(now, event.at);
        happen(event);
    }
    now = std::max(now, until);
}

SimLink* World::find(const LinkName& name) noexcept {
    SimPort* port = port_of(name);
    return port != nullptr ? port->find(name) : nullptr;
}

void World::happen(Event& event) {
    using enum Event::What;
    if (event.what == connect_answered) return connect_answered_by(event);
    if (event.what == arrives) return arrived(event);
    if (event.what == accept_again) {
        SimPort* port = port_of(event.link);
        SimListening* listening = port != nullptr ? port->find_listening(std::uint32_t(event.number)) : nullptr;
        if (listening == nullptr) return;
        listening->waiting = false;
        return port->post_incoming(*listening);
    }
    SimLink* link = find(event.link);
    if (link == nullptr) return;
    SimPort& port = *static_cast<SimPort*>(link->port);
    if (event.what == retires) return port.post(Done::What::retired, *link);
    if (link->over) return;
    switch (event.what) {
    case connect_arrives: return connect_arrived(*link);
    case transmit: return transmit_next(*link, event);
    case credited: return credit(*link, event.number);
    case end_arrives: return end_arrived(*link, event.number);
    case cut_arrives: return cut(*link, event.error);
    case strike: return struck(*link, event.number != 0);
    case silence_noticed: return cut(*link, {Errc::peer_silent, Step::recv, Who::peer});
    case unclogged: link->clogged = false; return port.post_writable(*link);
    case receive_again: return port.post_received(*link);
    case remote_arrives: return remote_arrived(*link, event.number);
    case remote_answered: return remote_done(*link, event.number, event.error);
    default: return;
    }
}

// -- connecting ------------------------------------------------------------------------------------------------

void World::connect_arrived(SimLink& from) {
    std::vector<SimListening*> there;
    for (SimListening* each : listenings)
        if (each->key == from.target) there.push_back(each);
    SimListening* chosen = there.empty() ? nullptr : there[random.below(there.size())];
    if (chosen == nullptr || chosen->backlog.size() >= backlog_most || random.chance(options.refuse))
        return plan(Event::What::connect_answered, now + delay(), from.name, 0, refused);
    chosen->backlog.push_back(from.name);
    chosen->owner->post_incoming(*chosen);
}

void World::connect_answered_by(Event& event) {
    SimLink* from = find(event.link);
    if (from == nullptr || from->over) {  // it gave up meanwhile
        if (event.other) plan(Event::What::cut_arrives, now + delay(), event.other, 0, reset_by_peer);
        return;
    }
    SimPort& port = *static_cast<SimPort*>(from->port);
    if (!event.error.ok()) return port.end_link(*from, event.error);
    from->peer = event.other;
    port.post(Done::What::opened, *from);
    const auto when = [&] { return now + 1 + std::int64_t(random.below(std::uint64_t(std::max<std::int64_t>(1, options.fault_window.ns)))); };
    if (random.chance(options.reset)) plan(Event::What::strike, when(), from->name, 0);
    if (random.chance(options.silence)) plan(Event::What::strike, when(), from->name, 1);
}

// -- faults ----------------------------------------------------------------------------------------------------

void World::struck(SimLink& link, bool silently) {
    SimLink* peer = find(link.peer);
    if (!silently) {
        plan(Event::What::cut_arrives, now + delay(), link.name, 0, cut_by_network);
        if (peer != nullptr) plan(Event::What::cut_arrives, now + delay(), peer->name, 0, cut_by_network);
        return;
    }
    silence(link);
    if (peer != nullptr) silence(*peer);
}

// The cable is cut: nothing arrives any more, also not what is under way. The port's own watch notices after a while.
void World::silence(SimLink& link) {
    if (link.silent || link.over) return;
    link.silent = true;
    if (options.silence_limit.ns > 0) plan(Event::What::silence_noticed, now + options.silence_limit.ns, link.name);
}

/// The link is over without our doing. What has arrived is dropped, or sometimes delivered first, as devices do.
void World::cut(SimLink& link, Error error) {
    SimPort& port = *static_cast<SimPort*>(link.port);
    if (link.over || link.cut_pending) return;
    const bool opened = link.state == SimLink::State::open;
    if (opened && !link.inbound.empty() && !link.receive_paused && random.below(2) == 0) {
        link.cut_pending = true;
        link.error = error;
        return port.post_received(link);
    }
    port.end_link(link, error);
}

// -- bytes -----------------------------------------------------------------------------------------------------

/// The device reads the next piece of what it holds. Until now a change of those bytes would have been sent.
void World::transmit_next(SimLink& link, Event& event) {
    Fragment& fragment = event.fragment;
    fragment.bytes.resize(event.number);
    std::size_t skip = link.read_bytes, filled = 0;
    for (std::uint32_t i = 0; filled < fragment.bytes.size(); ++i) {
        const Buffer& slice = link.held[i];
        if (skip >= slice.size()) {
            skip -= slice.size();
            continue;
        }
        const std::size_t part = std::min(slice.size() - skip, fragment.bytes.size() - filled);
        std::memcpy(fragment.bytes.data() + filled, slice.data() + skip, part);
        filled += part;
        skip = 0;
    }
    link.read_bytes += filled;
    --link.pieces_unread;
    link.sent_ready += filled;
    SimPort& port = *static_cast<SimPort*>(link.port);
    if (!event.error.ok()) port.post(Done::What::send_failed, link, event.error);
    port.post_sent(link);
    if (link.kind == Kind::datagram) {
        if (event.error.ok()) transmit_datagram(link, std::move(fragment));
        port.post_writable(link);
    } else {
        ++link.pieces_sent;
        Event arrival;
        arrival.at = std::max(now, event.then);
        arrival.what = Event::What::arrives;
        arrival.link = link.peer;
        arrival.other = link.name;
        arrival.fragment = std::move(fragment);
        if (!link.silent) plan(std::move(arrival));
    }
    port.end_if_drained(link);
}

void World::transmit_datagram(SimLink& link, Fragment&& fragment) {
    const auto wanted = [&](const Binding& each) {
        return fragment.target.family != Address::Family::none ? each.address == fragment.target : !link.target.empty() && each.key == link.target;
    };
    const auto to = std::find_if(bindings.begin(), bindings.end(), wanted);
    if (to == bindings.end() || random.chance(options.lose)) {
        ++counted.datagrams_lost;
        return;
    }
    fragment.source = link.local;
    fragment.target = to->address;
    fragment.end_of_message = true;
    if (fragment.bytes.size() > 1 && random.chance(options.truncate)) {
        fragment.bytes.resize(1 + random.below(fragment.bytes.size() - 1));
        fragment.truncated = true;
    }
    const unsigned copies = random.chance(options.duplicate) ? 2 : 1;
    for (unsigned i = 0; i < copies; ++i) {
        Event arrival;
        // One that is held up lets those behind it pass.
        if (random.chance(options.reorder)) arrival.at = now + delay() + 4 * delay();
        else arrival.at = link.arrive_at = std::max(link.arrive_at, now + delay());
        arrival.what = Event::What::arrives;
        arrival.link = to->link;
        arrival.other = link.name;
        arrival.fragment = fragment;
        plan(std::move(arrival));
    }
}

void World::arrived(Event& event) {
    SimLink* link = find(event.link);
    if (link == nullptr || link->over) {
        // Nobody there any more: the sender is told, behind what was sent to it in order.
        SimLink* sender = find(event.other);
        if (sender != nullptr && sender->kind != Kind::datagram && !sender->over && !sender->silent)
            plan(Event::What::cut_arrives, std::max(now + delay(), sender->inbound_until), sender->name, 0, reset_by_peer);
        return;
    }
    if (link->silent || link->cut_pending) return;
    if (link->kind == Kind::datagram) {
        const bool stranger = !link->target.empty() && static_cast<SimPort*>(link->port)->remote_address(*link) != event.fragment.source;
        if (stranger || link->inbound.size() >= datagrams_waiting_most) {
            ++counted.datagrams_lost;
            return;
        }
    }
    ++link->pieces_received;
    link->inbound.push_back(std::move(event.fragment));
    static_cast<SimPort*>(link->port)->post_received(*link);
}

void World::credit(SimLink& link, std::size_t bytes) {
    if (link.silent) return;
    link.window_used -= bytes;
    --link.pieces_out;
    static_cast<SimPort*>(link.port)->post_writable(link);
}

/// The device says that the peer has finished, maybe before it has handed over the peer's last bytes.
void World::end_arrived(SimLink& link, std::uint64_t pieces) {
    if (link.silent) return;
    link.pieces_at_end = pieces;
    static_cast<SimPort*>(link.port)->post_received(link);
}

// -- remote memory ---------------------------------------------------------------------------------------------

void World::remote_arrived(SimLink& origin, std::uint64_t number) {
    const auto operation =
        std::find_if(origin.operations.begin(), origin.operations.end(), [&](const RemoteOperation& each) { return each.id.value == number; });
    SimLink* target = find(origin.peer);
    if (operation == origin.operations.end() || origin.silent) return;
    if (target == nullptr || target->over) return plan(Event::What::cut_arrives, now + delay(), origin.name, 0, reset_by_peer);
    Error error{Errc::remote_access, Step::remote, Who::peer};
    const std::uint8_t needed = std::uint8_t(operation->reads ? Access::read : Access::write);
    for (Exposed& each : target->exposed) {
        const bool inside = operation->offset <= each.bytes.size() && operation->buffer.size() <= each.bytes.size() - operation->offset;
        if (each.region.key != operation->region.key || each.region.address != operation->region.address || !inside ||
            (std::uint8_t(each.access) & needed) == 0)
            continue;
        std::byte* there = each.bytes.data() + operation->offset;
        std::byte* here = operation->buffer.data();
        std::copy_n(operation->reads ? there : here, operation->buffer.size(), operation->reads ? here : there);
        error = {};
        break;
    }
    plan(Event::What::remote_answered, now + delay(), origin.name, number, error);
}

void World::remote_done(SimLink& origin, std::uint64_t number, Error error) {
    for (RemoteOperation& each : origin.operations) {
        if (each.id.value != number || each.posted) continue;
        each.posted = true;
        each.error = error;
        return static_cast<SimPort*>(origin.port)->post(Done::What::completed, origin);
    }
}

}  // namespace evpl::transport::sim
