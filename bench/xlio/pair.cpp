// What a received and a sent message of 64 bytes cost over XLIO beyond the library itself: the same exchange by a loop written by hand on its
// functions, and through ours, over the library that EVPL_XLIO_LIBRARY names. With the stand-in of the tests in its memory mode
// (XLIO_DOUBLE=memory) the difference is our own. Prints one line of JSON.
// usage: pair [--pairs N] [--depth N] [--only hand|evpl]
#include <arpa/inet.h>
#include <dlfcn.h>
#include <pthread.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>

#include "evpl/evpl.hpp"
#include "transport/xlio/library.hpp"

namespace {

std::uint64_t allocations = 0, locks = 0;

}  // namespace

// Everything in the process that allocates or locks comes through here.
extern "C" void* __libc_malloc(std::size_t);
extern "C" void* malloc(std::size_t bytes) {
    ++allocations;
    return __libc_malloc(bytes);
}
extern "C" int pthread_mutex_lock(pthread_mutex_t* mutex) noexcept {
    static auto* const real = reinterpret_cast<int (*)(pthread_mutex_t*)>(dlsym(RTLD_NEXT, "pthread_mutex_lock"));
    ++locks;
    return real(mutex);
}

namespace {

namespace xlio = evpl::transport::xlio;
namespace abi = xlio::abi;

constexpr std::size_t message_bytes = 64;

struct Plan {
    std::uint64_t pairs = 2'000'000;
    unsigned depth = 8;
    std::string only;
};

struct Cost {
    double ns_per_pair = 0;
    std::uint64_t allocations = 0, locks = 0;
};

/// From the moment when all is warm to the last pair.
class Meter {
public:
    void begin() {
        allocations_ = allocations;
        locks_ = locks;
        began_ns_ = now_ns();
    }
    static std::int64_t now_ns() {
        timespec t{};
        clock_gettime(CLOCK_MONOTONIC, &t);
        return std::int64_t(t.tv_sec) * 1'000'000'000 + t.tv_nsec;
    }
    Cost end(std::uint64_t pairs) const { return {double(now_ns() - began_ns_) / double(pairs), allocations - allocations_, locks - locks_}; }

private:
    std::int64_t began_ns_ = 0;
    std::uint64_t allocations_ = 0, locks_ = 0;
};

[[noreturn]] void give_up(const char* why) {
    std::fprintf(stderr, "pair: %s\n", why);
    std::exit(1);
}

// -- by hand: both ends of one connection send back what comes

const abi::Calls* calls = nullptr;
abi::Group group = 0;
std::uint64_t received = 0;
abi::Socket accepted = 0;
bool established = false;

void hand_event(abi::Socket, std::uintptr_t, int event, int) { established |= event == abi::established; }
void hand_accepted(abi::Socket made, abi::Socket, std::uintptr_t) { accepted = made; }
void hand_received(abi::Socket socket, std::uintptr_t, void* data, std::size_t bytes, abi::Buf* buf) {
    const abi::SendAttr attr{abi::send_inline | abi::send_flush, 0, 0};
    if (calls->socket_send(socket, data, bytes, &attr) != 0) give_up("a send was refused");
    calls->group_buf_free(group, buf);
    ++received;
}

/// Kept out of line, so that its instructions can be told from others': those of the start, of waiting for slabs to be registered, and of the warm-up.
[[gnu::noinline]] void exchange_by_hand(std::uint64_t pairs) {
    for (const std::uint64_t until = received + pairs; received < until;) calls->group_poll(group);
}

Cost by_hand(const Plan& plan) {
    const abi::GroupAttr attr{0, &hand_event, nullptr, &hand_received, &hand_accepted};
    if (calls->group_create(&attr, &group) != 0) give_up("no group");
    const auto make = [] {
        const abi::SocketAttr socket_attr{0, AF_INET, group, 1};
        abi::Socket made = 0;
        if (calls->socket_create(&socket_attr, &made) != 0) give_up("no socket");
        return made;
    };
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof at;
    const abi::Socket listener = make(), client = make();
    auto* const name = reinterpret_cast<sockaddr*>(&at);
    if (calls->socket_bind(listener, name, size) != 0 || calls->socket_listen(listener) != 0 || calls->socket_getsockname(listener, name, &size) != 0 ||
        calls->socket_connect(client, name, size) != 0)
        give_up("no connection");
    for (int i = 0; i < 1'000'000 && !(established && accepted != 0); ++i) calls->group_poll(group);
    if (!established || accepted == 0) give_up("no connection");
    const char message[message_bytes] = {};
    const abi::SendAttr send{abi::send_inline | abi::send_flush, 0, 0};
    for (unsigned i = 0; i < plan.depth; ++i) calls->socket_send(client, message, sizeof message, &send);
    for (const std::uint64_t warm = received + plan.pairs / 10; received < warm;) calls->group_poll(group);
    Meter meter;
    meter.begin();
    exchange_by_hand(plan.pairs);
    const Cost cost = meter.end(plan.pairs);
    for (const abi::Socket socket : {listener, client, accepted}) calls->socket_destroy(socket);
    for (int i = 0; i < 10; ++i) calls->group_poll(group);
    calls->group_destroy(group);
    return cost;
}

// -- through the library

/// Both ends of one connection. A loop that was stopped has closed its connections, so the meter runs inside of one run().
struct Exchange {
    explicit Exchange(const Plan& its) : plan(its) {}

    void took(evpl::Loop& loop, std::size_t count) {
        bytes += count;
        if (!warm && bytes >= plan.pairs / 10 * message_bytes && Meter::now_ns() - opened_ns >= settled_ns) {
            warm = true;
            bytes = 0;
            meter.begin();
        } else if (warm && !over && bytes >= plan.pairs * message_bytes) {
            over = true;
            cost = meter.end(bytes / message_bytes);
            loop.stop();
        }
    }

    /// Within this time the loop has given back what only setting up has used: it looks twice, 500 ms apart (core/turn.cpp).
    static constexpr std::int64_t settled_ns = 1'200'000'000;

    const Plan& plan;
    const std::int64_t opened_ns = Meter::now_ns();
    Meter meter;
    Cost cost;
    std::uint64_t bytes = 0;
    bool warm = false, over = false;
};

struct Echo {
    Exchange& exchange;
    unsigned first;  ///< messages that it sends of its own

    void on_open(evpl::Connection& peer) {
        const std::byte message[message_bytes] = {};
        for (unsigned i = 0; i < first; ++i) peer.send(std::span(message));
    }
    void on_recv(evpl::Connection& peer) {
        evpl::Chain chain = peer.recv();
        const std::size_t count = chain.size();
        peer.send(std::move(chain));
        exchange.took(peer.loop(), count);
    }
};

[[gnu::noinline]] void exchange_by_evpl(evpl::Loop& loop) { loop.run(); }

Cost by_evpl(const Plan& plan) {
    Exchange exchange(plan);
    Echo client{exchange, plan.depth};
    evpl::Loop loop({.mode = evpl::Mode::poll});
    auto listener = evpl::listen(loop, "xlio://127.0.0.1:0", [&](evpl::Connection&) { return Echo{exchange, 0}; });
    if (!listener) give_up("cannot listen");
    if (!evpl::connect(loop, std::string(listener->url()), client)) give_up("cannot connect");
    while (!exchange.warm && !exchange.over) loop.run_once(evpl::Duration{});
    exchange_by_evpl(loop);
    return exchange.cost;
}

void show(const char* name, const Cost& cost) {
    std::printf("\"%s\": {\"ns_per_pair\": %.2f, \"allocations\": %llu, \"locks\": %llu}, ", name, cost.ns_per_pair,
                static_cast<unsigned long long>(cost.allocations), static_cast<unsigned long long>(cost.locks));
}

Plan read(int argc, char** argv) {
    Plan plan;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (std::strcmp(argv[i], "--pairs") == 0) plan.pairs = std::strtoull(argv[i + 1], nullptr, 10);
        else if (std::strcmp(argv[i], "--depth") == 0) plan.depth = unsigned(std::atoi(argv[i + 1]));
        else if (std::strcmp(argv[i], "--only") == 0) plan.only = argv[i + 1];
        else give_up("usage: pair [--pairs N] [--depth N] [--only hand|evpl]");
    }
    return plan;
}

}  // namespace

int main(int argc, char** argv) {
    const Plan plan = read(argc, argv);
    const auto started = xlio::start();
    if (!started) give_up("the library does not start: set EVPL_XLIO_LIBRARY, and EVPL_XLIO_CHECK=off for the stand-in");
    calls = *started;
    std::printf("{");
    if (plan.only != "evpl") show("hand", by_hand(plan));
    if (plan.only != "hand") show("evpl", by_evpl(plan));
    std::printf("\"pairs\": %llu, \"depth\": %u}\n", static_cast<unsigned long long>(plan.pairs), plan.depth);
}
