// wire=raw: bare SENDs, whose receives, sizes and refusals are the users' own business. Each way to get it wrong ends by name.
#include <gtest/gtest.h>

#include <fstream>
#include <string>

#include "evpl/co.hpp"
#include "evpl/evpl.h"
#include "evpl/evpl.hpp"
#include "rdma/lab_devices.hpp"
#include "support/pattern.hpp"
#include "support/peer.hpp"

namespace evpl::test {
namespace {

class RawTest : public testing::Test {
protected:
    void SetUp() override {
        if (!devices_.present()) GTEST_SKIP() << "needs an RDMA device: make lab";
    }
    /// `server` hears what comes to a fresh listener of `serving`, `client` connects with `options`; both are open.
    template <class S, class C>
    void open(Loop& serving, S& server, Loop& asking, C& client, const std::string& listen_options, const std::string& options) {
        auto made = evpl::listen(serving, "rdma://" + devices_.here + ":0?wire=raw" + listen_options, server);
        ASSERT_TRUE(made.ok()) << serving.last_failure();
        listener_ = *std::move(made);
        auto dialled = evpl::connect(asking, url(options), client);
        ASSERT_TRUE(dialled.ok()) << asking.last_failure();
        client.ref = *dialled;
        const Stopwatch watch;
        while (!(client.opens > 0 && server.opens > 0) && !client.closed() && watch.elapsed() < 15_s * patience) {
            serving.run_once(5_ms);
            asking.run_once(5_ms);
        }
        ASSERT_TRUE(client.open() && server.open()) << client.closed_with;
    }
    std::string url(const std::string& options) const {
        return "rdma://" + devices_.here + ":" + std::to_string(listener_.port()) + "?wire=raw&source=" + devices_.source() + options;
    }
    Devices devices_;
    Listener listener_;
};

// Goal: who connects is seen before it is answered, and a reject brings the reason.
TEST_F(RawTest, RejectsWithPrivateData) {
    PlainPeer client;
    std::string reason, question;
    client.when_close = [&](Connection& c, Error) { reason.assign(reinterpret_cast<const char*>(c.private_data().data()), c.private_data().size()); };
    Loop loop{quiet()};
    auto made = evpl::listen(loop, "rdma://" + devices_.here + ":0?wire=raw", [&](Connection& c) -> Result<PlainPeer> {
        question.assign(reinterpret_cast<const char*>(c.private_data().data()), c.private_data().size());
        EXPECT_EQ(c.set_private_data(bytes_of(std::string(c.caps().private_data_bytes_max + 1, 'x'))).error(), Errc::too_large);
        EXPECT_TRUE(c.set_private_data(bytes_of("version 2 only")).ok());
        return Error(Errc::protocol_error);
    });
    ASSERT_TRUE(made.ok()) << loop.last_failure();
    listener_ = *std::move(made);
    ASSERT_TRUE(evpl::connect(loop, url(""), [&](Connection& c) -> PlainPeer& {
                    EXPECT_TRUE(c.set_private_data(bytes_of("version 1")).ok());
                    return client;
                }).ok());
    ASSERT_TRUE(drive(loop, [&] { return client.closed(); }));
    EXPECT_EQ(client.opens, 0);
    EXPECT_EQ(client.closed_with, Errc::refused);
    EXPECT_EQ(client.closed_with.who(), Who::peer);
    EXPECT_EQ(question.substr(0, 9), "version 1");
    EXPECT_EQ(reason.substr(0, 14), "version 2 only");
    listener_.close();
}

// Goal: the same through the C interface: a factory sees what the peer said, answers, accepts or rejects, and who connects says its own.
TEST_F(RawTest, CarriesPrivateDataInC) {
    struct Side {
        bool rejects = false;
        std::string says, heard, heard_at_end;
        int opens = 0;
        std::uint32_t closed_with = EVPL_OK;
        evpl_error late = {};
    };
    const auto text = [](evpl_bytes bytes) { return std::string(static_cast<const char*>(bytes.data), bytes.size); };
    static const auto heard_by = text;
    evpl_handler handler = {sizeof handler};
    handler.on_open = [](void* self, evpl_connection* peer) {
        auto& side = *static_cast<Side*>(self);
        ++side.opens;
        side.heard = heard_by(evpl_connection_private_data(peer));
        side.late = evpl_connection_set_private_data(peer, "late", 4);
    };
    handler.on_close = [](void* self, evpl_connection* peer, evpl_error why) {
        auto& side = *static_cast<Side*>(self);
        side.heard_at_end = heard_by(evpl_connection_private_data(peer));
        side.closed_with = std::uint32_t(why.code);
    };
    evpl_factory factory = {sizeof factory};
    factory.build = [](void* context, evpl_connection* peer, void*, void** state) -> evpl_error {
        auto& side = *static_cast<Side*>(*state = context);
        side.heard = heard_by(evpl_connection_private_data(peer));
        EXPECT_EQ(evpl_connection_set_private_data(peer, side.says.data(), side.says.size()).code, EVPL_OK);
        evpl_error answer = {};
        if (side.rejects) answer.code = EVPL_PROTOCOL_ERROR;
        return answer;
    };
    evpl_loop* loop = nullptr;
    ASSERT_EQ(evpl_loop_new(nullptr, &loop).code, EVPL_OK);
    for (const bool rejects : {false, true}) {
        SCOPED_TRACE(rejects);
        Side server{rejects, rejects ? "no" : "yes"}, client{false, "may I?"};
        evpl_listener* listener = nullptr;
        factory.context = &server;
        ASSERT_EQ(evpl_listen_each(loop, ("rdma://" + devices_.here + ":0?wire=raw").c_str(), &handler, &factory, &listener).code, EVPL_OK);
        factory.context = &client;
        const std::string to = "rdma://" + devices_.here + ":" + std::to_string(evpl_listener_port(listener)) + "?wire=raw&source=" + devices_.source();
        evpl_connection_ref ref = {};
        ASSERT_EQ(evpl_connect_each(loop, to.c_str(), &handler, &factory, 0, &ref).code, EVPL_OK);
        const Stopwatch watch;
        while (client.opens == 0 && client.closed_with == EVPL_OK && watch.elapsed() < 15_s * patience) evpl_loop_run_once(loop, 5'000'000);
        EXPECT_EQ(client.opens, rejects ? 0 : 1);
        EXPECT_EQ((rejects ? client.heard_at_end : client.heard).substr(0, server.says.size()), server.says);
        EXPECT_EQ(server.heard.substr(0, 6), "may I?");
        if (rejects) {
            EXPECT_EQ(client.closed_with, std::uint32_t(EVPL_REFUSED));
        } else {
            EXPECT_EQ(client.late.code, EVPL_MISUSE);
            EXPECT_EQ(evpl_connection_set_private_data(evpl_connection_get(ref), nullptr, 1).code, EVPL_MISUSE);
            evpl_connection_close(evpl_connection_get(ref), {});
        }
        evpl_listener_free(listener);
        while (!rejects && (client.closed_with == EVPL_OK || server.closed_with == EVPL_OK) && watch.elapsed() < 15_s * patience)
            evpl_loop_run_once(loop, 5'000'000);
    }
    evpl_loop_free(loop);
}

// Goal: the same in coroutines: serve admits or rejects a peer before there is a stream, connect says its own.
TEST_F(RawTest, CarriesPrivateDataInCoroutines) {
    Loop loop{quiet()};
    std::string question, answer;
    int sessions = 0;
    Error rejected;
    const auto text = [](std::span<const std::byte> bytes) { return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()); };
    auto made = co::serve(
        loop, "rdma://" + devices_.here + ":0?wire=raw",
        [&](co::Stream peer) -> co::Task<> {
            ++sessions;
            while (co_await peer.recv_message()) {}
        },
        [&](Connection& peer) -> Result<void> {
            question = text(peer.private_data());
            if (const auto said = peer.set_private_data(bytes_of("yes")); !said) return said.error();
            if (question.substr(0, 6) != "may I?") return Error(Errc::protocol_error);
            return {};
        });
    ASSERT_TRUE(made.ok()) << loop.last_failure();
    listener_ = *std::move(made);
    bool done = false;
    const auto program = [&]() -> co::Task<> {
        auto peer = co_await co::connect(loop, url(""), {}, bytes_of("may I?"));
        EXPECT_TRUE(peer.ok()) << peer.error();
        if (peer) answer = text(peer->connection()->private_data());
        auto other = co_await co::connect(loop, url(""), {}, bytes_of("hello"));
        rejected = other.error();
        const std::string too_much(500, 'x');
        auto large = co_await co::connect(loop, url(""), {}, bytes_of(too_much));
        EXPECT_EQ(large.error(), Errc::too_large);
        done = true;
    };
    co::spawn(program(), [](std::exception_ptr) { ADD_FAILURE(); });
    EXPECT_TRUE(drive(
        loop, [&] { return done; }, 20_s));
    EXPECT_EQ(answer.substr(0, 3), "yes");
    EXPECT_EQ(rejected, Errc::refused);
    EXPECT_EQ(sessions, 1);
    listener_.close();
}

// Goal: a peer that never has a receive ready is given up by name after the retries, not for ever.
// Method: the server's loop stands still, so that its four receives are all there is.
TEST_F(RawTest, GivesUpAPeerThatIsNeverReady) {
    Peer server, client;
    Loop standing{quiet()}, loop{quiet()};
    open(standing, server, loop, client, "&receives=4", "&rnr_retry=1");
    ASSERT_FALSE(HasFatalFailure());
    for (int i = 0; i < 12; ++i) client.get()->send("a message that needs a receive");
    EXPECT_TRUE(drive(
        loop, [&] { return client.closed(); }, 20_s))
        << "the retries do not end";
    EXPECT_EQ(client.closed_with, Errc::receive_limit);
    EXPECT_EQ(client.closed_with.who(), Who::peer);
    listener_.close();
}

// Goal: a message larger than the receiver's block ends the connection by name at both ends, and reaches nobody.
TEST_F(RawTest, NamesAMessageThatFitsNoReceive) {
    Peer server, client;
    Loop loop{quiet()};
    open(loop, server, loop, client, "&block=1024", "&block=8192");
    ASSERT_FALSE(HasFatalFailure());
    EXPECT_EQ(client.get()->send(pattern(8193)).error(), Errc::too_large) << "no message of ours is larger than our own block";
    client.get()->send(pattern(1024));
    ASSERT_TRUE(drive(loop, [&] { return server.received.size() == 1024; }));
    client.get()->send(pattern(1025));
    EXPECT_TRUE(drive(
        loop, [&] { return client.closed() && server.closed(); }, 20_s));
    EXPECT_EQ(server.closed_with, Errc::too_large);
    // Soft-RoCE tells the sender only that the peer's device failed, and that may come after the peer's disconnect.
    EXPECT_TRUE(client.closed_with == Errc::too_large || client.closed_with == Errc::device_error || client.closed_with == Errc::reset) << client.closed_with;
    EXPECT_EQ(client.closed_with.who(), Who::peer);
    EXPECT_EQ(server.received.size(), 1024u);
    listener_.close();
}

// Goal: the reads that one side serves at a time are what the other may have under way, and both know; more of them wait and all end well.
TEST_F(RawTest, NegotiatesReads) {
    int done = 0;
    Peer server, client;
    client.when_completed = [&](Connection&, Completion& one) { done += one.error.ok() ? 1 : 1000; };
    Loop loop{quiet()};
    open(loop, server, loop, client, "&reads=2", "&reads=8");
    ASSERT_FALSE(HasFatalFailure());
    EXPECT_EQ(client.get()->caps().remote_reads_max, 2u);
    EXPECT_EQ(server.get()->caps().remote_reads_max, 2u);
    const auto region = server.get()->expose(*loop.allocate(10'000), Access::read);
    ASSERT_TRUE(region.ok()) << region.error();
    for (int i = 0; i < 20; ++i) ASSERT_TRUE(client.get()->read(*region, 0, *loop.allocate(10'000)).ok());
    EXPECT_TRUE(drive(
        loop, [&] { return done == 20 || client.closed(); }, 20_s));
    EXPECT_EQ(done, 20);
    listener_.close();
}

/// Packets that the device at `here` has sent.
std::uint64_t sent_packets() {
    std::uint64_t count = 0;
    std::ifstream("/sys/class/infiniband/rxe0/ports/1/hw_counters/sent_pkts") >> count;
    return count;
}

// Goal: the path that the user asks for is the one taken: packets are as small as they should be. One that does not exist ends by name.
TEST_F(RawTest, TakesThePathAskedFor) {
    Peer server, client, lost;
    Loop loop{quiet()};
    open(loop, server, loop, client, "&mtu=256&sl=2&gid_index=1", "&mtu=256&sl=2&gid_index=1");
    ASSERT_FALSE(HasFatalFailure());
    const std::uint64_t before = sent_packets();
    for (int i = 0; i < 10; ++i) server.get()->send(pattern(8000));
    ASSERT_TRUE(drive(loop, [&] { return client.received.size() == 80'000; }));
    // The kernel shows a number that may be 10 ms old.
    EXPECT_TRUE(await([&] { return sent_packets() - before >= 10u * 8000 / 256; }, 1_s)) << "packets are larger than asked for: " << sent_packets() - before;
    auto other = evpl::listen(loop, "rdma://" + devices_.here + ":0?wire=raw", [](Connection&) { return PlainPeer{}; });
    ASSERT_TRUE(other.ok()) << loop.last_failure();
    listener_ = *std::move(other);
    ASSERT_TRUE(evpl::connect(loop, url("&gid_index=250"), lost, within(10_s)).ok());
    EXPECT_TRUE(drive(
        loop, [&] { return lost.closed(); }, 30_s));
    EXPECT_EQ(lost.opens, 0);
    EXPECT_FALSE(lost.closed_with == Errc::timed_out) << lost.closed_with;
    listener_.close();
}

// Goal: a sender that is ahead is held by its queue, and nothing is lost, reordered or merged.
TEST_F(RawTest, KeepsMessagesOfAFastSender) {
    constexpr std::size_t count = 600;
    std::size_t sent = 0, arrived = 0, wrong = 0;
    Peer server, client;
    Loop loop{quiet()};
    open(loop, server, loop, client, "&receives=64", "&depth=32");
    ASSERT_FALSE(HasFatalFailure());
    const auto size_of = [](std::size_t i) { return i * 131 % 8192; };
    server.when_recv = [&](Connection& c) {
        while (c.has_message()) {
            const auto message = c.recv_message();
            wrong += !message || text_of(*message) != pattern(size_of(arrived), arrived) ? 1 : 0;
            ++arrived;
        }
    };
    client.when_writable = [&](Connection& c) {
        while (sent < count) {
            const Flow flow = c.send(pattern(size_of(sent), sent));
            ASSERT_EQ(flow.error(), Errc::none);
            ++sent;
            if (!flow) return;
        }
        c.shutdown();
    };
    client.when_writable(*client.get());
    EXPECT_TRUE(drive(
        loop, [&] { return client.closed() && server.closed(); }, 60_s))
        << arrived;
    EXPECT_EQ(arrived, count);
    EXPECT_EQ(wrong, 0u);
    EXPECT_EQ(client.closed_with, Errc::end);
    EXPECT_EQ(server.closed_with, Errc::end);
    listener_.close();
}

}  // namespace
}  // namespace evpl::test
