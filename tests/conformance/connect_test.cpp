// connect() and listen(): who is there, who is not, who takes too long, and what the names may look like.
#include "support/sockets.hpp"
#include "support/world.hpp"

namespace evpl::test {
namespace {

class ConnectTest : public TransportTest {};
class EndpointTest : public TransportTest {};

// Goal: an open connection knows who it is and to whom it speaks.
TEST_P(ConnectTest, KnowsItsTransportAndPeer) {
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    Connection& c = *client.get();
    EXPECT_EQ(c.transport(), GetParam().scheme);
    EXPECT_EQ(c.caps().kind, GetParam().kind);
    EXPECT_EQ(&c.loop(), &world.loop());
    EXPECT_EQ(c.ref().get(), &c);
    EXPECT_TRUE(c.is_open());
    EXPECT_FALSE(c.remote_name().empty());
    EXPECT_EQ(c.remote_address(), server.get()->local_address());
    EXPECT_EQ(c.local_address(), server.get()->remote_address());
    if (c.remote_address().family == Address::Family::none) return;
    const auto asked = Endpoint::parse(world.where());
    ASSERT_TRUE(asked.ok());
    EXPECT_EQ(c.remote_address(), *Address::parse(asked->host(), asked->port()));
}

// Goal: the listener's url is where it can be reached, with the port it really has.
TEST_P(ConnectTest, TellsWhereItListens) {
    PlainPeer server;
    World world{GetParam()};
    Listener* listener = world.listen(server);
    ASSERT_NE(listener, nullptr);
    const auto parsed = Endpoint::parse(listener->url());
    ASSERT_TRUE(parsed.ok()) << listener->url();
    EXPECT_EQ(parsed->scheme(), GetParam().scheme);
    EXPECT_EQ(parsed->port(), listener->port());
    if (parsed->has_port()) {
        EXPECT_NE(listener->port(), 0);
    }
}

// Goal: where nobody listens the connect is refused: on_close without on_open, exactly once.
TEST_P(ConnectTest, IsRefusedWhereNobodyListens) {
    PlainPeer server, client;
    World world{GetParam()};
    ASSERT_NE(world.listen(server), nullptr);
    world.stop_listening();
    drive_for(world.loop(), 5_ms);
    const ConnectionRef ref = world.dial(client, within(5_s));
    EXPECT_NE(ref.get(), nullptr) << "news comes by callback";
    EXPECT_EQ(client.closes, 0) << "no callback runs inside a call";
    EXPECT_TRUE(world.until([&] { return client.closed(); }));
    EXPECT_EQ(client.opens, 0);
    EXPECT_EQ(client.closed_with, Errc::refused);
    EXPECT_EQ(client.closed_with.step(), Step::connect);
    EXPECT_EQ(ref.get(), nullptr);
    drive_for(world.loop(), 10_ms);
    EXPECT_EQ(client.closes, 1);
}

// Goal: a refused connect reports what was queued for it as not sent, and frees it.
TEST_P(ConnectTest, DropsWhatWasQueuedForARefusedConnect) {
    PlainPeer server, client;
    World world{GetParam()};
    ASSERT_NE(world.listen(server), nullptr);
    world.stop_listening();
    drive_for(world.loop(), 5_ms);
    client.ref = world.dial(client, within(5_s));
    ASSERT_NE(client.get(), nullptr);
    client.get()->send(pattern(300'000));
    EXPECT_TRUE(world.until([&] { return client.closed(); }));
    EXPECT_EQ(client.sent_bytes, 0u);
}

// Goal: a listener may be closed while the kernel's news of its peers waits for the next turn; that news finds nobody.
TEST_P(ConnectTest, ClosesAListenerWhoseNewsWaits) {
    std::unique_ptr<Listener> listeners[2];
    PlainPeer servers[2], clients[2];
    LoopOptions options = World::quiet();
    options.batch = 1;  // of two events one is left over
    World world{GetParam(), options};
    for (int i = 0; i < 2; ++i) {
        servers[i].when_open = [&, i](Connection&) { listeners[1 - i].reset(); };
        const std::string url = fresh_url(GetParam());
        auto made = listen(world.loop(), url, servers[i]);
        ASSERT_TRUE(made.ok()) << world.loop().last_failure();
        listeners[i] = std::make_unique<Listener>(*std::move(made));
        ASSERT_TRUE(connect(world.loop(), dial_url(url, listeners[i]->url()), clients[i], within(5_s)).ok());
    }
    EXPECT_TRUE(world.until(
        [&] { return servers[0].opens + servers[1].opens > 0 && clients[0].opens + clients[0].closes > 0 && clients[1].opens + clients[1].closes > 0; }));
    drive_for(world.loop(), 20_ms);
    for (auto& listener : listeners) listener.reset();
}

// Goal: a connect that is closed before it opens ends with cancelled, and never opens.
TEST_P(ConnectTest, CanBeCancelledBeforeItOpens) {
    PlainPeer client, quiet;
    World world{GetParam()};
    ASSERT_NE(world.listen([&](Connection&) -> PlainPeer& { return quiet; }), nullptr);
    const ConnectionRef ref = world.dial(client);
    ASSERT_NE(ref.get(), nullptr);
    ref.get()->close();
    EXPECT_EQ(client.closes, 0);
    EXPECT_TRUE(world.until([&] { return client.closed(); }));
    EXPECT_EQ(client.closed_with, Errc::cancelled);
    EXPECT_EQ(client.opens, 0);
    EXPECT_TRUE(world.until([&] { return quiet.opens == 0 || quiet.closed(); }));
}

// Goal: the limit of connect ends with the opening; the connection may live longer.
TEST_P(ConnectTest, OutlivesTheLimitOfItsConnect) {
    PlainPeer server, client;
    World world{GetParam()};
    ASSERT_NE(world.listen(server), nullptr);
    client.ref = world.dial(client, within(100_ms * patience));
    ASSERT_TRUE(world.until([&] { return client.open() && server.open(); }));
    drive_for(world.loop(), 250_ms * patience);
    EXPECT_FALSE(client.closed());
    client.get()->send("later");
    EXPECT_TRUE(world.until([&] { return server.received == "later"; }));
}

// Goal: a hundred connects in one turn all open.
TEST_P(ConnectTest, OpensManyAtOnce) {
    std::deque<PlainPeer> clients(100);
    int accepted = 0;
    struct Counts {
        int* count;
        void on_open(Connection&) { ++*count; }
    };
    World world{GetParam()};
    Listener* listener = world.listen([&](Connection&) { return Counts{&accepted}; });
    ASSERT_NE(listener, nullptr);
    for (PlainPeer& client : clients) world.dial(client);
    EXPECT_TRUE(world.until([&] {
        for (const PlainPeer& client : clients)
            if (!client.open()) return false;
        return accepted == 100;
    }));
    EXPECT_EQ(listener->metrics().accepted, 100u);
    EXPECT_EQ(listener->metrics().open, 100u);
}

// Goal: what goes with connect and accept is heard by the other side before it decides, and where there is none the call says so.
TEST_P(ConnectTest, CarriesPrivateDataOrSaysThatItCannot) {
    const std::string question = "who is there?", answer = "come in";
    const bool carries = caps().private_data_bytes_max > 0;
    std::string asked, answered;
    Error refused, too_late;
    PlainPeer server, client;
    const auto heard = [](Connection& c) { return std::string(reinterpret_cast<const char*>(c.private_data().data()), c.private_data().size()); };
    client.when_open = [&](Connection& c) {
        answered = heard(c);
        too_late = c.set_private_data(bytes_of("too late")).error();
    };
    World world{GetParam()};
    ASSERT_NE(world.listen([&](Connection& c) -> PlainPeer& {
        asked = heard(c);
        EXPECT_EQ(c.set_private_data(bytes_of(answer)).ok(), carries);
        return server;
    }),
              nullptr);
    world.dial([&](Connection& c) -> PlainPeer& {
        refused = c.set_private_data(bytes_of(question)).error();
        return client;
    });
    ASSERT_TRUE(world.until([&] { return client.open() && server.open(); })) << client.closed_with;
    EXPECT_EQ(too_late, Errc::misuse);
    EXPECT_EQ(refused, carries ? Errc::none : Errc::not_supported);
    EXPECT_EQ(asked.substr(0, question.size()), carries ? question : "");
    EXPECT_EQ(answered.substr(0, answer.size()), carries ? answer : "");
    EXPECT_EQ(asked.find_first_not_of('\0', question.size()), std::string::npos) << "padding is zeros";
}

// Goal: a peer that the handler's factory refuses never opens where the refusal reaches it in time, and always ends by name.
TEST_P(ConnectTest, TellsAPeerThatItsFactoryRefused) {
    const bool carries = caps().private_data_bytes_max > 0;
    std::string told;
    PlainPeer client;
    client.when_close = [&](Connection& c, Error) { told.assign(reinterpret_cast<const char*>(c.private_data().data()), c.private_data().size()); };
    World world{GetParam()};
    Listener* listener = world.listen([&](Connection& c) -> Result<PlainPeer> {
        if (carries) {
            EXPECT_TRUE(c.set_private_data(bytes_of("not you")).ok());
        }
        return Error(Errc::permission_denied);
    });
    ASSERT_NE(listener, nullptr);
    world.dial(client, within(10_s * patience));
    ASSERT_TRUE(world.until([&] { return client.closed(); }));
    EXPECT_TRUE(is_refusal(client.closed_with)) << client.closed_with;
    EXPECT_EQ(listener->metrics().refused, 1u);
    if (!carries) return;
    EXPECT_EQ(client.opens, 0);
    EXPECT_EQ(client.closed_with, Errc::refused);
    EXPECT_EQ(told.substr(0, 7), "not you");
}

// Goal: what a factory has said and then taken back does not reach the peer.
TEST_P(ConnectTest, TakesPrivateDataBack) {
    EVPL_NEEDS(private_data_bytes_max);
    std::string told;
    PlainPeer client;
    client.when_close = [&](Connection& c, Error) { told.assign(reinterpret_cast<const char*>(c.private_data().data()), c.private_data().size()); };
    World world{GetParam()};
    ASSERT_NE(world.listen([&](Connection& c) -> Result<PlainPeer> {
        EXPECT_TRUE(c.set_private_data(bytes_of("not you")).ok());
        EXPECT_TRUE(c.set_private_data({}).ok());
        return Error(Errc::permission_denied);
    }),
              nullptr);
    world.dial(client, within(10_s * patience));
    ASSERT_TRUE(world.until([&] { return client.closed(); }));
    EXPECT_EQ(client.closed_with, Errc::refused);
    EXPECT_EQ(told.find_first_not_of('\0'), std::string::npos) << told;
}

// Goal: the same endpoint cannot be listened at twice; it can once the first is gone.
TEST_P(ConnectTest, KeepsAnEndpointToOneListener) {
    PlainPeer server, client;
    World world{GetParam()};
    const std::string asked = fresh_url(GetParam());
    auto first = listen(world.loop(), asked, server);
    ASSERT_TRUE(first.ok()) << world.loop().last_failure();
    const std::string bound = dial_url(asked, first->url());
    auto second = listen(world.loop(), bound, server);
    ASSERT_FALSE(second.ok());
    EXPECT_EQ(second.error(), Errc::address_in_use);
    EXPECT_NE(world.loop().last_failure().find(bound.substr(bound.find("//") + 2, 8)), std::string_view::npos)
        << "the sentence names the input: " << world.loop().last_failure();
    first->close();
    drive_for(world.loop(), 5_ms);
    auto third = listen(world.loop(), bound, server);
    EXPECT_TRUE(third.ok()) << world.loop().last_failure();
}

// Goal: what is wrong with an endpoint is told at once, with a sentence, and nothing is created.
TEST_P(EndpointTest, TellsWhatIsWrongWithAnEndpoint) {
    struct NoCallback {
        void on_close(Connection&, Error) { ADD_FAILURE() << "nothing was created"; }
    };
    World world{GetParam()};
    const std::string good = fresh_url(GetParam());
    const std::pair<std::string, Errc> cases[] = {
        {"", Errc::bad_endpoint},
        {"no scheme at all", Errc::bad_endpoint},
        {std::string(GetParam().scheme) + "://", Errc::bad_endpoint},
        {"nonsense://127.0.0.1:80", Errc::unknown_scheme},
        {with_option(good, "no_such_option=1"), Errc::unknown_option},
    };
    for (const auto& [url, code] : cases) {
        SCOPED_TRACE(url);
        const auto connected = connect<NoCallback>(world.loop(), url);
        EXPECT_EQ(connected.error(), code);
        EXPECT_FALSE(world.loop().last_failure().empty());
        const auto listening = listen<NoCallback>(world.loop(), url);
        EXPECT_EQ(listening.error(), code);
        EXPECT_FALSE(world.loop().last_failure().empty());
    }
    EXPECT_NE(world.loop().last_failure().find("no_such_option"), std::string_view::npos) << world.loop().last_failure();
    drive_for(world.loop(), 5_ms);
}

/// IP transports of the stream kind: what only addresses can get wrong.
class AddressTest : public TransportTest {
protected:
    void SetUp() override {
        TransportTest::SetUp();
        if (std::string_view(GetParam().url).find("127.0.0.1") == std::string_view::npos) GTEST_SKIP() << GetParam().name << " has no IPv4 address";
    }
    std::string at(const std::string& rest) const { return std::string(GetParam().scheme) + "://" + rest; }
};

// Goal: an address of another machine cannot be listened at.
TEST_P(AddressTest, RefusesToListenElsewhere) {
    PlainPeer server;
    World world{GetParam()};
    EXPECT_EQ(listen(world.loop(), at("192.0.2.1:0"), server).error(), Errc::address_unavailable);
    EXPECT_EQ(listen(world.loop(), at("example.invalid:0"), server).error(), Errc::name_not_found);
    EXPECT_EQ(listen(world.loop(), at("127.0.0.1"), server).error(), Errc::bad_endpoint) << "a port is needed";
    EXPECT_EQ(listen(world.loop(), at("127.0.0.1:65536"), server).error(), Errc::bad_endpoint);
}

// Goal: an address nobody can reach ends with a named error within the limit.
TEST_P(AddressTest, GivesUpWhatCannotBeReached) {
    PlainPeer reserved, nowhere;
    reserved.when_open = nowhere.when_open = [](Connection& c) { c.close(); };
    World world{GetParam()};
    const Stopwatch watch;
    ASSERT_TRUE(connect(world.loop(), at("240.0.0.1:9"), reserved, within(400_ms)).ok());
    ASSERT_TRUE(connect(world.loop(), at("[100::1]:9"), nowhere, within(400_ms)).ok());
    EXPECT_TRUE(world.until([&] { return reserved.closed() && nowhere.closed(); }));
    if (reserved.opens + nowhere.opens > 0) GTEST_SKIP() << "this network answers for 240.0.0.1 or 100::1";
    EXPECT_LT(watch.elapsed(), 2_s * patience);
    for (const PlainPeer* peer : {&reserved, &nowhere}) {
        EXPECT_EQ(peer->opens, 0);
        EXPECT_TRUE(peer->closed_with == Errc::unreachable || peer->closed_with == Errc::timed_out) << peer->closed_with;
        EXPECT_EQ(peer->closed_with.step(), Step::connect);
    }
}

// Goal: a peer that answers nothing is given up after the limit of connect, not before.
TEST_P(AddressTest, GivesUpAPeerThatDoesNotAnswer) {
    BlackHole hole;
    if (!hole.fill()) GTEST_SKIP() << "this kernel lets connects through a full backlog";
    PlainPeer client;
    World world{GetParam()};
    const Stopwatch watch;
    ASSERT_TRUE(connect(world.loop(), at("127.0.0.1:" + std::to_string(hole.port)), client, within(200_ms)).ok());
    EXPECT_TRUE(world.until([&] { return client.closed(); }));
    EXPECT_GE(watch.elapsed(), 200_ms);
    EXPECT_LT(watch.elapsed(), 2_s * patience);
    EXPECT_EQ(client.closed_with, Errc::timed_out);
    EXPECT_EQ(client.closed_with.step(), Step::connect);
    EXPECT_EQ(client.opens, 0);
}

// Goal: a connect on its way can be cancelled.
TEST_P(AddressTest, CancelsAConnectOnItsWay) {
    BlackHole hole;
    if (!hole.fill()) GTEST_SKIP() << "this kernel lets connects through a full backlog";
    PlainPeer client;
    World world{GetParam()};
    const auto ref = connect(world.loop(), at("127.0.0.1:" + std::to_string(hole.port)), client);
    ASSERT_TRUE(ref.ok());
    drive_for(world.loop(), 30_ms);
    ASSERT_NE(ref->get(), nullptr);
    ref->get()->close();
    EXPECT_TRUE(world.until([&] { return client.closed(); }));
    EXPECT_EQ(client.closed_with, Errc::cancelled);
}

// Goal: `localhost` and `*` are understood, and stream:// finds a transport of the same wire format.
TEST_P(AddressTest, UnderstandsNamesOfThisMachine) {
    Peer server, by_name;
    World world{GetParam()};
    auto listener = listen(world.loop(), at("*:0"), server);
    ASSERT_TRUE(listener.ok()) << world.loop().last_failure();
    by_name.ref = *connect(world.loop(), at("localhost:" + std::to_string(listener->port())), by_name);
    EXPECT_TRUE(world.until([&] { return server.open() && by_name.open(); })) << by_name.closed_with;
    Peer stream_server, stream;
    auto any = listen(world.loop(), "stream://127.0.0.1:0", stream_server);
    ASSERT_TRUE(any.ok()) << world.loop().last_failure();
    ASSERT_TRUE(connect(world.loop(), at("127.0.0.1:" + std::to_string(any->port())), stream).ok());
    EXPECT_TRUE(world.until([&] { return stream_server.open() && stream.open(); })) << stream.closed_with;
}

// Goal: tiny socket buffers only make it slower: writes are split everywhere, the bytes stay whole.
TEST_P(AddressTest, WorksWithTinySocketBuffers) {
    PatternCheck check;
    Pump pump{.total = 1u << 20};
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client, "sndbuf=4096&rcvbuf=4096"));
    server.when_recv = [&](Connection& c) { check.take_all(c); };
    client.when_writable = std::ref(pump);
    pump(*client.get());
    EXPECT_TRUE(world.until([&] { return check.bytes >= pump.total || !check.good; }, 30_s)) << check.bytes;
    EXPECT_TRUE(check.good);
}

// Goal: a peer that resets in the middle is told as reset, whatever was queued.
TEST_P(AddressTest, TellsAResetFromAnEnd) {
    Pump pump{.total = 16u << 20};
    PlainPeer server;
    World world{GetParam()};
    Listener* listener = world.listen(server);
    ASSERT_NE(listener, nullptr);
    Fd peer = plain_dial(listener->port());
    ASSERT_TRUE(world.until([&] { return server.open(); }));
    pump(*server.get());
    set_linger_reset(peer.get());
    peer.reset();
    EXPECT_TRUE(world.until([&] { return server.closed(); }));
    EXPECT_EQ(server.closed_with, Errc::reset);
    EXPECT_EQ(server.closed_with.who(), Who::peer);
    EXPECT_LT(server.sent_bytes, pump.total);
}

INSTANTIATE_TEST_SUITE_P(Conformance, ConnectTest, connection_rows(), name_of_row);
INSTANTIATE_TEST_SUITE_P(Conformance, EndpointTest, connection_rows(), name_of_row);
INSTANTIATE_TEST_SUITE_P(Conformance, AddressTest, stream_rows(), name_of_row);

}  // namespace
}  // namespace evpl::test
