// What the process knows of kernel sockets: schemes, presence, capabilities.
#include <array>
#include <new>

#include "transport/socket/port.hpp"
#include "transport/socket/socket.hpp"

namespace evpl::transport {
namespace socket {
namespace {

constexpr std::array<Scheme, 3> schemes_{{
    {"tcp", "kernel TCP through epoll", "tcp", Kind::stream, true, 1},
    {"udp", "kernel UDP through epoll, with GSO and GRO", "udp", Kind::datagram, true, 1},
    {"unix", "Unix sockets, stream or messages (?mode=msg)", "unix", Kind::stream, false, 0},
}};

constexpr Caps stream_caps(bool local, bool zero_copy) noexcept {
    Caps caps;
    caps.kind = Kind::stream;
    caps.half_close = true;
    caps.receive_pause = true;
    caps.descriptors = local;
    caps.credentials = local;
    caps.zero_copy_send = zero_copy;
    return caps;
}

constexpr Caps message_caps() noexcept {
    Caps caps = stream_caps(true, false);
    caps.kind = Kind::message;
    caps.message_bytes_max = unix_message_bytes_max;
    return caps;
}

constexpr Caps datagram_caps() noexcept {
    Caps caps;
    caps.kind = Kind::datagram;
    caps.receive_pause = true;  // what is not read waits in the kernel
    caps.multicast = true;
    caps.segmentation = true;
    caps.message_bytes_max = 65'507;  // 65535 - 20 (IPv4) - 8 (UDP): RFC 768, RFC 791
    return caps;
}

Flavor flavor_of(const Scheme& scheme) noexcept {
    return scheme.name == "tcp" ? Flavor::tcp : scheme.name == "udp" ? Flavor::udp : Flavor::unix_stream;
}

class SocketTransport final : public Transport {
public:
    std::span<const Scheme> schemes() const noexcept override { return schemes_; }

    Probe probe(const Scheme& scheme) noexcept override {
        Caps caps = caps_of(flavor_of(scheme), true);
        return {true, "part of every kernel", "", caps};
    }

    Result<Caps> caps(const Scheme& scheme, const Endpoint& endpoint, Diagnostic& why) noexcept override {
        Flavor flavor = flavor_of(scheme);
        const auto options = parse_options(endpoint, flavor, why);
        if (!options) return options.error();
        if (options->message_mode) flavor = Flavor::unix_message;
        return caps_of(flavor, options->zero_copy);
    }

    Result<Port*> open(Host& host) noexcept override {
        const auto sleeper = host.sleeper();
        if (!sleeper) return sleeper.error();
        auto* port = new (std::nothrow) SocketPort(host, **sleeper);
        if (port == nullptr) return Errc::out_of_memory;
        return static_cast<Port*>(port);
    }
};

}  // namespace

const Caps& caps_of(Flavor flavor, bool zero_copy) noexcept {
    static constexpr Caps tcp = stream_caps(false, false), tcp_zero_copy = stream_caps(false, true), local = stream_caps(true, false),
                          message = message_caps(), datagram = datagram_caps();
    switch (flavor) {
    case Flavor::tcp: return zero_copy ? tcp_zero_copy : tcp;
    case Flavor::unix_stream: return local;
    case Flavor::unix_message: return message;
    case Flavor::udp: return datagram;
    }
    return tcp;
}

}  // namespace socket

Transport& socket_transport() noexcept {
    static socket::SocketTransport transport;
    return transport;
}

}  // namespace evpl::transport
