// A peer process that is killed in the middle of a message, at each of its bytes.
#include "support/helper.hpp"
#include "support/world.hpp"

namespace evpl::test {
namespace {

/// For each length: a process connects, sends so much of one message, and is killed. Arguments: port, message bytes, step.
int mortals_main(const std::vector<std::string>& arguments) {
    const auto port = std::uint16_t(std::stoul(arguments.at(0)));
    const std::size_t size = std::stoul(arguments.at(1)), step = std::stoul(arguments.at(2));
    const std::string wire = FramedPeer::message(size, 7);
    std::size_t died = 0;
    for (std::size_t length = 0; length < size; length += step) {
        const pid_t mortal = fork();
        if (mortal == 0) {
            const Fd fd = plain_dial(port);
            std::size_t sent = 0;
            while (fd && sent < length) {
                const ssize_t n = ::send(fd.get(), wire.data() + sent, length - sent, MSG_NOSIGNAL);
                if (n <= 0) _exit(1);
                sent += std::size_t(n);
            }
            if (fd) ::kill(getpid(), SIGKILL);
            _exit(1);
        }
        int status = 0;
        while (waitpid(mortal, &status, 0) < 0 && errno == EINTR) {}
        died += WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL ? 1 : 0;
    }
    std::printf("died %zu\n", died);
    return 0;
}
const RegisterHelper mortals("mortals", &mortals_main);

struct Counts {
    std::size_t messages = 0, closes = 0;
};
/// Takes whole messages; told of anything else it fails.
struct Reader {
    Counts& counts;
    Frame frame(std::span<const std::byte> head) {
        std::uint32_t size = 0;
        if (head.size() < sizeof size) return {};
        std::memcpy(&size, head.data(), sizeof size);
        return {.size_bytes = size};
    }
    void on_recv(Connection& peer) {
        for (auto m = peer.recv_message(); m && !m->empty(); m = peer.recv_message()) ++counts.messages;
    }
    void on_close(Connection&, Error why) {
        ++counts.closes;
        EXPECT_TRUE(is_departure(why) || why == Errc::truncated) << why;
    }
};

class KilledPeerTest : public TransportTest {
protected:
    void SetUp() override {
        TransportTest::SetUp();
        if (std::string_view(GetParam().url).find("127.0.0.1") == std::string_view::npos) GTEST_SKIP() << "plain sockets do not reach " << GetParam().name;
    }
    void kill_at_each(std::size_t size, std::size_t step) {
        const std::size_t deaths = (size + step - 1) / step;
        Counts counts;
        World world{GetParam()};
        Child peers;
        Listener* listener = world.listen([&](Connection&) { return Reader{counts}; });
        ASSERT_NE(listener, nullptr);
        ASSERT_TRUE(peers.start_helper("mortals", {std::to_string(listener->port()), std::to_string(size), std::to_string(step)}));
        EXPECT_TRUE(world.until([&] { return counts.closes == deaths; }, 300_s)) << counts.closes << " of " << deaths << "; " << peers.said();
        EXPECT_TRUE(await([&] { return peers.has_said("died " + std::to_string(deaths)); })) << peers.said();
        EXPECT_EQ(counts.messages, 0u);
    }
};

// Goal: whatever part of a message a killed process has sent, the handler never sees a message, and hears of the end once.
TEST_P(KilledPeerTest, NeverDeliversPartOfAMessage) {
    kill_at_each(200, 1);
    kill_at_each(64 << 10, 1009);
}

TEST_P(KilledPeerTest, SlowNeverDeliversPartOfAMessageAtAnyOf65536Bytes) {
    if (std::getenv("EVPL_TEST_SLOW") == nullptr) GTEST_SKIP() << "takes minutes: set EVPL_TEST_SLOW=1, as make night does";
    kill_at_each(64 << 10, 1);
}

INSTANTIATE_TEST_SUITE_P(Fault, KilledPeerTest, stream_rows(), name_of_row);

}  // namespace
}  // namespace evpl::test
