// Datagrams: batches in both directions, trains of equal datagrams where the kernel has UDP_SEGMENT and UDP_GRO.
//
// Accounting: every byte that leaves the outbox is reported by sent(), also of datagrams that could not be sent; those are told by
// send_failed() first. A datagram socket never closes because of the network.
#include "transport/common/sockets/datagram.hpp"

#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <new>
#include <type_traits>

#include "evpl/log.hpp"
#include "transport/common/sockets/port.hpp"

namespace evpl::transport::socket {
namespace {

/// Without EPOLLOUT: each packet that leaves would wake the loop. It is asked for while the socket is full.
constexpr std::uint32_t datagram_events = EPOLLIN | EPOLLET;
/// Up to here a datagram is copied out of its slot, so that what is kept pins at most 16 times its size there. Measured on the loopback:
/// the copy of 64 B costs 4 ns, of 4 KiB 110 ns; sending and receiving one datagram costs 4 us and more.
constexpr std::uint32_t copy_bytes_max = 4u << 10;
/// Fewer slots are never asked for, however large the datagrams are.
constexpr unsigned slots_least = 4;

bool out_of_memory(int error) noexcept { return error == ENOBUFS || error == ENOMEM; }

// Errors that a connected socket reports for an earlier datagram, when an ICMP message about it has come (udp(7)).
bool about_earlier(int error) noexcept { return error == ECONNREFUSED || error == EHOSTUNREACH || error == ENETUNREACH; }

// No field is padding, so bytes compare as the fields do.
static_assert(std::has_unique_object_representations_v<Address>);
bool same(const Address* a, const Address* b) noexcept { return a == b || (a != nullptr && b != nullptr && std::memcmp(a, b, sizeof *a) == 0); }

// As to_kernel(), without touching what is not needed; an IPv6 socket names IPv4 peers by mapped addresses (ipv6(7)).
void set_target(SocketAddress& target, const Address& to, bool ipv6_socket) noexcept {
    const bool ipv4 = to.family == Address::Family::ipv4;
    if (ipv4 && !ipv6_socket) {
        target.v4 = {AF_INET, htons(to.port), {}, {}};
        std::memcpy(&target.v4.sin_addr, to.bytes, 4);
        target.size = sizeof target.v4;
        return;
    }
    target.v6 = {AF_INET6, htons(to.port), 0, {}, to.scope};
    if (ipv4) {
        target.v6.sin6_addr.s6_addr[10] = target.v6.sin6_addr.s6_addr[11] = 0xff;
        std::memcpy(target.v6.sin6_addr.s6_addr + 12, to.bytes, 4);
    } else {
        std::memcpy(&target.v6.sin6_addr, to.bytes, 16);
    }
    target.size = sizeof target.v6;
}

bool ends_datagram(const Buffer& slice) noexcept { return (BufferAccess::flags(slice) & BufferAccess::end_of_message) != 0; }

}  // namespace

void DatagramBatchDeleter::operator()(DatagramBatch* batch) const noexcept { delete batch; }

// -- receive ---------------------------------------------------------------------------------------------------

unsigned DatagramReceive::prepare(memory::Heap& heap, const DatagramExtra& extra, unsigned wanted) noexcept {
    if (extra.connected != connected_ || extra.control_bytes != control_bytes_) {
        connected_ = extra.connected;
        control_bytes_ = extra.control_bytes;
        used = slots_max;
    }
    for (unsigned i = 0; i < used; ++i) {
        msghdr& header = messages[i].msg_hdr;
        header.msg_name = connected_ ? nullptr : &sources[i].storage;
        header.msg_namelen = connected_ ? 0 : sizeof sources[i].storage;
        header.msg_iov = &vectors_[i];
        header.msg_iovlen = 1;
        header.msg_control = control_bytes_ > 0 ? control[i] : nullptr;
        header.msg_controllen = control_bytes_;
    }
    used = 0;
    for (; filled_ < wanted; ++filled_) {
        if (blocks_[filled_]) continue;
        auto made = heap.allocate(slot_bytes);
        if (!made) [[unlikely]]
            break;
        blocks_[filled_] = *std::move(made);
        vectors_[filled_] = {blocks_[filled_].data(), slot_bytes};
    }
    return std::min(wanted, filled_);
}

Buffer DatagramReceive::hand_over(unsigned i, std::uint32_t size) noexcept {
    filled_ = std::min(filled_, i);
    Buffer bytes = std::move(blocks_[i]);
    bytes.truncate(size);
    return bytes;
}

namespace {

/// What the kernel tells with a datagram.
void read_control(msghdr& header, const DatagramExtra& extra, Arrival& arrival, Address& local) noexcept {
    for (cmsghdr* c = CMSG_FIRSTHDR(&header); c != nullptr; c = CMSG_NXTHDR(&header, c)) {
        if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO) {
            int segment;
            std::memcpy(&segment, CMSG_DATA(c), sizeof segment);
            arrival.segment_bytes = std::uint32_t(segment);
        } else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
            in_pktinfo info;
            std::memcpy(&info, CMSG_DATA(c), sizeof info);
            local.family = Address::Family::ipv4;
            local.port = extra.local.port;
            std::memcpy(local.bytes, &info.ipi_addr, 4);
            arrival.local = &local;
        } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
            in6_pktinfo info;
            std::memcpy(&info, CMSG_DATA(c), sizeof info);
            SocketAddress name;
            name.v6 = {AF_INET6, htons(extra.local.port), 0, info.ipi6_addr, 0};
            if (IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr)) name.v6.sin6_scope_id = info.ipi6_ifindex;
            local = from_kernel(name);
            arrival.local = &local;
        }
    }
}

unsigned slots_for(std::uint32_t bytes, std::uint32_t usual_bytes) noexcept {
    return std::clamp(bytes / (usual_bytes + datagram_cost_bytes), slots_least, DatagramReceive::slots_max);
}

}  // namespace

std::uint32_t SocketPort::datagram_ready(SocketLink& link, std::uint32_t events) {
    if (link.state != SocketLink::State::open) return 0;
    if ((link.owed & SocketLink::owe_open) != 0) {  // opened() comes first; the edge is used up
        link.owed |= SocketLink::owe_read;
        return 0;
    }
    if ((events & EPOLLERR) != 0) [[unlikely]] {  // an ICMP message about an earlier datagram
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(link.watched_fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error != 0) link.sink->send_failed(Error::from_errno(error, Step::send));
    }
    if ((events & EPOLLOUT) != 0) {
        if (link.blocked) {
            link.blocked = false;
            link.sink->writable();
        } else {
            ask_for_room(link, false);
        }
    }
    if ((events & (EPOLLIN | EPOLLERR | EPOLLHUP)) == 0 || link.state != SocketLink::State::open) return 0;
    if (link.receive_paused) {
        link.owed |= SocketLink::owe_read;
        return 0;
    }
    return read_datagrams(link);
}

std::uint32_t SocketPort::read_datagrams(SocketLink& link) {
    const std::uint32_t bytes_max = host.batch_bytes();
    DatagramReceive& in = datagrams_->in;
    std::uint32_t taken = 0;
    while (taken < bytes_max) {
        const unsigned asked = in.prepare(host.heap(), *link.datagram, slots_for(bytes_max - taken, link.datagram->usual_bytes));
        if (asked == 0) [[unlikely]] {  // out of buffers: the datagrams wait in the kernel
            retry_datagrams(link);
            return taken;
        }
        const int got = ::recvmmsg(link.watched_fd, in.messages, asked, MSG_DONTWAIT, nullptr);
        if (got < 0) {
            if (errno == EINTR) continue;
            if (would_block(errno)) return taken;
            link.sink->send_failed(Error::from_errno(errno, Step::send));  // ICMP; datagrams may wait behind it
            taken += datagram_cost_bytes;
        } else {
            in.used = unsigned(got);
            taken += deliver_datagrams(link, unsigned(got));
        }
        if (link.state != SocketLink::State::open) return taken;
        // Fewer than asked: drained. Also when an ICMP error ended the call early: that has made an edge of its own.
        if (got >= 0 && unsigned(got) < asked) return taken;
        if (link.receive_paused) break;
    }
    owe(link, SocketLink::owe_read);
    return taken;
}

std::uint32_t SocketPort::deliver_datagrams(SocketLink& link, unsigned count) {
    DatagramExtra& extra = *link.datagram;
    DatagramReceive& in = datagrams_->in;
    std::uint32_t taken = 0;
    std::uint32_t largest = 0;
    for (unsigned i = 0; i < count; ++i) {
        const std::uint32_t size = in.messages[i].msg_len;
        msghdr& header = in.messages[i].msg_hdr;
        Buffer bytes = copy_small({static_cast<const std::byte*>(header.msg_iov->iov_base), size});
        if (!bytes) bytes = in.hand_over(i, size);
        deliver_datagram(link, header, in.sources[i], std::move(bytes));
        taken += size + datagram_cost_bytes;
        largest = std::max(largest, size);
        if (link.state != SocketLink::State::open) return taken;
    }
    extra.usual_bytes = std::max(largest, extra.usual_bytes - extra.usual_bytes / 4);
    return taken;
}

Buffer SocketPort::copy_small(std::span<const std::byte> bytes) noexcept {
    if (bytes.size() > copy_bytes_max) return {};
    const std::span<std::byte> room = block.room(std::max(std::uint32_t(bytes.size()), 1u));
    if (room.empty()) return {};
    std::memcpy(room.data(), bytes.data(), bytes.size());
    return block.cut(std::uint32_t(bytes.size()));
}

void SocketPort::deliver_datagram(SocketLink& link, msghdr& header, const SocketAddress& from, Buffer&& bytes) {
    const DatagramExtra& extra = *link.datagram;
    Address source, local;
    Arrival arrival;
    arrival.end_of_message = true;
    arrival.truncated = (header.msg_flags & MSG_TRUNC) != 0;  // a jumbogram (RFC 2675)
    arrival.source = &link.peer;
    if (!extra.connected) {
        source = from_kernel(from);
        arrival.source = &source;
    }
    if (!extra.packet_info) arrival.local = &extra.local;
    if (header.msg_controllen > 0 && extra.control_bytes > 0) read_control(header, extra, arrival, local);
    if (arrival.segment_bytes >= bytes.size()) arrival.segment_bytes = 0;
    link.sink->delivered(std::move(bytes), arrival);
}

// -- send ------------------------------------------------------------------------------------------------------

DatagramSend::DatagramSend() noexcept {
    std::memset(messages, 0, sizeof messages);
    std::memset(control_, 0, sizeof control_);
    for (auto& room : control_) {
        auto* c = reinterpret_cast<cmsghdr*>(room);
        c->cmsg_level = SOL_UDP;
        c->cmsg_type = UDP_SEGMENT;
        c->cmsg_len = CMSG_LEN(sizeof(std::uint16_t));
    }
}

unsigned DatagramSend::gather(const SendQueue& out, const DatagramExtra& extra) noexcept {
    const std::uint32_t slices = out.count();
    const bool addressed = !out.destinations.empty();
    const Address* last_target = nullptr;
    std::uint32_t slice = 0;
    std::uint32_t datagram = 0;
    unsigned count = 0;
    vectors_used_ = targets_used_ = 0;
    while (slice < slices) {
        std::uint32_t end = slice;
        std::uint32_t size = out[end].size();
        while (!ends_datagram(out[end]) && end + 1 < slices) size += out[++end].size();
        ++end;
        if (vectors_used_ + (end - slice) > vectors_max) break;

        const Address* to = addressed ? &out.destinations[datagram] : nullptr;
        const bool same_target = count > 0 && same(to, last_target);
        Train* train = count > 0 ? &trains[count - 1] : nullptr;
        if (same_target && train->open && size - 1 < train->segment_bytes && train->bytes + size <= train_bytes_max) {  // size 0: never
            train->bytes += size;
            train->slices += end - slice;
            train->open = ++train->datagrams < train_datagrams_max && size == train->segment_bytes;
        } else {
            if (count == messages_max) break;
            const bool open = extra.segments && size > 0 && size <= extra.segment_bytes_max && datagram >= extra.plain_datagrams;
            start(count, size, to, same_target, open, extra);
            trains[count++].slices = end - slice;
        }
        for (; slice < end; ++slice) append(count - 1, out[slice]);
        last_target = to;
        ++datagram;
    }
    for (unsigned i = 0; i < count; ++i) {
        msghdr& header = messages[i].msg_hdr;
        const bool segmented = trains[i].datagrams > 1;
        header.msg_control = segmented ? control_[i] : nullptr;
        header.msg_controllen = segmented ? sizeof control_[i] : 0;
        if (!segmented) continue;
        const auto segment = std::uint16_t(trains[i].segment_bytes);
        std::memcpy(CMSG_DATA(reinterpret_cast<cmsghdr*>(control_[i])), &segment, sizeof segment);
    }
    return count;
}

void DatagramSend::start(unsigned index, std::uint32_t size, const Address* to, bool same_target, bool open, const DatagramExtra& extra) noexcept {
    trains[index] = {1, 0, size, size, open};
    msghdr& header = messages[index].msg_hdr;
    header.msg_iov = &vectors_[vectors_used_];
    header.msg_iovlen = 0;
    if (to == nullptr || to->family == Address::Family::none) {  // the connected peer
        header.msg_name = nullptr;
        header.msg_namelen = 0;
    } else {
        if (!same_target) set_target(targets_[targets_used_++], *to, extra.ipv6);
        header.msg_name = &targets_[targets_used_ - 1].storage;
        header.msg_namelen = targets_[targets_used_ - 1].size;
    }
}

void DatagramSend::append(unsigned index, const Buffer& slice) noexcept {
    if (slice.empty()) return;
    msghdr& header = messages[index].msg_hdr;
    if (header.msg_iovlen > 0) {
        iovec& last = vectors_[vectors_used_ - 1];
        if (static_cast<std::byte*>(last.iov_base) + last.iov_len == slice.data()) {
            last.iov_len += slice.size();
            return;
        }
    }
    vectors_[vectors_used_++] = {slice.data(), slice.size()};
    ++header.msg_iovlen;
}

Flushed SocketPort::flush_datagrams(SocketLink& link) {
    SendQueue& out = *link.outbox;
    DatagramSend& batch = datagrams_->out;
    while (out.count() > 0) {
        const unsigned count = batch.gather(out, *link.datagram);
        if (count == 0) [[unlikely]] {
            drop_datagram(link, EMSGSIZE);
        } else {
            const int sent = ::sendmmsg(link.watched_fd, batch.messages, count, MSG_DONTWAIT | MSG_NOSIGNAL);
            if (sent > 0) [[likely]] {
                DatagramExtra& extra = *link.datagram;
                if (extra.suspect_error != 0) [[unlikely]]
                    blame_segmentation(link);
                extra.repeated_error = 0;
                datagrams_gone(link, unsigned(sent));
            } else if (errno != EINTR && !datagram_refused(link, errno)) {
                return Flushed::blocked;
            }
        }
        if (link.state != SocketLink::State::open) return Flushed::blocked;
    }
    if (link.draining || link.finishing) outbox_empty(link);
    return Flushed::all;
}

// The first `count` trains leave the outbox.
void SocketPort::datagrams_gone(SocketLink& link, unsigned count) {
    SendQueue& out = *link.outbox;
    std::size_t bytes = 0;
    std::uint32_t slices = 0, datagrams = 0;
    for (unsigned i = 0; i < count; ++i) {
        const DatagramSend::Train& train = datagrams_->out.trains[i];
        bytes += train.bytes;
        slices += train.slices;
        datagrams += train.datagrams;
    }
    for (std::uint32_t i = 0; i < slices; ++i) out.pop();
    if (!out.destinations.empty()) {
        for (std::uint32_t i = 0; i < datagrams; ++i) out.destinations.pop();
    }
    std::uint32_t& plain = link.datagram->plain_datagrams;
    plain -= std::min(plain, datagrams);
    link.sink->sent(bytes);
}

// sendmmsg has failed for the first train. True: go on.
bool SocketPort::datagram_refused(SocketLink& link, int error) {
    DatagramExtra& extra = *link.datagram;
    const DatagramSend::Train& first = datagrams_->out.trains[0];
    if (would_block(error)) {
        link.blocked = true;
        ask_for_room(link, true);
        return false;
    }
    if (out_of_memory(error)) {
        link.blocked = true;
        retry_datagrams(link);
        return false;
    }
    // Most likely not about this datagram: an ICMP message about an earlier one ends the next call. Told, and tried once more.
    if (extra.connected && about_earlier(error) && extra.repeated_error == 0) {
        extra.repeated_error = error;
        link.sink->send_failed(Error::from_errno(error, Step::send));
        return true;
    }
    if (first.datagrams > 1) {  // one by one; whether segmentation was the reason shows then
        extra.plain_datagrams = first.datagrams;
        extra.suspect_error = error;
        extra.suspect_bytes = first.segment_bytes;
        return true;
    }
    drop_datagram(link, error);
    return true;
}

void SocketPort::drop_datagram(SocketLink& link, int error) {
    DatagramExtra& extra = *link.datagram;
    SendQueue& out = *link.outbox;
    DatagramSend::Train& first = datagrams_->out.trains[0];
    first = {1, 0, 0, 0, false};
    do {
        first.bytes += out[first.slices].size();
    } while (!ends_datagram(out[first.slices++]) && first.slices < out.count());
    if (extra.repeated_error != error) link.sink->send_failed(Error::from_errno(error, Step::send));  // else it was told already
    extra.repeated_error = 0;
    extra.suspect_error = 0;
    datagrams_gone(link, 1);
}

// A train was refused, its datagrams pass one by one. EMSGSIZE and (older kernels) EINVAL: a segment exceeds the path's MTU, so what is
// as large goes alone from now on. EIO: the route's device cannot checksum them. Others come and go, and say nothing about segmentation.
void SocketPort::blame_segmentation(SocketLink& link) noexcept {
    DatagramExtra& extra = *link.datagram;
    const int error = std::exchange(extra.suspect_error, 0);
    if (error == EMSGSIZE || error == EINVAL) {
        extra.segment_bytes_max = std::min(extra.segment_bytes_max, extra.suspect_bytes - 1);
    } else if (error == EIO || error == ENOPROTOOPT || error == EOPNOTSUPP) {
        extra.segments = false;
        char line[120];
        const int size =
            std::snprintf(line, sizeof line, "udp: the kernel refuses segmented sends here (%s): datagrams leave one by one", std::strerror(error));
        host.log_line(std::uint8_t(LogLevel::info), {line, std::min(std::size_t(size), sizeof line - 1)});
    }
}

void SocketPort::ask_for_room(SocketLink& link, bool wanted) {
    DatagramExtra& extra = *link.datagram;
    if (extra.asked_for_room == wanted) return;
    // Asked for while there is room already, EPOLLOUT comes at once (epoll_ctl(2)): none is lost.
    if (!sleeper.modify(link, datagram_events | (wanted ? std::uint32_t(EPOLLOUT) : 0u)) && wanted) return retry_datagrams(link);
    extra.asked_for_room = wanted;
}

// In a millisecond: writable() if it was blocked, then a read.
void SocketPort::retry_datagrams(SocketLink& link) noexcept {
    if ((link.owed & SocketLink::owe_retry) != 0) return;
    link.owed &= std::uint8_t(~SocketLink::owe_read);  // part of the retry; owe() takes a link that owes nothing else
    owe(link, SocketLink::owe_retry);
}

// -- set-up ----------------------------------------------------------------------------------------------------

namespace {

const Caps& caps_without_segmentation() noexcept {
    static const Caps caps = [] {
        Caps plain = caps_of(Flavor::udp, false);
        plain.segmentation = false;
        return plain;
    }();
    return caps;
}

Error connect_failed(const Endpoint& at, int error, Step step, Diagnostic& why) noexcept {
    std::snprintf(why.text, sizeof why.text, "cannot send to udp://%.*s:%u: %s", int(std::min<std::size_t>(at.host().size(), 120)), at.host().data(), at.port(),
                  std::strerror(error));
    return Error::from_errno(error, step);
}

Result<int> open_connected_socket(const Endpoint& at, const Address& remote, const Options& options, Diagnostic& why) noexcept {
    const SocketAddress target = to_kernel(remote);
    const int fd = ::socket(target.base.sa_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return connect_failed(at, errno, Step::open, why);
    if (const auto applied = apply_options(fd, Flavor::udp, target.base.sa_family == AF_INET6, options, why); !applied) {
        ::close(fd);
        return applied.error();
    }
    if (::connect(fd, &target.base, target.size) != 0) {
        const Error error = connect_failed(at, errno, Step::connect, why);
        ::close(fd);
        return error;
    }
    return fd;
}

bool switch_on(int fd, int level, int name) noexcept {
    const int on = 1;
    return setsockopt(fd, level, name, &on, sizeof on) == 0;
}

}  // namespace

Result<Link*> SocketPort::bind(const Endpoint& at, const Address* remote, Sink& sink, SendQueue& outbox, Diagnostic& why) {
    const auto options = parse_options(at, Flavor::udp, why);
    if (!options) return options.error();
    SocketLink* link = take_link();
    if (link == nullptr) return Errc::out_of_memory;
    link->flavor = Flavor::udp;
    link->sink = &sink;
    link->outbox = &outbox;
    if (const Error error = open_datagram(*link, at, remote, *options, why); !error.ok()) {
        release(*link);
        return error;
    }
    link->state = SocketLink::State::open;
    owe(*link, SocketLink::owe_open);
    return static_cast<Link*>(link);
}

Error SocketPort::open_datagram(SocketLink& link, const Endpoint& at, const Address* remote, const Options& options, Diagnostic& why) noexcept {
    if (datagrams_ == nullptr) datagrams_.reset(new (std::nothrow) DatagramBatch);
    auto* extra = link.datagram = new (std::nothrow) DatagramExtra;
    if (extra == nullptr || datagrams_ == nullptr) return Errc::out_of_memory;
    SocketAddress name;
    const auto opened =
        remote != nullptr ? open_connected_socket(at, *remote, options, why) : open_bound_socket(at, Flavor::udp, options.reuse_port, options, name, why);
    if (!opened) return opened.error();
    const int fd = *opened;
    name.size = sizeof name.storage;
    getsockname(fd, &name.base, &name.size);
    extra->connected = remote != nullptr;
    extra->ipv6 = name.base.sa_family == AF_INET6;
    extra->local = from_kernel(name);
    if (remote != nullptr) link.peer = *remote;
    if (remote == nullptr && extra->local.is_wildcard())  // else it is the one address there is
        extra->packet_info = extra->ipv6 ? switch_on(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO) : switch_on(fd, IPPROTO_IP, IP_PKTINFO);
    if (options.segmentation) {
        // A kernel without UDP_SEGMENT would take no notice of it and send one huge datagram: so it is asked first.
        int segment = 0;
        socklen_t size = sizeof segment;
        extra->segments = getsockopt(fd, SOL_UDP, UDP_SEGMENT, &segment, &size) == 0 && switch_on(fd, SOL_UDP, UDP_GRO);
    }
    extra->control_bytes = extra->packet_info || extra->segments ? DatagramReceive::control_bytes_max : 0;
    link.caps = extra->segments ? &caps_of(Flavor::udp, false) : &caps_without_segmentation();
    link.watched_fd = fd;
    if (const auto added = watch(link, datagram_events); !added) {
        link.watched_fd = -1;
        ::close(fd);
        return added.error();
    }
    return {};
}

void SocketPort::close_datagram(SocketLink& link) noexcept {
    delete link.datagram;
    link.datagram = nullptr;
}

Result<void> SocketPort::join(Link& base, const Address& group, const Address& interface, bool leave) {
    auto& link = static_cast<SocketLink&>(base);
    if (link.flavor != Flavor::udp) return Errc::not_supported;
    if (link.state != SocketLink::State::open || !group.is_multicast()) return Errc::misuse;
    int result;
    if (group.family == Address::Family::ipv4) {
        ip_mreqn request{};
        std::memcpy(&request.imr_multiaddr, group.bytes, 4);
        if (interface.family == Address::Family::ipv4) std::memcpy(&request.imr_address, interface.bytes, 4);
        result = setsockopt(link.watched_fd, IPPROTO_IP, leave ? IP_DROP_MEMBERSHIP : IP_ADD_MEMBERSHIP, &request, sizeof request);
    } else {
        ipv6_mreq request{};
        std::memcpy(&request.ipv6mr_multiaddr, group.bytes, 16);
        request.ipv6mr_interface = group.scope;
        if (interface.family != Address::Family::none) {
            request.ipv6mr_interface = interface_number(interface);
            if (request.ipv6mr_interface == 0) return Error(Errc::address_unavailable, Step::bind);
        }
        result = setsockopt(link.watched_fd, IPPROTO_IPV6, leave ? IPV6_LEAVE_GROUP : IPV6_JOIN_GROUP, &request, sizeof request);
    }
    if (result != 0) return Error::from_errno(errno, Step::bind);
    return {};
}

}  // namespace evpl::transport::socket
