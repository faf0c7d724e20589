#include "transport/rdma/control.hpp"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <new>

#include "base/log_line.hpp"

namespace evpl::transport::rdma {
namespace {

constexpr int stream_backlog = 1024;
constexpr unsigned completions_wished = 16384;
/// Half of the completion queue may be receives, which need no completion while no peer has sent.
constexpr unsigned receives_share = 2;
constexpr unsigned gather_wished = 8;

std::span<const std::uint8_t> private_data_of(const rdma_cm_event& event) noexcept {
    return {static_cast<const std::uint8_t*>(event.param.conn.private_data), event.param.conn.private_data_len};
}

Error failure_of(const rdma_cm_event& event) noexcept {
    const int os = event.status < 0 ? -event.status : event.status;
    switch (event.event) {
    case RDMA_CM_EVENT_ADDR_ERROR:
    case RDMA_CM_EVENT_ROUTE_ERROR: return Error(Errc::unreachable, Step::connect, Who::system, os);
    case RDMA_CM_EVENT_UNREACHABLE:
        // A positive status is that of a service id resolution: the machine is there, and nobody is at that port.
        if (event.status > 0) return Error(Errc::refused, Step::connect, Who::peer);
        return Error(os == ETIMEDOUT ? Errc::timed_out : Errc::unreachable, Step::connect, Who::system, os);
    case RDMA_CM_EVENT_REJECTED: return Error(Errc::refused, Step::connect, Who::peer);  // the status is a reason of the manager's, no errno
    default: return Error(Errc::device_error, Step::connect, Who::system, os);
    }
}

}  // namespace

void make_nonblocking(int fd) noexcept {
    ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK);
    ::fcntl(fd, F_SETFD, FD_CLOEXEC);
}

Address address_of(const sockaddr& from) noexcept {
    socket::SocketAddress copy;
    if (from.sa_family == AF_INET) std::memcpy(&copy.v4, &from, sizeof copy.v4);
    else if (from.sa_family == AF_INET6) std::memcpy(&copy.v6, &from, sizeof copy.v6);
    return socket::from_kernel(copy);
}

/// An address that somebody listens at: one id, and the ports of this process that take turns.
struct Control::Place {
    struct Member {
        Mailbox* home;
        std::uint64_t number;
    };
    rdma_cm_id* id = nullptr;
    socket::SocketAddress at;
    std::uint16_t port = 0;
    Options options;
    bool shared = false;
    memory::RingQueue<Member, 4> members;
    std::uint32_t turn = 0;
    Place* next = nullptr;
};

struct Control::State {
    std::mutex mutex;
    std::condition_variable changed;
    rdma_event_channel* events = nullptr;
    int bell = -1;
    pid_t owner = 0;
    Session* first_ask = nullptr;
    Session* last_ask = nullptr;
    Place* places = nullptr;  // for the control thread and listeners
    Place* dead_places = nullptr;
    Mailbox* closing = nullptr;
    Mailbox* open = nullptr;
    std::uint64_t last_number = 0;
};

// -- between the threads ---------------------------------------------------------------------------------------

Result<Control*> Control::instance() noexcept {
    static std::mutex starting;
    static Control* control = nullptr;
    const std::lock_guard lock(starting);
    if (control != nullptr) return control;
    auto* state = new (std::nothrow) State;
    if (state == nullptr) return Error(Errc::out_of_memory, Step::open);
    auto* made = new (std::nothrow) Control(*state);
    state->events = verbs().rdma_create_event_channel();
    state->bell = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    state->owner = ::getpid();
    int failed = made == nullptr ? ENOMEM : state->events == nullptr || state->bell < 0 ? errno : 0;
    if (failed == 0) {
        make_nonblocking(state->events->fd);
        sigset_t all, old;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &old);  // the program's signals are not this thread's business
        pthread_t thread;
        failed = pthread_create(&thread, nullptr, &Control::run, made);
        pthread_sigmask(SIG_SETMASK, &old, nullptr);
        if (failed == 0) {
            pthread_setname_np(thread, "evpl-rdma");
            pthread_detach(thread);
            control = made;
            return control;
        }
    }
    if (state->bell >= 0) ::close(state->bell);
    if (state->events != nullptr) verbs().rdma_destroy_event_channel(state->events);
    delete made;
    delete state;
    return Error::from_errno(failed, Step::open);
}

rdma_event_channel* Control::events() const noexcept { return state_.events; }

void Control::wake() noexcept {
    const std::uint64_t one = 1;
    (void)!::write(state_.bell, &one, sizeof one);
}

void Control::ask(Session& session, Session::Ask what) noexcept {
    {
        const std::lock_guard lock(state_.mutex);
        const bool queued = session.asks != 0;
        session.asks |= what;
        if (queued) return;
        session.next_ask = nullptr;
        (state_.first_ask == nullptr ? state_.first_ask : state_.last_ask->next_ask) = &session;
        state_.last_ask = &session;
    }
    wake();
}

/// Under the mutex.
void Control::unask(Session& session) noexcept {
    Session* before = nullptr;
    for (Session* each = state_.first_ask; each != &session; each = each->next_ask) before = each;
    (before == nullptr ? state_.first_ask : before->next_ask) = session.next_ask;
    if (state_.last_ask == &session) state_.last_ask = before;
}

/// From a loop's thread, while the control thread may be looking at all sessions.
void Control::set_id(Session& session, rdma_cm_id* id) noexcept {
    const std::lock_guard lock(state_.mutex);
    session.id = id;
}

bool Control::is_here() const noexcept { return ::getpid() == state_.owner; }

void Control::tell(Session& session, std::uint32_t what) noexcept {
    Mailbox& home = *session.home;
    {
        const std::lock_guard lock(state_.mutex);
        put(session, what);
    }
    home.bell.ring();
}

/// Under the mutex.
void Control::put(Session& session, std::uint32_t what) noexcept {
    Mailbox& home = *session.home;
    const bool queued = session.tells != 0;
    session.tells |= what;
    if (!queued) {
        session.next_tell = nullptr;
        (home.first_ == nullptr ? home.first_ : home.last_->next_tell) = &session;
        home.last_ = &session;
    }
    home.news_.store(true, std::memory_order_release);
}

/// Every session that has not ended and matches.
template <class Match>
void Control::tell_all(Match match, std::uint32_t what, Error error) noexcept {
    const std::lock_guard lock(state_.mutex);
    for (Mailbox* home = state_.open; home != nullptr; home = home->next_open_) {
        for (Session* each = home->sessions_; each != nullptr; each = each->next) {
            if (each->id == nullptr || each->finished || !match(*each)) continue;
            if (each->error.ok()) each->error = error;
            put(*each, what);
            home->bell.ring();
        }
    }
}

Session* Mailbox::next(std::uint32_t& tells) noexcept {
    const auto control = Control::instance();
    const std::lock_guard lock((*control)->state_.mutex);
    Session* session = first_;
    if (session == nullptr) {
        news_.store(false, std::memory_order_relaxed);
        return nullptr;
    }
    first_ = session->next_tell;
    tells = std::exchange(session->tells, 0);
    return session;
}

Session* Control::make(Mailbox& home) noexcept {
    auto* session = new (std::nothrow) Session;
    if (session == nullptr) return nullptr;
    session->home = &home;
    const std::lock_guard lock(state_.mutex);
    if (!std::exchange(home.listed_, true)) home.next_open_ = std::exchange(state_.open, &home);
    session->next = home.sessions_;
    if (home.sessions_ != nullptr) home.sessions_->previous = session;
    home.sessions_ = session;
    return session;
}

void Control::forget(Session& session) noexcept {
    if (session.used != nullptr) {
        const bool may_end = session.used->removed.load(std::memory_order_relaxed);
        session.used->leave();
        if (may_end) wake();
    }
    {
        const std::lock_guard lock(state_.mutex);
        if (session.asks != 0) unask(session);  // asked after the thread had spoken its last word
        (session.previous == nullptr ? session.home->sessions_ : session.previous->next) = session.next;
        if (session.next != nullptr) session.next->previous = session.previous;
    }
    delete &session;
}

// -- the thread ------------------------------------------------------------------------------------------------

void* Control::run(void* context) noexcept {
    auto& control = *static_cast<Control*>(context);
    pollfd waits[2 + memory::domains_max] = {{control.state_.events->fd, POLLIN, 0}, {control.state_.bell, POLLIN, 0}};
    for (;;) {
        nfds_t count = 2;
        for (Device* each = Device::first(); each != nullptr && count < std::size(waits); each = each->next()) {
            if (!each->removed.load(std::memory_order_relaxed)) waits[count++] = {each->context->async_fd, POLLIN, 0};
        }
        ::poll(waits, count, -1);
        std::uint64_t rings;
        (void)!::read(control.state_.bell, &rings, sizeof rings);
        control.hear_events();
        for (Device* each = Device::first(); each != nullptr; each = each->next()) control.hear_device(*each);
        control.do_asked();
        control.close_places();
        control.close_mailboxes();
        Device::sweep();
    }
    return nullptr;
}

void Control::do_asked() noexcept {
    for (;;) {
        Session* session;
        std::uint32_t asks;
        {
            const std::lock_guard lock(state_.mutex);
            session = state_.first_ask;
            if (session == nullptr) return;
            state_.first_ask = session->next_ask;
            asks = std::exchange(session->asks, 0);
            if (session->finished) continue;  // looked at here: outside the mutex its loop may forget it
        }
        if ((asks & Session::ask_finish) != 0) {
            finish(*session);
            continue;
        }
        if ((asks & Session::ask_give_up) != 0) {
            give_up(*session);
            continue;
        }
        if ((asks & Session::ask_open) != 0) open_datagrams(*session);
        if ((asks & Session::ask_answer) != 0) answer_all(*session);
        if ((asks & Session::ask_peer) != 0) look_for(*session);
        if ((asks & Session::ask_resolve) != 0) resolve(*session);
        if ((asks & Session::ask_connect) != 0) connect(*session);
        if ((asks & Session::ask_accept) != 0) accept(*session);
        if ((asks & Session::ask_reject) != 0) reject(*session);
    }
}

void Control::fail(Session& session, Error error) noexcept {
    if (session.error.ok()) session.error = error;  // the first one counts, and its loop may be reading it
    tell(session, Session::tell_failed);
}

// -- connecting ------------------------------------------------------------------------------------------------

void Control::resolve(Session& session) noexcept {
    if (verbs().rdma_create_id(state_.events, &session.id, &session, RDMA_PS_TCP) != 0) {
        session.id = nullptr;
        return fail(session, Error::from_errno(errno, Step::connect));
    }
    if (session.options.traffic_class >= 0) {
        auto value = std::uint8_t(session.options.traffic_class);
        verbs().rdma_set_option(session.id, RDMA_OPTION_ID, RDMA_OPTION_ID_TOS, &value, sizeof value);
    }
    if (session.options.ack_timeout >= 0) {
        auto value = std::uint8_t(session.options.ack_timeout);
        verbs().rdma_set_option(session.id, RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT, &value, sizeof value);
    }
    auto source = socket::to_kernel(session.options.source);
    const bool chosen = session.options.source.family != Address::Family::none;
    if (verbs().rdma_resolve_addr(session.id, chosen ? &source.base : nullptr, &session.target.base, resolve_ms) != 0) {
        const int os = errno;
        const bool no_device = os == ENODEV || os == EADDRNOTAVAIL;
        fail(session, no_device ? Error(Errc::unreachable, Step::connect, Who::system, os) : Error::from_errno(os, Step::connect));
    }
}

namespace {

rdma_conn_param parameters(const Session& session, const ibv_device_attr& limits, std::span<const std::uint8_t> greeting) noexcept {
    rdma_conn_param out{};
    out.private_data = greeting.data();
    out.private_data_len = std::uint8_t(greeting.size());
    out.responder_resources = std::uint8_t(std::min<int>(int(session.options.reads), limits.max_qp_rd_atom));
    out.initiator_depth = std::uint8_t(std::min<int>(int(session.options.reads), limits.max_qp_init_rd_atom));
    out.retry_count = std::uint8_t(session.options.retry);
    out.rnr_retry_count = std::uint8_t(session.options.rnr_retry);
    out.qp_num = session.qp->qp_num;  // looked at where the queue pair is not the manager's
    out.srq = session.options.is_raw ? 0 : 1;
    return out;
}

/// What goes with connect or accept: our greeting, or the user's own.
std::span<const std::uint8_t> words_of(const Session& session, std::span<std::uint8_t, Hello::size_bytes> greeting) noexcept {
    if (session.options.is_raw) return {reinterpret_cast<const std::uint8_t*>(session.said), session.said_bytes};
    session.ours.write(greeting);
    return greeting;
}

}  // namespace

void Control::connect(Session& session) noexcept {
    std::uint8_t greeting[Hello::size_bytes];
    rdma_conn_param wanted = parameters(session, session.queues->device->limits, words_of(session, greeting));
    session.disconnects = true;
    if (verbs().rdma_connect(session.id, &wanted) != 0) {
        const int os = errno;  // some devices find out at once that nobody listens
        fail(session, os == ECONNREFUSED ? Error(Errc::refused, Step::connect, Who::peer) : Error::from_errno(os, Step::connect));
    }
}

void Control::accept(Session& session) noexcept {
    std::uint8_t greeting[Hello::size_bytes];
    rdma_conn_param wanted = parameters(session, session.queues->device->limits, words_of(session, greeting));
    wanted.responder_resources = std::min(wanted.responder_resources, session.reads_asked);
    wanted.initiator_depth = std::min(wanted.initiator_depth, session.reads_offered);
    session.reads_granted = wanted.initiator_depth;
    session.disconnects = true;
    if (session.id->qp == nullptr) {
        if (const int failed = bring_up(session, &wanted); failed != 0) return fail(session, Error::from_errno(failed, Step::accept));
    }
    if (verbs().rdma_accept(session.id, &wanted) != 0) fail(session, Error::from_errno(errno, Step::accept));
}

void Control::reject(Session& session) noexcept {
    const auto why = std::uint8_t(session.refusal);
    if (session.options.is_raw) verbs().rdma_reject(session.id, session.said, session.said_bytes);
    else verbs().rdma_reject(session.id, &why, sizeof why);
    finish(session);
}

void Control::finish(Session& session) noexcept {
    if (session.finished) return;
    session.finished = true;
    if (session.role != Session::Role::connection) finish_datagrams(session);
    if (session.id != nullptr) {
        if (session.disconnects) verbs().rdma_disconnect(session.id);
        destroy_queue_pair(session);
        verbs().rdma_destroy_id(session.id);
        session.id = nullptr;
    }
    tell(session, Session::tell_destroyed);
}

Error Control::make_queue_pair(Session& session) noexcept {
    const auto device = Device::of(session.id->verbs);
    if (!device) return device.error();
    if (!(*device)->enrolled()) return Error(Errc::out_of_memory, Step::open);
    const auto made = queues_for(session, **device);
    if (!made) return made.error();
    Queues& queues = **made;
    ibv_qp_init_attr wanted{};
    wanted.send_cq = wanted.recv_cq = queues.cq;
    session.receives = session.options.is_raw ? std::min(session.options.receives, std::uint32_t((*device)->limits.max_qp_wr)) : 0;
    if (session.options.is_raw) wanted.cap.max_recv_wr = session.receives, wanted.cap.max_recv_sge = 1;
    else wanted.srq = queues.srq;
    wanted.qp_type = IBV_QPT_RC;
    wanted.cap.max_send_wr = std::min(session.options.depth, std::uint32_t((*device)->limits.max_qp_wr));
    wanted.cap.max_send_sge = queues.gather_most;
    wanted.cap.max_inline_data = session.options.inline_bytes;
    const ibv_qp_init_attr asked = wanted;
    if (create_queue_pair(session, *(*device)->pd, wanted) != 0) {
        wanted = asked;
        wanted.cap.max_inline_data = 0;  // what the device can take inline it does not say beforehand
        if (const int failed = create_queue_pair(session, *(*device)->pd, wanted); failed != 0) return Error::from_errno(failed, Step::open);
    }
    session.queues = &queues;  // they stay as long as there is a queue pair on them
    ++queues.pairs;
    session.depth = std::min(wanted.cap.max_send_wr, asked.cap.max_send_wr);
    session.inline_bytes = std::min(wanted.cap.max_inline_data, asked.cap.max_inline_data);
    session.local = address_of(*rdma_get_local_addr(session.id));
    session.remote = address_of(*rdma_get_peer_addr(session.id));
    return {};
}

// Whoever needs a device first says how large its receive blocks are: they are shared.
Result<Queues*> Control::queues_for(Session& session, Device& device) noexcept {
    Mailbox& home = *session.home;
    for (Queues* each = home.queues_; each != nullptr; each = each->next) {
        if (each->device == &device && !each->lost) return each;
    }
    auto* made = new (std::nothrow) Queues;
    if (made == nullptr) return Error(Errc::out_of_memory, Step::open);
    made->device = &device;
    device.use();
    made->block_bytes = session.options.is_raw ? Options{}.block_bytes : session.options.block_bytes;  // raw ones do not share
    made->gather_most = std::clamp(unsigned(device.limits.max_sge), 1u, gather_wished);
    made->completions_most = std::min(completions_wished, unsigned(device.limits.max_cqe));
    made->receives_most = std::min(made->completions_most / receives_share, unsigned(device.limits.max_srq_wr));
    made->channel = verbs().ibv_create_comp_channel(device.context);
    if (made->channel != nullptr) {
        make_nonblocking(made->channel->fd);
        made->cq = verbs().ibv_create_cq(device.context, int(made->completions_most), nullptr, made->channel, 0);
    }
    if (made->cq != nullptr) {
        ibv_srq_init_attr shared{};
        shared.attr.max_wr = made->receives_most;
        shared.attr.max_sge = 1;
        made->srq = verbs().ibv_create_srq(device.pd, &shared);
    }
    if (made->srq == nullptr) {
        const Error error = Error::from_errno(errno, Step::open);
        destroy(*made);
        return error;
    }
    made->next = home.queues_;
    home.queues_ = made;
    return made;
}

void Control::destroy(Queues& queues) noexcept {
    const auto told = [](const char* what, int failed) {
        if (failed != 0) base::log_format(LogLevel::warning, "rdma: a %s could not be destroyed: errno %d", what, failed);
    };
    if (queues.srq != nullptr) told("shared receive queue", verbs().ibv_destroy_srq(queues.srq));
    if (queues.cq != nullptr) told("completion queue", verbs().ibv_destroy_cq(queues.cq));
    if (queues.channel != nullptr) told("completion channel", verbs().ibv_destroy_comp_channel(queues.channel));
    queues.device->leave();
    delete &queues;
}

/// Nobody can use the device any more. Each loop lets go of its queues on it, so that the device can go, too.
void Control::lose(Device& device) noexcept {
    if (device.removed.exchange(true, std::memory_order_relaxed)) return;
    lose_queues([&](const Queues& each) { return each.device == &device; }, Error(Errc::device_lost, Step::none, Who::system));
}

template <class Match>
void Control::lose_queues(Match match, Error why) noexcept {
    Mailbox* home;
    {
        const std::lock_guard lock(state_.mutex);
        home = state_.open;
    }
    for (; home != nullptr; home = home->next_open_) {  // only this thread takes one out
        for (Queues* each = home->queues_; each != nullptr; each = each->next) {
            if (each->lost || !match(*each)) continue;
            each->lost = true;
            Session* notice = make(*home);
            if (notice == nullptr) continue;  // they stay until the loop ends
            notice->queues = each;
            notice->error = why;
            tell(*notice, Session::tell_lost);
        }
    }
}

void Control::give_up(Session& session) noexcept {
    Queues& queues = *session.queues;
    if (queues.pairs > 0) {
        queues.given_up = &session;
        return;
    }
    Queues** at = &session.home->queues_;
    while (*at != &queues) at = &(*at)->next;
    *at = queues.next;
    session.queues = nullptr;
    destroy(queues);
    tell(session, Session::tell_given_up);
}

// -- events ----------------------------------------------------------------------------------------------------

void Control::hear_events() noexcept {
    rdma_cm_event* event = nullptr;
    while (verbs().rdma_get_cm_event(state_.events, &event) == 0) {
        // Acknowledged first: destroying an id waits for that. What the event says is copied.
        rdma_cm_event copy = *event;
        std::uint8_t data[256];
        if (copy.event == RDMA_CM_EVENT_CONNECT_REQUEST || copy.event == RDMA_CM_EVENT_CONNECT_RESPONSE || copy.event == RDMA_CM_EVENT_ESTABLISHED ||
            copy.event == RDMA_CM_EVENT_REJECTED) {
            const auto size = copy.param.conn.private_data != nullptr ? copy.param.conn.private_data_len : std::uint8_t(0);
            if (size > 0) std::memcpy(data, copy.param.conn.private_data, size);
            copy.param.conn.private_data = data;
            copy.param.conn.private_data_len = size;
        }
        verbs().rdma_ack_cm_event(event);
        hear(copy);
    }
}

/// The device of a listening id is gone.
void Control::lose_place(Place& place) noexcept {
    for (; !place.members.empty(); place.members.pop()) {
        const Place::Member member = place.members.front();
        Session* notice = make(*member.home);
        if (notice == nullptr) continue;
        notice->listening = member.number;
        tell(*notice, Session::tell_deaf);
    }
}

template <class Match>
void Control::lose_places(Match match) noexcept {
    for (;;) {
        Place* place;
        {
            const std::lock_guard lock(state_.mutex);
            Place** at = &state_.places;
            while (*at != nullptr && !match(*(*at)->id)) at = &(*at)->next;
            place = *at;
            if (place == nullptr) return;
            *at = place->next;
        }
        lose_place(*place);
        const std::lock_guard lock(state_.mutex);
        place->next = std::exchange(state_.dead_places, place);
    }
}

void Control::hear(const rdma_cm_event& event) noexcept {
    if (event.event == RDMA_CM_EVENT_CONNECT_REQUEST) {
        auto* datagrams = static_cast<Session*>(event.listen_id->context);
        return datagrams != nullptr ? asked_for(*datagrams, *event.id) : requested(event);
    }
    if (event.event == RDMA_CM_EVENT_DEVICE_REMOVAL) {
        for (Device* each = Device::first(); each != nullptr; each = each->next()) {
            if (each->context == event.id->verbs) lose(*each);
        }
    }
    auto* session = static_cast<Session*>(event.id->context);
    if (session == nullptr && event.event == RDMA_CM_EVENT_DEVICE_REMOVAL) return lose_places([&](const rdma_cm_id& id) { return &id == event.id; });
    if (session == nullptr || session->finished) return;  // a listener's
    switch (event.event) {
    case RDMA_CM_EVENT_ADDR_RESOLVED:
        if (session->role == Session::Role::datagrams) return resolved(*session);
        if (verbs().rdma_resolve_route(session->id, resolve_ms) != 0) fail(*session, Error::from_errno(errno, Step::connect));
        return;
    case RDMA_CM_EVENT_ROUTE_RESOLVED:
        if (session->role == Session::Role::peer) return look_for(*session);
        if (const Error error = make_queue_pair(*session); !error.ok()) return fail(*session, error);
        return tell(*session, Session::tell_prepared);
    case RDMA_CM_EVENT_ESTABLISHED: return session->role == Session::Role::peer ? found(*session, event) : established(*session, event);
    case RDMA_CM_EVENT_CONNECT_RESPONSE: return answered(*session, event);
    case RDMA_CM_EVENT_MULTICAST_JOIN:
    case RDMA_CM_EVENT_MULTICAST_ERROR: return joined(*session, event);
    case RDMA_CM_EVENT_ADDR_ERROR:
    case RDMA_CM_EVENT_ROUTE_ERROR:
    case RDMA_CM_EVENT_CONNECT_ERROR:
    case RDMA_CM_EVENT_UNREACHABLE:
    case RDMA_CM_EVENT_REJECTED:
        if (event.event == RDMA_CM_EVENT_REJECTED) keep_private_data(*session, event);
        base::log_format(LogLevel::debug, "rdma: connecting failed: %s, status %d", verbs().rdma_event_str(event.event), event.status);
        return fail(*session, failure_of(event));
    case RDMA_CM_EVENT_DISCONNECTED: return tell(*session, Session::tell_disconnected);
    case RDMA_CM_EVENT_DEVICE_REMOVAL: return tell(*session, Session::tell_removed);
    default: return;
    }
}

/// The first words count: who has accepted a peer knows what it said with its connect.
void Control::keep_private_data(Session& session, const rdma_cm_event& event) noexcept {
    if (!session.options.is_raw || session.has_heard) return;
    const auto data = private_data_of(event);
    session.has_heard = true;
    session.heard_bytes = std::uint8_t(data.size());
    if (!data.empty()) std::memcpy(session.heard, data.data(), data.size());
}

/// What the device says of itself: on a channel of its own, which knows no connection.
void Control::hear_device(Device& device) noexcept {
    ibv_async_event event;
    while (!device.removed.load(std::memory_order_relaxed) && verbs().ibv_get_async_event(device.context, &event) == 0) {
        const ibv_async_event said = event;
        verbs().ibv_ack_async_event(&event);  // destroying what it names waits for that
        const auto failed = Error(Errc::device_error, Step::none, Who::system, int(said.event_type));
        switch (said.event_type) {
        case IBV_EVENT_DEVICE_FATAL:
            tell_all([&](const Session& each) { return each.id->verbs == device.context; }, Session::tell_removed, {});
            lose_places([&](const rdma_cm_id& id) { return id.verbs == device.context; });
            lose(device);
            break;
        case IBV_EVENT_PORT_ERR:
            tell_all([&](const Session& each) { return each.id->verbs == device.context && each.id->port_num == said.element.port_num; }, Session::tell_broken,
                     Error(Errc::device_lost, Step::none, Who::system, ENETDOWN));
            break;
        case IBV_EVENT_CQ_ERR:
            tell_all(
                [&](const Session& each) {
                    return (each.queues != nullptr && each.queues->cq == said.element.cq) || each.ud.sends == said.element.cq ||
                           each.ud.receives == said.element.cq;
                },
                Session::tell_broken, failed);
            lose_queues([&](const Queues& each) { return each.cq == said.element.cq; }, failed);
            break;
        case IBV_EVENT_QP_FATAL:
            tell_all([&](const Session& each) { return each.qp == said.element.qp || each.ud.qp == said.element.qp; }, Session::tell_broken, failed);
            break;
        default: break;
        }
    }
}

void Control::established(Session& session, const rdma_cm_event& event) noexcept {
    if (session.listening == 0) {  // we connected
        keep_private_data(session, event);
        session.reads_granted = std::uint8_t(std::min<unsigned>(session.options.reads, event.param.conn.initiator_depth));
    }
    if (!session.has_greeted && !session.options.is_raw) {
        if (const auto hello = Hello::read(private_data_of(event))) {
            session.peer = *hello;
            session.has_greeted = true;
        }
    }
    tell(session, Session::tell_established);
}

void Control::requested(const rdma_cm_event& event) noexcept {
    const auto refuse = [&](Refusal why) {
        const auto byte = std::uint8_t(why);
        verbs().rdma_reject(event.id, &byte, sizeof byte);
        verbs().rdma_destroy_id(event.id);
    };
    event.id->context = nullptr;
    Mailbox* home = nullptr;
    std::uint64_t number = 0;
    Options options;
    {
        const std::lock_guard lock(state_.mutex);
        for (Place* each = state_.places; each != nullptr; each = each->next) {
            if (each->id != event.listen_id) continue;
            const Place::Member& member = each->members[each->turn++ % each->members.size()];
            home = member.home->closing_ ? nullptr : member.home;
            number = member.number;
            options = each->options;
        }
    }
    if (home == nullptr) return refuse(Refusal::closed);
    const auto hello = options.is_raw ? std::optional<Hello>(Hello{}) : Hello::read(private_data_of(event));
    if (!hello) return refuse(Refusal::not_evpl);
    if (!options.is_raw && hello->is_message != options.is_message) return refuse(Refusal::other_mode);
    Session* session = make(*home);
    if (session == nullptr) return refuse(Refusal::busy);
    session->id = event.id;
    session->listening = number;
    session->options = options;
    session->peer = *hello;
    session->has_greeted = true;
    keep_private_data(*session, event);
    // The event speaks of the recipient: what it is asked to serve, and what it may start.
    session->reads_asked = event.param.conn.responder_resources;
    session->reads_offered = event.param.conn.initiator_depth;
    event.id->context = session;
    if (const Error error = make_queue_pair(*session); !error.ok()) {
        char text[160];
        error.describe(text, sizeof text);
        base::log_format(LogLevel::warning, "rdma: a peer was rejected, its queue pair could not be made: %s", text);
        destroy_queue_pair(*session);
        session->id = nullptr;
        refuse(Refusal::busy);
        return forget(*session);
    }
    tell(*session, Session::tell_request);
}

// -- listening -------------------------------------------------------------------------------------------------

namespace {
bool same_place(const socket::SocketAddress& a, const socket::SocketAddress& b, std::uint16_t port_of_a) noexcept {
    Address one = socket::from_kernel(a);
    one.port = port_of_a;
    return one == socket::from_kernel(b);
}
}  // namespace

Result<std::uint16_t> Control::listen(Mailbox& home, const socket::SocketAddress& at, const Options& options, bool shared, std::uint64_t& number) noexcept {
    std::unique_lock lock(state_.mutex);
    // A port that was closed a moment ago is free again.
    state_.changed.wait(lock, [&] { return state_.dead_places == nullptr; });
    const std::uint64_t fresh = ++state_.last_number;
    for (Place* each = state_.places; each != nullptr && shared; each = each->next) {
        if (!each->shared || !same_place(each->at, at, each->port)) continue;
        if (!each->members.push({&home, fresh})) return Error(Errc::out_of_memory, Step::listen);
        number = fresh;
        return each->port;
    }
    auto* place = new (std::nothrow) Place;
    if (place == nullptr || !place->members.push({&home, fresh})) {
        delete place;
        return Error(Errc::out_of_memory, Step::listen);
    }
    place->at = at;
    place->options = options;
    place->shared = shared;
    auto where = at;
    int failed = verbs().rdma_create_id(state_.events, &place->id, nullptr, RDMA_PS_TCP) != 0 ? errno : 0;
    if (failed == 0 && verbs().rdma_bind_addr(place->id, &where.base) != 0) failed = errno;
    if (failed == 0 && verbs().rdma_listen(place->id, stream_backlog) != 0) failed = errno;
    if (failed != 0) {
        if (place->id != nullptr) verbs().rdma_destroy_id(place->id);
        delete place;
        if (failed == ENODEV) return Error(Errc::address_unavailable, Step::listen, Who::local, failed);
        return Error::from_errno(failed, Step::listen);
    }
    place->port = address_of(*rdma_get_local_addr(place->id)).port;
    place->next = std::exchange(state_.places, place);
    number = fresh;
    return place->port;
}

void Control::close_listening(std::uint64_t number) noexcept {
    {
        const std::lock_guard lock(state_.mutex);
        for (Place** at = &state_.places; *at != nullptr; at = &(*at)->next) {
            Place& place = **at;
            const std::uint32_t before = place.members.size();
            for (std::uint32_t i = 0; i < before; ++i) {
                Place::Member member = place.members.front();
                place.members.pop();
                if (member.number != number) (void)place.members.push(std::move(member));  // into the room it left
            }
            if (place.members.size() == before) continue;
            if (!place.members.empty()) return;
            *at = place.next;
            place.next = std::exchange(state_.dead_places, &place);
            break;
        }
    }
    wake();
}

void Control::close_places() noexcept {
    std::unique_lock lock(state_.mutex);
    while (Place* place = state_.dead_places) {
        lock.unlock();
        verbs().rdma_destroy_id(place->id);
        lock.lock();
        Place** at = &state_.dead_places;
        while (*at != place) at = &(*at)->next;
        *at = place->next;
        delete place;
    }
    state_.changed.notify_all();
}

// -- the end of a port -----------------------------------------------------------------------------------------

void Control::close(Mailbox& home) noexcept {
    if (!is_here()) return;  // in a forked child there is no such thread, and nothing of it is ours
    std::unique_lock lock(state_.mutex);
    home.closing_ = true;
    home.next_ = std::exchange(state_.closing, &home);
    wake();
    state_.changed.wait(lock, [&] { return home.closed_; });
}

/// Under the mutex.
void Control::unlist(Mailbox& home) noexcept {
    Mailbox** at = &state_.open;
    while (*at != nullptr && *at != &home) at = &(*at)->next_open_;
    if (*at != nullptr) *at = home.next_open_;
}

void Control::close_mailboxes() noexcept {
    for (;;) {
        Mailbox* home;
        {
            const std::lock_guard lock(state_.mutex);
            home = state_.closing;
            if (home == nullptr) return;
            state_.closing = home->next_;
        }
        do_asked();  // nothing of it is in that list afterwards: its loop is here
        for (Session* session = home->sessions_; session != nullptr; session = session->next) finish(*session);
        while (home->sessions_ != nullptr) forget(*home->sessions_);
        while (Queues* queues = home->queues_) {
            home->queues_ = queues->next;
            destroy(*queues);
        }
        const std::lock_guard lock(state_.mutex);
        unlist(*home);
        home->closed_ = true;
        state_.changed.notify_all();
    }
}

}  // namespace evpl::transport::rdma
