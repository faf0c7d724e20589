// What the process knows of kernel sockets: schemes, presence, capabilities.
#include <array>
#include <new>

#include "transport/common/sockets/port.hpp"
#include "transport/socket/socket.hpp"

namespace evpl::transport {
namespace socket {
namespace {

constexpr std::array<Scheme, 3> schemes_{{
    {"tcp", "kernel TCP through epoll", "tcp", Kind::stream, true, 1},
    {"udp", "kernel UDP through epoll, with GSO and GRO", "udp", Kind::datagram, true, 1},
    {"unix", "Unix sockets, stream or messages (?mode=msg)", "unix", Kind::stream, false, 0},
}};

class SocketTransport final : public Transport {
public:
    std::span<const Scheme> schemes() const noexcept override { return schemes_; }

    Probe probe(const Scheme& scheme) noexcept override { return {true, "part of every kernel", "", caps_of(family_of(scheme), true)}; }

    Result<Caps> caps(const Scheme& scheme, const Endpoint& endpoint, Diagnostic& why) noexcept override { return planned_caps(scheme, endpoint, why); }

    Result<Port*> open(Host& host) noexcept override {
        const auto sleeper = host.sleeper();
        if (!sleeper) return sleeper.error();
        auto* port = new (std::nothrow) SocketPort(host, **sleeper);
        if (port == nullptr) return Errc::out_of_memory;
        return static_cast<Port*>(port);
    }
};

}  // namespace

}  // namespace socket

Transport& socket_transport() noexcept {
    static socket::SocketTransport transport;
    return transport;
}

}  // namespace evpl::transport
