#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <type_traits>
#include <utility>

#pragma GCC visibility push(default)
namespace evpl {

/// A move-only callable `void()` of at most 48 bytes, held inline: what post, defer and timers take. Never allocates;
/// a larger callable is a compile error (capture a pointer).
class Task {
public:
    /// Room for the callable, in bytes.
    static constexpr std::size_t room_bytes = 48;

    Task() noexcept = default;
    /// Takes a callable that needs no arguments. Cost: moves it.
    template <class F>
        requires(!std::is_same_v<std::decay_t<F>, Task> && requires(std::decay_t<F> & f) { f(); })
    Task(F&& callable)
    noexcept(std::is_nothrow_constructible_v<std::decay_t<F>, F>) {
        using Callable = std::decay_t<F>;
        static_assert(sizeof(Callable) <= room_bytes && alignof(Callable) <= 16, "a Task holds 48 bytes: capture a pointer instead");
        static_assert(std::is_nothrow_move_constructible_v<Callable>, "a Task's callable must be nothrow movable");
        new (room_) Callable(std::forward<F>(callable));
        operations_ = &operations_for<Callable>;
    }
    /// Moving leaves the other empty. Errors: none.
    Task(Task&& other) noexcept { take(other); }
    /// Ends what this one holds, then takes over what the other does.
    Task& operator=(Task&& other) noexcept {
        if (this != &other) {
            reset();
            take(other);
        }
        return *this;
    }
    ~Task() { reset(); }

    /// Calls it. An empty task must not be called.
    void operator()() { operations_->call(room_); }
    /// Holds a callable.
    explicit operator bool() const noexcept { return operations_ != nullptr; }
    /// Destroys the callable without calling it.
    void reset() noexcept {
        const Operations* const operations = std::exchange(operations_, nullptr);
        if (operations != nullptr && operations->destroy != nullptr) operations->destroy(room_);
    }
    /// Destroying it runs nothing: whoever has its memory may as well forget it.
    bool is_plain() const noexcept { return operations_ == nullptr || operations_->destroy == nullptr; }

private:
    struct Operations {
        void (*call)(void*);
        void (*move)(void* to, void* from) noexcept;  // and destroys `from`
        void (*destroy)(void*) noexcept;              // null: nothing to do
    };
    template <class Callable>
    static constexpr auto destroy_for() noexcept -> void (*)(void*) noexcept {
        if constexpr (std::is_trivially_destructible_v<Callable>) return nullptr;
        else return [](void* p) noexcept { static_cast<Callable*>(p)->~Callable(); };
    }
    template <class Callable>
    static constexpr Operations operations_for{[](void* p) { (*static_cast<Callable*>(p))(); },
                                               [](void* to, void* from) noexcept {
                                                   new (to) Callable(std::move(*static_cast<Callable*>(from)));
                                                   static_cast<Callable*>(from)->~Callable();
                                               },
                                               destroy_for<Callable>()};

    void take(Task& other) noexcept {
        operations_ = std::exchange(other.operations_, nullptr);
        if (operations_ != nullptr) operations_->move(room_, other.room_);
    }

    alignas(16) std::byte room_[room_bytes];
    const Operations* operations_ = nullptr;
};

}  // namespace evpl
#pragma GCC visibility pop
