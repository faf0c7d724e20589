// Sends back what comes: echo [URL]
#include <evpl/evpl.hpp>

struct Echo {  // pulls only what it can pass on: a peer that does not read is not read from
    void on_recv(evpl::Connection& peer) { peer.send(peer.recv(peer.send_room())); }  // the same slices go back
    void on_writable(evpl::Connection& peer) { on_recv(peer); }
};

int main(int argc, char** argv) {
    evpl::Loop loop;
    auto listener = evpl::listen<Echo>(loop, argc > 1 ? argv[1] : "tcp://127.0.0.1:7000");
    if (!listener) return evpl::complain(loop, listener.error());
    return loop.run_until_signal();
}
