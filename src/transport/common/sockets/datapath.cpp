// Streams and messages: from the kernel to the sink, from the outbox to the kernel.
#include <sys/epoll.h>
#include <unistd.h>

#include <cerrno>

#include "transport/common/sockets/port.hpp"
#include "transport/common/sockets/zero_copy.hpp"

namespace evpl::transport::socket {
namespace {

/// A read is offered at least this much room, so that a fast stream fills few, large slices.
constexpr std::uint32_t read_room_least = 64u << 10;
/// Slices per sendmsg; more wait for the next round of the loop in flush.
constexpr unsigned slices_per_send = 64;
/// Descriptors that one receive may bring (SCM_MAX_FD is 253; ours are sent one at a time).
constexpr unsigned descriptors_per_read = 16;

}  // namespace

std::uint32_t SocketLink::ready(std::uint32_t events) {
    auto& socket_port = *static_cast<SocketPort*>(port);
    return flavor == Flavor::udp ? socket_port.datagram_ready(*this, events) : socket_port.stream_ready(*this, events);
}

std::uint32_t SocketPort::stream_ready(SocketLink& link, std::uint32_t events) {
    if (link.state == SocketLink::State::connecting) {
        if ((events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) != 0) finish_connect(link);
        if (link.state != SocketLink::State::open) return 0;
    }
    if (link.state != SocketLink::State::open) return 0;
    if ((link.owed & SocketLink::owe_open) != 0) {  // the first event came before our own poll
        link.owed &= std::uint8_t(~SocketLink::owe_open);
        link.sink->opened();
    }
    if ((events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) [[unlikely]] {
        link.hung_up = true;
        if ((events & EPOLLERR) != 0 && link.zero_copy != nullptr) zero_copy_done(link);
    }
    if ((events & EPOLLOUT) != 0 && link.blocked) {
        link.blocked = false;
        link.sink->writable();
    }
    if (link.read_ended) {
        if ((events & (EPOLLHUP | EPOLLERR)) != 0) broken_after_end(link);
        return 0;
    }
    if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) == 0) return 0;
    if (link.receive_paused) {
        link.owed |= SocketLink::owe_read;  // the edge is used up: resume() reads
        return 0;
    }
    return link.flavor == Flavor::unix_message ? read_messages(link) : read_stream(link);
}

// -- receive ---------------------------------------------------------------------------------------------------

ssize_t SocketPort::receive(SocketLink& link, std::span<std::byte> room, std::span<int>& descriptors, int& flags) noexcept {
    if (link.flavor == Flavor::tcp) {
        descriptors = {};
        return ::recv(link.watched_fd, room.data(), room.size(), 0);
    }
    iovec vector{room.data(), room.size()};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * descriptors_per_read) + CMSG_SPACE(sizeof(ucred))];
    msghdr message{nullptr, 0, &vector, 1, control, sizeof control, 0};
    const ssize_t got = ::recvmsg(link.watched_fd, &message, MSG_CMSG_CLOEXEC);
    flags = message.msg_flags;
    std::size_t count = 0;
    bool from_a_peer = false;
    if (got >= 0) {
        for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
            if (c->cmsg_level != SOL_SOCKET) continue;
            from_a_peer |= c->cmsg_type == SCM_CREDENTIALS;
            if (c->cmsg_type != SCM_RIGHTS) continue;
            const std::size_t fds = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
            for (std::size_t i = 0; i < fds; ++i) {
                int fd;
                __builtin_memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof fd);
                if (count < descriptors.size()) descriptors[count++] = fd;
                else ::close(fd);
            }
        }
    }
    descriptors = descriptors.first(count);
    // SO_PASSCRED makes every message carry credentials: what tells an empty message from the end.
    if (got == 0 && link.flavor == Flavor::unix_message && from_a_peer) flags |= MSG_EOR;
    return got;
}

std::uint32_t SocketPort::read_stream(SocketLink& link) {
    const std::uint32_t bytes_max = host.batch_bytes();
    std::uint32_t taken = 0;
    int descriptor_room[descriptors_per_read];
    while (taken < bytes_max) {
        const bool lands = link.landing.left_bytes > 0;
        const std::span<std::byte> room = lands ? std::span(link.landing.at, link.landing.left_bytes) : block.room(read_room_least);
        if (room.empty()) [[unlikely]] {  // out of buffers: the bytes wait in the kernel
            owe(link, SocketLink::owe_retry);
            return taken;
        }
        std::span<int> descriptors = descriptor_room;
        int flags = 0;
        const ssize_t got = receive(link, room, descriptors, flags);
        if (got > 0) [[likely]] {
            taken += std::uint32_t(got);
            if (lands) {
                link.landing.at += got;
                link.landing.left_bytes -= std::uint32_t(got);
                link.sink->landed(std::uint32_t(got));
            } else {
                Arrival arrival;
                arrival.descriptors = descriptors;
                link.sink->delivered(block.cut(std::uint32_t(got)), arrival);
            }
            if (link.receive_paused || link.state != SocketLink::State::open) break;
            // A short read means drained: the next byte makes a new edge (epoll(7)). Unless the peer has ended: then the end is next.
            // Or it brought descriptors: a receive ends with them, whatever is behind (unix(7)).
            if (std::size_t(got) < room.size() && !link.hung_up && !lands && descriptors.empty()) return taken;
            // After a whole block the others come first: what is read in one go beyond it would only wait in the outbox, and leave the cache.
            if (std::uint32_t(got) == ReceiveBlock::size_bytes && !lands) break;
            continue;
        }
        if (got == 0) {
            end_of_stream(link);
            return taken;
        }
        if (errno == EINTR) continue;
        if (!would_block(errno)) fail(link, Error::from_errno(errno, Step::recv));
        return taken;
    }
    if (link.state == SocketLink::State::open) owe(link, SocketLink::owe_read);
    return taken;
}

std::uint32_t SocketPort::read_messages(SocketLink& link) {
    const std::uint32_t bytes_max = host.batch_bytes();
    std::uint32_t taken = 0;
    int descriptor_room[descriptors_per_read];
    while (taken < bytes_max) {
        const std::span<std::byte> room = block.room(unix_message_bytes_max);
        if (room.empty()) [[unlikely]] {
            owe(link, SocketLink::owe_retry);
            return taken;
        }
        std::span<int> descriptors = descriptor_room;
        int flags = 0;
        const ssize_t got = receive(link, room, descriptors, flags);
        if (got > 0 || (got == 0 && (flags & MSG_EOR) != 0)) {
            taken += std::uint32_t(got) + 64;  // an empty message is work, too
            Arrival arrival;
            arrival.end_of_message = true;
            arrival.truncated = (flags & MSG_TRUNC) != 0;
            arrival.descriptors = descriptors;
            link.sink->delivered(block.cut(std::uint32_t(got)), arrival);
            if (link.receive_paused || link.state != SocketLink::State::open) break;
            continue;
        }
        if (got == 0) {
            end_of_stream(link);
            return taken;
        }
        if (errno == EINTR) continue;
        if (!would_block(errno)) fail(link, Error::from_errno(errno, Step::recv));
        return taken;
    }
    if (link.state == SocketLink::State::open) owe(link, SocketLink::owe_read);
    return taken;
}

void SocketPort::end_of_stream(SocketLink& link) {
    link.read_ended = true;
    link.sink->ended();
    if (link.write_ended) fail(link, Error(Errc::end, Step::close, Who::peer));
}

// Nothing is read any more, so only the socket's error tells that the peer has gone for good.
void SocketPort::broken_after_end(SocketLink& link) noexcept {
    int error = 0;
    socklen_t size = sizeof error;
    if (getsockopt(link.watched_fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error != 0) {
        fail(link, Error::from_errno(error, Step::send));
    }
}

// -- send ------------------------------------------------------------------------------------------------------

Flushed SocketPort::flush(Link& base) {
    auto& link = static_cast<SocketLink&>(base);
    if (link.state != SocketLink::State::open || link.blocked) return Flushed::blocked;
    switch (link.flavor) {
    case Flavor::udp: return flush_datagrams(link);
    case Flavor::unix_message: return flush_messages(link);
    default: return flush_stream(link);
    }
}

Flushed SocketPort::flush_stream(SocketLink& link) {
    SendQueue& out = *link.outbox;
    while (!out.empty()) {
        iovec vectors[slices_per_send];
        unsigned count = 0;
        std::size_t asked = 0;
        const bool passes = (BufferAccess::flags(out[0]) & BufferAccess::has_descriptor) != 0;
        for (; count < slices_per_send && count < out.count(); ++count) {
            // A descriptor travels with the first byte of its slice, so that slice starts a call of its own.
            if (count > 0 && (BufferAccess::flags(out[count]) & BufferAccess::has_descriptor) != 0) break;
            vectors[count] = {out[count].data(), out[count].size()};
            asked += out[count].size();
        }
        const bool by_reference = wants_zero_copy(link, asked) && link.zero_copy->reserve(count);
        const int flags = MSG_NOSIGNAL | (by_reference ? MSG_ZEROCOPY : 0);
        ssize_t sent;
        if (count == 1 && !passes) {
            sent = ::send(link.watched_fd, vectors[0].iov_base, vectors[0].iov_len, flags);
        } else {
            msghdr message{nullptr, 0, vectors, count, nullptr, 0, 0};
            alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
            if (passes) {
                message.msg_control = control;
                message.msg_controllen = sizeof control;
                cmsghdr* c = CMSG_FIRSTHDR(&message);
                c->cmsg_level = SOL_SOCKET;
                c->cmsg_type = SCM_RIGHTS;
                c->cmsg_len = CMSG_LEN(sizeof(int));
                __builtin_memcpy(CMSG_DATA(c), &out.descriptors.front(), sizeof(int));
            }
            sent = ::sendmsg(link.watched_fd, &message, flags);
        }
        if (sent < 0) {
            if (errno == EINTR) continue;
            return send_failed(link, errno);
        }
        if (passes) {
            ::close(out.descriptors.front());
            out.descriptors.pop();
            BufferAccess::set_flags(out[0], 0);
        }
        if (by_reference) {
            link.zero_copy->started(out, std::size_t(sent));
        } else {
            out.drop_front(std::size_t(sent));
            link.sink->sent(std::size_t(sent));
        }
        // After a short send one more try: its EAGAIN is what makes the kernel report room later.
    }
    if (link.draining || link.finishing) outbox_empty(link);
    return Flushed::all;
}

// A message of more slices than one call takes goes into one block first.
bool SocketPort::gather_message(SendQueue& out) noexcept {
    auto whole = host.heap().allocate(unix_message_bytes_max);
    if (!whole) return false;
    std::uint32_t size = 0, flags = BufferAccess::flags(out[0]);
    for (std::uint32_t i = 0;; ++i) {
        __builtin_memcpy(whole->data() + size, out[i].data(), out[i].size());
        size += out[i].size();
        if ((BufferAccess::flags(out[i]) & BufferAccess::end_of_message) == 0) continue;
        for (; i > 0; --i) out.pop();
        break;
    }
    whole->truncate(size);
    BufferAccess::set_flags(*whole, flags | BufferAccess::end_of_message);
    out.replace_front(*std::move(whole));
    return true;
}

Flushed SocketPort::flush_messages(SocketLink& link) {
    SendQueue& out = *link.outbox;
    while (out.count() > 0) {
        iovec vectors[slices_per_send];
        unsigned count = 0;
        std::size_t asked = 0;
        bool ends = false;
        const bool passes = (BufferAccess::flags(out[0]) & BufferAccess::has_descriptor) != 0;
        while (!ends && count < slices_per_send && count < out.count()) {
            vectors[count] = {out[count].data(), out[count].size()};
            asked += out[count].size();
            ends = (BufferAccess::flags(out[count++]) & BufferAccess::end_of_message) != 0;
        }
        if (!ends && count < out.count()) {
            if (!gather_message(out)) {
                owe(link, SocketLink::owe_retry);
                link.blocked = true;
                return Flushed::blocked;
            }
            continue;
        }
        msghdr message{nullptr, 0, vectors, count, nullptr, 0, 0};
        alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
        if (passes) {
            message.msg_control = control;
            message.msg_controllen = sizeof control;
            cmsghdr* c = CMSG_FIRSTHDR(&message);
            c->cmsg_level = SOL_SOCKET;
            c->cmsg_type = SCM_RIGHTS;
            c->cmsg_len = CMSG_LEN(sizeof(int));
            __builtin_memcpy(CMSG_DATA(c), &out.descriptors.front(), sizeof(int));
        }
        const ssize_t sent = ::sendmsg(link.watched_fd, &message, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno == EINTR) continue;
            return send_failed(link, errno);
        }
        if (passes) {
            ::close(out.descriptors.front());
            out.descriptors.pop();
        }
        for (unsigned i = 0; i < count; ++i) out.pop();
        link.sink->sent(asked);
    }
    if (link.draining || link.finishing) outbox_empty(link);
    return Flushed::all;
}

Flushed SocketPort::send_failed(SocketLink& link, int error) noexcept {
    if (would_block(error)) {
        link.blocked = true;
    } else if (error == ENOBUFS || error == ENOMEM || error == ETOOMANYREFS) {
        link.blocked = true;  // the kernel is short of memory for a moment
        owe(link, SocketLink::owe_retry);
    } else {
        fail(link, Error::from_errno(error, Step::send));
    }
    return Flushed::blocked;
}

}  // namespace evpl::transport::socket
