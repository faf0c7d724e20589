#pragma once

// What we know of the binary interface of NVIDIA XLIO's Ultra API (x86-64 and arm64, releases 3.60.0 to 3.70.2). Declared here so that the
// library is needed neither to build nor to run us; header_check.cpp compares it with NVIDIA's own header where that is installed.

#include <sys/socket.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>

namespace evpl::transport::xlio::abi {

using Group = std::uintptr_t;
using Socket = std::uintptr_t;
/// A protection domain of libibverbs.
struct ProtectionDomain;

/// A receive buffer of the library. The application may use `userdata` while it owns the buffer; it is not initialised.
struct Buf {
    std::uint64_t userdata;
};
static_assert(sizeof(Buf) == 8);

struct InitAttr {
    unsigned flags;
    void (*registered)(void* at, std::size_t bytes, std::size_t hugepage_bytes);
    void* (*allocate)(std::size_t bytes);
    void (*free)(void* at);
};
static_assert(sizeof(InitAttr) == 32 && offsetof(InitAttr, registered) == 8 && offsetof(InitAttr, allocate) == 16 && offsetof(InitAttr, free) == 24);

using OnEvent = void(Socket, std::uintptr_t userdata, int event, int value);
using OnCompletion = void(Socket, std::uintptr_t userdata, std::uintptr_t operation);
using OnReceived = void(Socket, std::uintptr_t userdata, void* data, std::size_t bytes, Buf*);
using OnAccepted = void(Socket made, Socket parent, std::uintptr_t parent_userdata);

struct GroupAttr {
    unsigned flags;
    OnEvent* event;
    OnCompletion* completion;
    OnReceived* received;
    OnAccepted* accepted;
};
static_assert(sizeof(GroupAttr) == 40 && offsetof(GroupAttr, event) == 8 && offsetof(GroupAttr, accepted) == 32);

struct SocketAttr {
    unsigned flags;
    int domain;
    Group group;
    std::uintptr_t userdata;
};
static_assert(sizeof(SocketAttr) == 24 && offsetof(SocketAttr, domain) == 4 && offsetof(SocketAttr, group) == 8 && offsetof(SocketAttr, userdata) == 16);

struct SendAttr {
    unsigned flags;
    std::uint32_t key;         ///< of the memory region (lkey)
    std::uintptr_t operation;  ///< comes back with the completion; 0: there is none
};
static_assert(sizeof(SendAttr) == 16 && offsetof(SendAttr, key) == 4 && offsetof(SendAttr, operation) == 8);

inline constexpr unsigned send_flush = 1, send_inline = 2;

enum Event : int { established = 1, terminated = 2, closed = 3, error = 4 };

/// The head of ibv_mr: all of it that we read.
struct MemoryRegion {
    void* context;
    ProtectionDomain* pd;
    void* address;
    std::size_t length;
    std::uint32_t handle;
    std::uint32_t lkey;
    std::uint32_t rkey;
};
inline constexpr int access_local_write = 1;

// -- the table ---------------------------------------------------------------------------------------------------

/// getsockopt(-2, SOL_SOCKET, get_api, &table, &size): the one door to functions that the shared library does not export.
inline constexpr int api_descriptor = -2, get_api = 2800;

/// How the table begins; function pointers follow, packed.
struct TableHead {
    std::uint64_t magic;
    std::uint64_t cap_mask;
};
inline constexpr std::uint64_t magic = 0x4f494c584144564e;  // "NVDAXLIO"

/// A table is recognised by its mask alone: the magic number is the same in five layouts.
struct Layout {
    const char* name;
    std::uint64_t cap_mask;
    std::size_t first_slot;  ///< offset of Slot::init
    std::size_t table_bytes;
};
inline constexpr Layout layouts[] = {
    {"A (3.60.0 to 3.60.4)", 0x2819, 48, 232},
    {"B (3.61.0 to 3.70.2)", 0x2818, 40, 224},
};

/// The Ultra API's functions, in the same order in both layouts: our name, NVIDIA's, result and arguments.
#define EVPL_XLIO_SLOTS(X)                                                                                                                                     \
    X(init, xlio_init_ex, int, (const InitAttr*))                                                                                                              \
    X(exit, xlio_exit, int, ())                                                                                                                                \
    X(group_create, xlio_poll_group_create, int, (const GroupAttr*, Group*))                                                                                   \
    X(group_destroy, xlio_poll_group_destroy, int, (Group))                                                                                                    \
    X(group_poll, xlio_poll_group_poll, void, (Group))                                                                                                         \
    X(socket_create, xlio_socket_create, int, (const SocketAttr*, Socket*))                                                                                    \
    X(socket_destroy, xlio_socket_destroy, int, (Socket))                                                                                                      \
    X(socket_update, xlio_socket_update, int, (Socket, unsigned flags, std::uintptr_t userdata))                                                               \
    X(socket_setsockopt, xlio_socket_setsockopt, int, (Socket, int level, int name, const void* value, socklen_t size))                                        \
    X(socket_getsockname, xlio_socket_getsockname, int, (Socket, sockaddr*, socklen_t*))                                                                       \
    X(socket_getpeername, xlio_socket_getpeername, int, (Socket, sockaddr*, socklen_t*))                                                                       \
    X(socket_bind, xlio_socket_bind, int, (Socket, const sockaddr*, socklen_t))                                                                                \
    X(socket_connect, xlio_socket_connect, int, (Socket, const sockaddr*, socklen_t))                                                                          \
    X(socket_listen, xlio_socket_listen, int, (Socket))                                                                                                        \
    X(socket_get_pd, xlio_socket_get_pd, ProtectionDomain*, (Socket))                                                                                          \
    X(socket_detach_group, xlio_socket_detach_group, int, (Socket))                                                                                            \
    X(socket_attach_group, xlio_socket_attach_group, int, (Socket, Group))                                                                                     \
    X(socket_send, xlio_socket_send, int, (Socket, const void* data, std::size_t bytes, const SendAttr*))                                                      \
    X(socket_sendv, xlio_socket_sendv, int, (Socket, const iovec*, unsigned count, const SendAttr*))                                                           \
    X(group_flush, xlio_poll_group_flush, void, (Group))                                                                                                       \
    X(socket_flush, xlio_socket_flush, void, (Socket))                                                                                                         \
    X(socket_buf_free, xlio_socket_buf_free, void, (Socket, Buf*))                                                                                             \
    X(group_buf_free, xlio_poll_group_buf_free, void, (Group, Buf*))

enum Slot : unsigned {
#define EVPL_SLOT(name, theirs, result, arguments) slot_##name,
    EVPL_XLIO_SLOTS(EVPL_SLOT)
#undef EVPL_SLOT
        slot_count
};
static_assert(slot_count == 23 && slot_exit == 1 && slot_group_buf_free == 22);
static_assert(layouts[0].first_slot + slot_count * sizeof(void*) == layouts[0].table_bytes);
static_assert(layouts[1].first_slot + slot_count * sizeof(void*) == layouts[1].table_bytes);

/// The slots with their types, and the two functions of libibverbs that go with them.
struct Calls {
#define EVPL_CALL(name, theirs, result, arguments) result(*name) arguments = nullptr;
    EVPL_XLIO_SLOTS(EVPL_CALL)
#undef EVPL_CALL
    MemoryRegion* (*reg_mr)(ProtectionDomain*, void* at, std::size_t bytes, int access) = nullptr;
    int (*dereg_mr)(MemoryRegion*) = nullptr;
};

}  // namespace evpl::transport::xlio::abi
