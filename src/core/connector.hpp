#pragma once

#include "core/connection_state.hpp"

namespace evpl::core {

/// Opens a connection: resolves its host, then tries the addresses, both families raced (RFC 8305), until one link opens.
class Connector {
public:
    /// Starts for `connection`. Failures of the network come later, by connect_failed(); an error here means nothing was started.
    static Error start(ConnectionState& connection, const transport::Choice& choice, const Endpoint& to, Diagnostic& why) noexcept;
    /// The connection gives up: attempts are aborted, nothing is told any more.
    static void abandon(ConnectionState& connection) noexcept;
};

}  // namespace evpl::core
