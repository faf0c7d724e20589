#pragma once

// Several coroutines at a time: until all have ended, or the first.

#include <array>
#include <cstddef>
#include <new>
#include <tuple>

#include "evpl/co_task.hpp"

#pragma GCC visibility push(default)
namespace evpl::co {

/// What a task without a value gives in the tuple of when_all().
struct Nothing {};

namespace detail {

/// Those who wait beside each other for one parent.
struct Join {
    Promise* parent = nullptr;
    std::size_t left = 0;          ///< so many have to end
    bool starting = true;          ///< the parent is below us on the stack
    std::size_t first = SIZE_MAX;  ///< who ended first
    void arrived(std::size_t index) noexcept {
        if (first == SIZE_MAX) first = index;
        if (left > 0 && --left == 0 && !starting) parent->self.resume();
    }
};

/// One of them. Owned by who waits; destroyed wherever it is.
class Branch {
public:
    struct Arrive {
        bool await_ready() const noexcept { return false; }
        template <class P>
        void await_suspend(std::coroutine_handle<P> ended) const noexcept {
            ended.promise().join->arrived(ended.promise().index);  // which may destroy us
        }
        void await_resume() const noexcept {}
    };
    struct promise_type : Promise {
        promise_type() noexcept { beside = true; }
        Branch get_return_object() noexcept {
            const auto frame = std::coroutine_handle<promise_type>::from_promise(*this);
            self = frame;
            return Branch(frame);
        }
        std::suspend_always initial_suspend() const noexcept { return {}; }
        Arrive final_suspend() const noexcept { return {}; }
        void return_void() const noexcept {}
        void unhandled_exception() noexcept { thrown = std::current_exception(); }
        Join* join = nullptr;
        std::size_t index = 0;
        std::exception_ptr thrown;
    };
    Branch(Branch&& other) noexcept : frame_(std::exchange(other.frame_, nullptr)) {}
    ~Branch() { destroy(); }
    void start(Join& join, std::size_t index) noexcept {
        frame_.promise().parent = join.parent;
        frame_.promise().join = &join;
        frame_.promise().index = index;
        frame_.resume();
    }
    void destroy() noexcept {
        if (frame_) std::exchange(frame_, nullptr).destroy();
    }
    std::exception_ptr thrown() const noexcept { return frame_.promise().thrown; }

private:
    explicit Branch(std::coroutine_handle<promise_type> frame) noexcept : frame_(frame) {}
    std::coroutine_handle<promise_type> frame_;
};

/// Room for what a task gives.
template <class T>
struct Room {
    Room() noexcept {}
    Room(const Room&) = delete;
    ~Room() {
        if (set) value.~T();
    }
    T take() { return std::move(value); }
    union {
        T value;
    };
    bool set = false;
};
template <>
struct Room<void> {
    Nothing take() const noexcept { return {}; }
};
template <class T>
Branch run_beside(Task<T>& task, Room<T>& room) {
    if constexpr (std::is_void_v<T>) {
        co_await task;
    } else {
        T value = co_await task;
        new (&room.value) T(std::move(value));
        room.set = true;
    }
}

template <class T>
struct in_tuple {
    using type = T;
};
template <>
struct in_tuple<void> {
    using type = Nothing;
};

/// What when_all() and when_any() wait with. Frames are made at once; that they could not be is an exception of the call.
template <class... T>
class Beside {
public:
    explicit Beside(std::size_t wanted, Task<T>... tasks) : wanted_(wanted), tasks_(std::move(tasks)...), branches_(make(std::index_sequence_for<T...>())) {}
    Beside(const Beside&) = delete;
    bool await_ready() const noexcept { return false; }
    template <class P>
    bool await_suspend(std::coroutine_handle<P> frame) noexcept {
        join_.parent = &frame.promise();
        join_.left = wanted_;
        for (std::size_t i = 0; i < sizeof...(T) && join_.left > 0; ++i) branches_[i].start(join_, i);
        join_.starting = false;
        return join_.left > 0;
    }

protected:
    template <std::size_t... i>
    std::array<Branch, sizeof...(T)> make(std::index_sequence<i...>) {
        return {run_beside(std::get<i>(tasks_), std::get<i>(rooms_))...};
    }
    std::size_t wanted_;
    Join join_;
    std::tuple<Task<T>...> tasks_;
    std::tuple<Room<T>...> rooms_;
    std::array<Branch, sizeof...(T)> branches_;
};

template <class... T>
class All : Beside<T...> {
public:
    explicit All(Task<T>... tasks) : Beside<T...>(sizeof...(T), std::move(tasks)...) {}
    using Beside<T...>::await_ready;
    using Beside<T...>::await_suspend;
    std::tuple<typename in_tuple<T>::type...> await_resume() {
        for (const Branch& branch : this->branches_) {
            if (branch.thrown()) std::rethrow_exception(branch.thrown());
        }
        return std::apply([](auto&... room) { return std::tuple<typename in_tuple<T>::type...>(room.take()...); }, this->rooms_);
    }
};

template <class T>
struct AnyOf {
    std::size_t index;  ///< which of them, counted from 0
    T value;            ///< what it gave
};
template <>
struct AnyOf<void> {
    std::size_t index;  ///< which of them, counted from 0
};

template <class T, class... Same>
class Any : Beside<T, Same...> {
public:
    explicit Any(Task<T> task, Task<Same>... tasks) : Beside<T, Same...>(1, std::move(task), std::move(tasks)...) {}
    using Beside<T, Same...>::await_ready;
    using Beside<T, Same...>::await_suspend;
    AnyOf<T> await_resume() {
        const std::size_t first = this->join_.first;
        for (std::size_t i = 0; i <= sizeof...(Same); ++i) {
            if (i != first) this->branches_[i].destroy();
        }
        std::apply(
            [&](auto&... task) {
                std::size_t i = 0;
                ((i++ != first ? drop(task) : void()), ...);
            },
            this->tasks_);
        if (this->branches_[first].thrown()) std::rethrow_exception(this->branches_[first].thrown());
        if constexpr (std::is_void_v<T>) {
            return {first};
        } else {
            Room<T>* won = nullptr;
            std::apply(
                [&](auto&... room) {
                    std::size_t i = 0;
                    ((i++ == first ? void(won = &room) : void()), ...);
                },
                this->rooms_);
            return {first, won->take()};
        }
    }

private:
    static void drop(Task<T>& task) noexcept { [[maybe_unused]] const Task<T> gone(std::move(task)); }
};

}  // namespace detail

/// Runs tasks beside each other until all have ended, and gives what they gave, as a tuple; Nothing for a Task<void>. When some throw, the
/// first of them in the order of arguments passes on, after all have ended. Await it where it is made. Cost: a frame per task more.
/// Errors: throws bad_alloc without memory for the frames. Thread: one loop's.
template <class... T>
detail::All<T...> when_all(Task<T>... tasks) {
    return detail::All<T...>(std::move(tasks)...);
}

/// Runs tasks beside each other until the first has ended, by a value or an exception, and gives that with its index; the others are
/// destroyed where they wait. An operation destroyed so has consumed nothing; a remote read or write goes on without it. None of them may
/// cancel() a token another one of them waits with. Await it where it is made. Cost and errors: as when_all(). Thread: one loop's.
template <class T, class... Same>
    requires(std::is_same_v<T, Same>&&...)
detail::Any<T, Same...> when_any(Task<T> task, Task<Same>... tasks) { return detail::Any<T, Same...>(std::move(task), std::move(tasks)...); }

}  // namespace evpl::co
#pragma GCC visibility pop
