// Sends each datagram back to whoever sent it, in C: udp_echo_c [URL]
#include <evpl/evpl.h>

static void on_recv(void* self, evpl_datagram* socket) {
    evpl_buffer bytes = {{0}};
    evpl_address from;
    (void)self;
    while (evpl_datagram_recv(socket, &bytes, &from, NULL, NULL)) evpl_datagram_send(socket, &from, &bytes);  // no room: dropped
}

int main(int argc, char** argv) {
    const evpl_datagram_handler echo = {.size_bytes = sizeof echo, .on_recv = on_recv};
    evpl_loop* loop;
    if (evpl_loop_new(NULL, &loop).code != EVPL_OK) return 1;
    const evpl_error error = evpl_bind(loop, argc > 1 ? argv[1] : "udp://127.0.0.1:7000", &echo, NULL, NULL);
    const int status = error.code != EVPL_OK ? evpl_complain(loop, error) : evpl_loop_run_until_signal(loop);
    evpl_loop_free(loop);
    return status;
}
