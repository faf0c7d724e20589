// Our constants and layouts against the kernel header of the building machine (Linux 6.1 or newer knows all of these).
#include "transport/uring/abi.hpp"

#if __has_include(<linux/io_uring.h>)
#include <linux/io_uring.h>
#include <linux/version.h>

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 1, 0)
namespace evpl::transport::uring::abi {

static_assert(setup_cq_size == IORING_SETUP_CQSIZE && setup_clamp == IORING_SETUP_CLAMP && setup_disabled == IORING_SETUP_R_DISABLED);
static_assert(setup_submit_all == IORING_SETUP_SUBMIT_ALL && setup_taskrun_flag == IORING_SETUP_TASKRUN_FLAG);
static_assert(setup_single_issuer == IORING_SETUP_SINGLE_ISSUER && setup_defer_taskrun == IORING_SETUP_DEFER_TASKRUN);
static_assert(feature_single_mmap == IORING_FEAT_SINGLE_MMAP && feature_no_drop == IORING_FEAT_NODROP);
static_assert(feature_submit_stable == IORING_FEAT_SUBMIT_STABLE && feature_fast_poll == IORING_FEAT_FAST_POLL);
static_assert(feature_wait_argument == IORING_FEAT_EXT_ARG && feature_skip_success == IORING_FEAT_CQE_SKIP);
static_assert(map_rings == IORING_OFF_SQ_RING && map_entries == IORING_OFF_SQES);
static_assert(enter_get_events == IORING_ENTER_GETEVENTS && enter_extended == IORING_ENTER_EXT_ARG);
static_assert(enter_registered_ring == IORING_ENTER_REGISTERED_RING);
static_assert(sq_cq_overflow == IORING_SQ_CQ_OVERFLOW && sq_taskrun == IORING_SQ_TASKRUN);
static_assert(unsigned(register_buffers) == IORING_REGISTER_BUFFERS2 && unsigned(register_buffers_update) == IORING_REGISTER_BUFFERS_UPDATE);
static_assert(unsigned(register_probe) == IORING_REGISTER_PROBE);
static_assert(unsigned(register_enable) == IORING_REGISTER_ENABLE_RINGS && unsigned(register_ring_descriptors) == IORING_REGISTER_RING_FDS);
static_assert(unsigned(unregister_ring_descriptors) == IORING_UNREGISTER_RING_FDS);
static_assert(unsigned(register_buffer_ring) == IORING_REGISTER_PBUF_RING && unsigned(unregister_buffer_ring) == IORING_UNREGISTER_PBUF_RING);
static_assert(unsigned(register_sync_cancel) == IORING_REGISTER_SYNC_CANCEL);
static_assert(cancel_all == IORING_ASYNC_CANCEL_ALL && cancel_any == IORING_ASYNC_CANCEL_ANY);
static_assert(probe_supported == IO_URING_OP_SUPPORTED);
static_assert(int(op_nop) == IORING_OP_NOP && int(op_poll_add) == IORING_OP_POLL_ADD && int(op_send_message) == IORING_OP_SENDMSG);
static_assert(int(op_receive_message) == IORING_OP_RECVMSG && int(op_accept) == IORING_OP_ACCEPT);
static_assert(int(op_async_cancel) == IORING_OP_ASYNC_CANCEL && int(op_send) == IORING_OP_SEND && int(op_receive) == IORING_OP_RECV);
static_assert(int(op_send_zero_copy) == IORING_OP_SEND_ZC && int(op_send_message_zero_copy) == IORING_OP_SENDMSG_ZC);
static_assert(sqe_buffer_select == IOSQE_BUFFER_SELECT);
static_assert(receive_poll_first == IORING_RECVSEND_POLL_FIRST && receive_multishot == IORING_RECV_MULTISHOT);
static_assert(send_registered == IORING_RECVSEND_FIXED_BUF && buffers_sparse == IORING_RSRC_REGISTER_SPARSE);
static_assert(accept_multishot == IORING_ACCEPT_MULTISHOT);
static_assert(cqe_buffer == IORING_CQE_F_BUFFER && cqe_more == IORING_CQE_F_MORE && cqe_notification == IORING_CQE_F_NOTIF);
static_assert(int(cqe_buffer_shift) == IORING_CQE_BUFFER_SHIFT);
// Later kernels' headers have these as macros; 6.1 has not.
#ifdef IORING_SETUP_NO_SQARRAY
static_assert(setup_no_sq_array == IORING_SETUP_NO_SQARRAY);
#endif
#ifdef IORING_FEAT_MIN_TIMEOUT
static_assert(feature_min_wait == IORING_FEAT_MIN_TIMEOUT);
#endif
#ifdef IORING_CQE_F_BUF_MORE
static_assert(cqe_buffer_more == IORING_CQE_F_BUF_MORE);
#endif
#ifdef IORING_NOTIF_USAGE_ZC_COPIED
static_assert(notification_copied == IORING_NOTIF_USAGE_ZC_COPIED && send_report_usage == IORING_SEND_ZC_REPORT_USAGE);
#endif

static_assert(sizeof(Params) == sizeof(io_uring_params) && offsetof(Params, features) == offsetof(io_uring_params, features));
static_assert(offsetof(Params, sq) == offsetof(io_uring_params, sq_off) && offsetof(Params, cq) == offsetof(io_uring_params, cq_off));
static_assert(offsetof(SqOffsets, flags) == offsetof(io_sqring_offsets, flags));
static_assert(offsetof(SqOffsets, array) == offsetof(io_sqring_offsets, array));
static_assert(offsetof(CqOffsets, cqes) == offsetof(io_cqring_offsets, cqes));
static_assert(offsetof(CqOffsets, overflow) == offsetof(io_cqring_offsets, overflow));
static_assert(sizeof(WaitArgument) == sizeof(io_uring_getevents_arg));
static_assert(offsetof(WaitArgument, timeout) == offsetof(io_uring_getevents_arg, ts));
static_assert(sizeof(BufferRingArgument) == sizeof(io_uring_buf_reg) && offsetof(BufferRingArgument, group) == offsetof(io_uring_buf_reg, bgid));
static_assert(sizeof(BuffersArgument) == sizeof(io_uring_rsrc_register) && offsetof(BuffersArgument, data) == offsetof(io_uring_rsrc_register, data));
static_assert(sizeof(BuffersUpdate) == sizeof(io_uring_rsrc_update2) && offsetof(BuffersUpdate, count) == offsetof(io_uring_rsrc_update2, nr));
static_assert(sizeof(ProvidedBuffer) == sizeof(io_uring_buf) && offsetof(ProvidedBuffer, tail) == offsetof(io_uring_buf_ring, tail));
static_assert(sizeof(SyncCancel) == sizeof(io_uring_sync_cancel_reg));
static_assert(offsetof(SyncCancel, timeout_s) == offsetof(io_uring_sync_cancel_reg, timeout));
static_assert(sizeof(ResourceUpdate) == sizeof(io_uring_rsrc_update) && sizeof(ProbeOperation) == sizeof(io_uring_probe_op));
static_assert(offsetof(Probe, each) == sizeof(io_uring_probe));
static_assert(sizeof(Sqe) == sizeof(io_uring_sqe) && offsetof(Sqe, operation_flags) == offsetof(io_uring_sqe, msg_flags));
static_assert(offsetof(Sqe, offset) == offsetof(io_uring_sqe, off) && offsetof(Sqe, address) == offsetof(io_uring_sqe, addr));
static_assert(offsetof(Sqe, length) == offsetof(io_uring_sqe, len) && offsetof(Sqe, user_data) == offsetof(io_uring_sqe, user_data));
static_assert(offsetof(Sqe, buffer_group) == offsetof(io_uring_sqe, buf_group));
static_assert(offsetof(Sqe, file_index) == offsetof(io_uring_sqe, file_index));
static_assert(sizeof(Cqe) == sizeof(io_uring_cqe) && offsetof(Cqe, flags) == offsetof(io_uring_cqe, flags));
static_assert(sizeof(ReceivedMessage) == sizeof(io_uring_recvmsg_out));

}  // namespace evpl::transport::uring::abi
#endif
#endif
