// The double as libxlio.a is: linked into a program, under the names of NVIDIA's header, and no table. Each goes to its slot.
#include "interface.hpp"

namespace xlio_double {
namespace {

template <unsigned slot, class Result, class... Arguments>
Result call(Arguments... arguments) {
    static void* const* const slots = [] {
        static void* all[ultra_slots];
        fill_slots(all);
        return all;
    }();
    return reinterpret_cast<Result (*)(Arguments...)>(slots[slot])(arguments...);
}

using handle_t = std::uintptr_t;

}  // namespace
}  // namespace xlio_double

using namespace xlio_double;

extern "C" {

int xlio_init_ex(const init_attr_t* attr) { return call<0, int>(attr); }
int xlio_poll_group_create(const group_attr_t* attr, handle_t* out) { return call<2, int>(attr, out); }
int xlio_poll_group_destroy(handle_t group) { return call<3, int>(group); }
void xlio_poll_group_poll(handle_t group) { call<4, void>(group); }
int xlio_socket_create(const socket_attr_t* attr, handle_t* out) { return call<5, int>(attr, out); }
int xlio_socket_destroy(handle_t sock) { return call<6, int>(sock); }
int xlio_socket_update(handle_t sock, unsigned flags, std::uintptr_t userdata) { return call<7, int>(sock, flags, userdata); }
int xlio_socket_setsockopt(handle_t sock, int level, int name, const void* value, socklen_t size) { return call<8, int>(sock, level, name, value, size); }
int xlio_socket_getsockname(handle_t sock, sockaddr* name, socklen_t* size) { return call<9, int>(sock, name, size); }
int xlio_socket_getpeername(handle_t sock, sockaddr* name, socklen_t* size) { return call<10, int>(sock, name, size); }
int xlio_socket_bind(handle_t sock, const sockaddr* name, socklen_t size) { return call<11, int>(sock, name, size); }
int xlio_socket_connect(handle_t sock, const sockaddr* to, socklen_t size) { return call<12, int>(sock, to, size); }
int xlio_socket_listen(handle_t sock) { return call<13, int>(sock); }
pd_t* xlio_socket_get_pd(handle_t sock) { return call<14, pd_t*>(sock); }
int xlio_socket_detach_group(handle_t sock) { return call<15, int>(sock); }
int xlio_socket_attach_group(handle_t sock, handle_t group) { return call<16, int>(sock, group); }
int xlio_socket_send(handle_t sock, const void* data, std::size_t bytes, const send_attr_t* attr) { return call<17, int>(sock, data, bytes, attr); }
int xlio_socket_sendv(handle_t sock, const iovec* pieces, unsigned count, const send_attr_t* attr) { return call<18, int>(sock, pieces, count, attr); }
void xlio_poll_group_flush(handle_t group) { call<19, void>(group); }
void xlio_socket_flush(handle_t sock) { call<20, void>(sock); }
void xlio_socket_buf_free(handle_t sock, buf_t* buf) { call<21, void>(sock, buf); }
void xlio_poll_group_buf_free(handle_t group, buf_t* buf) { call<22, void>(group, buf); }
}
