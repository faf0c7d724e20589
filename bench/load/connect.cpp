// Connect, one echo, close, over and over.
#include <unistd.h>

#include <vector>

#include "meter.hpp"
#include "streams.hpp"

namespace load {
namespace {

struct Attempt {
    int fd = -1;
    std::int64_t begun_ns = 0;
    std::uint32_t received = 0;
    bool sent = false;
};

class Connector {
public:
    Connector(const Options& options, Meter& meter) : options_(options), meter_(meter), attempts_(options.connections) {
        if (options.size_bytes > 4096) errno = 0, fail("connect: --size is at most 4096");
        for (Attempt& attempt : attempts_) begin(attempt);
    }

    void turn() {
        epoll_event ready[256];
        const int count = epoll_wait(poller_, ready, 256, options_.spin ? 0 : 100);
        for (int i = 0; i < count; ++i) {
            Attempt& attempt = *static_cast<Attempt*>(ready[i].data.ptr);
            if (!attempt.sent) {
                send_request(attempt);
                watch(attempt, EPOLL_CTL_MOD);
            } else {
                receive(attempt);
            }
        }
    }

private:
    // On loopback the handshake is over when connect returns, so the request usually leaves at once.
    void begin(Attempt& attempt) {
        attempt = {.fd = -1, .begun_ns = now_ns(), .received = 0, .sent = false};
        attempt.fd = tcp_socket(options_, index_++);
        if (!start_connect(attempt.fd, options_.target)) fail("connect");
        send_request(attempt);
        watch(attempt, EPOLL_CTL_ADD);
    }

    void send_request(Attempt& attempt) {
        const ssize_t sent = send(attempt.fd, pattern(), options_.size_bytes, MSG_NOSIGNAL);
        attempt.sent = sent == ssize_t(options_.size_bytes);
        if (!attempt.sent && errno != EAGAIN && errno != ENOTCONN) fail("send after connect");
    }

    void watch(Attempt& attempt, int operation) {
        epoll_event event{};
        event.events = attempt.sent ? EPOLLIN : EPOLLOUT;
        event.data.ptr = &attempt;
        if (epoll_ctl(poller_, operation, attempt.fd, &event)) fail("epoll_ctl");
    }

    void receive(Attempt& attempt) {
        char bytes[4096];
        const ssize_t got = recv(attempt.fd, bytes, sizeof bytes, 0);
        if (got < 0 && errno == EAGAIN) return;
        if (got == 0) errno = 0;
        if (got <= 0) fail("recv of the first echo");
        verify(bytes, std::size_t(got), attempt.received);
        attempt.received += std::uint32_t(got);
        if (attempt.received < options_.size_bytes) return;
        const linger reset{1, 0};
        if (options_.linger0) setsockopt(attempt.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        meter_.record(now_ns() - attempt.begun_ns, options_.size_bytes);
        close(attempt.fd);
        begin(attempt);
    }

    const Options& options_;
    Meter& meter_;
    int poller_ = epoll_create1(0);
    std::uint64_t index_ = 0;
    std::vector<Attempt> attempts_;
};

}  // namespace

void run_connect(const Options& options) {
    Meter meter(options);
    Connector connector(options, meter);
    while (meter.running(now_ns())) connector.turn();
    meter.report();
}

}  // namespace load
