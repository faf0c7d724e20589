// Listeners: bind, accept, hand out, and waiting when the process is out of descriptors.
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <new>
#include <utility>

#include "transport/common/sockets/listening.hpp"
#include "transport/common/sockets/port.hpp"
#include "transport/common/sockets/zero_copy.hpp"

namespace evpl::transport::socket {
namespace {

/// Connections taken per event; more wait for the next turn, so that a flood does not starve the connected.
constexpr unsigned accepts_per_event = 64;
/// Out of descriptors: tried again so often, and at once when one of ours is closed.
constexpr std::int64_t accept_retry_ns = 50'000'000;

bool out_of_resources(int error) noexcept { return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM; }

// Errors of the peer's, not of the listener (accept(2), "Error handling").
bool peer_gave_up(int error) noexcept {
    return error == ECONNABORTED || error == EPROTO || error == ENETDOWN || error == ENOPROTOOPT || error == EHOSTDOWN || error == ENONET ||
           error == EHOSTUNREACH || error == EOPNOTSUPP || error == ENETUNREACH || error == EPERM;
}

}  // namespace

void SocketListening::pause() noexcept {
    paused_by_owner = true;
    disarm();
}

void SocketListening::resume() noexcept {
    paused_by_owner = false;
    if (!waiting) arm();
}

int SocketListening::hand_over() noexcept {
    if (!std::exchange(handed_over, true)) socket_port().handed_over(*this);
    return fd;
}

void SocketListening::close() noexcept {
    if (waiting) unlist();
    armed = false;
    socket_port().unwatch(*this, true);
    ::close(fd);
    remove_file();
    socket_port().put_away(*this);
}

std::uint32_t SocketListening::ready(std::uint32_t) {
    for (unsigned i = 0; i < accepts_per_event && armed; ++i) {
        if (!accept_one()) break;
    }
    return 0;
}

void SocketListening::retry() noexcept {
    if (!waiting) return;
    unlist();
    if (!paused_by_owner) arm();
}

bool SocketListening::arm() noexcept {
    if (armed) return true;
    armed = socket_port().watch(*this).ok();
    return armed;
}

bool SocketListening::accept_one() {
    SocketAddress from;
    const int peer_fd = ::accept4(fd, &from.base, &from.size, SOCK_NONBLOCK | SOCK_CLOEXEC);
    return peer_fd < 0 ? accept_failed(errno) : take_peer(peer_fd, from_kernel(from));
}

bool SocketListening::take_peer(int peer_fd, const Address& peer) {
    if (acceptor->taken(peer_fd, peer)) return true;
    const auto link = socket_port().wrap_accepted(peer_fd, flavor, peer);
    if (!link) {
        wait_for_resources(link.error());
        return false;
    }
    (*link)->caps = &caps_of(flavor, options.zero_copy);
    if (options.zero_copy) (*link)->zero_copy = new (std::nothrow) ZeroCopy;
    if (!acceptor->accepted(**link)) {
        socket_port().drop_accepted(**link);
        return true;
    }
    socket_port().start_accepted(**link);
    return true;
}

bool SocketListening::accept_failed(int error) {
    if (error == EINTR || peer_gave_up(error)) return true;
    if (error == EAGAIN || error == EWOULDBLOCK) return false;
    if (out_of_resources(error)) {
        wait_for_resources(Error::from_errno(error, Step::accept));
        return false;
    }
    disarm();
    acceptor->failed(Error::from_errno(error, Step::accept));
    return false;
}

void SocketListening::wait_for_resources(Error why) {
    disarm();
    waiting = true;
    next_waiting = socket_port().paused_listeners_;
    socket_port().paused_listeners_ = this;
    socket_port().retry_after(accept_retry_ns);
    acceptor->paused(why);
}

void SocketListening::unlist() noexcept {
    waiting = false;
    for (SocketListening** at = &socket_port().paused_listeners_; *at != nullptr; at = &(*at)->next_waiting) {
        if (*at != this) continue;
        *at = next_waiting;
        return;
    }
}

void SocketListening::disarm() noexcept {
    if (!armed) return;
    armed = false;
    socket_port().unwatch(*this, false);
}

void SocketListening::remove_file() noexcept {
    struct stat now {};
    if (path[0] == '\0' || options.unlink == 0 || handed_over) return;
    if (::stat(path, &now) == 0 && now.st_dev == device && now.st_ino == inode) ::unlink(path);
}

void SocketPort::retry_listeners() noexcept {
    SocketListening* list = paused_listeners_;
    while (list != nullptr) {
        SocketListening* one = list;
        list = list->next_waiting;
        one->retry();
    }
}

// Kept for the next listener, not freed: an event of this one may be among those the sleeper has left over.
void SocketPort::put_away(SocketListening& listening) noexcept {
    listening.next_waiting = closed_listeners_;
    closed_listeners_ = &listening;
}

SocketListening* SocketPort::take_listening(Flavor flavor, const Options& options) noexcept {
    SocketListening* const one = closed_listeners_;
    if (one == nullptr) return new (std::nothrow) SocketListening(*this, flavor, options);
    closed_listeners_ = one->next_waiting;
    const std::uint16_t tag = one->tag;
    one->~SocketListening();
    new (one) SocketListening(*this, flavor, options);
    one->tag = tag;
    return one;
}

void SocketPort::free_listenings() noexcept {
    while (SocketListening* one = closed_listeners_) {
        closed_listeners_ = one->next_waiting;
        delete one;
    }
}

Result<void> SocketPort::watch(SocketListening& listening) noexcept { return sleeper.add(listening, listening.fd, EPOLLIN); }

void SocketPort::unwatch(SocketListening& listening, bool closing) noexcept { sleeper.remove(listening, closing); }

// -- accepted links --------------------------------------------------------------------------------------------

Result<SocketLink*> SocketPort::wrap_accepted(int fd, Flavor flavor, const Address& peer) noexcept {
    SocketLink* link = take_link();
    if (link == nullptr) {
        close_with_reset(fd);
        return Errc::out_of_memory;
    }
    link->state = SocketLink::State::open;
    link->flavor = flavor;
    link->peer = peer;
    link->watched_fd = fd;
    return link;
}

void SocketPort::drop_accepted(SocketLink& link) noexcept {
    close_descriptor(link, link.flavor == Flavor::tcp);
    release(link);
}

void SocketPort::start_accepted(SocketLink& link) {
    const auto added = watch(link, stream_events);
    if (!added) return fail(link, added.error());
    link.sink->opened();
}

Result<Link*> SocketPort::adopt(const Endpoint& endpoint, int fd, const Address& peer, Sink& sink, SendQueue& outbox) {
    Diagnostic unused;
    const auto options = parse_options(endpoint, family_of(endpoint), unused);
    if (!options) {
        ::close(fd);
        return options.error();
    }
    const Flavor flavor = flavor_of(endpoint, *options);
    const auto wrapped = wrap_accepted(fd, flavor, peer);
    if (!wrapped) return wrapped.error();
    SocketLink& link = **wrapped;
    link.sink = &sink;
    link.outbox = &outbox;
    link.caps = &caps_of(flavor, options->zero_copy);
    if (options->zero_copy) link.zero_copy = new (std::nothrow) ZeroCopy;
    const auto added = watch(link, stream_events);
    if (!added) {
        drop_accepted(link);
        return added.error();
    }
    owe(link, SocketLink::owe_open);
    return static_cast<Link*>(&link);
}

// -- bind ------------------------------------------------------------------------------------------------------

namespace {

bool is_local(Flavor flavor) noexcept { return flavor == Flavor::unix_stream || flavor == Flavor::unix_message; }

/// Where an endpoint wants to be.
Error address_of(const Endpoint& at, Flavor flavor, SocketAddress& wanted, Diagnostic& why) noexcept {
    if (is_local(flavor)) {
        const auto path = unix_address(at, why);
        if (path) wanted = *path;
        return path ? Error() : path.error();
    }
    const auto address = literal_address(at, why);
    if (address) wanted = to_kernel(*address);
    return address ? Error() : address.error();
}

Error bind_failed(const Endpoint& at, int error, Step step, Diagnostic& why) noexcept {
    const Error failure = Error::from_errno(error, step);
    char where[200];
    describe_bound(at, at.port(), where);
    std::snprintf(why.text, sizeof why.text, "cannot listen at %s: %s (%s)", where, name_of(failure.code()), std::strerror(error));
    return failure;
}

// A socket file that nobody listens at is left over from a process that ended: connecting to it is refused.
bool remove_stale_file(const SocketAddress& address) noexcept {
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return false;
    const bool refused = ::connect(fd, &address.base, address.size) != 0 && errno == ECONNREFUSED;
    ::close(fd);
    struct stat info {};
    if (!refused || ::stat(address.local.sun_path, &info) != 0 || !S_ISSOCK(info.st_mode)) return false;
    return ::unlink(address.local.sun_path) == 0;
}

int bind_unix(int fd, const SocketAddress& address, const Options& options) noexcept {
    if (::bind(fd, &address.base, address.size) == 0) return 0;
    if (errno != EADDRINUSE || address.local.sun_path[0] == '\0' || options.unlink == 0) return errno;
    if (!remove_stale_file(address)) return EADDRINUSE;
    return ::bind(fd, &address.base, address.size) == 0 ? 0 : errno;
}

int system_backlog() noexcept {
    int value = 4096;  // the kernel's default since 5.4 (listen(2)); read, as listen() would cap a larger one silently
    if (FILE* file = std::fopen("/proc/sys/net/core/somaxconn", "re")) {
        if (std::fscanf(file, "%d", &value) != 1) value = 4096;
        std::fclose(file);
    }
    return value;
}

Error not_that_socket(const Options& options, int error, Diagnostic& why, const char* what) noexcept {
    std::snprintf(why.text, sizeof why.text, "fd=%d %s%s%s", int(options.descriptor), what, error != 0 ? ": " : "", error != 0 ? std::strerror(error) : "");
    return Error(Errc::bad_option, Step::listen, Who::local, error);
}

/// -1 and errno, which else is 0.
int option_of(int fd, int name) noexcept {
    int value = -1;
    socklen_t size = sizeof value;
    errno = 0;
    return getsockopt(fd, SOL_SOCKET, name, &value, &size) == 0 ? value : -1;
}

bool same_path(const SocketAddress& bound, const SocketAddress& wanted) noexcept {
    const char *const is = bound.local.sun_path, *const asked = wanted.local.sun_path;
    if (asked[0] != '\0') return std::strncmp(is, asked, sizeof bound.local.sun_path) == 0;
    return bound.size == wanted.size && std::memcmp(is, asked, wanted.size - offsetof(sockaddr_un, sun_path)) == 0;
}

bool same_place(const SocketAddress& bound, const SocketAddress& wanted, bool anywhere) noexcept {
    if (wanted.base.sa_family == AF_UNIX) return bound.base.sa_family == AF_UNIX && same_path(bound, wanted);
    const Address is = from_kernel(bound), asked = from_kernel(wanted);
    if (is.family == Address::Family::none || (asked.port != 0 && asked.port != is.port)) return false;
    return anywhere || (is.family == asked.family && std::memcmp(is.bytes, asked.bytes, sizeof is.bytes) == 0);
}

/// A duplicate of the socket that somebody else has bound; the option's own descriptor is left alone.
Result<int> inherited_socket(const Endpoint& at, Flavor flavor, const Options& options, SocketAddress& bound, Diagnostic& why) noexcept {
    const int given = int(options.descriptor);
    if (option_of(given, SO_ACCEPTCONN) != 1) return not_that_socket(options, errno, why, "is not a listening socket");
    const int type = flavor == Flavor::unix_message ? SOCK_SEQPACKET : SOCK_STREAM;
    SocketAddress wanted;
    if (const Error error = address_of(at, flavor, wanted, why); !error.ok()) return error;
    bound.size = sizeof bound.storage;
    const bool is_named = getsockname(given, &bound.base, &bound.size) == 0;
    if (!is_named || option_of(given, SO_TYPE) != type || !same_place(bound, wanted, at.host() == "*")) {
        return not_that_socket(options, 0, why, "listens elsewhere than this URL says");
    }
    const int fd = ::fcntl(given, F_DUPFD_CLOEXEC, 0);
    if (fd < 0) return bind_failed(at, errno, Step::open, why);
    const int flags = ::fcntl(fd, F_GETFL);
    auto applied = apply_options(fd, flavor, bound.base.sa_family == AF_INET6, options, why);
    if (applied && ::fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0) applied = bind_failed(at, errno, Step::open, why);
    if (applied) return fd;
    ::close(fd);
    return applied.error();
}

}  // namespace

Result<Listening*> SocketPort::listen(const Endpoint& at, bool shared, Acceptor& acceptor, Diagnostic& why) {
    const bool local = family_of(at) == Flavor::unix_stream;
    const auto options = parse_options(at, family_of(at), why);
    if (!options) return options.error();
    const Flavor flavor = flavor_of(at, *options);
    const bool inherited = options->descriptor >= 0;
    if (shared && (local || inherited)) return Errc::not_supported;
    SocketAddress bound;
    const auto opened =
        inherited ? inherited_socket(at, flavor, *options, bound, why) : open_bound_socket(at, flavor, shared || options->reuse_port, *options, bound, why);
    if (!opened) return opened.error();
    const int fd = *opened;
    const int backlog = options->backlog > 0 ? int(options->backlog) : system_backlog();
    if (::listen(fd, backlog) != 0) {
        const Error error = bind_failed(at, errno, Step::listen, why);
        ::close(fd);
        return error;
    }
    auto* listening = take_listening(flavor, *options);
    if (listening == nullptr) {
        ::close(fd);
        return Errc::out_of_memory;
    }
    listening->fd = fd;
    listening->acceptor = &acceptor;
    struct stat file {};
    if (local && at.host().front() != '@' && ::stat(bound.local.sun_path, &file) == 0) {
        std::memcpy(listening->path, bound.local.sun_path, sizeof listening->path - 1);
        listening->device = file.st_dev;
        listening->inode = file.st_ino;
    }
    listening->number = from_kernel(bound).port;
    describe_bound(at, listening->number, listening->url_text);
    if (!listening->arm()) {
        listening->handed_over = inherited;
        listening->close();
        return Errc::out_of_memory;
    }
    if (inherited) ::close(int(options->descriptor));
    return static_cast<Listening*>(listening);
}

void describe_bound(const Endpoint& at, std::uint16_t number, std::span<char> text) noexcept {
    const bool bracket = at.host().find(':') != std::string_view::npos;
    const int host = int(std::min<std::size_t>(at.host().size(), 120));
    if (at.has_port()) {
        std::snprintf(text.data(), text.size(), "%.*s://%s%.*s%s:%u", int(at.scheme().size()), at.scheme().data(), bracket ? "[" : "", host, at.host().data(),
                      bracket ? "]" : "", number);
    } else {
        std::snprintf(text.data(), text.size(), "%.*s://%.*s", int(at.scheme().size()), at.scheme().data(), host, at.host().data());
    }
}

Result<int> open_bound_socket(const Endpoint& at, Flavor flavor, bool shared, const Options& options, SocketAddress& bound, Diagnostic& why) noexcept {
    const bool local = is_local(flavor);
    SocketAddress wanted;
    if (const Error error = address_of(at, flavor, wanted, why); !error.ok()) return error;
    const int type = flavor == Flavor::udp ? SOCK_DGRAM : flavor == Flavor::unix_message ? SOCK_SEQPACKET : SOCK_STREAM;
    int fd = ::socket(wanted.base.sa_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 && errno == EAFNOSUPPORT && at.host() == "*") {  // no IPv6 here: "*" means all of IPv4
        Address any;
        any.family = Address::Family::ipv4;
        any.port = at.port();
        wanted = to_kernel(any);
        fd = ::socket(AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    }
    if (fd < 0) return bind_failed(at, errno, Step::open, why);
    const int on = 1, off = 0;
    if (wanted.base.sa_family == AF_INET6) {
        const bool both = at.host() == "*";
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, both ? &off : &on, sizeof on);
    }
    if (flavor == Flavor::tcp) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (shared) setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    if (const auto applied = apply_options(fd, flavor, wanted.base.sa_family == AF_INET6, options, why); !applied) {
        ::close(fd);
        return applied.error();
    }
    const int error = local ? bind_unix(fd, wanted, options) : ::bind(fd, &wanted.base, wanted.size) == 0 ? 0 : errno;
    if (error != 0) {
        ::close(fd);
        return bind_failed(at, error, Step::bind, why);
    }
    bound = wanted;
    if (!local) {
        bound.size = sizeof bound.storage;
        if (getsockname(fd, &bound.base, &bound.size) != 0) {  // a port that nobody can name is of no use
            const Error failure = bind_failed(at, errno, Step::bind, why);
            ::close(fd);
            return failure;
        }
    }
    return fd;
}

}  // namespace evpl::transport::socket
