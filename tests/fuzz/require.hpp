#pragma once

// What fuzz targets demand. A replay without memory (replay_main.cpp) makes allocations fail on the way: a target then sees less than it
// expects, and is excused; what matters is that nothing breaks, leaks or hangs.

#include "failonce/shim.h"

namespace evpl::fuzz {

struct Excused {};

/// An allocation has failed in this run.
inline bool without_memory() { return failonce_injected != nullptr && failonce_injected() > 0; }

inline void require(bool condition) {
    if (condition) return;
    if (without_memory()) throw Excused{};
    __builtin_trap();
}

}  // namespace evpl::fuzz
