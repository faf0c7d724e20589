// logged_echo URL...: for each endpoint, twice, a loop of its own with an echo server and a client; prints what the library logs as
// `log LINE`, and `echoed URL`. Exit code 1 when something did not come back.
#include <cstdio>
#include <string>

#include <evpl/evpl.hpp>

#include "support/patience.hpp"

namespace {

using namespace evpl::literals;

struct Answer {
    void on_recv(evpl::Connection& peer) { peer.send(peer.recv()); }
};
struct Ask {
    std::size_t received = 0;
    evpl::Error ended;
    void on_open(evpl::Connection& peer) { peer.send("to be echoed"); }
    void on_recv(evpl::Connection& peer) { received += peer.recv().size(); }
    void on_close(evpl::Connection&, evpl::Error why) { ended = why; }
};

bool echo(const char* url) {
    Ask ask;
    evpl::Loop loop;
    auto listener = evpl::listen<Answer>(loop, url);
    if (!listener) return evpl::complain(loop, listener.error()) == 0;
    // Short waits, which need a timer finer than the loop's.
    auto tick = loop.every(300_us, [] {});
    auto peer = evpl::connect(loop, listener->url(), ask, evpl::within(5_s));
    if (!peer || !tick) return evpl::complain(loop, peer ? tick.error() : peer.error()) == 0;
    const bool came = evpl::test::drive(loop, [&] { return ask.received == 12 || !ask.ended.ok(); });
    evpl::test::drive_for(loop, 5_ms);
    return came && ask.received == 12;
}

}  // namespace

int main(int argc, char** argv) {
    evpl::set_log([](void*, evpl::LogLevel, std::string_view line) { std::printf("log %.*s\n", int(line.size()), line.data()); });
    bool good = argc > 1;
    for (int i = 1; i < argc; ++i) {
        const bool both = echo(argv[i]) && echo(argv[i]);
        if (both) std::printf("echoed %s\n", argv[i]);
        good = good && both;
    }
    return good ? 0 : 1;
}
