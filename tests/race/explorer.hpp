#pragma once

// Runs a few threads in every order, one step at a time, and lets loads see every value that the C++ memory model allows.
//
// The library's sources are compiled once more with the instrumentation that is meant for ThreadSanitizer, and linked with a runtime of
// our own (runtime.cpp): each access to memory, each atomic, each fence and each mutex comes here first. The sources are as they are.
//
// - Threads are fibers. Before each step the explorer chooses who goes on; leaving a thread that could go on costs one of the preemptions.
// - An atomic keeps all values it had; a load may see any that it has not been forbidden to see by what happened before. Seeing another
//   one than the newest costs one of the stale loads. That is what a missing fence or a wrong order looks like.
// - Plain accesses that nothing orders, and accesses to freed memory, are failures, whether or not they do harm in this order.
// - All choices are numbers in a list: the list is the execution, repeats it, and is walked through like a tree.

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <string>

namespace evpl::race {

/// Threads of a scenario, without the one that sets it up.
inline constexpr unsigned threads_max = 4;

/// Runs the threads to their ends. Once per execution, from the scenario's own function; what it does before happens before all of
/// them, what it does after happens after.
void run(std::initializer_list<std::function<void()>> threads);

/// Fails the execution, with its choices, unless it holds.
void require(bool condition, const char* promise);

/// The thread waits until the descriptor is readable; if that never comes, the execution fails.
void wait_readable(int descriptor, const char* what);

/// Another thread goes first, if there is one that can.
void yield();

/// What the program keeps per thread (a thread_local), carried from fiber to fiber.
void carry(void* (*get)(), void (*set)(void*));

struct Bounds {
    unsigned preemptions = 2;
    unsigned stale_loads = 1;
    std::uint64_t executions = 0;  ///< at most so many; 0: all there are
    std::uint64_t seed = 0;        ///< 0: all in order; otherwise `executions` ones by chance
};

struct Outcome {
    std::uint64_t executions = 0;
    std::uint64_t steps = 0;
    bool complete = false;  ///< there are no others within the bounds
};

/// All executions within the bounds. At the first that fails, its story and its choices are printed and the program ends with code 1.
Outcome explore(const std::function<void()>& scenario, const Bounds& bounds);
/// The one with these choices ("0,1,0,2"), its steps printed.
void replay(const std::function<void()>& scenario, const Bounds& bounds, const std::string& choices);

}  // namespace evpl::race
