// Everything of a link's life but the bytes: opening, listening, accepting, ends.

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <new>
#include <utility>

#include "base/clock.hpp"
#include "base/option.hpp"
#include "transport/common/sockets/address_bytes.hpp"
#include "transport/xlio/port.hpp"

namespace evpl::transport::xlio {
namespace {

/// A port that ends waits so long for the stack to end its sockets; each poll is one look.
constexpr std::int64_t farewell_ns = 50'000'000;

/// What the card cannot serve: core gives the endpoint to the kernel instead.
bool is_elsewhere(int os) noexcept { return os == ENODEV; }

Error failure_of(int os, Step step) noexcept {
    if (is_elsewhere(os)) return Error(Errc::transport_absent, step, Who::system, os);
    return Error::from_errno(os, step);
}

Error explain(int os, Step step, const Endpoint& endpoint, Diagnostic& why) noexcept {
    const Error error = failure_of(os, step);
    char text[128];
    error.describe(text, sizeof text);
    if (is_elsewhere(os)) std::snprintf(text, sizeof text, "no NVIDIA card serves this address");
    base::refuse(why, error.code(), "xlio://%.*s:%u: %s", EVPL_SHOWN(endpoint.host()), unsigned(endpoint.port()), text);
    return error;
}

std::uintptr_t userdata_of(Owner& owner) noexcept { return reinterpret_cast<std::uintptr_t>(&owner); }

}  // namespace

// -- the port --------------------------------------------------------------------------------------------------

XlioPort::XlioPort(Host& host, const abi::Calls& calls, ReturnDesk& desk) noexcept : host_(host), calls_(calls), desk_(desk), block_(host.heap()) {}

Result<Port*> XlioPort::open(Host& host, const abi::Calls& calls) noexcept {
    auto* desk = new (std::nothrow) ReturnDesk;
    auto* port = desk != nullptr ? new (std::nothrow) XlioPort(host, calls, *desk) : nullptr;
    if (port == nullptr) {
        delete desk;
        return Error(Errc::out_of_memory, Step::open);
    }
    desk->calls = &calls;
    const abi::GroupAttr attr{0, &on_event, &on_completion, &on_received, &on_accepted};
    if (calls.group_create(&attr, &desk->group) != 0) {
        const int os = errno;
        desk->group = 0;
        delete port;
        return Error::from_errno(os, Step::open);
    }
    port->held_bytes_most_ = Options::held_bytes();
    return static_cast<Port*>(port);
}

// No upcalls. Sockets end first, so that the stack calls nobody back when its group goes, which may be later.
XlioPort::~XlioPort() {
    if (desk_.group != 0) empty_group();
    for (Chunk* chunk = chunks_; chunk != nullptr;) {
        Chunk* next = chunk->next;
        for (XlioLink& link : chunk->links) link.with_stack.clear(), link.early.clear();
        delete chunk;
        chunk = next;
    }
    for (XlioListening* one = listenings_; one != nullptr;) delete std::exchange(one, one->next);
    if (desk_.held_buffers > 0) {
        desk_.orphaned = true;
        return;
    }
    if (desk_.group != 0) calls_.group_destroy(desk_.group);
    delete &desk_;
}

void XlioPort::empty_group() noexcept {
    for (Chunk* chunk = chunks_; chunk != nullptr; chunk = chunk->next) {
        for (XlioLink& link : chunk->links) {
            if (link.state == XlioLink::State::free || link.socket == 0) continue;
            link.state = XlioLink::State::over;
            link.hard = true;
            destroy(link);
        }
    }
    for (XlioListening* one = listenings_; one != nullptr; one = one->next) {
        if (!std::exchange(one->over, true)) calls_.socket_destroy(one->socket);
    }
    const std::int64_t until = base::clock_ns() + farewell_ns;
    const InStack in(*this);
    do {
        calls_.group_poll(desk_.group);
        for (; !doomed_.empty(); doomed_.pop()) calls_.socket_destroy(doomed_.front());
    } while (sockets_ > 0 && base::clock_ns() < until);
}

XlioLink* XlioPort::take_link() noexcept {
    if (free_links_ == nullptr) {
        auto* chunk = new (std::nothrow) Chunk;
        if (chunk == nullptr) return nullptr;
        chunk->next = std::exchange(chunks_, chunk);
        for (XlioLink& link : chunk->links) {
            link.port = this;
            link.next_free = std::exchange(free_links_, &link);
        }
    }
    XlioLink* link = free_links_;
    free_links_ = std::exchange(link->next_free, nullptr);
    return link;
}

/// The stack has nothing of the link any more.
void XlioPort::release(XlioLink& link) {
    for (XlioLink** at = &short_; *at != nullptr; at = &(*at)->next_short) {
        if (*at != &link) continue;
        *at = link.next_short;
        break;
    }
    const std::uint32_t generation = link.generation + 1;
    link.~XlioLink();
    new (&link) XlioLink;
    link.port = this;
    link.generation = generation;
    link.next_free = std::exchange(free_links_, &link);
}

std::size_t XlioPort::remote_name(const Link& base, std::span<char> room) const {
    const auto& link = static_cast<const XlioLink&>(base);
    return link.remote.family == Address::Family::none ? 0 : link.remote.describe(room.data(), room.size());
}

// -- sockets of the stack --------------------------------------------------------------------------------------

Result<abi::Socket> XlioPort::make_socket(int domain, Owner& owner) noexcept {
    abi::Socket socket = 0;
    const abi::SocketAttr attr{0, domain, desk_.group, userdata_of(owner)};
    if (calls_.socket_create(&attr, &socket) != 0) return Error(Errc::io_error, Step::open, Who::system, errno);
    ++sockets_;
    return socket;
}

/// Wishes: what the stack does not know is left at its default.
void XlioPort::set_options(abi::Socket socket, const Options& options) noexcept {
    const auto set = [&](int level, int name, std::int64_t value) {
        const int as_int = int(value);
        (void)calls_.socket_setsockopt(socket, level, name, &as_int, sizeof as_int);
    };
    if (options.nodelay) set(IPPROTO_TCP, TCP_NODELAY, 1);
    if (options.keepalive) {
        set(SOL_SOCKET, SO_KEEPALIVE, 1);
        set(IPPROTO_TCP, TCP_KEEPIDLE, options.keepalive_idle.ns / 1'000'000'000);
        set(IPPROTO_TCP, TCP_KEEPINTVL, options.keepalive_interval.ns / 1'000'000'000);
    }
    if (options.silent_after.ns > 0) set(IPPROTO_TCP, TCP_USER_TIMEOUT, options.silent_after.ns / 1'000'000);
    if (options.send_buffer_bytes > 0) set(SOL_SOCKET, SO_SNDBUF, options.send_buffer_bytes);
    if (options.receive_buffer_bytes > 0) set(SOL_SOCKET, SO_RCVBUF, options.receive_buffer_bytes);
    if (options.type_of_service >= 0) set(IPPROTO_IP, IP_TOS, options.type_of_service);
    if (options.congestion[0] != '\0')
        (void)calls_.socket_setsockopt(socket, IPPROTO_TCP, TCP_CONGESTION, options.congestion, socklen_t(std::strlen(options.congestion)));
}

void XlioPort::reset_on_close(abi::Socket socket) noexcept {
    const linger now{1, 0};
    (void)calls_.socket_setsockopt(socket, SOL_SOCKET, SO_LINGER, &now, sizeof now);
}

Address XlioPort::name_of(abi::Socket socket, int (*ask)(abi::Socket, sockaddr*, socklen_t*)) noexcept {
    socket::SocketAddress name;
    return ask(socket, &name.base, &name.size) == 0 ? socket::from_kernel(name) : Address();
}

// -- connecting ------------------------------------------------------------------------------------------------

Result<Link*> XlioPort::connect(const Endpoint& to, const Address& address, Sink& sink, SendQueue& outbox, Diagnostic& why) {
    const auto options = Options::read(to, why);
    if (!options) return options.error();
    XlioLink* const link = take_link();
    if (link == nullptr) return Error(Errc::out_of_memory, Step::connect);
    const socket::SocketAddress target = socket::to_kernel(address);
    const auto made = make_socket(target.base.sa_family, *link);
    if (!made) {
        release(*link);
        return explain(made.error().os(), Step::connect, to, why);
    }
    link->socket = *made;
    set_options(*made, *options);
    if (calls_.socket_connect(*made, &target.base, target.size) != 0) {
        const int os = errno;
        end_link(*link, failure_of(os, Step::connect), true);  // nobody's: it goes by itself
        return explain(os, Step::connect, to, why);
    }
    link->state = XlioLink::State::connecting;
    link->known = true;
    link->sink = &sink;
    link->outbox = &outbox;
    link->own_caps = caps_of(*options);
    link->caps = &link->own_caps;
    link->inline_bytes = options->inline_bytes;
    link->window_bytes = options->window_bytes;
    link->remote = address;
    idle_wait_ns_ = idle_wait_ns_least;
    return link;
}

/// The protection domain is known from here on, and not before.
void XlioPort::open_link(XlioLink& link) {
    abi::ProtectionDomain* const pd = calls_.socket_get_pd(link.socket);
    Domain* const domain = pd != nullptr ? Domain::of(pd, calls_) : nullptr;
    if (domain == nullptr || !domain->enrolled()) {
        return end_link(link, Error(pd == nullptr ? Errc::device_error : Errc::out_of_memory, Step::open), true);
    }
    link.domain = domain;
    link.local = name_of(link.socket, calls_.socket_getsockname);
    if (link.remote.family == Address::Family::none) link.remote = name_of(link.socket, calls_.socket_getpeername);
    link.state = XlioLink::State::open;
    link.sink->opened();
    while (!link.early.empty()) link.sink->delivered(link.early.pop(), {});
}

// -- listening -------------------------------------------------------------------------------------------------

Result<Listening*> XlioPort::listen(const Endpoint& at, bool shared, Acceptor& acceptor, Diagnostic& why) {
    const auto options = Options::read(at, why);
    if (!options) return options.error();
    auto where = socket::literal_address(at, why);
    if (!where) return where.error();
    if (at.host() == "*") *where = *Address::parse("0.0.0.0", 0);  // the kernel's listener beside it takes IPv6
    where->port = at.port();
    auto* const listening = new (std::nothrow) XlioListening;
    if (listening == nullptr) return Error(Errc::out_of_memory, Step::listen);
    listening->is_listening = true;
    listening->port = this;
    listening->owner = this;
    listening->acceptor = &acceptor;
    listening->options = *options;
    const socket::SocketAddress name = socket::to_kernel(*where);
    const auto made = make_socket(name.base.sa_family, *listening);
    if (!made) {
        delete listening;
        return explain(made.error().os(), Step::listen, at, why);
    }
    listening->socket = *made;
    listening->next = std::exchange(listenings_, listening);
    if (shared || at.host() == "*") {  // listeners of other loops, or the kernel's, stand on the same port
        const int yes = 1;
        (void)calls_.socket_setsockopt(*made, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    }
    set_options(*made, *options);
    if (calls_.socket_bind(*made, &name.base, name.size) != 0 || calls_.socket_listen(*made) != 0) {
        const int os = errno;
        drop_listening(*listening);
        return explain(os, Step::listen, at, why);
    }
    const Address bound = name_of(*made, calls_.socket_getsockname);
    listening->bound_port = bound.port;
    where->port = bound.port;
    char text[64];
    where->describe(text, sizeof text);
    if (at.host() == "*") std::snprintf(text, sizeof text, "*:%u", unsigned(bound.port));
    std::snprintf(listening->url_text, sizeof listening->url_text, "xlio://%s", text);
    return listening;
}

void XlioListening::close() noexcept { owner->drop_listening(*this); }

void XlioListening::resume() noexcept {
    paused = false;
    owner->serve_later();
}

void XlioPort::serve_later() noexcept {
    backlogs_ = true;
    host_.poll_again();
}

/// The object stays until the stack is done with its socket.
void XlioPort::drop_listening(XlioListening& listening) noexcept {
    listening.over = true;
    for (; !listening.backlog.empty(); listening.backlog.pop()) {
        XlioLink& waiting = *listening.backlog.front();
        waiting.listening = nullptr;
        end_link(waiting, Error(Errc::closed, Step::accept), true);
    }
    calls_.socket_destroy(listening.socket);
    serve_later();
}

void XlioPort::drop_over_listeners() noexcept {
    for (XlioListening** at = &listenings_; *at != nullptr;) {
        XlioListening* one = *at;
        if (!one->over || one->socket != 0) {
            backlogs_ |= one->over;
            at = &one->next;
            continue;
        }
        *at = one->next;
        delete one;
    }
}

void XlioPort::serve_backlogs() {
    backlogs_ = false;
    for (XlioListening* each = listenings_; each != nullptr; each = each->next) {
        while (!each->paused && !each->backlog.empty()) {
            XlioLink& link = *each->backlog.front();
            each->backlog.pop();
            link.listening = nullptr;
            link.own_caps = caps_of(each->options);
            link.caps = &link.own_caps;
            link.inline_bytes = each->options.inline_bytes;
            link.window_bytes = each->options.window_bytes;
            link.remote = name_of(link.socket, calls_.socket_getpeername);
            if (link.terminated || !each->acceptor->accepted(link)) {
                end_link(link, Error(Errc::closed, Step::accept), true);
                continue;
            }
            link.known = true;
            set_options(link.socket, each->options);
            link.state = XlioLink::State::connecting;  // settle() opens it
            touch(link);
        }
    }
    drop_over_listeners();
}

// -- ends ------------------------------------------------------------------------------------------------------

void XlioPort::close(Link& base, How how) {
    auto& link = static_cast<XlioLink&>(base);
    if (link.state == XlioLink::State::over || link.state == XlioLink::State::free) return;
    if (how == How::abort) return end_link(link, Error(Errc::closed, Step::close, Who::local), true);
    if (std::exchange(link.finishing, true)) return;
    link.quiet_since_ns = host_.now_ns();
    touch(link);
    host_.poll_again();
}

/// False: the peer may be in the middle of something; looked at again later.
bool XlioPort::is_quiet(XlioLink& link) noexcept {
    const std::int64_t now = host_.now_ns();
    if (std::exchange(link.heard, false)) link.quiet_since_ns = now;
    if (link.end_heard || now - link.quiet_since_ns >= quiet_ns) return true;
    look_by(link.quiet_since_ns + quiet_ns);
    return false;
}

void XlioPort::look_by(std::int64_t at_ns) noexcept {
    if (at_ns >= look_again_ns_) return;
    look_again_ns_ = at_ns;
    host_.set_alarm(*this, at_ns);
}

void XlioPort::alarm() {
    look_again_ns_ = INT64_MAX;
    for (Chunk* chunk = chunks_; chunk != nullptr; chunk = chunk->next)
        for (XlioLink& link : chunk->links)
            if (link.state == XlioLink::State::open && link.finishing) touch(link);
    host_.poll_again();
}

/// What is left is told by the next poll.
void XlioPort::end_link(XlioLink& link, Error error, bool hard) noexcept {
    if (link.state == XlioLink::State::over) return;
    link.state = XlioLink::State::over;
    link.error = error;
    link.hard = hard;
    touch(link);
    host_.poll_again();
}

void XlioPort::destroy(XlioLink& link) noexcept {
    if (std::exchange(link.destroyed, true) || link.socket == 0) return;
    destroyed_ = true;
    if (link.hard) reset_on_close(link.socket);
    calls_.socket_destroy(link.socket);
}

/// Called until the stack has let go of the link.
void XlioPort::finish_link(XlioLink& link) {
    if (link.known && !std::exchange(link.closed_told, true)) link.sink->closed(link.error);
    link.early.clear();
    destroy(link);
    if (!link.terminated) return;
    link.with_stack.clear();
    if (link.known) link.sink->retired();
    release(link);
}

}  // namespace evpl::transport::xlio
