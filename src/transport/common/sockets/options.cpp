#include "transport/common/sockets/options.hpp"

#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/settings.hpp"
#include "transport/common/sockets/address_bytes.hpp"
#include "transport/options.hpp"

namespace evpl::transport::socket {
namespace {

struct Texts {
    std::string_view congestion;
    std::string_view mode;
    std::string_view engine;
    Duration keepalive_idle = Duration::of_ns(10'000'000'000);
    Duration keepalive_interval = Duration::of_ns(1'000'000'000);
    Duration silent_after = Duration::of_ns(25'000'000'000);
};

constexpr std::int64_t buffer_most = 1 << 30;

/// IPV6_MULTICAST_ALL of <linux/in6.h>, which cannot be included beside <netinet/in.h>.
constexpr int ipv6_multicast_all = 29;

bool is_uring(const Endpoint& endpoint) noexcept { return endpoint.scheme().starts_with("uring"); }

/// The flavor's options, and those of who drives the socket.
template <std::size_t count>
Result<void> read_with_engine(const Endpoint& endpoint, const OptionSpec (&common)[count], Texts& t, Diagnostic& why) noexcept {
    OptionSpec specs[count + 1 + RingWishes::count];
    std::size_t used = std::size_t(std::copy_n(common, count, specs) - specs);
    const bool uring = is_uring(endpoint);
    if (!uring) specs[used++] = OptionSpec::choice("engine", t.engine, "epoll|uring", "who drives the socket; uring: or epoll, where it is absent");
    RingWishes unused;
    if (uring || endpoint.option("engine") == "uring") used += unused.describe(specs + used);
    return read_options(endpoint, std::span(specs, used), why);
}

Result<void> read_tcp(const Endpoint& endpoint, Options& o, Texts& t, Diagnostic& why) noexcept {
    const OptionSpec specs[] = {
        OptionSpec::flag("nodelay", o.nodelay, "send small messages at once (TCP_NODELAY)"),
        OptionSpec::flag("keepalive", o.keepalive, "probe a silent peer (SO_KEEPALIVE)"),
        OptionSpec::duration("keepalive_idle", t.keepalive_idle, 1_s, 32767_s, "silence before the first probe"),
        OptionSpec::duration("keepalive_interval", t.keepalive_interval, 1_s, 32767_s, "between probes"),
        OptionSpec::duration("silent_after", t.silent_after, 0_s, 2'000'000_s, "a peer silent for so long is given up; 0: the kernel decides"),
        OptionSpec::bytes("sndbuf", o.send_buffer_bytes, 0, buffer_most, "kernel send buffer; 0: sized by the kernel"),
        OptionSpec::bytes("rcvbuf", o.receive_buffer_bytes, 0, buffer_most, "kernel receive buffer; 0: sized by the kernel"),
        OptionSpec::integer("tos", o.type_of_service, 0, 255, "IP type of service"),
        OptionSpec::integer("backlog", o.backlog, 0, 1 << 20, "connections waiting to be accepted; 0: net.core.somaxconn"),
        OptionSpec::text("congestion", t.congestion, 1, 15, "congestion control, e.g. cubic"),
        OptionSpec::flag("zerocopy", o.zero_copy, "large sends by reference (MSG_ZEROCOPY, SEND_ZC)"),
        OptionSpec::flag("reuseport", o.reuse_port, "several listeners on one port (SO_REUSEPORT)"),
        OptionSpec::integer("fd", o.descriptor, 0, INT32_MAX, "listeners: go on with the listening socket of this number, from systemd or another process"),
    };
    return read_with_engine(endpoint, specs, t, why);
}

Result<void> read_unix(const Endpoint& endpoint, Options& o, Texts& t, Diagnostic& why) noexcept {
    const OptionSpec specs[] = {
        OptionSpec::choice("mode", t.mode, "stream|msg", "bytes or messages (seqpacket)"),
        OptionSpec::bytes("sndbuf", o.send_buffer_bytes, 0, buffer_most, "kernel send buffer; 0: the kernel's default"),
        OptionSpec::bytes("rcvbuf", o.receive_buffer_bytes, 0, buffer_most, "kernel receive buffer; 0: the kernel's default"),
        OptionSpec::integer("backlog", o.backlog, 0, 1 << 20, "connections waiting to be accepted; 0: net.core.somaxconn"),
        OptionSpec::integer("unlink", o.unlink, 0, 1, "remove a stale socket file before, and ours after"),
        OptionSpec::integer("fd", o.descriptor, 0, INT32_MAX, "listeners: go on with the listening socket of this number, from systemd or another process"),
    };
    return read_with_engine(endpoint, specs, t, why);
}

Result<void> read_udp(const Endpoint& endpoint, Options& o, Texts& t, Diagnostic& why) noexcept {
    std::string_view interface;
    const OptionSpec specs[] = {
        OptionSpec::bytes("sndbuf", o.send_buffer_bytes, 0, buffer_most, "kernel send buffer; 0: the kernel's default"),
        OptionSpec::bytes("rcvbuf", o.receive_buffer_bytes, 0, buffer_most, "kernel receive buffer; 0: 4 MiB or what the system allows"),
        OptionSpec::integer("tos", o.type_of_service, 0, 255, "IP type of service"),
        OptionSpec::flag("segmentation", o.segmentation, "batches of equal sizes as one (UDP GSO and GRO)"),
        OptionSpec::integer("ttl", o.multicast_ttl, 0, 255, "multicast time to live"),
        OptionSpec::flag("loop", o.multicast_loop, "own multicast datagrams come back"),
        OptionSpec::text("interface", interface, 1, 63, "multicast leaves by the interface that has this address"),
        OptionSpec::flag("broadcast", o.broadcast, "may send to broadcast addresses"),
        OptionSpec::flag("reuseport", o.reuse_port, "several sockets on one port (SO_REUSEPORT)"),
    };
    if (const auto read = read_with_engine(endpoint, specs, t, why); !read) return read.error();
    if (interface.empty()) return {};
    const auto address = Address::parse(interface, 0);
    if (!address) {
        std::snprintf(why.text, sizeof why.text, "interface=%.*s is not an address", int(interface.size()), interface.data());
        return Error(Errc::bad_option, Step::parse);
    }
    o.multicast_interface = *address;
    return {};
}

bool set_int(int fd, int level, int name, std::int64_t value) noexcept {
    const int as_int = int(value);
    return setsockopt(fd, level, name, &as_int, sizeof as_int) == 0;
}

Result<void> apply_tcp(int fd, const Options& o, Diagnostic& why) noexcept {
    if (o.congestion[0] != '\0' && setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, o.congestion, socklen_t(std::strlen(o.congestion))) != 0) {
        std::snprintf(why.text, sizeof why.text, "congestion=%s is not available here: see sysctl net.ipv4.tcp_available_congestion_control", o.congestion);
        return Error(Errc::bad_option, Step::parse, Who::local, errno);
    }
    if (o.nodelay) set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    if (o.keepalive) {
        set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
        set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, o.keepalive_idle_s);
        set_int(fd, IPPROTO_TCP, TCP_KEEPINTVL, o.keepalive_interval_s);
        // Without a limit of ours the number of probes is one: 45 s of them.
        if (o.silent_after_ms == 0)
            set_int(fd, IPPROTO_TCP, TCP_KEEPCNT, std::clamp<std::int64_t>(45 / std::max<std::int64_t>(o.keepalive_interval_s, 1), 9, 127));
    }
    if (o.silent_after_ms > 0) set_int(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, o.silent_after_ms);
    if (o.zero_copy) set_int(fd, SOL_SOCKET, SO_ZEROCOPY, 1);
    return {};
}

/// Holds back what a burst brings while the loop is elsewhere. The system grants at most net.core.rmem_max.
constexpr std::int64_t datagram_receive_buffer_bytes = 4 << 20;

bool set_multicast_interface(int fd, bool ipv6, const Address& address) noexcept {
    if (address.family == Address::Family::ipv4) {
        in_addr wanted;
        std::memcpy(&wanted, address.bytes, sizeof wanted);
        return setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &wanted, sizeof wanted) == 0;
    }
    const unsigned number = ipv6 ? interface_number(address) : 0;
    if (number == 0) errno = ENODEV;
    return number != 0 && set_int(fd, IPPROTO_IPV6, IPV6_MULTICAST_IF, number);
}

Result<void> apply_udp(int fd, bool ipv6, const Options& o, Diagnostic& why) noexcept {
    if (o.receive_buffer_bytes == 0) set_int(fd, SOL_SOCKET, SO_RCVBUF, datagram_receive_buffer_bytes);
    if (o.broadcast) set_int(fd, SOL_SOCKET, SO_BROADCAST, 1);
    // Only the groups this socket has joined, not all that anybody on this machine has (ip(7)).
    set_int(fd, IPPROTO_IP, IP_MULTICAST_ALL, 0);
    if (!o.multicast_loop) set_int(fd, IPPROTO_IP, IP_MULTICAST_LOOP, 0);
    if (o.multicast_ttl >= 0) set_int(fd, IPPROTO_IP, IP_MULTICAST_TTL, o.multicast_ttl);
    if (ipv6) {
        set_int(fd, IPPROTO_IPV6, ipv6_multicast_all, 0);
        if (!o.multicast_loop) set_int(fd, IPPROTO_IPV6, IPV6_MULTICAST_LOOP, 0);
        if (o.multicast_ttl >= 0) set_int(fd, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, o.multicast_ttl);
    }
    if (o.multicast_interface.family != Address::Family::none && !set_multicast_interface(fd, ipv6, o.multicast_interface)) {
        char text[64];
        o.multicast_interface.describe(text, sizeof text);
        std::snprintf(why.text, sizeof why.text, "interface=%s: no interface has this address (%s)", text, std::strerror(errno));
        return Error(Errc::bad_option, Step::parse, Who::local, errno);
    }
    return {};
}

}  // namespace

unsigned interface_number(const Address& interface) noexcept {
    if (interface.family == Address::Family::ipv6 && interface.scope != 0) return interface.scope;
    ifaddrs* list = nullptr;
    if (getifaddrs(&list) != 0) return 0;
    unsigned number = 0;
    for (const ifaddrs* one = list; one != nullptr && number == 0; one = one->ifa_next) {
        if (one->ifa_addr == nullptr) continue;
        SocketAddress name;
        const auto family = one->ifa_addr->sa_family;
        if (family == AF_INET) std::memcpy(&name.v4, one->ifa_addr, sizeof name.v4);
        else if (family == AF_INET6) std::memcpy(&name.v6, one->ifa_addr, sizeof name.v6);
        else continue;
        const Address has = from_kernel(name);
        if (has.family == interface.family && std::memcmp(has.bytes, interface.bytes, sizeof has.bytes) == 0) number = if_nametoindex(one->ifa_name);
    }
    freeifaddrs(list);
    return number;
}

std::size_t RingWishes::describe(OptionSpec* specs) noexcept {
    specs[0] = OptionSpec::integer("tier", tier, 0, 2, "newest kernel features used, by the loop's first: 0: Linux 6.1, 1: 6.6, 2: 6.15");
    specs[1] = OptionSpec::integer("entries", entries, 8, 4096, "submission queue of the loop's ring, by its first endpoint");
    specs[2] = OptionSpec::duration("min_wait", min_wait, 0_s, 1_ms, "a wait collects completions for so long, by the first endpoint");
    return count;
}

Result<RingWishes> RingWishes::read(const Endpoint& endpoint, Diagnostic& why) noexcept {
    RingWishes wishes;
    OptionSpec specs[count];
    wishes.describe(specs);
    for (const OptionSpec& spec : specs) {
        const std::string_view asked = endpoint.option(spec.name);  // checked with the others
        if (asked.data() != nullptr) {
            base::read_value(spec, asked);
            continue;
        }
        const base::Setting* set = base::settings().find(endpoint.scheme(), spec.name);
        if (set == nullptr) set = base::settings().find("uring", spec.name);
        if (set != nullptr && !base::read_value(spec, set->value)) return base::refuse_setting(*set, spec, why);
    }
    return wishes;
}

Result<Options> parse_options(const Endpoint& endpoint, Flavor flavor, Diagnostic& why) noexcept {
    Options options;
    Texts texts;
    Result<void> read;
    if (flavor == Flavor::tcp) read = read_tcp(endpoint, options, texts, why);
    else if (flavor == Flavor::udp) read = read_udp(endpoint, options, texts, why);
    else read = read_unix(endpoint, options, texts, why);
    if (!read) return read.error();
    texts.congestion.copy(options.congestion, sizeof options.congestion - 1);
    options.message_mode = texts.mode == "msg";
    options.keepalive_idle_s = texts.keepalive_idle.ns / 1'000'000'000;
    options.keepalive_interval_s = texts.keepalive_interval.ns / 1'000'000'000;
    options.silent_after_ms = texts.silent_after.ns / 1'000'000;
    return options;
}

Result<void> apply_options(int fd, Flavor flavor, bool ipv6, const Options& o, Diagnostic& why) noexcept {
    if (o.send_buffer_bytes > 0) set_int(fd, SOL_SOCKET, SO_SNDBUF, o.send_buffer_bytes);
    if (o.receive_buffer_bytes > 0) set_int(fd, SOL_SOCKET, SO_RCVBUF, o.receive_buffer_bytes);
    if (o.type_of_service >= 0) {
        set_int(fd, IPPROTO_IP, IP_TOS, o.type_of_service);
        if (ipv6) set_int(fd, IPPROTO_IPV6, IPV6_TCLASS, o.type_of_service);
    }
    if (flavor == Flavor::unix_message) set_int(fd, SOL_SOCKET, SO_PASSCRED, 1);  // tells an empty message from the end
    if (flavor == Flavor::udp) return apply_udp(fd, ipv6, o, why);
    return flavor == Flavor::tcp ? apply_tcp(fd, o, why) : Result<void>{};
}

}  // namespace evpl::transport::socket
