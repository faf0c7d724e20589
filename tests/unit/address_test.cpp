#include "evpl/address.hpp"

#include <gtest/gtest.h>

#include <string>

namespace evpl {
namespace {

std::string text_of(const Address& address) {
    char text[64];
    return std::string(text, address.describe(text, sizeof text));
}

std::string round_trip(std::string_view host, std::uint16_t port) {
    const Result<Address> address = Address::parse(host, port);
    return address ? text_of(*address) : name_of(address.error().code());
}

TEST(AddressTest, ParsesAndDescribesNumbers) {
    EXPECT_EQ(round_trip("127.0.0.1", 7000), "127.0.0.1:7000");
    EXPECT_EQ(round_trip("0.0.0.0", 0), "0.0.0.0:0");
    EXPECT_EQ(round_trip("::1", 7000), "[::1]:7000");
    EXPECT_EQ(round_trip("2001:DB8:0:0:0:0:0:1", 65535), "[2001:db8::1]:65535");
    EXPECT_EQ(round_trip("fe80::1%2", 1), "[fe80::1%2]:1");
    EXPECT_EQ(round_trip("fe80::1%4294967295", 1), "[fe80::1%4294967295]:1");
}

TEST(AddressTest, KeepsNetworkByteOrder) {
    const Result<Address> address = Address::parse("1.2.3.4", 80);
    ASSERT_TRUE(address);
    EXPECT_EQ(address->bytes[0], 1);
    EXPECT_EQ(address->bytes[3], 4);
    EXPECT_EQ(address->port, 80);
}

TEST(AddressTest, RefusesWhatIsNoNumber) {
    using namespace std::string_view_literals;
    for (const std::string_view host :
         {""sv,          "localhost"sv, "1.2.3"sv,   "1.2.3.4.5"sv, "256.0.0.1"sv, "01.2.3.4"sv, " 1.2.3.4"sv, "1.2.3.4 "sv,       "1.2.3.4%1"sv,
          ":"sv,         ":::"sv,       "1::2::3"sv, "[::1]"sv,     "::1%"sv,      "::1%eth0"sv, "::1%-1"sv,   "::1%4294967296"sv, "::1%1%2"sv,
          "1.2.3.4\0"sv, "::1\0x"sv,    "12345::"sv})
        EXPECT_EQ(round_trip(host, 1), "bad_endpoint") << host;
    EXPECT_EQ(round_trip(std::string(1000, '1'), 1), "bad_endpoint");
}

TEST(AddressTest, TheLongestTextFitsIn64Bytes) { EXPECT_EQ(round_trip("1111:1111:1111:1111:1111:1111:1111:1111%4294967295", 65535).size(), 58u); }

TEST(AddressTest, DescribeCutsAndTerminatesInAnyRoom) {
    const Address address = *Address::parse("127.0.0.1", 7000);
    for (std::size_t room = 1; room < 20; ++room) {
        std::string text(room, '#');
        const std::size_t size = address.describe(text.data(), room);
        EXPECT_EQ(text.substr(0, size), std::string("127.0.0.1:7000").substr(0, room - 1));
        EXPECT_EQ(text[size], '\0');
    }
    EXPECT_EQ(address.describe(nullptr, 0), 0u);
    EXPECT_EQ(text_of(Address{}), "none");
}

// Goal: the three questions, also for IPv4 addresses in IPv6 clothes.
TEST(AddressTest, KnowsSpecialAddresses) {
    struct Row {
        const char* host;
        bool wildcard, multicast, loopback;
    };
    constexpr Row rows[] = {
        {"0.0.0.0", true, false, false},
        {"::", true, false, false},
        {"::ffff:0.0.0.0", true, false, false},
        {"224.0.0.1", false, true, false},
        {"239.255.255.255", false, true, false},
        {"240.0.0.0", false, false, false},
        {"ff02::1", false, true, false},
        {"::ffff:224.0.0.1", false, true, false},
        {"127.0.0.1", false, false, true},
        {"127.9.9.9", false, false, true},
        {"::1", false, false, true},
        {"::ffff:127.0.0.1", false, false, true},
        {"10.0.0.1", false, false, false},
        {"fe80::1", false, false, false},
    };
    for (const Row& row : rows) {
        const Address address = *Address::parse(row.host, 1);
        EXPECT_EQ(address.is_wildcard(), row.wildcard) << row.host;
        EXPECT_EQ(address.is_multicast(), row.multicast) << row.host;
        EXPECT_EQ(address.is_loopback(), row.loopback) << row.host;
    }
    EXPECT_FALSE(Address{}.is_wildcard() || Address{}.is_multicast() || Address{}.is_loopback());
}

}  // namespace
}  // namespace evpl
