// Sends back what comes, in C: echo_c [URL]
#include <evpl/evpl.h>

static void pass_on(void* self, evpl_connection* peer) {  // pulls only what it can pass on
    (void)self;
    evpl_chain bytes = {{0}};
    evpl_connection_recv(peer, evpl_connection_send_room(peer), &bytes);
    evpl_connection_send(peer, &bytes);  // the same slices go back
}

int main(int argc, char** argv) {
    const evpl_handler echo = {.size_bytes = sizeof echo, .on_recv = pass_on, .on_writable = pass_on};
    evpl_loop* loop;
    evpl_listener* listener;
    if (evpl_loop_new(NULL, &loop).code != EVPL_OK) return 1;
    const evpl_error error = evpl_listen(loop, argc > 1 ? argv[1] : "tcp://127.0.0.1:7000", &echo, NULL, &listener);
    const int status = error.code != EVPL_OK ? evpl_complain(loop, error) : evpl_loop_run_until_signal(loop);
    evpl_listener_free(listener);
    evpl_loop_free(loop);
    return status;
}
