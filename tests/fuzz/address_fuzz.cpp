// Goal: no text makes the address parser misbehave; what it accepts it can write down and read again as the same address.
// Method: the first two bytes are the port, the rest the host.
#include <cstdint>
#include <cstring>
#include <string_view>

#include "evpl/address.hpp"
#include "fuzz/require.hpp"

namespace {

using namespace evpl;

using fuzz::require;

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 2) return 0;
    const auto port = std::uint16_t(data[0] << 8 | data[1]);
    const std::string_view host(reinterpret_cast<const char*>(data) + 2, size - 2);
    const Result<Address> address = Address::parse(host, port);
    if (!address) {
        require(address.error() == Errc::bad_endpoint);
        return 0;
    }
    require(address->port == port && address->family != Address::Family::none);
    require(address->is_wildcard() + address->is_multicast() + address->is_loopback() <= 1);
    char text[64];
    const std::size_t length = address->describe(text, sizeof text);
    require(length < sizeof text && length == std::strlen(text));
    // Any shorter room is filled to its end, and no further.
    for (std::size_t room = 1; room <= length; ++room) {
        char small[64];
        std::memset(small, 0x7f, sizeof small);
        address->describe(small, room);
        require(std::strlen(small) < room && small[room] == 0x7f);
    }
    std::string_view again(text, length);
    again = again.substr(0, again.rfind(':'));
    if (again.starts_with('[')) again = again.substr(1, again.size() - 2);
    const Result<Address> same = Address::parse(again, port);
    require(same.ok() && *same == *address);
    return 0;
}
