// Compares our declarations with NVIDIA's, where these are installed. Compiles to nothing.
#if __has_include(<mellanox/xlio_extra.h>)
#define XLIO_HEADER_CHECK 1
#endif

#if defined(XLIO_HEADER_CHECK)
#include <pthread.h>
#include <sys/uio.h>

#include <mellanox/xlio_extra.h>

#include <type_traits>

#include "transport/xlio/abi.hpp"

namespace evpl::transport::xlio::abi {

static_assert(XLIO_MAGIC_NUMBER == magic && SO_XLIO_GET_API == get_api);
static_assert(sizeof(xlio_buf) == sizeof(Buf));
static_assert(sizeof(xlio_init_attr) == sizeof(InitAttr) && sizeof(xlio_poll_group_attr) == sizeof(GroupAttr));
static_assert(sizeof(xlio_socket_attr) == sizeof(SocketAttr) && sizeof(xlio_socket_send_attr) == sizeof(SendAttr));
static_assert(offsetof(xlio_socket_attr, userdata_sq) == offsetof(SocketAttr, userdata));
static_assert(offsetof(xlio_socket_send_attr, mkey) == offsetof(SendAttr, key));
static_assert(offsetof(xlio_socket_send_attr, userdata_op) == offsetof(SendAttr, operation));
static_assert(XLIO_SOCKET_SEND_FLAG_FLUSH == send_flush && XLIO_SOCKET_SEND_FLAG_INLINE == send_inline);
static_assert(int(XLIO_SOCKET_EVENT_ESTABLISHED) == established && int(XLIO_SOCKET_EVENT_TERMINATED) == terminated);
static_assert(int(XLIO_SOCKET_EVENT_CLOSED) == closed && int(XLIO_SOCKET_EVENT_ERROR) == error);
static_assert(sizeof(xlio_api_t) == layouts[0].table_bytes || sizeof(xlio_api_t) == layouts[1].table_bytes,
              "a layout of the function table that we do not know");

}  // namespace evpl::transport::xlio::abi
#endif
