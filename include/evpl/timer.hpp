#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

#include "evpl/duration.hpp"
#include "evpl/result.hpp"
#include "evpl/task.hpp"

#pragma GCC visibility push(default)
namespace evpl {

class Loop;
namespace core {
struct TimerChunk;
}

/// A running timer. Dropping it cancels in O(1); release() lets it run on its own. Move-only; its loop's thread.
class Timer {
public:
    Timer() noexcept = default;
    /// Moving leaves the other empty. Errors: none.
    Timer(Timer&& other) noexcept : chunk_(std::exchange(other.chunk_, nullptr)), token_(other.token_) {}
    /// Ends what this one holds, then takes over what the other does.
    Timer& operator=(Timer&& other) noexcept {
        if (this != &other) {
            cancel();
            chunk_ = std::exchange(other.chunk_, nullptr);
            token_ = other.token_;
        }
        return *this;
    }
    ~Timer() {
        if (chunk_ != nullptr) cancel();
    }

    /// The callback will not run any more. Also right inside the callback itself.
    void cancel() noexcept;
    /// The callback will still run.
    bool pending() const noexcept;
    /// Lets it run on its own: dropping this object no longer cancels.
    void release() noexcept { chunk_ = nullptr; }

private:
    friend struct CoreAccess;
    core::TimerChunk* chunk_ = nullptr;  // never freed: a Timer may outlive its loop
    std::uint64_t token_ = 0;            // one use of one row in it
};

}  // namespace evpl
#pragma GCC visibility pop
