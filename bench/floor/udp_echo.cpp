// UDP echo as an expert writes it by hand for one thread and one socket: up to 64 messages per
// recvmmsg, sent back by one sendmmsg. With --gso a train of equal datagrams arrives merged
// (UDP_GRO) and leaves as one segmented send (UDP_SEGMENT).
//   udp_echo [--port N] [--spin] [--gso]
#include <arpa/inet.h>
#include <netinet/udp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {
constexpr unsigned batch = 64;
constexpr size_t merged_bytes_max = 65536;
struct Slot {
    sockaddr_in from;
    iovec bytes;
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
};
Slot slots[batch];
mmsghdr messages[batch];
char buffers[batch][merged_bytes_max];

void ready_to_receive(unsigned count, bool gso) {
    for (unsigned i = 0; i < count; ++i) {
        slots[i].bytes = {buffers[i], merged_bytes_max};
        messages[i].msg_hdr = {.msg_name = &slots[i].from,
                               .msg_namelen = sizeof slots[i].from,
                               .msg_iov = &slots[i].bytes,
                               .msg_iovlen = 1,
                               .msg_control = gso ? slots[i].control : nullptr,
                               .msg_controllen = gso ? sizeof slots[i].control : 0,
                               .msg_flags = 0};
    }
}

// Turns the received segment size into the request to segment the reply alike.
void ready_to_send(mmsghdr& message) {
    message.msg_hdr.msg_iov->iov_len = message.msg_len;
    cmsghdr* note = message.msg_hdr.msg_controllen ? CMSG_FIRSTHDR(&message.msg_hdr) : nullptr;
    int segment = 0;
    if (note && note->cmsg_level == IPPROTO_UDP && note->cmsg_type == UDP_GRO) memcpy(&segment, CMSG_DATA(note), sizeof segment);
    if (segment == 0 || unsigned(segment) >= message.msg_len) {
        message.msg_hdr.msg_controllen = 0;
        return;
    }
    note->cmsg_type = UDP_SEGMENT;
    note->cmsg_len = CMSG_LEN(sizeof(uint16_t));
    const auto size = uint16_t(segment);
    memcpy(CMSG_DATA(note), &size, sizeof size);
    message.msg_hdr.msg_controllen = CMSG_SPACE(sizeof size);
}

int bind_on(int port, bool gso) {
    const int fd = socket(AF_INET, SOCK_DGRAM, 0), on = 1, room = 4 << 20;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    if (gso && setsockopt(fd, IPPROTO_UDP, UDP_GRO, &on, sizeof on)) perror("UDP_GRO"), exit(1);
    sockaddr_in where{AF_INET, htons(uint16_t(port)), {htonl(INADDR_LOOPBACK)}, {}};
    socklen_t size = sizeof where;
    if (bind(fd, reinterpret_cast<sockaddr*>(&where), size)) perror("bind"), exit(1);
    getsockname(fd, reinterpret_cast<sockaddr*>(&where), &size);
    printf("listening on udp://127.0.0.1:%d\n", ntohs(where.sin_port)), fflush(stdout);
    return fd;
}
}  // namespace

int main(int argc, char** argv) {
    int port = 0, timeout_ms = -1;
    bool gso = false;
    for (int i = 1; i < argc; ++i) {
        if (!strcmp(argv[i], "--spin")) timeout_ms = 0;
        if (!strcmp(argv[i], "--gso")) gso = true;
        if (!strcmp(argv[i], "--port") && i + 1 < argc) port = atoi(argv[++i]);
    }
    const int fd = bind_on(port, gso), poller = epoll_create1(0);
    epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
    epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
    ready_to_receive(batch, gso);
    for (;;) {
        if (epoll_wait(poller, &event, 1, timeout_ms) != 1) continue;
        const int count = recvmmsg(fd, messages, batch, MSG_DONTWAIT, nullptr);
        for (int i = 0; i < count; ++i) ready_to_send(messages[i]);
        for (int done = 0; done < count;) {
            const int sent = sendmmsg(fd, messages + done, unsigned(count - done), 0);
            done += sent > 0 ? sent : 1;  // an unreachable client loses its reply, the others do not
        }
        if (count > 0) ready_to_receive(unsigned(count), gso);
    }
}
