// In the place of the backend when the library is built without the headers of rdma-core.
#include "transport/rdma/rdma.hpp"

namespace evpl::transport {
namespace {

constexpr Scheme schemes_[] = {
    {"rdma", "RDMA reliable connections (RoCE v2, InfiniBand), stream or messages (?mode=msg)", "rdma", Kind::stream, true, 0},
};
constexpr Scheme datagram_schemes_[] = {
    {"rdma-ud", "RDMA datagrams: unreliable queue pairs (RoCE v2, InfiniBand)", "rdma-ud", Kind::datagram, true, 0},
};
constexpr std::string_view reason = "this library was built without RDMA";

class AbsentRdma final : public Transport {
public:
    explicit constexpr AbsentRdma(std::span<const Scheme> schemes) noexcept : schemes_of_(schemes) {}
    std::span<const Scheme> schemes() const noexcept override { return schemes_of_; }
    Probe probe(const Scheme&) noexcept override { return {false, reason, "install libibverbs-dev and librdmacm-dev, then build the library again", {}}; }
    Result<Caps> caps(const Scheme&, const Endpoint&, Diagnostic&) noexcept override { return Error(Errc::transport_absent, Step::open); }
    Result<Port*> open(Host&) noexcept override { return Error(Errc::transport_absent, Step::open); }

private:
    std::span<const Scheme> schemes_of_;
};

}  // namespace

Transport& rdma_transport() noexcept {
    static constinit AbsentRdma transport(schemes_);
    return transport;
}

Transport& rdma_ud_transport() noexcept {
    static constinit AbsentRdma transport(datagram_schemes_);
    return transport;
}

}  // namespace evpl::transport
