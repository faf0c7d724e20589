// TCP echo on the library's C++ interface, in event mode, the twin of evpl_echo.c: evpl_echo_cpp --port N
#include <evpl/evpl.hpp>

#include <cstdio>
#include <cstring>
#include <string>

struct Echo {
    void on_recv(evpl::Connection& peer) { peer.send(peer.recv(peer.send_room())); }
    void on_writable(evpl::Connection& peer) { on_recv(peer); }
};

int main(int argc, char** argv) {
    if (argc != 3 || std::strcmp(argv[1], "--port") != 0) return 2;
    evpl::Loop loop{{.mode = evpl::Mode::event}};
    auto listener = evpl::listen<Echo>(loop, std::string("tcp://127.0.0.1:") + argv[2]);
    if (!listener) return evpl::complain(loop, listener.error());
    std::printf("listening on tcp://127.0.0.1:%s\n", argv[2]), std::fflush(stdout);
    return loop.run_until_signal();
}
