#pragma once

// The kernel's side of io_uring as we use it: io_uring_setup(2), io_uring_enter(2), io_uring_register(2). abi.cpp compares every value
// and layout that the kernel header of the building machine knows; the newer ones are ours and are probed at run time.

#include <cstddef>
#include <cstdint>

namespace evpl::transport::uring::abi {

// -- io_uring_setup
inline constexpr std::uint32_t setup_cq_size = 1u << 3;
inline constexpr std::uint32_t setup_clamp = 1u << 4;
inline constexpr std::uint32_t setup_disabled = 1u << 6;
inline constexpr std::uint32_t setup_submit_all = 1u << 7;
inline constexpr std::uint32_t setup_taskrun_flag = 1u << 9;
inline constexpr std::uint32_t setup_single_issuer = 1u << 12;
inline constexpr std::uint32_t setup_defer_taskrun = 1u << 13;
inline constexpr std::uint32_t setup_no_sq_array = 1u << 16;  // Linux 6.6

inline constexpr std::uint32_t feature_single_mmap = 1u << 0;
inline constexpr std::uint32_t feature_no_drop = 1u << 1;
inline constexpr std::uint32_t feature_submit_stable = 1u << 2;
inline constexpr std::uint32_t feature_fast_poll = 1u << 5;
inline constexpr std::uint32_t feature_wait_argument = 1u << 8;
inline constexpr std::uint32_t feature_skip_success = 1u << 11;
inline constexpr std::uint32_t feature_min_wait = 1u << 15;  // Linux 6.12

inline constexpr std::int64_t map_rings = 0;
inline constexpr std::int64_t map_entries = 0x10000000;

struct SqOffsets {
    std::uint32_t head, tail, ring_mask, ring_entries, flags, dropped, array, reserved;
    std::uint64_t user_address;
};
struct CqOffsets {
    std::uint32_t head, tail, ring_mask, ring_entries, overflow, cqes, flags, reserved;
    std::uint64_t user_address;
};
struct Params {
    std::uint32_t sq_entries, cq_entries, flags, sq_thread_cpu, sq_thread_idle, features, wq_fd, reserved[3];
    SqOffsets sq;
    CqOffsets cq;
};

// -- io_uring_enter
inline constexpr std::uint32_t enter_get_events = 1u << 0;
inline constexpr std::uint32_t enter_extended = 1u << 3;
inline constexpr std::uint32_t enter_registered_ring = 1u << 4;
inline constexpr std::uint32_t sq_cq_overflow = 1u << 1;
inline constexpr std::uint32_t sq_taskrun = 1u << 2;

struct WaitArgument {
    std::uint64_t signal_mask;
    std::uint32_t signal_mask_bytes;
    std::uint32_t min_wait_us;
    std::uint64_t timeout;
};

// -- io_uring_register
enum Register : unsigned {
    register_probe = 8,
    register_enable = 12,
    register_buffers = 15,
    register_buffers_update = 16,
    register_ring_descriptors = 20,
    unregister_ring_descriptors = 21,
    register_buffer_ring = 22,
    unregister_buffer_ring = 23,
    register_sync_cancel = 24
};

struct BuffersArgument {
    std::uint32_t count;
    std::uint32_t flags;
    std::uint64_t reserved, data, tags;
};
inline constexpr std::uint32_t buffers_sparse = 1u << 0;

struct BuffersUpdate {
    std::uint32_t offset;
    std::uint32_t reserved;
    std::uint64_t data, tags;
    std::uint32_t count;
    std::uint32_t reserved2;
};

struct BufferRingArgument {
    std::uint64_t address;
    std::uint32_t entries;
    std::uint16_t group;
    std::uint16_t flags;
    std::uint64_t reserved[3];
};
inline constexpr std::uint16_t buffer_ring_incremental = 2;  // Linux 6.12

/// An entry of a buffer ring; the ring's tail lies in the last field of the first.
struct ProvidedBuffer {
    std::uint64_t address;
    std::uint32_t bytes;
    std::uint16_t id;
    std::uint16_t tail;
};

struct SyncCancel {
    std::uint64_t address;
    std::int32_t fd;
    std::uint32_t flags;
    std::int64_t timeout_s, timeout_ns;
    std::uint64_t reserved[4];
};
inline constexpr std::uint32_t cancel_all = 1u << 0;
inline constexpr std::uint32_t cancel_any = 1u << 2;

struct ResourceUpdate {
    std::uint32_t offset;
    std::uint32_t reserved;
    std::uint64_t data;
};

struct ProbeOperation {
    std::uint8_t operation, reserved;
    std::uint16_t flags;
    std::uint32_t reserved2;
};
struct Probe {
    std::uint8_t last_operation, operations;
    std::uint16_t reserved;
    std::uint32_t reserved2[3];
    ProbeOperation each[64];
};
inline constexpr std::uint16_t probe_supported = 1u << 0;

// -- entries
enum Operation : std::uint8_t {
    op_nop = 0,
    op_poll_add = 6,
    op_send_message = 9,
    op_receive_message = 10,
    op_accept = 13,
    op_async_cancel = 14,
    op_send = 26,
    op_receive = 27,
    op_send_zero_copy = 47,
    op_send_message_zero_copy = 48,
    op_epoll_wait = 59  // Linux 6.15
};

inline constexpr std::uint8_t sqe_buffer_select = 1u << 5;
inline constexpr std::uint16_t receive_poll_first = 1u << 0;
inline constexpr std::uint16_t receive_multishot = 1u << 1;
inline constexpr std::uint16_t send_registered = 1u << 2;
inline constexpr std::uint16_t send_report_usage = 1u << 3;  // Linux 6.2
inline constexpr std::uint16_t accept_multishot = 1u << 0;
inline constexpr std::uint32_t notification_copied = 1u << 31;

struct Sqe {
    std::uint8_t operation = 0;
    std::uint8_t flags = 0;
    std::uint16_t priority = 0;  ///< the operation's own flags
    std::int32_t fd = -1;
    std::uint64_t offset = 0;
    std::uint64_t address = 0;
    std::uint32_t length = 0;
    std::uint32_t operation_flags = 0;
    std::uint64_t user_data = 0;
    std::uint16_t buffer_group = 0;  ///< or the number of a registered buffer
    std::uint16_t personality = 0;
    std::uint32_t file_index = 0;
    std::uint64_t address3 = 0;
    std::uint64_t padding = 0;
};
static_assert(sizeof(Sqe) == 64);

struct Cqe {
    std::uint64_t user_data;
    std::int32_t result;
    std::uint32_t flags;
};
static_assert(sizeof(Cqe) == 16);
inline constexpr std::uint32_t cqe_buffer = 1u << 0;
inline constexpr std::uint32_t cqe_more = 1u << 1;
inline constexpr std::uint32_t cqe_notification = 1u << 3;
inline constexpr std::uint32_t cqe_buffer_more = 1u << 4;  // Linux 6.12: the buffer stays in use
inline constexpr unsigned cqe_buffer_shift = 16;

/// What a multishot recvmsg puts before name, control and payload.
struct ReceivedMessage {
    std::uint32_t name_bytes, control_bytes, payload_bytes, flags;
};

}  // namespace evpl::transport::uring::abi
