#include "evpl/address.hpp"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstring>

namespace evpl {

namespace {

/// inet_pton(3) wants a terminated text: a bounded copy. NUL bytes inside would end it early and are refused.
bool read_numbers(int family, std::string_view text, void* bytes) noexcept {
    char copy[INET6_ADDRSTRLEN];
    if (text.size() >= sizeof copy || text.find('\0') != std::string_view::npos) return false;
    copy[text.copy(copy, text.size())] = '\0';
    return ::inet_pton(family, copy, bytes) == 1;
}

bool read_scope(std::string_view text, std::uint32_t& scope) noexcept {
    const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), scope);
    return failure == std::errc{} && end == text.data() + text.size();
}

/// The IPv4 address inside, also of an IPv4-mapped IPv6 address (RFC 4291 section 2.5.5.2); null when there is none.
const std::uint8_t* ipv4_of(const Address& address) noexcept {
    static constexpr std::uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    if (address.family == Address::Family::ipv4) return address.bytes;
    if (address.family == Address::Family::ipv6 && std::memcmp(address.bytes, mapped, sizeof mapped) == 0) return address.bytes + 12;
    return nullptr;
}

bool is_zero(const std::uint8_t* bytes, std::size_t size) noexcept {
    return std::all_of(bytes, bytes + size, [](std::uint8_t byte) { return byte == 0; });
}

}  // namespace

Result<Address> Address::parse(std::string_view host, std::uint16_t port) noexcept {
    Address address;
    address.port = port;
    if (read_numbers(AF_INET, host, address.bytes)) {
        address.family = Family::ipv4;
        return address;
    }
    const std::size_t zone = host.find('%');
    const bool has_zone = zone != std::string_view::npos;
    if (!read_numbers(AF_INET6, host.substr(0, zone), address.bytes) || (has_zone && !read_scope(host.substr(zone + 1), address.scope)))
        return Error(Errc::bad_endpoint, Step::parse);
    address.family = Family::ipv6;
    return address;
}

std::size_t Address::describe(char* text, std::size_t room_bytes) const noexcept {
    if (room_bytes == 0) return 0;
    char host[INET6_ADDRSTRLEN] = "";
    char zone[12] = "";
    int wanted = 0;
    switch (family) {
    case Family::ipv4:
        ::inet_ntop(AF_INET, bytes, host, sizeof host);
        wanted = std::snprintf(text, room_bytes, "%s:%u", host, unsigned(port));
        break;
    case Family::ipv6:
        ::inet_ntop(AF_INET6, bytes, host, sizeof host);
        if (scope != 0) std::snprintf(zone, sizeof zone, "%%%u", unsigned(scope));
        wanted = std::snprintf(text, room_bytes, "[%s%s]:%u", host, zone, unsigned(port));
        break;
    case Family::none: wanted = std::snprintf(text, room_bytes, "none"); break;
    }
    if (wanted <= 0) text[0] = '\0';
    return std::min(std::size_t(std::max(wanted, 0)), room_bytes - 1);
}

bool Address::is_wildcard() const noexcept {
    if (const std::uint8_t* ipv4 = ipv4_of(*this)) return is_zero(ipv4, 4);
    return family == Family::ipv6 && is_zero(bytes, 16);
}

bool Address::is_multicast() const noexcept {
    if (const std::uint8_t* ipv4 = ipv4_of(*this)) return (ipv4[0] & 0xf0) == 0xe0;  // 224.0.0.0/4
    return family == Family::ipv6 && bytes[0] == 0xff;                               // ff00::/8
}

bool Address::is_loopback() const noexcept {
    if (const std::uint8_t* ipv4 = ipv4_of(*this)) return ipv4[0] == 127;  // 127.0.0.0/8
    return family == Family::ipv6 && is_zero(bytes, 15) && bytes[15] == 1;
}

}  // namespace evpl
