// Echo for programs of this machine, which knows who they are: unix_echo [URL]
#include <cstdio>
#include <evpl/evpl.hpp>

struct Echo {
    void on_open(evpl::Connection& peer) {
        const auto who = peer.credentials();
        if (who) std::printf("process %d of user %u is here\n", who->pid, who->uid);
        std::fflush(stdout);
    }
    void on_recv(evpl::Connection& peer) { peer.send(peer.recv(peer.send_room())); }
    void on_writable(evpl::Connection& peer) { on_recv(peer); }
};

int main(int argc, char** argv) {
    evpl::Loop loop;
    auto listener = evpl::listen<Echo>(loop, argc > 1 ? argv[1] : "unix:///tmp/evpl-echo");
    if (!listener) return evpl::complain(loop, listener.error());
    return loop.run_until_signal();
}
