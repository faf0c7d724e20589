#pragma once

// Plain sockets: peers that do what no library would.

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "evpl/duration.hpp"

namespace evpl::test {

/// A descriptor that closes itself.
class Fd {
public:
    Fd() = default;
    explicit Fd(int fd) : fd_(fd) {}
    Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    Fd& operator=(Fd&& other) noexcept {
        reset(std::exchange(other.fd_, -1));
        return *this;
    }
    ~Fd() { reset(); }
    int get() const { return fd_; }
    explicit operator bool() const { return fd_ >= 0; }
    void reset(int fd = -1) {
        if (fd_ >= 0) ::close(fd_);
        fd_ = fd;
    }

private:
    int fd_ = -1;
};

inline sockaddr_in loopback(std::uint16_t port, const char* host = "127.0.0.1") {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    inet_pton(AF_INET, host, &address.sin_addr);
    return address;
}

inline std::uint16_t port_of(int fd) {
    sockaddr_in address{};
    socklen_t size = sizeof address;
    if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) return 0;
    return ntohs(address.sin_port);
}

/// Bound to a free port of 127.0.0.1; listening when `backlog` is not negative.
inline Fd plain_socket(int type, int backlog = -1) {
    Fd fd(::socket(AF_INET, type | SOCK_CLOEXEC, 0));
    const sockaddr_in address = loopback(0);
    if (!fd || ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return Fd();
    if (backlog >= 0 && ::listen(fd.get(), backlog) != 0) return Fd();
    return fd;
}

/// Connected to 127.0.0.1:port, or being so when `flags` has SOCK_NONBLOCK.
inline Fd plain_dial(std::uint16_t port, int type = SOCK_STREAM, int flags = 0) {
    Fd fd(::socket(AF_INET, type | SOCK_CLOEXEC | flags, 0));
    const sockaddr_in address = loopback(port);
    if (!fd) return fd;
    if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 && errno != EINPROGRESS) return Fd();
    return fd;
}

inline bool wait_ready(int fd, short events, int timeout_ms) {
    pollfd entry{fd, events, 0};
    int ready = -1;
    do ready = ::poll(&entry, 1, timeout_ms);
    while (ready < 0 && errno == EINTR);  // as when a ring of an earlier test ends
    return ready == 1 && (entry.revents & events) != 0;
}

/// A port of 127.0.0.1 on which nobody listens.
inline std::uint16_t unused_port() {
    const Fd fd = plain_socket(SOCK_STREAM);
    return port_of(fd.get());
}

/// A listener that answers nobody: its backlog is full, so that the kernel drops each SYN.
struct BlackHole {
    Fd listener = plain_socket(SOCK_STREAM, 0);
    std::vector<Fd> filling;
    std::uint16_t port = port_of(listener.get());

    /// False when a connect still gets through.
    bool fill() {
        for (int i = 0; i < 8; ++i) {
            filling.push_back(plain_dial(port, SOCK_STREAM, SOCK_NONBLOCK));
            if (!wait_ready(filling.back().get(), POLLOUT, 100)) return true;
        }
        return false;
    }
};

inline void set_linger_reset(int fd) {
    const linger now{1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
}

}  // namespace evpl::test
