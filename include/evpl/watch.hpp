#pragma once

#include <cstdint>
#include <utility>

#pragma GCC visibility push(default)
namespace evpl {

namespace core {
struct WatchState;
}

/// What a watched descriptor is ready for (combine with |).
enum class Ready : std::uint8_t { none = 0, read = 1, write = 2, read_write = 3, error = 4 };
constexpr Ready operator|(Ready a, Ready b) noexcept { return Ready(std::uint8_t(a) | std::uint8_t(b)); }
constexpr bool has(Ready set, Ready flag) noexcept { return (std::uint8_t(set) & std::uint8_t(flag)) != 0; }

/// A foreign descriptor that a loop watches, level-triggered. Dropping it stops watching; the descriptor stays the caller's,
/// who closes it only afterwards. Move-only; its loop's thread.
class Watch {
public:
    Watch() noexcept = default;
    /// Moving leaves the other empty. Errors: none.
    Watch(Watch&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
    /// Ends what this one holds, then takes over what the other does.
    Watch& operator=(Watch&& other) noexcept {
        if (this != &other) {
            cancel();
            state_ = std::exchange(other.state_, nullptr);
        }
        return *this;
    }
    ~Watch() { cancel(); }
    /// Stops watching; the callback does not come any more. A second call does nothing.
    void cancel() noexcept;
    /// It watches.
    explicit operator bool() const noexcept { return state_ != nullptr; }

private:
    friend struct CoreAccess;
    core::WatchState* state_ = nullptr;
};

}  // namespace evpl
#pragma GCC visibility pop
