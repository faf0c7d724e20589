// Bytes: from completions to the sink, from the outbox to the ring.
#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>

#include "transport/uring/port.hpp"

namespace evpl::transport::uring {
namespace {

constexpr unsigned inline_vectors = 64;
/// Bytes of one send through the ring: a slow peer's progress shows after this many at the latest.
constexpr std::size_t send_bytes_max = 1u << 20;
/// After so many receives in a row that fill their buffer, or use less than a sixteenth of it, the other size is taken.
constexpr std::uint8_t misfits_max = 8;
constexpr std::uint32_t misfit_part = 16;

}  // namespace

// -- receive ---------------------------------------------------------------------------------------------------

void UringPort::arm_receive(Driven& driven) noexcept {
    SocketLink& link = *driven.link;
    if (driven.receive.out || link.state == SocketLink::State::closed || link.read_ended) return;
    if (!driven.by_bytes) return poll_for(driven, k_receive, driven.receive, EPOLLIN | EPOLLRDHUP, true);
    if (link.receive_paused) return;
    if (starved_) return owe(link, SocketLink::owe_retry);  // the bytes wait in the kernel
    if (driven.large && !large_->is_open() && !large_->open(ring_sleeper_->ring, false)) driven.large = false;
    abi::Sqe receive;
    receive.operation = abi::op_receive;
    receive.flags = abi::sqe_buffer_select;
    receive.priority = abi::receive_multishot;
    receive.buffer_group = driven.large ? large_->number() : small_->number();
    driven.receive = {submit(driven, k_receive, receive), false};
}

std::uint32_t UringPort::received(Driven& driven, const abi::Cqe& done) {
    SocketLink& link = *driven.link;
    Buffer bytes = (driven.large ? *large_ : *small_).take(done);
    counts_.starved += done.result == -ENOBUFS;
    if (done.result > 0) {
        counts_.late += link.receive_paused;
        counts_.ended_by_themselves += !driven.receive.out;
    }
    if (driven.changes_group && !driven.receive.out) {
        driven.changes_group = false;
        driven.large = !driven.large;
    }
    if (link.state == SocketLink::State::closed) return 0;
    if ((link.owed & SocketLink::owe_open) != 0) {  // the bytes came before our own poll
        link.owed &= std::uint8_t(~SocketLink::owe_open);
        link.sink->opened();
    }
    const std::uint32_t size = bytes.size();
    if (size > 0) {
        choose_group(driven, size);
        deliver(driven, std::move(bytes));
    } else if (done.result == 0) {
        if (link.receive_paused || !driven.early.empty()) driven.early_end = true;
        else if (!link.read_ended) end_of_stream(link);
    } else {
        receive_failed(driven, -done.result);
    }
    if (link.state != SocketLink::State::open) return size;
    if (link.read_ended) poll_for(driven, k_hangup, driven.hangup, 0, false);
    else if (!driven.receive.out && !driven.early_end && driven.early_error.ok()) arm_receive(driven);
    return size;
}

void UringPort::receive_failed(Driven& driven, int error) noexcept {
    // ENOBUFS: the group was empty. It is filled before the next enter(), and the receive is on its way then. ECANCELED: it was paused, or
    // changes its group.
    if (error == ENOBUFS || error == ECANCELED || error == EINTR || error == EAGAIN) return;
    const Error failure = Error::from_errno(error, Step::recv);
    if (driven.link->receive_paused || !driven.early.empty()) driven.early_error = failure;
    else fail(*driven.link, failure);
}

void UringPort::deliver(Driven& driven, Buffer&& bytes) {
    SocketLink& link = *driven.link;
    if (!link.receive_paused && driven.early.empty()) return link.sink->delivered(std::move(bytes), {});
    if (!driven.early.push(std::move(bytes))) fail(link, Error(Errc::out_of_memory, Step::recv));
}

// A stream that fills small buffers gets large ones, and the other way round: the receive is cancelled and armed anew.
void UringPort::choose_group(Driven& driven, std::uint32_t bytes) noexcept {
    if (incremental_) return;
    const bool misfit = driven.large ? bytes < large_->block_bytes() / misfit_part : bytes == small_->block_bytes();
    driven.misfits = misfit ? std::uint8_t(driven.misfits + 1) : std::uint8_t(0);
    if (driven.misfits < misfits_max) return;
    driven.misfits = 0;
    driven.changes_group = true;
    cancel(&driven, k_receive, driven.receive);
}

void UringPort::read_again(SocketLink& link) {
    if (link.driven == nullptr || !link.driven->by_bytes) return SocketPort::read_again(link);
    Driven& driven = *link.driven;
    while (!driven.early.empty() && !link.receive_paused && link.state == SocketLink::State::open) link.sink->delivered(driven.early.pop(), {});
    if (link.receive_paused || link.state != SocketLink::State::open) return;
    if (driven.early_end) {
        end_of_stream(link);
        if (link.state == SocketLink::State::open) poll_for(driven, k_hangup, driven.hangup, 0, false);
    } else if (!driven.early_error.ok()) {
        fail(link, driven.early_error);
    } else {
        arm_receive(driven);
    }
}

void UringPort::pause(Link& base) {
    auto& link = static_cast<SocketLink&>(base);
    link.receive_paused = true;
    if (link.driven != nullptr && link.driven->by_bytes) cancel(link.driven, k_receive, link.driven->receive);
}

// Multishot poll tells of edges, as EPOLLET does, and so the link reads until the socket has no more.
std::uint32_t UringPort::became_ready(Driven& driven, const abi::Cqe& done) {
    SocketLink& link = *driven.link;
    if (link.state == SocketLink::State::closed) return 0;
    const std::uint32_t bytes = done.result > 0 ? link.ready(std::uint32_t(done.result)) : 0;
    if (!driven.receive.out && link.state != SocketLink::State::closed) {
        if (link.read_ended) poll_for(driven, k_hangup, driven.hangup, 0, false);
        else arm_receive(driven);
    }
    return bytes;
}

void UringPort::got_room(Driven& driven, const abi::Cqe& done) {
    SocketLink& link = *driven.link;
    if (link.state == SocketLink::State::closed || done.result == -ECANCELED) return;
    if (link.state == SocketLink::State::connecting) {
        finish_connect(link);
        if (link.state == SocketLink::State::open) arm_receive(driven);
    } else if (link.flavor == Flavor::udp) {
        link.ready(EPOLLOUT);
    } else if (link.blocked) {
        link.blocked = false;
        link.sink->writable();
    }
}

void UringPort::hung_up(Driven& driven, const abi::Cqe& done) {
    if (driven.link->state == SocketLink::State::open && done.result > 0) broken_after_end(*driven.link);
}

// -- send ------------------------------------------------------------------------------------------------------

Flushed UringPort::flush(Link& base) {
    auto& link = static_cast<SocketLink&>(base);
    if (link.driven == nullptr || link.state != SocketLink::State::open || link.blocked) return Flushed::blocked;
    if (link.driven->by_bytes) return send_stream(link);
    const Flushed flushed = SocketPort::flush(link);
    if (link.blocked && link.state == SocketLink::State::open && (link.owed & SocketLink::owe_retry) == 0) ask_for_room(link, true);
    return flushed;
}

Flushed UringPort::send_stream(SocketLink& link) {
    Driven& driven = *link.driven;
    SendQueue& out = *link.outbox;
    if (driven.sending) return out.empty() ? Flushed::all : Flushed::blocked;
    // One link that sends is served at once; several share the call that the next wait needs anyway.
    const bool alone = flushes_++ == 0 && flushes_before_ <= 1;
    if (driven.held.empty() && alone && !out.empty() && !send_inline(link)) return Flushed::blocked;
    if (!driven.held.empty() || !out.empty()) return submit_send(link);
    if (link.draining || link.finishing) outbox_empty(link);
    return Flushed::all;
}

/// False: the link has failed, or waits. What the socket does not take is left.
bool UringPort::send_inline(SocketLink& link) {
    SendQueue& out = *link.outbox;
    iovec vectors[inline_vectors];
    unsigned count = 0;
    for (; count < inline_vectors && count < out.count(); ++count) vectors[count] = {out[count].data(), out[count].size()};
    msghdr message{nullptr, 0, vectors, count, nullptr, 0, 0};
    const ssize_t sent = count == 1 ? ::send(link.watched_fd, vectors[0].iov_base, vectors[0].iov_len, MSG_NOSIGNAL)
                                    : ::sendmsg(link.watched_fd, &message, MSG_NOSIGNAL);
    if (sent < 0) {
        if (errno == EAGAIN || errno == EINTR) return true;
        (void)send_failed(link, errno);
        return false;
    }
    out.drop_front(std::size_t(sent));
    link.sink->sent(std::size_t(sent));
    return link.state == SocketLink::State::open;
}

// What is to be sent moves from the outbox to `held`: core must not touch it while the kernel may.
Flushed UringPort::submit_send(SocketLink& link) {
    Driven& driven = *link.driven;
    SendQueue& out = *link.outbox;
    while (driven.held.count() < Messages::vectors_each && driven.held.bytes() < send_bytes_max && !out.empty()) {
        if (!driven.held.reserve(1)) break;
        (void)driven.held.push(out.pop());
    }
    Ring& ring = ring_sleeper_->ring;
    if (!ring.has_submissions()) messages_->used = 0;
    abi::Sqe send;
    send.operation_flags = MSG_NOSIGNAL;
    if (driven.held.count() == 1) {
        send.operation = abi::op_send;
        send.address = reinterpret_cast<std::uintptr_t>(driven.held[0].data());
        send.length = driven.held[0].size();
    } else {
        if (messages_->used == Messages::count) {
            (void)ring.enter(0, 0);
            if (ring.has_submissions()) {
                (void)send_failed(link, ENOBUFS);
                return Flushed::blocked;
            }
            messages_->used = 0;
        }
        msghdr& message = messages_->headers[messages_->used];
        iovec* const vectors = messages_->vectors[messages_->used++];
        message = {};
        message.msg_iov = vectors;
        for (; message.msg_iovlen < driven.held.count() && message.msg_iovlen < Messages::vectors_each; ++message.msg_iovlen) {
            Buffer& slice = driven.held[std::uint32_t(message.msg_iovlen)];
            vectors[message.msg_iovlen] = {slice.data(), slice.size()};
        }
        send.operation = abi::op_send_message;
        send.address = reinterpret_cast<std::uintptr_t>(&message);
        send.length = 1;
    }
    driven.sending = submit(driven, k_send, send);
    return out.empty() && driven.sending ? Flushed::all : Flushed::blocked;
}

void UringPort::sent(Driven& driven, const abi::Cqe& done) {
    SocketLink& link = *driven.link;
    driven.sending = false;
    if (link.state == SocketLink::State::closed) return driven.held.clear();
    if (done.result >= 0) {
        counts_.short_sends += std::size_t(done.result) < driven.held.bytes();
        driven.held.drop_front(std::size_t(done.result));
        link.sink->sent(std::size_t(done.result));
    } else if (done.result != -EINTR && done.result != -ECANCELED) {
        counts_.refused_sends += done.result == -EAGAIN || done.result == -ENOBUFS || done.result == -ENOMEM;
        // EAGAIN: the socket says that it has room, and has no memory for it after all. Asked again at once, it would say so again.
        (void)send_failed(link, done.result == -EAGAIN ? ENOBUFS : -done.result);
        if (link.state == SocketLink::State::closed) driven.held.clear();
        return;
    }
    if (link.state != SocketLink::State::open) return;
    if (!driven.held.empty()) (void)submit_send(link);
    else if (!link.outbox->empty()) link.sink->writable();
    else if (link.draining || link.finishing) outbox_empty(link);
}

}  // namespace evpl::transport::uring
