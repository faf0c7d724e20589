// Queue pairs, and their way through the network. Usually the connection manager's library makes and moves them; where the user has a say
// that it has no option for (GID, service level, MTU), we do, with the attributes that the manager would take.

#include <cerrno>
#include <utility>

#include "transport/rdma/control.hpp"

namespace evpl::transport::rdma {
namespace {

ibv_mtu code_of(std::uint32_t bytes) noexcept {
    unsigned code = IBV_MTU_256;
    while (128u << code < bytes) ++code;
    return ibv_mtu(code);
}

/// To the next state, by the manager's attributes and the user's; 0 or an errno.
int move(Session& session, ibv_qp_state state, const rdma_conn_param* agreed) noexcept {
    const Options& options = session.options;
    ibv_qp_attr wanted{};
    int fields = 0;
    wanted.qp_state = state;
    if (verbs().rdma_init_qp_attr(session.id, &wanted, &fields) != 0) return errno;
    if (state == IBV_QPS_RTR) {
        if (options.gid_index >= 0) {
            wanted.ah_attr.is_global = 1;
            wanted.ah_attr.grh.sgid_index = std::uint8_t(options.gid_index);
        }
        if (options.service_level >= 0) wanted.ah_attr.sl = std::uint8_t(options.service_level);
        if (options.mtu != 0) wanted.path_mtu = code_of(options.mtu);
    }
    if (agreed != nullptr && state == IBV_QPS_RTR) wanted.max_dest_rd_atomic = agreed->responder_resources;
    if (agreed != nullptr && state == IBV_QPS_RTS) wanted.max_rd_atomic = agreed->initiator_depth;
    return verbs().ibv_modify_qp(session.qp, &wanted, fields);
}

}  // namespace

/// 0 or an errno.
int Control::create_queue_pair(Session& session, ibv_pd& pd, ibv_qp_init_attr& wanted) noexcept {
    if (!session.options.chooses_path()) {
        if (verbs().rdma_create_qp(session.id, &pd, &wanted) != 0) return errno;
        session.qp = session.id->qp;
        return 0;
    }
    session.qp = verbs().ibv_create_qp(&pd, &wanted);
    if (session.qp == nullptr) return errno;
    const int failed = move(session, IBV_QPS_INIT, nullptr);
    if (failed != 0) destroy_queue_pair(session);
    return failed;
}

void Control::destroy_queue_pair(Session& session) noexcept {
    if (session.qp == nullptr) return;
    if (session.id->qp != nullptr) verbs().rdma_destroy_qp(session.id);
    else verbs().ibv_destroy_qp(session.qp);
    session.qp = nullptr;
    Queues* const queues = std::exchange(session.queues, nullptr);
    if (queues != nullptr && --queues->pairs == 0 && queues->given_up != nullptr) give_up(*queues->given_up);
}

/// Ready to receive and to send. `agreed`: what we are about to accept, which the manager does not know yet. 0 or an errno.
int Control::bring_up(Session& session, const rdma_conn_param* agreed) noexcept {
    // Once more from the start: what the peer may do to our memory is known only since there is a connection.
    for (const auto state : {IBV_QPS_INIT, IBV_QPS_RTR, IBV_QPS_RTS}) {
        if (const int failed = move(session, state, agreed); failed != 0) return failed;
    }
    return 0;
}

/// The peer has accepted; a queue pair of the manager's own would be up already.
void Control::answered(Session& session, const rdma_cm_event& event) noexcept {
    int failed = bring_up(session, nullptr);
    if (failed == 0 && verbs().rdma_establish(session.id) != 0) failed = errno;
    if (failed != 0) return fail(session, Error::from_errno(failed, Step::connect));
    established(session, event);
}

}  // namespace evpl::transport::rdma
