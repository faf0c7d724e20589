// Many connections that nobody uses, longer than the kernel is patient with a silent peer.
#include "support/helper.hpp"
#include "support/holder.hpp"
#include "support/limits.hpp"
#include "support/world.hpp"

namespace evpl::test {
namespace {

class IdleCrowdTest : public TransportTest {};

// Goal: connections that were opened together, and are probed together, outlive the loss of most of the probes. On loopback the kernel's own
// queue (net.core.netdev_max_backlog) loses them.
TEST_P(IdleCrowdTest, SlowKeepsACrowdOfIdleConnections) {
    constexpr std::size_t wanted = 8000;
    if (std::string_view(GetParam().url).find("127.0.0.1") == std::string_view::npos) GTEST_SKIP() << GetParam().name << " has no probes";
    if (std::string_view(GetParam().name) != GetParam().scheme) GTEST_SKIP() << "a variant of " << GetParam().scheme << ", which runs";
    if (std::getenv("EVPL_TEST_SLOW") == nullptr) GTEST_SKIP() << "takes a minute: set EVPL_TEST_SLOW=1, as make night does";
    if (raise_file_limit() < wanted + 200) GTEST_SKIP() << "needs RLIMIT_NOFILE " << wanted + 200;
    Crowd crowd;
    World world{GetParam()};
    Child peers;
    Listener* listener = world.listen(crowd);
    ASSERT_NE(listener, nullptr);
    ASSERT_TRUE(peers.start_helper("hold", {"tcp:" + std::to_string(listener->port()), std::to_string(wanted), "1"}));
    ASSERT_TRUE(world.until([&] { return crowd.members.size() == wanted && peers.has_said("connected"); }, 40_s)) << peers.said();
    drive_for(world.loop(), 60_s);
    EXPECT_EQ(crowd.closes, 0) << crowd.reasons.front();
    EXPECT_EQ(world.loop().metrics().connections_open, wanted);
}

INSTANTIATE_TEST_SUITE_P(Fault, IdleCrowdTest, stream_rows(), name_of_row);

}  // namespace
}  // namespace evpl::test
