#include "streams.hpp"

#include <poll.h>

#include <random>

#include "meter.hpp"

namespace load {
namespace {

char arrived[pattern_run];

void finish_connect(int fd) {
    pollfd one{fd, POLLOUT, 0};
    if (poll(&one, 1, 5000) != 1) fail("connect takes longer than 5 s");
    errno = connect_error(fd);
    if (errno) fail("connect");
}

}  // namespace

Streams::Streams(const Options& options) {
    for (unsigned i = 0; i < options.connections; ++i) {
        Stream& stream = streams_.emplace_back();
        stream.fd = tcp_socket(options, i);
        if (!start_connect(stream.fd, options.target)) fail("connect");
        finish_connect(stream.fd);
        watch(stream, EPOLL_CTL_ADD);
    }
}

void Streams::watch(Stream& stream, int operation) {
    epoll_event event{};
    event.events = stream.waits_for_room ? EPOLLIN | EPOLLOUT : EPOLLIN;
    event.data.ptr = &stream;
    if (epoll_ctl(poller_, operation, stream.fd, &event)) fail("epoll_ctl");
}

void Streams::pump(Stream& stream) {
    while (stream.sent < stream.due) {
        const auto wanted = std::size_t(std::min<std::uint64_t>(stream.due - stream.sent, pattern_run));
        const ssize_t sent = send(stream.fd, pattern() + stream.sent % pattern_period, wanted, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN) fail("send");
        if (sent > 0) stream.sent += std::uint64_t(sent);
        if (sent < ssize_t(wanted)) break;
    }
    if (const bool full = stream.sent < stream.due; full != stream.waits_for_room) {
        stream.waits_for_room = full;
        watch(stream, EPOLL_CTL_MOD);
    }
}

bool Streams::receive(Stream& stream) {
    const ssize_t got = recv(stream.fd, arrived, sizeof arrived, 0);
    if (got < 0 && errno == EAGAIN) return false;
    if (got < 0) fail("recv");
    if (got == 0) errno = 0, fail("the server closed a connection");
    verify(arrived, std::size_t(got), stream.received);
    stream.received += std::uint64_t(got);
    if (stream.received > stream.sent) errno = 0, fail("more came back than was sent");
    return true;
}

namespace {

// Takes the answered requests off the stream's list. Returns their number.
unsigned settle(Stream& stream, Meter& meter, std::uint32_t size_bytes, std::int64_t now) {
    const std::uint64_t begun = stream.due / size_bytes;
    const std::uint64_t answered = stream.received / size_bytes;
    unsigned count = 0;
    for (; !stream.begun_ns.empty() && begun - stream.begun_ns.size() < answered; ++count) {
        meter.record(now - stream.begun_ns.front(), size_bytes);
        stream.begun_ns.pop_front();
    }
    return count;
}

void begin_requests(Stream& stream, unsigned count, std::uint32_t size_bytes, std::int64_t now) {
    stream.due += std::uint64_t(count) * size_bytes;
    for (unsigned i = 0; i < count; ++i) stream.begun_ns.push_back(now);
}

}  // namespace

void run_closed(const Options& options) {
    Streams streams(options);
    Meter meter(options);
    const std::uint32_t size = options.size_bytes;
    std::uint64_t left = options.requests ? options.requests : ~std::uint64_t(0);
    const auto send_more = [&](Stream& stream, unsigned count, std::int64_t now) {
        count = unsigned(std::min<std::uint64_t>(count, left));
        left -= count;
        begin_requests(stream, count, size, now);
        streams.pump(stream);
    };
    for (Stream& stream : streams) send_more(stream, options.depth, now_ns());
    while (meter.running(now_ns()))
        streams.turn(options.spin ? 0 : 100, [&](Stream& stream, std::int64_t now) {
            if (const unsigned count = settle(stream, meter, size, now)) send_more(stream, count, now);
        });
    meter.report();
}

void run_turns(const Options& options) {
    Streams streams(options);
    Meter meter(options);
    std::size_t next = 0;
    unsigned waiting = 0;
    while (meter.running(now_ns())) {
        for (; waiting < options.active; ++waiting) {
            Stream& stream = streams[next++ % options.connections];
            begin_requests(stream, 1, options.size_bytes, now_ns());
            streams.pump(stream);
        }
        while (waiting > 0 && meter.running(now_ns()))
            streams.turn(options.spin ? 0 : 100, [&](Stream& stream, std::int64_t now) { waiting -= settle(stream, meter, options.size_bytes, now); });
    }
    meter.report();
}

void run_open(const Options& options) {
    Streams streams(options);
    Meter meter(options);
    std::mt19937_64 random(1);
    std::exponential_distribution<double> exponential(1.0);
    double next_ns = double(now_ns());
    std::size_t turn = 0;
    for (std::int64_t now = now_ns(); meter.running(now); now = now_ns()) {
        for (; double(now) >= next_ns; next_ns += options.gap_us * 1e3 * (options.poisson ? exponential(random) : 1.0)) {
            Stream& stream = streams[turn++ % options.connections];
            begin_requests(stream, 1, options.size_bytes, std::int64_t(next_ns));
            streams.pump(stream);
        }
        streams.turn(0, [&](Stream& stream, std::int64_t then) { settle(stream, meter, options.size_bytes, then); });
    }
    meter.report();
}

void run_stream(const Options& options) {
    Streams streams(options);
    Meter meter(options);
    const auto allow = [&](Stream& stream) {  // whole blocks only
        stream.due = (stream.received + options.window_bytes) / options.size_bytes * options.size_bytes;
        streams.pump(stream);
    };
    for (Stream& stream : streams) allow(stream);
    std::uint64_t counted = 0;
    while (meter.running(now_ns())) {
        streams.turn(options.spin ? 0 : 100, [&](Stream& stream, std::int64_t) { allow(stream); });
        std::uint64_t all = 0;
        for (const Stream& stream : streams) all += stream.received;
        meter.add_bytes(all - counted);
        counted = all;
    }
    meter.report();
}

}  // namespace load
