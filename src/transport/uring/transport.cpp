// What the process knows of io_uring: schemes, presence, capabilities.
#include <array>
#include <new>

#include "transport/uring/port.hpp"
#include "transport/uring/uring.hpp"

namespace evpl::transport {
namespace uring {
namespace {

constexpr std::array<Scheme, 3> schemes_{{
    {"uring", "kernel TCP through io_uring", "tcp", Kind::stream, true, 2},
    {"uring-udp", "kernel UDP through io_uring, with GSO and GRO", "udp", Kind::datagram, true, 0},
    {"uring-unix", "Unix sockets through io_uring, stream or messages (?mode=msg)", "unix", Kind::stream, false, 0},
}};

class UringTransport final : public Transport {
public:
    std::span<const Scheme> schemes() const noexcept override { return schemes_; }

    Probe probe(const Scheme& scheme) noexcept override {
        const Support& here = support();
        return {here.present, here.reason, here.remedy, socket::caps_of(socket::family_of(scheme), false)};
    }

    Result<Caps> caps(const Scheme& scheme, const Endpoint& endpoint, Diagnostic& why) noexcept override { return socket::planned_caps(scheme, endpoint, why); }

    Result<Port*> open(Host& host) noexcept override {
        const auto sleeper = host.sleeper();
        if (!sleeper) return sleeper.error();
        auto* port = new (std::nothrow) UringPort(host, **sleeper);
        if (port == nullptr) return Errc::out_of_memory;
        return static_cast<Port*>(port);
    }
};

}  // namespace
}  // namespace uring

Transport& uring_transport() noexcept {
    static uring::UringTransport transport;
    return transport;
}

}  // namespace evpl::transport
