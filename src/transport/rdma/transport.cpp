// What the process knows of RDMA: the scheme, presence, capabilities.
#include <new>

#include "transport/rdma/datagrams.hpp"
#include "transport/rdma/port.hpp"
#include "transport/rdma/rdma.hpp"

namespace evpl::transport {
namespace rdma {
namespace {

constexpr Scheme schemes_[] = {
    {"rdma", "RDMA reliable connections (RoCE v2, InfiniBand), stream or messages (?mode=msg)", "rdma", Kind::stream, true, 0},
};

template <class Made>
Result<Port*> open_port(Host& host) noexcept {
    const auto sleeper = host.sleeper();
    if (!sleeper) return sleeper.error();
    const auto control = Control::instance();
    if (!control) return control.error();
    if (!(*control)->is_here()) return Error(Errc::misuse, Step::open);  // a forked child: exec first
    auto* port = new (std::nothrow) Made(host, **sleeper, **control);
    if (port == nullptr) return Error(Errc::out_of_memory, Step::open);
    return static_cast<Port*>(port);
}

class RdmaTransport final : public Transport {
public:
    std::span<const Scheme> schemes() const noexcept override { return schemes_; }

    Probe probe(const Scheme&) noexcept override {
        const Support& here = support();
        const Options usual;
        return {here.present, here.reason, here.remedy, caps_of(usual, usual.inline_bytes)};
    }

    Result<Caps> caps(const Scheme&, const Endpoint& endpoint, Diagnostic& why) noexcept override {
        const auto options = Options::read(endpoint, why);
        if (!options) return options.error();
        return caps_of(*options, options->inline_bytes);
    }

    Result<Port*> open(Host& host) noexcept override { return open_port<RdmaPort>(host); }
};

constexpr Scheme datagram_schemes_[] = {
    {"rdma-ud", "RDMA datagrams: unreliable queue pairs (RoCE v2, InfiniBand)", "rdma-ud", Kind::datagram, true, 0},
};

class RdmaUdTransport final : public Transport {
public:
    std::span<const Scheme> schemes() const noexcept override { return datagram_schemes_; }
    Probe probe(const Scheme&) noexcept override {
        const Support& here = support();
        return {here.present, here.reason, here.remedy, ud_caps()};
    }
    Result<Caps> caps(const Scheme&, const Endpoint& endpoint, Diagnostic& why) noexcept override {
        if (const auto read = UdOptions::read(endpoint, why); !read) return read.error();
        return ud_caps();
    }
    Result<Port*> open(Host& host) noexcept override { return open_port<UdPort>(host); }
};

}  // namespace
}  // namespace rdma

Transport& rdma_ud_transport() noexcept {
    static constinit rdma::RdmaUdTransport transport;
    return transport;
}

Transport& rdma_transport() noexcept {
    static constinit rdma::RdmaTransport transport;
    return transport;
}

}  // namespace evpl::transport
