// What the process knows of RDMA: the scheme, presence, capabilities.
#include <new>

#include "transport/rdma/port.hpp"
#include "transport/rdma/rdma.hpp"

namespace evpl::transport {
namespace rdma {
namespace {

constexpr Scheme schemes_[] = {
    {"rdma", "RDMA reliable connections (RoCE v2, InfiniBand), stream or messages (?mode=msg)", "rdma", Kind::stream, true, 0},
};

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

    Result<Port*> open(Host& host) noexcept override {
        const auto sleeper = host.sleeper();
        if (!sleeper) return sleeper.error();
        const auto control = Control::instance();
        if (!control) return control.error();
        auto* port = new (std::nothrow) RdmaPort(host, **sleeper, **control);
        if (port == nullptr) return Error(Errc::out_of_memory, Step::open);
        return static_cast<Port*>(port);
    }
};

}  // namespace
}  // namespace rdma

Transport& rdma_transport() noexcept {
    static constinit rdma::RdmaTransport transport;
    return transport;
}

}  // namespace evpl::transport
