// TCP connections whose content is the pattern: what was sent and received is two positions.
#pragma once
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <deque>

#include "options.hpp"
#include "sockets.hpp"

namespace load {

struct Stream {
    int fd = -1;
    std::uint64_t due = 0;  // stream position up to which we want to have sent
    std::uint64_t sent = 0;
    std::uint64_t received = 0;
    std::deque<std::int64_t> begun_ns;  // of requests not answered yet, oldest first
    bool waits_for_room = false;
};

class Streams {
public:
    /// Opens and connects all of options.connections.
    explicit Streams(const Options& options);

    /// Sends what is due, as far as the socket takes it.
    void pump(Stream& stream);

    /// Reads whatever has arrived, verifies it and calls on_bytes(stream, now_ns) once per stream.
    template <class OnBytes>
    void turn(int timeout_ms, OnBytes&& on_bytes) {
        const int count = epoll_wait(poller_, ready_.data(), int(ready_.size()), timeout_ms);
        for (int i = 0; i < count; ++i) {
            Stream& stream = *static_cast<Stream*>(ready_[std::size_t(i)].data.ptr);
            if (ready_[std::size_t(i)].events & EPOLLOUT) pump(stream);
            if ((ready_[std::size_t(i)].events & ~unsigned(EPOLLOUT)) && receive(stream)) on_bytes(stream, now_ns());
        }
    }

    auto begin() { return streams_.begin(); }
    auto end() { return streams_.end(); }
    Stream& operator[](std::size_t index) { return streams_[index]; }

private:
    bool receive(Stream& stream);
    void watch(Stream& stream, int operation);

    int poller_ = epoll_create1(0);
    std::deque<Stream> streams_;
    std::array<epoll_event, 256> ready_;
};

/// The modes over Streams; each returns when the window is over and has been reported.
void run_closed(const Options& options);
void run_turns(const Options& options);
void run_open(const Options& options);
void run_stream(const Options& options);
void run_connect(const Options& options);
void run_udp(const Options& options);
void run_hold(const Options& options);

}  // namespace load
