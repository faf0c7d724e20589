#pragma once

#include <cstddef>

namespace evpl::memory {

/// Arrays for queues that grow: powers of two from 128 bytes to 1 MiB, kept per thread for the next one that grows, so that a steady
/// state allocates nothing. Larger ones go to the system's allocator and back.
/// Thread: each call uses the calling thread's store; an array may be given back on another thread.
void* take_array(std::size_t bytes) noexcept;  ///< null: out of memory
void give_array(void* array, std::size_t bytes) noexcept;
/// Frees what this thread keeps. A loop calls it when it goes to a long sleep.
void trim_arrays() noexcept;

}  // namespace evpl::memory
