#pragma once

#include "transport/transport.hpp"

namespace evpl::transport {

/// TCP of the network card through NVIDIA XLIO's Ultra API: xlio://.
Transport& xlio_transport() noexcept;

}  // namespace evpl::transport
