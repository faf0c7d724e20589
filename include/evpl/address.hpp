#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "evpl/result.hpp"

struct sockaddr;

#pragma GCC visibility push(default)
namespace evpl {

/// An IP address with a port, or nothing. Plain, 28 bytes; the name of a Unix or inproc peer is a text, not an Address.
struct Address {
    /// What `bytes` holds.
    enum class Family : std::uint16_t { none = 0, ipv4 = 4, ipv6 = 6 };

    Family family = Family::none;  ///< none: an empty address
    std::uint16_t port = 0;        ///< host byte order
    std::uint32_t scope = 0;       ///< IPv6 zone index, else 0
    std::uint8_t bytes[16] = {};   ///< network byte order; IPv4 uses the first four

    /// From numbers and punctuation only, "127.0.0.1" or "::1" or "fe80::1%2". Errors: bad_endpoint.
    static Result<Address> parse(std::string_view host, std::uint16_t port) noexcept;

    /// "127.0.0.1:7000" or "[::1]:7000" into `text`, always terminated; returns the length. 64 bytes always suffice.
    std::size_t describe(char* text, std::size_t room_bytes) const noexcept;

    /// 0.0.0.0 or ::, "any address of this machine".
    bool is_wildcard() const noexcept;
    /// 224.0.0.0/4 or ff00::/8.
    bool is_multicast() const noexcept;
    /// 127.0.0.0/8 or ::1.
    bool is_loopback() const noexcept;

    friend bool operator==(const Address&, const Address&) noexcept = default;
};

}  // namespace evpl
#pragma GCC visibility pop
