// A cut cable: the peer's packets vanish in both directions. Needs root for a network namespace of its own.
#include "support/helper.hpp"
#include "support/holder.hpp"
#include "support/world.hpp"

namespace evpl::test {
namespace {

/// A network namespace that is linked to ours, 10.199.77.1 here and .2 there, until it is cut.
class FarAway {
public:
    FarAway() {
        ok_ = run("ip netns add " + name_) && run("ip link add " + here_ + " type veth peer name far netns " + name_) &&
              run("ip addr add 10.199.77.1/30 dev " + here_) && run("ip link set " + here_ + " up") &&
              run("ip -n " + name_ + " addr add 10.199.77.2/30 dev far") && run("ip -n " + name_ + " link set far up") &&
              run("ip netns exec " + name_ + " nft add table inet cut");
    }
    ~FarAway() {
        run("ip link del " + here_);
        run("ip netns del " + name_);
    }
    bool ok() const { return ok_; }
    const std::string& name() const { return name_; }
    bool cut() const {
        const std::string add = "ip netns exec " + name_ + " nft add chain inet cut ";
        return run(add + "in '{ type filter hook input priority 0; policy drop; }'") && run(add + "out '{ type filter hook output priority 0; policy drop; }'");
    }

private:
    static bool run(const std::string& command) { return std::system((command + " >/dev/null 2>&1").c_str()) == 0; }
    std::string name_ = "evpl" + std::to_string(getpid());
    std::string here_ = "ev" + std::to_string(getpid());
    bool ok_ = false;
};

class SilentPeerTest : public TransportTest {
protected:
    void SetUp() override {
        TransportTest::SetUp();
        const std::string_view url = GetParam().url;
        if (url.find("127.0.0.1") == url.npos) GTEST_SKIP() << GetParam().name << " has no cable to cut";
        if (std::getenv("EVPL_TEST_SLOW") == nullptr) GTEST_SKIP() << "takes half a minute: set EVPL_TEST_SLOW=1, as make night does";
    }
};

// Goal: a peer that vanished is noticed within 30 s by default, whether we wait for it or send to it.
TEST_P(SilentPeerTest, SlowNoticesACutCableByDefault) {
    FarAway far;
    if (!far.ok()) GTEST_SKIP() << "needs root, ip and nft for a network namespace";
    Crowd crowd;
    World world{GetParam()};
    Child peers;
    auto listener = listen(world.loop(), std::string(GetParam().scheme) + "://10.199.77.1:0", crowd);
    ASSERT_TRUE(listener.ok()) << world.loop().last_failure();
    const auto ip = find_program("ip");
    ASSERT_TRUE(ip.has_value());
    ASSERT_TRUE(
        peers.start({*ip, "netns", "exec", far.name(), own_path(), "--helper", "hold", "tcp:" + std::to_string(listener->port()) + "@10.199.77.1", "2", "1"}));
    ASSERT_TRUE(world.until([&] { return crowd.members.size() == 2; })) << peers.said();
    ASSERT_TRUE(far.cut());
    const Stopwatch watch;
    crowd.members[0].get()->send(pattern(10'000));
    EXPECT_TRUE(world.until([&] { return crowd.closes == 2; }, 40_s));
    EXPECT_LE(watch.elapsed(), 31_s);
    for (const Error& why : crowd.reasons) EXPECT_EQ(why, Errc::peer_silent);
}

INSTANTIATE_TEST_SUITE_P(Fault, SilentPeerTest, stream_rows(), name_of_row);

}  // namespace
}  // namespace evpl::test
