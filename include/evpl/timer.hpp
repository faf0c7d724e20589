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
struct TimerNode;
}

/// A running timer. Dropping it cancels in O(1); release() lets it run on its own. Move-only; its loop's thread.
class Timer {
public:
    Timer() noexcept = default;
    Timer(Timer&& other) noexcept : node_(std::exchange(other.node_, nullptr)), generation_(other.generation_) {}
    Timer& operator=(Timer&& other) noexcept {
        if (this != &other) {
            cancel();
            node_ = std::exchange(other.node_, nullptr);
            generation_ = other.generation_;
        }
        return *this;
    }
    ~Timer() { cancel(); }

    /// The callback will not run any more. Also right inside the callback itself.
    void cancel() noexcept;
    bool pending() const noexcept;
    void release() noexcept { node_ = nullptr; }

private:
    friend struct CoreAccess;
    core::TimerNode* node_ = nullptr;
    std::uint32_t generation_ = 0;
};

}  // namespace evpl
#pragma GCC visibility pop
