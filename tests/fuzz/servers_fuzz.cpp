// Goal: whatever the kernel answers to an echo server and a proxy, each connection ends once, what is sent is an exact prefix of what was
// received, and no descriptor is lost or closed twice.
// Method: the linker sends the system calls of this program here (cmake/EvplFuzz.cmake). Sockets are numbers; what is accepted, received,
// sent, refused and reported by epoll is drawn from the input, a byte a decision. Time is virtual: it passes while the loop sleeps. When the
// input is used up, everything the network can do is fail. Nothing here is excused by allocations that fail (replay_main.cpp).
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/clock.hpp"
#include "evpl/evpl.hpp"

namespace {

using namespace evpl;
using namespace evpl::literals;

constexpr int first_descriptor = 100'000;  // beyond what the system gives out
constexpr std::size_t decisions_max = 600;
constexpr std::size_t sockets_max = 2 * decisions_max + 16;  // each one accepted costs a decision, and dials at most once
constexpr int turns_max = 10'000;

void require(bool condition) {
    if (!condition) __builtin_trap();
}

/// The n-th byte that any peer sends: so that what is passed on can be told from what is not.
std::byte nth_byte(std::size_t n) { return std::byte(n * 131 % 251); }

struct Socket {
    bool open = false, listens = false, connecting = false, received_end = false;
    std::size_t received = 0, sent = 0;
    std::uint64_t name = 0;  // for epoll
    std::uint32_t wanted = 0;
    bool watched = false;
};

/// The kernel of one run.
struct Kernel {
    const std::uint8_t* data;
    std::size_t size, at = 0;
    std::vector<Socket> sockets = std::vector<Socket>(sockets_max);  // made at once: inside a system call no memory may be asked for
    std::size_t made = 0, open = 0;
    std::int64_t now_ns = 1'000'000'000;

    bool over() const { return at >= size || at >= decisions_max; }
    std::uint8_t draw() { return over() ? 0 : data[at++]; }
    Socket* find(int fd) {
        Socket* const found = &sockets[std::size_t(fd - first_descriptor)];
        return found->open ? found : nullptr;
    }
    int make() {
        require(made < sockets_max);
        sockets[made].open = true;
        ++open;
        return first_descriptor + int(made++);
    }
    void close(int fd) {
        find(fd)->open = false;
        --open;
    }
};
Kernel* kernel = nullptr;

int fail(int error) {
    errno = error;
    return -1;
}

bool is_ours(int fd) {
    if (kernel == nullptr || fd < first_descriptor) return false;
    require(std::size_t(fd - first_descriptor) < kernel->made);
    require(kernel->find(fd) != nullptr);  // a descriptor is used after it was closed
    return true;
}

ssize_t receive(int fd, void* to, std::size_t room) {
    Socket& socket = *kernel->find(fd);
    if (kernel->over()) return fail(ECONNRESET);
    require(!socket.listens && room > 0);
    const std::uint8_t decision = kernel->draw();
    if (decision < 30) return fail(EAGAIN);
    if (decision < 35) return fail(EINTR);
    if (decision < 38) return fail(decision == 35 ? ECONNRESET : decision == 36 ? ETIMEDOUT : ENOMEM);
    if (decision < 48 || socket.received_end) {
        socket.received_end = true;
        return 0;
    }
    const std::size_t wanted = decision > 240 ? room : std::size_t(decision - 47) * (decision % 8 == 0 ? 97 : 1);
    const std::size_t n = wanted < room ? wanted : room;
    for (std::size_t i = 0; i < n; ++i) static_cast<std::byte*>(to)[i] = nth_byte(socket.received++);
    return ssize_t(n);
}

/// How much of `size` bytes the kernel takes.
ssize_t admit(std::size_t size) {
    if (kernel->over()) return fail(EPIPE);
    const std::uint8_t decision = kernel->draw();
    if (decision < 20) return fail(EAGAIN);
    if (decision < 24) return fail(EINTR);
    if (decision < 28) return fail(decision == 24 ? ECONNRESET : decision == 25 ? EPIPE : decision == 26 ? ENOBUFS : ENOMEM);
    const std::size_t most = decision > 200 ? size : std::size_t(decision - 27) * (decision % 4 == 0 ? 53 : 1);
    return ssize_t(most < size ? most : size);
}

void check_sent(Socket& socket, const void* bytes, std::size_t n) {
    for (std::size_t i = 0; i < n; ++i) require(static_cast<const std::byte*>(bytes)[i] == nth_byte(socket.sent++));
}

void write_address(sockaddr* to, socklen_t* size) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(7000);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (to == nullptr) return;
    std::memcpy(to, &address, *size < sizeof address ? *size : sizeof address);
    *size = sizeof address;
}

int report(epoll_event* events, int most, std::int64_t timeout_ns) {
    int count = 0;
    kernel->draw();  // also a loop that watches nothing comes to an end
    for (std::size_t i = 0; i < kernel->made; ++i) {
        Socket& socket = kernel->sockets[i];
        if (count == most || !socket.open || !socket.watched) continue;
        std::uint32_t found = 0;
        if (kernel->over()) {
            found = socket.listens ? 0 : EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP;
        } else {
            const std::uint8_t decision = kernel->draw();
            if (decision & 1) found |= EPOLLIN;
            if (decision & 2) found |= EPOLLOUT;
            if ((decision & 0x1c) == 0x1c) found |= EPOLLRDHUP | EPOLLIN;
            if ((decision & 0xe0) == 0xe0) found |= EPOLLERR;
            if (socket.listens) found &= EPOLLIN;
            else if (socket.connecting && (found & EPOLLOUT) == 0) found &= ~std::uint32_t(EPOLLIN);
        }
        found &= socket.wanted | EPOLLERR | EPOLLHUP;
        if (found == 0) continue;
        events[count].events = found;
        events[count++].data.u64 = socket.name;
    }
    if (count == 0) kernel->now_ns += timeout_ns < 0 || timeout_ns > 1'000'000'000 ? 1'000'000'000 : timeout_ns;
    else kernel->now_ns += 1000;
    return count;
}

}  // namespace

extern "C" {

int __real_socket(int, int, int);
int __real_bind(int, const sockaddr*, socklen_t);
int __real_listen(int, int);
int __real_accept4(int, sockaddr*, socklen_t*, int);
int __real_connect(int, const sockaddr*, socklen_t);
ssize_t __real_recv(int, void*, std::size_t, int);
ssize_t __real_recvmsg(int, msghdr*, int);
ssize_t __real_send(int, const void*, std::size_t, int);
ssize_t __real_sendmsg(int, const msghdr*, int);
int __real_epoll_ctl(int, int, int, epoll_event*);
int __real_epoll_wait(int, epoll_event*, int, int);
int __real_epoll_pwait2(int, epoll_event*, int, const timespec*, const sigset_t*);
int __real_setsockopt(int, int, int, const void*, socklen_t);
int __real_getsockopt(int, int, int, void*, socklen_t*);
int __real_getsockname(int, sockaddr*, socklen_t*);
int __real_getpeername(int, sockaddr*, socklen_t*);
int __real_shutdown(int, int);
int __real_close(int);

int __wrap_socket(int domain, int type, int protocol) {
    if (kernel == nullptr || domain != AF_INET) return __real_socket(domain, type, protocol);
    return !kernel->over() && kernel->draw() == 0xff ? fail(EMFILE) : kernel->make();
}
int __wrap_bind(int fd, const sockaddr* at, socklen_t size) { return is_ours(fd) ? 0 : __real_bind(fd, at, size); }
int __wrap_listen(int fd, int backlog) {
    if (!is_ours(fd)) return __real_listen(fd, backlog);
    kernel->find(fd)->listens = true;
    return 0;
}
int __wrap_accept4(int fd, sockaddr* from, socklen_t* size, int flags) {
    if (!is_ours(fd)) return __real_accept4(fd, from, size, flags);
    require(kernel->find(fd)->listens);
    if (kernel->over()) return fail(EAGAIN);
    const std::uint8_t decision = kernel->draw();
    static constexpr int errors[] = {EAGAIN, EINTR, ECONNABORTED, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPERM, EPROTO};
    if (decision < 128) return fail(decision < 80 ? EAGAIN : errors[decision % std::size(errors)]);
    write_address(from, size);
    return kernel->make();
}
int __wrap_connect(int fd, const sockaddr* to, socklen_t size) {
    if (!is_ours(fd)) return __real_connect(fd, to, size);
    const std::uint8_t decision = kernel->draw();
    if (kernel->over()) return fail(ENETUNREACH);
    if (decision < 20) return fail(decision % 2 == 0 ? ECONNREFUSED : EADDRNOTAVAIL);
    if (decision < 60) return 0;
    kernel->find(fd)->connecting = true;
    return fail(EINPROGRESS);
}
ssize_t __wrap_recv(int fd, void* to, std::size_t room, int flags) { return is_ours(fd) ? receive(fd, to, room) : __real_recv(fd, to, room, flags); }
ssize_t __wrap_recvmsg(int fd, msghdr* message, int flags) {
    if (!is_ours(fd)) return __real_recvmsg(fd, message, flags);
    message->msg_controllen = 0;
    message->msg_flags = 0;
    return (flags & MSG_ERRQUEUE) != 0 ? fail(EAGAIN) : receive(fd, message->msg_iov[0].iov_base, message->msg_iov[0].iov_len);
}
ssize_t __wrap_send(int fd, const void* bytes, std::size_t size, int flags) {
    if (!is_ours(fd)) return __real_send(fd, bytes, size, flags);
    const ssize_t n = admit(size);
    if (n > 0) check_sent(*kernel->find(fd), bytes, std::size_t(n));
    return n;
}
ssize_t __wrap_sendmsg(int fd, const msghdr* message, int flags) {
    if (!is_ours(fd)) return __real_sendmsg(fd, message, flags);
    std::size_t size = 0;
    for (std::size_t i = 0; i < message->msg_iovlen; ++i) size += message->msg_iov[i].iov_len;
    const ssize_t n = admit(size);
    std::size_t left = n > 0 ? std::size_t(n) : 0;
    for (std::size_t i = 0; left > 0; ++i) {
        const std::size_t part = message->msg_iov[i].iov_len < left ? message->msg_iov[i].iov_len : left;
        check_sent(*kernel->find(fd), message->msg_iov[i].iov_base, part);
        left -= part;
    }
    return n;
}
int __wrap_epoll_ctl(int set, int what, int fd, epoll_event* event) {
    if (!is_ours(fd)) return __real_epoll_ctl(set, what, fd, event);
    Socket& socket = *kernel->find(fd);
    require(socket.watched == (what != EPOLL_CTL_ADD));
    if (what == EPOLL_CTL_ADD && !kernel->over() && kernel->draw() == 0xff) return fail(ENOSPC);
    socket.watched = what != EPOLL_CTL_DEL;
    if (socket.watched) socket.name = event->data.u64, socket.wanted = event->events;
    return 0;
}
int __wrap_epoll_wait(int set, epoll_event* events, int most, int timeout_ms) {
    if (kernel == nullptr) return __real_epoll_wait(set, events, most, timeout_ms);
    return report(events, most, std::int64_t(timeout_ms) * 1'000'000);
}
int __wrap_epoll_pwait2(int set, epoll_event* events, int most, const timespec* timeout, const sigset_t* mask) {
    if (kernel == nullptr) return __real_epoll_pwait2(set, events, most, timeout, mask);
    return report(events, most, timeout == nullptr ? -1 : timeout->tv_sec * 1'000'000'000 + timeout->tv_nsec);
}
int __wrap_setsockopt(int fd, int level, int name, const void* value, socklen_t size) {
    if (!is_ours(fd)) return __real_setsockopt(fd, level, name, value, size);
    return level == SOL_SOCKET && name == SO_ZEROCOPY ? fail(ENOPROTOOPT) : 0;
}
int __wrap_getsockopt(int fd, int level, int name, void* value, socklen_t* size) {
    if (!is_ours(fd)) return __real_getsockopt(fd, level, name, value, size);
    int answer = 0;
    if (level == SOL_SOCKET && name == SO_ERROR) {
        Socket& socket = *kernel->find(fd);
        const std::uint8_t decision = kernel->draw();
        if (kernel->over() || decision < 60) answer = socket.connecting ? ECONNREFUSED : decision % 2 == 0 ? ECONNRESET : 0;
        if (kernel->over() && answer == 0) answer = ECONNRESET;
        if (answer == 0) socket.connecting = false;
    } else if (level == SOL_SOCKET && (name == SO_SNDBUF || name == SO_RCVBUF)) {
        answer = 65536;
    }
    std::memcpy(value, &answer, *size < sizeof answer ? *size : sizeof answer);
    return 0;
}
int __wrap_getsockname(int fd, sockaddr* own, socklen_t* size) {
    if (!is_ours(fd)) return __real_getsockname(fd, own, size);
    write_address(own, size);
    return 0;
}
int __wrap_getpeername(int fd, sockaddr* peer, socklen_t* size) {
    if (!is_ours(fd)) return __real_getpeername(fd, peer, size);
    if (!kernel->over() && kernel->draw() == 0xff) return fail(ENOTCONN);
    write_address(peer, size);
    return 0;
}
int __wrap_shutdown(int fd, int how) { return is_ours(fd) ? 0 : __real_shutdown(fd, how); }
int __wrap_close(int fd) {
    if (!is_ours(fd)) return __real_close(fd);
    kernel->close(fd);
    return 0;
}

}  // extern "C"

namespace {

/// Counts its copies, and checks the order of events.
struct Member {
    int* alive;
    bool opened = false, closed = false;
    explicit Member(int& count) : alive(&count) { ++*alive; }
    Member(Member&& other) noexcept : alive(other.alive) { ++*alive; }
    ~Member() {
        if (opened && !closed) __builtin_trap();
        --*alive;
    }
    void open() {
        require(!opened && !closed);
        opened = true;
    }
    void close(Error why) {
        require(!closed && !why.ok());
        closed = true;
    }
};

struct Echo : Member {
    Echo(int& count, std::uint8_t h) : Member(count), how(h) {}
    std::uint8_t how;
    void on_open(Connection& c) {
        open();
        if (how & 4) c.deadline_recv(50_ms);
        if (how & 8) c.deadline_send(50_ms);
    }
    void on_recv(Connection& c) { c.send(c.recv(c.send_room())); }
    void on_writable(Connection& c) { on_recv(c); }
    void on_close(Connection&, Error why) { close(why); }
};

struct Side : Member {
    Side(int& count, ConnectionRef o) : Member(count), other(std::move(o)) {}
    ConnectionRef other;
    void on_open(Connection& c) {
        open();
        on_writable(c);
    }
    void on_recv(Connection& from) {
        if (Connection* to = other.get()) to->send(from.recv(to->send_room()));
    }
    void on_writable(Connection& to) {
        if (Connection* from = other.get()) to.send(from->recv(to.send_room()));
    }
    void on_end(Connection&) {
        if (Connection* to = other.get()) to->shutdown();
    }
    void on_close(Connection&, Error why) {
        close(why);
        if (Connection* to = other.get(); to != nullptr && !(why == Errc::end)) to->close(why);
    }
};

std::int64_t virtual_now() noexcept { return kernel->now_ns; }

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 2) return 0;
    Kernel world{data + 2, size - 2};
    kernel = &world;
    base::set_clock(&virtual_now);
    int alive = 0;
    {
        Loop loop({.mode = Mode::event});
        Result<Listener> echo = Errc::closed, proxy = Errc::closed;
        if (data[0] & 1) echo = listen(loop, "tcp://127.0.0.1:7000", [&](Connection&) { return Echo(alive, data[1]); });
        if (data[0] & 2) {
            proxy = listen(loop, "tcp://127.0.0.1:7000", [&](Connection& peer) -> Result<Side> {
                auto target = connect<Side>(loop, "tcp://127.0.0.1:7001", within(100_ms), std::ref(alive), peer.ref());
                if (!target) return target.error();
                return Side(alive, *target);
            });
        }
        for (int turns = 0; !world.over() && turns < turns_max; ++turns) loop.run_once(10_ms);  // without memory there is no loop, and no end
        int turns = 0;
        while (alive > 0) {  // what the network does now is fail
            require(++turns < turns_max);
            loop.run_once(10_ms);
        }
    }
    require(alive == 0 && world.open == 0);
    base::set_clock(nullptr);
    kernel = nullptr;
    return 0;
}
