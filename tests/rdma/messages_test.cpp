// Messages of all sizes together: what is copied, what goes by reference and what goes in parts keep their order and their borders.
#include <gtest/gtest.h>

#include <cctype>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "evpl/evpl.hpp"
#include "rdma/lab_devices.hpp"
#include "support/patience.hpp"
#include "support/peer.hpp"

namespace evpl::test {
namespace {

class MessagesTest : public testing::TestWithParam<const char*> {
protected:
    void SetUp() override {
        address_ = address("EVPL_TEST_RDMA_ADDRESS");
        if (address_.empty() && std::getenv("EVPL_RDMA_LIBRARY") != nullptr) address_ = "10.77.0.1";
        if (address_.empty()) GTEST_SKIP() << "needs an RDMA device, or the double of libibverbs and librdmacm";
    }
    std::string address_;
};

/// Around what is sent inline, what is copied out of its block, and what a block holds; `number` tells one from another.
std::string message(std::size_t number) {
    static constexpr std::size_t sizes[] = {64, 1, 0, 220, 221, 64, 9000, 64, 512, 513, 64, 64, 30'000, 16, 15, 17, 100};
    std::string text(sizes[number % std::size(sizes)], char('a' + number % 26));
    if (text.size() >= 8) text.replace(0, 8, std::to_string(10'000'000 + number));
    return text;
}

// Goal: messages arrive whole and in order where small and large ones alternate, in batches of any length.
TEST_P(MessagesTest, KeepOrderWhereSmallAndLargeAlternate) {
    constexpr std::size_t total = 700;
    const bool raw = std::string_view(GetParam()) == "wire=raw";
    const std::size_t most = raw ? 8192 : SIZE_MAX;  // a receive of the peer's
    const std::size_t ahead = raw ? 16 : SIZE_MAX;   // its receives are for the users to count
    std::vector<std::string> sent, came;
    for (std::size_t i = 0; sent.size() < total; ++i) {
        if (std::string next = message(i); next.size() <= most) sent.push_back(std::move(next));
    }
    Peer server, client;
    server.when_recv = [&](Connection& c) {  // comes again for each
        const auto next = c.recv_message();
        ASSERT_TRUE(next.ok());
        std::string& text = came.emplace_back(next->size(), '\0');
        next->copy_to(std::as_writable_bytes(std::span(text)));
    };
    std::size_t next = 0, batch = 1;
    const auto fill = [&](Connection& c) {
        for (std::size_t n = 0; n < batch && next < total && next - came.size() < ahead && c.send_room() > sent[next].size(); ++n) c.send(sent[next++]);
        batch = batch % 23 + 1;
    };
    Loop loop{quiet()};
    auto listener = evpl::listen(loop, "rdma://" + address_ + ":0?" + GetParam(), server);
    ASSERT_TRUE(listener.ok()) << loop.last_failure();
    auto dialled = evpl::connect(loop, listener->url(), client);
    ASSERT_TRUE(dialled.ok()) << loop.last_failure();
    client.ref = *dialled;
    ASSERT_TRUE(drive(loop, [&] { return client.opens > 0 && server.opens > 0; })) << client.closed_with;
    EXPECT_TRUE(drive(loop,
                      [&] {
                          if (client.get() != nullptr && client.get()->queued() < 200'000) fill(*client.get());
                          return came.size() == total || client.closed();
                      }))
        << came.size() << " of " << total;
    ASSERT_EQ(came.size(), total) << client.closed_with << server.closed_with;
    for (std::size_t i = 0; i < total; ++i) ASSERT_TRUE(came[i] == sent[i]) << "message " << i << " of " << sent[i].size() << " bytes";
    std::size_t bytes = 0;
    for (const std::string& each : sent) bytes += each.size();
    EXPECT_TRUE(drive(loop, [&] { return client.sent_bytes == bytes; })) << client.sent_bytes << " of " << bytes;
    EXPECT_EQ(client.get()->queued(), 0u);
    client.get()->close();
    EXPECT_TRUE(drive(loop, [&] { return client.closed() && server.closed(); }));
}

INSTANTIATE_TEST_SUITE_P(Rdma, MessagesTest, testing::Values("mode=msg", "mode=msg&block=2048", "wire=raw"), [](const auto& each) {
    std::string name(each.param);
    for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
    return name;
});

}  // namespace
}  // namespace evpl::test
