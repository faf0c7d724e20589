#include "transport/rdma/datagrams.hpp"

#include <arpa/inet.h>
#include <sys/epoll.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

#include "base/option.hpp"
#include "transport/rdma/options.hpp"

namespace evpl::transport::rdma {
namespace {

/// A block for the header and the largest payload.
std::uint32_t block_bytes_of(const UdQueues& queues) noexcept { return ud_header_bytes + queues.payload_bytes; }

/// FNV-1a over the address's bytes and port.
std::uint32_t hash_of(const Address& address) noexcept {
    std::uint32_t hash = 2166136261u;
    for (const std::uint8_t byte : address.bytes) hash = (hash ^ byte) * 16777619u;
    return (hash ^ address.port) * 16777619u % ud_peers_most;
}

/// Who sent it. Over IPv4 the header's last 20 bytes are the IPv4 header (InfiniBand Architecture Specification 1.4, annex A17).
Address sender_of(const std::byte* header, std::uint16_t port) noexcept {
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(header);
    constexpr unsigned ipv4_at = 20, ipv4_source_at = 12, gid_at = 8;
    Address from;
    from.port = port;
    if (bytes[0] >> 4 != 6 && bytes[ipv4_at] >> 4 == 4) {
        from.family = Address::Family::ipv4;
        std::memcpy(from.bytes, bytes + ipv4_at + ipv4_source_at, 4);
        return from;
    }
    constexpr std::uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    if (std::memcmp(bytes + gid_at, mapped, sizeof mapped) == 0) {
        from.family = Address::Family::ipv4;
        std::memcpy(from.bytes, bytes + gid_at + sizeof mapped, 4);
        return from;
    }
    from.family = Address::Family::ipv6;
    std::memcpy(from.bytes, bytes + gid_at, 16);
    return from;
}

Caps caps_with(std::uint32_t payload_bytes) noexcept {
    Caps caps;
    caps.kind = Kind::datagram;
    caps.receive_pause = true;
    caps.multicast = true;
    caps.zero_copy_send = true;
    caps.zero_copy_receive = true;
    caps.message_bytes_max = payload_bytes;
    return caps;
}

}  // namespace

Caps ud_caps() noexcept { return caps_with(1024); }

// -- sockets ---------------------------------------------------------------------------------------------------

UdPort::UdPort(Host& of_loop, Sleeper& sleeper, Control& control) noexcept
    : host(of_loop), control_(control), sleeper_(sleeper), mailbox_(of_loop.bell()), block_(of_loop.heap()) {}

UdPort::~UdPort() {
    for (UdLink* link = links_; link != nullptr; link = link->next) {
        if (link->watched_channel) sleeper_.remove(*link, false);
        if (link->unacknowledged_sends > 0) verbs().ibv_ack_cq_events(link->queues.sends, link->unacknowledged_sends);
        if (link->unacknowledged_receives > 0) verbs().ibv_ack_cq_events(link->queues.receives, link->unacknowledged_receives);
    }
    control_.close(mailbox_);
    for (UdLink** list : {&links_, &free_links_}) {
        while (UdLink* link = *list) {
            *list = link->next;
            delete[] link->peers;
            delete[] link->heads;
            delete link;
        }
    }
}

UdLink* UdPort::take_link() noexcept {
    if (free_links_ == nullptr) return new (std::nothrow) UdLink;
    UdLink* link = free_links_;
    free_links_ = std::exchange(link->next, nullptr);
    return link;
}

Result<Listening*> UdPort::listen(const Endpoint&, bool, Acceptor&, Diagnostic&) { return Error(Errc::not_supported, Step::listen); }
Result<Link*> UdPort::connect(const Endpoint&, const Address&, Sink&, SendQueue&, Diagnostic&) { return Error(Errc::not_supported, Step::connect); }

Result<Link*> UdPort::bind(const Endpoint& at, const Address* remote, Sink& sink, SendQueue& outbox, Diagnostic& why) {
    const auto options = UdOptions::read(at, why);
    if (!options) return options.error();
    UdLink* link = take_link();
    Session* session = link != nullptr ? control_.make(mailbox_) : nullptr;
    if (session == nullptr) {
        if (link != nullptr) link->next = std::exchange(free_links_, link);
        return Error(Errc::out_of_memory, Step::bind);
    }
    session->role = Session::Role::datagrams;
    session->datagrams = link;
    session->connected = remote != nullptr;
    Error error;
    if (remote != nullptr) {
        session->target = socket::to_kernel(*remote);
    } else if (auto where = socket::literal_address(at, why)) {
        where->port = at.port();
        if (const auto bound = control_.bind(*session, socket::to_kernel(*where)); !bound) error = bound.error();
    } else {
        error = where.error();
    }
    if (!error.ok()) {
        control_.forget(*session);
        link->next = std::exchange(free_links_, link);
        if (error == Errc::address_unavailable) {
            return base::refuse(why, Errc::address_unavailable,
                                "rdma-ud://%.*s:%u: no RDMA device has this address; `rdma link` and `ip address` show which there are", EVPL_SHOWN(at.host()),
                                unsigned(at.port()));
        }
        return error;
    }
    link->port = this;
    link->sink = &sink;
    link->outbox = &outbox;
    link->session = session;
    link->state = UdLink::State::opening;
    link->is_raw = options->is_raw;
    link->connected = remote != nullptr;
    if (remote != nullptr) link->remote = *remote;
    link->local = session->local;
    link->own_caps = caps_with(ud_payload_most);
    link->caps = &link->own_caps;
    for (std::uint32_t i = ud_receives; i-- > 0;) link->free_blocks[link->free_count++] = i;
    link->next = std::exchange(links_, link);
    control_.ask(*session, Session::ask_open);
    return link;
}

void UdPort::opened(UdLink& link) {
    link.queues = link.session->ud;
    link.local = link.session->local;
    link.domain = link.queues.device;
    link.own_caps.message_bytes_max = link.queues.payload_bytes;
    link.state = UdLink::State::open;
    if (const auto added = sleeper_.add(link, link.queues.channel->fd, EPOLLIN); !added) return end_link(link, added.error());
    link.watched_channel = true;
    post_receives(link);
    link.sink->opened();
    if (link.state == UdLink::State::open) link.sink->writable();
}

void UdPort::close(Link& base, How) { end_link(static_cast<UdLink&>(base), Error(Errc::closed, Step::close, Who::local)); }

void UdPort::end_link(UdLink& link, Error error) noexcept {
    if (link.state == UdLink::State::over) return;
    link.state = UdLink::State::over;
    link.error = error;
    some_over_ = true;
    host.poll_again();
    if (link.watched_channel) sleeper_.remove(link, false);
    link.watched_channel = false;
    for (std::uint32_t i = 0; link.peers != nullptr && i < ud_peers_most; ++i) {
        if (link.peers[i].state != UdPeer::State::free) forget_peer(link, link.peers[i]);
    }
    if (!std::exchange(link.finish_asked, true)) {
        if (link.unacknowledged_sends > 0) verbs().ibv_ack_cq_events(link.queues.sends, std::exchange(link.unacknowledged_sends, 0));
        if (link.unacknowledged_receives > 0) verbs().ibv_ack_cq_events(link.queues.receives, std::exchange(link.unacknowledged_receives, 0));
        control_.ask(*link.session, Session::ask_finish);
    }
}

/// Nothing of it is left with the device.
void UdPort::destroyed(UdLink& link) {
    if (!std::exchange(link.closed_told, true)) link.sink->closed(link.error);
    link.sink->retired();
    UdLink** at = &links_;
    while (*at != &link) at = &(*at)->next;
    *at = link.next;
    delete[] link.peers;
    delete[] link.heads;
    const std::uint16_t tag = link.tag;
    link.~UdLink();
    new (&link) UdLink;
    link.tag = tag;
    link.next = std::exchange(free_links_, &link);
}

// -- news of the control thread --------------------------------------------------------------------------------

void UdPort::hear(Session& session, std::uint32_t tells) {
    UdLink* const link = session.datagrams;
    if (session.role == Session::Role::datagrams) hear_socket(*link, session, tells);
    else hear_peer(*link, session, tells);
}

void UdPort::hear_socket(UdLink& link, Session& session, std::uint32_t tells) {
    if ((tells & Session::tell_destroyed) != 0) {
        destroyed(link);
        return control_.forget(session);
    }
    if ((tells & Session::tell_removed) != 0) {
        link.dead = true;
        return end_link(link, Error(Errc::device_lost, Step::none, Who::system));
    }
    if ((tells & (Session::tell_failed | Session::tell_broken)) != 0) return end_link(link, session.error);
    if ((tells & Session::tell_prepared) != 0 && link.state == UdLink::State::opening) opened(link);
}

void UdPort::hear_peer(UdLink& link, Session& session, std::uint32_t tells) {
    // A peer that was forgotten meanwhile left its session to us: only the last word counts.
    if ((tells & Session::tell_destroyed) != 0) return control_.forget(session);
    UdPeer& peer = link.peers[session.peer_index];
    if (link.state != UdLink::State::open || peer.session != &session || peer.generation != session.peer_generation) return;
    if ((tells & Session::tell_failed) != 0) {
        const Error error = session.error;
        for (; peer.waiting.count() > 0; --link.waiting) drop_datagram(link, peer.waiting, error);
        if (session.role == Session::Role::group) link.sink->send_failed(error);
        return forget_peer(link, peer);
    }
    if ((tells & Session::tell_established) == 0) return;
    const std::uint32_t known_qp = peer.target.qp_number, known_qkey = peer.target.qkey;
    peer.target = session.ud_target;
    if (session.has_arrival) {
        peer.target.qp_number = known_qp;
        peer.target.qkey = known_qkey;
    }
    peer.state = UdPeer::State::ready;
    send_waiting(link, peer);
}

// -- polling ---------------------------------------------------------------------------------------------------

unsigned UdPort::poll(unsigned budget) {
    unsigned done = 0;
    if (std::exchange(some_over_, false)) {
        for (UdLink* link = links_; link != nullptr; link = link->next) {
            if (link->state == UdLink::State::over && !std::exchange(link->closed_told, true)) link->sink->closed(link->error);
        }
    }
    std::uint32_t tells = 0;
    while (mailbox_.has_news()) {
        Session* session = mailbox_.next(tells);
        if (session == nullptr) break;
        hear(*session, tells);
        ++done;
    }
    for (UdLink *link = links_, *next; link != nullptr; link = next) {
        next = link->next;
        if (link->state == UdLink::State::open) done += poll_link(*link, budget);
    }
    return done;
}

unsigned UdPort::poll_link(UdLink& link, unsigned budget) {
    unsigned done = take_sends(link);
    if (!link.receive_paused && link.state == UdLink::State::open) done += take_receives(link, budget);
    if (link.state == UdLink::State::open && link.free_count >= ud_receives / 8) post_receives(link);
    return done;
}

unsigned UdPort::take_sends(UdLink& link) {
    ibv_wc batch[completions_per_poll];
    const int got = ibv_poll_cq(link.queues.sends, int(completions_per_poll), batch);
    std::size_t bytes = 0;
    for (int i = 0; i < got; ++i) {
        const auto first = std::uint16_t(link.next_number - link.sends.size());
        unsigned count = unsigned(std::uint16_t(std::uint16_t(batch[i].wr_id) - first)) + 1;
        for (count = std::min(count, link.sends.size()); count > 0; --count) {
            const UdLink::Send one = link.sends.front();
            link.sends.pop();
            bytes += one.bytes;
            for (unsigned k = 0; k < one.slices; ++k) link.with_device.pop();
            --link.peers[one.peer].sends_out;
        }
        if (batch[i].status != IBV_WC_SUCCESS) {
            link.sink->send_failed(Error(Errc::device_error, Step::send, Who::system, int(batch[i].status)));
        }
    }
    if (got <= 0) return 0;
    link.sink->sent(bytes);
    for (std::uint32_t i = 0; i < ud_peers_most && link.waiting > 0; ++i) {
        UdPeer& peer = link.peers[i];
        if (peer.state == UdPeer::State::ready && peer.waiting.count() > 0) send_waiting(link, peer);
    }
    if (std::exchange(link.blocked, false)) link.sink->writable();
    return unsigned(got);
}

unsigned UdPort::take_receives(UdLink& link, unsigned budget) {
    unsigned done = 0;
    ibv_wc batch[completions_per_poll];
    while (done < budget && link.state == UdLink::State::open && !link.receive_paused) {
        const int got = ibv_poll_cq(link.queues.receives, int(std::min(completions_per_poll, budget - done)), batch);
        if (got <= 0) break;
        for (int i = 0; i < got; ++i) received(link, batch[i]);
        done += unsigned(got);
    }
    return done;
}

/// A raw sender has no port number: its queue pair's takes the place, and a connected socket knows its peer by it.
std::uint16_t UdPort::raw_port_of(UdLink& link, const Address& from, std::uint32_t qp_number) noexcept {
    if (!link.connected) return std::uint16_t(std::max(qp_number & 0xffff, 1u));
    const UdPeer* peer = find_peer(link, link.remote);
    const bool is_it = peer != nullptr && peer->target.qp_number == qp_number && std::memcmp(from.bytes, link.remote.bytes, sizeof from.bytes) == 0;
    return is_it ? link.remote.port : std::uint16_t(0);
}

void UdPort::received(UdLink& link, const ibv_wc& done) {
    const auto slot = std::uint32_t(done.wr_id);
    link.free_blocks[link.free_count++] = slot;
    Buffer& block = link.blocks[slot];
    if (done.status != IBV_WC_SUCCESS || done.byte_len < ud_header_bytes || (done.wc_flags & IBV_WC_GRH) == 0 || link.state != UdLink::State::open) return;
    const std::uint32_t note = (done.wc_flags & IBV_WC_WITH_IMM) != 0 ? ntohl(done.imm_data) : 0;
    Address from = sender_of(block.data(), (note & 0xffff0000) == ud_mark ? std::uint16_t(note) : std::uint16_t(0));
    if (link.is_raw) from.port = raw_port_of(link, from, done.src_qp);
    if (link.connected && !(from == link.remote)) return;
    if (from.port != 0 && find_peer(link, from) == nullptr) {  // an answer needs no question where it goes
        UdPeer* peer = add_peer(link, from);
        if (peer != nullptr) {
            peer->target.qp_number = done.src_qp;
            peer->target.qkey = RDMA_UDP_QKEY;
            look_for(link, *peer, Session::Role::peer, &done, block.data());
        }
    }
    Arrival arrival;
    arrival.end_of_message = true;
    arrival.source = &from;
    arrival.local = &link.local;
    const std::uint32_t bytes = done.byte_len - ud_header_bytes;
    if (bytes > ud_copied_most) {
        Buffer whole = std::move(block);
        whole.truncate(done.byte_len);
        whole.drop_front(ud_header_bytes);
        return link.sink->delivered(std::move(whole), arrival);
    }
    Buffer slice;
    if (bytes > 0) {
        const auto room = block_.room(bytes);
        if (room.empty()) return;  // no memory: a datagram may be lost
        std::memcpy(room.data(), block.data() + ud_header_bytes, bytes);
        slice = block_.cut(bytes);
    }
    link.sink->delivered(std::move(slice), arrival);
}

bool UdPort::fill(UdLink& link, Buffer& block, std::uint32_t& lkey) noexcept {
    if (!block) {
        auto made = host.heap().allocate(block_bytes_of(link.queues));
        if (!made) return false;
        block = *std::move(made);
    }
    memory::Slab& slab = *memory::slab_of(block);
    std::uint64_t key;
    if (link.queues.device->key_of(slab, key) != nullptr) {
        lkey = Device::lkey_of(key);
        return true;
    }
    link.queues.device->request(
        slab, [](void* bell) { static_cast<Bell*>(bell)->ring(); }, &host.bell());
    return false;
}

/// Peers are told of the queue pair once all its receives are posted: what comes earlier would be lost.
void UdPort::post_receives(UdLink& link) {
    post_free(link);
    const bool short_of_memory = link.free_count > 0 && !link.blocks[link.free_blocks[link.free_count - 1]];
    const bool enough = link.free_count == 0 || (short_of_memory && link.free_count < ud_receives);
    if (enough && !link.connected && !std::exchange(link.answers, true)) control_.ask(*link.session, Session::ask_answer);
}

void UdPort::post_free(UdLink& link) {
    ibv_recv_wr requests[completions_per_poll];
    ibv_sge places[completions_per_poll];
    while (link.free_count > 0 && !link.dead) {
        unsigned n = 0;
        for (; n < completions_per_poll && link.free_count > 0; ++n) {
            const std::uint32_t slot = link.free_blocks[link.free_count - 1];
            std::uint32_t lkey;
            if (!fill(link, link.blocks[slot], lkey)) {
                host.set_alarm(*this, host.now_ns() + retry_ns);
                break;
            }
            --link.free_count;
            places[n] = {reinterpret_cast<std::uintptr_t>(link.blocks[slot].data()), block_bytes_of(link.queues), lkey};
            requests[n] = {slot, &requests[n + 1], &places[n], 1};
        }
        if (n == 0) return;
        requests[n - 1].next = nullptr;
        ibv_recv_wr* refused = nullptr;
        if (ibv_post_recv(link.queues.qp, requests, &refused) == 0) continue;
        for (ibv_recv_wr* each = refused; each != nullptr; each = each->next) link.free_blocks[link.free_count++] = std::uint32_t(each->wr_id);
        return host.set_alarm(*this, host.now_ns() + retry_ns);
    }
}

void UdPort::alarm() {
    for (UdLink* link = links_; link != nullptr; link = link->next) {
        if (link->state == UdLink::State::open) post_receives(*link);
    }
}

void UdPort::resume(Link& base) {
    base.receive_paused = false;
    host.poll_again();
}

Armed UdPort::arm() {
    bool work = some_over_ || mailbox_.has_news();
    for (UdLink* link = links_; link != nullptr; link = link->next) {
        if (link->state != UdLink::State::open || link->dead) continue;
        // Armed just now, a completion may have come right before: polled once more before sleeping.
        if (!link->armed_sends && link->sends.size() > 0) {
            link->armed_sends = ibv_req_notify_cq(link->queues.sends, 0) == 0;
            work = true;
        }
        if (!link->armed_receives && !link->receive_paused) {
            link->armed_receives = ibv_req_notify_cq(link->queues.receives, 0) == 0;
            work = true;
        }
    }
    return {work, INT64_MAX};
}

std::uint32_t UdLink::ready(std::uint32_t) {
    ibv_cq* queue = nullptr;
    void* context = nullptr;
    while (verbs().ibv_get_cq_event(queues.channel, &queue, &context) == 0) {
        const bool of_sends = queue == queues.sends;
        (of_sends ? armed_sends : armed_receives) = false;
        unsigned& unacknowledged = of_sends ? unacknowledged_sends : unacknowledged_receives;
        constexpr unsigned batch = 64;
        if (++unacknowledged >= batch) verbs().ibv_ack_cq_events(queue, std::exchange(unacknowledged, 0));
    }
    static_cast<UdPort*>(port)->host.poll_again();
    return 0;
}

// -- sending ---------------------------------------------------------------------------------------------------

/// Datagrams that leave with one doorbell. The last is signalled, and tells of those before it.
struct UdPort::Batch {
    static constexpr unsigned most = 16;
    ibv_send_wr requests[most];
    ibv_sge places[most];
    Buffer datagrams[most];
    UdPeer* peers[most];
    unsigned count = 0;
};

Flushed UdPort::flush(Link& base) {
    auto& link = static_cast<UdLink&>(base);
    SendQueue& outbox = *link.outbox;
    if (link.state != UdLink::State::open) return Flushed::blocked;
    Batch batch;
    while (outbox.count() > 0) {
        const Address to = link.connected ? link.remote : outbox.destinations.front();
        UdPeer* const peer = peer_of(link, to);
        if (peer == nullptr) {
            drop_datagram(link, outbox, Error(Errc::out_of_memory, Step::send));
        } else if (peer->state == UdPeer::State::ready && peer->waiting.count() == 0) {
            if (!gather(link, *peer, outbox, batch)) {
                ring(link, batch);
                link.blocked = true;
                return Flushed::blocked;
            }
        } else if (peer->waiting.count() < ud_waiting_most && peer->waiting.reserve(1)) {
            (void)peer->waiting.push(outbox.pop());  // reserved
            ++link.waiting;
        } else {
            drop_datagram(link, outbox, Error(Errc::out_of_buffers, Step::send));
        }
        if (!link.connected) outbox.destinations.pop();
    }
    ring(link, batch);
    return Flushed::all;
}

void UdPort::send_waiting(UdLink& link, UdPeer& peer) {
    Batch batch;
    while (peer.waiting.count() > 0 && link.state == UdLink::State::open && gather(link, peer, peer.waiting, batch)) --link.waiting;
    ring(link, batch);
}

/// The first datagram of `from`, which is one slice, joins the batch. False: no room at the device.
bool UdPort::gather(UdLink& link, UdPeer& peer, SliceQueue& from, Batch& batch) {
    if (batch.count == Batch::most) ring(link, batch);
    if (link.sends.size() + batch.count >= ud_sends_most || !link.sends.reserve(batch.count + 1) || !link.with_device.reserve(batch.count + 1)) return false;
    Buffer datagram = from.pop();
    std::uint64_t key = 0;
    const memory::Slab* slab = memory::slab_of(datagram);
    const bool known = datagram.empty() || (slab != nullptr && link.queues.device->key_of(*slab, key) != nullptr);
    if (!known || datagram.size() > link.queues.payload_bytes) {
        not_sent(link, datagram.size(), known ? Errc::too_large : Errc::device_error);
        return true;
    }
    const unsigned i = batch.count++;
    batch.places[i] = {reinterpret_cast<std::uintptr_t>(datagram.data()), datagram.size(), Device::lkey_of(key)};
    ibv_send_wr& request = batch.requests[i] = {};
    request.wr_id = std::uint16_t(link.next_number + i);
    request.sg_list = &batch.places[i];
    request.num_sge = datagram.empty() ? 0 : 1;
    request.opcode = IBV_WR_SEND_WITH_IMM;
    request.imm_data = htonl(link.is_raw ? link.queues.qp->qp_num : ud_mark | link.local.port);
    request.wr.ud.ah = peer.target.handle;
    request.wr.ud.remote_qpn = peer.target.qp_number;
    request.wr.ud.remote_qkey = peer.target.qkey;
    batch.datagrams[i] = std::move(datagram);
    batch.peers[i] = &peer;
    peer.used = ++link.uses;
    ++peer.sends_out;  // its handle stays
    return true;
}

void UdPort::ring(UdLink& link, Batch& batch) {
    const unsigned count = std::exchange(batch.count, 0);
    if (count == 0) return;
    for (unsigned i = 0; i + 1 < count; ++i) batch.requests[i].next = &batch.requests[i + 1];
    batch.requests[count - 1].send_flags = IBV_SEND_SIGNALED;
    ibv_send_wr* refused = nullptr;
    const bool all = ibv_post_send(link.queues.qp, batch.requests, &refused) == 0;
    const unsigned taken = all || refused == nullptr ? count : unsigned(refused - batch.requests);
    for (unsigned i = 0; i < taken; ++i) {
        (void)link.sends.push({batch.datagrams[i].size(), 1, std::uint16_t(batch.peers[i] - link.peers)});  // reserved
        (void)link.with_device.push(std::move(batch.datagrams[i]));
        ++link.next_number;
    }
    if (taken > 0 && taken < count) {  // none of these is signalled, and no other may follow: nothing would ever tell of them
        return end_link(link, Error(Errc::device_error, Step::send, Who::system));
    }
    for (unsigned i = taken; i < count; ++i) {
        --batch.peers[i]->sends_out;
        not_sent(link, std::exchange(batch.datagrams[i], {}).size(), Errc::device_error);
    }
}

void UdPort::not_sent(UdLink& link, std::size_t bytes, Errc why) {
    link.sink->sent(bytes);
    link.sink->send_failed(Error(why, Step::send));
}

void UdPort::drop_datagram(UdLink& link, SliceQueue& from, Error error) {
    const Buffer gone = from.pop();
    link.sink->sent(gone.size());
    link.sink->send_failed(error);
}

// -- peers -----------------------------------------------------------------------------------------------------

UdPeer* UdPort::find_peer(UdLink& link, const Address& address) noexcept {
    if (link.peers == nullptr) return nullptr;
    for (std::uint16_t i = link.heads[hash_of(address)]; i != 0; i = link.peers[i - 1].next) {
        if (link.peers[i - 1].address == address) return &link.peers[i - 1];
    }
    return nullptr;
}

/// The one that has not been used for longest makes room.
UdPeer* UdPort::add_peer(UdLink& link, const Address& address) noexcept {
    if (link.peers == nullptr) {
        link.peers = new (std::nothrow) UdPeer[ud_peers_most];
        link.heads = new (std::nothrow) std::uint16_t[ud_peers_most]{};
        if (link.peers == nullptr || link.heads == nullptr) {
            delete[] std::exchange(link.peers, nullptr);
            delete[] std::exchange(link.heads, nullptr);
            return nullptr;
        }
    }
    UdPeer* chosen = nullptr;
    for (std::uint32_t i = 0; i < ud_peers_most; ++i) {
        UdPeer& each = link.peers[i];
        if (each.state == UdPeer::State::free && each.sends_out == 0) {
            chosen = &each;
            break;
        }
        const bool idle = each.state == UdPeer::State::ready && each.sends_out == 0 && each.waiting.count() == 0;
        if (idle && (chosen == nullptr || each.used < chosen->used)) chosen = &each;
    }
    if (chosen == nullptr) return nullptr;
    if (chosen->state != UdPeer::State::free) forget_peer(link, *chosen);
    chosen->state = UdPeer::State::looking;
    chosen->address = address;
    chosen->used = ++link.uses;
    std::uint16_t& head = link.heads[hash_of(address)];
    chosen->next = std::exchange(head, std::uint16_t(chosen - link.peers + 1));
    return chosen;
}

void UdPort::forget_peer(UdLink& link, UdPeer& peer) noexcept {
    const auto index = std::uint16_t(&peer - link.peers + 1);
    std::uint16_t* at = &link.heads[hash_of(peer.address)];
    while (*at != index) at = &link.peers[*at - 1].next;
    *at = peer.next;
    if (peer.session != nullptr) control_.ask(*std::exchange(peer.session, nullptr), Session::ask_finish);
    ++peer.generation;
    link.waiting -= peer.waiting.count();
    peer.waiting.clear();
    peer.state = UdPeer::State::free;
}

/// False: no memory to ask; the peer is forgotten.
bool UdPort::look_for(UdLink& link, UdPeer& peer, Session::Role role, const ibv_wc* arrival, const void* header) noexcept {
    Session* session = control_.make(mailbox_);
    if (session == nullptr) {
        forget_peer(link, peer);
        return false;
    }
    session->role = role;
    session->datagrams = &link;
    session->socket = link.session;
    session->peer_index = std::uint32_t(&peer - link.peers);
    session->peer_generation = peer.generation;
    session->target = socket::to_kernel(peer.address);
    if (arrival != nullptr) {
        session->has_arrival = true;
        session->arrival = *arrival;
        std::memcpy(&session->arrival_header, header, sizeof session->arrival_header);
    }
    peer.session = session;
    control_.ask(*session, Session::ask_peer);
    return true;
}

UdPeer* UdPort::peer_of(UdLink& link, const Address& address) noexcept {
    if (UdPeer* known = find_peer(link, address)) return known;
    UdPeer* peer = add_peer(link, address);
    const auto role = address.is_multicast() ? Session::Role::group : Session::Role::peer;
    return peer != nullptr && look_for(link, *peer, role, nullptr, nullptr) ? peer : nullptr;
}

/// Joining is asked for; should it fail, on_error tells.
Result<void> UdPort::join(Link& base, const Address& group, const Address&, bool leave) {
    auto& link = static_cast<UdLink&>(base);
    if (link.state == UdLink::State::over || !group.is_multicast()) return Error(Errc::misuse, Step::bind);
    UdPeer* known = find_peer(link, group);
    if (leave) {
        if (known == nullptr) return Error(Errc::misuse, Step::bind);
        forget_peer(link, *known);
        return {};
    }
    if (known == nullptr && peer_of(link, group) == nullptr) return Error(Errc::out_of_memory, Step::bind);
    return {};
}

}  // namespace evpl::transport::rdma
