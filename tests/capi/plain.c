/* Nothing but C on the shared library: a server and a client over inproc, a timer as the watchdog. */
#include <evpl/evpl.h>
#include <stdio.h>
#include <string.h>

static int failures;
#define CHECK(condition) ((condition) ? (void)0 : (void)(++failures, printf("%s:%d: %s\n", __FILE__, __LINE__, #condition)))

typedef struct Client {
    evpl_loop* loop;
    char answer[32];
    size_t size;
    evpl_error why;
} Client;

static void server_on_recv(void* self, evpl_connection* peer) {
    evpl_chain bytes = {{0}};
    CHECK(*(uint64_t*)self == 0);
    CHECK(evpl_connection_recv(peer, SIZE_MAX, &bytes).code == EVPL_OK);
    CHECK(evpl_connection_send(peer, &bytes).state == EVPL_GO);
}
static void client_on_open(void* self, evpl_connection* peer) {
    (void)self;
    CHECK(evpl_connection_send_bytes(peer, "hello", 5).state == EVPL_GO);
}
static void client_on_recv(void* self, evpl_connection* peer) {
    Client* const client = self;
    client->size = evpl_connection_peek(peer, client->answer, sizeof client->answer);
    CHECK(evpl_connection_consume(peer, client->size).code == EVPL_OK);
    CHECK(evpl_connection_close(peer, (evpl_error){0}).code == EVPL_OK);
}
static void client_on_close(void* self, evpl_connection* peer, evpl_error why) {
    Client* const client = self;
    (void)peer;
    client->why = why;
    evpl_loop_stop(client->loop, 0);
}
static void too_late(void* loop) {
    CHECK(!"no answer within 30 s");
    evpl_loop_stop(loop, 0);
}

int main(void) {
    const evpl_handler server = {.size_bytes = sizeof server, .on_recv = server_on_recv};
    const evpl_handler events = {sizeof events, .on_open = client_on_open, .on_recv = client_on_recv, .on_close = client_on_close};
    const evpl_factory each = {.size_bytes = sizeof each, .state_bytes = sizeof(uint64_t)};
    const evpl_loop_options options = {.size_bytes = sizeof options, .mode = EVPL_EVENT, .name = "plain"};
    evpl_listener* listener = NULL;
    evpl_timer watchdog = {{0}};
    Client client = {0};
    CHECK(evpl_loop_new(&options, &client.loop).code == EVPL_OK);
    CHECK(evpl_listen_each(client.loop, "inproc://plain", &server, &each, &listener).code == EVPL_OK);
    CHECK(evpl_connect(client.loop, "inproc://plain", &events, &client, EVPL_S, NULL).code == EVPL_OK);
    CHECK(evpl_after(client.loop, 30 * EVPL_S, too_late, client.loop, &watchdog).code == EVPL_OK);
    CHECK(evpl_loop_run(client.loop) == 0);
    CHECK(client.size == 5 && memcmp(client.answer, "hello", 5) == 0);
    CHECK(client.why.code == EVPL_CLOSED);
    evpl_timer_cancel(&watchdog);
    CHECK(evpl_listener_free(listener).code == EVPL_OK);
    CHECK(evpl_loop_free(client.loop).code == EVPL_OK);
    puts(failures == 0 ? "1 passed, 0 failed" : "0 passed, 1 failed");
    return failures != 0;
}
