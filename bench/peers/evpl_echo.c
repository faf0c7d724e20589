/* TCP echo on the library's C interface, in event mode: evpl_echo_c --port N */
#include <evpl/evpl.h>
#include <stdio.h>
#include <string.h>

static void pass_on(void* self, evpl_connection* peer) {
    (void)self;
    evpl_chain bytes = {{0}};
    evpl_connection_recv(peer, evpl_connection_send_room(peer), &bytes);
    evpl_connection_send(peer, &bytes);
}

int main(int argc, char** argv) {
    char url[64];
    if (argc != 3 || strcmp(argv[1], "--port") != 0) return 2;
    snprintf(url, sizeof url, "tcp://127.0.0.1:%s", argv[2]);
    const evpl_loop_options options = {.size_bytes = sizeof options, .mode = EVPL_EVENT};
    const evpl_handler echo = {.size_bytes = sizeof echo, .on_recv = pass_on, .on_writable = pass_on};
    evpl_loop* loop = NULL;
    evpl_listener* listener = NULL;
    evpl_loop_new(&options, &loop);
    const evpl_error error = evpl_listen(loop, url, &echo, NULL, &listener);
    if (error.code == EVPL_OK) printf("listening on %s\n", url), fflush(stdout);
    const int status = error.code != EVPL_OK ? evpl_complain(loop, error) : evpl_loop_run_until_signal(loop);
    evpl_listener_free(listener);
    evpl_loop_free(loop);
    return status;
}
