// Setting up: ports, listening, connecting, binding, closing, exposed memory.

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <new>

#include "transport/options.hpp"
#include "transport/sim/world.hpp"

namespace evpl::transport {
namespace sim {
namespace {

constexpr Scheme schemes[] = {
    {"sim", "simulated network in virtual time", "sim", Kind::stream, false, 0},
    {"sim-dgram", "simulated datagrams in virtual time", "sim-dgram", Kind::datagram, false, 0},
};

[[gnu::format(printf, 4, 5)]] Error refuse(Diagnostic& why, Errc code, Step step, const char* format, ...) noexcept {
    va_list values;
    va_start(values, format);
    std::vsnprintf(why.text, sizeof why.text, format, values);
    va_end(values);
    return {code, step, Who::local};
}

/// What the endpoint carries; checks its options.
Result<Kind> kind_of(const Endpoint& endpoint, Diagnostic& why) noexcept {
    if (endpoint.scheme() == "sim-dgram") {
        if (const auto read = read_options(endpoint, {}, why); !read) return read.error();
        return Kind::datagram;
    }
    std::string_view mode = "stream";
    const OptionSpec specs[] = {OptionSpec::choice("mode", mode, "stream|msg", "a stream of bytes, or messages")};
    if (const auto read = read_options(endpoint, specs, why); !read) return read.error();
    return mode == "msg" ? Kind::message : Kind::stream;
}

Caps caps_of(const SimOptions& options, Kind kind) noexcept {
    Caps caps;
    caps.kind = kind;
    caps.half_close = options.half_close && kind != Kind::datagram;
    caps.receive_pause = options.receive_pause;
    caps.rma = kind != Kind::datagram;
    caps.zero_copy_send = true;
    caps.zero_copy_receive = true;
    caps.simulated_time = true;
    if (kind == Kind::message) caps.message_bytes_max = options.message_bytes_max;
    if (kind == Kind::datagram) caps.message_bytes_max = options.device_block_bytes;
    return caps;
}

std::string name_in(const Endpoint& endpoint, std::uint16_t port) {
    std::string name(endpoint.host());
    if (endpoint.has_port()) name += ":" + std::to_string(port);
    return name;
}

const char* prefix_of(Kind kind) noexcept { return kind == Kind::stream ? "stream/" : kind == Kind::message ? "msg/" : "dgram/"; }

SimOptions options_here() noexcept {
    const SimNet* net = SimNet::current();
    return net != nullptr ? net->options() : SimOptions{};
}

class SimTransport final : public Transport {
public:
    std::span<const Scheme> schemes() const noexcept override { return sim::schemes; }
    Probe probe(const Scheme& scheme) noexcept override {
        Probe probe;
        probe.present = SimNet::current() != nullptr;
        probe.reason = probe.present ? "this thread has a simulated network" : "this thread has no simulated network";
        if (!probe.present) probe.remedy = "for tests: make a SimNet";
        probe.caps = caps_of(options_here(), scheme.kind);
        return probe;
    }
    Result<Caps> caps(const Scheme&, const Endpoint& endpoint, Diagnostic& why) noexcept override {
        const auto kind = kind_of(endpoint, why);
        if (!kind) return kind.error();
        return caps_of(options_here(), *kind);
    }
    Result<Port*> open(Host& host) noexcept override {
        SimNet* net = SimNet::current();
        if (net == nullptr) return Error(Errc::transport_absent, Step::open);
        World& world = World::of(*net);
        if (!world.may_allocate()) return Error(Errc::out_of_memory, Step::open);
        auto* port = new (std::nothrow) SimPort(world, host, std::uint32_t(world.ports.size() + 1));
        if (port == nullptr) return Error(Errc::out_of_memory, Step::open);
        return port;
    }
};

}  // namespace

// -- port ------------------------------------------------------------------------------------------------------

SimPort::SimPort(World& of, Host& on, std::uint32_t number)
    : world(of),
      host(on),
      id(number),
      stream_caps(caps_of(of.options, Kind::stream)),
      message_caps(caps_of(of.options, Kind::message)),
      datagram_caps(caps_of(of.options, Kind::datagram)),
      device_memory(new DeviceMemory(of, of.options.device_buffers, of.options.device_block_bytes)) {
    world.ports.push_back(this);
    world.memories.push_back(device_memory);
}

// The device is switched off: no upcalls; buffers are released, and the peers find out.
SimPort::~SimPort() {
    while (!listenings.empty()) drop_listening(*listenings.back());
    for (auto& link : links) {
        if (link->state == SimLink::State::free) continue;
        if (!link->over) tell_peer_cut(*link);
        free_link(*link);
    }
    world.ports[id - 1] = nullptr;
    device_memory->orphan();
}

SimLink* SimPort::take_link(Kind kind) {
    if (!world.may_allocate()) return nullptr;
    if (free_slots.empty()) {
        links.push_back(std::make_unique<SimLink>());
        links.back()->name = {id, std::uint32_t(links.size() - 1), 1};
        free_slots.push_back(std::uint32_t(links.size() - 1));
    }
    SimLink& link = *links[free_slots.back()];
    free_slots.pop_back();
    link.state = SimLink::State::opening;
    link.kind = kind;
    link.port = this;
    link.generation = link.name.generation;
    link.number = ++world.counted.links_made;
    if (!world.devices.empty()) link.domain = world.devices[link.number % world.devices.size()].get();
    link.caps = kind == Kind::stream ? &stream_caps : kind == Kind::message ? &message_caps : &datagram_caps;
    return &link;
}

void SimPort::free_link(SimLink& link) {
    LinkName name = link.name;
    std::erase_if(world.bindings, [&](const Binding& each) { return each.link == name; });
    ++name.generation;  // late completions and events find nobody
    std::destroy_at(&link);
    std::construct_at(&link);
    link.name = name;
    free_slots.push_back(name.slot);
}

SimLink* SimPort::find(const LinkName& name) noexcept {
    if (name.slot >= links.size()) return nullptr;
    SimLink& link = *links[name.slot];
    return link.state != SimLink::State::free && link.name.generation == name.generation ? &link : nullptr;
}

// -- listening -------------------------------------------------------------------------------------------------

Result<Listening*> SimPort::listen(const Endpoint& at, bool shared, Acceptor& acceptor, Diagnostic& why) {
    const auto kind = kind_of(at, why);
    if (!kind) return kind.error();
    if (*kind == Kind::datagram) return refuse(why, Errc::not_supported, Step::listen, "sim-dgram has no connections to listen for");
    if (!world.may_allocate()) return refuse(why, Errc::out_of_memory, Step::listen, "out of memory (simulated)");
    const std::uint16_t number = at.has_port() && at.port() == 0 ? ++world.last_port : at.port();
    const std::string name = name_in(at, number);
    const std::string key = prefix_of(*kind) + name;
    for (const SimListening* other : world.listenings)
        if (other->key == key && !(shared && other->shared))
            return refuse(why, Errc::address_in_use, Step::listen, "somebody listens at sim://%s already", name.c_str());

    auto listening = std::make_unique<SimListening>();
    listening->port = this;
    listening->owner = this;
    listening->acceptor = &acceptor;
    listening->id = ++world.last_listening;
    listening->key = key;
    listening->url_text = "sim://" + name + (*kind == Kind::message ? "?mode=msg" : "");
    listening->port_value = number;
    listening->kind = *kind;
    listening->shared = shared;
    world.listenings.push_back(listening.get());
    listenings.push_back(std::move(listening));
    return listenings.back().get();
}

SimListening* SimPort::find_listening(std::uint32_t number) noexcept {
    for (auto& each : listenings)
        if (each->id == number) return each.get();
    return nullptr;
}

void SimPort::drop_listening(SimListening& listening) {
    for (const LinkName& waiting : listening.backlog) {
        world.plan(Event::What::connect_answered, world.now + world.delay(), waiting, 0, {Errc::refused, Step::connect, Who::peer});
    }
    std::erase(world.listenings, &listening);
    std::erase_if(listenings, [&](const auto& each) { return each.get() == &listening; });
}

void SimListening::close() noexcept { owner->drop_listening(*this); }

void SimListening::resume() noexcept {
    paused = false;
    owner->post_incoming(*this);
}

// -- links -----------------------------------------------------------------------------------------------------

Result<Link*> SimPort::connect(const Endpoint& to, const Address&, Sink& sink, SendQueue& outbox, Diagnostic& why) {
    const auto kind = kind_of(to, why);
    if (!kind) return kind.error();
    if (*kind == Kind::datagram) return refuse(why, Errc::not_supported, Step::connect, "sim-dgram is bound, not connected");
    SimLink* link = take_link(*kind);
    if (link == nullptr) return refuse(why, Errc::out_of_memory, Step::connect, "out of memory (simulated)");
    link->sink = &sink;
    link->outbox = &outbox;
    link->shown_peer = name_in(to, to.port());
    link->target = prefix_of(*kind) + link->shown_peer;
    world.plan(Event::What::connect_arrives, world.now + world.delay(), link->name);
    return link;
}

Result<Link*> SimPort::bind(const Endpoint& at, const Address* remote, Sink& sink, SendQueue& outbox, Diagnostic& why) {
    const auto kind = kind_of(at, why);
    if (!kind) return kind.error();
    if (*kind != Kind::datagram) return refuse(why, Errc::not_supported, Step::bind, "sim carries no datagrams: write sim-dgram://");
    const bool connected = remote != nullptr;
    const std::uint16_t number = !at.has_port() || at.port() == 0 ? ++world.last_port : at.port();
    const std::string name = name_in(at, number);
    const bool nameless = connected || at.host() == "*";
    if (!nameless)
        for (const Binding& other : world.bindings)
            if (other.key == name) return refuse(why, Errc::address_in_use, Step::bind, "sim-dgram://%s is taken", name.c_str());
    SimLink* link = take_link(Kind::datagram);
    if (link == nullptr) return refuse(why, Errc::out_of_memory, Step::bind, "out of memory (simulated)");
    link->sink = &sink;
    link->outbox = &outbox;
    if (connected) link->target = name_in(at, at.port());
    link->shown_peer = link->target;
    const std::uint32_t last = ++world.last_host;
    link->local.family = Address::Family::ipv4;
    link->local.port = number;
    link->local.bytes[0] = 10;
    link->local.bytes[1] = std::uint8_t(last >> 16);
    link->local.bytes[2] = std::uint8_t(last >> 8);
    link->local.bytes[3] = std::uint8_t(last);
    world.bindings.push_back({nameless ? std::string() : name, link->local, link->name});
    post(Done::What::opened, *link);
    return link;
}

void SimPort::close(Link& base, How how) {
    auto& link = static_cast<SimLink&>(base);
    if (link.over) return;
    if (how == How::abort) {
        tell_peer_cut(link);
        return end_link(link, {Errc::closed, Step::close, Who::local});
    }
    if (link.draining && link.how == How::finish) return;
    link.draining = true;
    link.how = how;
    post(Done::What::pump, link);
}

void SimPort::tell_peer_cut(SimLink& link) {
    if (!link.peer || link.silent || link.kind == Kind::datagram) return;
    world.plan(Event::What::cut_arrives, world.now + world.delay(), link.peer, 0, {Errc::reset, Step::recv, Who::peer});
}

// -- looking ---------------------------------------------------------------------------------------------------

Address SimPort::remote_address(const Link& base) const {
    const auto& link = static_cast<const SimLink&>(base);
    if (link.target.empty() || link.kind != Kind::datagram) return {};
    for (const Binding& each : world.bindings)
        if (each.key == link.target) return each.address;
    return {};
}

Address SimPort::local_address(const Link& base) const { return static_cast<const SimLink&>(base).local; }

std::size_t SimPort::remote_name(const Link& base, std::span<char> room) const {
    return static_cast<const SimLink&>(base).shown_peer.copy(room.data(), room.size());
}

// -- remote memory ---------------------------------------------------------------------------------------------

Result<RemoteRegion> SimPort::expose(Link& base, Buffer range, Access access) {
    auto& link = static_cast<SimLink&>(base);
    if (link.kind == Kind::datagram) return Error(Errc::not_supported, Step::remote);
    if (link.over) return Error(Errc::misuse, Step::remote);
    if (!world.may_allocate()) return Error(Errc::out_of_memory, Step::remote);
    RemoteRegion region;
    region.address = world.last_remote;
    region.size_bytes = range.size();
    region.key = world.random.next() | 1;
    world.last_remote += (range.size() + 0xfffu) & ~std::uint64_t(0xfff);
    link.exposed.push_back({region, access, std::move(range)});
    return region;
}

Result<void> SimPort::revoke(Link& base, const RemoteRegion& region) {
    auto& link = static_cast<SimLink&>(base);
    const auto same = [&](const Exposed& each) { return each.region.key == region.key; };
    if (std::erase_if(link.exposed, same) == 0) return Error(Errc::misuse, Step::remote);
    return {};
}

Result<void> SimPort::start_remote(Link& base, RemoteOperation&& operation) {
    auto& link = static_cast<SimLink&>(base);
    if (link.kind == Kind::datagram) return Error(Errc::not_supported, Step::remote);
    if (link.over || link.state != SimLink::State::open) return Error(Errc::misuse, Step::remote);
    if (!world.may_allocate()) return Error(Errc::out_of_memory, Step::remote);
    if (const memory::Domain* device = link.domain) {
        std::uint64_t room;
        const memory::Slab* slab = memory::slab_of(operation.buffer);
        if (slab == nullptr || device->key_of(*slab, room) == nullptr) ++world.counted.unregistered_remote;
    }
    world.plan(Event::What::remote_arrives, world.next_arrival(link), link.name, operation.id.value);
    link.operations.push_back(std::move(operation));
    return {};
}

Result<void> SimPort::read(Link& link, OperationId operation, const RemoteRegion& region, std::uint64_t offset, Buffer into) {
    return start_remote(link, {operation, true, region, offset, std::move(into), false, {}});
}

Result<void> SimPort::write(Link& link, OperationId operation, const RemoteRegion& region, std::uint64_t offset, Buffer from) {
    return start_remote(link, {operation, false, region, offset, std::move(from), false, {}});
}

}  // namespace sim

Transport& sim_transport() noexcept {
    static constinit sim::SimTransport transport;
    return transport;
}

}  // namespace evpl::transport
