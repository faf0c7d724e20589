// Frames of coroutines: lists of this thread, by size. A loop stays on one thread, so a list belongs to a loop. What a crowd has left
// there is given back.
#include <pthread.h>

#include <new>

#include "evpl/co.hpp"

namespace evpl::co::detail {
namespace {

constexpr std::size_t step_bytes = 64;
constexpr std::size_t most_bytes = 4096;
constexpr std::size_t sizes = most_bytes / step_bytes;
constexpr std::uint32_t most_free = 64;   // per size: what lies here is at most 8 MiB, for large frames only
constexpr std::uint32_t look_every = 16;  // frames that came home: one size is then looked at, so each after 1024

struct Free {
    Free* next;
};
// Trivially destructible, so that a frame may still come home while the thread ends.
struct Shelf {
    Free* first;
    std::uint32_t count;
    std::uint32_t least;  // that lay here since it was looked at: so many nobody needed
    void* take() noexcept {
        if (--count < least) least = count;
        return std::exchange(first, first->next);
    }
    void give(void* frame) noexcept {
        first = new (frame) Free{first};
        ++count;
    }
    void drop(std::uint32_t frames) noexcept {
        for (; frames > 0; --frames) ::operator delete(take());
    }
};
thread_local struct {
    Shelf shelves[sizes];
    std::uint32_t came_home;
    bool noted;  // that they are to be freed with the thread
    bool over;
} pool;

// Half of what nobody needed goes: after a crowd the pool shrinks in a few steps, and who comes and goes finds frames.
void look_at_one() noexcept {
    Shelf& shelf = pool.shelves[pool.came_home / look_every % sizes];
    shelf.drop((shelf.least + 1) / 2);
    shelf.least = shelf.count;
}

void end_of_thread(void*) noexcept {
    pool.over = true;
    for (Shelf& shelf : pool.shelves) shelf.drop(shelf.count);
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
    Shelf& shelf = pool.shelves[size];
    return shelf.first != nullptr ? shelf.take() : ::operator new((size + 1) * step_bytes);
}

void give_frame(void* frame, std::size_t bytes) noexcept {
#ifdef __SANITIZE_ADDRESS__
    return ::operator delete(frame);  // a pool would hide a late use
#endif
    if (!pool.noted && !pool.over) pool.noted = note_end_of_thread();
    if (bytes > most_bytes || pool.over || !pool.noted) return ::operator delete(frame);
    Shelf& shelf = pool.shelves[class_of(bytes)];
    if (shelf.count == most_free) return ::operator delete(frame);
    shelf.give(frame);
    if (++pool.came_home % look_every == 0) look_at_one();
}

}  // namespace evpl::co::detail
