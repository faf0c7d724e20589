// Counts the program's calls of operator new. In a file of its own: inlined, GCC takes new and free for a mismatch.
#include <cstddef>
#include <cstdlib>
#include <new>

extern thread_local std::size_t news;
thread_local std::size_t news = 0;

void* operator new(std::size_t bytes) {
    ++news;
    if (void* room = std::malloc(bytes)) return room;
    throw std::bad_alloc();
}
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
    ++news;
    return std::malloc(bytes);
}
void operator delete(void* room) noexcept { std::free(room); }
void operator delete(void* room, std::size_t) noexcept { std::free(room); }
