// Compares our declarations with NVIDIA's, where these are installed. Compiles to nothing.
#if __has_include(<mellanox/xlio_extra.h>)

#include <pthread.h>  // NVIDIA's header needs these two before it
#include <sys/uio.h>

#include <mellanox/xlio_extra.h>

#include <type_traits>

#include "transport/xlio/abi.hpp"

namespace evpl::transport::xlio::abi {
namespace {

// -- our types in NVIDIA's names, so that functions can be compared as a whole

template <class T>
struct Theirs {
    using type = T;
};
template <class T>
using TheirsOf = typename Theirs<T>::type;
#define EVPL_SAME(ours, theirs)                                                                                                                                \
    template <>                                                                                                                                                \
    struct Theirs<ours> {                                                                                                                                      \
        using type = theirs;                                                                                                                                   \
    };
EVPL_SAME(Buf, xlio_buf)
EVPL_SAME(InitAttr, xlio_init_attr)
EVPL_SAME(GroupAttr, xlio_poll_group_attr)
EVPL_SAME(SocketAttr, xlio_socket_attr)
EVPL_SAME(SendAttr, xlio_socket_send_attr)
EVPL_SAME(ProtectionDomain, ibv_pd)
#undef EVPL_SAME
template <class T>
struct Theirs<const T> {
    using type = const TheirsOf<T>;
};
template <class T>
struct Theirs<T*> {
    using type = TheirsOf<T>*;
};
template <class Result, class... Arguments>
struct Theirs<Result(Arguments...)> {
    using type = TheirsOf<Result>(TheirsOf<Arguments>...);
};

template <class Ours, class TheirType>
inline constexpr bool same = std::is_same_v<TheirsOf<Ours>, TheirType>;

// -- constants

static_assert(XLIO_MAGIC_NUMBER == magic && SO_XLIO_GET_API == get_api);
static_assert(XLIO_SOCKET_SEND_FLAG_FLUSH == send_flush && XLIO_SOCKET_SEND_FLAG_INLINE == send_inline);
static_assert(int(XLIO_SOCKET_EVENT_ESTABLISHED) == established && int(XLIO_SOCKET_EVENT_TERMINATED) == terminated);
static_assert(int(XLIO_SOCKET_EVENT_CLOSED) == closed && int(XLIO_SOCKET_EVENT_ERROR) == error);

// -- structs

#define EVPL_FIELD(ours, our_field, theirs, their_field)                                                                                                       \
    static_assert(offsetof(ours, our_field) == offsetof(theirs, their_field), #theirs "::" #their_field);                                                      \
    static_assert(same<decltype(ours::our_field), decltype(theirs::their_field)>, #theirs "::" #their_field);
static_assert(sizeof(xlio_buf) == sizeof(Buf) && sizeof(xlio_init_attr) == sizeof(InitAttr));
static_assert(sizeof(xlio_poll_group_attr) == sizeof(GroupAttr));
static_assert(sizeof(xlio_socket_attr) == sizeof(SocketAttr) && sizeof(xlio_socket_send_attr) == sizeof(SendAttr));
EVPL_FIELD(Buf, userdata, xlio_buf, userdata)
EVPL_FIELD(InitAttr, registered, xlio_init_attr, memory_cb)
EVPL_FIELD(InitAttr, allocate, xlio_init_attr, memory_alloc)
EVPL_FIELD(InitAttr, free, xlio_init_attr, memory_free)
EVPL_FIELD(GroupAttr, flags, xlio_poll_group_attr, flags)
EVPL_FIELD(GroupAttr, event, xlio_poll_group_attr, socket_event_cb)
EVPL_FIELD(GroupAttr, completion, xlio_poll_group_attr, socket_comp_cb)
EVPL_FIELD(GroupAttr, received, xlio_poll_group_attr, socket_rx_cb)
EVPL_FIELD(GroupAttr, accepted, xlio_poll_group_attr, socket_accept_cb)
EVPL_FIELD(SocketAttr, flags, xlio_socket_attr, flags)
EVPL_FIELD(SocketAttr, domain, xlio_socket_attr, domain)
EVPL_FIELD(SocketAttr, group, xlio_socket_attr, group)
EVPL_FIELD(SocketAttr, userdata, xlio_socket_attr, userdata_sq)
EVPL_FIELD(SendAttr, flags, xlio_socket_send_attr, flags)
EVPL_FIELD(SendAttr, key, xlio_socket_send_attr, mkey)
EVPL_FIELD(SendAttr, operation, xlio_socket_send_attr, userdata_op)
#undef EVPL_FIELD

// -- the table

constexpr std::size_t first_slot = offsetof(xlio_api_t, xlio_init_ex);
/// A table may grow at its end.
constexpr bool is_known() {
    for (const Layout& layout : layouts)
        if (layout.first_slot == first_slot && layout.table_bytes <= sizeof(xlio_api_t)) return true;
    return false;
}
static_assert(is_known(), "a layout of the function table that we do not know");

#define EVPL_SLOT_IS(ours, theirs, result, arguments)                                                                                                          \
    static_assert(offsetof(xlio_api_t, theirs) == first_slot + slot_##ours * sizeof(void*), #theirs);                                                          \
    static_assert(same<decltype(Calls::ours), decltype(xlio_api_t::theirs)>, #theirs);
EVPL_XLIO_SLOTS(EVPL_SLOT_IS)
#undef EVPL_SLOT_IS

}  // namespace
}  // namespace evpl::transport::xlio::abi
#endif
