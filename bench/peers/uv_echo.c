/* TCP echo on libuv, one thread, the way its guide teaches it, with the cheap options its users know:
 * one buffer per loop, uv_try_write first, uv_write for what did not fit, no reading meanwhile.
 *   uv_echo [--port N] [--spin]
 */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <uv.h>

static char buffer[256 * 1024];

static void on_read(uv_stream_t* peer, ssize_t got, const uv_buf_t* bytes);

static void on_alloc(uv_handle_t* handle, size_t suggested, uv_buf_t* bytes) {
    (void)handle, (void)suggested;
    *bytes = uv_buf_init(buffer, sizeof buffer);
}

static void on_closed(uv_handle_t* handle) { free(handle); }

static void close_peer(uv_stream_t* peer) {
    if (!uv_is_closing((uv_handle_t*)peer)) uv_close((uv_handle_t*)peer, on_closed);
}

static void on_written(uv_write_t* write, int status) {
    if (status < 0) close_peer(write->handle);
    else uv_read_start(write->handle, on_alloc, on_read);
    free(write);
}

static void on_read(uv_stream_t* peer, ssize_t got, const uv_buf_t* bytes) {
    if (got < 0) {
        close_peer(peer);
        return;
    }
    if (got == 0) return;
    uv_buf_t rest = uv_buf_init(bytes->base, (unsigned)got);
    int sent = uv_try_write(peer, &rest, 1);
    if (sent == got) return;
    if (sent < 0 && sent != UV_EAGAIN) {
        close_peer(peer);
        return;
    }
    if (sent < 0) sent = 0;
    /* The request carries its own copy of the rest: the loop's buffer serves the next reader. */
    uv_write_t* write = malloc(sizeof *write + (size_t)(got - sent));
    rest = uv_buf_init((char*)(write + 1), (unsigned)(got - sent));
    memcpy(rest.base, bytes->base + sent, rest.len);
    uv_read_stop(peer);
    if (uv_write(write, peer, &rest, 1, on_written) < 0) {
        free(write);
        close_peer(peer);
    }
}

static void on_connection(uv_stream_t* listener, int status) {
    if (status < 0) return;
    uv_tcp_t* peer = malloc(sizeof *peer);
    uv_tcp_init(listener->loop, peer);
    if (uv_accept(listener, (uv_stream_t*)peer) < 0) {
        close_peer((uv_stream_t*)peer);
        return;
    }
    uv_read_start((uv_stream_t*)peer, on_alloc, on_read);
}

/* NODELAY and the congestion control set on the listener are inherited by accepted sockets. */
static void tune(uv_tcp_t* listener) {
    uv_os_fd_t fd;
    uv_tcp_nodelay(listener, 1);
    if (uv_fileno((uv_handle_t*)listener, &fd) == 0) setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "cubic", 5);
}

int main(int argc, char** argv) {
    int port = 0, spin = 0;
    for (int i = 1; i < argc; ++i) {
        if (!strcmp(argv[i], "--spin")) spin = 1;
        else if (!strcmp(argv[i], "--port") && i + 1 < argc) port = atoi(argv[++i]);
        else return fprintf(stderr, "usage: %s [--port N] [--spin]\n", argv[0]), 2;
    }
    signal(SIGPIPE, SIG_IGN); /* libuv leaves this to its user */
    uv_loop_t* loop = uv_default_loop();
    uv_tcp_t listener;
    struct sockaddr_in where;
    int size = sizeof where;
    uv_tcp_init_ex(loop, &listener, AF_INET);
    uv_ip4_addr("127.0.0.1", port, &where);
    tune(&listener);
    if (uv_tcp_bind(&listener, (struct sockaddr*)&where, 0) || uv_listen((uv_stream_t*)&listener, 4096, on_connection))
        return fprintf(stderr, "cannot listen on port %d\n", port), 1;
    uv_tcp_getsockname(&listener, (struct sockaddr*)&where, &size);
    printf("listening on tcp://127.0.0.1:%d\n", ntohs(where.sin_port));
    fflush(stdout);
    if (!spin) return uv_run(loop, UV_RUN_DEFAULT);
    for (;;) uv_run(loop, UV_RUN_NOWAIT);
}
