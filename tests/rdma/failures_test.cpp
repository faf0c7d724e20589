// What goes wrong with devices, wires and peers, over the double of the vendor's libraries: each failure is a named error, told once; others go on, and
// nothing is left with the device.
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <infiniband/verbs.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "core/connection_state.hpp"
#include "evpl/evpl.hpp"
#include "memory/domain.hpp"
#include "support/patience.hpp"
#include "support/pattern.hpp"
#include "support/peer.hpp"

namespace evpl::test {
namespace {

const std::string first_device = "10.77.0.1", second_device = "10.77.0.2";

#ifdef VERBS_DOUBLE_PATH
template <class Function>
Function* of_double(const char* name) {
    static void* const library = dlopen(VERBS_DOUBLE_PATH, RTLD_NOW | RTLD_LOCAL);
    return reinterpret_cast<Function*>(library != nullptr ? dlsym(library, name) : nullptr);
}
#else
template <class Function>
Function* of_double(const char*) {
    return nullptr;
}
#endif
void tell(const std::string& what) { of_double<void(const char*)>("verbs_double_tell")(what.c_str()); }
long count(const char* what) { return of_double<long(const char*)>("verbs_double_count")(what); }

/// What the library says meanwhile.
class Log {
public:
    Log() { set_log(&Log::take, this, LogLevel::warning); }
    ~Log() { set_log(nullptr, nullptr, LogLevel::warning); }
    bool has(std::string_view part) {
        const std::lock_guard lock(mutex_);
        return text_.find(part) != text_.npos;
    }

private:
    static void take(void* self, LogLevel, std::string_view line) {
        auto& log = *static_cast<Log*>(self);
        const std::lock_guard lock(log.mutex_);
        log.text_ += std::string(line) + "\n";
    }
    std::mutex mutex_;
    std::string text_;
};

class FailureTest : public testing::Test {
protected:
    void SetUp() override {
        if (std::getenv("EVPL_RDMA_LIBRARY") == nullptr) GTEST_SKIP() << "needs the double of libibverbs and librdmacm, not a device";
    }
    void TearDown() override {
        if (std::getenv("EVPL_RDMA_LIBRARY") == nullptr) return;
        end();
        for (const char* kind : {"qp", "cq", "srq", "channel", "ah", "id", "unacked", "mr"})
            EXPECT_TRUE(await([&] { return count(kind) == 0; }, 3_s)) << count(kind) << " of " << kind << " are left with the device";
        EXPECT_EQ(count("overruns"), 0);
        tell(
            "restore=0,restore=1,port_up=0,port_up=1,cqe=65536,srq=16384,memlock=18446744073709551615,late_established=0,late_disconnected=0,late_rejected=0,"
            "rnr=0,rnr_ms=20,mr=0,qp=0,cq=0,send=0,note=0,repeat=0,post=0,overrun=0,qp_fatal=0");
    }
    Loop& loop() {
        if (!loop_) {
            LoopOptions options;
            options.mode = Mode::event;
            options.stall = 60_s;
            loop_.emplace(options);
        }
        return *loop_;
    }
    void listen_at(const std::string& address, const std::string& query = "") {
        auto made = evpl::listen(loop(), "rdma://" + address + ":0" + query, [this](Connection&) -> Peer& { return servers_.emplace_back(); });
        ASSERT_TRUE(made.ok()) << loop().last_failure();
        listener_ = *std::move(made);
        url_ = std::string(listener_.url());
    }
    void dial(Peer& client, const std::string& query = "") {
        auto made = evpl::connect(loop(), url_ + query, client, within(10_s));
        ASSERT_TRUE(made.ok()) << loop().last_failure();
        client.ref = *made;
    }
    void open(Peer& client, const std::string& query = "") {
        const std::size_t before = servers_.size();
        dial(client, query);
        ASSERT_TRUE(until([&] { return (client.opens > 0 && servers_.size() > before && servers_.back().opens > 0) || client.closed(); }));
        ASSERT_TRUE(client.open()) << client.closed_with;
    }
    /// Two connections to a new listener, one after the other.
    void open_both(Peer& one, Peer& another, const std::string& query = "") {
        listen_at(first_device, query);
        for (Peer* client : {&one, &another}) {
            ASSERT_FALSE(HasFatalFailure());
            open(*client);
        }
    }
    template <class Done>
    bool until(Done done) {
        return drive(loop(), done);
    }
    /// The connection still carries bytes.
    void expect_alive(Peer& client, Peer& server) {
        ASSERT_TRUE(client.open());
        const std::string before = server.received;
        client.get()->send("still here");
        EXPECT_TRUE(until([&] { return server.received == before + "still here"; })) << client.closed_with << server.closed_with;
    }
    /// A connect goes wrong while another connection is open.
    void expect_failed_connect(const char* fault, Errc code) {
        SCOPED_TRACE(fault);
        Peer& other = peer();
        Peer& client = peer();
        listen_at(first_device);
        open(other);
        ASSERT_FALSE(HasFatalFailure());
        Peer& server = servers_.back();
        tell(fault);
        dial(client);
        EXPECT_TRUE(until([&] { return client.closed(); }));
        EXPECT_EQ(client.opens, 0);
        EXPECT_EQ(client.closed_with, code);
        EXPECT_TRUE(client.closed_with.step() == Step::connect || client.closed_with.step() == Step::open) << client.closed_with;
        expect_alive(other, server);
        drive_for(loop(), 10_ms);
        end();
    }
    /// A fault hits an open connection's next send while another connection is open.
    void expect_failed_send(const std::string& fault, Errc of_client, Errc of_server) {
        SCOPED_TRACE(fault);
        Peer& other = peer();
        Peer& client = peer();
        open_both(other, client);
        ASSERT_FALSE(HasFatalFailure());
        Peer &other_server = servers_.end()[-2], &server = servers_.back();
        tell(fault);
        client.get()->send("this goes wrong");
        EXPECT_TRUE(until([&] { return client.closed() && server.closed(); }));
        EXPECT_EQ(client.closed_with, of_client);
        EXPECT_EQ(server.closed_with, of_server);
        expect_alive(other, other_server);
        end();
    }

    /// Handlers live as long as the loop.
    Peer& peer() { return clients_.emplace_back(); }
    /// The loop ends with all that is on it.
    void end() {
        listener_.close();
        loop_.reset();
        servers_.clear();
        clients_.clear();
    }

    std::deque<Peer> servers_, clients_;
    std::optional<Loop> loop_;
    Listener listener_;
    std::string url_;
};

// Goal: whatever the connection manager answers, a connect ends once, by name.
TEST_F(FailureTest, NamesWhyAConnectFailed) {
    expect_failed_connect("address_error=1", Errc::unreachable);
    expect_failed_connect("route_error=1", Errc::unreachable);
    expect_failed_connect("unreachable=1", Errc::timed_out);
    expect_failed_connect("connect_error=1", Errc::device_error);
    expect_failed_connect("reject=1", Errc::refused);
    expect_failed_connect("hello_request=1", Errc::refused);
    expect_failed_connect("hello_accept=1", Errc::protocol_error);
    expect_failed_connect("id=1", Errc::out_of_memory);
}

// Goal: a manager that never answers is given up at the limit.
TEST_F(FailureTest, GivesUpAConnectThatNobodyAnswers) {
    Peer& client = peer();
    listen_at(first_device);
    tell("silent=1");
    auto made = evpl::connect(loop(), url_, client, within(200_ms));
    ASSERT_TRUE(made.ok());
    EXPECT_TRUE(until([&] { return client.closed(); }));
    EXPECT_EQ(client.closed_with, Errc::timed_out);
}

// Goal: a queue pair that cannot be made ends this connect alone. Twice refused: once with and once without inline data.
TEST_F(FailureTest, NamesAQueuePairThatCannotBeMade) { expect_failed_connect("qp=2", Errc::out_of_memory); }

// Goal: queues that cannot be made are named, and made by the next connect.
TEST_F(FailureTest, MakesItsQueuesWhenTheyCanBeMadeAgain) {
    for (const char* fault : {"cq=1", "srq_made=1"}) {
        SCOPED_TRACE(fault);
        Peer& client = peer();
        Peer& next = peer();
        listen_at(first_device);
        tell(fault);
        dial(client);
        EXPECT_TRUE(until([&] { return client.closed(); }));
        EXPECT_EQ(client.closed_with, Errc::out_of_memory);
        open(next);
        expect_alive(next, servers_.back());
        end();
    }
}

// Goal: every status of a failed send has a name, and only its own connection ends.
TEST_F(FailureTest, NamesWhyASendFailed) {
    const std::pair<ibv_wc_status, Errc> cases[] = {
        {IBV_WC_LOC_QP_OP_ERR, Errc::device_error},     {IBV_WC_LOC_PROT_ERR, Errc::device_error},       {IBV_WC_WR_FLUSH_ERR, Errc::reset},
        {IBV_WC_REM_INV_REQ_ERR, Errc::protocol_error}, {IBV_WC_REM_ACCESS_ERR, Errc::remote_access},    {IBV_WC_REM_OP_ERR, Errc::device_error},
        {IBV_WC_RETRY_EXC_ERR, Errc::peer_silent},      {IBV_WC_RNR_RETRY_EXC_ERR, Errc::receive_limit}, {IBV_WC_FATAL_ERR, Errc::device_error}};
    for (const auto& [status, code] : cases) expect_failed_send("send_status=" + std::to_string(int(status)) + ",send=1", code, Errc::reset);
}

// Goal: a send that the device does not take ends its connection by name.
TEST_F(FailureTest, NamesASendThatTheDeviceRefuses) { expect_failed_send("post=1", Errc::out_of_memory, Errc::reset); }

// Goal: a peer that breaks the protocol, by nonsense or by sending more than it may, is found out, and harms nobody else.
TEST_F(FailureTest, FindsOutAPeerThatBreaksTheProtocol) {
    expect_failed_send("note=1", Errc::reset, Errc::protocol_error);
    expect_failed_send("repeat=1", Errc::reset, Errc::protocol_error);
}

// Goal: a receiver that is not ready for a while costs time; one that never is, is given up.
TEST_F(FailureTest, TriesAgainAtAReceiverThatIsNotReady) {
    Peer& client = peer();
    listen_at(first_device);
    open(client, "?rnr_retry=5");
    ASSERT_FALSE(HasFatalFailure());
    tell("rnr_ms=1,rnr=3");
    expect_alive(client, servers_.back());
    tell("rnr=1000");
    client.get()->send("never");
    EXPECT_TRUE(until([&] { return client.closed() && servers_.back().closed(); }));
    EXPECT_EQ(client.closed_with, Errc::receive_limit);
}

// Goal: bytes that are there before the manager has told the server that it is connected are not lost.
TEST_F(FailureTest, TakesBytesBeforeItIsToldThatItIsConnected) {
    Peer& client = peer();
    client.when_open = [](Connection& c) { c.send("early"); };
    tell("late_established=300");
    listen_at(first_device);
    const Stopwatch watch;
    dial(client);
    EXPECT_TRUE(until([&] { return !servers_.empty() && servers_.back().received == "early"; }));
    EXPECT_LT(watch.elapsed(), 300_ms * patience);
    expect_alive(client, servers_.back());
}

// Goal: who is refused hears that, although its receives came back, flushed, before the manager's word.
TEST_F(FailureTest, HearsThatItIsRefusedAfterItsReceivesWereFlushed) {
    Peer& client = peer();
    tell("late_rejected=50");
    auto made = evpl::listen(loop(), std::string("rdma://") + first_device + ":0?wire=raw", [](Connection& c) -> Result<PlainPeer> {
        EXPECT_TRUE(c.set_private_data(bytes_of("not you")).ok());
        return Error(Errc::permission_denied);
    });
    ASSERT_TRUE(made.ok()) << loop().last_failure();
    std::string told;
    client.when_close = [&](Connection& c, Error) { told.assign(reinterpret_cast<const char*>(c.private_data().data()), c.private_data().size()); };
    ASSERT_TRUE(evpl::connect(loop(), made->url(), client, within(5_s * patience)).ok());
    EXPECT_TRUE(until([&] { return client.closed(); }));
    EXPECT_EQ(client.closed_with, Errc::refused);
    EXPECT_EQ(told.substr(0, 7), "not you");
    made->close();
}

// Goal: a device that is taken away, or breaks, ends its own connections and tells its listener; those of another device go on; when it comes back
// it is used again.
TEST_F(FailureTest, LosesADeviceAndUsesItAgain) {
    for (const char* fault : {"remove=0", "fatal=0"}) {
        SCOPED_TRACE(fault);
        Log log;
        Peer& client = peer();
        Peer& other = peer();
        Peer& again = peer();
        listen_at(second_device);
        open(other);
        ASSERT_FALSE(HasFatalFailure());
        Peer& other_server = servers_.back();
        Listener kept = std::move(listener_);
        listen_at(first_device);
        open(client);
        ASSERT_FALSE(HasFatalFailure());
        Peer& server = servers_.back();
        expect_alive(client, server);
        tell(fault);
        client.get()->send("into nothing");
        EXPECT_TRUE(until([&] { return client.closed() && server.closed(); }));
        EXPECT_EQ(client.closed_with, Errc::device_lost);
        EXPECT_EQ(server.closed_with, Errc::device_lost);
        EXPECT_TRUE(until([&] { return log.has("the listener at rdma://10.77.0.1"); }));
        expect_alive(other, other_server);
        EXPECT_EQ(evpl::listen(loop(), "rdma://" + first_device + ":0", again).error(), Errc::address_unavailable);
        tell("restore=0");
        listener_.close();
        listen_at(first_device);
        open(again);
        expect_alive(again, servers_.back());
        kept.close();
        end();
    }
}

// Goal: a device may come and go more often than there are protection domains, also with datagram sockets, idle loops and connections of other
// devices; each time it is used as new, and nothing of its former selves is left.
TEST_F(FailureTest, UsesADeviceThatComesBackAnyNumberOfTimes) {
    constexpr int rounds = 70;  // 64 domains are all there are
    struct Socket {
        int closes = 0;
        void on_close(Datagram&, Error) { ++closes; }
    };
    std::deque<Socket> sockets;
    Peer& other = peer();
    listen_at(second_device);
    open(other);
    ASSERT_FALSE(HasFatalFailure());
    Peer& other_server = servers_.back();
    Listener kept = std::move(listener_);
    const long before = count("pd");
    for (int round = 0; round < rounds; ++round) {
        SCOPED_TRACE(round);
        Peer& client = peer();
        listen_at(first_device);
        open(client);
        ASSERT_FALSE(HasFatalFailure());
        Peer& server = servers_.back();
        expect_alive(client, server);
        Socket& socket = sockets.emplace_back();
        const bool with_socket = round % 4 == 1, idle = round % 4 == 2;
        if (with_socket) {
            ASSERT_TRUE(evpl::bind(loop(), "rdma-ud://" + first_device + ":0", socket).ok()) << loop().last_failure();
        }
        if (idle) {  // nothing but queues and a listener are there when it goes
            client.get()->close();
            EXPECT_TRUE(until([&] { return client.closed() && server.closed() && count("qp") == 2; })) << count("qp");
        }
        tell(round % 2 == 0 ? "remove=0" : "fatal=0");
        EXPECT_TRUE(until([&] { return client.closed() && server.closed() && socket.closes == (with_socket ? 1 : 0); }));
        EXPECT_TRUE(until([&] { return count("pd") <= before; })) << count("pd") << " protection domains, there were " << before;
        listener_.close();
        tell("restore=0");
    }
    expect_alive(other, other_server);
    kept.close();
    end();
}

// Goal: peers that wait at a paused listener and go before it resumes are not answered; later ones are.
TEST_F(FailureTest, DoesNotAnswerPeersThatLeftABacklog) {
    listen_at(first_device);
    listener_.pause();
    for (const char* fault : {"", "port_down=0"}) {
        SCOPED_TRACE(fault);
        Peer& first = peer();
        Peer& second = peer();
        dial(first);
        dial(second);
        EXPECT_TRUE(until([&] { return count("qp") == 4; })) << "a queue pair for each end: " << count("qp");
        if (*fault != '\0') tell(fault);
        else first.get()->close(Error(Errc::cancelled)), second.get()->close(Error(Errc::cancelled));
        EXPECT_TRUE(until([&] { return first.closed() && second.closed(); }));
        drive_for(loop(), 20_ms);
        EXPECT_EQ(first.opens + second.opens, 0);
        EXPECT_TRUE(until([&] { return count("qp") == 0; })) << count("qp");
    }
    tell("port_up=0");
    listener_.resume();
    drive_for(loop(), 20_ms);
    EXPECT_TRUE(servers_.empty()) << "peers that had gone were answered";
    Peer& late = peer();
    open(late);
    expect_alive(late, servers_.back());
}

// Goal: peers whose port goes down while a listener resumes are answered or not, and end by name in either case.
TEST_F(FailureTest, EndsPeersOfABacklogThatIsServedWhileThePortGoesDown) {
    listen_at(first_device);
    for (int round = 0; round < 30; ++round) {
        listener_.pause();
        Peer& first = peer();
        Peer& second = peer();
        dial(first);
        dial(second);
        EXPECT_TRUE(until([&] { return count("qp") == 4; })) << "a queue pair for each end: " << count("qp");
        const long heard = count("async_heard");
        tell("port_down=0");
        EXPECT_TRUE(await([&] { return count("async_heard") > heard; })) << "the loop does not turn meanwhile";
        listener_.resume();
        EXPECT_TRUE(until([&] { return first.closed() && second.closed() && count("qp") == 0; })) << count("qp");
        for (const Peer& server : servers_) EXPECT_TRUE(server.closed());
        tell("port_up=0");
    }
}

// Goal: a port that goes down ends its connections at once, not after retries; connects work when it is back.
TEST_F(FailureTest, EndsConnectionsOfAPortThatGoesDown) {
    Peer& client = peer();
    Peer& again = peer();
    listen_at(first_device);
    open(client);
    ASSERT_FALSE(HasFatalFailure());
    tell("port_down=0");
    EXPECT_TRUE(until([&] { return client.closed() && servers_.back().closed(); }));
    EXPECT_EQ(client.closed_with, Errc::device_lost);
    EXPECT_EQ(client.closed_with.os(), ENETDOWN);
    tell("port_up=0");
    open(again);
    expect_alive(again, servers_.back());
}

// Goal: a completion queue that the device declares broken ends the connections on it by name, at both ends, also when nothing completes any more;
// the other device's go on, and the next connection gets a queue that works.
TEST_F(FailureTest, ReplacesACompletionQueueThatHasOverrun) {
    for (int round = 0; round < 3; ++round) {
        SCOPED_TRACE(round);
        Peer& other = peer();
        Peer& client = peer();
        Peer& idle = peer();
        Peer& next = peer();
        listen_at(second_device);
        open(other, "?source=" + second_device);
        ASSERT_FALSE(HasFatalFailure());
        Peer& other_server = servers_.back();
        Listener kept = std::move(listener_);
        listen_at(first_device);
        open(client, "?source=" + first_device);
        ASSERT_FALSE(HasFatalFailure());
        Peer& server = servers_.back();
        open(idle, "?source=" + first_device);
        ASSERT_FALSE(HasFatalFailure());
        expect_alive(client, server);
        tell("overrun=1");
        client.get()->send("nobody hears of this");
        EXPECT_TRUE(until([&] { return client.closed() && server.closed() && idle.closed() && servers_.back().closed(); }));
        for (const Peer* each : {&client, &server, &idle, &servers_.back()}) EXPECT_EQ(each->closed_with, Errc::device_error);
        expect_alive(other, other_server);
        open(next, "?source=" + first_device);
        ASSERT_FALSE(HasFatalFailure());
        expect_alive(next, servers_.back());
        EXPECT_TRUE(until([&] { return count("cq") == 2; })) << count("cq") << " completion queues, one per device is in use";
        kept.close();
        end();
    }
}

// Goal: a queue pair that the device declares broken ends its own connection alone, by name.
TEST_F(FailureTest, NamesAQueuePairThatTheDeviceGivesUp) { expect_failed_send("qp_fatal=1", Errc::device_error, Errc::reset); }

// Goal: memory that the device does not take, for whatever limit, is a named error and a line that says what to raise; later connects work.
TEST_F(FailureTest, NamesMemoryThatCannotBeRegistered) {
    Log log;
    Peer& client = peer();
    Peer& next = peer();
    listen_at(first_device);
    tell("memlock=65536");
    dial(client);
    EXPECT_TRUE(until([&] { return client.closed(); }));
    EXPECT_EQ(client.closed_with, Errc::out_of_buffers);
    EXPECT_TRUE(log.has("raise it (ulimit -l"));
    listener_.close();
    loop_.reset();
    tell("memlock=18446744073709551615");
    listen_at(first_device);
    open(next);
    expect_alive(next, servers_.back());
}

// Goal: a small message that comes when the loop has no memory left ends its own connection by name, and no other one.
TEST_F(FailureTest, NamesAMessageForWhichThereIsNoMemory) {
    LoopOptions options;
    options.mode = Mode::event;
    options.stall = 60_s;
    options.memory_bytes_max = 64u << 20;
    loop_.emplace(options);
    Peer& other = peer();
    Peer& client = peer();
    open_both(other, client, "?mode=msg");
    ASSERT_FALSE(HasFatalFailure());
    Peer &other_server = servers_.end()[-2], &server = servers_.back();
    const std::string message(500, 'm');                         // so few bytes are copied
    for (int i = 0; i < 1200; ++i) client.get()->send(message);  // to a buffer of 256 KiB, which they do not fit
    std::vector<Buffer> held;
    while (auto more = loop().allocate(256u << 10)) held.push_back(*std::move(more));
    EXPECT_GT(held.size(), 10u);
    EXPECT_TRUE(until([&] { return client.closed() && server.closed(); }));
    EXPECT_EQ(server.closed_with, Errc::out_of_buffers);
    EXPECT_EQ(server.closed_with.step(), Step::recv);
    EXPECT_EQ(client.closed_with, Errc::reset);
    held.clear();
    expect_alive(other, other_server);
}

// Goal: where the device has no atomics nobody is promised any, and asking says so.
TEST_F(FailureTest, SaysWhereADeviceHasNoAtomics) {
    tell("remove=1");
    tell("atomics=0,restore=1");
    Peer& client = peer();
    listen_at(second_device);
    open(client);
    ASSERT_FALSE(HasFatalFailure());
    Connection& server = *servers_.back().get();
    EXPECT_FALSE(client.get()->caps().remote_atomics);
    EXPECT_TRUE(client.get()->caps().rma);
    EXPECT_EQ(server.expose(*loop().allocate(8), Access::atomic).error(), Errc::not_supported);
    const auto region = server.expose(*loop().allocate(8), Access::read_write);
    ASSERT_TRUE(region.ok()) << region.error();
    EXPECT_EQ(client.get()->fetch_add(*region, 0, 1).error(), Errc::not_supported);
    expect_alive(client, servers_.back());
    end();
    tell("remove=1");
    tell("atomics=1,restore=1");
}

// Goal: memory that cannot be exposed because of the limit of locked memory is an error by name and a line that says what to raise; the connection
// goes on, and exposes what fits.
TEST_F(FailureTest, NamesAnExposureBeyondTheLimitOfLockedMemory) {
    Log log;
    Peer& client = peer();
    listen_at(first_device);
    open(client);
    ASSERT_FALSE(HasFatalFailure());
    Peer& server = servers_.back();
    expect_alive(client, server);
    tell("memlock=" + std::to_string(count("mr_bytes") + 5000));
    const auto refused = server.get()->expose(*loop().allocate(6000), Access::read);
    EXPECT_EQ(refused.error(), Errc::out_of_memory);
    EXPECT_EQ(refused.error().step(), Step::remote);
    EXPECT_TRUE(log.has("raise it (ulimit -l"));
    const auto fits = server.get()->expose(*loop().allocate(4000), Access::read);
    ASSERT_TRUE(fits.ok()) << fits.error();
    EXPECT_TRUE(server.get()->revoke(*fits).ok());
    expect_alive(client, server);
}

// Goal: a region of the program's own memory is registered once, however often it is sent, read into or written from, and given back after its last use.
TEST_F(FailureTest, RegistersAProgramsMemoryOnce) {
    const std::string text = pattern(3 << 20);  // larger than any block: it cannot be copied into one
    std::string memory = text;
    std::atomic<int> released = 0;
    Peer& client = peer();
    listen_at(first_device);
    open(client);
    ASSERT_FALSE(HasFatalFailure());
    Peer& server = servers_.back();
    expect_alive(client, server);
    server.received.clear();
    const std::span bytes = std::as_writable_bytes(std::span(memory));
    auto made = Region::make(
        bytes, [](void* count) { ++*static_cast<std::atomic<int>*>(count); }, &released);
    ASSERT_TRUE(made.ok());
    const long before = count("mr_bytes");
    int done = 0;
    client.when_completed = [&](Connection&, Completion& one) { done += one.error.ok() ? 1 : 1000; };
    {
        const Region region = *std::move(made);
        for (int i = 0; i < 3; ++i) {
            client.get()->send(*loop().slice(region, 0, std::uint32_t(text.size())));
            ASSERT_TRUE(until([&] { return server.received.size() == text.size(); })) << server.received.size() << client.closed_with;
            EXPECT_EQ(server.received, text);
            server.received.clear();
        }
        auto exposed = loop().copy(std::string_view("written by the owner"));
        Buffer view = exposed->share();
        const auto remote = server.get()->expose(*std::move(exposed), Access::read_write);
        ASSERT_TRUE(remote.ok());
        ASSERT_TRUE(client.get()->read(*remote, 0, *loop().slice(region, 100, 20)).ok());
        ASSERT_TRUE(client.get()->write(*remote, 8, *loop().slice(region, 200, 10)).ok());
        ASSERT_TRUE(until([&] { return done == 2; })) << done << client.closed_with;
        EXPECT_EQ(memory.substr(100, 20), "written by the owner");
        EXPECT_EQ(std::memcmp(view.data() + 8, text.data() + 200, 10), 0);
        ASSERT_TRUE(server.get()->revoke(*remote).ok());
        EXPECT_GE(count("mr_bytes"), before + long(text.size()));
        EXPECT_LT(count("mr_bytes"), before + 2 * long(text.size())) << "registered more than once";
    }
    EXPECT_TRUE(until([&] { return released == 1; })) << "it is never given back";
    EXPECT_LT(count("mr_bytes"), before + long(text.size()));
}

// Goal: where the device refuses a region its slices are copied, as other memory of the program's: everything still works.
TEST_F(FailureTest, CopiesARegionThatTheDeviceRefuses) {
    std::string memory = pattern(100'000);
    Peer& client = peer();
    listen_at(first_device);
    open(client);
    ASSERT_FALSE(HasFatalFailure());
    Peer& server = servers_.back();
    expect_alive(client, server);
    server.received.clear();
    int done = 0;
    client.when_completed = [&](Connection&, Completion& one) { done += one.error.ok() ? 1 : 1000; };
    const auto region = Region::make(std::as_writable_bytes(std::span(memory)));
    ASSERT_TRUE(region.ok());
    // As much as is registered now, and a slab more, for the copies; not the region.
    tell("mr=1");
    for (int i = 0; i < 3; ++i) {
        client.get()->send(*loop().slice(*region, 0, 100'000));
        ASSERT_TRUE(until([&] { return server.received.size() == 100'000; })) << server.received.size() << client.closed_with;
        EXPECT_EQ(server.received, memory);
        server.received.clear();
    }
    const auto remote = server.get()->expose(*loop().copy(std::string_view("0123456789")), Access::read);
    ASSERT_TRUE(remote.ok());
    ASSERT_TRUE(client.get()->read(*remote, 0, *loop().slice(*region, 50, 10)).ok());
    ASSERT_TRUE(until([&] { return done == 1; })) << done << client.closed_with;
    EXPECT_EQ(memory.substr(50, 10), "0123456789");
}

// Goal: with very few receives and completions all connections still move.
TEST_F(FailureTest, MovesOnWithFewReceives) {
    tell("remove=1");
    tell("cqe=48,srq=24,restore=1");
    std::deque<Peer>& clients = clients_;
    clients.resize(3);
    std::deque<Pump> pumps;
    listen_at(second_device);
    for (Peer& client : clients) {  // together they have all 24
        open(client);
        ASSERT_FALSE(HasFatalFailure());
    }
    for (Peer& client : clients) {
        Pump& pump = pumps.emplace_back(Pump{.total = 200'000, .most = 20'000});
        client.when_writable = std::ref(pump);
        pump(*client.get());
    }
    EXPECT_TRUE(until([&] {
        for (const Peer& server : servers_)
            if (server.received.size() < 200'000) return false;
        return true;
    }));
}

// Goal: a message that waits for its memory's key is sent soon after there is one, also when nobody rings this loop for it: another loop has asked
// first, or the ring came while this one was about to sleep.
TEST_F(FailureTest, SendsSoonAfterItsMemoryWasRegisteredForSomebodyElse) {
    constexpr std::uint32_t size = 100'000;
    listen_at(first_device);
    Peer& client = peer();
    open(client);
    ASSERT_FALSE(HasFatalFailure());
    Peer& server = servers_.back();
    const auto send = [&]() -> memory::Slab* {
        auto bytes = loop().allocate(size);
        if (!bytes) return nullptr;
        std::memset(bytes->data(), 'x', size);
        memory::Slab* const slab = memory::slab_of(*bytes);
        client.get()->send(*std::move(bytes));
        return slab;
    };
    memory::Slab* const slab = send();
    ASSERT_NE(slab, nullptr);
    ASSERT_TRUE(until([&] { return server.received.size() >= size; }));
    struct Somebody {
        std::atomic<memory::KeyState>& state;
        int looks = 0;
    } somebody{slab->keys[core::state_of(*client.get()).link->domain->number()].state};
    ASSERT_EQ(somebody.state.load(), memory::KeyState::ready);
    somebody.state.store(memory::KeyState::pending);
    // A loop that is only woken by its looks for unused memory does not sleep so often.
    loop().on_before_wait(
        [](void* context, Loop&) {
            auto& registering = *static_cast<Somebody*>(context);
            if (++registering.looks == 10) registering.state.store(memory::KeyState::ready);
        },
        &somebody);
    ASSERT_EQ(send(), slab);
    std::size_t got = 0;
    server.when_recv = [&](Connection& c) {
        got += c.recv().size();
        if (got >= size) c.loop().stop();
    };
    std::mutex mutex;
    std::condition_variable changed;
    bool ended = false;
    std::thread limit([&] {
        std::unique_lock lock(mutex);
        changed.wait_for(lock, std::chrono::seconds(5) * patience, [&] { return ended; });
        loop().stop();
    });
    loop().run();  // sleeps as long as it likes
    {
        const std::lock_guard lock(mutex);
        ended = true;
    }
    changed.notify_one();
    limit.join();
    loop().on_before_wait(nullptr, nullptr);
    somebody.state.store(memory::KeyState::ready);
    EXPECT_EQ(got, size);
}

// Goal: peers who wait for receives to open do not take those of connections at work, which would stand still for good.
TEST_F(FailureTest, LeavesConnectionsAtWorkTheirReceives) {
    tell("remove=1");
    tell("cqe=256,srq=64,restore=1");
    std::deque<Pump> pumps;
    listen_at(second_device);
    constexpr std::size_t at_work = 6, bytes = 300'000;
    for (std::size_t i = 0; i < at_work; ++i) {
        open(clients_.emplace_back());
        ASSERT_FALSE(HasFatalFailure());
        pumps.push_back(Pump{.total = bytes, .most = 3000});
    }
    const auto work = [&](std::size_t i) {
        Peer& client = clients_[i];
        client.when_writable = std::ref(pumps[i]);
        pumps[i](*client.get());
    };
    work(0);
    EXPECT_TRUE(until([&] { return servers_[0].received.size() == bytes; }));  // now it may send more than it does
    for (int i = 0; i < 20; ++i) {                                             // their deadlines are longer than we wait
        Peer& newcomer = clients_.emplace_back();
        auto made = evpl::connect(loop(), url_, newcomer, within(60_s));
        ASSERT_TRUE(made.ok()) << loop().last_failure();
        newcomer.ref = *made;
    }
    for (std::size_t i = 1; i < at_work; ++i) work(i);
    for (std::size_t i = 1; i < at_work; ++i) {
        EXPECT_TRUE(until([&] { return servers_[i].received.size() == bytes; })) << i << ": " << servers_[i].received.size();
    }
}

// Goal: a datagram's peer whose address handle cannot be made costs the datagram, and is told; the next one arrives.
TEST_F(FailureTest, TellsOfADatagramWithoutAnAddressHandle) {
    struct Socket {
        std::string got;
        int errors = 0;
        void on_recv(Datagram& socket) {
            while (socket.has_packet()) {
                const Packet packet = socket.recv();
                got.append(reinterpret_cast<const char*>(packet.bytes.data()), packet.bytes.size());
            }
        }
        void on_error(Datagram&, Error) { ++errors; }
    } sender, receiver;
    const auto from = evpl::bind(loop(), "rdma-ud://" + first_device + ":0", sender);
    const auto to = evpl::bind(loop(), "rdma-ud://" + second_device + ":0", receiver);
    ASSERT_TRUE(from.ok() && to.ok()) << loop().last_failure();
    const Address there = to->get()->local_address();
    tell("ah=1");
    from->get()->send_to(there, std::as_bytes(std::span("lost", 4)));
    EXPECT_TRUE(until([&] { return sender.errors == 1; }));
    from->get()->send_to(there, std::as_bytes(std::span("found", 5)));
    EXPECT_TRUE(until([&] { return receiver.got == "found"; }));
    EXPECT_EQ(sender.errors, 1);
    loop_.reset();
}

}  // namespace
}  // namespace evpl::test
