// The greeting of RDMA peers: what is written is read, also with padding behind it, and nothing else is taken for one.
#include <gtest/gtest.h>

#include <array>
#include <vector>

#include "transport/rdma/wire.hpp"

namespace evpl::transport::rdma {
namespace {

std::vector<std::uint8_t> written(const Hello& hello) {
    std::array<std::uint8_t, Hello::size_bytes> bytes;
    hello.write(bytes);
    return {bytes.begin(), bytes.end()};
}

constexpr Hello stream{8192, 0, 4, false};
constexpr Hello message{4096, 16u << 20, 500, true};

TEST(RdmaHello, ReadsWhatItWrote) {
    for (const Hello& hello : {stream, message}) {
        const auto read = Hello::read(written(hello));
        ASSERT_TRUE(read.has_value());
        EXPECT_EQ(read->block_bytes, hello.block_bytes);
        EXPECT_EQ(read->message_bytes, hello.message_bytes);
        EXPECT_EQ(read->credits, hello.credits);
        EXPECT_EQ(read->is_message, hello.is_message);
    }
}

TEST(RdmaHello, TakesNoNoticeOfPadding) {
    auto bytes = written(stream);
    bytes.resize(56, 0xa5);
    EXPECT_TRUE(Hello::read(bytes).has_value());
}

TEST(RdmaHello, IsNotReadFromFewerBytes) {
    const auto bytes = written(stream);
    for (std::size_t size = 0; size < bytes.size(); ++size) EXPECT_FALSE(Hello::read(std::span(bytes).first(size)).has_value()) << size;
}

// Magic, version and size are what tells a greeting from anything else.
TEST(RdmaHello, RefusesAnotherProtocol) {
    for (const std::size_t at : {0u, 1u, 2u, 3u, 4u}) {
        auto bytes = written(stream);
        bytes[at] ^= 0x20;
        EXPECT_FALSE(Hello::read(bytes).has_value()) << at;
    }
    auto longer = written(stream);
    longer[5] = 57;
    longer.resize(56);
    EXPECT_FALSE(Hello::read(longer).has_value()) << "it says that it is longer than what came";
}

TEST(RdmaHello, RefusesNumbersThatCannotBe) {
    EXPECT_FALSE(Hello::read(written({8192, 0, 0, false})).has_value()) << "no credits: nobody could ever speak";
    EXPECT_FALSE(Hello::read(written({100, 0, 4, false})).has_value()) << "blocks too small";
    EXPECT_FALSE(Hello::read(written({0xffffffff, 0, 4, false})).has_value()) << "blocks too large";
    EXPECT_FALSE(Hello::read(written({8192, 5, 4, false})).has_value()) << "a stream has no largest message";
    EXPECT_FALSE(Hello::read(written({8192, 0, 4, true})).has_value()) << "messages have one";
}

}  // namespace
}  // namespace evpl::transport::rdma
