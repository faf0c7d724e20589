#include "rules.hpp"

#include <arpa/inet.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>

#include "field.hpp"

namespace probe {
namespace {

[[gnu::format(printf, 2, 3)]] Answer answer(Verdict verdict, const char* format, ...) {
    Answer made{verdict, ""};
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(made.seen, sizeof made.seen, format, arguments);
    va_end(arguments);
    return made;
}
Verdict same_if(bool yes) { return yes ? Verdict::same : Verdict::differs; }
const char* errno_name(int os) { return os == 0 ? "0" : strerrorname_np(os) != nullptr ? strerrorname_np(os) : "?"; }
const Answer no_link = {Verdict::unseen, "there is no connection to the echo server"};

/// Ends a socket and waits for the stack to say so.
bool end_socket(Field& f, abi::Group group, abi::Socket socket) {
    f.calls.socket_destroy(socket);
    return f.poll_until(
        group, [&] { return f.has_event(socket, abi::terminated); }, 5000);
}

int send_inline(Field& f, abi::Socket socket, std::string_view text, std::uintptr_t operation = 0) {
    const abi::SendAttr attr{abi::send_inline | abi::send_flush, 0, operation};
    return f.calls.socket_send(socket, text.data(), text.size(), &attr) == 0 ? 0 : errno;
}

/// Memory that the link's device may read.
class Registered {
public:
    Registered(Field& f, abi::Socket socket) : f_(f), mr_(f.calls.reg_mr(f.calls.socket_get_pd(socket), memory_, sizeof memory_, abi::access_local_write)) {}
    ~Registered() {
        if (mr_ != nullptr) f_.calls.dereg_mr(mr_);
    }
    Registered(const Registered&) = delete;
    Registered& operator=(const Registered&) = delete;
    bool good() const { return mr_ != nullptr; }
    int send(abi::Socket socket, std::size_t bytes, std::uintptr_t operation) {
        const abi::SendAttr attr{abi::send_flush, mr_->lkey, operation};
        return f_.calls.socket_send(socket, memory_, bytes, &attr) == 0 ? 0 : errno;
    }

private:
    Field& f_;
    alignas(64) char memory_[8192] = "by reference";
    abi::MemoryRegion* mr_;
};

// -- before there is a connection

Answer ask_block(Field& f) {
    const bool all = f.block.asked == 1 && (f.registered.base == nullptr || f.registered.base == f.block.base);
    return answer(same_if(all), "asked %u times, %zu MiB; %s", f.block.asked, f.block.bytes >> 20,
                  f.registered.base == f.block.base ? "that block was registered" : "another was registered");
}

Answer ask_second_init(Field& f) {
    const abi::InitAttr attr = evpl::transport::xlio::init_attributes(nullptr);
    const int os = f.calls.init(&attr) == 0 ? 0 : errno;
    return answer(same_if(os == EEXIST), "%s", errno_name(os));
}

Answer ask_group_without_events(Field& f) {
    const abi::GroupAttr attr{};
    abi::Group made = 0;
    const int os = f.calls.group_create(&attr, &made) == 0 ? 0 : errno;
    return answer(same_if(os == EINVAL), "%s", errno_name(os));
}

Answer ask_listen_without_accept(Field& f) {
    const abi::Group group = f.make_group(false);
    const abi::Socket socket = group != 0 ? f.make_socket(group, 7) : 0;
    if (socket == 0) return answer(Verdict::unseen, "no second group or socket: %s", errno_name(errno));
    const int os = f.calls.socket_listen(socket) == 0 ? 0 : errno;
    const bool ended = end_socket(f, group, socket);
    if (ended) f.calls.group_destroy(group);
    return answer(same_if(os == ENOTCONN), "%s", errno_name(os));
}

Answer ask_nowhere(Field& f) {
    sockaddr_in loopback = f.peer;
    loopback.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1);
    const abi::Socket socket = f.make_socket(f.group, f.next_userdata++);
    if (socket == 0) return answer(Verdict::unseen, "no socket: %s", errno_name(errno));
    const int os = f.connect(socket, loopback);
    end_socket(f, f.group, socket);
    return answer(same_if(os == ENODEV), "%s", errno_name(os));
}

Answer ask_refused(Field& f) {
    sockaddr_in closed_port = f.peer;
    closed_port.sin_port = htons(1);
    const abi::Socket socket = f.make_socket(f.group, f.next_userdata++);
    if (socket == 0 || f.connect(socket, closed_port) != 0) return answer(Verdict::unseen, "connect: %s", errno_name(errno));
    if (!f.poll_until(f.group, [&] { return f.has_event(socket, abi::error); }))
        return end_socket(f, f.group, socket), answer(Verdict::unseen, "nobody refused");
    const int os = f.find_event(socket, abi::error)->error;
    const int again = f.connect(socket, closed_port);
    const bool early = f.has_event(socket, abi::terminated);
    end_socket(f, f.group, socket);
    return answer(same_if(os == ECONNREFUSED && again == ECONNABORTED && !early), "ERROR with %s, then connect: %s%s", errno_name(os), errno_name(again),
                  early ? ", terminated before destroy" : "");
}

// -- connecting

Answer ask_connect(Field& f) {
    const abi::Socket socket = f.make_socket(f.group, f.next_userdata++);
    if (socket == 0) return answer(Verdict::unseen, "no socket: %s", errno_name(errno));
    const bool early_pd = f.calls.socket_get_pd(socket) != nullptr;
    const int os = f.connect(socket, f.peer);
    if (os != 0) return answer(Verdict::differs, "connect: %s", errno_name(os));
    const bool early = f.has_event(socket, abi::established);
    const int sent = send_inline(f, socket, "x");
    const int again = f.connect(socket, f.peer);
    f.poll_until(f.group, [&] { return f.has_event(socket, abi::established) || f.has_event(socket, abi::error); });
    if (!f.has_event(socket, abi::established)) return answer(Verdict::unseen, "the echo server did not answer");
    f.link = socket;
    const int third = f.connect(socket, f.peer);
    const bool pd = f.calls.socket_get_pd(socket) != nullptr;
    const bool good = !early_pd && !early && sent == EAGAIN && again == EALREADY && third == EISCONN && pd;
    return answer(same_if(good), "send %s, connect %s then %s, domain before: %s, after: %s", errno_name(sent), errno_name(again), errno_name(third),
                  early_pd ? "yes" : "no", pd ? "yes" : "no");
}

// -- data

Answer ask_receive(Field& f) {
    if (f.link == 0) return no_link;
    f.hold_next = true;
    const std::string text = "What goes out comes back.";
    if (const int os = send_inline(f, f.link, text); os != 0) return answer(Verdict::differs, "send: %s", errno_name(os));
    if (!f.poll_until(f.group, [&] { return f.bytes_of(f.link).size() >= text.size(); })) return answer(Verdict::unseen, "nothing came back: no echo server?");
    const bool good = f.bytes_of(f.link) == text;
    return answer(same_if(good && !f.outside_block), "%s, %s the block", good ? "the same bytes" : "other bytes", f.outside_block ? "outside of" : "in");
}

Answer ask_completions(Field& f) {
    if (f.link == 0) return no_link;
    Registered memory(f, f.link);
    if (!memory.good()) return answer(Verdict::unseen, "no memory can be registered: %s", errno_name(errno));
    for (const std::uintptr_t operation : {11, 12, 13})
        if (const int os = memory.send(f.link, 1000 * (operation - 10), operation); os != 0) return answer(Verdict::differs, "send: %s", errno_name(os));
    const auto seen = [&](std::uintptr_t operation) { return f.count(Call::completion, f.link, operation); };
    f.poll_until(f.group, [&] { return seen(13) > 0 && f.bytes_of(f.link).size() >= 6000; });
    f.poll_until(
        f.group, [] { return false; }, 50);  // another one would come now
    return answer(same_if(seen(11) == 1 && seen(12) == 1 && seen(13) == 1), "three sends, %u, %u and %u completions", seen(11), seen(12), seen(13));
}

Answer ask_no_completions(Field& f) {
    if (f.link == 0) return no_link;
    Registered memory(f, f.link);
    if (!memory.good()) return answer(Verdict::unseen, "no memory can be registered: %s", errno_name(errno));
    const std::size_t before = f.bytes_of(f.link).size();
    const int empty = memory.send(f.link, 0, 21), nameless = memory.send(f.link, 100, 0), inlined = send_inline(f, f.link, "inline", 22);
    if (empty != 0 || nameless != 0 || inlined != 0)
        return answer(Verdict::differs, "empty %s, operation 0 %s, inline %s", errno_name(empty), errno_name(nameless), errno_name(inlined));
    f.poll_until(f.group, [&] { return f.bytes_of(f.link).size() >= before + 106; });
    f.poll_until(
        f.group, [] { return false; }, 50);
    const unsigned of_empty = f.count(Call::completion, f.link, 21), of_inline = f.count(Call::completion, f.link, 22),
                   of_zero = f.count(Call::completion, f.link, 0);
    return answer(same_if(of_empty + of_inline + of_zero == 0), "empty %u, inline %u, operation 0 %u", of_empty, of_inline, of_zero);
}

// -- accepting

/// A kernel socket that has begun to connect to `to`; -1: none.
int knock(const sockaddr_in& to) {
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0) (void)::connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to);
    return fd;
}

Answer ask_accept(Field& f) {
    if (f.link == 0) return no_link;
    sockaddr_in own{};
    socklen_t size = sizeof own;
    f.calls.socket_getsockname(f.link, reinterpret_cast<sockaddr*>(&own), &size);
    own.sin_port = 0;
    constexpr std::uintptr_t listener_userdata = 4711;
    const abi::Socket listener = f.make_socket(f.group, listener_userdata);
    if (listener == 0 || f.calls.socket_bind(listener, reinterpret_cast<const sockaddr*>(&own), sizeof own) != 0 || f.calls.socket_listen(listener) != 0)
        return answer(Verdict::differs, "listening on the link's own address: %s", errno_name(errno));
    f.calls.socket_getsockname(listener, reinterpret_cast<sockaddr*>(&own), &size);
    const int fd = knock(own);
    const auto accepted = [&] {
        return std::find_if(f.record.begin(), f.record.end(), [&](const Call& one) { return one.what == Call::accepted && one.value == listener; });
    };
    if (!f.poll_until(
            f.group, [&] { return accepted() != f.record.end(); }, 1000)) {
        ::close(fd);
        end_socket(f, f.group, listener);
        return answer(Verdict::unseen, "the kernel's connect does not reach the card from inside");
    }
    const abi::Socket made = accepted()->socket;
    const bool parents = accepted()->userdata == listener_userdata;
    const linger now{1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    ::close(fd);
    f.poll_until(f.group, [&] { return f.has_event(made, abi::error) || f.has_event(made, abi::closed); });
    const Call* const event = f.find_event(made, abi::error);
    const bool ended = end_socket(f, f.group, made) && end_socket(f, f.group, listener);
    const bool good = parents && event != nullptr && event->userdata == 0 && event->error == ECONNRESET && ended;
    return answer(same_if(good), "listener's userdata %s, then %s with userdata %s", parents ? "given" : "missing",
                  event != nullptr ? errno_name(event->error) : "no ERROR", event != nullptr && event->userdata == 0 ? "0" : "not 0");
}

// -- ends

Answer ask_terminated(Field& f) {
    if (f.link == 0) return no_link;
    const abi::Socket socket = std::exchange(f.link, 0);
    const bool before = f.has_event(socket, abi::terminated);
    f.calls.socket_destroy(socket);
    const bool inside = f.has_event(socket, abi::terminated);
    const bool came = f.poll_until(
        f.group, [&] { return f.has_event(socket, abi::terminated); }, 10'000);
    f.poll_until(
        f.group, [] { return false; }, 50);
    const unsigned times = f.count(Call::event, socket, abi::terminated);
    return answer(same_if(!before && !inside && came && times == 1), "%u times%s%s", times, before ? ", before destroy" : "", inside ? ", inside destroy" : "");
}

Answer ask_late_buffer(Field& f) {
    if (f.held == nullptr) return answer(Verdict::unseen, "no buffer was held");
    f.calls.group_buf_free(f.group, std::exchange(f.held, nullptr));
    f.poll(f.group);
    return answer(Verdict::same, "taken back");
}

Answer ask_group_end(Field& f) {
    const abi::Group group = f.make_group();
    const abi::Socket socket = group != 0 ? f.make_socket(group, 9) : 0;
    if (socket == 0) return answer(Verdict::unseen, "no second group or socket: %s", errno_name(errno));
    const std::size_t before = f.record.size();
    f.calls.group_destroy(group);
    const auto ends = std::count_if(f.record.begin() + std::ptrdiff_t(before), f.record.end(),
                                    [](const Call& one) { return one.what == Call::event && one.value == std::uintptr_t(abi::terminated); });
    return answer(same_if(ends == 1), "%d times", int(ends));
}

Answer ask_callbacks(Field& f) {
    unsigned outside = 0;
    for (const Call& one : f.record) outside += !one.in_poll && one.what != Call::completion && one.userdata != 9 ? 1 : 0;
    return answer(same_if(outside == 0), "%zu callbacks, %u outside of a poll", f.record.size(), outside);
}

Answer ask_table(Field&) { return answer(Verdict::same, "recognised, and its functions lie where xlio_exit does"); }

}  // namespace

const char* name_of(Source source) noexcept {
    switch (source) {
    case Source::read: return "read";
    case Source::measured: return "measured";
    case Source::suspected: return "suspected";
    case Source::confirmed: return "confirmed";
    }
    return "";
}

// In the order in which they are asked: later ones use the connection that ask_connect() leaves.
const Rule rules[] = {
    {"table", "functions only through the table; masks and offsets of layouts A and B", Source::measured, "`layout=A B old garbage crossed`", &ask_table},
    {"one_block", "one block is asked of the allocator, and registered", Source::read, "always", &ask_block},
    {"second_init", "a second init with an allocator: EEXIST", Source::measured, "always", &ask_second_init},
    {"group_needs_event", "no group without an event callback: EINVAL", Source::read, "always", &ask_group_without_events},
    {"listen_needs_accept", "no listening in a group without an accept callback: ENOTCONN", Source::read, "always", &ask_listen_without_accept},
    {"nowhere", "ENODEV from bind, connect and listen for what is not the card's, the loopback too", Source::read, "`nowhere=ADDRESS`", &ask_nowhere},
    {"refused", "a refused connect is ERROR with ECONNREFUSED; connect then answers ECONNABORTED, and terminated waits for destroy", Source::read, "always",
     &ask_refused},
    {"connect", "connect answers 0, ESTABLISHED follows; until then send is EAGAIN and connect EALREADY, then EISCONN; the domain is known from then on",
     Source::read, "always", &ask_connect},
    {"receive", "received bytes lie in the allocator's block", Source::read, "always; `split`: arbitrary pieces and alignment", &ask_receive},
    {"completion", "one completion per send by reference, after the acknowledgement, before terminated", Source::read,
     "always; `comp_inside`: in send and flush, too", &ask_completions},
    {"no_completion", "none for inline, empty, operation 0", Source::read, "always", &ask_no_completions},
    {"accept", "accepted sockets have userdata 0 and are in the listener's group", Source::read, "always; `error_early`: ERROR before accept", &ask_accept},
    {"terminated", "terminated once, only after destroy, maybe late; FIN_WAIT at most 20 s", Source::read, "`late=POLLS`, `fin_wait_ms=N`", &ask_terminated},
    {"late_buffer", "a group takes buffers back when their socket is gone", Source::read, "always", &ask_late_buffer},
    {"group_end", "a group that goes terminates the sockets it still has", Source::read, "always", &ask_group_end},
    {"callbacks", "callbacks only within group_poll, completions in send and flush, too; one thread at a time", Source::read, "strict", &ask_callbacks},
    {"failed_init", "without a device: first init ENODEV, second 0 or EEXIST with an allocator, then a crash", Source::measured,
     "`no_device`; `false_start`: 0 at once", nullptr, "needs a machine without a card"},
    {"exit_on_load", "some settings end the process inside dlopen", Source::measured, "`exit_on_load`", nullptr, "it would end the question"},
    {"inside_callbacks", "no create, connect, listen, destroy, attach inside a callback", Source::suspected, "strict", nullptr, "undefined"},
    {"unchanged", "buffers unchanged until their completion", Source::read, "strict, by a checksum", nullptr, "ours to keep"},
    {"key", "a key covers the memory, and belongs to the socket's domain", Source::read, "strict, `pds=N`, `refuse_mr`", nullptr, "undefined"},
    {"enomem", "all or nothing; ENOMEM", Source::read, "`enomem=N`, `tx_bytes=N`", nullptr, "cannot be provoked"},
    {"inline_vectors", "inline with several vectors is not atomic", Source::read, "strict: refused", nullptr, "cannot be provoked"},
    {"pool", "no receive back-pressure; the pool runs out", Source::read, "`pool=N`", nullptr, "would starve the process"},
    {"returned", "returned buffers are the library's", Source::read, "filled with 0xdd; twice or to another group is misuse", nullptr, "undefined"},
    {"closed_first", "closed may come before the last bytes", Source::read, "`closed_first`", nullptr, "the echo server does not end first"},
    {"destroy_twice", "destroy twice, use after destroy", Source::read, "strict", nullptr, "undefined"},
    {"detach", "detach loses completions", Source::read, "always; the backend never detaches", nullptr, "not used"},
};
const unsigned rule_count = sizeof rules / sizeof rules[0];

namespace {

const char* name_of(Verdict verdict) { return verdict == Verdict::same ? "same" : verdict == Verdict::differs ? "differs" : "unseen"; }

int give_up(const std::string& why) {
    std::printf("fail\t%s\n", why.c_str());
    return 1;
}

}  // namespace

int ask_all(const char* path, const char* address, const char* port) {
    std::setvbuf(stdout, nullptr, _IOLBF, 0);  // what was asked last is known when the library ends us
    for (const Rule& rule : rules) std::printf("rule\t%s\t%s\t%s\t%s\n", rule.id, name_of(rule.source), rule.text, rule.why_not);
    sockaddr_in peer{};
    peer.sin_family = AF_INET;
    peer.sin_port = htons(std::uint16_t(std::atoi(port)));
    if (inet_pton(AF_INET, address, &peer.sin_addr) != 1) return give_up(std::string(address) + " is no IPv4 address");
    std::printf("begin\tload\n");
    static abi::Calls calls;
    const char* layout = "";
    if (const auto obstacle = evpl::transport::xlio::open_library(path, calls, layout)) return give_up(obstacle.reason);
    std::printf("found\t%s, function table %s\nbegin\tstart\n", path, layout);
    Field field(calls, peer);
    if (const int os = field.start(); os != 0) return give_up(std::string("the library does not start: ") + errno_name(os));
    for (const Rule& rule : rules) {
        if (rule.ask == nullptr) continue;
        std::printf("begin\t%s\n", rule.id);
        const Answer answered = rule.ask(field);
        std::printf("%s\t%s\t%s\n", name_of(answered.verdict), rule.id, answered.seen);
    }
    std::printf("end\n");
    return 0;
}

}  // namespace probe
