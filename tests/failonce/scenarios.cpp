// Programs for the sweep: failonce_program NAME plays a scenario in which a call may fail (see shim.h, and --deny), then once more
// without, and tells how both ended. Failing is allowed, by name and once; all else is "broken":
//   ended NAME       how the operations of the scenario ended: ok, or the name of an error
//   clean NAME       the same scenario afterwards
//   injected N       how often a call was made to fail
//   left BLOCKS DESCRIPTORS SLABS
//   call NAME N      how often the scenario calls it
// Handlers and what they need lie in place: only the library allocates while calls count.
#include <dirent.h>
#include <execinfo.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <thread>

#include <evpl/co.hpp>
#include <evpl/evpl.hpp>

#include "failonce/shim.h"
#include "support/patience.hpp"
#ifdef EVPL_TEST_SECCOMP
#include <seccomp.h>
#endif

namespace {

namespace co = evpl::co;
using namespace evpl::literals;
using evpl::Errc;
using evpl::test::Stopwatch;

/// A deadline of the scenario's operations: long enough never to pass where nothing fails.
const evpl::Duration soon = 700_ms * evpl::test::patience;
/// What only a hang exceeds: several deadlines one after the other.
const evpl::Duration hang = 6_s * evpl::test::patience;

bool broken = false;
void expect(bool truth, const char* what) {
    if (truth) return;
    broken = true;
    std::fprintf(stderr, "broken: %s\n", what);
}

bool first_pass = true;  // the second one is not disturbed
bool denied_for_good = false;

void arm() {
    if (first_pass && failonce_arm != nullptr) failonce_arm();
}
void disarm() {
    if (failonce_disarm != nullptr) failonce_disarm();
}

/// How a scenario ended: the first thing that went wrong.
struct Verdict {
    Errc code = Errc::none;
    void note(Errc what) {
        if (code == Errc::none) code = what;
    }
    void note(evpl::Error what) { note(what.code()); }
};

/// Turns the loop until `done()`. A loop that cannot wait does not spin here for ever either.
template <class Done>
void drive(evpl::Loop& loop, Done done, const char* what) {
    const Stopwatch watch;
    while (!done()) {
        if (watch.elapsed() > hang) return expect(false, what);
        loop.run_once(20_ms);
    }
}

// -- streams -------------------------------------------------------------------------------------------------------

constexpr std::size_t message_bytes = 20'000;
std::byte pattern_at(std::size_t i) { return std::byte(i * 31 >> 3); }

/// Both ends of an echo: the client sends a pattern and waits for all of it.
struct Echo {
    bool serves;
    int descriptor = -1;  // the server gives it along
    std::size_t received = 0;
    int opens = 0, closes = 0, descriptors = 0;
    evpl::Error ended;

    void on_open(evpl::Connection& peer) {
        ++opens;
        peer.deadline_recv(soon);
        peer.deadline_send(soon);
        if (serves) return;
        std::array<std::byte, message_bytes> all;
        for (std::size_t i = 0; i < all.size(); ++i) all[i] = pattern_at(i);
        peer.send(all);
    }
    void on_recv(evpl::Connection& peer) {
        if (serves) return answer(peer);
        for (const evpl::Buffer& slice : peer.recv())
            for (const std::byte one : slice.bytes()) expect(one == pattern_at(received++), "a byte differs");
        for (int fd; (fd = peer.recv_descriptor()) >= 0; ::close(fd)) ++descriptors;
        if (received == message_bytes) peer.shutdown(evpl::within(soon));
    }
    void on_writable(evpl::Connection& peer) { on_recv(peer); }
    void on_close(evpl::Connection&, evpl::Error why) {
        ++closes;
        ended = why;
    }
    void answer(evpl::Connection& peer) {
        evpl::Chain bytes = peer.recv(peer.send_room());
        if (bytes.empty()) return;
        // Refused: it was not sent, and neither were the bytes.
        if (descriptor >= 0 && received == 0 && !peer.send_descriptor(descriptor, bytes.share()).ok()) return peer.close(Errc::refused_by_handler);
        const bool first = received == 0;
        received += bytes.size();
        if (descriptor < 0 || !first) peer.send(std::move(bytes));
    }
};

/// What is true however a connection ended.
void judge(Verdict& verdict, const Echo& client, const Echo& server, bool connected) {
    expect(client.closes == int(connected), "the client's on_close came not once");
    expect(server.closes == server.opens || server.opens == 0, "a served connection has no on_close");
    expect(client.received <= message_bytes, "more came back than was sent");
    if (!connected) return;
    expect(client.ended.code() != Errc::none, "on_close without a name");
    if (client.received < message_bytes || client.ended != Errc::end) verdict.note(client.ended);
    // A reset tells the peer that bytes are missing. Unix sockets have none.
    const bool told = client.ended != Errc::end || (server.descriptor >= 0 && server.ended != Errc::end);
    expect(client.received == message_bytes || told, "after a failure the peer saw an orderly end");
}

/// One listener, one connection, an echo, the end; beside a connection that has nothing to do with it.
Verdict stream(const char* url, int descriptor = -1) {
    Verdict verdict;
    Echo server{.serves = true, .descriptor = descriptor}, client{.serves = false};
    {
        evpl::Loop loop({.mode = evpl::Mode::event});
        auto listener = evpl::listen(loop, url, server);
        if (!listener) {
            expect(!loop.last_failure().empty(), "a failure without a sentence");
            verdict.note(listener.error());
            return verdict;
        }
        auto connected = evpl::connect(loop, listener->url(), client, evpl::within(soon));
        if (!connected) verdict.note(connected.error());
        drive(
            loop, [&] { return client.closes == int(connected.ok()) && server.closes >= server.opens; }, "a connection does not end");
        // A server that never opened may still be on its way: the loop's end is its end.
        listener->close();
        judge(verdict, client, server, connected.ok());
        if (descriptor >= 0 && verdict.code == Errc::none) expect(client.descriptors == 1, "the descriptor did not come");
    }
    expect(server.closes >= server.opens, "a connection outlived its loop");
    return verdict;
}

Verdict tcp() { return stream("tcp://127.0.0.1:0"); }
Verdict unix_descriptor() {
    char url[64];
    std::snprintf(url, sizeof url, "unix://@evpl-failonce-%d", int(getpid()));
    return stream(url, STDOUT_FILENO);
}

/// The same while another pair of connections of the same loop is at rest, which then has to work.
Verdict tcp_beside() {
    disarm();
    Verdict verdict;
    Echo server{.serves = true}, client{.serves = false};
    struct Idle {
        std::size_t received = 0;
        int closes = 0;
        void on_recv(evpl::Connection& peer) { received += peer.recv().size(); }
        void on_close(evpl::Connection&, evpl::Error) { ++closes; }
    } idle;
    struct Answer {
        void on_recv(evpl::Connection& peer) { peer.send(peer.recv()); }
    };
    evpl::Loop loop({.mode = evpl::Mode::event});
    auto other = evpl::listen<Answer>(loop, "tcp://127.0.0.1:0");
    if (!other) return {other.error().code()};
    auto resting = evpl::connect(loop, other->url(), idle);
    if (!resting) return {resting.error().code()};
    const auto exchange = [&](std::size_t wanted, const char* what) {
        if (evpl::Connection* peer = resting->get()) peer->send("x");
        drive(
            loop, [&] { return idle.received == wanted || idle.closes > 0; }, what);
        expect(idle.received == wanted && idle.closes == 0, what);
    };
    exchange(1, "the connection at rest does not work");
    arm();
    auto listener = evpl::listen(loop, "tcp://127.0.0.1:0", server);
    if (listener) {
        auto connected = evpl::connect(loop, listener->url(), client, evpl::within(soon));
        if (!connected) verdict.note(connected.error());
        drive(
            loop, [&] { return client.closes == int(connected.ok()) && server.closes >= server.opens; }, "a connection does not end");
        judge(verdict, client, server, connected.ok());
    } else {
        verdict.note(listener.error());
    }
    disarm();
    exchange(2, "a connection that has nothing to do with it was hurt");
    return verdict;
}

// -- datagrams -----------------------------------------------------------------------------------------------------

/// Datagrams go there and back one by one; one that is lost is sent again.
Verdict udp() {
    constexpr int wanted = 8, tries_max = 5 * wanted;
    Verdict verdict;
    struct Answer {
        void on_recv(evpl::Datagram& socket) {
            while (socket.has_packet()) {
                evpl::Packet packet = socket.recv();
                socket.send_to(packet.from, std::move(packet.bytes));
            }
        }
    };
    struct Ask {
        int answers = 0, opens = 0, closes = 0;
        Verdict& verdict;
        void on_open(evpl::Datagram&) { ++opens; }
        void on_recv(evpl::Datagram& socket) {
            for (; socket.has_packet(); ++answers) expect(socket.recv().bytes.size() == 5, "a datagram has another size");
        }
        void on_error(evpl::Datagram&, evpl::Error why) { expect(!why.ok(), "an error without a name"); }
        void on_close(evpl::Datagram&, evpl::Error why) {
            ++closes;
            verdict.note(why);
        }
    } ask{.verdict = verdict};
    evpl::Loop loop({.mode = evpl::Mode::event});
    auto server = evpl::bind(loop, "udp://127.0.0.1:0", Answer{});
    if (!server) return {server.error().code()};
    auto socket = evpl::connect_datagram(loop, server->get()->url(), ask, evpl::within(soon));
    if (!socket) return {socket.error().code()};
    drive(
        loop, [&] { return ask.opens + ask.closes > 0; }, "the socket neither opens nor ends");
    for (int tries = 0; ask.answers < wanted && ask.closes == 0 && tries < tries_max; ++tries) {
        evpl::Datagram* peer = socket->get();
        if (peer != nullptr) peer->send("12345");
        const Stopwatch watch;
        for (const int before = ask.answers; ask.answers == before && ask.closes == 0 && watch.elapsed() < 60_ms * evpl::test::patience;) loop.run_once(10_ms);
    }
    if (ask.answers < wanted && ask.closes == 0) verdict.note(Errc::timed_out);
    return verdict;
}

// -- threads -------------------------------------------------------------------------------------------------------

Verdict pool() {
    Verdict verdict;
    std::array<Echo, 3> clients{Echo{.serves = false}, Echo{.serves = false}, Echo{.serves = false}};
    struct Answer {
        void on_open(evpl::Connection& peer) { peer.deadline_recv(soon), peer.deadline_send(soon); }
        void on_recv(evpl::Connection& peer) { peer.send(peer.recv(peer.send_room())); }
        void on_writable(evpl::Connection& peer) { on_recv(peer); }
    };
    evpl::ThreadPool pool({.threads = 2, .loop = {.mode = evpl::Mode::event}});
    if (!pool.error().ok()) return {pool.error().code()};
    auto listener = pool.listen("tcp://127.0.0.1:0", [](evpl::Connection&) { return Answer{}; });
    if (!listener) {
        expect(!pool.last_failure().empty(), "a failure without a sentence");
        return {listener.error().code()};
    }
    {
        evpl::Loop loop({.mode = evpl::Mode::event});
        int connected = 0;
        for (Echo& client : clients) {
            if (auto made = evpl::connect(loop, listener->url(), client, evpl::within(soon))) ++connected;
            else verdict.note(made.error());
        }
        const auto closes = [&] { return clients[0].closes + clients[1].closes + clients[2].closes; };
        drive(
            loop, [&] { return closes() == connected; }, "a client does not end");
        for (const Echo& client : clients)
            if (client.closes > 0 && (client.received < message_bytes || client.ended != Errc::end)) verdict.note(client.ended);
        int good = 0;
        for (const Echo& client : clients) good += client.received == message_bytes;
        // One call failed: at most the connection whose call it was may have been hurt.
        expect(denied_for_good || connected < int(clients.size()) || good >= int(clients.size()) - 1, "more than one connection was hurt");
    }
    pool.stop(evpl::within(soon));
    return verdict;
}

// -- coroutines ----------------------------------------------------------------------------------------------------

co::Task<> answer(co::Stream peer) {
    while (auto bytes = co_await peer.recv(co::within(soon)))
        if (!co_await peer.send(*std::move(bytes), co::within(soon))) break;
}
co::Task<> ask(evpl::Loop& loop, std::string_view url, Verdict& verdict) {
    auto peer = co_await co::connect(loop, url, co::within(soon));
    if (!peer) co_return verdict.note(peer.error());
    for (int i = 0; i < 3; ++i) {
        auto flow = co_await peer->send("0123456789", co::within(soon));
        if (!flow) co_return verdict.note(flow.error());
        auto back = co_await peer->recv_exactly(10, co::within(soon));
        if (!back) co_return verdict.note(back.error());
        expect(back->size() == 10, "an echo has another size");
        co_await co::sleep(loop, 1_ms);
    }
}
Verdict coroutines() {
    Verdict verdict;
    bool over = false;
    evpl::Loop loop({.mode = evpl::Mode::event});
    auto listener = co::serve(loop, "inproc://failonce", answer);
    if (!listener) return {listener.error().code()};
    const auto end = [](bool& flag, evpl::Loop& on, std::string_view url, Verdict& told) -> co::Task<> {
        struct Mark {
            bool& flag;
            explicit Mark(bool& f) : flag(f) {}
            ~Mark() { flag = true; }
        } mark(flag);
        co_await ask(on, url, told);
    };
    co::spawn(end(over, loop, listener->url(), verdict), [&verdict](std::exception_ptr thrown) {
        try {
            std::rethrow_exception(thrown);
        } catch (const std::bad_alloc&) {
            verdict.note(Errc::out_of_memory);
        } catch (...) {
            expect(false, "a coroutine threw something else");
        }
    });
    drive(
        loop, [&] { return over; }, "the coroutine does not end");
    return verdict;
}

/// A frame that cannot be had, or a factory, is the C++ way of saying out of memory to its caller.
Verdict play(Verdict (*scenario)()) {
    try {
        return scenario();
    } catch (const std::bad_alloc&) {
        return {Errc::out_of_memory};
    }
}

// -- around it -----------------------------------------------------------------------------------------------------

struct Named {
    const char* name;
    Verdict (*scenario)();
} constexpr scenarios[] = {{"tcp", tcp},   {"tcp_beside", tcp_beside}, {"udp", udp}, {"unix_descriptor", unix_descriptor},
                           {"pool", pool}, {"coroutines", coroutines}};

int open_descriptors() {
    int count = -1;  // the listing's own
    DIR* listing = opendir("/proc/self/fd");
    if (listing == nullptr) return -1;
    while (const dirent* entry = readdir(listing)) count += entry->d_name[0] != '.';
    closedir(listing);
    return count;
}

const char* text_of(const Verdict& verdict) { return verdict.code == Errc::none ? "ok" : evpl::name_of(verdict.code); }

/// From now on this thread, and those it starts, get `error` for every call of `name`. False: not possible.
bool deny(const char* name, int error) {
#ifdef EVPL_TEST_SECCOMP
    const scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
    // Huge pages: only the mappings that ask for them.
    const bool huge = std::strcmp(name, "mmap_huge") == 0;
    const int number = seccomp_syscall_resolve_name(huge ? "mmap" : name);
    bool ok = filter != nullptr && number != __NR_SCMP_ERROR;
    if (ok && huge) ok = seccomp_rule_add(filter, SCMP_ACT_ERRNO(std::uint32_t(error)), number, 1, SCMP_A3(SCMP_CMP_MASKED_EQ, 0x40000, 0x40000)) == 0;
    if (ok && !huge) ok = seccomp_rule_add(filter, SCMP_ACT_ERRNO(std::uint32_t(error)), number, 0) == 0;
    ok = ok && seccomp_load(filter) == 0;
    if (filter != nullptr) seccomp_release(filter);
    return ok;
#else
    static_cast<void>(name), static_cast<void>(error);
    return false;
#endif
}

void write_stack_and_end(int) {
    void* frames[64];
    backtrace_symbols_fd(frames, backtrace(frames, 64), STDERR_FILENO);
    _exit(124);
}

}  // namespace

int main(int argc, char** argv) {
    const bool once = argc == 3 && std::strcmp(argv[2], "--once") == 0;  // whatever fails, somebody else makes it fail
    if (argc != 2 && !once && !(argc == 5 && std::strcmp(argv[2], "--deny") == 0)) return 2;
    const auto* const found = std::find_if(std::begin(scenarios), std::end(scenarios), [&](const Named& one) { return std::strcmp(one.name, argv[1]) == 0; });
    if (found == std::end(scenarios)) return 2;
    void* warm[4];
    backtrace(warm, 4);  // loads what it needs, now
    signal(SIGALRM, write_stack_and_end);
    alarm(30u * unsigned(evpl::test::patience));

    Verdict ended;
    if (argc == 5) {
        bool denied = false;
        std::thread([&] {
            denied = deny(argv[3], std::atoi(argv[4]));
            denied_for_good = denied;
            if (denied) ended = play(found->scenario);
            denied_for_good = false;
        }).join();
        if (!denied) return std::puts("SKIP: seccomp filters are not possible here"), 77;
    } else {
        arm();
        ended = play(found->scenario);
        disarm();
    }
    if (once) return std::printf("ended %s\n", text_of(ended)), broken ? 1 : 0;
    const long injected = failonce_injected != nullptr ? failonce_injected() : 0;
    first_pass = false;
    const Verdict clean = play(found->scenario);
    const long blocks = failonce_live_blocks != nullptr ? failonce_live_blocks() : 0;
    const int descriptors = open_descriptors();
    std::printf("ended %s\nclean %s\ninjected %ld\nleft %ld %d %zu\n", text_of(ended), text_of(clean), injected, blocks, descriptors,
                evpl::memory_use().slab_bytes);
    if (failonce_report != nullptr) failonce_report([](const char* call, long count) { std::printf("call %s %ld\n", call, count); });
    return broken || clean.code != Errc::none ? 1 : 0;
}
