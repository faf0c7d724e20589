#pragma once

#include "transport/transport.hpp"

namespace evpl::transport {

/// Scheme `rdma` ("rdma://address:port", mode=stream or msg): reliable connected queue pairs, connected by the RDMA connection manager.
/// Present where librdmacm and libibverbs can be loaded and a device is there.
Transport& rdma_transport() noexcept;

/// Scheme `rdma-ud` ("rdma-ud://address:port"): datagrams over unreliable queue pairs.
Transport& rdma_ud_transport() noexcept;

}  // namespace evpl::transport
