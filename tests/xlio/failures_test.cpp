// Everything that the real library is known to do wrong, done by the double, each in a process of its own: the library's settings and its
// failures are the process's.
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "evpl/evpl.hpp"
#include "support/helper.hpp"
#include "support/limits.hpp"
#include "support/patience.hpp"
#include "support/pattern.hpp"
#include "support/watchdog.hpp"
#include "transport/xlio/table.hpp"

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
    if (client.got != client.total || !client.good)
        return std::printf("got %zu, %s, %s\n", client.got, client.good ? "good" : "BAD", text_of(client.why).c_str()), 0;
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

/// Somebody else in the process has started the library.
int second(const std::vector<std::string>&) {
    transport::xlio::abi::Calls calls;
    const char* layout = "";
    if (transport::xlio::open_library(XLIO_DOUBLE_PATH, calls, layout)) return 3;
    const transport::xlio::abi::InitAttr attr{};
    if (calls.init(&attr) != 0) return 4;
    Loop loop;
    if (listen(loop, "xlio://127.0.0.1:0", [](Connection&) { return Echo{}; })) return 5;
    return tell_support({});
}
const RegisterHelper second_helper("second", &second);

/// A peer that fails before the listener hears of it: on_open, if at all, is followed by on_close.
int early(const std::vector<std::string>&) {
    struct Served {
        unsigned& closed;
        void on_close(Connection&, Error) { ++closed; }
    };
    unsigned closed = 0;
    Client client;
    client.total = 100;
    Loop loop;
    auto listener = listen(loop, "xlio://127.0.0.1:0", [&](Connection&) { return Served{closed}; });
    if (!listener || !connect(loop, std::string(listener->url()), client)) return 3;
    const bool over = drive_until(loop, [&] { return closed == 1 && client.closed && loop.metrics().connections_open == 0; });
    std::printf("%s: %u closed\n", over ? "ok" : "stuck", closed);
    return 0;
}
const RegisterHelper early_helper("early", &early);

/// dry: the program holds on to what it received until the stack's pool is empty and nothing comes; then it lets go, and all arrives.
int dry(const std::vector<std::string>&) {
    Client client;
    client.total = 4 << 20;
    client.keep = true;
    Loop loop;
    auto listener = listen(loop, "tcp://127.0.0.1:0", [](Connection&) { return Echo{}; });  // it needs nothing of the pool
    if (!listener || !connect(loop, "xlio://127.0.0.1:" + std::to_string(listener->port()), client)) return 3;
    unsigned pauses = 0;
    for (std::size_t before = 0; !client.closed && pauses < 1000; before = client.got) {
        if (drive_until(
                loop, [&] { return client.closed || client.got != before; }, 50_ms))
            continue;
        ++pauses;
        client.kept.clear();
    }
    std::printf("%s %s after %s\n", client.got == client.total && client.good ? "ok" : "BAD", std::to_string(client.got).c_str(),
                pauses > 0 ? "pauses" : "no pause");
    return 0;
}
const RegisterHelper dry_helper("dry", &dry);

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

/// Connects, exchanges, closes, and begins again, `left` times.
struct Lane {
    Loop& loop;
    std::string url;
    std::size_t left = 0, got = 0;
    bool over = false;
    std::string failure;

    void begin() {
        got = 0;
        if (failure.empty() && left > 0) {
            --left;
            if (connect(loop, url, *this)) return;
            failure = "cannot connect";
        }
        over = true;
    }
    void on_open(Connection& peer) { peer.send(pattern(64, 1, 0)); }
    void on_recv(Connection& peer) {
        for (Chain chain = peer.recv(); !chain.empty(); chain = peer.recv()) got += chain.size();
        if (got == 64) peer.close();
    }
    void on_close(Connection&, Error why) {
        if (got != 64) failure = text_of(why);
        begin();
    }
};

/// What must not grow. A loop gives slabs back that were unused for a while, so less than there was is no news.
struct Footprint {
    std::size_t slab_bytes = 0, buffers = 0;
    int descriptor = -1;  ///< the next one

    static Footprint of(Loop& loop) {
        const LoopMetrics now = loop.metrics();
        const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
        ::close(fd);
        return {now.slab_bytes, now.buffers_out, fd};
    }
    bool is_within(const Footprint& other) const { return slab_bytes <= other.slab_bytes && buffers <= other.buffers && descriptor <= other.descriptor; }
    std::string text() const {
        return "slab bytes " + std::to_string(slab_bytes) + ", buffers " + std::to_string(buffers) + ", next descriptor " + std::to_string(descriptor);
    }
};

constexpr unsigned lanes_most = 32;

/// Empty, or what went wrong. `most` grows to what the loop held in between.
std::string connect_many(Loop& loop, const std::string& url, std::size_t count, std::vector<std::unique_ptr<Lane>>& lanes, Footprint& most) {
    lanes.clear();
    for (unsigned i = 0; i < lanes_most; ++i)
        lanes.push_back(std::make_unique<Lane>(Lane{loop, url, count / lanes_most + (i < count % lanes_most), 0, false, ""}));
    for (auto& lane : lanes) lane->begin();
    std::size_t before = count + 1;
    const auto step = [&] {  // some connection came to its end, or all did
        std::size_t left = 0;
        bool over = true;
        for (const auto& lane : lanes) left += lane->left, over = over && lane->over;
        most.slab_bytes = std::max<std::size_t>(most.slab_bytes, loop.metrics().slab_bytes);
        return over || std::exchange(before, left) != left;
    };
    const auto is_over = [&] { return std::all_of(lanes.begin(), lanes.end(), [](const auto& lane) { return lane->over; }); };
    while (!is_over())
        if (!drive_until(loop, step)) return "stuck";
    for (const auto& lane : lanes)
        if (!lane->failure.empty()) return lane->failure;
    return "";
}

/// connects COUNT: some at a time; afterwards the loop holds no more than after the first hundred.
int connects(const std::vector<std::string>& arguments) {
    std::vector<std::unique_ptr<Lane>> lanes;
    Loop loop;
    auto kernel = listen(loop, "tcp://127.0.0.1:0", [](Connection&) { return Echo{}; });  // so that the loop has opened what it sleeps with
    auto listener = listen(loop, "xlio://127.0.0.1:0", [](Connection&) { return Echo{}; });
    if (!kernel || !listener) return 3;
    const std::string url(listener->url());
    Footprint most, unused;
    if (const std::string failure = connect_many(loop, url, 100, lanes, most); !failure.empty()) return std::printf("warming up: %s\n", failure.c_str()), 0;
    if (!drive_until(loop, [&] { return loop.metrics().connections_open == 0; })) return std::printf("connections stay\n"), 0;
    // Sockets go when the stack has ended them, some turns after their connections: the fewest descriptors seen are those that stay.
    most.descriptor = INT_MAX;
    const Stopwatch settling;
    drive_until(loop, [&] {
        const Footprint now = Footprint::of(loop);
        most.buffers = now.buffers;
        most.descriptor = std::min(most.descriptor, now.descriptor);
        return settling.elapsed() > 200_ms;
    });
    if (const std::string failure = connect_many(loop, url, std::stoul(arguments[0]), lanes, unused); !failure.empty())
        return std::printf("%s\n", failure.c_str()), 0;
    const bool back = drive_until(loop, [&] { return loop.metrics().connections_open == 0 && Footprint::of(loop).is_within(most); });
    std::printf("%s: %s; before: %s\n", back ? "ok" : "leaks", Footprint::of(loop).text().c_str(), most.text().c_str());
    if (!back) {  // which are they?
        for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
            std::error_code gone;
            std::printf("  %s %s\n", entry.path().filename().c_str(), std::filesystem::read_symlink(entry.path(), gone).c_str());
        }
    }
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
    // Sanitizers would take the signal of a crash for themselves.
    const std::string signals =
        "ASAN_OPTIONS=$ASAN_OPTIONS:handle_sigfpe=0 TSAN_OPTIONS=$TSAN_OPTIONS:handle_sigfpe=0 UBSAN_OPTIONS=$UBSAN_OPTIONS:handle_sigfpe=0 ";
    const std::string command = "env " + signals + "EVPL_XLIO_LIBRARY=" XLIO_DOUBLE_PATH " EVPL_XLIO_CHECK=off EVPL_XLIO_PROBE=off " + variables + " " +
                                own_path() + " --helper " + helper + " 2>&1";
    Ran ran;
    FILE* const pipe = popen(command.c_str(), "r");
    if (pipe == nullptr) return ran;
    char room[512];
    for (std::size_t n; (n = fread(room, 1, sizeof room, pipe)) > 0;) ran.output.append(room, n);
    const int status = pclose(pipe);
    ran.status = WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
    return ran;
}

void expect_says(const Ran& ran, const std::string& text) {
    EXPECT_EQ(ran.status, 0) << ran.output;
    EXPECT_NE(ran.output.find(text), std::string::npos) << ran.output;
}

#define EXPECT_SAYS(ran, text)                                                                                                                                 \
    do {                                                                                                                                                       \
        SCOPED_TRACE(#ran);                                                                                                                                    \
        expect_says(ran, text);                                                                                                                                \
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
    EXPECT_SAYS(run("XLIO_DOUBLE=exit_on_load EVPL_XLIO_PROBE=" XLIO_PROBE_PATH, "support"),
                "absent: " XLIO_DOUBLE_PATH " failed when it was tried (status 255)");
    EXPECT_SAYS(run("EVPL_XLIO_PROBE=" XLIO_PROBE_PATH, "support"), "present");
    EXPECT_SAYS(run("EVPL_XLIO_PROBE=off", "support"), "present");
    EXPECT_SAYS(run("EVPL_XLIO_PROBE=/nonexistent", "support"), "present");
    EXPECT_SAYS(run("XLIO_EXCEPTION_HANDLING=-2", "support"), "absent: XLIO_EXCEPTION_HANDLING=-2");
}

// It divides by what it never read when it has no device and was not told so.
TEST(XlioLoad, SurvivesALibraryThatCrashesWhenItIsUsed) {
    EXPECT_SAYS(run("XLIO_DOUBLE=false_start EVPL_XLIO_PROBE=" XLIO_PROBE_PATH, "support"), "crashed when it was tried (signal 8)");
    EXPECT_SAYS(run("XLIO_DOUBLE=no_device EVPL_XLIO_PROBE=" XLIO_PROBE_PATH, "support"), "absent: libxlio found no device it can use (ENODEV)");
}

TEST(XlioLoad, LeavesALibraryToWhoInitialisedItFirst) {
    EXPECT_SAYS(run("EVPL_XLIO_FALLBACK=off", "second"), "absent: somebody else has initialised libxlio in this process | leave it to evpl");
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
    for (const char* knobs :
         {"layout=A", "layout=B", "enomem=2", "split,seed=3", "split,closed_first,late=30,enomem=3,seed=5", "tx_bytes=600000,pds=3", "strict=1,pool=512"})
        EXPECT_SAYS(run(std::string("EVPL_XLIO_HELD=1M XLIO_DOUBLE=") + knobs, bytes), "ok listener=xlio:/ scheme=xlio fallbacks=0");
}

TEST(XlioData, TakesCompletionsInsideSendAndFlush) {
    for (const char* knobs : {"comp_inside", "comp_inside,enomem=3,pds=2"}) {
        EXPECT_SAYS(run(std::string("XLIO_DOUBLE=") + knobs, "echo xlio://127.0.0.1:0 127.0.0.1 3000000 70000"), "ok listener=xlio:/ scheme=xlio fallbacks=0");
        EXPECT_SAYS(run(std::string("XLIO_DOUBLE=") + knobs, "echo xlio://127.0.0.1:0 127.0.0.1 200000 60"), "ok ");
    }
}

// Packets that find no buffer are dropped, and sent again by the peer.
TEST(XlioData, GoesOnWhenTheStacksPoolWasEmpty) { EXPECT_SAYS(run("EVPL_XLIO_HELD=1G XLIO_DOUBLE=pool=64", "dry"), "ok 4194304 after pauses"); }

TEST(XlioEnds, APeerThatFailsBeforeItIsAcceptedIsClosedOnce) { EXPECT_SAYS(run("XLIO_DOUBLE=error_early", "early"), "ok: 1 closed"); }

TEST(XlioEnds, AListenerThatIsRefusedIsAnError) {
    const std::string refused = "XLIO_DOUBLE=refuse_listen=" + std::to_string(EADDRINUSE);
    EXPECT_SAYS(run(refused, "echo xlio://127.0.0.1:0 127.0.0.1 100 10"), "listen: listen: address_in_use");
}

TEST(XlioData, WorksWithoutKernelSockets) {
    EXPECT_SAYS(run("XLIO_DOUBLE=memory", "echo xlio://127.0.0.1:0 127.0.0.1 3000000 70000"), "ok listener=xlio:/ scheme=xlio fallbacks=0");
    EXPECT_SAYS(run("XLIO_DOUBLE=memory,layout=A", "echo xlio://127.0.0.1:0 127.0.0.1 200000 60"), "ok listener=xlio:/ scheme=xlio fallbacks=0");
}

TEST(XlioData, SmallMessagesGoInline) { EXPECT_SAYS(run("XLIO_DOUBLE=enomem=3", "echo xlio://127.0.0.1:0 127.0.0.1 200000 60"), "ok "); }

// Held buffers are bounded, so that the pool, which is the process's, is not used up.
TEST(XlioData, CopiesOutBeyondTheHeldBytes) { EXPECT_SAYS(run("EVPL_XLIO_HELD=128k XLIO_DOUBLE=pool=64", "keep"), "ok 1048576"); }

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
    EXPECT_SAYS(run("XLIO_DOUBLE=late=2", std::string("connects ") + (given != nullptr ? given : "1000")), "ok: ");
}

}  // namespace
}  // namespace evpl::test

int main(int argc, char** argv) {
    if (const auto code = evpl::test::run_as_helper(argc, argv)) return *code;
    testing::InitGoogleTest(&argc, argv);
    evpl::test::keep_watch();
    return RUN_ALL_TESTS();
}
