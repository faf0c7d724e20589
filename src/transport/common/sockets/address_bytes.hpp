#pragma once

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <string_view>

#include "evpl/address.hpp"
#include "evpl/endpoint.hpp"

namespace evpl::transport::socket {

/// A sockaddr of any family we use, with its length.
struct SocketAddress {
    union {
        sockaddr base;
        sockaddr_in v4;
        sockaddr_in6 v6;
        sockaddr_un local;
        sockaddr_storage storage;
    };
    socklen_t size = sizeof(sockaddr_storage);
    SocketAddress() noexcept { storage.ss_family = AF_UNSPEC; }
};

SocketAddress to_kernel(const Address& address) noexcept;
Address from_kernel(const SocketAddress& address) noexcept;
/// "@name" is abstract. Errors: bad_endpoint (too long, empty).
Result<SocketAddress> unix_address(const Endpoint& endpoint, Diagnostic& why) noexcept;
/// The host of a listening or bound endpoint: a literal address, "localhost", or "*" for all of both families.
/// Errors: name_not_found.
Result<Address> literal_address(const Endpoint& endpoint, Diagnostic& why) noexcept;

}  // namespace evpl::transport::socket
