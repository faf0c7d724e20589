#pragma once

#include "transport/transport.hpp"

namespace evpl::transport {

/// Kernel sockets through io_uring: uring, uring-udp, uring-unix.
Transport& uring_transport() noexcept;

}  // namespace evpl::transport
