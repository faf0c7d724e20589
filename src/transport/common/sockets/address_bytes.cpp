#include "transport/common/sockets/address_bytes.hpp"

#include <cstddef>
#include <cstdio>
#include <cstring>

namespace evpl::transport::socket {

SocketAddress to_kernel(const Address& address) noexcept {
    SocketAddress out;
    std::memset(&out.storage, 0, sizeof out.storage);
    if (address.family == Address::Family::ipv4) {
        out.v4.sin_family = AF_INET;
        out.v4.sin_port = htons(address.port);
        std::memcpy(&out.v4.sin_addr, address.bytes, 4);
        out.size = sizeof out.v4;
    } else if (address.family == Address::Family::ipv6) {
        out.v6.sin6_family = AF_INET6;
        out.v6.sin6_port = htons(address.port);
        out.v6.sin6_scope_id = address.scope;
        std::memcpy(&out.v6.sin6_addr, address.bytes, 16);
        out.size = sizeof out.v6;
    }
    return out;
}

Address from_kernel(const SocketAddress& address) noexcept {
    Address out;
    if (address.base.sa_family == AF_INET) {
        out.family = Address::Family::ipv4;
        out.port = ntohs(address.v4.sin_port);
        std::memcpy(out.bytes, &address.v4.sin_addr, 4);
    } else if (address.base.sa_family == AF_INET6) {
        out.port = ntohs(address.v6.sin6_port);
        if (IN6_IS_ADDR_V4MAPPED(&address.v6.sin6_addr)) {  // a dual-stack listener's IPv4 peer
            out.family = Address::Family::ipv4;
            std::memcpy(out.bytes, address.v6.sin6_addr.s6_addr + 12, 4);
        } else {
            out.family = Address::Family::ipv6;
            out.scope = address.v6.sin6_scope_id;
            std::memcpy(out.bytes, &address.v6.sin6_addr, 16);
        }
    }
    return out;
}

Result<SocketAddress> unix_address(const Endpoint& endpoint, Diagnostic& why) noexcept {
    const std::string_view path = endpoint.host();
    SocketAddress out;
    const bool abstract = !path.empty() && path.front() == '@';
    const std::size_t room = sizeof out.local.sun_path - (abstract ? 0 : 1);
    if (path.empty() || path.size() > room) {
        std::snprintf(why.text, sizeof why.text, "a unix path has 1 to %zu bytes; \"%.*s\" has %zu", room, int(std::min<std::size_t>(path.size(), 100)),
                      path.data(), path.size());
        return Error(Errc::bad_endpoint, Step::parse);
    }
    std::memset(&out.storage, 0, sizeof out.storage);
    out.local.sun_family = AF_UNIX;
    std::memcpy(out.local.sun_path, path.data(), path.size());
    if (abstract) out.local.sun_path[0] = '\0';
    out.size = socklen_t(offsetof(sockaddr_un, sun_path) + path.size() + (abstract ? 0 : 1));
    return out;
}

Result<Address> literal_address(const Endpoint& endpoint, Diagnostic& why) noexcept {
    const std::string_view host = endpoint.host();
    if (host == "*") {
        Address any;
        any.family = Address::Family::ipv6;
        any.port = endpoint.port();
        return any;
    }
    const auto parsed = Address::parse(host == "localhost" ? "127.0.0.1" : host, endpoint.port());
    if (!parsed) {
        std::snprintf(why.text, sizeof why.text, "\"%.*s\" is not an address to listen at: use a literal one (127.0.0.1, [::1]), localhost, or *",
                      int(std::min<std::size_t>(host.size(), 100)), host.data());
        return Error(Errc::name_not_found, Step::resolve);
    }
    return *parsed;
}

}  // namespace evpl::transport::socket
