/* Preloaded into a program, makes its calls of the C library fail: FAILONCE_CALL names one (`memory` is every allocation),
 * FAILONCE_NTH says which (0: none), FAILONCE_ERRNO with what. It counts between failonce_arm() and failonce_disarm(), on all
 * threads. In C, because C++ would want to know for each function whether glibc says that it throws. */
#define _GNU_SOURCE
#include "shim.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define CALLS_MAX 64

struct call {
    const char* name;
    atomic_long count;
    atomic_bool enlisted;
};

static atomic_bool armed;
static atomic_long injected;
static atomic_long live_blocks;
static _Atomic(struct call*) all[CALLS_MAX];
static const char* chosen;
static long nth;
static int chosen_errno;
static __thread bool spared;

__attribute__((constructor)) static void read_plan(void) {
    const char* which = getenv("FAILONCE_NTH");
    const char* error = getenv("FAILONCE_ERRNO");
    chosen = getenv("FAILONCE_CALL");
    nth = which != NULL ? atol(which) : 0;
    chosen_errno = error != NULL ? atoi(error) : 0;
}

static void enlist(struct call* call) {
    for (int i = 0; i < CALLS_MAX; ++i) {
        struct call* none = NULL;
        if (atomic_compare_exchange_strong(&all[i], &none, call)) return;
    }
    abort(); /* raise CALLS_MAX */
}

/* Counts the call. True: this is the one that fails; errno is set. */
static bool fails(struct call* call) {
    if (!atomic_load(&armed) || spared) return false;
    const long now = atomic_fetch_add(&call->count, 1) + 1;
    if (now == 1 && !atomic_exchange(&call->enlisted, true)) enlist(call);
    if (now != nth || chosen == NULL || strcmp(chosen, call->name) != 0) return false;
    atomic_fetch_add(&injected, 1);
    errno = chosen_errno;
    return true;
}

void failonce_arm(void) { atomic_store(&armed, true); }
void failonce_disarm(void) { atomic_store(&armed, false); }
bool failonce_spare(bool from_now_on) {
    const bool before = spared;
    spared = from_now_on;
    return before;
}
long failonce_injected(void) { return atomic_load(&injected); }
long failonce_live_blocks(void) { return atomic_load(&live_blocks); }
void failonce_report(void (*told)(const char* call, long count)) {
    for (int i = 0; i < CALLS_MAX; ++i) {
        const struct call* const call = atomic_load(&all[i]);
        if (call != NULL) told(call->name, atomic_load(&call->count));
    }
}

#define NEXT(name)                                                                                                                                             \
    static __typeof__(&name) real;                                                                                                                             \
    if (real == NULL) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

/* Sanitizers bring their own allocator, which does not go together with this; their leak checker counts instead. */
/* -- memory ------------------------------------------------------------------------------------------------------ */

#ifdef FAILONCE_LEAVES_MEMORY
void failonce_fail_memory(long which) { (void)which; }
#else
static struct call memory = {.name = "memory"};

void failonce_fail_memory(long which) {
    atomic_store(&memory.count, 0);
    atomic_store(&injected, 0);
    chosen = "memory";
    chosen_errno = ENOMEM;
    nth = which;
}

/* dlsym(3) may allocate before it has found calloc: such blocks come from here and are never freed. */
static _Alignas(16) char early[4096];
static atomic_size_t early_used;
static bool is_early(const void* at) { return (const char*)at >= early && (const char*)at < early + sizeof early; }
static void* take_early(size_t bytes) {
    const size_t at = atomic_fetch_add(&early_used, (bytes + 15) / 16 * 16);
    return at + bytes <= sizeof early ? early + at : NULL;
}

static void* counted(void* block) {
    if (block != NULL) atomic_fetch_add(&live_blocks, 1);
    return block;
}

void* malloc(size_t bytes) {
    NEXT(malloc);
    return fails(&memory) ? NULL : counted(real(bytes));
}
void* calloc(size_t count, size_t bytes) {
    static __thread bool looking;
    if (looking) return take_early(count * bytes);
    looking = true;
    NEXT(calloc);
    looking = false;
    return fails(&memory) ? NULL : counted(real(count, bytes));
}
void* realloc(void* block, size_t bytes) {
    NEXT(realloc);
    if (fails(&memory)) return NULL;
    void* const moved = real(block, bytes);
    return block == NULL ? counted(moved) : moved;
}
void* aligned_alloc(size_t align, size_t bytes) {
    NEXT(aligned_alloc);
    return fails(&memory) ? NULL : counted(real(align, bytes));
}
int posix_memalign(void** block, size_t align, size_t bytes) {
    NEXT(posix_memalign);
    if (fails(&memory)) return ENOMEM;
    const int code = real(block, align, bytes);
    if (code == 0) counted(*block);
    return code;
}
void free(void* block) {
    if (block == NULL || is_early(block)) return;
    NEXT(free);
    atomic_fetch_sub(&live_blocks, 1);
    real(block);
}

#endif

/* -- the rest ---------------------------------------------------------------------------------------------------- */

#define PASS(result, function, parameters, arguments, failed)                                                                                                  \
    result function parameters {                                                                                                                               \
        static struct call call = {.name = #function};                                                                                                         \
        NEXT(function);                                                                                                                                        \
        return fails(&call) ? failed : real arguments;                                                                                                         \
    }

PASS(void*, mmap, (void* at, size_t n, int protection, int flags, int fd, off_t from), (at, n, protection, flags, fd, from), MAP_FAILED)
PASS(int, madvise, (void* at, size_t n, int advice), (at, n, advice), -1)
PASS(int, socket, (int domain, int type, int protocol), (domain, type, protocol), -1)
PASS(int, bind, (int fd, const struct sockaddr* at, socklen_t n), (fd, at, n), -1)
PASS(int, listen, (int fd, int backlog), (fd, backlog), -1)
PASS(int, accept4, (int fd, struct sockaddr* from, socklen_t* n, int flags), (fd, from, n, flags), -1)
PASS(int, connect, (int fd, const struct sockaddr* to, socklen_t n), (fd, to, n), -1)
PASS(int, epoll_create1, (int flags), (flags), -1)
PASS(int, epoll_ctl, (int set, int what, int fd, struct epoll_event* event), (set, what, fd, event), -1)
PASS(int, epoll_wait, (int set, struct epoll_event* events, int most, int timeout), (set, events, most, timeout), -1)
PASS(int, epoll_pwait2, (int set, struct epoll_event* events, int most, const struct timespec* timeout, const sigset_t* mask),
     (set, events, most, timeout, mask), -1)
PASS(int, eventfd, (unsigned int first, int flags), (first, flags), -1)
PASS(int, timerfd_create, (int clock, int flags), (clock, flags), -1)
PASS(ssize_t, recv, (int fd, void* to, size_t n, int flags), (fd, to, n, flags), -1)
PASS(ssize_t, recvmsg, (int fd, struct msghdr* message, int flags), (fd, message, flags), -1)
PASS(int, recvmmsg, (int fd, struct mmsghdr* messages, unsigned int n, int flags, struct timespec* timeout), (fd, messages, n, flags, timeout), -1)
PASS(ssize_t, send, (int fd, const void* from, size_t n, int flags), (fd, from, n, flags), -1)
PASS(ssize_t, sendmsg, (int fd, const struct msghdr* message, int flags), (fd, message, flags), -1)
PASS(int, sendmmsg, (int fd, struct mmsghdr* messages, unsigned int n, int flags), (fd, messages, n, flags), -1)
PASS(int, setsockopt, (int fd, int level, int name, const void* value, socklen_t n), (fd, level, name, value, n), -1)
PASS(int, getsockopt, (int fd, int level, int name, void* value, socklen_t* n), (fd, level, name, value, n), -1)
PASS(int, getsockname, (int fd, struct sockaddr* own, socklen_t* n), (fd, own, n), -1)
PASS(int, getpeername, (int fd, struct sockaddr* peer, socklen_t* n), (fd, peer, n), -1)
PASS(int, shutdown, (int fd, int how), (fd, how), -1)
PASS(ssize_t, getrandom, (void* to, size_t n, unsigned int flags), (to, n, flags), -1)
PASS(int, getifaddrs, (struct ifaddrs * *list), (list), -1)
PASS(FILE*, fopen, (const char* path, const char* mode), (path, mode), NULL)
PASS(int, pthread_create, (pthread_t * thread, const pthread_attr_t* how, void* (*run)(void*), void* given), (thread, how, run, given), chosen_errno)

/* One argument more than is declared, and always of a register's size: what all our callers pass. */
int fcntl(int fd, int what, ...) {
    static struct call call = {.name = "fcntl"};
    NEXT(fcntl);
    va_list more;
    va_start(more, what);
    void* const argument = va_arg(more, void*);
    va_end(more);
    return fails(&call) ? -1 : real(fd, what, argument);
}
int open(const char* path, int flags, ...) {
    static struct call call = {.name = "open"};
    NEXT(open);
    va_list more;
    va_start(more, flags);
    const mode_t mode = (mode_t)va_arg(more, int);
    va_end(more);
    return fails(&call) ? -1 : real(path, flags, mode);
}
