#pragma once

// A whole program as a coroutine.

#include <type_traits>

#include "evpl/co_task.hpp"

#pragma GCC visibility push(default)
namespace evpl::co {

namespace detail {

struct Program {
    int status = 1;
    std::exception_ptr thrown;
};
constexpr Limit farewell = within(Duration::of_ns(10'000'000'000));  // for a peer that does not end its side

template <class F>
Task<> run_program(Loop& loop, F& main, Program& program) {
    try {
        if constexpr (std::is_same_v<decltype(main(loop)), Task<int>>) {
            program.status = co_await main(loop);
        } else {
            co_await main(loop);
            program.status = 0;
        }
    } catch (...) {
        program.thrown = std::current_exception();
    }
    loop.stop(farewell);
}

}  // namespace detail

/// `int main() { return co::run(program); }`: makes a loop, runs `program(loop)`, a Task<int> or Task<>, and stops the loop when it has ended; what
/// was sent is drained, peers have 10 s to end their side. Gives its status, 0 for a Task<>; 1 when the loop could not run or was stopped
/// before. What it throws passes on. Signals stay the program's own affair.
template <class F>
int run(F program, const LoopOptions& options = {}) {
    using Made = decltype(program(std::declval<Loop&>()));
    static_assert(std::is_same_v<Made, Task<int>> || std::is_same_v<Made, Task<>>, "co::run takes a coroutine Task<int> or Task<> of a Loop&");
    detail::Program outcome;
    {
        Loop loop(options);
        spawn(detail::run_program(loop, program, outcome), [&](std::exception_ptr thrown) { outcome.thrown = thrown; });
        loop.run();
    }
    if (outcome.thrown) std::rethrow_exception(outcome.thrown);
    return outcome.status;
}

}  // namespace evpl::co
#pragma GCC visibility pop
