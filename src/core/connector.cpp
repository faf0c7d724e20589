#include "core/connector.hpp"

#include <cstdio>

namespace evpl::core {

Error Connector::start(ConnectionState& connection, const transport::Choice& choice, const Endpoint& to, Diagnostic& why) noexcept {
    const auto port = connection.core.port_of(*choice.transport);
    if (!port) return port.error();
    Address address;
    if (choice.scheme->has_address) {
        const auto literal = Address::parse(to.host() == "localhost" ? "127.0.0.1" : to.host(), to.port());
        if (!literal) return Error(Errc::name_not_found, Step::resolve);
        address = *literal;
    }
    const auto link = (*port)->connect(to, address, connection, connection.outbox, why);
    if (!link) return link.error();
    connection.attach(**link);
    return {};
}

void Connector::abandon(ConnectionState& connection) noexcept { connection.connector = nullptr; }

}  // namespace evpl::core
