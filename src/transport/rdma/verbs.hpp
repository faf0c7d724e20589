#pragma once

// libibverbs and librdmacm, loaded at run time: their functions by pointer. What <infiniband/verbs.h> has inline (posting, polling,
// arming) works on the objects themselves and needs no pointer.

#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>

#include <string_view>

// Macros around functions that we call by pointer.
#undef ibv_reg_mr
#undef ibv_get_device_list
#undef ibv_query_port

namespace evpl::transport::rdma {

// clang-format off
#define EVPL_VERBS_FUNCTIONS(X)                                                                                                          \
    X(ibv_get_device_list) X(ibv_free_device_list) X(ibv_get_device_name) X(ibv_alloc_pd) X(ibv_dealloc_pd) X(ibv_create_cq)              \
    X(ibv_destroy_cq) X(ibv_create_comp_channel) X(ibv_destroy_comp_channel) X(ibv_get_cq_event) X(ibv_ack_cq_events) X(ibv_create_srq)   \
    X(ibv_destroy_srq) X(ibv_reg_mr) X(ibv_dereg_mr) X(ibv_query_device) X(ibv_create_ah) X(ibv_create_ah_from_wc) X(ibv_destroy_ah) X(ibv_query_port) \
    X(ibv_get_async_event) X(ibv_ack_async_event) X(ibv_open_device) X(ibv_close_device) X(ibv_query_gid) \
    X(ibv_create_qp) X(ibv_destroy_qp) X(ibv_modify_qp)
#define EVPL_RDMACM_FUNCTIONS(X)                                                                                                          \
    X(rdma_create_event_channel) X(rdma_destroy_event_channel) X(rdma_create_id) X(rdma_destroy_id) X(rdma_bind_addr) X(rdma_listen)      \
    X(rdma_resolve_addr) X(rdma_resolve_route) X(rdma_connect) X(rdma_accept) X(rdma_reject) X(rdma_disconnect) X(rdma_get_cm_event)      \
    X(rdma_ack_cm_event) X(rdma_create_qp) X(rdma_destroy_qp) X(rdma_set_option) X(rdma_join_multicast)       \
    X(rdma_leave_multicast) X(rdma_get_devices) X(rdma_event_str) X(rdma_init_qp_attr) X(rdma_establish)
// clang-format on

struct Verbs {
#define EVPL_DECLARE(name) decltype(&::name) name = nullptr;
    EVPL_VERBS_FUNCTIONS(EVPL_DECLARE)
    EVPL_RDMACM_FUNCTIONS(EVPL_DECLARE)
#undef EVPL_DECLARE
};

/// What is there, found out once.
struct Support {
    bool present = false;
    std::string_view reason;
    std::string_view remedy;
};

/// Loads the libraries and looks for a device at the first call. Thread: any. Cost then: some milliseconds; afterwards a load.
const Support& support() noexcept;
/// Only where support().present.
const Verbs& verbs() noexcept;

}  // namespace evpl::transport::rdma
