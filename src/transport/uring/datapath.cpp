// Bytes: from completions to the sink, from the outbox to the ring.
#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>

#include "transport/common/sockets/datagram.hpp"
#include "transport/common/sockets/zero_copy.hpp"
#include "transport/uring/port.hpp"

namespace evpl::transport::uring {
namespace {

constexpr unsigned inline_vectors = 64;
/// Bytes of one send through the ring: a slow peer's progress shows after this many at the latest.
constexpr std::size_t send_bytes_max = 1u << 20;
/// From here on a copy costs more than a system call, and most when it meets bytes that have left the cache.
constexpr std::uint32_t bulk_bytes = 16u << 10, little_bytes = 4u << 10;
/// After so many receives in a row of at least bulk_bytes, or of less than little_bytes, the other way of receiving is taken.
constexpr std::uint8_t misfits_max = 8;

}  // namespace

// -- receive ---------------------------------------------------------------------------------------------------

void UringPort::arm_receive(Driven& driven) noexcept {
    SocketLink& link = *driven.link;
    if (driven.receive.out || link.state == SocketLink::State::closed || link.read_ended) return;
    if (!driven.by_bytes) return poll_for(driven, k_receive, driven.receive, EPOLLIN | EPOLLRDHUP, true);
    if (link.receive_paused) return;
    if (starved_) return owe(link, SocketLink::owe_retry);  // the bytes wait in the kernel
    abi::Sqe receive;
    if (link.flavor == Flavor::udp) receive = datagram_receive(link);
    else receive.operation = abi::op_receive, receive.buffer_group = streams_->number();
    receive.flags = abi::sqe_buffer_select;
    receive.priority = abi::receive_multishot;
    driven.receive = {submit(driven, k_receive, receive), false};
}

std::uint32_t UringPort::received(Driven& driven, const abi::Cqe& done) {
    SocketLink& link = *driven.link;
    if (link.flavor == Flavor::udp) return received_datagram(driven, done);
    Buffer bytes = streams_->take(done);
    counts_.starved += done.result == -ENOBUFS;
    if (done.result > 0) {
        counts_.late += link.receive_paused;
        counts_.ended_by_themselves += !driven.receive.out;
    }
    if (link.state == SocketLink::State::closed) return 0;
    if ((link.owed & SocketLink::owe_open) != 0) {  // the bytes came before our own poll
        link.owed &= std::uint8_t(~SocketLink::owe_open);
        link.sink->opened();
    }
    const std::uint32_t size = bytes.size();
    if (size > 0) {
        count_misfits(driven, size >= std::min(bulk_bytes, streams_->block_bytes()));
        deliver(driven, std::move(bytes));
    } else if (done.result == 0) {
        if (link.receive_paused || !driven.early.empty()) driven.early_end = true;
        else if (!link.read_ended) end_of_stream(link);
    } else {
        receive_failed(driven, -done.result);
    }
    if (link.state != SocketLink::State::open) return size;
    if (link.read_ended) poll_for(driven, k_hangup, driven.hangup, 0, false);
    else if (!driven.receive.out && !driven.early_end && driven.early_error.ok()) change_way(driven), arm_receive(driven);
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

// A stream that brings much at a time is told of by edges and read as an epoll port reads it, into one block that stays in the cache; one
// that brings little is received by the ring, as many at a time as there are. For a change the operation under way is cancelled.
void UringPort::count_misfits(Driven& driven, bool misfit) noexcept {
    driven.misfits = misfit ? std::min(std::uint8_t(driven.misfits + 1), misfits_max) : std::uint8_t(0);
    if (driven.misfits < misfits_max) return;
    driven.changes_way = true;
    cancel(name_of_operation(&driven, k_receive), driven.receive);
}

void UringPort::change_way(Driven& driven) noexcept {
    if (!driven.changes_way) return;
    driven.changes_way = false;
    driven.misfits = 0;
    if (!driven.early.empty()) return;
    driven.by_bytes = !driven.by_bytes;
    ++counts_.ways_changed;
}

void UringPort::read_again(SocketLink& link) {
    if (link.driven == nullptr || !link.driven->by_bytes) return SocketPort::read_again(link);
    Driven& driven = *link.driven;
    while (!driven.early.empty() && !link.receive_paused && link.state == SocketLink::State::open) {
        if (link.flavor == Flavor::udp) deliver_message(link, driven.early.pop());
        else link.sink->delivered(driven.early.pop(), {});
    }
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
    if (link.driven != nullptr && link.driven->by_bytes) cancel(name_of_operation(link.driven, k_receive), link.driven->receive);
}

// -- datagrams -------------------------------------------------------------------------------------------------

namespace {

/// What the kernel puts before a datagram: its own header, the sender's name in room for either family, control data.
constexpr std::uint32_t name_room = 32;
static_assert(name_room >= sizeof(sockaddr_in6) && (sizeof(abi::ReceivedMessage) + name_room) % alignof(cmsghdr) == 0);

std::uint32_t name_bytes(const SocketLink& link) noexcept { return link.datagram->connected ? 0 : name_room; }
std::uint32_t bytes_before_payload(const SocketLink& link) noexcept {
    return std::uint32_t(sizeof(abi::ReceivedMessage)) + name_bytes(link) + link.datagram->control_bytes;
}

}  // namespace

abi::Sqe UringPort::datagram_receive(const SocketLink& link) noexcept {
    msghdr& header = messages_->datagrams[link.datagram->connected][link.datagram->control_bytes > 0];
    header.msg_namelen = name_bytes(link);
    header.msg_controllen = link.datagram->control_bytes;
    abi::Sqe receive;
    receive.operation = abi::op_receive_message;
    receive.address = reinterpret_cast<std::uintptr_t>(&header);
    receive.length = 1;
    receive.buffer_group = datagrams_->number();
    return receive;
}

std::uint32_t UringPort::received_datagram(Driven& driven, const abi::Cqe& done) {
    SocketLink& link = *driven.link;
    Buffer raw = datagrams_->take(done);
    const std::uint32_t size = raw.size();
    if (link.state == SocketLink::State::closed) return 0;
    if ((link.owed & SocketLink::owe_open) != 0) {  // it came before our own poll
        link.owed &= std::uint8_t(~SocketLink::owe_open);
        link.sink->opened();
    }
    if (raw) {
        counts_.late += link.receive_paused;
        counts_.ended_by_themselves += !driven.receive.out;
        if (!link.receive_paused && driven.early.empty()) deliver_message(link, std::move(raw));
        else (void)driven.early.push(std::move(raw));  // without memory it is lost, as datagrams may be
    } else if (done.result == -ENOMEM) {
        owe(link, SocketLink::owe_retry);
    } else if (done.result != -ENOBUFS && done.result != -ECANCELED && done.result != -EINTR && done.result != -EAGAIN) {
        link.sink->send_failed(Error::from_errno(-done.result, Step::send));  // ICMP tells of an earlier one
    }
    counts_.starved += done.result == -ENOBUFS;
    if (!driven.receive.out && (link.owed & SocketLink::owe_retry) == 0) arm_receive(driven);
    return size + socket::datagram_cost_bytes;
}

void UringPort::deliver_message(SocketLink& link, Buffer&& raw) {
    abi::ReceivedMessage head;
    __builtin_memcpy(&head, raw.data(), sizeof head);
    std::byte* const name = raw.data() + sizeof head;
    socket::SocketAddress from;
    from.size = socklen_t(std::min<std::uint32_t>(head.name_bytes, name_bytes(link)));
    __builtin_memcpy(&from.storage, name, from.size);
    msghdr header{};
    header.msg_control = name + name_bytes(link);
    header.msg_controllen = std::min<std::uint32_t>(head.control_bytes, link.datagram->control_bytes);
    header.msg_flags = int(head.flags);
    raw.drop_front(bytes_before_payload(link));
    Buffer bytes = copy_small(raw.bytes());
    // The large block stays whole while `bytes` is delivered: `header` points into it.
    deliver_datagram(link, header, from, bytes ? std::move(bytes) : raw.share());
}

// Multishot poll tells of edges, as EPOLLET does, and so the link reads until the socket has no more.
std::uint32_t UringPort::became_ready(Driven& driven, const abi::Cqe& done) {
    SocketLink& link = *driven.link;
    if (link.state == SocketLink::State::closed) return 0;
    const std::uint32_t bytes = done.result > 0 ? link.ready(std::uint32_t(done.result)) : 0;
    if (bytes > 0 && link.flavor == Flavor::tcp) count_misfits(driven, bytes < little_bytes);
    if (!driven.receive.out && link.state != SocketLink::State::closed) {
        if (link.read_ended) poll_for(driven, k_hangup, driven.hangup, 0, false);
        else change_way(driven), arm_receive(driven);
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
    if (link.flavor == Flavor::tcp) return send_stream(link);
    const Flushed flushed = SocketPort::flush(link);
    if (link.blocked && link.state == SocketLink::State::open && (link.owed & SocketLink::owe_retry) == 0) ask_for_room(link, true);
    return flushed;
}

Flushed UringPort::send_stream(SocketLink& link) {
    Driven& driven = *link.driven;
    SendQueue& out = *link.outbox;
    if (driven.sending) return out.empty() ? Flushed::all : Flushed::blocked;
    // One link that sends is served at once where there are few, and so is what is better copied before it leaves the cache; several share
    // the call that the next wait needs anyway.
    const bool alone = flushes_++ == 0 && flushes_before_ <= 1 && waiting_ <= few_links;
    const bool at_once = (alone || out.bytes() >= bulk_bytes) && !wants_zero_copy(link, out.bytes());
    if (driven.held.empty() && at_once && !out.empty() && !send_inline(link)) return Flushed::blocked;
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
    const ssize_t sent =
        count == 1 ? ::send(link.watched_fd, vectors[0].iov_base, vectors[0].iov_len, MSG_NOSIGNAL) : ::sendmsg(link.watched_fd, &message, MSG_NOSIGNAL);
    if (sent < 0) {
        if (errno == EAGAIN || errno == EINTR) return true;
        (void)send_failed(link, errno);
        return false;
    }
    out.drop_front(std::size_t(sent));
    tell_sent(link, std::size_t(sent));
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
    driven.by_reference = sends_by_reference(link, send);
    driven.sending = submit(driven, k_send, send, driven.send_number);
    counts_.by_reference += driven.by_reference && driven.sending;
    return out.empty() && driven.sending ? Flushed::all : Flushed::blocked;
}

// Makes one of it when it is worth it. Out of a registered slab only when it is one slice: registered vectors are newer than our tiers.
bool UringPort::sends_by_reference(SocketLink& link, abi::Sqe& send) noexcept {
    Driven& driven = *link.driven;
    driven.send_number = 0;
    if (!wants_zero_copy(link, driven.held.bytes()) || !link.zero_copy->reserve(driven.held.count())) return false;
    driven.send_number = std::uint16_t(link.zero_copy->first + link.zero_copy->calls.size());
    send.priority = abi::send_report_usage;
    if (send.operation == abi::op_send_message) {
        send.operation = abi::op_send_message_zero_copy;
        return true;
    }
    send.operation = abi::op_send_zero_copy;
    const int slab = pinned_.number_of(ring_sleeper_->ring, driven.held[0]);
    if (slab == PinnedSlabs::none) return true;
    ++counts_.registered;
    send.priority |= abi::send_registered;
    send.buffer_group = std::uint16_t(slab);
    return true;
}

// The last word of a send by reference: its slices are ours again.
void UringPort::notified(Driven& driven, const abi::Cqe& done) {
    SocketLink& link = *driven.link;
    socket::ZeroCopy& state = *link.zero_copy;
    const bool copied = (std::uint32_t(done.result) & abi::notification_copied) != 0;
    counts_.copied += copied;
    const auto index = std::uint16_t(std::uint16_t(done.user_data >> number_shift) - std::uint16_t(state.first));
    if (state.done(state.first + index, copied)) stop_references(link);
    zero_copy_released(link);
}

void UringPort::stop_references(SocketLink& link) noexcept {
    if (std::exchange(link.zero_copy->off, true)) return;
    if (--references_ == 0) pinned_.release(ring_sleeper_->ring);
}

// In the order of the outbox: behind what is still being sent by reference it waits for that.
void UringPort::tell_sent(SocketLink& link, std::size_t bytes) {
    if (link.zero_copy == nullptr || !link.zero_copy->pending()) return link.sink->sent(bytes);
    if (!link.zero_copy->calls.push({0, bytes, true})) fail(link, Error(Errc::out_of_memory, Step::send));
}

void UringPort::sent(Driven& driven, const abi::Cqe& done) {
    SocketLink& link = *driven.link;
    const bool notified_later = (done.flags & abi::cqe_more) != 0;
    const std::size_t bytes = done.result > 0 ? std::size_t(done.result) : 0;
    driven.sending = false;
    if (link.state == SocketLink::State::closed) {
        if (!notified_later) driven.held.clear();
        return;
    }
    counts_.short_sends += bytes > 0 && bytes < driven.held.bytes();
    if (notified_later) link.zero_copy->started(driven.held, bytes);  // also of none: the number is used
    else driven.held.drop_front(bytes);
    if (done.result < 0) {
        if (!send_again(driven, -done.result)) return;
    } else if (!notified_later) {
        tell_sent(link, bytes);
    }
    if (link.state != SocketLink::State::open) return;
    if (!driven.held.empty()) (void)submit_send(link);
    else if (!link.outbox->empty()) link.sink->writable();
    else if (link.draining || link.finishing) outbox_empty(link);
}

// A send has failed. True: the next try is worth it at once.
bool UringPort::send_again(Driven& driven, int error) {
    SocketLink& link = *driven.link;
    if (error == EINTR || error == ECANCELED) return true;
    const bool no_memory = error == EAGAIN || error == ENOBUFS || error == ENOMEM;
    if (driven.by_reference && (no_memory || error == EOPNOTSUPP)) {  // pages are pinned within the limit of locked memory
        stop_references(link);
        return true;
    }
    counts_.refused_sends += no_memory;
    // EAGAIN: the socket says that it has room, and has no memory for it after all. Asked again at once, it would say so again.
    (void)send_failed(link, error == EAGAIN ? ENOBUFS : error);
    return false;
}

}  // namespace evpl::transport::uring
