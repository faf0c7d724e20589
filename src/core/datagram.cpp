// The public calls of datagram sockets, and the two ways to open one.
#include "evpl/datagram.hpp"

#include <cstdio>
#include <cstring>

#include "core/connector.hpp"
#include "core/datagram_state.hpp"
#include "transport/config.hpp"

namespace evpl {

using core::DatagramState;
using core::state_of;

namespace core {

Packet DatagramState::take() noexcept {
    Packet packet;
    if (inbox.empty() || phase > DatagramState::Phase::open) return packet;
    Received& first = inbox.front();
    packet.from = first.from;
    packet.to = first.to;
    const bool last = first.segment_bytes == 0 || first.bytes.size() <= first.segment_bytes;
    if (last) {
        unread_bytes -= first.bytes.size() + 64;
        packet.truncated = first.truncated;
        packet.bytes = std::move(first.bytes);
        inbox.pop();
    } else {
        unread_bytes -= first.segment_bytes;
        packet.bytes = first.bytes.share(0, first.segment_bytes);
        first.bytes.drop_front(first.segment_bytes);
    }
    if (receive_paused && unread_bytes <= limits.receive / 2 && link != nullptr) {
        receive_paused = false;
        link->port->resume(*link);
    }
    return packet;
}

Flow DatagramState::push(const Address* to, Buffer&& bytes) noexcept {
    const bool has_peer = to != nullptr ? to->family != Address::Family::none : connected;
    if (phase > DatagramState::Phase::open || !has_peer) return Flow(Flow::State::refused, Errc::misuse);
    const std::uint32_t size = bytes.size();
    if (size > caps_now().message_bytes_max) return Flow(Flow::State::refused, Errc::too_large);
    if (queued_bytes + size > limits.send_hard) {
        ++counted.dropped_packets;
        return Flow(Flow::State::refused, Errc::send_limit);
    }
    Address target = to != nullptr ? *to : Address{};
    if (!outbox.reserve(1) || (!connected && !outbox.destinations.push(std::move(target)))) {
        ++counted.dropped_packets;
        return Flow(Flow::State::refused, Errc::out_of_memory);
    }
    BufferAccess::set_flags(bytes, BufferAccess::end_of_message);
    (void)outbox.push(std::move(bytes));  // reserved
    ++fresh_out;
    ++unkeyed_out;
    queued_bytes += size;
    ++counted.sent_packets;
    core.mark_dirty(*this);
    if (queued_bytes < limits.send_high) return Flow(Flow::State::go);
    send_paused = true;
    return Flow(Flow::State::pause);
}

void DatagramState::describe_url() noexcept {
    const Address local = link != nullptr ? link->port->local_address(*link) : Address{};
    if (local.family == Address::Family::none) {
        std::snprintf(url_text, sizeof url_text, "%.*s://%.*s", int(scheme->name.size()), scheme->name.data(),
                      int(std::min<std::size_t>(endpoint.host().size(), 120)), endpoint.host().data());
        return;
    }
    char text[64];
    local.describe(text, sizeof text);
    std::snprintf(url_text, sizeof url_text, "%.*s://%s", int(scheme->name.size()), scheme->name.data(), text);
}

namespace {

Result<DatagramState*> open_datagram(LoopCore& core, std::string_view url, const detail::DatagramFactory& factory, bool connected) noexcept {
    if (factory.context == nullptr) return core.fail(Errc::out_of_memory, "no memory for a datagram socket");
    Diagnostic why;
    const auto drop = [&](Error error) {
        if (why.text[0] != '\0') core.note_failure(why.view());
        else if (core.last_failure[0] == '\0') core.fail(error, "%.*s: %s", int(url.size()), url.data(), name_of(error.code()));
        factory.drop(factory.context);
        return error;
    };
    core.last_failure[0] = '\0';
    if (const base::Fault* fault = transport::configuration_fault()) return drop(core.fail(fault->error, "%s", fault->sentence.c_str()));
    if (core.is_forked_off()) return drop(Error(Errc::misuse, Step::loop));
    auto endpoint = Endpoint::parse(url, &why);
    if (!endpoint) return drop(endpoint.error());
    const auto choice = transport::choose(*endpoint, why);
    if (!choice) return drop(choice.error());
    if (choice->scheme->kind != Kind::datagram) {
        return drop(core.fail(Error(Errc::not_supported, Step::bind), "%.*s carries connections: use listen() or connect()", int(url.size()), url.data()));
    }
    if (choice->scheme->has_address && !endpoint->has_port()) {
        return drop(core.fail(Error(Errc::bad_endpoint, Step::parse), "\"%.*s\" lacks a port: %.*s://host:port", int(url.size()), url.data(),
                              int(choice->scheme->name.size()), choice->scheme->name.data()));
    }
    const auto caps = choice->transport->caps(*choice->scheme, *endpoint, why);
    if (!caps) return drop(caps.error());
    const auto port = core.port_of(*choice->transport);
    if (!port) return drop(port.error());
    DatagramState* state = DatagramState::create(core, factory);
    if (state == nullptr) return drop(core.fail(Errc::out_of_memory, "no memory for a datagram socket"));
    state->endpoint = *endpoint;
    state->scheme = choice->scheme;
    state->planned_caps = *caps;
    state->port = *port;
    state->connected = connected;
    if (state->build()) return state;
    const Error error = core.fail(state->close_reason, "the handler's factory failed");
    state->discard();
    return error;
}

Result<DatagramRef> started(DatagramState& state, Error error, const Diagnostic& why, std::string_view url) noexcept {
    if (error.ok()) return state.ref();
    if (why.text[0] != '\0') state.core.note_failure(why.view());
    else state.core.fail(error, "%.*s: %s", int(url.size()), url.data(), name_of(error.code()));
    state.discard();
    return error;
}

}  // namespace

Error DatagramState::open_link(const Address* remote, Diagnostic& why) noexcept {
    const auto made = port->bind(endpoint, remote, *this, outbox, why);
    if (!made) return made.error();
    link = *made;
    phase = DatagramState::Phase::open;
    describe_url();
    return {};
}

}  // namespace core

// -- public ----------------------------------------------------------------------------------------------------

Loop& Datagram::loop() const noexcept { return state_of(*this).core.facade; }

DatagramRef Datagram::ref() const noexcept {
    const auto& d = state_of(*this);
    return CoreAccess::ref<DatagramRef>(d.core.control, d.slot, d.generation);
}

Datagram* DatagramRef::get() const noexcept {
    if (control_ == nullptr) return nullptr;
    const core::LoopCore* core = control_->core.load(std::memory_order_acquire);
    return core != nullptr ? static_cast<DatagramState*>(core->find(slot_, generation_)) : nullptr;
}

std::string_view Datagram::transport() const noexcept { return state_of(*this).scheme->name; }
const Caps& Datagram::caps() const noexcept { return state_of(*this).caps_now(); }
bool Datagram::is_open() const noexcept { return state_of(*this).phase == DatagramState::Phase::open; }
std::string_view Datagram::url() const noexcept { return state_of(*this).url_text; }

Address Datagram::local_address() const noexcept {
    const auto* link = state_of(*this).link;
    return link != nullptr ? link->port->local_address(*link) : Address{};
}
Address Datagram::remote_address() const noexcept {
    const auto* link = state_of(*this).link;
    return link != nullptr ? link->port->remote_address(*link) : Address{};
}
int Datagram::native_fd() const noexcept {
    const auto* link = state_of(*this).link;
    return link != nullptr ? link->port->native_fd(*link) : -1;
}
DatagramMetrics Datagram::metrics() const noexcept { return state_of(*this).counted; }

bool Datagram::has_packet() const noexcept { return !state_of(*this).inbox.empty() && state_of(*this).phase <= DatagramState::Phase::open; }
Packet Datagram::recv() noexcept { return state_of(*this).take(); }

Flow Datagram::send_to(const Address& to, Buffer bytes) noexcept { return state_of(*this).push(&to, std::move(bytes)); }
Flow Datagram::send(Buffer bytes) noexcept { return state_of(*this).push(nullptr, std::move(bytes)); }

namespace {
Flow send_copy(DatagramState& d, const Address* to, std::span<const std::byte> bytes) noexcept {
    if (bytes.size() > d.caps_now().message_bytes_max) return Flow(Flow::State::refused, Errc::too_large);
    auto copy = d.core.heap().copy(bytes.data(), std::uint32_t(bytes.size()));
    if (!copy) return Flow(Flow::State::refused, copy.error().code());
    return d.push(to, std::move(*copy));
}
}  // namespace

Flow Datagram::send_to(const Address& to, std::span<const std::byte> bytes) noexcept { return send_copy(state_of(*this), &to, bytes); }
Flow Datagram::send(std::span<const std::byte> bytes) noexcept { return send_copy(state_of(*this), nullptr, bytes); }
std::size_t Datagram::queued() const noexcept { return state_of(*this).queued_bytes; }
void Datagram::flush() noexcept { state_of(*this).flush_outbox(); }

Result<void> Datagram::join(const Address& group, const Address& interface) noexcept {
    auto* link = state_of(*this).link;
    if (link == nullptr) return Error(Errc::misuse, Step::bind);
    return link->port->join(*link, group, interface, false);
}
Result<void> Datagram::leave(const Address& group, const Address& interface) noexcept {
    auto* link = state_of(*this).link;
    if (link == nullptr) return Error(Errc::misuse, Step::bind);
    return link->port->join(*link, group, interface, true);
}

const QueueLimits& Datagram::limits() const noexcept { return state_of(*this).limits; }
void Datagram::set_limits(const QueueLimits& limits) noexcept { state_of(*this).limits = limits; }
void Datagram::close() noexcept { state_of(*this).begin_close(Error(Errc::closed, Step::close, Who::local)); }

namespace detail {

Result<DatagramRef> bind(Loop& loop, std::string_view url, DatagramFactory factory) noexcept {
    core::LoopCore* core = CoreAccess::core(loop);
    if (core == nullptr) {
        if (factory.context != nullptr) factory.drop(factory.context);
        return Errc::out_of_memory;
    }
    const auto state = core::open_datagram(*core, url, factory, false);
    if (!state) return state.error();
    Diagnostic why;
    const Error error = (*state)->open_link(nullptr, why);
    return core::started(**state, error, why, url);
}

Result<DatagramRef> connect_datagram(Loop& loop, std::string_view url, DatagramFactory factory, Limit limit) noexcept {
    core::LoopCore* core = CoreAccess::core(loop);
    if (core == nullptr) {
        if (factory.context != nullptr) factory.drop(factory.context);
        return Errc::out_of_memory;
    }
    const auto state = core::open_datagram(*core, url, factory, true);
    if (!state) return state.error();
    Diagnostic why;
    const Error error = core::DatagramConnector::start(**state, limit, why);
    return core::started(**state, error, why, url);
}

}  // namespace detail
}  // namespace evpl
