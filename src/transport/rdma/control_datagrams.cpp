// The control thread's part in datagrams: queue pairs, and where a peer's is (InfiniBand's service id resolution, through the
// connection manager's port space for UDP).

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "transport/rdma/control.hpp"
#include "transport/rdma/datagrams.hpp"

namespace evpl::transport::rdma {
namespace {

constexpr int datagram_backlog = 128;

std::uint32_t mtu_bytes(ibv_mtu mtu) noexcept { return 128u << unsigned(mtu); }

}  // namespace

Result<void> Control::bind(Session& session, const socket::SocketAddress& at) noexcept {
    auto where = at;
    rdma_cm_id* id = nullptr;
    int failed = verbs().rdma_create_id(events(), &id, &session, RDMA_PS_UDP) != 0 ? errno : 0;
    if (failed == 0 && verbs().rdma_bind_addr(id, &where.base) != 0) failed = errno;
    if (failed == 0 && id->verbs == nullptr) failed = ENODEV;  // "any address" is no address of a device
    if (failed == 0 && verbs().rdma_listen(id, datagram_backlog) != 0) failed = errno;
    if (failed != 0) {
        if (id != nullptr) verbs().rdma_destroy_id(id);
        return failed == ENODEV ? Error(Errc::address_unavailable, Step::bind, Who::local, failed) : Error::from_errno(failed, Step::bind);
    }
    session.local = address_of(*rdma_get_local_addr(id));
    set_id(session, id);
    return {};
}

void Control::open_datagrams(Session& session) noexcept {
    if (!session.connected) {
        if (const Error error = make_datagram_queues(session); !error.ok()) return fail(session, error);
        return tell(session, Session::tell_prepared);
    }
    if (verbs().rdma_create_id(events(), &session.id, &session, RDMA_PS_UDP) != 0) {
        session.id = nullptr;
        return fail(session, Error::from_errno(errno, Step::bind));
    }
    if (verbs().rdma_resolve_addr(session.id, nullptr, &session.target.base, resolve_ms) != 0) {
        fail(session, Error(Errc::unreachable, Step::connect, Who::system, errno));
    }
}

/// A connected socket's own address is known: that of the way to its peer.
void Control::resolved(Session& session) noexcept {
    if (const Error error = make_datagram_queues(session); !error.ok()) return fail(session, error);
    session.local = address_of(*rdma_get_local_addr(session.id));
    tell(session, Session::tell_prepared);
}

Error Control::make_datagram_queues(Session& session) noexcept {
    const auto device = Device::of(session.id->verbs);
    if (!device) return device.error();
    if (!(*device)->enrolled()) return Error(Errc::out_of_memory, Step::open);
    UdQueues& queues = session.ud;
    queues.device = session.used = *device;
    session.used->use();
    ibv_port_attr port{};
    if (verbs().ibv_query_port(session.id->verbs, session.id->port_num, reinterpret_cast<_compat_ibv_port_attr*>(&port)) != 0) {
        return Error::from_errno(errno, Step::open);
    }
    queues.payload_bytes = mtu_bytes(port.active_mtu);
    queues.channel = verbs().ibv_create_comp_channel((*device)->context);
    if (queues.channel != nullptr) {
        make_nonblocking(queues.channel->fd);
        queues.sends = verbs().ibv_create_cq((*device)->context, int(ud_sends_most), nullptr, queues.channel, 0);
        queues.receives = verbs().ibv_create_cq((*device)->context, int(ud_receives), nullptr, queues.channel, 0);
    }
    if (queues.sends == nullptr || queues.receives == nullptr) return Error::from_errno(errno, Step::open);
    ibv_qp_init_attr wanted{};
    wanted.send_cq = queues.sends;
    wanted.recv_cq = queues.receives;
    wanted.qp_type = IBV_QPT_UD;
    wanted.cap = {ud_sends_most, ud_receives, ud_gather_most, 1, 0};
    if (verbs().rdma_create_qp(session.id, (*device)->pd, &wanted) != 0) return Error::from_errno(errno, Step::open);
    queues.qp = session.id->qp;
    return {};
}

/// Somebody asks for the queue pair of a socket. Who comes before there are receives waits.
void Control::asked_for(Session& session, rdma_cm_id& asking) noexcept {
    asking.context = nullptr;
    rdma_cm_id* waiting = &asking;
    if (!session.answers && !session.finished && session.askers.size() < unsigned(datagram_backlog) && session.askers.push(std::move(waiting))) return;
    answer(session, asking);
}

/// Told, and forgotten.
void Control::answer(Session& session, rdma_cm_id& asking) noexcept {
    if (!session.answers || session.finished) {
        verbs().rdma_reject(&asking, nullptr, 0);
    } else {
        rdma_conn_param answer{};
        answer.qp_num = session.ud.qp->qp_num;
        verbs().rdma_accept(&asking, &answer);
    }
    verbs().rdma_destroy_id(&asking);
}

void Control::answer_all(Session& session) noexcept {
    session.answers = session.ud.qp != nullptr;
    for (; !session.askers.empty(); session.askers.pop()) answer(session, *session.askers.front());
}

// -- peers -----------------------------------------------------------------------------------------------------

/// One step further on the way to a peer's queue pair.
void Control::look_for(Session& session) noexcept {
    Session& socket = *session.socket;
    if (socket.finished || socket.ud.qp == nullptr) return fail(session, Error(Errc::cancelled, Step::send));
    if (session.role == Session::Role::group) {
        if (verbs().rdma_join_multicast(socket.id, &session.target.base, &session) != 0) fail(session, Error::from_errno(errno, Step::bind));
        return;
    }
    if (session.has_arrival) {
        session.ud_target.handle = verbs().ibv_create_ah_from_wc(socket.ud.device->pd, &session.arrival, &session.arrival_header, socket.id->port_num);
        if (session.ud_target.handle == nullptr) return fail(session, Error::from_errno(errno, Step::send));
        return tell(session, Session::tell_established);
    }
    if (session.id == nullptr) {
        if (verbs().rdma_create_id(events(), &session.id, &session, RDMA_PS_UDP) != 0) {
            session.id = nullptr;
            return fail(session, Error::from_errno(errno, Step::send));
        }
        Address own = socket.local;  // the way begins at the socket's device, also to another device of this machine
        own.port = 0;
        auto from = socket::to_kernel(own);
        if (verbs().rdma_resolve_addr(session.id, &from.base, &session.target.base, resolve_ms) != 0) {
            fail(session, Error(Errc::unreachable, Step::send, Who::system, errno));
        }
        return;
    }
    if (session.id->verbs != socket.id->verbs) return fail(session, Error(Errc::unreachable, Step::send));
    rdma_conn_param question{};
    question.qp_num = socket.ud.qp->qp_num;
    if (verbs().rdma_connect(session.id, &question) != 0) fail(session, Error::from_errno(errno, Step::send));
}

void Control::found(Session& session, const rdma_cm_event& event) noexcept {
    const rdma_ud_param& answer = event.param.ud;
    ibv_ah_attr way = answer.ah_attr;
    session.ud_target.handle = verbs().ibv_create_ah(session.socket->ud.device->pd, &way);
    if (session.ud_target.handle == nullptr) return fail(session, Error::from_errno(errno, Step::send));
    session.ud_target.qp_number = answer.qp_num;
    session.ud_target.qkey = answer.qkey;
    if (session.id != nullptr) verbs().rdma_destroy_id(std::exchange(session.id, nullptr));
    tell(session, Session::tell_established);
}

/// The event comes on the socket's id, with the group's session as its context.
void Control::joined(Session&, const rdma_cm_event& event) noexcept {
    auto& group = *static_cast<Session*>(const_cast<void*>(event.param.ud.private_data));
    if (group.finished) return;
    if (event.status != 0 || event.event == RDMA_CM_EVENT_MULTICAST_ERROR)
        fail(group, Error(Errc::device_error, Step::bind, Who::system, std::abs(event.status)));
    else found(group, event);
}

void Control::finish_datagrams(Session& session) noexcept {
    if (session.ud_target.handle != nullptr) verbs().ibv_destroy_ah(std::exchange(session.ud_target.handle, nullptr));
    if (session.role == Session::Role::group && !session.socket->finished && session.socket->id != nullptr) {
        verbs().rdma_leave_multicast(session.socket->id, &session.target.base);
    }
    for (; !session.askers.empty(); session.askers.pop()) answer(session, *session.askers.front());  // rejected
    if (session.role != Session::Role::datagrams) return;
    // The sockets' queue pair goes first; its peers' handles were finished before it or hold nothing of it.
    if (session.ud.qp != nullptr) verbs().rdma_destroy_qp(session.id);
    if (session.id != nullptr) verbs().rdma_destroy_id(std::exchange(session.id, nullptr));
    if (session.ud.sends != nullptr) verbs().ibv_destroy_cq(session.ud.sends);
    if (session.ud.receives != nullptr) verbs().ibv_destroy_cq(session.ud.receives);
    if (session.ud.channel != nullptr) verbs().ibv_destroy_comp_channel(session.ud.channel);
    session.ud = {};
}

}  // namespace evpl::transport::rdma
