// TCP echo as an expert writes it for one thread: level-triggered epoll, one buffer for everybody, send directly,
// keep what the kernel refused; who has unsent bytes is not read. Options: --port N, --spin.
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {
struct Peer {
    int fd;
    std::string unsent;  // empty in the common case: no allocation
};
char buffer[256 * 1024];
int poller;

void watch(Peer& peer, unsigned events, int operation) {
    epoll_event event{.events = events, .data = {.ptr = &peer}};
    epoll_ctl(poller, operation, peer.fd, &event);
}

void close_peer(Peer& peer) {
    close(peer.fd);
    delete &peer;
}

void accept_all(int listener) {
    for (int fd; (fd = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK)) >= 0;) watch(*new Peer{fd, {}}, EPOLLIN, EPOLL_CTL_ADD);
}

void send_unsent(Peer& peer) {
    const ssize_t sent = send(peer.fd, peer.unsent.data(), peer.unsent.size(), MSG_NOSIGNAL);
    if (sent < 0) return errno == EAGAIN ? void() : close_peer(peer);
    peer.unsent.erase(0, size_t(sent));
    if (peer.unsent.empty()) watch(peer, EPOLLIN, EPOLL_CTL_MOD);
}

void echo(Peer& peer) {
    const ssize_t got = recv(peer.fd, buffer, sizeof buffer, 0);
    if (got <= 0) return got < 0 && errno == EAGAIN ? void() : close_peer(peer);
    ssize_t sent = send(peer.fd, buffer, size_t(got), MSG_NOSIGNAL);
    if (sent == got) return;
    if (sent < 0 && errno != EAGAIN) return close_peer(peer);
    if (sent < 0) sent = 0;
    peer.unsent.assign(buffer + sent, size_t(got - sent));
    watch(peer, EPOLLOUT, EPOLL_CTL_MOD);
}

int listen_on(int port) {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);  // accepted sockets inherit this
    setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "cubic", 5);   // and this
    sockaddr_in where{AF_INET, htons(uint16_t(port)), {htonl(INADDR_LOOPBACK)}, {}};
    socklen_t size = sizeof where;
    if (bind(fd, reinterpret_cast<sockaddr*>(&where), size) || listen(fd, 4096)) return perror("listen"), exit(1), -1;
    getsockname(fd, reinterpret_cast<sockaddr*>(&where), &size);
    printf("listening on tcp://127.0.0.1:%d\n", ntohs(where.sin_port)), fflush(stdout);
    return fd;
}
}  // namespace

int main(int argc, char** argv) {
    int port = 0, timeout_ms = -1;
    for (int i = 1; i < argc; ++i) {
        if (!strcmp(argv[i], "--spin")) timeout_ms = 0;
        if (!strcmp(argv[i], "--port") && i + 1 < argc) port = atoi(argv[++i]);
    }
    poller = epoll_create1(0);
    Peer listener{listen_on(port), {}};
    watch(listener, EPOLLIN, EPOLL_CTL_ADD);
    for (epoll_event ready[256];;) {
        for (int i = 0, count = epoll_wait(poller, ready, 256, timeout_ms); i < count; ++i) {
            Peer& peer = *static_cast<Peer*>(ready[i].data.ptr);
            if (&peer == &listener) accept_all(peer.fd);
            else if (peer.unsent.empty()) echo(peer);
            else send_unsent(peer);
        }
    }
}
