// An echo server inside another event loop, which here is poll(2) and also reads standard input, until its end: nested_loop [URL]
#include <poll.h>
#include <unistd.h>
#include <cstdio>
#include <evpl/evpl.hpp>

struct Echo {
    void on_recv(evpl::Connection& peer) { peer.send(peer.recv(peer.send_room())); }
    void on_writable(evpl::Connection& peer) { on_recv(peer); }
};
int main(int argc, char** argv) {
    evpl::Loop loop;
    auto listener = evpl::listen<Echo>(loop, argc > 1 ? argv[1] : "tcp://127.0.0.1:7000");
    const auto fd = loop.native_fd();
    if (!listener || !fd) return evpl::complain(loop, listener ? fd.error() : listener.error());
    pollfd host[] = {{*fd, POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
    for (char text[256]; poll(host, 2, -1) > 0;) {
        if (host[0].revents != 0) while (loop.run_once()) {}  // afterwards it is armed again
        if (host[1].revents == 0) continue;
        const ssize_t size = read(STDIN_FILENO, text, sizeof text);
        if (size <= 0) return 0;
        std::printf("the host read %zd bytes\n", size), std::fflush(stdout);
    }
    return 1;
}
