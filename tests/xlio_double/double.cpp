// A stand-in for NVIDIA's libxlio, for tests on machines without its card: the Ultra API over kernel sockets, with the semantics that the
// real library has, strict about misuse. README.md lists the rules. It declares the interface by itself, so that a mistake of ours in
// src/transport/xlio/abi.hpp does not cancel out; abi_test.cpp compares the two.

#include <arpa/inet.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <mutex>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "interface.hpp"

extern "C" int xlio_exit();

namespace xlio_double {
namespace {

// -- the process --------------------------------------------------------------------------------------------------

}  // namespace

/// At load time, as the real library reads its environment.
const Knobs knobs = [] {
    Knobs read = Knobs::read();
    if (read.exit_on_load) _exit(255);
    return read;
}();

void misuse(const char* format, ...) {
    if (!knobs.strict) return;
    va_list arguments;
    va_start(arguments, format);
    std::fputs("xlio double: misuse: ", stderr);
    std::vfprintf(stderr, format, arguments);
    std::fputc('\n', stderr);
    va_end(arguments);
    std::abort();
}

void* pool_memory(const init_attr_t* attr, std::size_t bytes) {
    void* memory = attr->memory_alloc != nullptr ? attr->memory_alloc(bytes) : mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? nullptr : memory;
}

namespace {

std::int64_t now_ms() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return std::int64_t(t.tv_sec) * 1000 + t.tv_nsec / 1'000'000;
}

struct Group;

/// Receive buffers lie in the application's memory, their heads beside them.
struct Rx : buf_t {
    std::byte* memory = nullptr;
    Group* group = nullptr;
    bool out = false;
};
constexpr std::size_t rx_bytes = 16u << 10;

struct Process {
    std::mutex mutex;
    bool initialised = false;
    bool failed = false;
    std::vector<Rx> rx;
    std::vector<Rx*> free_rx;
    std::vector<pd_t> pds;
    std::unordered_map<std::uint32_t, mr_t*> regions;
    std::uint32_t next_key = 0x1000;
    unsigned next_pd = 0;
    std::atomic<std::uint64_t> sends{0};

    Rx* take(Group& group) {
        const std::lock_guard lock(mutex);
        if (free_rx.empty()) return nullptr;
        Rx* one = free_rx.back();
        free_rx.pop_back();
        one->group = &group;
        one->out = true;
        one->userdata = 0xdddddddddddddddd;
        return one;
    }
    void give(Rx* one) {
        std::memset(one->memory, 0xdd, rx_bytes);  // who still reads it notices
        const std::lock_guard lock(mutex);
        one->out = false;
        free_rx.push_back(one);
    }
    bool covers(std::uint32_t key, const pd_t* pd, const void* data, std::size_t bytes) {
        const std::lock_guard lock(mutex);
        const auto found = regions.find(key);
        if (found == regions.end() || found->second->pd != pd) return false;
        const auto* base = static_cast<const std::byte*>(found->second->addr);
        const auto* at = static_cast<const std::byte*>(data);
        return at >= base && at + bytes <= base + found->second->length;
    }
};
Process& process() {
    static Process* const one = new Process;
    return *one;
}

/// A send that the stack has: where its bytes are, and when it is through.
struct Send {
    std::vector<iovec> pieces;
    std::string copy;  // inline
    std::size_t bytes = 0, written = 0;
    std::uint64_t ends_at = 0;  // in the stream, 1-based count of bytes
    std::uintptr_t op = 0;
    std::uint64_t sum = 0;
};

/// Which threads live: a group is its thread's until that one has ended. A group may go on another then, as any program may have it.
class Threads {
public:
    static unsigned current() {
        static thread_local const Mark mark;
        return mark.number;
    }
    static bool is_alive(unsigned number) {
        const std::lock_guard lock(all().mutex);
        return all().numbers.count(number) != 0;
    }

private:
    struct All {
        std::mutex mutex;
        unsigned last = 0;
        std::unordered_set<unsigned> numbers;
    };
    static All& all() {
        static All* const one = new All;
        return *one;
    }
    struct Mark {
        unsigned number;
        Mark() {
            const std::lock_guard lock(all().mutex);
            number = ++all().last;
            all().numbers.insert(number);
        }
        ~Mark() {
            const std::lock_guard lock(all().mutex);
            all().numbers.erase(number);
        }
    };
};

std::uint64_t checksum(const std::vector<iovec>& pieces) {
    std::uint64_t sum = 1469598103934665603u;
    for (const iovec& piece : pieces) {
        const auto* at = static_cast<const unsigned char*>(piece.iov_base);
        for (std::size_t i = 0; i<piece.iov_len; i += piece.iov_len> 4096 ? 61 : 1) sum = (sum ^ at[i]) * 1099511628211u;
    }
    return sum;
}

struct Sock {
    int fd = -1;
    Group* group = nullptr;
    std::uintptr_t userdata = 0;
    int domain = AF_INET;
    pd_t* pd = nullptr;
    bool listening = false, connecting = false, established = false, readable = false;
    bool closed_told = false, eof = false, errored = false, failed_connect = false;
    bool destroyed = false, hard = false, shut = false, over = false, detached = false;
    int error = 0;
    unsigned late = 0;
    std::int64_t give_up_ms = 0;
    std::deque<Send> queue;    // not wholly written
    std::deque<Send> unacked;  // written, waiting for the peer
    std::uint64_t queued_bytes = 0, stream_bytes = 0, written_bytes = 0;
    std::uint64_t flushed_bytes = 0;  // of the stream: what a flush, or a flag of a send, has let go
};

struct Group {
    group_attr_t attr{};
    int epoll = -1;
    std::unordered_set<Sock*> socks;
    std::vector<Sock*> ending;  // destroyed by the application
    std::unordered_set<Sock*> sending;
    std::atomic<unsigned> owner{0};  ///< a number of Threads, 0: nobody's yet
    bool polling = false;
    bool in_callback = false;
    std::uint64_t rx_out = 0;
    std::uint64_t random = 1;
    std::vector<Sock*> starved;

    std::uint64_t draw() {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        return random;
    }
};

void check_thread(Group& group, const char* call) {
    const unsigned owner = group.owner.load();
    if (owner != 0 && owner != Threads::current() && Threads::is_alive(owner)) misuse("%s on a thread that does not poll the group", call);
}
void check_outside(Group& group, const char* call) {
    check_thread(group, call);
    if (group.in_callback) misuse("%s inside a callback", call);
}

template <class Call>
void upcall(Group& group, Call call) {
    const bool before = std::exchange(group.in_callback, true);
    call();
    group.in_callback = before;
}
void tell(Sock& s, int event, int value = 0) {
    upcall(*s.group, [&] { s.group->attr.event(reinterpret_cast<std::uintptr_t>(&s), s.userdata, event, value); });
}

std::unordered_set<Sock*>& alive() {
    static auto* const all = new std::unordered_set<Sock*>;
    return *all;
}
std::mutex& alive_mutex() {
    static auto* const mutex = new std::mutex;
    return *mutex;
}

Sock& sock_of(std::uintptr_t handle, const char* call) {
    auto* s = reinterpret_cast<Sock*>(handle);
    {
        const std::lock_guard lock(alive_mutex());
        if (alive().count(s) == 0) {
            std::fprintf(stderr, "xlio double: misuse: %s on a socket that is gone\n", call);
            std::abort();
        }
    }
    if (s->destroyed) misuse("%s on a destroyed socket", call);
    return *s;
}

int fail(int os) {
    errno = os;
    return -1;
}

bool is_nowhere(const sockaddr* name) {
    char text[INET6_ADDRSTRLEN] = "";
    if (name->sa_family == AF_INET) inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(name)->sin_addr, text, sizeof text);
    else if (name->sa_family == AF_INET6) inet_ntop(AF_INET6, &reinterpret_cast<const sockaddr_in6*>(name)->sin6_addr, text, sizeof text);
    return !knobs.nowhere.empty() && knobs.nowhere == text;
}

void watch(Sock& s, std::uint32_t events, int how) {
    epoll_event event{};
    event.events = events;
    event.data.ptr = &s;
    epoll_ctl(s.group->epoll, how, s.fd, &event);
}

Sock* make_sock(Group& group, int fd, int domain, std::uintptr_t userdata) {
    auto* s = new Sock;
    s->fd = fd;
    s->group = &group;
    s->domain = domain;
    s->userdata = userdata;
    {
        const std::lock_guard lock(alive_mutex());
        alive().insert(s);
    }
    group.socks.insert(s);
    Process& p = process();
    const std::lock_guard lock(p.mutex);
    s->pd = &p.pds[p.next_pd++ % p.pds.size()];
    return s;
}

// -- init and groups ------------------------------------------------------------------------------------------------

int init_ex(const init_attr_t* attr) {
    Process& p = process();
    const std::lock_guard lock(p.mutex);
    if (p.initialised && knobs.violate == "init_again") return 0;
    if (p.initialised || p.failed) return attr->memory_alloc != nullptr ? fail(EEXIST) : 0;  // also after a failure: false success
    if (knobs.no_device || knobs.false_start) {
        p.failed = true;
        return knobs.false_start ? 0 : fail(ENODEV);
    }
    const std::size_t bytes = std::size_t(knobs.pool) * rx_bytes;
    void* const memory = pool_memory(attr, bytes);
    if (memory == nullptr) return fail(ENOMEM);
    p.rx.resize(knobs.pool);
    for (std::size_t i = 0; i < p.rx.size(); ++i) {
        p.rx[i].memory = static_cast<std::byte*>(memory) + i * rx_bytes;
        p.free_rx.push_back(&p.rx[p.rx.size() - 1 - i]);
    }
    p.pds.resize(std::max(knobs.pds, 1u));
    for (unsigned i = 0; i < p.pds.size(); ++i) p.pds[i].handle = i;
    p.initialised = true;
    if (attr->memory_cb != nullptr) attr->memory_cb(memory, bytes, 0);
    return 0;
}

int group_create(const group_attr_t* attr, std::uintptr_t* out) {
    if (attr == nullptr || attr->event == nullptr || out == nullptr) return fail(EINVAL);
    auto* group = new Group;
    group->attr = *attr;
    group->random = knobs.seed * 0x9e3779b97f4a7c15u | 1;
    group->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (group->epoll < 0) {
        delete group;
        return -1;
    }
    *out = reinterpret_cast<std::uintptr_t>(group);
    return 0;
}

void free_sock(Sock* s) {
    if (s->fd >= 0) ::close(s->fd);
    s->group->socks.erase(s);
    s->group->sending.erase(s);
    std::erase(s->group->starved, s);
    {
        const std::lock_guard lock(alive_mutex());
        alive().erase(s);
    }
    delete s;
}

int group_destroy(std::uintptr_t handle) {
    auto& group = *reinterpret_cast<Group*>(handle);
    group.owner = Threads::current();
    if (group.in_callback || group.polling) misuse("group_destroy inside a poll");
    if (group.rx_out > 0) misuse("group_destroy while %llu receive buffers are out", static_cast<unsigned long long>(group.rx_out));
    while (!group.socks.empty()) {
        Sock* s = *group.socks.begin();
        const linger now{1, 0};
        setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
        if (!s->destroyed) tell(*s, TERMINATED);
        free_sock(s);
    }
    ::close(group.epoll);
    delete &group;
    return 0;
}

void take_acks(Sock& s);

// -- receiving --------------------------------------------------------------------------------------------------------

void break_off(Sock& s, int error) {
    if (s.errored) return;
    s.errored = true;
    s.error = error;
    if (!s.destroyed) tell(s, ERROR, error);
}

void hear_end(Sock& s) {
    if (std::exchange(s.closed_told, true) || s.destroyed) return;
    tell(s, CLOSED);
}

/// False: nothing more now.
bool receive_one(Sock& s) {
    Group& group = *s.group;
    Rx* rx = process().take(group);
    if (rx == nullptr) return false;  // packets drop; the peer sends them again
    std::size_t at = 0, most = rx_bytes;
    if (knobs.split) {
        at = group.draw() % 64;
        most = 1 + group.draw() % (group.draw() % 4 == 0 ? 16 : rx_bytes - 64);
    }
    const ssize_t n = recv(s.fd, rx->memory + at, most, MSG_DONTWAIT);
    const int error = errno;
    if (n <= 0) {
        process().give(rx);
        if (n == 0) {
            s.eof = true;
            hear_end(s);
        } else if (error != EAGAIN && error != EINTR) {
            break_off(s, error == EPIPE ? ECONNRESET : error);
        }
        return false;
    }
    if (s.destroyed) {  // nobody's any more
        process().give(rx);
        return true;
    }
    const int yes = 1;
    setsockopt(s.fd, IPPROTO_TCP, TCP_QUICKACK, &yes, sizeof yes);
    take_acks(s);  // a segment's acknowledgement comes before its bytes
    ++group.rx_out;
    upcall(group, [&] { group.attr.rx(reinterpret_cast<std::uintptr_t>(&s), s.userdata, rx->memory + at, std::size_t(n), rx); });
    return true;
}

void receive(Sock& s, std::uint32_t events) {
    if (knobs.closed_first && (events & EPOLLRDHUP) != 0) {
        hear_end(s);
        while (!s.errored && !s.eof && receive_one(s)) {}
        return;
    }
    for (unsigned i = 0; i < 16 && !s.errored && !s.eof && receive_one(s); ++i) {}
}

void group_buf_free(std::uintptr_t handle, buf_t* buf) {
    auto& group = *reinterpret_cast<Group*>(handle);
    auto* rx = static_cast<Rx*>(buf);
    if (!rx->out) misuse("a receive buffer is given back twice");
    if (rx->group != &group) misuse("a receive buffer is given to another group");
    check_thread(group, "buf_free");
    --group.rx_out;
    process().give(rx);
}
void sock_buf_free(std::uintptr_t handle, buf_t* buf) { group_buf_free(reinterpret_cast<std::uintptr_t>(sock_of(handle, "socket_buf_free").group), buf); }

// -- sending ----------------------------------------------------------------------------------------------------------

void write_out(Sock& s) {
    while (!s.queue.empty() && s.queue.front().ends_at <= s.flushed_bytes && !s.errored) {
        iovec some[64];
        int count = 0;
        for (const Send& send : s.queue) {
            if (send.ends_at > s.flushed_bytes) break;
            std::size_t skip = &send == &s.queue.front() ? send.written : 0;
            for (const iovec& piece : send.pieces) {
                if (skip >= piece.iov_len) {
                    skip -= piece.iov_len;
                    continue;
                }
                if (count < 64) some[count++] = {static_cast<char*>(piece.iov_base) + skip, piece.iov_len - skip};
                skip = 0;
            }
            if (count == 64) break;
        }
        msghdr message{};
        message.msg_iov = some;
        message.msg_iovlen = std::size_t(count);
        const ssize_t n = sendmsg(s.fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0) {
            if (errno == EAGAIN) return;
            return break_off(s, errno == EPIPE ? ECONNRESET : errno);
        }
        s.written_bytes += std::uint64_t(n);
        for (std::size_t left = std::size_t(n); left > 0;) {
            Send& first = s.queue.front();
            const std::size_t part = std::min(left, first.bytes - first.written);
            first.written += part;
            left -= part;
            if (first.written < first.bytes) continue;
            s.unacked.push_back(std::move(first));
            s.queue.pop_front();
        }
    }
}

void tell_completion(Sock& s, std::uintptr_t op) {
    upcall(*s.group, [&] { s.group->attr.comp(reinterpret_cast<std::uintptr_t>(&s), s.userdata, op); });
}
void complete(Sock& s, Send& send, bool check) {
    s.queued_bytes -= send.bytes;
    if (send.op == 0) return;
    if (knobs.violate == "twice") tell_completion(s, send.op);
    if (check && send.copy.empty() && checksum(send.pieces) != send.sum) misuse("a buffer was changed before its completion");
    tell_completion(s, send.op);
}

/// What the peer's stack has acknowledged is complete.
void take_acks(Sock& s) {
    int waiting = 0;
    if (s.unacked.empty() || ioctl(s.fd, SIOCOUTQ, &waiting) != 0) return;
    const std::uint64_t acked = s.written_bytes - std::min<std::uint64_t>(s.written_bytes, std::uint64_t(std::max(waiting, 0)));
    while (!s.unacked.empty() && s.unacked.front().ends_at <= acked) {
        Send done = std::move(s.unacked.front());
        s.unacked.pop_front();
        complete(s, done, true);
    }
}
/// In the end every send completes, whatever became of it.
void complete_all(Sock& s) {
    for (auto* queue : {&s.unacked, &s.queue}) {
        while (!queue->empty()) {
            Send done = std::move(queue->front());
            queue->pop_front();
            complete(s, done, true);
        }
    }
}

void flush(Sock& s) {
    s.flushed_bytes = s.stream_bytes;
    write_out(s);
    if (knobs.comp_inside) take_acks(s);
}

int may_send(Sock& s) {
    if (s.errored) return fail(s.error);
    if (s.failed_connect || s.shut) return fail(EPIPE);
    if (!s.established) return fail(s.connecting ? EAGAIN : ENOTCONN);
    if (knobs.enomem != 0 && ++process().sends % knobs.enomem == 0) return fail(ENOMEM);
    return 0;
}

int sock_sendv(std::uintptr_t handle, const iovec* pieces, unsigned count, const send_attr_t* attr) {
    Sock& s = sock_of(handle, "send");
    check_thread(*s.group, "send");
    std::size_t bytes = 0;
    for (unsigned i = 0; i < count; ++i) bytes += pieces[i].iov_len;
    const bool is_inline = (attr->flags & SEND_INLINE) != 0;
    if (is_inline && count > 1) misuse("an inline send with several vectors is not atomic");
    if (knobs.comp_inside) take_acks(s);
    if (may_send(s) != 0) return -1;
    if (s.queued_bytes + bytes > knobs.tx_bytes) return fail(ENOMEM);
    if (bytes == 0) return 0;  // and no completion
    Send send;
    if (is_inline) {
        for (unsigned i = 0; i < count; ++i) send.copy.append(static_cast<const char*>(pieces[i].iov_base), pieces[i].iov_len);
        if (knobs.violate == "inline_completes") send.op = attr->userdata_op;
    } else {
        for (unsigned i = 0; i < count; ++i) {
            if (!process().covers(attr->mkey, s.pd, pieces[i].iov_base, pieces[i].iov_len)) misuse("a send with a key that does not cover its memory");
            send.pieces.push_back(pieces[i]);
        }
        send.op = attr->userdata_op;
        send.sum = send.op != 0 ? checksum(send.pieces) : 0;
    }
    send.bytes = bytes;
    s.stream_bytes += bytes;
    send.ends_at = s.stream_bytes;
    s.queued_bytes += bytes;
    s.queue.push_back(std::move(send));
    if (is_inline) {
        Send& kept = s.queue.back();
        kept.pieces.push_back({kept.copy.data(), kept.copy.size()});
    }
    s.group->sending.insert(&s);
    if ((attr->flags & SEND_FLUSH) != 0) flush(s);
    return 0;
}
int sock_send(std::uintptr_t handle, const void* data, std::size_t bytes, const send_attr_t* attr) {
    const iovec one{const_cast<void*>(data), bytes};
    return sock_sendv(handle, &one, 1, attr);
}
void sock_flush(std::uintptr_t handle) {
    Sock& s = sock_of(handle, "flush");
    check_thread(*s.group, "flush");
    if (s.established && !s.errored) flush(s);
}
void group_flush(std::uintptr_t handle) {
    auto& group = *reinterpret_cast<Group*>(handle);
    check_thread(group, "group_flush");
    const std::vector<Sock*> sending(group.sending.begin(), group.sending.end());  // completions may bring further sends
    for (Sock* s : sending)
        if (s->established && !s->errored && !s->destroyed) flush(*s);
}

// -- sockets ----------------------------------------------------------------------------------------------------------

int sock_create(const socket_attr_t* attr, std::uintptr_t* out) {
    Process& p = process();
    if (p.failed && !p.initialised) raise(SIGFPE);  // as the real one, which divides by what it never read
    if (attr == nullptr || out == nullptr || attr->group == 0 || (attr->domain != AF_INET && attr->domain != AF_INET6)) return fail(EINVAL);
    auto& group = *reinterpret_cast<Group*>(attr->group);
    check_outside(group, "socket_create");
    const int fd = ::socket(attr->domain, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    *out = reinterpret_cast<std::uintptr_t>(make_sock(group, fd, attr->domain, attr->userdata));
    return 0;
}
int sock_destroy(std::uintptr_t handle) {
    Sock& s = sock_of(handle, "socket_destroy");
    check_outside(*s.group, "socket_destroy");
    s.destroyed = true;
    s.late = knobs.late;
    s.give_up_ms = now_ms() + std::int64_t(knobs.fin_wait_ms);
    s.group->ending.push_back(&s);
    return 0;
}
int sock_update(std::uintptr_t handle, unsigned, std::uintptr_t userdata) {
    sock_of(handle, "socket_update").userdata = userdata;
    return 0;
}
int sock_setsockopt(std::uintptr_t handle, int level, int name, const void* value, socklen_t size) {
    Sock& s = sock_of(handle, "setsockopt");
    check_thread(*s.group, "setsockopt");
    if (level == SOL_SOCKET && name == SO_LINGER && size == sizeof(linger)) {
        const auto* how = static_cast<const linger*>(value);
        s.hard = how->l_onoff != 0 && how->l_linger == 0;
    }
    return ::setsockopt(s.fd, level, name, value, size);
}
int sock_getsockname(std::uintptr_t handle, sockaddr* name, socklen_t* size) { return ::getsockname(sock_of(handle, "getsockname").fd, name, size); }
int sock_getpeername(std::uintptr_t handle, sockaddr* name, socklen_t* size) { return ::getpeername(sock_of(handle, "getpeername").fd, name, size); }

int sock_bind(std::uintptr_t handle, const sockaddr* name, socklen_t size) {
    Sock& s = sock_of(handle, "bind");
    check_outside(*s.group, "bind");
    if (is_nowhere(name)) return fail(ENODEV);
    int reuse = 0;
    socklen_t length = sizeof reuse;
    syscall(SYS_getsockopt, s.fd, SOL_SOCKET, SO_REUSEADDR, &reuse, &length);
    // The card's listeners and the kernel's do not see each other, nor do those of several groups with SO_REUSEADDR. Kernel sockets need this.
    if (reuse != 0) setsockopt(s.fd, SOL_SOCKET, SO_REUSEPORT, &reuse, sizeof reuse);
    return ::bind(s.fd, name, size);
}
int sock_connect(std::uintptr_t handle, const sockaddr* to, socklen_t size) {
    Sock& s = sock_of(handle, "connect");
    check_outside(*s.group, "connect");
    if (s.established) return fail(EISCONN);
    if (s.connecting) return fail(EALREADY);
    if (s.failed_connect) return fail(ECONNABORTED);
    if (is_nowhere(to)) return fail(ENODEV);
    if (::connect(s.fd, to, size) != 0 && errno != EINPROGRESS) {
        // The stack would find this out from the network.
        s.error = errno;
        if (s.error != ECONNREFUSED && s.error != ETIMEDOUT) return fail(s.error);
    }
    s.connecting = true;
    watch(s, EPOLLOUT | EPOLLIN | EPOLLRDHUP, EPOLL_CTL_ADD);
    return 0;
}
int sock_listen(std::uintptr_t handle) {
    Sock& s = sock_of(handle, "listen");
    check_outside(*s.group, "listen");
    if (s.group->attr.accept == nullptr) return fail(ENOTCONN);
    if (knobs.refuse_listen != 0) return fail(knobs.refuse_listen);
    if (::listen(s.fd, 4096) != 0) return -1;
    s.listening = true;
    watch(s, EPOLLIN, EPOLL_CTL_ADD);
    return 0;
}
pd_t* sock_get_pd(std::uintptr_t handle) {
    Sock& s = sock_of(handle, "get_pd");
    if (knobs.violate == "crash" && s.established) raise(SIGFPE);
    return s.established || s.connecting || knobs.violate == "early_domain" ? s.pd : nullptr;
}
int sock_detach(std::uintptr_t handle) {
    Sock& s = sock_of(handle, "detach");
    check_outside(*s.group, "detach");
    if (s.listening) return fail(ENOTSUP);
    if (!s.established || std::exchange(s.detached, true)) return fail(EINVAL);
    epoll_ctl(s.group->epoll, EPOLL_CTL_DEL, s.fd, nullptr);
    s.group->socks.erase(&s);
    s.group->sending.erase(&s);
    for (auto* queue : {&s.unacked, &s.queue})
        for (Send& send : *queue) send.op = 0;  // lost
    return 0;
}
int sock_attach(std::uintptr_t handle, std::uintptr_t group_handle) {
    Sock& s = sock_of(handle, "attach");
    auto& group = *reinterpret_cast<Group*>(group_handle);
    check_outside(group, "attach");
    if (!std::exchange(s.detached, false)) return fail(EINVAL);
    s.group = &group;
    group.socks.insert(&s);
    watch(s, EPOLLIN | EPOLLRDHUP, EPOLL_CTL_ADD);
    if (!s.queue.empty() || !s.unacked.empty()) group.sending.insert(&s);
    return 0;
}

// -- polling ----------------------------------------------------------------------------------------------------------

void accept_peers(Sock& parent) {
    Group& group = *parent.group;
    for (unsigned i = 0; i < 64 && !parent.destroyed; ++i) {
        const int fd = ::accept4(parent.fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) return;
        Sock* made = make_sock(group, fd, parent.domain, 0);
        made->established = true;
        watch(*made, EPOLLIN | EPOLLRDHUP, EPOLL_CTL_ADD);
        if (knobs.error_early) break_off(*made, ECONNRESET);
        upcall(group, [&] { group.attr.accept(reinterpret_cast<std::uintptr_t>(made), reinterpret_cast<std::uintptr_t>(&parent), parent.userdata); });
    }
}

void finish_connect(Sock& s) {
    int error = 0;
    socklen_t size = sizeof error;
    syscall(SYS_getsockopt, s.fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error == 0) error = std::exchange(s.error, 0);
    s.connecting = false;
    if (error != 0) {
        s.failed_connect = true;
        epoll_ctl(s.group->epoll, EPOLL_CTL_DEL, s.fd, nullptr);
        return break_off(s, error);
    }
    s.established = true;
    watch(s, EPOLLIN | EPOLLRDHUP, EPOLL_CTL_MOD);
    if (!s.destroyed) tell(s, ESTABLISHED);
}

/// True: the stack has let go of the socket.
bool end(Sock& s) {
    if (!s.established || s.hard || s.errored || s.listening || now_ms() >= s.give_up_ms) return true;
    s.flushed_bytes = s.stream_bytes;
    write_out(s);
    if (s.queue.empty() && !std::exchange(s.shut, true)) ::shutdown(s.fd, SHUT_WR);
    for (unsigned i = 0; i < 16 && !s.eof && !s.errored && receive_one(s); ++i) {}
    take_acks(s);
    return s.errored || (s.shut && s.eof && s.unacked.empty());
}

void end_sockets(Group& group) {
    std::vector<Sock*> now = std::move(group.ending);
    group.ending.clear();
    for (Sock* s : now) {
        if (!s->over && !end(*s)) {
            group.ending.push_back(s);
            continue;
        }
        if (!std::exchange(s->over, true) && s->fd >= 0) {
            if (s->hard) {
                const linger reset{1, 0};
                setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
            }
            ::close(std::exchange(s->fd, -1));
            complete_all(*s);
        }
        if (s->late > 0) {
            --s->late;
            group.ending.push_back(s);
            continue;
        }
        tell(*s, TERMINATED);
        free_sock(s);
    }
}

void group_poll(std::uintptr_t handle) {
    auto& group = *reinterpret_cast<Group*>(handle);
    if (std::exchange(group.polling, true)) misuse("group_poll inside group_poll, or on two threads");
    group.owner = Threads::current();
    std::vector<Sock*> sending(group.sending.begin(), group.sending.end());
    for (Sock* s : sending) {
        if (s->destroyed) continue;
        write_out(*s);
        take_acks(*s);
        if (s->queue.empty() && s->unacked.empty()) group.sending.erase(s);
    }
    epoll_event events[256];
    const int count = epoll_wait(group.epoll, events, 256, 0);
    for (int i = 0; i < count; ++i) {
        auto& s = *static_cast<Sock*>(events[i].data.ptr);
        if (s.destroyed) continue;  // its end looks itself
        if (s.listening) {
            accept_peers(s);
            continue;
        }
        if (s.connecting) finish_connect(s);
        if (s.established && !s.errored && !s.eof) receive(s, events[i].events);
        if (s.established && (events[i].events & (EPOLLERR | EPOLLHUP)) != 0 && !s.errored) {
            int error = 0;
            socklen_t size = sizeof error;
            syscall(SYS_getsockopt, s.fd, SOL_SOCKET, SO_ERROR, &error, &size);
            if (error != 0) break_off(s, error == EPIPE ? ECONNRESET : error);
        }
        // An end, or an error, stays readable: nobody asks the kernel again.
        if (s.eof || s.errored) watch(s, s.errored ? 0u : std::uint32_t(EPOLLERR), EPOLL_CTL_MOD);
        if (s.errored) epoll_ctl(group.epoll, EPOLL_CTL_DEL, s.fd, nullptr);
    }
    end_sockets(group);
    group.polling = false;
}

// -- the tables -------------------------------------------------------------------------------------------------------

#ifndef XLIO_DOUBLE_LINKED
int no_rule(const char*, int, const char*) { return 0; }

struct Table {
    std::uint64_t magic;
    std::uint64_t cap_mask;
    void* slots[40];
};
#endif

}  // namespace

void fill_slots(void** slots) {
    void* ultra[ultra_slots] = {
        reinterpret_cast<void*>(&init_ex),          reinterpret_cast<void*>(&xlio_exit),        reinterpret_cast<void*>(&group_create),
        reinterpret_cast<void*>(&group_destroy),    reinterpret_cast<void*>(&group_poll),       reinterpret_cast<void*>(&sock_create),
        reinterpret_cast<void*>(&sock_destroy),     reinterpret_cast<void*>(&sock_update),      reinterpret_cast<void*>(&sock_setsockopt),
        reinterpret_cast<void*>(&sock_getsockname), reinterpret_cast<void*>(&sock_getpeername), reinterpret_cast<void*>(&sock_bind),
        reinterpret_cast<void*>(&sock_connect),     reinterpret_cast<void*>(&sock_listen),      reinterpret_cast<void*>(&sock_get_pd),
        reinterpret_cast<void*>(&sock_detach),      reinterpret_cast<void*>(&sock_attach),      reinterpret_cast<void*>(&sock_send),
        reinterpret_cast<void*>(&sock_sendv),       reinterpret_cast<void*>(&group_flush),      reinterpret_cast<void*>(&sock_flush),
        reinterpret_cast<void*>(&sock_buf_free),    reinterpret_cast<void*>(&group_buf_free),
    };
    if (knobs.memory) fill_memory_slots(ultra, reinterpret_cast<void*>(&xlio_exit));
    std::memcpy(slots, ultra, sizeof ultra);
}

}  // namespace xlio_double

using namespace xlio_double;

// Not hidden: what the real library exports of these names.
extern "C" {

[[gnu::visibility("default")]] int xlio_exit() {
    Process& p = process();
    const std::lock_guard lock(p.mutex);
    p.initialised = false;
    return 0;
}

[[gnu::visibility("default")]] mr_t* ibv_reg_mr(pd_t* pd, void* at, std::size_t bytes, int) {
    if (knobs.refuse_mr) {
        errno = ENOMEM;
        return nullptr;
    }
    Process& p = process();
    const std::lock_guard lock(p.mutex);
    auto* mr = new mr_t{nullptr, pd, at, bytes, 0, p.next_key, p.next_key};
    p.regions[p.next_key++] = mr;
    return mr;
}

[[gnu::visibility("default")]] int ibv_dereg_mr(mr_t* mr) {
    Process& p = process();
    const std::lock_guard lock(p.mutex);
    if (p.regions.erase(mr->lkey) == 0) misuse("ibv_dereg_mr of a region that is gone");
    delete mr;
    return 0;
}

#ifndef XLIO_DOUBLE_LINKED
[[gnu::visibility("default")]] int getsockopt(int fd, int level, int name, void* value, socklen_t* size) noexcept {
    if (fd != -2 || level != SOL_SOCKET || name != 2800) return int(syscall(SYS_getsockopt, fd, level, name, value, size));
    static Table table;
    const bool a = knobs.layout == "A" || knobs.layout == "crossed";
    table.magic = knobs.layout == "garbage" ? 0x6f6e6f6e6f6e6f6e : 0x4f494c584144564e;
    table.cap_mask = knobs.layout == "old" ? 0x3fff : a ? 0x2819 : 0x2818;
    const std::size_t first = knobs.layout == "old" ? 13 : knobs.layout == "A" ? 4 : 3;  // "crossed": A's mask over B's slots
    for (void*& slot : table.slots) slot = reinterpret_cast<void*>(&no_rule);
    fill_slots(&table.slots[first]);
    if (*size < sizeof(void*)) return fail(EINVAL);
    void* const at = &table;
    std::memcpy(value, &at, sizeof at);
    return 0;
}
#endif
}
