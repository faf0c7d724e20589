#include "sockets.hpp"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <sys/socket.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

namespace load {

void fail(const char* what) {
    std::fprintf(stderr, "load: %s%s%s\n", what, errno ? ": " : "", errno ? std::strerror(errno) : "");
    std::exit(1);
}

std::int64_t now_ns() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1'000'000'000LL + t.tv_nsec;
}

int tcp_socket(const Options& options, std::uint64_t index) {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
    if (fd < 0) fail("socket");
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on)) fail("TCP_NODELAY");
    if (setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "cubic", 5)) fail("TCP_CONGESTION cubic");
    if (ntohl(options.target.sin_addr.s_addr) >> 24 != 127) return fd;
    sockaddr_in from{};
    from.sin_family = AF_INET;
    from.sin_addr.s_addr = htonl(0x7f000101u + std::uint32_t(index % 250));
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (bind(fd, reinterpret_cast<sockaddr*>(&from), sizeof from)) fail("bind to a client address");
    return fd;
}

int udp_socket(const Options& options) {
    const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0), on = 1, room = 4 << 20;
    if (fd < 0) fail("socket");
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    if (options.gso && setsockopt(fd, IPPROTO_UDP, UDP_GRO, &on, sizeof on)) fail("UDP_GRO");
    if (!start_connect(fd, options.target)) fail("connect");
    return fd;
}

bool start_connect(int fd, const sockaddr_in& target) {
    return connect(fd, reinterpret_cast<const sockaddr*>(&target), sizeof target) == 0 || errno == EINPROGRESS;
}

int connect_error(int fd) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
    return error;
}

const char* pattern() {
    static const std::vector<char> bytes = [] {
        std::vector<char> all(pattern_period + pattern_run);
        std::uint32_t state = 2463534242u;  // xorshift32
        for (std::size_t i = 0; i < pattern_period; ++i) {
            state ^= state << 13, state ^= state >> 17, state ^= state << 5;
            all[i] = char(state);
        }
        for (std::size_t i = pattern_period; i < all.size(); ++i) all[i] = all[i - pattern_period];
        return all;
    }();
    return bytes.data();
}

void verify(const char* bytes, std::size_t size, std::uint64_t position) {
    constexpr std::size_t sample = 64;
    const char* expected = pattern() + position % pattern_period;
    const std::size_t middle = size / 2;
    const bool same = size <= 4 * sample ? std::memcmp(bytes, expected, size) == 0
                                         : std::memcmp(bytes, expected, sample) == 0 && std::memcmp(bytes + middle, expected + middle, sample) == 0 &&
                                               std::memcmp(bytes + size - sample, expected + size - sample, sample) == 0;
    if (same) [[likely]]
        return;
    errno = 0;
    fail("the echo differs from what was sent");
}

}  // namespace load
