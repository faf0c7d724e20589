// Datagram sockets for coroutines, over every datagram transport.
#include "co/served.hpp"

namespace evpl::test {
namespace {

class CoDatagramTest : public TransportTest {
protected:
    CoDatagramTest() : loop(World::quiet()) {}
    co::Datagrams open() {
        auto made = co::bind(loop, fresh_url(GetParam()));
        EXPECT_TRUE(made.ok()) << loop.last_failure();
        return *std::move(made);
    }
    bool done = false;
    Loop loop;
};

co::Task<> echo_packets(co::Datagrams& socket) {
    while (auto packet = co_await socket.recv_from())
        if (!co_await socket.send_to(packet->from, std::move(packet->bytes))) break;
}

TEST_P(CoDatagramTest, EchoesDatagramsOneByOneAlsoEmptyOnes) {
    auto server = open(), client = open();
    co::spawn(echo_packets(server), fail);
    const auto ask = [](co::Datagrams& socket, Address to, bool& out) -> co::Task<> {
        for (const std::string& text : {std::string("one"), std::string(), pattern(1000)}) {
            EXPECT_TRUE((co_await socket.send_to(to, text)).ok());
            auto packet = co_await socket.recv_from(co::within(10_s));
            EXPECT_TRUE(packet.ok());
            if (!packet) co_return;
            EXPECT_EQ(std::string_view(reinterpret_cast<const char*>(packet->bytes.data()), packet->bytes.size()), text);
            EXPECT_EQ(packet->from, to);
        }
        out = true;
    };
    co::spawn(ask(client, server.socket()->local_address(), done), fail);
    EXPECT_TRUE(drive(loop, [&] { return done; }));
    server.close();
    client.close();
    EXPECT_EQ(loop.run_until_idle(), 0);
}

TEST_P(CoDatagramTest, ReceivesEndByLimitTokenAndClose) {
    auto socket = open();
    co::Cancel token;
    std::string seen;
    const auto body = [](co::Datagrams& on, co::Cancel& cancel, std::string& out) -> co::Task<> {
        out += name_of((co_await on.recv_from(co::within(5_ms))).error().code());
        out += ", ";
        out += name_of((co_await on.recv_from(cancel)).error().code());
        out += ", ";
        out += name_of((co_await on.recv_from()).error().code());
        out += (co_await on.send_to(Address{}, "late")).ok() ? "!" : ".";
    };
    co::spawn(body(socket, token, seen), fail);
    drive_for(loop, 30_ms);
    token.cancel();
    socket.close();
    EXPECT_TRUE(drive(loop, [&] { return seen.ends_with('.'); })) << seen;
    EXPECT_EQ(seen, "timed_out, cancelled, closed.");
}

TEST_P(CoDatagramTest, ASecondReceiveAtATimeIsMisuse) {
    auto socket = open();
    co::Cancel token;
    Errc first = Errc::none, second = Errc::none;
    const auto body = [](co::Datagrams& on, co::Cancel& cancel, Errc& out) -> co::Task<> { out = (co_await on.recv_from(cancel)).error().code(); };
    co::spawn(body(socket, token, first), fail);
    co::spawn(body(socket, token, second), fail);
    EXPECT_EQ(second, Errc::misuse);
    token.cancel();
    EXPECT_EQ(first, Errc::cancelled);
}

TEST_P(CoDatagramTest, ADatagramThatIsTooLargeIsAnErrorAndTheSocketGoesOn) {
    auto socket = open();
    Errc got = Errc::none;
    const auto body = [](co::Datagrams& on, Errc& out) -> co::Task<> {
        out = (co_await on.send_to(on.socket()->local_address(), std::string(100'000, 'x'))).error().code();
    };
    co::spawn(body(socket, got), fail);
    EXPECT_EQ(got, Errc::too_large);
    EXPECT_NE(socket.socket(), nullptr);
}

TEST_P(CoDatagramTest, OperationsAllocateNothing) {
    auto server = open(), client = open();
    std::size_t made = 1;
    co::spawn(echo_packets(server), fail);
    const auto ask = [](Loop& on, co::Datagrams& socket, Address to, std::size_t& out, bool& end) -> co::Task<> {
        for (int i = 0; i < 300; ++i) {
            if (i == 100) out = news;
            (void)co_await socket.send_to(to, "0123456789");
            (void)co_await socket.recv_from(co::within(10_s));
            (void)co_await co::yield(on);
        }
        out = news - out;
        end = true;
    };
    co::spawn(ask(loop, client, server.socket()->local_address(), made, done), fail);
    EXPECT_TRUE(drive(loop, [&] { return done; }));
    EXPECT_EQ(made, 0u);
}

TEST_P(CoDatagramTest, TheEndOfTheLoopEndsReceives) {
    Errc got = Errc::none;
    {
        Loop own(World::quiet());
        auto made = co::bind(own, fresh_url(GetParam()));
        ASSERT_TRUE(made.ok());
        const auto body = [](co::Datagrams socket, Errc& out) -> co::Task<> { out = (co_await socket.recv_from()).error().code(); };
        co::spawn(body(*std::move(made), got), fail);
    }
    EXPECT_EQ(got, Errc::stopped);
}

TEST(CoBindTest, AnAddressThatIsTakenIsAnErrorWithItsName) {
    Loop loop(World::quiet());
    auto one = co::bind(loop, "udp://127.0.0.1:0");
    ASSERT_TRUE(one.ok());
    const std::string url(one->socket()->url());
    auto two = co::bind(loop, url);
    EXPECT_FALSE(two.ok());
    EXPECT_NE(loop.last_failure().find(url.substr(6)), std::string_view::npos) << loop.last_failure();
}

INSTANTIATE_TEST_SUITE_P(All, CoDatagramTest, datagram_rows(), name_of_row);

}  // namespace
}  // namespace evpl::test
