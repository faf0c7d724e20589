// For targets on the simulated network: what throws bad_alloc does not run out of memory. The network keeps its books in containers, and stands
// for wires and devices; so do the target's own. The library asks for memory by malloc and new (std::nothrow), and goes on to fail.
#include <cstdlib>
#include <new>

#include "failonce/shim.h"

void* operator new(std::size_t size) {
    const bool before = failonce_spare != nullptr && failonce_spare(true);
    void* const block = std::malloc(size);
    if (failonce_spare != nullptr) failonce_spare(before);
    if (block == nullptr) throw std::bad_alloc();
    return block;
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept { return std::malloc(size); }
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept { return std::malloc(size); }
void operator delete(void* block) noexcept { std::free(block); }
void operator delete(void* block, std::size_t) noexcept { std::free(block); }
