#pragma once

// What the runtime asks of the explorer. Values are the bits of the variable, orders those of <atomic>.

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace evpl::race {

/// A scenario's threads are running: only then is anything looked at.
extern bool exploring;

enum class Change : std::uint8_t { exchange, add, sub, bit_and, bit_or, bit_xor };

void plain_access(const void* at, std::size_t bytes, bool writes, const void* pc);
std::uint64_t atomic_load(const void* at, unsigned bytes, std::memory_order order, const void* pc);
void atomic_store(void* at, unsigned bytes, std::uint64_t value, std::memory_order order, const void* pc);
std::uint64_t atomic_change(void* at, unsigned bytes, Change change, std::uint64_t operand, std::memory_order order, const void* pc);
bool atomic_compare(void* at, unsigned bytes, std::uint64_t& expected, std::uint64_t desired, std::memory_order order, std::memory_order failed_order,
                    const void* pc);
void fence(std::memory_order order, const void* pc);
/// Somebody else may go first: before a system call that others notice.
void pause_point();
void lock(void* mutex, bool recursive, const void* pc);
void unlock(void* mutex, const void* pc);
/// The block is kept until the execution is over; whoever touches it from now on fails.
void freed(void* block, std::size_t bytes, const void* pc);

}  // namespace evpl::race
