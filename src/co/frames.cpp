// Frames of coroutines: lists of this thread, by size. A loop stays on one thread, so a list belongs to a loop.
#include <pthread.h>

#include <new>

#include "evpl/co.hpp"

namespace evpl::co::detail {
namespace {

constexpr std::size_t step_bytes = 64;
constexpr std::size_t most_bytes = 4096;
constexpr std::uint32_t most_free = 64;  // per size: what lies here is at most 8 MiB, for large frames only

struct Free {
    Free* next;
};
// Trivially destructible, so that a frame may still come home while the thread ends.
thread_local struct {
    Free* first[most_bytes / step_bytes];
    std::uint32_t count[most_bytes / step_bytes];
    bool noted;  // that they are to be freed with the thread
    bool over;
} pool;

void end_of_thread(void*) noexcept {
    pool.over = true;
    for (Free*& first : pool.first) {
        while (first != nullptr) ::operator delete(std::exchange(first, first->next));
    }
}

// By a key, because for a thread_local with a destructor glibc ends the program when it has no memory to note that.
bool note_end_of_thread() noexcept {
    static const struct Key {
        Key() noexcept : made(pthread_key_create(&key, &end_of_thread) == 0) {}
        pthread_key_t key;
        bool made;
    } key;
    return key.made && pthread_setspecific(key.key, &pool) == 0;
}

constexpr std::size_t class_of(std::size_t bytes) noexcept { return (bytes - 1) / step_bytes; }

}  // namespace

void* take_frame(std::size_t bytes) {
    if (bytes > most_bytes) return ::operator new(bytes);
    const std::size_t size = class_of(bytes);
    if (pool.first[size] == nullptr) return ::operator new((size + 1) * step_bytes);
    --pool.count[size];
    return std::exchange(pool.first[size], pool.first[size]->next);
}

void give_frame(void* frame, std::size_t bytes) noexcept {
#ifdef __SANITIZE_ADDRESS__
    return ::operator delete(frame);  // a pool would hide a late use
#endif
    const std::size_t size = class_of(bytes);
    if (!pool.noted && !pool.over) pool.noted = note_end_of_thread();
    if (bytes > most_bytes || pool.over || !pool.noted || pool.count[size] == most_free) return ::operator delete(frame);
    pool.first[size] = new (frame) Free{pool.first[size]};
    ++pool.count[size];
}

}  // namespace evpl::co::detail
