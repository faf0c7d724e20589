// Everything of a socket's life but the bytes: options, connect, close, and what the port owes its links between polls.
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

#include "transport/common/sockets/port.hpp"
#include "transport/common/sockets/zero_copy.hpp"

namespace evpl::transport::socket {
namespace {

/// A full Unix backlog or a kernel without buffers is tried again after this long.
constexpr std::int64_t retry_ns = 1'000'000;
constexpr unsigned links_per_chunk = 32;

}  // namespace

struct SocketPort::Chunk {
    Chunk* next = nullptr;
    SocketLink links[links_per_chunk];
};

SocketPort::SocketPort(Host& h, Sleeper& s) noexcept : host(h), sleeper(s), block(h.heap()) {}

SocketPort::~SocketPort() {
    close_links();
    free_listenings();
    while (Chunk* chunk = chunks_) {
        chunks_ = chunk->next;
        for (SocketLink& link : chunk->links) {
            delete link.zero_copy;
            delete link.unix_target;
            close_datagram(link);
        }
        delete chunk;
    }
}

void SocketPort::close_links() noexcept {
    for (Chunk* chunk = chunks_; chunk != nullptr; chunk = chunk->next) {
        for (SocketLink& link : chunk->links) {
            if (link.state != SocketLink::State::idle) SocketPort::close_descriptor(link, false);
        }
    }
}

SocketLink* SocketPort::take_link() noexcept {
    if (free_ == nullptr) {
        auto* chunk = new (std::nothrow) Chunk;
        if (chunk == nullptr) return nullptr;
        chunk->next = chunks_;
        chunks_ = chunk;
        for (SocketLink& link : chunk->links) {
            link.port = this;
            link.next = free_;
            free_ = &link;
        }
    }
    SocketLink* link = free_;
    free_ = link->next;
    link->next = nullptr;
    return link;
}

void SocketPort::release(SocketLink& link) noexcept {
    if (link.driven != nullptr) free_driven(link);
    delete link.zero_copy;
    delete link.unix_target;
    close_datagram(link);
    const std::uint32_t generation = link.generation + 1;
    const std::uint16_t tag = link.tag;
    link.~SocketLink();
    new (&link) SocketLink;
    link.port = this;
    link.generation = generation;
    link.tag = tag;
    link.next = free_;
    free_ = &link;
}

Result<void> SocketPort::watch(SocketLink& link, std::uint32_t events) noexcept { return sleeper.add(link, link.watched_fd, events); }

void SocketPort::read_again(SocketLink& link) {
    if (link.flavor == Flavor::udp) datagram_ready(link, EPOLLIN);
    else stream_ready(link, EPOLLIN);
}

bool SocketPort::holds(const SocketLink& link) const noexcept { return link.zero_copy != nullptr && link.zero_copy->pending(); }

// -- what the port owes ----------------------------------------------------------------------------------------

void SocketPort::owe(SocketLink& link, std::uint8_t what) noexcept {
    if (what == SocketLink::owe_retry) {
        if ((link.owed & SocketLink::owe_retry) != 0) return;  // waits already
        SocketLink* waiting = &link;
        if (retrying_.push(std::move(waiting))) {
            link.owed |= SocketLink::owe_retry;
            return retry_after(retry_ns);
        }
        what = SocketLink::owe_read;  // no memory to wait: looked at in the next turn
    }
    link.owed |= what;
    if (link.queued) return;
    SocketLink* one = &link;
    link.queued = owing_.push(std::move(one));
    host.poll_again();
}

unsigned SocketPort::poll(unsigned budget) {
    unsigned done = 0;
    for (std::uint32_t left = owing_.size(); left > 0 && done < budget; --left, ++done) {
        SocketLink* link = owing_.front();
        owing_.pop();
        link->queued = false;
        settle(*link);
    }
    if (!owing_.empty()) host.poll_again();
    return done;
}

void SocketPort::settle(SocketLink& link) {
    const std::uint8_t owed = link.owed;
    link.owed &= SocketLink::owe_retry;
    if ((owed & SocketLink::owe_open) != 0 && link.state == SocketLink::State::open) link.sink->opened();
    if ((owed & SocketLink::owe_read) != 0 && link.state == SocketLink::State::open && !link.read_ended) {
        if (link.receive_paused) link.owed |= SocketLink::owe_read;
        else read_again(link);
    }
    if ((owed & SocketLink::owe_close) != 0) link.sink->closed(link.end);
    if ((owed & SocketLink::owe_retire) == 0) return;
    Sink* sink = link.sink;
    if ((link.owed & SocketLink::owe_retry) != 0 || busy(link)) return;  // released when it leaves the retry list, or the kernel
    release(link);
    sink->retired();
}

void SocketPort::retry_after(std::int64_t delay_ns) noexcept {
    const std::int64_t at_ns = host.now_ns() + delay_ns;
    if (at_ns >= retry_at_ns_) return;
    retry_at_ns_ = at_ns;
    host.set_alarm(*this, at_ns);
}

void SocketPort::alarm() {
    retry_at_ns_ = INT64_MAX;
    retry_listeners();
    for (std::uint32_t left = retrying_.size(); left > 0; --left) {
        SocketLink& link = *retrying_.front();
        retrying_.pop();
        link.owed &= std::uint8_t(~SocketLink::owe_retry);
        if (link.state == SocketLink::State::connecting) {
            if (const Error error = start_connect(link); !error.ok()) fail(link, error);
        } else if (link.state == SocketLink::State::open) {
            if (link.blocked) {
                link.blocked = false;
                link.sink->writable();
            }
            owe(link, SocketLink::owe_read);
        } else {
            owe(link, SocketLink::owe_retire);
        }
    }
}

// -- ends ------------------------------------------------------------------------------------------------------

void close_with_reset(int fd) noexcept {
    const linger now{1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    ::close(fd);
}

void SocketPort::close_descriptor(SocketLink& link, bool reset) noexcept {
    const int fd = link.watched_fd;
    if (fd < 0) return;
    sleeper.remove(link, true);
    if (reset) close_with_reset(fd);
    else ::close(fd);
    retry_after_close();
}

void SocketPort::retry_after_close() noexcept {
    if (paused_listeners_ != nullptr) retry_after(retry_ns);
}

void SocketPort::fail(SocketLink& link, Error error) noexcept {
    if (link.state == SocketLink::State::closed) return;
    link.state = SocketLink::State::closed;
    link.end = error;
    // After a failure the peer must not take what it has got for all there is.
    close_descriptor(link, error.code() != Errc::end && link.flavor == Flavor::tcp);
    owe(link, SocketLink::owe_close | SocketLink::owe_retire);
}

void SocketPort::outbox_empty(SocketLink& link) noexcept {
    if (holds(link)) return;  // asked again when the kernel has let go
    // With both directions at their end, close(2) says so to the peer, too.
    if (link.finishing || link.read_ended) return fail(link, Error(Errc::end, Step::close, Who::local));
    if (link.write_ended) return;
    link.write_ended = true;
    ::shutdown(link.watched_fd, SHUT_WR);
}

void SocketPort::close(Link& base, How how) {
    auto& link = static_cast<SocketLink&>(base);
    if (link.state == SocketLink::State::closed) return;
    if (how == How::abort || link.state == SocketLink::State::connecting) {
        const bool unsent = link.state == SocketLink::State::open && link.outbox->count() > 0;
        close_descriptor(link, (unsent || holds(link)) && link.flavor == Flavor::tcp);
        return fail(link, Error(Errc::closed, Step::close, Who::local));
    }
    (how == How::drain ? link.draining : link.finishing) = true;
    if (link.outbox->count() == 0) outbox_empty(link);
}

void SocketPort::pause(Link& link) { link.receive_paused = true; }

void SocketPort::resume(Link& base) {
    auto& link = static_cast<SocketLink&>(base);
    link.receive_paused = false;
    owe(link, SocketLink::owe_read);  // the edge that came meanwhile is used up
}

Flavor family_of(const Endpoint& endpoint) noexcept { return endpoint.scheme().ends_with("unix") ? Flavor::unix_stream : Flavor::tcp; }

Flavor flavor_of(const Endpoint& endpoint, const Options& options) noexcept {
    if (family_of(endpoint) == Flavor::tcp) return Flavor::tcp;
    return options.message_mode ? Flavor::unix_message : Flavor::unix_stream;
}

// -- connect ---------------------------------------------------------------------------------------------------

Result<Link*> SocketPort::connect(const Endpoint& to, const Address& address, Sink& sink, SendQueue& outbox, Diagnostic& why) {
    const bool local = family_of(to) == Flavor::unix_stream;
    auto options = parse_options(to, family_of(to), why);
    if (!options) return options.error();
    const Flavor flavor = flavor_of(to, *options);
    SocketAddress target = to_kernel(address);
    if (local) {
        const auto path = unix_address(to, why);
        if (!path) return path.error();
        target = *path;
    }
    const int type = flavor == Flavor::unix_message ? SOCK_SEQPACKET : SOCK_STREAM;
    const int fd = ::socket(target.base.sa_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return Error::from_errno(errno, Step::open);
    if (const auto applied = apply_options(fd, flavor, target.base.sa_family == AF_INET6, *options, why); !applied) {
        ::close(fd);
        return applied.error();
    }
    SocketLink* link = take_link();
    if (link == nullptr) {
        ::close(fd);
        return Errc::out_of_memory;
    }
    link->state = SocketLink::State::connecting;
    link->flavor = flavor;
    link->sink = &sink;
    link->outbox = &outbox;
    link->caps = &caps_of(flavor, options->zero_copy);
    link->peer = address;
    link->watched_fd = fd;
    if (options->zero_copy) link->zero_copy = new (std::nothrow) ZeroCopy;
    if (local) {  // the path is not kept: a retry needs it again
        auto* kept = new (std::nothrow) SocketAddress(target);
        if (kept == nullptr) {
            ::close(fd);
            link->watched_fd = -1;
            release(*link);
            return Errc::out_of_memory;
        }
        link->unix_target = kept;
    }
    if (const Error error = start_connect(*link); !error.ok()) {
        // Told by closed(), as every failure of the network: the caller has one place to look.
        fail(*link, error);
    }
    return static_cast<Link*>(link);
}

Error SocketPort::start_connect(SocketLink& link) noexcept {
    const SocketAddress target = link.unix_target != nullptr ? *link.unix_target : to_kernel(link.peer);
    const int fd = link.watched_fd;
    int result;
    do {
        result = ::connect(fd, &target.base, target.size);
    } while (result != 0 && errno == EINTR);
    if (result != 0 && errno == EAGAIN && link.unix_target != nullptr) {  // its backlog is full (unix(7))
        owe(link, SocketLink::owe_retry);
        return {};
    }
    if (result != 0 && errno != EINPROGRESS) return Error::from_errno(errno, Step::connect);
    const bool connected = result == 0;
    if (connected) link.state = SocketLink::State::open;
    if (const auto added = watch(link, stream_events); !added) return added.error();
    if (connected) owe(link, SocketLink::owe_open);
    return {};
}

void SocketPort::finish_connect(SocketLink& link) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(link.watched_fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) return fail(link, Error::from_errno(error, Step::connect));
    link.state = SocketLink::State::open;
    link.sink->opened();
}

// -- looking ---------------------------------------------------------------------------------------------------

Address SocketPort::remote_address(const Link& base) const { return static_cast<const SocketLink&>(base).peer; }

Address SocketPort::local_address(const Link& base) const {
    SocketAddress name;
    if (getsockname(static_cast<const SocketLink&>(base).watched_fd, &name.base, &name.size) != 0) return {};
    return from_kernel(name);
}

std::size_t SocketPort::remote_name(const Link& base, std::span<char> room) const {
    const auto& link = static_cast<const SocketLink&>(base);
    if (link.flavor == Flavor::tcp || link.flavor == Flavor::udp) return link.peer.describe(room.data(), room.size());
    SocketAddress name;
    if (getpeername(link.watched_fd, &name.base, &name.size) != 0) name.size = 0;
    const std::size_t path_bytes = name.size > sizeof(sa_family_t) ? name.size - sizeof(sa_family_t) : 0;
    std::int32_t pid = -1;
    std::uint32_t uid = 0, gid = 0;
    int length;
    if (path_bytes > 0 && name.local.sun_path[0] != '\0') {
        length = std::snprintf(room.data(), room.size(), "%.*s", int(path_bytes), name.local.sun_path);
    } else if (path_bytes > 1) {
        length = std::snprintf(room.data(), room.size(), "@%.*s", int(path_bytes - 1), name.local.sun_path + 1);
    } else if (credentials(base, pid, uid, gid)) {  // most clients have no name: their process says more
        length = std::snprintf(room.data(), room.size(), "pid %d uid %u", pid, uid);
    } else {
        length = std::snprintf(room.data(), room.size(), "unnamed");
    }
    return std::min(std::size_t(length), room.size() - 1);
}

int SocketPort::native_fd(const Link& base) const noexcept { return static_cast<const SocketLink&>(base).watched_fd; }

Result<void> SocketPort::credentials(const Link& base, std::int32_t& pid, std::uint32_t& uid, std::uint32_t& gid) const {
    const auto& link = static_cast<const SocketLink&>(base);
    if (link.flavor != Flavor::unix_stream && link.flavor != Flavor::unix_message) return Errc::not_supported;
    ucred peer{};
    socklen_t size = sizeof peer;
    if (getsockopt(link.watched_fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return Error::from_errno(errno, Step::open);
    pid = peer.pid;
    uid = peer.uid;
    gid = peer.gid;
    return {};
}

}  // namespace evpl::transport::socket
