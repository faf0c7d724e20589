#include "memory/array_pool.hpp"

#include <pthread.h>

#include <bit>
#include <cstdlib>
#include <new>

namespace evpl::memory {
namespace {

constexpr unsigned least_shift = 7;    // 128 bytes
constexpr unsigned most_shift = 20;    // 1 MiB
constexpr unsigned kept_per_size = 8;  // more than this goes back to the system at once

struct Kept {
    Kept* next;
};

// No constructor, no destructor: it can be used while a thread ends.
struct Store {
    Kept* first[most_shift - least_shift + 1];
    unsigned count[most_shift - least_shift + 1];
    bool noted;  // that it is to be freed with its thread
    bool ended;
};

constinit thread_local Store store{};

void trim() noexcept {
    for (unsigned i = 0; i <= most_shift - least_shift; ++i) {
        while (Kept* array = store.first[i]) {
            store.first[i] = array->next;
            std::free(array);
        }
        store.count[i] = 0;
    }
}

// Frees the store with its thread; from then on nothing is kept.
void end_of_thread(void*) noexcept {
    store.ended = true;
    trim();
}

// By a key, because for a thread_local with a destructor glibc ends the program when it has no memory to note that.
bool note_end_of_thread() noexcept {
    static const struct Key {
        Key() noexcept : made(pthread_key_create(&key, &end_of_thread) == 0) {}
        pthread_key_t key;
        bool made;
    } key;
    return key.made && pthread_setspecific(key.key, &store) == 0;
}

unsigned shift_of(std::size_t bytes) noexcept {
    const unsigned shift = unsigned(std::bit_width(bytes - 1));
    return shift < least_shift ? least_shift : shift;
}

}  // namespace

void* take_array(std::size_t bytes) noexcept {
    const unsigned shift = shift_of(bytes);
    if (shift > most_shift) return std::malloc(bytes);
    Kept*& first = store.first[shift - least_shift];
    if (first == nullptr) return std::malloc(std::size_t(1) << shift);
    Kept* array = first;
    first = array->next;
    --store.count[shift - least_shift];
    return array;
}

void give_array(void* array, std::size_t bytes) noexcept {
    const unsigned shift = shift_of(bytes);
    if (!store.noted && !store.ended) store.noted = note_end_of_thread();
    if (shift > most_shift || store.count[shift - least_shift] >= kept_per_size || store.ended || !store.noted) {
        std::free(array);
        return;
    }
    store.first[shift - least_shift] = new (array) Kept{store.first[shift - least_shift]};
    ++store.count[shift - least_shift];
}

void trim_arrays() noexcept { trim(); }

}  // namespace evpl::memory
