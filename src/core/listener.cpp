// Listeners, and the two ways into the library: listen and connect.
#include "evpl/listener.hpp"

#include <unistd.h>

#include <new>

#include "base/clock.hpp"
#include "base/log_line.hpp"
#include "core/connection_state.hpp"
#include "core/connector.hpp"
#include "core/listener_state.hpp"
#include "transport/config.hpp"

namespace evpl {
namespace core {
namespace {

/// Parses and chooses; failures become the loop's sentence.
Result<transport::Choice> prepare(LoopCore& core, std::string_view url, Endpoint& endpoint, Caps& caps) noexcept {
    if (const base::Fault* fault = transport::configuration_fault()) return core.fail(fault->error, "%s", fault->sentence.c_str());
    if (core.is_forked_off()) return Error(Errc::misuse, Step::loop);
    Diagnostic why;
    auto parsed = Endpoint::parse(url, &why);
    if (!parsed) {
        core.note_failure(why.view());
        return parsed.error();
    }
    endpoint = *parsed;
    const auto choice = transport::choose(endpoint, why);
    if (!choice) {
        core.note_failure(why.view());
        return choice.error();
    }
    const transport::Scheme& scheme = *choice->scheme;
    if (scheme.has_address && !endpoint.has_port()) {
        return core.fail(Error(Errc::bad_endpoint, Step::parse), "\"%.*s\" lacks a port: %.*s://host:port", int(url.size()), url.data(),
                         int(scheme.name.size()), scheme.name.data());
    }
    const auto planned = choice->transport->caps(scheme, endpoint, why);
    if (!planned) {
        core.note_failure(why.view());
        return planned.error();
    }
    caps = *planned;
    return *choice;
}

Error failed(LoopCore& core, Error error, const Diagnostic& why, std::string_view url) noexcept {
    char text[128];
    error.describe(text, sizeof text);
    if (why.text[0] != '\0') core.note_failure(why.view());
    else core.fail(error, "%.*s: %s", int(url.size()), url.data(), text);
    return error;
}

}  // namespace

ListenerState::ListenerState(LoopCore& owner, Origin& from, const transport::Choice& chosen) noexcept : Member(owner), origin(&from), choice(chosen) {
    origin->listener = this;
}

namespace {

/// A listener of `url` that does not listen yet.
Result<ListenerState*> make_listener(LoopCore& core, std::string_view url, const detail::ConnectionFactory& factory) noexcept {
    Origin* origin = Origin::create(factory);
    if (origin == nullptr) return core.fail(Errc::out_of_memory, "no memory for a listener");
    Endpoint endpoint;
    Caps caps;
    const auto choice = prepare(core, url, endpoint, caps);
    Error error = choice ? Error() : choice.error();
    if (choice && caps.kind == Kind::datagram) {
        error = core.fail(Error(Errc::not_supported, Step::listen), "%.*s carries datagrams: use bind()", int(url.size()), url.data());
    }
    auto* state = error.ok() ? new (std::nothrow) ListenerState(core, *origin, *choice) : nullptr;
    if (state == nullptr) {
        origin->unref();
        return error.ok() ? core.fail(Errc::out_of_memory, "no memory for a listener") : error;
    }
    state->endpoint = endpoint;
    core.enroll(*state);
    return state;
}

}  // namespace

namespace {

/// The listener of the transport that stands in: at `port` where the first one listens already.
Error open_beside(ListenerState& state, bool shared, std::uint16_t port, std::string_view reason, Diagnostic& why) noexcept {
    transport::Choice other;
    Endpoint instead;
    if (!transport::fall_back(state.choice, state.endpoint, other, instead)) return Error(Errc::transport_absent, Step::listen);
    if (port != 0) {
        char url[Endpoint::text_bytes_max + 1];
        std::snprintf(url, sizeof url, "%.*s://%.*s:%u%s%.*s", int(instead.scheme().size()), instead.scheme().data(), int(instead.host().size()),
                      instead.host().data(), unsigned(port), instead.query().empty() ? "" : "?", int(instead.query().size()), instead.query().data());
        const auto parsed = Endpoint::parse(url);
        if (!parsed) return parsed.error();
        instead = *parsed;
    }
    const auto second = state.core.port_of(*other.transport);
    if (!second) return second.error();
    const auto listening = (*second)->listen(instead, shared, state, why);
    if (!listening) return listening.error();
    state.beside = *listening;
    state.beside_scheme = other.scheme;
    if (!reason.empty()) state.core.note_fallback(*state.choice.scheme, *other.scheme, state.endpoint, reason);
    return {};
}

/// One listener, or two: a device serves its own addresses, and "*" means all of this machine's.
Error open_listenings(ListenerState& state, bool shared, Diagnostic& why) noexcept {
    const auto port = state.core.port_of(*state.choice.transport);
    const auto listening = port ? (*port)->listen(state.endpoint, shared, state, why) : Result<transport::Listening*>(port.error());
    if (listening) {
        state.listening = *listening;
        if (state.endpoint.host() != "*" || state.choice.scheme->fallback.empty()) return {};
        const Error error = open_beside(state, true, state.listening->port_number(), {}, why);
        return error == Errc::transport_absent ? Error() : error;  // nothing stands in: the device's addresses alone
    }
    if (listening.error().code() != Errc::transport_absent || state.choice.scheme->fallback.empty()) return listening.error();
    Diagnostic second;
    const Error error = open_beside(state, shared, 0, why.view().empty() ? std::string_view("it is absent") : why.view(), second);
    if (error.ok()) return error;
    if (error != Errc::transport_absent) why = second;
    return error == Errc::transport_absent ? listening.error() : error;
}

}  // namespace

Result<ListenerState*> open_listener(LoopCore& core, std::string_view url, const detail::ConnectionFactory& factory, bool shared) noexcept {
    const auto made = make_listener(core, url, factory);
    if (!made) return made.error();
    ListenerState* state = *made;
    Diagnostic why;
    const Error error = open_listenings(*state, shared, why);
    if (!error.ok()) {
        state->handle_dropped = true;
        state->close_now();
        return failed(core, error, why, url);
    }
    const transport::Scheme& scheme = state->listening != nullptr ? *state->choice.scheme : *state->beside_scheme;
    base::log_format(LogLevel::info, "%s: listening at %.*s: %.*s", core.options.name, int(state->shown()->url().size()), state->shown()->url().data(),
                     int(scheme.summary.size()), scheme.summary.data());
    return state;
}

Result<ListenerState*> open_adopter(LoopCore& core, std::string_view url, const detail::ConnectionFactory& factory) noexcept {
    return make_listener(core, url, factory);
}

void ListenerState::close_now() noexcept {
    if (closed_) return;
    closed_ = true;
    origin->listener = nullptr;
    if (listening != nullptr) listening->close();
    if (beside != nullptr) beside->close();
    listening = beside = nullptr;
    core.passed_away(*this);
    if (handle_dropped) core.bury(*this);
}

void ListenerState::stop(bool, Error) { close_now(); }

void ListenerState::destroy() noexcept {
    origin->unref();
    delete this;
}

// -- accepting -------------------------------------------------------------------------------------------------

ConnectionState* ListenerState::make_connection() noexcept {
    ConnectionState* connection = ConnectionState::create(core, *origin);
    if (connection == nullptr) {
        ++origin->refused;
        return nullptr;
    }
    connection->scheme = choice.scheme;
    connection->counted_open = true;
    ++origin->accepted;
    ++origin->open;
    ++core.metrics.accepted;
    return connection;
}

bool ListenerState::accepted(transport::Link& link) {
    if (closed_ || core.stopping) return false;
    ConnectionState* connection = make_connection();
    if (connection == nullptr) return false;
    connection->attach(link);
    if (beside != nullptr && link.port == beside->port) connection->scheme = beside_scheme;
    update_pause();
    return true;
}

bool ListenerState::taken(int descriptor, const Address& peer) { return hand_out.take != nullptr && hand_out.take(hand_out.context, descriptor, peer); }

void ListenerState::adopt(int descriptor, const Address& peer) noexcept {
    const auto port = core.port_of(*choice.transport);
    ConnectionState* connection = port && !closed_ && !core.stopping ? make_connection() : nullptr;
    if (connection == nullptr) {
        ::close(descriptor);
        return;
    }
    const auto link = (*port)->adopt(endpoint, descriptor, peer, *connection, connection->outbox);
    if (link) connection->attach(**link);
    else connection->connect_failed(link.error());
}

void ListenerState::update_pause() noexcept {
    paused_by_limit = origin->open_max != 0 && origin->open >= origin->open_max;
    for (transport::Listening* one : {listening, beside}) {
        if (one == nullptr) continue;
        if (paused_by_limit || paused_by_user) one->pause();
        else one->resume();
    }
}

int ListenerState::hand_over() noexcept {
    if (listening != nullptr && beside != nullptr) return -1;
    return (listening != nullptr ? listening : beside)->hand_over();
}

void ListenerState::connection_closed() noexcept {
    if (paused_by_limit) update_pause();
}

void ListenerState::paused(Error why) {
    ++accept_pauses;
    ++core.metrics.accept_pauses;
    const std::int64_t now = base::clock_ns();
    if (now - told_ns_ < 1'000'000'000 && told_ns_ != 0) return;  // a flood of these must not become a flood of lines
    told_ns_ = now;
    char text[160];
    why.describe(text, sizeof text);
    base::log_format(LogLevel::warning, "%s: accepting at %.*s waits: %s", core.options.name, int(shown()->url().size()), shown()->url().data(), text);
}

void ListenerState::failed(Error error) {
    char text[160];
    error.describe(text, sizeof text);
    base::log_format(LogLevel::error, "%s: the listener at %.*s failed: %s", core.options.name, int(shown()->url().size()), shown()->url().data(), text);
}

}  // namespace core

// -- public ----------------------------------------------------------------------------------------------------

std::string_view Listener::url() const noexcept { return state_ != nullptr && state_->shown() != nullptr ? state_->shown()->url() : std::string_view(); }
std::uint16_t Listener::port() const noexcept { return state_ != nullptr && state_->shown() != nullptr ? state_->shown()->port_number() : std::uint16_t(0); }
int Listener::hand_over() noexcept { return state_ != nullptr && state_->shown() != nullptr ? state_->hand_over() : -1; }
void Listener::pause() noexcept {
    if (state_ == nullptr) return;
    state_->paused_by_user = true;
    state_->update_pause();
}
void Listener::resume() noexcept {
    if (state_ == nullptr) return;
    state_->paused_by_user = false;
    state_->update_pause();
}
void Listener::limit_connections(std::uint32_t most) noexcept {
    if (state_ == nullptr) return;
    state_->origin->open_max = most;
    state_->update_pause();
}
ListenerMetrics Listener::metrics() const noexcept {
    if (state_ == nullptr) return {};
    return {state_->origin->accepted, state_->origin->refused, state_->origin->open, state_->accept_pauses};
}
void Listener::close() noexcept {
    if (state_ == nullptr) return;
    core::ListenerState* state = std::exchange(state_, nullptr);
    if (state->orphaned) return state->destroy();
    state->handle_dropped = true;
    if (state->is_alive()) state->close_now();
    else state->core.bury(*state);
}

namespace detail {

Result<Listener> listen(Loop& loop, std::string_view url, ConnectionFactory factory) noexcept {
    core::LoopCore* core = CoreAccess::core(loop);
    if (core == nullptr) {
        if (factory.context != nullptr) factory.drop(factory.context);
        return Errc::out_of_memory;
    }
    const auto opened = core::open_listener(*core, url, factory, false);
    if (!opened) return opened.error();
    return CoreAccess::handle<Listener>(*opened);
}

Result<ConnectionRef> connect(Loop& loop, std::string_view url, ConnectionFactory factory, Limit limit) noexcept {
    core::LoopCore* core = CoreAccess::core(loop);
    core::Origin* origin = core != nullptr ? core::Origin::create(factory) : nullptr;
    if (origin == nullptr) {
        if (core == nullptr && factory.context != nullptr) factory.drop(factory.context);
        return core != nullptr ? core->fail(Errc::out_of_memory, "no memory for a connection") : Error(Errc::out_of_memory);
    }
    Endpoint endpoint;
    Caps caps;
    const auto choice = core::prepare(*core, url, endpoint, caps);
    Error error = choice ? Error() : choice.error();
    if (choice && caps.kind == Kind::datagram) {
        error = core->fail(Error(Errc::not_supported, Step::connect), "%.*s carries datagrams: use connect_datagram()", int(url.size()), url.data());
    }
    if (error.ok() && core->stopping) error = core->fail(Error(Errc::stopped, Step::connect), "the loop is stopping");
    core::ConnectionState* connection = error.ok() ? core::ConnectionState::create(*core, *origin) : nullptr;
    origin->unref();  // the connection has its own
    if (connection == nullptr) return error.ok() ? core->fail(Errc::out_of_memory, "no memory for a connection") : error;
    connection->plan(caps);
    connection->scheme = choice->scheme;
    Diagnostic why;
    if (!connection->build()) error = core->fail(connection->close_reason, "the handler's factory failed");
    else error = core::Connector::start(*connection, *choice, endpoint, why);
    if (!error.ok()) {
        connection->discard();
        return why.text[0] != '\0' ? core::failed(*core, error, why, url) : error;
    }
    const std::int64_t limit_ns = limit.duration == Duration::forever() ? core::connect_limit_ns : limit.duration.ns;
    connection->open_by_ns = core::AlarmWheel::due_after(base::clock_ns(), limit_ns);
    connection->arm_deadlines();
    base::log_format(LogLevel::debug, "%s: connecting to %.*s by %.*s", core->options.name, int(url.size()), url.data(), int(choice->scheme->name.size()),
                     choice->scheme->name.data());
    return connection->ref();
}

}  // namespace detail
}  // namespace evpl
