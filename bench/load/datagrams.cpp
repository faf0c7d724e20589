// UDP in a closed loop: a window of numbered datagrams per socket, as many new ones as came back.
#include <netinet/udp.h>

#include <cstring>
#include <memory>
#include <vector>

#include "meter.hpp"
#include "streams.hpp"

namespace load {
namespace {

constexpr unsigned batch = 64;  // also the most segments the kernel takes in one send
constexpr std::size_t merged_bytes_max = 65507;
constexpr std::int64_t lost_after_ns = 50'000'000;

struct Channel {
    int fd = -1;
    std::uint64_t next = 0;        // number of the next datagram
    std::uint64_t valid_from = 0;  // older ones were given up
    unsigned in_flight = 0;
    std::int64_t progress_ns = 0;
    std::vector<std::int64_t> begun_ns;  // by number modulo size
};

class Datagrams {
public:
    Datagrams(const Options& options, Meter& meter) : options_(options), meter_(meter), channels_(options.connections) {
        out_.resize(std::size_t(batch) * options.size_bytes);
        for (unsigned i = 0; i < batch; ++i) std::memcpy(&out_[i * options.size_bytes], pattern(), options.size_bytes);
        for (unsigned i = 0; i < batch; ++i) in_[i].resize(options.gso ? 65536 : 2048);
        for (Channel& channel : channels_) {
            channel.fd = udp_socket(options);
            channel.begun_ns.resize(std::size_t(options.depth) * 2);
            channel.progress_ns = now_ns();
            epoll_event event{};
            event.events = EPOLLIN;
            event.data.ptr = &channel;
            epoll_ctl(poller_, EPOLL_CTL_ADD, channel.fd, &event);
            fill(channel, now_ns());
        }
    }

    void turn(std::int64_t now) {
        epoll_event ready[64];
        const int count = epoll_wait(poller_, ready, 64, options_.spin ? 0 : 10);
        for (int i = 0; i < count; ++i) {
            Channel& channel = *static_cast<Channel*>(ready[i].data.ptr);
            receive(channel);
            fill(channel, now_ns());
        }
        for (Channel& channel : channels_)
            if (now - channel.progress_ns > lost_after_ns) give_up(channel, now);
    }

private:
    void give_up(Channel& channel, std::int64_t now) {
        meter_.add_lost(channel.in_flight);
        channel.valid_from = channel.next;
        channel.in_flight = 0;
        channel.progress_ns = now;
        fill(channel, now);
    }

    void fill(Channel& channel, std::int64_t now) {
        while (channel.in_flight < options_.depth) {
            unsigned count = std::min(options_.depth - channel.in_flight, batch);
            if (options_.gso) count = std::min(count, unsigned(merged_bytes_max / options_.size_bytes));
            for (unsigned i = 0; i < count; ++i) {
                const std::uint64_t number = channel.next + i;
                std::memcpy(&out_[i * options_.size_bytes], &number, sizeof number);
                channel.begun_ns[number % channel.begun_ns.size()] = now;
            }
            const unsigned sent = options_.gso ? send_merged(channel.fd, count) : send_batch(channel.fd, count);
            channel.next += sent;
            channel.in_flight += sent;
            if (sent < count) return;  // the socket is full; arrivals bring us back here
        }
    }

    unsigned send_batch(int fd, unsigned count) {
        mmsghdr messages[batch]{};
        iovec pieces[batch];
        for (unsigned i = 0; i < count; ++i) {
            pieces[i] = {&out_[i * options_.size_bytes], options_.size_bytes};
            messages[i].msg_hdr.msg_iov = &pieces[i];
            messages[i].msg_hdr.msg_iovlen = 1;
        }
        const int sent = sendmmsg(fd, messages, count, 0);
        if (sent < 0 && errno != EAGAIN) fail("sendmmsg");
        return sent < 0 ? 0 : unsigned(sent);
    }

    unsigned send_merged(int fd, unsigned count) {
        iovec piece{out_.data(), std::size_t(count) * options_.size_bytes};
        alignas(cmsghdr) char control[CMSG_SPACE(sizeof(std::uint16_t))]{};
        msghdr message{};
        message.msg_iov = &piece;
        message.msg_iovlen = 1;
        message.msg_control = control;
        message.msg_controllen = sizeof control;
        cmsghdr* note = CMSG_FIRSTHDR(&message);
        note->cmsg_level = IPPROTO_UDP;
        note->cmsg_type = UDP_SEGMENT;
        note->cmsg_len = CMSG_LEN(sizeof(std::uint16_t));
        const auto segment = std::uint16_t(options_.size_bytes);
        std::memcpy(CMSG_DATA(note), &segment, sizeof segment);
        if (sendmsg(fd, &message, 0) >= 0) return count;
        if (errno != EAGAIN) fail("sendmsg with UDP_SEGMENT");
        return 0;
    }

    void receive(Channel& channel) {
        mmsghdr messages[batch]{};
        iovec pieces[batch];
        for (unsigned i = 0; i < batch; ++i) {
            pieces[i] = {in_[i].data(), in_[i].size()};
            messages[i].msg_hdr.msg_iov = &pieces[i];
            messages[i].msg_hdr.msg_iovlen = 1;
        }
        const int count = recvmmsg(channel.fd, messages, batch, 0, nullptr);
        if (count < 0 && errno != EAGAIN) fail("recvmmsg");
        const std::int64_t now = now_ns();
        for (int i = 0; i < count; ++i) take(channel, in_[std::size_t(i)].data(), messages[i].msg_len, now);
    }

    // A merged arrival is a whole number of our datagrams: all of them have the same size.
    void take(Channel& channel, const char* bytes, std::size_t size, std::int64_t now) {
        const std::size_t one = options_.size_bytes;
        if (size % one != 0 || (!options_.gso && size != one)) errno = 0, fail("a datagram came back with another size");
        for (std::size_t at = 0; at < size; at += one) {
            std::uint64_t number;
            std::memcpy(&number, bytes + at, sizeof number);
            const std::size_t tail = std::min<std::size_t>(one - sizeof number, 64);
            if (number >= channel.next || std::memcmp(bytes + at + one - tail, pattern() + one - tail, tail) != 0)
                errno = 0, fail("a datagram came back changed");
            if (number < channel.valid_from || channel.in_flight == 0) continue;
            --channel.in_flight;
            channel.progress_ns = now;
            meter_.record(now - channel.begun_ns[number % channel.begun_ns.size()], one);
        }
    }

    const Options& options_;
    Meter& meter_;
    int poller_ = epoll_create1(0);
    std::vector<Channel> channels_;
    std::vector<char> out_;
    std::vector<char> in_[batch];
};

}  // namespace

void run_udp(const Options& options) {
    Meter meter(options);
    Datagrams datagrams(options, meter);
    for (std::int64_t now = now_ns(); meter.running(now); now = now_ns()) datagrams.turn(now);
    meter.report();
}

}  // namespace load
