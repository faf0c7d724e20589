#pragma once

#include "transport/transport.hpp"

namespace evpl::transport {

/// Kernel sockets through epoll: tcp, udp, unix (stream and seqpacket).
Transport& socket_transport() noexcept;

}  // namespace evpl::transport
