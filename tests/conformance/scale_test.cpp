// Ten thousand connections on one loop; the clients live in a second process, which speaks plain epoll.
#include "support/helper.hpp"
#include "support/holder.hpp"
#include "support/limits.hpp"
#include "support/world.hpp"

namespace evpl::test {
namespace {

const RegisterHelper hold("hold", &hold_main);

struct Scale {
    Row row;
    std::size_t count;
};
std::ostream& operator<<(std::ostream& out, const Scale& scale) { return out << scale.row.url << " x " << scale.count; }

/// Streams that plain sockets can speak to.
std::vector<Scale> scales() {
    std::vector<Scale> all;
    for (const Row& row : rows_of({Kind::stream})) {
        const std::string_view url = row.url;
        if (url.find("127.0.0.1") == url.npos && url.find('%') == url.npos) continue;
        if (url.find("tier=") != url.npos || url == "tcp://127.0.0.1:0?zerocopy=true") continue;  // a variant of a row that is here already
        for (const std::size_t count : {1000u, 10'000u})
            if (!reduced || count == 1000) all.push_back({row, count});
    }
    return all;
}

class ScaleTest : public testing::TestWithParam<Scale> {
protected:
    static constexpr std::size_t broadcast_bytes = 1000;

    void SetUp() override {
        const Scale& scale = GetParam();
        if (const auto why = absence(scale.row)) GTEST_SKIP() << *why;
        if (sanitized && scale.count > 1000) GTEST_SKIP() << "10,000 connections are too many under a sanitizer; 1,000 run";
        const std::size_t needed = scale.count + 200, limit = raise_file_limit();
        if (limit < needed) GTEST_SKIP() << "needs RLIMIT_NOFILE " << needed << ", here it is " << limit;
    }

    /// All clients connected.
    void open(World& world, Child& clients) {
        Listener* listener = world.listen(crowd_);
        ASSERT_NE(listener, nullptr);
        const std::string url(listener->url());
        const std::string where = listener->port() != 0 ? "tcp:" + std::to_string(listener->port()) : "unix:" + url.substr(url.find("://") + 3);
        ASSERT_TRUE(clients.start_helper("hold", {where, std::to_string(GetParam().count), std::to_string(broadcast_bytes)}));
        ASSERT_TRUE(world.until([&] { return crowd_.members.size() == GetParam().count; }, 40_s)) << crowd_.members.size();
        ASSERT_TRUE(world.until([&] { return clients.has_said("connected"); }));
    }
    std::string all(const char* what) const { return what + (" " + std::to_string(GetParam().count)); }

    Crowd crowd_;
};

// Goal: one callback sends to all; idle connections hold no buffers before.
TEST_P(ScaleTest, BroadcastsToAllFromOneCallback) {
    World world{GetParam().row};
    Child clients;
    open(world, clients);
    ASSERT_FALSE(HasFatalFailure());
    EXPECT_LE(world.loop().metrics().slab_bytes, 8u << 20);
    EXPECT_EQ(world.loop().metrics().connections_open, GetParam().count);
    auto timer = world.loop().after(1_ms, [&] {
        auto text = world.loop().copy(pattern(broadcast_bytes));
        ASSERT_TRUE(text.ok());
        for (const ConnectionRef& member : crowd_.members) EXPECT_EQ(member.get()->send(Chain(text->share())).error(), Errc::none);
    });
    EXPECT_TRUE(world.until([&] { return clients.has_said(all("heard")); }, 30_s)) << clients.said();
    EXPECT_EQ(crowd_.closes, 0);
}

// Goal: one callback closes all; each on_close comes once, each client sees its end.
TEST_P(ScaleTest, ClosesAllFromOneCallback) {
    World world{GetParam().row};
    Child clients;
    open(world, clients);
    ASSERT_FALSE(HasFatalFailure());
    auto timer = world.loop().after(1_ms, [&] {
        for (const ConnectionRef& member : crowd_.members) member.get()->close();
    });
    EXPECT_TRUE(world.until([&] { return std::size_t(crowd_.closes) == GetParam().count; }, 30_s)) << crowd_.closes;
    EXPECT_TRUE(world.until([&] { return clients.has_said(all("closed")); }, 30_s)) << clients.said();
    EXPECT_EQ(world.loop().metrics().connections_open, 0u);
    for (const Error& why : crowd_.reasons) ASSERT_EQ(why, Errc::closed);
}

// Goal: stop() with all alive: run() returns after each on_close(stopped).
TEST_P(ScaleTest, StopsWithAllAlive) {
    World world{GetParam().row};
    Child clients;
    open(world, clients);
    ASSERT_FALSE(HasFatalFailure());
    auto timer = world.loop().after(1_ms, [&] { world.loop().stop(); });
    EXPECT_EQ(world.loop().run(), 0);
    EXPECT_EQ(std::size_t(crowd_.closes), GetParam().count);
    for (const Error& why : crowd_.reasons) ASSERT_EQ(why, Errc::stopped);
    EXPECT_TRUE(await([&] { return clients.has_said(all("closed")); }, 30_s)) << clients.said();
}

std::string name_of_scale(const testing::TestParamInfo<Scale>& info) { return info.param.row.name + ("_" + std::to_string(info.param.count)); }
INSTANTIATE_TEST_SUITE_P(Conformance, ScaleTest, testing::ValuesIn(scales()), name_of_scale);

}  // namespace
}  // namespace evpl::test
