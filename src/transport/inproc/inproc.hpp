#pragma once

#include "transport/transport.hpp"

namespace evpl::transport {

/// Scheme `inproc` ("inproc://name", mode=stream or msg): between the loops of one process, and within one loop. Always present.
Transport& inproc_transport() noexcept;

}  // namespace evpl::transport
