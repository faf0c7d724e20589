// Everything that the real library is known to do wrong, done by the double, each in a process of its own: the library's settings and its
// failures are the process's.
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "evpl/evpl.hpp"
#include "support/helper.hpp"
#include "support/limits.hpp"
#include "support/patience.hpp"
#include "support/pattern.hpp"
#include "support/watchdog.hpp"

namespace evpl::test {
namespace {

// -- what the helpers do -----------------------------------------------------------------------------------------

const TransportInfo& xlio_info() {
    for (const TransportInfo& info : transports())
        if (info.scheme == "xlio") return info;
    std::abort();
}

int tell_support(const std::vector<std::string>&) {
    const TransportInfo& info = xlio_info();
    std::printf("%s: %.*s | %.*s\n", info.present ? "present" : "absent", int(info.reason.size()), info.reason.data(), int(info.remedy.size()),
                info.remedy.data());
    return socket(AF_INET, SOCK_STREAM, 0) >= 0 ? 0 : 3;  // the process keeps its own sockets
}
const RegisterHelper support_helper("support", &tell_support);

struct Echo {
    void on_recv(Connection& peer) { peer.send(peer.recv(peer.send_room())); }
    void on_writable(Connection& peer) { on_recv(peer); }
};

struct Client {
    std::size_t total = 0, sent = 0, got = 0, chunk = 1 << 16, ahead = 4 << 20;
    bool good = true, open = false, closed = false, closes_itself = true;
    Error why;
    std::string scheme;
    std::vector<Chain> kept;
    bool keep = false;

    void pump(Connection& peer) {
        while (sent < total && sent - got < ahead && peer.send_room() > 0) {
            const std::size_t n = std::min({chunk, total - sent, peer.send_room()});
            peer.send(pattern(n, 1, sent));
            sent += n;
        }
    }
    void on_open(Connection& peer) {
        open = true;
        scheme = peer.transport();
        pump(peer);
    }
    void on_writable(Connection& peer) { pump(peer); }
    void on_recv(Connection& peer) {
        for (Chain chain = peer.recv(); !chain.empty(); chain = peer.recv()) {
            for (const Buffer& slice : chain) {
                good = good && pattern_mismatch(slice.bytes(), 1, got) == slice.size();
                got += slice.size();
            }
            if (keep) kept.push_back(std::move(chain));
        }
        if (got == total && closes_itself) peer.close();
        else pump(peer);
    }
    void on_close(Connection&, Error reason) {
        closed = true;
        why = reason;
    }
};

std::string text_of(Error error) {
    char text[160];
    error.describe(text, sizeof text);
    return text;
}

template <class Done>
bool drive_until(Loop& loop, Done done, Duration limit = 30_s) {
    for (const Stopwatch watch; !done();) {
        if (watch.elapsed() > limit * patience) return false;
        loop.run_once(1_ms);
    }
    return true;
}

/// echo LISTEN CONNECT-HOST BYTES CHUNK: "ok scheme=xlio fallbacks=0" or what went wrong.
int echo(const std::vector<std::string>& arguments) {
    Client client;
    Loop loop;
    auto listener = listen(loop, arguments[0], [](Connection&) { return Echo{}; });
    if (!listener) return std::printf("listen: %s\n", text_of(listener.error()).c_str()), 0;
    const std::string url = "xlio://" + arguments[1] + ":" + std::to_string(listener->port());
    client.total = std::stoul(arguments[2]);
    client.chunk = std::stoul(arguments[3]);
    if (auto made = connect(loop, url, client); !made) return std::printf("connect: %s\n", text_of(made.error()).c_str()), 0;
    if (!drive_until(loop, [&] { return client.closed; })) return std::printf("stuck at %zu of %zu\n", client.got, client.total), 0;
    if (client.got != client.total || !client.good) return std::printf("got %zu, %s, %s\n", client.got, client.good ? "good" : "BAD", text_of(client.why).c_str()), 0;
    std::printf("ok listener=%.6s scheme=%s fallbacks=%u\n", std::string(listener->url()).c_str(), client.scheme.c_str(), unsigned(loop.metrics().fallbacks));
    return 0;
}
const RegisterHelper echo_helper("echo", &echo);

/// Opening twice: both fail, or go to the kernel, and nothing crashes.
int twice(const std::vector<std::string>&) {
    for (int i = 0; i < 2; ++i) {
        Loop loop;
        auto listener = listen(loop, "xlio://127.0.0.1:0", [](Connection&) { return Echo{}; });
        std::printf("%s\n", listener ? std::string(listener->url().substr(0, 6)).c_str() : text_of(listener.error()).c_str());
    }
    return tell_support({});
}
const RegisterHelper twice_helper("twice", &twice);

/// Slices of the stack's own buffers stay good, also when their loop has gone.
int keep(const std::vector<std::string>&) {
    Client client;
    client.total = 1 << 20;
    client.keep = true;
    std::vector<Parcel> parcels;
    {
        Loop loop;
        auto listener = listen(loop, "xlio://127.0.0.1:0", [](Connection&) { return Echo{}; });
        if (!listener || !connect(loop, std::string(listener->url()), client)) return 3;
        if (!drive_until(loop, [&] { return client.closed; })) return 4;
        for (Chain& chain : client.kept)
            for (const Buffer& slice : chain) parcels.push_back(slice.share().pack());
        client.kept.clear();
    }
    std::size_t at = 0;
    Loop other;
    for (Parcel& parcel : parcels) {
        const Buffer slice = std::move(parcel).open(other);
        if (pattern_mismatch(slice.bytes(), 1, at) != slice.size()) return 5;
        at += slice.size();
    }
    std::printf("ok %zu\n", at);
    return 0;
}

/// many COUNT: so many connections at once, each with one exchange.
int many(const std::vector<std::string>& arguments) {
    const std::size_t count = std::stoul(arguments[0]);
    if (raise_file_limit() < 4 * count + 100) return std::printf("SKIP too few descriptors\n"), 0;
    std::vector<std::unique_ptr<Client>> clients;
    Loop loop;
    auto listener = listen(loop, "xlio://127.0.0.1:0", [](Connection&) { return Echo{}; });
    if (!listener) return 3;
    std::size_t answered = 0, begun = 0;
    const auto settled = [&] {
        answered = 0;
        for (const auto& one : clients) answered += one->got == one->total || one->closed ? 1 : 0;
        return answered == clients.size();
    };
    while (begun < count) {
        for (int i = 0; i < 100 && begun < count; ++i, ++begun) {
            auto client = std::make_unique<Client>();
            client->total = 100;
            client->closes_itself = false;
            if (!connect(loop, std::string(listener->url()), *client)) return 4;
            clients.push_back(std::move(client));
        }
        if (!drive_until(loop, settled)) return std::printf("%zu of %zu answered\n", answered, clients.size()), 0;
    }
    std::size_t open = 0;
    for (const auto& one : clients) open += !one->closed && one->good && one->got == 100 ? 1 : 0;
    std::printf("ok %zu open\n", open);
    return 0;
}
const RegisterHelper many_helper("many", &many);

/// connects COUNT: one after another; afterwards there are as many descriptors as before.
int connects(const std::vector<std::string>& arguments) {
    const std::size_t count = std::stoul(arguments[0]);
    Loop loop;
    auto listener = listen(loop, "xlio://127.0.0.1:0", [](Connection&) { return Echo{}; });
    if (!listener) return 3;
    const std::string url(listener->url());
    const auto once = [&] {
        Client client;
        client.total = 64;
        return connect(loop, url, client) && drive_until(loop, [&] { return client.closed; }) && client.got == 64;
    };
    for (int i = 0; i < 100; ++i)
        if (!once()) return 4;
    drive_until(loop, [&] { return loop.metrics().connections_open == 0; });
    const std::size_t slabs = loop.metrics().slab_bytes;
    for (std::size_t i = 0; i < count; ++i)
        if (!once()) return std::printf("failed at %zu\n", i), 0;
    drive_until(loop, [&] { return loop.metrics().connections_open == 0; });
    const auto spare = [] {
        const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
        ::close(fd);
        return fd;
    };
    for (int i = 0; i < 50; ++i) loop.run_once(1_ms);
    std::printf("ok next descriptor below 40: %s, slabs grew by %zu\n", spare() < 40 ? "yes" : "no", loop.metrics().slab_bytes - slabs);
    return 0;
}
const RegisterHelper connects_helper("connects", &connects);

/// wildcard: a kernel client and an XLIO client both reach "*".
int wildcard(const std::vector<std::string>&) {
    Loop loop;
    auto listener = listen(loop, "xlio://*:0", [](Connection&) { return Echo{}; });
    if (!listener) return std::printf("listen: %s\n", text_of(listener.error()).c_str()), 0;
    unsigned served = 0;
    for (const char* where : {"xlio://127.0.0.1:", "tcp://127.0.0.1:", "tcp://[::1]:"}) {
        Client client;
        client.total = 1000;
        if (!connect(loop, where + std::to_string(listener->port()), client)) continue;
        if (drive_until(loop, [&] { return client.closed; }) && client.got == 1000) ++served;
    }
    std::printf("ok %u %s\n", served, std::string(listener->url().substr(0, 8)).c_str());
    return 0;
}
const RegisterHelper wildcard_helper("wildcard", &wildcard);
const RegisterHelper keep_helper("keep", &keep);

// -- running them ------------------------------------------------------------------------------------------------

struct Ran {
    std::string output;
    int status = -1;
};

Ran run(const std::string& variables, const std::string& helper) {
    const std::string command = "env EVPL_XLIO_LIBRARY=" XLIO_DOUBLE_PATH " EVPL_XLIO_CHECK=off " + variables + " " + own_path() + " --helper " + helper + " 2>&1";
    Ran ran;
    FILE* const pipe = popen(command.c_str(), "r");
    if (pipe == nullptr) return ran;
    char room[512];
    for (std::size_t n; (n = fread(room, 1, sizeof room, pipe)) > 0;) ran.output.append(room, n);
    const int status = pclose(pipe);
    ran.status = WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
    return ran;
}

#define EXPECT_SAYS(ran, text)                                     \
    do {                                                           \
        EXPECT_EQ((ran).status, 0) << (ran).output;                \
        EXPECT_NE((ran).output.find(text), std::string::npos) << (ran).output; \
    } while (false)

TEST(XlioLoad, TellsWhichTableItFound) {
    EXPECT_SAYS(run("XLIO_DOUBLE=layout=A", "support"), "function table A (3.60.0 to 3.60.4)");
    EXPECT_SAYS(run("XLIO_DOUBLE=layout=B", "support"), "function table B (3.61.0 to 3.70.2)");
}

TEST(XlioLoad, RefusesOtherTablesWithALine) {
    EXPECT_SAYS(run("XLIO_DOUBLE=layout=old", "support"), "absent: this libxlio's function table (0x3fff) is neither");
    EXPECT_SAYS(run("XLIO_DOUBLE=layout=garbage", "support"), "absent: this is no libxlio");
    EXPECT_SAYS(run("XLIO_DOUBLE=layout=crossed", "support"), "absent: the function table says layout A");
}

TEST(XlioLoad, IsAbsentWithoutALibraryOrACard) {
    EXPECT_SAYS(run("EVPL_XLIO_LIBRARY=/nonexistent.so", "support"), "cannot be loaded");
    EXPECT_SAYS(run("EVPL_XLIO_LIBRARY=/lib/x86_64-linux-gnu/libm.so.6", "support"), "has no Ultra API");
    if (access("/sys/class/infiniband", F_OK) == 0) GTEST_SKIP() << "this machine has RDMA devices";
    EXPECT_SAYS(run("EVPL_XLIO_CHECK=on", "support"), "no NVIDIA card");
}

TEST(XlioLoad, SurvivesALibraryThatEndsItsProcess) {
    EXPECT_SAYS(run("XLIO_DOUBLE=exit_on_load EVPL_XLIO_PROBE=" XLIO_PROBE_PATH, "support"), "absent: " XLIO_DOUBLE_PATH " failed when it was tried (status 255)");
    EXPECT_SAYS(run("EVPL_XLIO_PROBE=" XLIO_PROBE_PATH, "support"), "present");
    EXPECT_SAYS(run("XLIO_EXCEPTION_HANDLING=-2", "support"), "absent: XLIO_EXCEPTION_HANDLING=-2");
}

// The real library fails once, then says success, then divides by zero.
TEST(XlioLoad, DoesNotAskAgainAfterAFailedStart) {
    const Ran ran = run("XLIO_DOUBLE=no_device EVPL_XLIO_FALLBACK=off", "twice");
    EXPECT_SAYS(ran, "absent: libxlio found no device it can use (ENODEV)");
    EXPECT_EQ(ran.output.find("xlio:/"), std::string::npos) << ran.output;
}

TEST(XlioFallback, ServesByTheKernelWithoutADevice) {
    EXPECT_SAYS(run("XLIO_DOUBLE=no_device", "echo xlio://127.0.0.1:0 127.0.0.1 100000 1000"), "ok listener=tcp:// scheme=tcp fallbacks=2");
    EXPECT_SAYS(run("EVPL_XLIO_LIBRARY=/nonexistent.so", "echo xlio://127.0.0.1:0 127.0.0.1 100000 1000"), "ok listener=tcp:// scheme=tcp fallbacks=2");
}

TEST(XlioFallback, ServesForeignAddressesByTheKernel) {
    const Ran ran = run("XLIO_DOUBLE=nowhere=127.0.0.2", "echo xlio://127.0.0.2:0?nodelay=1\\&window=1M 127.0.0.2 100000 1000");
    EXPECT_SAYS(ran, "ok listener=tcp:// scheme=tcp fallbacks=2");
    EXPECT_SAYS(run("XLIO_DOUBLE=nowhere=127.0.0.2", "echo xlio://127.0.0.1:0 127.0.0.1 100000 1000"), "ok listener=xlio:/ scheme=xlio fallbacks=0");
    EXPECT_SAYS(run("XLIO_DOUBLE=nowhere=127.0.0.2 EVPL_XLIO_FALLBACK=off", "echo xlio://127.0.0.2:0 127.0.0.2 100 10"), "listen: listen: transport_absent");
}

TEST(XlioFallback, ListensBesideTheCardForEverybody) { EXPECT_SAYS(run("XLIO_DOUBLE=", "wildcard"), "ok 3 xlio://*"); }

TEST(XlioData, ArrivesWhateverTheStackDoes) {
    const std::string bytes = "echo xlio://127.0.0.1:0 127.0.0.1 3000000 70000";
    for (const char* knobs : {"layout=A", "layout=B", "enomem=2", "split,seed=3", "split,closed_first,late=30,enomem=3,seed=5", "tx_bytes=600000,pds=3", "strict=1,pool=512"})
        EXPECT_SAYS(run(std::string("EVPL_XLIO_HELD=1M XLIO_DOUBLE=") + knobs, bytes), "ok listener=xlio:/ scheme=xlio fallbacks=0");
}

TEST(XlioData, SmallMessagesGoInline) {
    EXPECT_SAYS(run("XLIO_DOUBLE=enomem=3", "echo xlio://127.0.0.1:0 127.0.0.1 200000 60"), "ok ");
}

// Held buffers are bounded, so that the pool, which is the process's, is not used up.
TEST(XlioData, CopiesOutBeyondTheHeldBytes) {
    EXPECT_SAYS(run("EVPL_XLIO_HELD=128k XLIO_DOUBLE=pool=64", "keep"), "ok 1048576");
}

TEST(XlioData, KeepsBuffersThatOutliveTheirLoop) { EXPECT_SAYS(run("XLIO_DOUBLE=split", "keep"), "ok 1048576"); }

TEST(XlioData, EndsALinkWhoseMemoryCannotBeRegistered) {
    const Ran ran = run("XLIO_DOUBLE=refuse_mr", "echo xlio://127.0.0.1:0 127.0.0.1 100000 50000");
    EXPECT_SAYS(ran, "device_error");
}

TEST(XlioScale, CarriesFourThousandConnections) {
    const Ran ran = run("XLIO_DOUBLE=", sanitized ? "many 1000" : "many 4000");
    if (ran.output.find("SKIP") != std::string::npos) GTEST_SKIP() << ran.output;
    EXPECT_SAYS(ran, sanitized ? "ok 1000 open" : "ok 4000 open");
}

// EVPL_TEST_CONNECTS=100000 in the night.
TEST(XlioScale, LeaksNothingOverManyConnects) {
    const char* const given = std::getenv("EVPL_TEST_CONNECTS");
    EXPECT_SAYS(run("XLIO_DOUBLE=late=2", std::string("connects ") + (given != nullptr ? given : "1000")), "ok next descriptor below 40: yes, slabs grew by 0");
}

}  // namespace
}  // namespace evpl::test

int main(int argc, char** argv) {
    if (const auto code = evpl::test::run_as_helper(argc, argv)) return *code;
    testing::InitGoogleTest(&argc, argv);
    evpl::test::keep_watch();
    return RUN_ALL_TESTS();
}
