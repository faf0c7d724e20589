// Everything but the bytes: the ring and its buffers, operations and their ends, connecting, accepting, closing.
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <new>

#include "evpl/log.hpp"
#include "transport/common/sockets/zero_copy.hpp"
#include "transport/uring/port.hpp"

namespace evpl::transport::uring {
namespace {

constexpr unsigned driven_per_chunk = 32;
/// Sizes and counts of receive buffers: 1 MiB in all, so that their blocks stay in the second-level cache. Incremental ones are
/// filled from the front to the end, as the block that an epoll port reads into.
constexpr std::uint32_t incremental_bytes = 256u << 10, incremental_count = 4;
constexpr std::uint32_t whole_bytes = 4u << 10, whole_count = 256;
/// A datagram, or a train merged by UDP_GRO, has up to 65,527 bytes, and up to 144 before them. Small ones are copied out, and their
/// blocks are the same few again; pages that nobody touched are not resident.
constexpr std::uint32_t datagram_bytes = 128u << 10, datagram_count = 32;
/// At the end of a port: so often the kernel is told to end all operations, and so long each wait for their completions may be, which it has
/// at once but for sends to a device.
constexpr unsigned last_cancels_max = 50;
constexpr std::int64_t last_enter_ns = 10'000'000;

constexpr std::uint32_t poll_multishot = 1;

void* object_of(const abi::Cqe& done) noexcept {
    constexpr std::uint64_t address_mask = (std::uint64_t(1) << UringPort::number_shift) - 1;
    return reinterpret_cast<void*>(done.user_data & address_mask & ~UringPort::kind_mask);
}

}  // namespace

struct UringPort::Chunk {
    Chunk* next = nullptr;
    Driven each[driven_per_chunk];
};

// -- the ring --------------------------------------------------------------------------------------------------

Error UringPort::open_ring(const Endpoint& endpoint, Diagnostic& why) noexcept {
    if (ring_sleeper_ != nullptr) return {};
    const auto wishes = socket::RingWishes::read(endpoint, why);
    if (!wishes) return wishes.error();
    std::unique_ptr<RingSleeper> made(new (std::nothrow) RingSleeper(*this));
    if (messages_ == nullptr) messages_.reset(new (std::nothrow) Messages);
    if (made == nullptr || messages_ == nullptr) return Errc::out_of_memory;
    const Tier tier = std::min(Tier(wishes->tier), support().tier);
    if (const auto opened = made->ring.open({tier, wishes->entries, std::uint32_t(wishes->min_wait.ns / 1000)}); !opened) {
        std::snprintf(why.text, sizeof why.text, "this loop cannot have a ring: %s (locked memory: ulimit -l; descriptors: ulimit -n)",
                      std::strerror(opened.error().os()));
        return opened.error();
    }
    ring_sleeper_ = made.get();
    if (const Error error = open_groups(); !error.ok()) {
        ring_sleeper_ = nullptr;
        return error;
    }
    made->take_over(sleeper, sleeper.fd());
    if (!host.adopt_sleeper(*made)) {
        ring_sleeper_ = nullptr;
        made->give_back();
        return Errc::not_supported;
    }
    (void)made.release();
    if (ring_sleeper_->ring.entries() < wishes->entries) {
        host.log_line(std::uint8_t(LogLevel::info), "uring: a smaller ring, as little memory may be locked: raise ulimit -l");
    }
    return {};
}

Error UringPort::open_groups() noexcept {
    Ring& ring = ring_sleeper_->ring;
    if (ring.tier() >= tier_6_15) {
        streams_.emplace(host.heap(), std::uint16_t(0), incremental_bytes, incremental_count);
        if (streams_->open(ring, true)) return {};
    }
    streams_.emplace(host.heap(), std::uint16_t(0), whole_bytes, whole_count);
    const auto opened = streams_->open(ring, false);
    return opened ? Error() : opened.error();
}

Result<Listening*> UringPort::listen(const Endpoint& at, bool shared, Acceptor& acceptor, Diagnostic& why) {
    if (const Error error = open_ring(at, why); !error.ok()) return error;
    auto made = SocketPort::listen(at, shared, acceptor, why);
    ring_sleeper_->wake_host();
    return made;
}

Result<Link*> UringPort::connect(const Endpoint& to, const Address& address, Sink& sink, SendQueue& outbox, Diagnostic& why) {
    if (const Error error = open_ring(to, why); !error.ok()) return error;
    auto made = SocketPort::connect(to, address, sink, outbox, why);
    ring_sleeper_->wake_host();
    return made;
}

Result<Link*> UringPort::bind(const Endpoint& at, const Address* remote, Sink& sink, SendQueue& outbox, Diagnostic& why) {
    if (const Error error = open_ring(at, why); !error.ok()) return error;
    auto made = SocketPort::bind(at, remote, sink, outbox, why);
    ring_sleeper_->wake_host();
    return made;
}

Result<Link*> UringPort::adopt(const Endpoint& options, int descriptor, const Address& peer, Sink& sink, SendQueue& outbox) {
    Diagnostic unused;
    if (const Error error = open_ring(options, unused); !error.ok()) {
        ::close(descriptor);
        return error;
    }
    auto made = SocketPort::adopt(options, descriptor, peer, sink, outbox);
    ring_sleeper_->wake_host();
    return made;
}

// -- the end of the port ---------------------------------------------------------------------------------------

// Upcalls are over. The kernel must be done with all memory before the heap may have it back.
UringPort::~UringPort() {
    if (ring_sleeper_ != nullptr) end_operations();
    for (Chunk* chunk = driven_chunks_; chunk != nullptr; chunk = chunk->next) {
        for (Driven& driven : chunk->each) {
            if (driven.link == nullptr) continue;
            if (driven.link->watched_fd >= 0) ::close(std::exchange(driven.link->watched_fd, -1));
            driven.link->driven = nullptr;
        }
    }
    while (AcceptShot* shot = shots_) let_go(*shot);
    while (Chunk* chunk = driven_chunks_) {
        driven_chunks_ = chunk->next;
        delete chunk;
    }
}

// A cancel looks through all operations for each of them, and an entry brings only a few completions (io_uring: 20 items of task work):
// so one cancel, then entries while they bring something, and another cancel for what had escaped the first.
void UringPort::end_operations() noexcept {
    Ring& ring = ring_sleeper_->ring;
    ring_sleeper_->forsake();
    unsigned left = 0;
    for (Chunk* chunk = driven_chunks_; chunk != nullptr; chunk = chunk->next) {
        for (const Driven& driven : chunk->each) left += driven.operations;
    }
    for (const AcceptShot* shot = shots_; shot != nullptr; shot = shot->next) left += shot->accept.out;
    for (unsigned cancels = 0; cancels < last_cancels_max && left > 0; ++cancels) {
        if (ring.enter(0, 0) == EOWNERDEAD) break;  // its own thread has gone, and its operations with it
        ring.cancel_now(0);
        unsigned ended = take_last(ring);
        do {
            left -= ended;
            if (left > 0) (void)ring.enter(1, last_enter_ns);
            ended = take_last(ring);
        } while (ended > 0);
    }
    if (left == 0) return;
    host.log_line(std::uint8_t(LogLevel::error), "uring: the kernel does not end operations of a loop that has ended: its ring is given up");
    ring.close();
}

/// How many operations have ended.
unsigned UringPort::take_last(Ring& ring) noexcept {
    unsigned ended = 0;
    for (abi::Cqe done; ring.take(done);) {
        const std::uint64_t kind = done.user_data & kind_mask;
        const bool last = (done.flags & abi::cqe_more) == 0;
        void* const whose = object_of(done);
        if (kind == k_accept) {
            if (done.result >= 0) ::close(done.result);
            if (!last) continue;
            static_cast<AcceptShot*>(whose)->accept.out = false;
            ++ended;
        } else if (kind != 0 && last) {
            --static_cast<Driven*>(whose)->operations;
            ++ended;
        }
    }
    return ended;
}

void UringPort::ring_lost() {
    host.log_line(std::uint8_t(LogLevel::error), "uring: a loop with uring endpoints runs on the thread that first ran it: its connections end");
    const Error error(Errc::misuse, Step::loop, Who::local);
    for (Chunk* chunk = driven_chunks_; chunk != nullptr; chunk = chunk->next) {
        for (Driven& driven : chunk->each) {
            if (driven.link == nullptr) continue;
            fail(*driven.link, error);
            driven.operations = 0;  // nobody runs them any more
            finished(driven);
        }
    }
    for (AcceptShot* shot = shots_; shot != nullptr; shot = shot->next) {
        if (shot->listening != nullptr) shot->listening->acceptor->failed(error);
    }
}

// -- operations ------------------------------------------------------------------------------------------------

Driven* UringPort::take_driven() noexcept {
    if (free_ == nullptr) {
        auto* chunk = new (std::nothrow) Chunk;
        if (chunk == nullptr) return nullptr;
        chunk->next = driven_chunks_;
        driven_chunks_ = chunk;
        for (Driven& driven : chunk->each) {
            driven.next_free = free_;
            free_ = &driven;
        }
    }
    Driven* driven = free_;
    free_ = driven->next_free;
    return driven;
}

void UringPort::free_driven(SocketLink& link) noexcept {
    Driven* const driven = std::exchange(link.driven, nullptr);
    if (link.zero_copy != nullptr) stop_references(link);
    driven->~Driven();
    new (driven) Driven;
    driven->next_free = free_;
    free_ = driven;
    --waiting_;
}

bool UringPort::submit(Driven& driven, Kind kind, abi::Sqe operation, std::uint16_t number) noexcept {
    operation.fd = driven.link->watched_fd;
    operation.user_data = name_of_operation(&driven, kind, number);
    if (!ring_sleeper_->ring.put(operation)) return ring_refused(driven);
    ++driven.operations;
    driven.last_put = ring_sleeper_->ring.last_put();
    return true;
}

bool UringPort::ring_refused(Driven& driven) noexcept {
    fail(*driven.link, Error(Errc::out_of_memory, Step::open));
    return false;
}

void UringPort::poll_for(Driven& driven, Kind kind, Shot& shot, std::uint32_t events, bool again) noexcept {
    if (shot.out) return;
    abi::Sqe poll;
    poll.operation = abi::op_poll_add;
    poll.operation_flags = events;
    poll.length = again ? poll_multishot : 0;
    shot = {submit(driven, kind, poll), false};
}

void UringPort::cancel(std::uint64_t name, Shot& shot) noexcept {
    if (!shot.out || shot.cancelled) return;
    abi::Sqe cancel;
    cancel.operation = abi::op_async_cancel;
    cancel.address = name;
    shot.cancelled = ring_sleeper_->ring.put(cancel);
}

std::uint32_t UringPort::complete(const abi::Cqe& done) {
    const std::uint64_t kind = done.user_data & kind_mask;
    void* const whose = object_of(done);
    if (kind == k_accept) {
        accepted(*static_cast<AcceptShot*>(whose), done);
        return 0;
    }
    Driven& driven = *static_cast<Driven*>(whose);
    const bool last = (done.flags & abi::cqe_more) == 0;
    if (last) --driven.operations;
    std::uint32_t bytes = 0;
    switch (kind) {
    case k_receive:
        if (last) driven.receive = {};
        bytes = driven.by_bytes ? received(driven, done) : became_ready(driven, done);
        break;
    case k_room:
        driven.room = {};
        got_room(driven, done);
        break;
    case k_hangup:
        driven.hangup = {};
        hung_up(driven, done);
        break;
    case k_send:
        if ((done.flags & abi::cqe_notification) != 0) notified(driven, done);
        else sent(driven, done);
        break;
    }
    if (driven.operations == 0) finished(driven);
    return bytes;
}

// The last operation has completed: of a link that is over nothing is with the kernel any more.
void UringPort::finished(Driven& driven) noexcept {
    if (driven.link->state == SocketLink::State::closed) owe(*driven.link, SocketLink::owe_retire);
}

void UringPort::batch_done() {
    starved_ = !streams_->refill();
    if (datagrams_ && datagrams_->is_open()) starved_ |= !datagrams_->refill();
    if (starved_) [[unlikely]]
        ++counts_.out_of_blocks;
    flushes_before_ = std::exchange(flushes_, 0);
}

bool UringPort::receives_datagrams() noexcept {
    if (datagrams_) return datagrams_->is_open();
    datagrams_.emplace(host.heap(), std::uint16_t(2), datagram_bytes, datagram_count);
    return datagrams_->open(ring_sleeper_->ring, false).ok();
}

// -- links -----------------------------------------------------------------------------------------------------

Result<void> UringPort::watch(SocketLink& link, std::uint32_t) noexcept {
    Driven* const driven = take_driven();
    if (driven == nullptr) return Errc::out_of_memory;
    driven->link = &link;
    driven->by_bytes = link.flavor == Flavor::tcp || (link.flavor == Flavor::udp && receives_datagrams());
    link.driven = driven;
    if (link.zero_copy != nullptr) {
        if (ring_sleeper_->ring.tier() >= tier_6_6) {
            ++references_;
        } else {  // nobody would say whether the kernel copies
            delete std::exchange(link.zero_copy, nullptr);
            link.caps = &socket::caps_of(link.flavor, false);
        }
    }
    ++waiting_;
    if (link.state == SocketLink::State::connecting) poll_for(*driven, k_room, driven->room, EPOLLOUT, false);
    else arm_receive(*driven);
    return {};
}

void UringPort::close_descriptor(SocketLink& link, bool reset) noexcept {
    if (link.driven == nullptr || link.watched_fd < 0) return SocketPort::close_descriptor(link, reset);
    Driven& driven = *link.driven;
    const int fd = std::exchange(link.watched_fd, -1);
    driven.early.clear();
    // What is under way holds the socket: its end is what the peer sees, with the next enter(). The descriptor is free at once.
    end(driven, name_of_operation(&driven, k_receive), driven.receive);
    end(driven, name_of_operation(&driven, k_room), driven.room);
    end(driven, name_of_operation(&driven, k_hangup), driven.hangup);
    end(driven, name_of_operation(&driven, k_send, driven.send_number), {driven.sending, false});
    if (reset) socket::close_with_reset(fd);
    else ::close(fd);
    retry_after_close();
}

void UringPort::end(Driven& driven, std::uint64_t name, Shot shot) noexcept {
    if (!shot.out) return;
    Ring& ring = ring_sleeper_->ring;
    if (ring.is_queued(driven.last_put) && ring.forget(name)) {  // else it meant the next socket
        --driven.operations;
        ++counts_.taken_back;
    } else {
        cancel(name, shot);
        ++counts_.closed_under_way;
    }
}

void UringPort::ask_for_room(SocketLink& link, bool wanted) {
    if (wanted) poll_for(*link.driven, k_room, link.driven->room, EPOLLOUT, false);
}

bool UringPort::holds(const SocketLink& link) const noexcept {
    return SocketPort::holds(link) || (link.driven != nullptr && (link.driven->sending || !link.driven->held.empty()));
}

// -- accepting -------------------------------------------------------------------------------------------------

Result<void> UringPort::watch(SocketListening& listening) noexcept {
    if (listening.shot == nullptr) {
        auto* shot = new (std::nothrow) AcceptShot;
        if (shot == nullptr) return Errc::out_of_memory;
        shot->listening = &listening;
        shot->next = shots_;
        shots_ = shot;
        listening.shot = shot;
    }
    AcceptShot& shot = *listening.shot;
    if (!std::exchange(shot.counted, true)) ++waiting_;
    if (!shot.early.empty() && !shot.queued) {
        AcceptShot* one = &shot;
        shot.queued = accepting_.push(std::move(one));
        host.poll_again();
    }
    return shot.accept.out ? Result<void>() : await_peers(shot);
}

// A multishot accept takes peers that another process would serve when this one has just stopped listening: where others listen at the
// same socket, they are taken one by one.
Result<void> UringPort::await_peers(AcceptShot& shot) noexcept {
    if (!shot.listening->handed_over) {
        submit_accept(shot);
        return {};
    }
    if (shot.polled) return {};
    const auto watched = SocketPort::watch(*shot.listening);
    shot.polled = watched.ok();
    return watched;
}

void UringPort::handed_over(SocketListening& listening) noexcept {
    if (listening.shot != nullptr) cancel(name_of_operation(listening.shot, k_accept), listening.shot->accept);
}

void UringPort::submit_accept(AcceptShot& shot) noexcept {
    abi::Sqe accept;
    accept.operation = abi::op_accept;
    accept.priority = abi::accept_multishot;
    accept.fd = shot.listening->fd;
    accept.operation_flags = SOCK_NONBLOCK | SOCK_CLOEXEC;
    accept.user_data = name_of_operation(&shot, k_accept);
    shot.accept = {ring_sleeper_->ring.put(accept), false};
}

void UringPort::unwatch(SocketListening& listening, bool closing) noexcept {
    AcceptShot* const shot = listening.shot;
    if (shot == nullptr) return;
    if (std::exchange(shot->counted, false)) --waiting_;
    if (std::exchange(shot->polled, false)) SocketPort::unwatch(listening, closing);
    if (!closing) return cancel(name_of_operation(shot, k_accept), shot->accept);
    listening.shot = nullptr;
    shot->listening = nullptr;
    if (!shot->accept.out) return let_go(*shot);
    // The kernel has to let go of the socket now: its address is free when close() returns.
    Ring& ring = ring_sleeper_->ring;
    const std::uint64_t name = name_of_operation(shot, k_accept);
    if (ring.forget(name)) return let_go(*shot);
    ring.cancel_now(name);
    (void)ring.enter(0, 0);
}

void UringPort::let_go(AcceptShot& shot) noexcept {
    for (; !shot.early.empty(); shot.early.pop()) ::close(shot.early.front());
    for (AcceptShot** at = &shots_; *at != nullptr; at = &(*at)->next) {
        if (*at != &shot) continue;
        *at = shot.next;
        break;
    }
    for (std::uint32_t left = accepting_.size(); left > 0; --left) {
        AcceptShot* one = accepting_.front();
        accepting_.pop();
        if (one != &shot) (void)accepting_.push(std::move(one));  // there was room for it
    }
    delete &shot;
}

void UringPort::accepted(AcceptShot& shot, const abi::Cqe& done) {
    const bool last = (done.flags & abi::cqe_more) == 0;
    if (done.result >= 0) {
        counts_.late += shot.accept.cancelled;
        counts_.ended_by_themselves += last && !shot.accept.cancelled;
    }
    if (last) shot.accept = {};
    if (shot.listening == nullptr) {
        if (done.result >= 0) ::close(done.result);
        if (!shot.accept.out) let_go(shot);
        return;
    }
    if (done.result < 0) {
        if (done.result != -ECANCELED && shot.listening->armed) (void)shot.listening->accept_failed(-done.result);
    } else {
        int fd = done.result;
        if (shot.listening->armed && shot.early.empty()) (void)take_peer(shot, fd);
        else if (!shot.early.push(std::move(fd))) ::close(fd);
    }
    // A callback only takes note, so the listener is still there; it may be paused, or wait for descriptors.
    if (shot.accept.out || !shot.listening->armed) return;
    if (!await_peers(shot)) (void)shot.listening->accept_failed(ENOMEM);
}

// A multishot accept goes by the limit of descriptors that was in force when it was armed. Beyond today's limit a peer waits, as it would
// in the backlog.
bool UringPort::take_peer(AcceptShot& shot, int fd) {
    rlimit limit{};
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && rlim_t(fd) >= limit.rlim_cur) [[unlikely]] {
        const int lower = ::fcntl(fd, F_DUPFD_CLOEXEC, 0);
        if (lower < 0) {
            int kept = fd;
            if (!shot.early.push_front(std::move(kept))) ::close(fd);
            return shot.listening->accept_failed(EMFILE);
        }
        ::close(fd);
        fd = lower;
    }
    socket::SocketAddress from;
    if (getpeername(fd, &from.base, &from.size) != 0) from = {};  // it has gone already: the first receive says so
    return shot.listening->take_peer(fd, socket::from_kernel(from));
}

void UringPort::deliver_peers(AcceptShot& shot) {
    shot.queued = false;
    while (!shot.early.empty() && shot.listening != nullptr && shot.listening->armed) {
        const int fd = shot.early.front();
        shot.early.pop();
        (void)take_peer(shot, fd);
    }
}

unsigned UringPort::poll(unsigned budget) {
    for (std::uint32_t left = accepting_.size(); left > 0; --left) {
        AcceptShot& shot = *accepting_.front();
        accepting_.pop();
        deliver_peers(shot);
    }
    return SocketPort::poll(budget);
}

}  // namespace evpl::transport::uring
