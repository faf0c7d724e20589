// What the compiler's instrumentation calls (the interface is that of -fsanitize=thread), and the few functions of the C library that
// order threads or move memory. Outside of an exploration everything does what it always does.

#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

#include "explorer.hpp"
#include "machine.hpp"

namespace {

using evpl::race::Change;
using evpl::race::exploring;

#define HERE __builtin_return_address(0)

template <class T>
T load(const volatile T* at, int order, const void* pc) {
    if (!exploring) return __atomic_load_n(at, __ATOMIC_SEQ_CST);
    return T(evpl::race::atomic_load(const_cast<const T*>(at), sizeof(T), std::memory_order(order), pc));
}
template <class T>
void store(volatile T* at, T value, int order, const void* pc) {
    if (!exploring) return __atomic_store_n(at, value, __ATOMIC_SEQ_CST);
    evpl::race::atomic_store(const_cast<T*>(at), sizeof(T), std::uint64_t(value), std::memory_order(order), pc);
}
template <class T>
T change(volatile T* at, T operand, Change how, int order, const void* pc) {
    if (exploring) return T(evpl::race::atomic_change(const_cast<T*>(at), sizeof(T), how, std::uint64_t(operand), std::memory_order(order), pc));
    switch (how) {
    case Change::exchange: return __atomic_exchange_n(at, operand, __ATOMIC_SEQ_CST);
    case Change::add: return __atomic_fetch_add(at, operand, __ATOMIC_SEQ_CST);
    case Change::sub: return __atomic_fetch_sub(at, operand, __ATOMIC_SEQ_CST);
    case Change::bit_and: return __atomic_fetch_and(at, operand, __ATOMIC_SEQ_CST);
    case Change::bit_or: return __atomic_fetch_or(at, operand, __ATOMIC_SEQ_CST);
    case Change::bit_xor: break;
    }
    return __atomic_fetch_xor(at, operand, __ATOMIC_SEQ_CST);
}
template <class T>
int compare(volatile T* at, T* expected, T desired, int order, int failed_order, const void* pc) {
    if (!exploring) return __atomic_compare_exchange_n(at, expected, desired, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    std::uint64_t old = std::uint64_t(*expected);
    const bool equal =
        evpl::race::atomic_compare(const_cast<T*>(at), sizeof(T), old, std::uint64_t(desired), std::memory_order(order), std::memory_order(failed_order), pc);
    if (!equal) *expected = T(old);
    return equal;
}

void access(const void* at, std::size_t bytes, bool writes, const void* pc) {
    if (exploring && bytes > 0) evpl::race::plain_access(at, bytes, writes, pc);
}

void* checked(void* block) {
    if (block == nullptr) throw std::bad_alloc();
    return block;
}
void release(void* block, const void* pc) {
    if (block == nullptr) return;
    if (exploring) evpl::race::freed(block, malloc_usable_size(block), pc);
    else std::free(block);
}

}  // namespace

extern "C" {

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void** at, void*) { access(at, sizeof *at, true, HERE); }
void __tsan_vptr_read(void** at) { access(at, sizeof *at, false, HERE); }
void __tsan_read_range(void* at, std::size_t bytes) { access(at, bytes, false, HERE); }
void __tsan_write_range(void* at, std::size_t bytes) { access(at, bytes, true, HERE); }
void __tsan_atomic_thread_fence(int order) {
    if (exploring) evpl::race::fence(std::memory_order(order), HERE);
}
void __tsan_atomic_signal_fence(int) {}

#define PLAIN(n)                                                                                                                                               \
    void __tsan_read##n(void* at) { access(at, n, false, HERE); }                                                                                              \
    void __tsan_write##n(void* at) { access(at, n, true, HERE); }                                                                                              \
    void __tsan_unaligned_read##n(void* at) { access(at, n, false, HERE); }                                                                                    \
    void __tsan_unaligned_write##n(void* at) { access(at, n, true, HERE); }                                                                                    \
    void __tsan_volatile_read##n(void* at) { access(at, n, false, HERE); }                                                                                     \
    void __tsan_volatile_write##n(void* at) { access(at, n, true, HERE); }
PLAIN(1)
PLAIN(2)
PLAIN(4)
PLAIN(8)
PLAIN(16)

#define ATOMIC(bits, T)                                                                                                                                        \
    T __tsan_atomic##bits##_load(const volatile T* at, int order) { return load(at, order, HERE); }                                                            \
    void __tsan_atomic##bits##_store(volatile T* at, T value, int order) { store(at, value, order, HERE); }                                                    \
    T __tsan_atomic##bits##_exchange(volatile T* at, T value, int order) { return change(at, value, Change::exchange, order, HERE); }                          \
    T __tsan_atomic##bits##_fetch_add(volatile T* at, T value, int order) { return change(at, value, Change::add, order, HERE); }                              \
    T __tsan_atomic##bits##_fetch_sub(volatile T* at, T value, int order) { return change(at, value, Change::sub, order, HERE); }                              \
    T __tsan_atomic##bits##_fetch_and(volatile T* at, T value, int order) { return change(at, value, Change::bit_and, order, HERE); }                          \
    T __tsan_atomic##bits##_fetch_or(volatile T* at, T value, int order) { return change(at, value, Change::bit_or, order, HERE); }                            \
    T __tsan_atomic##bits##_fetch_xor(volatile T* at, T value, int order) { return change(at, value, Change::bit_xor, order, HERE); }                          \
    int __tsan_atomic##bits##_compare_exchange_strong(volatile T* at, T* expected, T desired, int order, int failed) {                                         \
        return compare(at, expected, desired, order, failed, HERE);                                                                                            \
    }                                                                                                                                                          \
    int __tsan_atomic##bits##_compare_exchange_weak(volatile T* at, T* expected, T desired, int order, int failed) {                                           \
        return compare(at, expected, desired, order, failed, HERE);                                                                                            \
    }
ATOMIC(8, std::uint8_t)
ATOMIC(16, std::uint16_t)
ATOMIC(32, std::uint32_t)
ATOMIC(64, std::uint64_t)

// -- the linker sends these calls of the program here (--wrap) ----------------------------------------------------

void* __real_memcpy(void*, const void*, std::size_t);
void* __real_memset(void*, int, std::size_t);
int __real_pthread_mutex_lock(pthread_mutex_t*);
int __real_pthread_mutex_unlock(pthread_mutex_t*);
int __real_sched_yield();
void __real_free(void*);
ssize_t __real_write(int, const void*, std::size_t);

void* __wrap_memcpy(void* to, const void* from, std::size_t bytes) {
    access(from, bytes, false, HERE);
    access(to, bytes, true, HERE);
    return __real_memcpy(to, from, bytes);
}
void* __wrap_memset(void* to, int value, std::size_t bytes) {
    access(to, bytes, true, HERE);
    return __real_memset(to, value, bytes);
}
int __wrap_pthread_mutex_lock(pthread_mutex_t* mutex) {
    if (!exploring) return __real_pthread_mutex_lock(mutex);
    evpl::race::lock(mutex, (mutex->__data.__kind & 3) == PTHREAD_MUTEX_RECURSIVE, HERE);
    return 0;
}
int __wrap_pthread_mutex_unlock(pthread_mutex_t* mutex) {
    if (!exploring) return __real_pthread_mutex_unlock(mutex);
    evpl::race::unlock(mutex, HERE);
    return 0;
}
int __wrap_sched_yield() {
    if (!exploring) return __real_sched_yield();
    evpl::race::yield();
    return 0;
}
/// Between threads: a bell's descriptor. Writing to one that is closed would go to somebody else's.
ssize_t __wrap_write(int descriptor, const void* from, std::size_t bytes) {
    if (exploring) evpl::race::pause_point();
    const ssize_t written = __real_write(descriptor, from, bytes);
    if (exploring) evpl::race::require(written == ssize_t(bytes), "nobody writes to a descriptor that is closed");
    return written;
}
void __wrap_free(void* block) {
    if (block == nullptr) return;
    if (exploring) evpl::race::freed(block, malloc_usable_size(block), HERE);
    else __real_free(block);
}

}  // extern "C"

void* operator new(std::size_t bytes) { return checked(std::malloc(bytes)); }
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept { return std::malloc(bytes); }
void* operator new(std::size_t bytes, std::align_val_t align) {
    return checked(aligned_alloc(std::size_t(align), (bytes + std::size_t(align) - 1) & ~(std::size_t(align) - 1)));
}
void* operator new(std::size_t bytes, std::align_val_t align, const std::nothrow_t&) noexcept {
    return aligned_alloc(std::size_t(align), (bytes + std::size_t(align) - 1) & ~(std::size_t(align) - 1));
}
void* operator new[](std::size_t bytes, const std::nothrow_t&) noexcept { return std::malloc(bytes); }
void operator delete(void* block) noexcept { release(block, HERE); }
void operator delete[](void* block) noexcept { release(block, HERE); }
void operator delete(void* block, std::size_t) noexcept { release(block, HERE); }
void operator delete[](void* block, std::size_t) noexcept { release(block, HERE); }
void operator delete(void* block, std::align_val_t) noexcept { release(block, HERE); }
void operator delete[](void* block, std::align_val_t) noexcept { release(block, HERE); }
void operator delete(void* block, std::size_t, std::align_val_t) noexcept { release(block, HERE); }
void operator delete[](void* block, std::size_t, std::align_val_t) noexcept { release(block, HERE); }
