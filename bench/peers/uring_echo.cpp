// TCP echo as an expert writes it with liburing for one thread: multishot accept and receive, one buffer ring, and one send at a time
// per peer straight from the received buffer, which then goes back to the ring. Options: --port N, --spin.
#include <arpa/inet.h>
#include <liburing.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>

namespace {
constexpr unsigned buffer_bytes = 16 << 10, buffers = 512;
enum Kind : unsigned long { k_accept, k_receive, k_send };
struct Piece {
    unsigned short buffer;
    unsigned at, end;
};
struct Peer {
    int fd;
    std::deque<Piece> unsent;  // the first one is being sent
    bool sending = false, receiving = false, over = false;
};
io_uring ring;
io_uring_buf_ring* provided;
char* memory;

io_uring_sqe* next(void* of, Kind kind, int operation, int fd, const void* address, unsigned length) {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring);
    if (!sqe) io_uring_submit(&ring), sqe = io_uring_get_sqe(&ring);
    io_uring_prep_rw(operation, sqe, fd, address, length, 0);
    io_uring_sqe_set_data64(sqe, reinterpret_cast<unsigned long>(of) | kind);
    return sqe;
}
void give_back(unsigned short id) {
    io_uring_buf_ring_add(provided, memory + size_t(id) * buffer_bytes, buffer_bytes, id, io_uring_buf_ring_mask(buffers), 0);
    io_uring_buf_ring_advance(provided, 1);
}
void accept_all(int listener) { next(nullptr, k_accept, IORING_OP_ACCEPT, listener, nullptr, 0)->ioprio = IORING_ACCEPT_MULTISHOT; }
void receive(Peer& peer) {
    peer.receiving = true;
    io_uring_sqe* const sqe = next(&peer, k_receive, IORING_OP_RECV, peer.fd, nullptr, 0);
    sqe->ioprio = IORING_RECV_MULTISHOT;
    sqe->flags = IOSQE_BUFFER_SELECT;
}
void send_first(Peer& peer) {
    const Piece& piece = peer.unsent.front();
    const char* bytes = memory + size_t(piece.buffer) * buffer_bytes + piece.at;
    peer.sending = true;
    next(&peer, k_send, IORING_OP_SEND, peer.fd, bytes, piece.end - piece.at)->msg_flags = MSG_NOSIGNAL;
}
void close_if_over(Peer& peer) {
    if (!peer.over || peer.sending || peer.receiving) return;
    for (const Piece& piece : peer.unsent) give_back(piece.buffer);
    close(peer.fd);
    delete &peer;
}
void received(Peer& peer, const io_uring_cqe& cqe) {
    peer.receiving = cqe.flags & IORING_CQE_F_MORE;
    peer.over |= cqe.res <= 0 && cqe.res != -ENOBUFS;
    if (cqe.res > 0) peer.unsent.push_back({static_cast<unsigned short>(cqe.flags >> IORING_CQE_BUFFER_SHIFT), 0, unsigned(cqe.res)});
    if (!peer.unsent.empty() && !peer.sending && !peer.over) send_first(peer);
    if (!peer.receiving && !peer.over) receive(peer);
    close_if_over(peer);
}
void sent(Peer& peer, int result) {
    peer.sending = false;
    if (result < 0) peer.over = true, shutdown(peer.fd, SHUT_RDWR);
    else if (Piece& piece = peer.unsent.front(); (piece.at += unsigned(result)) == piece.end) give_back(piece.buffer), peer.unsent.pop_front();
    if (!peer.unsent.empty() && !peer.over) send_first(peer);
    close_if_over(peer);
}
int listen_on(int port) {
    const int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);  // accepted sockets inherit this
    setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "cubic", 5);   // and this
    sockaddr_in where{AF_INET, htons(uint16_t(port)), {htonl(INADDR_LOOPBACK)}, {}};
    if (bind(fd, reinterpret_cast<sockaddr*>(&where), sizeof where) || listen(fd, 4096)) return perror("listen"), exit(1), -1;
    printf("listening on tcp://127.0.0.1:%d\n", port), fflush(stdout);
    return fd;
}
}  // namespace

int main(int argc, char** argv) {
    int port = 0;
    bool spin = false;
    for (int i = 1; i < argc; ++i) {
        spin |= !strcmp(argv[i], "--spin");
        if (!strcmp(argv[i], "--port") && i + 1 < argc) port = atoi(argv[++i]);
    }
    io_uring_params params{};
    params.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_CQSIZE;
    params.cq_entries = 4096;
    if (io_uring_queue_init_params(512, &ring, &params)) return perror("io_uring"), 1;
    io_uring_register_ring_fd(&ring);
    memory = static_cast<char*>(aligned_alloc(4096, size_t(buffers) * buffer_bytes));
    provided = static_cast<io_uring_buf_ring*>(aligned_alloc(4096, buffers * sizeof(io_uring_buf)));
    io_uring_buf_reg group{reinterpret_cast<unsigned long>(provided), buffers, 0, 0, {}};
    if (io_uring_register_buf_ring(&ring, &group, 0)) return perror("buffer ring"), 1;
    io_uring_buf_ring_init(provided);
    for (unsigned i = 0; i < buffers; ++i) give_back(static_cast<unsigned short>(i));
    const int listener = listen_on(port);
    accept_all(listener);
    for (;;) {
        if (!spin) io_uring_submit_and_wait(&ring, 1);
        else if (io_uring_sq_ready(&ring) || (*ring.sq.kflags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW))) io_uring_submit_and_get_events(&ring);
        unsigned head, count = 0;
        io_uring_cqe* cqe;
        io_uring_for_each_cqe(&ring, head, cqe) {
            ++count;
            Peer* peer = reinterpret_cast<Peer*>(cqe->user_data & ~7ul);
            const auto kind = cqe->user_data & 7;
            if (kind == k_receive) received(*peer, *cqe);
            if (kind == k_send) sent(*peer, cqe->res);
            if (kind == k_accept && cqe->res >= 0) receive(*new Peer{cqe->res, {}});
            if (kind == k_accept && !(cqe->flags & IORING_CQE_F_MORE)) accept_all(listener);
        }
        io_uring_cq_advance(&ring, count);
    }
}
