// What the process knows of XLIO: the scheme, presence, capabilities.
#include <new>

#include "transport/xlio/library.hpp"
#include "transport/xlio/port.hpp"
#include "transport/xlio/xlio.hpp"

namespace evpl::transport {
namespace xlio {
namespace {

constexpr Scheme schemes_[] = {
    {"xlio", "TCP in user space on an NVIDIA card (XLIO Ultra API)", "tcp", Kind::stream, true, 3, true, "tcp"},
};

class XlioTransport final : public Transport {
public:
    std::span<const Scheme> schemes() const noexcept override { return schemes_; }

    Probe probe(const Scheme&) noexcept override {
        const Support here = support();
        return {here.present, here.reason, here.remedy, caps_of({})};
    }

    Result<Caps> caps(const Scheme&, const Endpoint& endpoint, Diagnostic& why) noexcept override {
        const auto options = Options::read(endpoint, why);
        if (!options) return options.error();
        return caps_of(*options);
    }

    Result<Port*> open(Host& host) noexcept override {
        const auto calls = start();
        if (!calls) return calls.error();
        return XlioPort::open(host, **calls);
    }
};

}  // namespace
}  // namespace xlio

Transport& xlio_transport() noexcept {
    static constinit xlio::XlioTransport transport;
    return transport;
}

}  // namespace evpl::transport
