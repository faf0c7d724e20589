// Sends a text, prints what comes back, and waits no longer than three seconds: echo_client [URL [TEXT]]
#include <cstdio>
#include <evpl/evpl.hpp>
using namespace evpl::literals;

struct Client {
    std::string_view text;
    std::size_t missing = text.size();
    void on_open(evpl::Connection& peer) { peer.send(text), peer.deadline_recv(3_s); }
    void on_recv(evpl::Connection& peer) {
        for (const evpl::Buffer& slice : peer.recv()) missing -= std::fwrite(slice.data(), 1, slice.size(), stdout);
        if (missing == 0) std::puts(""), peer.shutdown();
    }
    void on_close(evpl::Connection& peer, evpl::Error why) {
        if (missing > 0) evpl::complain(peer.loop(), why);
    }
};

int main(int argc, char** argv) {
    Client client{argc > 2 ? argv[2] : "hello"};
    evpl::Loop loop;
    auto peer = evpl::connect(loop, argc > 1 ? argv[1] : "tcp://127.0.0.1:7000", client, evpl::within(3_s));
    return !peer ? evpl::complain(loop, peer.error()) : loop.run_until_idle() != 0 || client.missing > 0;
}
