// Sends a text, prints what comes back, and waits no longer than three seconds, in C: echo_client_c [URL [TEXT]]
#include <evpl/evpl.h>
#include <stdio.h>
#include <string.h>
typedef struct { const char* text; size_t missing; } Client;
static void on_open(void* self, evpl_connection* peer) {
    evpl_connection_send_bytes(peer, ((Client*)self)->text, ((Client*)self)->missing), evpl_connection_deadline_recv(peer, 3 * EVPL_S);
}
static void on_recv(void* self, evpl_connection* peer) {
    char got[4096];
    const size_t size = fwrite(got, 1, evpl_connection_peek(peer, got, sizeof got), stdout);
    if (evpl_connection_consume(peer, size), (((Client*)self)->missing -= size) == 0) puts(""), evpl_connection_shutdown(peer, 0);
}
static void on_close(void* self, evpl_connection* peer, evpl_error why) {
    if (((Client*)self)->missing > 0) evpl_complain(evpl_connection_loop(peer), why);
}
int main(int argc, char** argv) {
    const evpl_handler handler = {sizeof handler, .on_open = on_open, .on_recv = on_recv, .on_close = on_close};
    Client client = {argc > 2 ? argv[2] : "hello", strlen(argc > 2 ? argv[2] : "hello")};
    evpl_loop* loop = NULL;  // every call answers null with misuse
    evpl_loop_new(NULL, &loop);
    const evpl_error error = evpl_connect(loop, argc > 1 ? argv[1] : "tcp://127.0.0.1:7000", &handler, &client, 3 * EVPL_S, NULL);
    const int status = error.code != EVPL_OK ? evpl_complain(loop, error) : evpl_loop_run_until_idle(loop);
    return evpl_loop_free(loop), status != 0 || client.missing > 0;
}
