// The knob `memory`: connections inside the process, without kernel sockets, so that what a program spends on a message can be measured.
// No system call, allocation, lock or locked instruction in send, flush and poll. One group and one thread; of the trouble that the double
// can make, none. Rules that cost nothing to keep are kept: userdata 0 at accept, completions in the poll after the send, ENOMEM whole.

#include <netinet/in.h>

#include <cerrno>
#include <cstring>
#include <new>
#include <utility>
#include <vector>

#include "interface.hpp"

namespace xlio_double {
namespace {

int fail(int os) {
    errno = os;
    return -1;
}

struct Rx : buf_t {
    std::byte* memory = nullptr;
    Rx* next = nullptr;
};
constexpr std::uint32_t rx_bytes = 16u << 10;

/// What lies between two polls of a socket at the most.
template <class T>
class FixedRing {
public:
    static constexpr std::uint32_t capacity = 4096;
    FixedRing() : items_(capacity) {}
    std::uint32_t size() const { return tail_ - head_; }
    std::uint32_t room() const { return capacity - size(); }
    void push(T item) { items_[tail_++ % capacity] = item; }
    T pop() { return items_[head_++ % capacity]; }

private:
    std::vector<T> items_;
    std::uint32_t head_ = 0, tail_ = 0;
};

struct Piece {
    Rx* rx;
    std::uint32_t bytes;
};

struct Sock {
    Sock* peer = nullptr;
    std::uintptr_t userdata = 0;
    std::uint16_t port = 0;
    bool listening = false, connecting = false, established = false, peer_closed = false, peer_reset = false;
    bool closed_told = false, destroyed = false, hard = false, active = false;
    Sock* next_active = nullptr;
    FixedRing<Piece> inbound;
    FixedRing<std::uintptr_t> done;  ///< sends by reference: their operations
};

struct Group {
    group_attr_t attr{};
    bool in_callback = false;
    Sock* first_active = nullptr;
    Sock** last_active = &first_active;
    std::vector<Sock*> socks;
};

struct State {
    std::vector<Rx> rx;
    Rx* free_rx = nullptr;
    std::size_t free_count = 0;
    pd_t pd{nullptr, 0};
    Group* group = nullptr;
    std::uint16_t next_port = 20000;
    bool initialised = false;

    Rx* take() {
        Rx* const one = free_rx;
        free_rx = one->next;
        --free_count;
        return one;
    }
    void give(Rx* one) {
        one->next = std::exchange(free_rx, one);
        ++free_count;
    }
};
State state;

Sock& sock_of(std::uintptr_t handle) { return *reinterpret_cast<Sock*>(handle); }
std::uintptr_t handle_of(Sock& s) { return reinterpret_cast<std::uintptr_t>(&s); }

void outside(const char* call) {
    if (state.group != nullptr && state.group->in_callback) misuse("%s inside a callback", call);
}

void activate(Sock& s) {
    if (std::exchange(s.active, true)) return;
    s.next_active = nullptr;
    *state.group->last_active = &s;
    state.group->last_active = &s.next_active;
}

int init_ex(const init_attr_t* attr) {
    if (std::exchange(state.initialised, true)) return attr->memory_alloc != nullptr ? fail(EEXIST) : 0;
    const std::size_t bytes = std::size_t(knobs.pool) * rx_bytes;
    auto* const memory = static_cast<std::byte*>(pool_memory(attr, bytes));
    if (memory == nullptr) return fail(ENOMEM);
    state.rx.resize(knobs.pool);
    for (std::size_t i = state.rx.size(); i-- > 0;) {
        state.rx[i].memory = memory + i * rx_bytes;
        state.give(&state.rx[i]);
    }
    if (attr->memory_cb != nullptr) attr->memory_cb(memory, bytes, 0);
    return 0;
}

int group_create(const group_attr_t* attr, std::uintptr_t* out) {
    if (attr == nullptr || attr->event == nullptr || out == nullptr) return fail(EINVAL);
    if (state.group != nullptr) return fail(EMFILE);  // one at a time
    state.group = new Group;
    state.group->attr = *attr;
    *out = reinterpret_cast<std::uintptr_t>(state.group);
    return 0;
}

Sock* make_sock(std::uintptr_t userdata) {
    auto* const s = new Sock;
    s->userdata = userdata;
    state.group->socks.push_back(s);
    return s;
}

/// The peer learns of it.
void part(Sock& s) {
    if (Sock* const peer = std::exchange(s.peer, nullptr)) {
        peer->peer = nullptr;
        peer->peer_closed = true;
        peer->peer_reset = s.hard;
        activate(*peer);
    }
    while (s.inbound.size() > 0) state.give(s.inbound.pop().rx);
}

void free_sock(Sock* s) {
    part(*s);
    std::erase(state.group->socks, s);
    delete s;
}

int group_destroy(std::uintptr_t handle) {
    auto* const group = reinterpret_cast<Group*>(handle);
    if (group->in_callback) misuse("group_destroy inside a poll");
    while (!group->socks.empty()) {
        Sock* const s = group->socks.back();
        if (!s->destroyed) group->attr.event(handle_of(*s), s->userdata, TERMINATED, 0);
        free_sock(s);
    }
    state.group = nullptr;
    delete group;
    return 0;
}

// -- polling ----------------------------------------------------------------------------------------------------------

Sock* listener_at(std::uint16_t port) {
    for (Sock* s : state.group->socks)
        if (s->listening && !s->destroyed && s->port == port) return s;
    return nullptr;
}

void finish_connect(Group& group, Sock& s) {
    s.connecting = false;
    Sock* const parent = listener_at(s.port);
    if (parent == nullptr) return group.attr.event(handle_of(s), s.userdata, ERROR, ECONNREFUSED);
    Sock* const made = make_sock(0);
    made->established = s.established = true;
    made->peer = &s;
    s.peer = made;
    group.attr.accept(handle_of(*made), handle_of(*parent), parent->userdata);
    group.attr.event(handle_of(s), s.userdata, ESTABLISHED, 0);
}

void poll_sock(Group& group, Sock& s) {
    if (s.connecting && !s.destroyed) finish_connect(group, s);
    for (std::uint32_t left = s.done.size(); left > 0; --left) group.attr.comp(handle_of(s), s.userdata, s.done.pop());
    if (s.destroyed) {
        if (s.active) return;  // a callback had it send: next time
        part(s);
        group.attr.event(handle_of(s), s.userdata, TERMINATED, 0);
        return free_sock(&s);
    }
    for (std::uint32_t left = s.inbound.size(); left > 0; --left) {
        const Piece piece = s.inbound.pop();
        group.attr.rx(handle_of(s), s.userdata, piece.rx->memory, piece.bytes, piece.rx);
    }
    if (!s.peer_closed || std::exchange(s.closed_told, true)) return;
    if (s.peer_reset) group.attr.event(handle_of(s), s.userdata, ERROR, ECONNRESET);
    else group.attr.event(handle_of(s), s.userdata, CLOSED, 0);
}

void group_poll(std::uintptr_t handle) {
    auto& group = *reinterpret_cast<Group*>(handle);
    Sock* s = std::exchange(group.first_active, nullptr);  // what these cause is the next poll's
    group.last_active = &group.first_active;
    group.in_callback = true;
    while (s != nullptr) {
        Sock* const next = s->next_active;
        s->active = false;
        poll_sock(group, *s);
        s = next;
    }
    group.in_callback = false;
}

// -- sending ----------------------------------------------------------------------------------------------------------

std::uint32_t buffers_for(std::size_t bytes) { return std::uint32_t((bytes + rx_bytes - 1) / rx_bytes); }

int sock_sendv(std::uintptr_t handle, const iovec* pieces, unsigned count, const send_attr_t* attr) {
    Sock& s = sock_of(handle);
    if (!s.established) return fail(s.connecting ? EAGAIN : ENOTCONN);
    if (s.peer_reset) return fail(ECONNRESET);
    Sock* const peer = s.peer;
    const bool completes = (attr->flags & SEND_INLINE) == 0 && attr->userdata_op != 0;
    std::size_t bytes = 0;
    std::uint32_t needed = 0;
    for (unsigned i = 0; i < count; ++i) bytes += pieces[i].iov_len, needed += buffers_for(pieces[i].iov_len);
    if (bytes == 0) return 0;
    if (needed > state.free_count || (completes && s.done.room() == 0) || (peer != nullptr && peer->inbound.room() < needed)) return fail(ENOMEM);
    for (unsigned i = 0; i < count && peer != nullptr; ++i) {
        const auto* from = static_cast<const std::byte*>(pieces[i].iov_base);
        for (std::size_t left = pieces[i].iov_len; left > 0;) {
            const auto n = std::uint32_t(left < rx_bytes ? left : rx_bytes);
            Rx* const rx = state.take();
            std::memcpy(rx->memory, from, n);
            peer->inbound.push({rx, n});
            from += n;
            left -= n;
        }
    }
    if (peer != nullptr) activate(*peer);
    if (completes) s.done.push(attr->userdata_op), activate(s);
    return 0;
}
int sock_send(std::uintptr_t handle, const void* data, std::size_t bytes, const send_attr_t* attr) {
    const iovec one{const_cast<void*>(data), bytes};
    return sock_sendv(handle, &one, 1, attr);
}
void group_flush(std::uintptr_t) {}
void sock_flush(std::uintptr_t) {}
void group_buf_free(std::uintptr_t, buf_t* buf) { state.give(static_cast<Rx*>(buf)); }
void sock_buf_free(std::uintptr_t, buf_t* buf) { state.give(static_cast<Rx*>(buf)); }

// -- sockets ----------------------------------------------------------------------------------------------------------

int sock_create(const socket_attr_t* attr, std::uintptr_t* out) {
    outside("socket_create");
    *out = handle_of(*make_sock(attr->userdata));
    return 0;
}
int sock_destroy(std::uintptr_t handle) {
    outside("socket_destroy");
    if (std::exchange(sock_of(handle).destroyed, true)) misuse("socket_destroy on a destroyed socket");
    activate(sock_of(handle));
    return 0;
}
int sock_update(std::uintptr_t handle, unsigned, std::uintptr_t userdata) {
    sock_of(handle).userdata = userdata;
    return 0;
}
int sock_setsockopt(std::uintptr_t handle, int level, int name, const void* value, socklen_t size) {
    if (level == SOL_SOCKET && name == SO_LINGER && size == sizeof(linger)) {
        const auto* const how = static_cast<const linger*>(value);
        sock_of(handle).hard = how->l_onoff != 0 && how->l_linger == 0;
    }
    return 0;
}
int name_of(std::uint16_t port, sockaddr* out, socklen_t* size) {
    sockaddr_in name{};
    name.sin_family = AF_INET;
    name.sin_port = htons(port);
    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    std::memcpy(out, &name, *size < sizeof name ? *size : sizeof name);
    *size = sizeof name;
    return 0;
}
int sock_getsockname(std::uintptr_t handle, sockaddr* name, socklen_t* size) { return name_of(sock_of(handle).port, name, size); }
int sock_getpeername(std::uintptr_t handle, sockaddr* name, socklen_t* size) {
    return sock_of(handle).established ? name_of(sock_of(handle).port, name, size) : fail(ENOTCONN);
}
std::uint16_t port_of(const sockaddr* name) { return ntohs(reinterpret_cast<const sockaddr_in*>(name)->sin_port); }

int sock_bind(std::uintptr_t handle, const sockaddr* name, socklen_t) {
    outside("bind");
    sock_of(handle).port = port_of(name);
    return 0;
}
int sock_connect(std::uintptr_t handle, const sockaddr* to, socklen_t) {
    outside("connect");
    Sock& s = sock_of(handle);
    if (s.established) return fail(EISCONN);
    if (std::exchange(s.connecting, true)) return fail(EALREADY);
    s.port = port_of(to);
    activate(s);
    return 0;
}
int sock_listen(std::uintptr_t handle) {
    outside("listen");
    Sock& s = sock_of(handle);
    if (state.group->attr.accept == nullptr) return fail(ENOTCONN);
    if (s.port == 0) s.port = state.next_port++;
    if (listener_at(s.port) != nullptr) return fail(EADDRINUSE);
    s.listening = true;
    return 0;
}
pd_t* sock_get_pd(std::uintptr_t handle) {
    const Sock& s = sock_of(handle);
    return s.established || s.connecting ? &state.pd : nullptr;
}
int no_move(std::uintptr_t) { return fail(ENOTSUP); }
int no_attach(std::uintptr_t, std::uintptr_t) { return fail(ENOTSUP); }

}  // namespace

void fill_memory_slots(void* (&slots)[ultra_slots], void* exit) {
    void* const all[ultra_slots] = {
        reinterpret_cast<void*>(&init_ex),          exit,
        reinterpret_cast<void*>(&group_create),     reinterpret_cast<void*>(&group_destroy),
        reinterpret_cast<void*>(&group_poll),       reinterpret_cast<void*>(&sock_create),
        reinterpret_cast<void*>(&sock_destroy),     reinterpret_cast<void*>(&sock_update),
        reinterpret_cast<void*>(&sock_setsockopt),  reinterpret_cast<void*>(&sock_getsockname),
        reinterpret_cast<void*>(&sock_getpeername), reinterpret_cast<void*>(&sock_bind),
        reinterpret_cast<void*>(&sock_connect),     reinterpret_cast<void*>(&sock_listen),
        reinterpret_cast<void*>(&sock_get_pd),      reinterpret_cast<void*>(&no_move),
        reinterpret_cast<void*>(&no_attach),        reinterpret_cast<void*>(&sock_send),
        reinterpret_cast<void*>(&sock_sendv),       reinterpret_cast<void*>(&group_flush),
        reinterpret_cast<void*>(&sock_flush),       reinterpret_cast<void*>(&sock_buf_free),
        reinterpret_cast<void*>(&group_buf_free),
    };
    std::memcpy(slots, all, sizeof all);
}

}  // namespace xlio_double
