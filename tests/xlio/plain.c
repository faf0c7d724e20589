/* An echo client on the Ultra API in plain C, on the real library or its stand-in: knows the binary interface by offsets and numbers alone, as a
 * program compiled against NVIDIA's header does, and nothing of ours.
 * usage: xlio_plain_c LIBRARY ADDRESS PORT; an echo server listens there. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { rounds = 20, message_bytes = 3000, memory_bytes = 1 << 16 };
enum { flag_flush = 1, event_established = 1, event_terminated = 2, event_closed = 3, event_error = 4 };
enum { slot_init, slot_exit, slot_group_create, slot_group_destroy, slot_group_poll, slot_socket_create, slot_socket_destroy };
enum { slot_connect = 12, slot_get_pd = 14, slot_send = 17, slot_group_buf_free = 22 };

static void** slots;
#define CALL(slot, result, ...) ((result(*)(__VA_ARGS__))slots[slot])

static uintptr_t group;
static int established, terminated, failed, completions;
static size_t received;
static int bad;

static void on_event(uintptr_t socket, uintptr_t data, int event, int value) {
    (void)socket, (void)data;
    if (event == event_established) established = 1;
    if (event == event_terminated) ++terminated;
    if (event == event_error) failed = value;
}
static void on_completion(uintptr_t socket, uintptr_t data, uintptr_t operation) {
    (void)socket, (void)data;
    bad |= operation != (uintptr_t)++completions;
}
static void on_received(uintptr_t socket, uintptr_t data, void* bytes, size_t count, void* buffer) {
    (void)socket;
    bad |= data != 42;
    for (size_t i = 0; i < count; ++i) bad |= ((unsigned char*)bytes)[i] != (unsigned char)((received + i) % message_bytes % 251);
    received += count;
    CALL(slot_group_buf_free, void, uintptr_t, void*)(group, buffer);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}
static int poll_until(const int* flag, int wanted) {
    for (const double limit = now() + 20; *flag < wanted && failed == 0;) {
        if (now() > limit) return 0;
        CALL(slot_group_poll, void, uintptr_t)(group);
    }
    return failed == 0;
}
static int give_up(const char* what) {
    fprintf(stderr, "plain: %s: %s\n", what, strerror(errno));
    return 1;
}

int main(int argc, char** argv) {
    if (argc != 4) return 2;
    void* library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) return give_up(dlerror());
    int (*ask)(int, int, int, void*, socklen_t*) = (int (*)(int, int, int, void*, socklen_t*))dlsym(library, "getsockopt");
    unsigned char* table = NULL;
    socklen_t size = sizeof table;
    if (ask == NULL || ask(-2, SOL_SOCKET, 2800, &table, &size) != 0) return give_up("no table");
    uint64_t magic, mask;
    memcpy(&magic, table, 8);
    memcpy(&mask, table + 8, 8);
    if (magic != 0x4f494c584144564eu || (mask != 0x2819 && mask != 0x2818)) return give_up("another table");
    slots = (void**)(void*)(table + (mask == 0x2819 ? 48 : 40));
    if (slots[slot_exit] != dlsym(library, "xlio_exit")) return give_up("the table lies elsewhere");

    struct {
        unsigned flags;
        void *registered, *allocate, *release;
    } init = {0, NULL, NULL, NULL};
    struct {
        unsigned flags;
        void *event, *completion, *received, *accepted;
    } group_attr = {0, (void*)on_event, (void*)on_completion, (void*)on_received, NULL};
    if (CALL(slot_init, int, const void*)(&init) != 0) return give_up("init");
    if (CALL(slot_group_create, int, const void*, uintptr_t*)(&group_attr, &group) != 0) return give_up("group");
    struct {
        unsigned flags;
        int domain;
        uintptr_t group, data;
    } socket_attr = {0, AF_INET, group, 42};
    uintptr_t socket = 0;
    if (CALL(slot_socket_create, int, const void*, uintptr_t*)(&socket_attr, &socket) != 0) return give_up("socket");
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[3]))};
    inet_pton(AF_INET, argv[2], &to.sin_addr);
    if (CALL(slot_connect, int, uintptr_t, const void*, socklen_t)(socket, &to, sizeof to) != 0) return give_up("connect");
    if (!poll_until(&established, 1)) return give_up("not established");

    /* Registered memory: ibv_mr has its lkey at byte 36. */
    void* (*reg)(void*, void*, size_t, int) = (void* (*)(void*, void*, size_t, int))dlsym(library, "ibv_reg_mr");
    if (reg == NULL) reg = (void* (*)(void*, void*, size_t, int))dlsym(dlopen("libibverbs.so.1", RTLD_NOW), "ibv_reg_mr");
    unsigned char* memory = aligned_alloc(4096, memory_bytes);
    if (reg == NULL || memory == NULL) return give_up("no memory");
    for (int i = 0; i < memory_bytes; ++i) memory[i] = (unsigned char)(i % message_bytes % 251);
    const unsigned char* region = reg(CALL(slot_get_pd, void*, uintptr_t)(socket), memory, memory_bytes, 1);
    if (region == NULL) return give_up("ibv_reg_mr");
    struct {
        unsigned flags;
        uint32_t key;
        uintptr_t operation;
    } send = {flag_flush, 0, 0};
    memcpy(&send.key, region + 36, 4);
    for (int i = 1; i <= rounds; ++i) {
        send.operation = (uintptr_t)i;
        if (CALL(slot_send, int, uintptr_t, const void*, size_t, const void*)(socket, memory, message_bytes, &send) != 0) return give_up("send");
        const double limit = now() + 20;
        while (received < (size_t)i * message_bytes && now() < limit) CALL(slot_group_poll, void, uintptr_t)(group);
    }
    if (!poll_until(&completions, rounds)) return give_up("completions are missing");
    if (bad || received != (size_t)rounds * message_bytes) return give_up("other bytes came back");
    CALL(slot_socket_destroy, int, uintptr_t)(socket);
    if (!poll_until(&terminated, 1) || terminated != 1) return give_up("not terminated");
    CALL(slot_group_destroy, int, uintptr_t)(group);
    printf("ok %d round trips, %d completions, terminated\n", rounds, completions);
    free(memory);
    return 0;
}
