#pragma once

// Coroutines on the callbacks of the core: tasks, who waits for whom, and what ends a wait early.

#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <type_traits>
#include <utility>

#include "evpl/loop.hpp"

#pragma GCC visibility push(default)
namespace evpl::co {

using evpl::within;
class Cancel;
template <class T = void>
class Task;

/// How long an operation may take, and who may end it early: `peer.recv(within(3_s))`, `peer.recv({within(3_s), token})`.
struct Until {
    constexpr Until() noexcept = default;
    /// No longer than this.
    constexpr Until(Limit given) noexcept : limit(given) {}
    /// Until it is done or this token is cancelled.
    constexpr Until(Cancel& given) noexcept : token(&given) {}
    /// Whichever comes first.
    constexpr Until(Limit most, Cancel& given) noexcept : limit(most), token(&given) {}
    Limit limit;              ///< from the call on
    Cancel* token = nullptr;  ///< null: nobody
};
// GCC 12 destroys a braced temporary of a co_await expression twice: such values must not mind.
static_assert(std::is_trivially_destructible_v<Until> && std::is_trivially_destructible_v<Limit>);

namespace detail {

/// Frames come from lists of this thread, by size, of bounded length; larger ones than 4 KiB and failures go to operator new.
void* take_frame(std::size_t bytes);
void give_frame(void* frame, std::size_t bytes) noexcept;

/// What all coroutines here have in common: who waits for them, up to the root that spawn() or serve() started.
struct Promise {
    static void* operator new(std::size_t bytes) { return take_frame(bytes); }
    static void operator delete(void* frame, std::size_t bytes) noexcept { give_frame(frame, bytes); }
    std::coroutine_handle<> self;
    Promise* parent = nullptr;
    bool inside = false;  // still within the resume() of the parent that started it
    bool beside = false;  // one of several that its parent waits for
};
/// Destroys the whole stack of coroutines that `leaf` is the innermost of.
void destroy_from_root(Promise* leaf) noexcept;
/// Called when nothing of a coroutine's stack runs any more: if it was to change threads, it goes now.
void depart() noexcept;

/// The end of a task: its parent goes on, by a plain call unless it is still below us on the stack. No tail call is needed for the
/// stack to stay flat, so that it does at -O0 too.
struct Finish {
    bool await_ready() const noexcept { return false; }
    template <class P>
    void await_suspend(std::coroutine_handle<P> ended) const noexcept {
        Promise& promise = ended.promise();
        if (!promise.inside && promise.parent != nullptr) promise.parent->self.resume();
    }
    void await_resume() const noexcept {}
};

template <class T>
struct Outcome : Promise {
    Outcome() noexcept {}
    ~Outcome() {
        if (set) value.~T();
    }
    template <class U>
    void return_value(U&& given) {
        new (&value) T(std::forward<U>(given));
        set = true;
    }
    T take() { return std::move(value); }
    union {
        T value;
    };
    bool set = false;
};
template <>
struct Outcome<void> : Promise {
    void return_void() noexcept {}
    void take() noexcept {}
};

class Ring;
class StreamState;
class DatagramsState;

/// One suspended operation. It lives in the frame; timer, token and stream point to it until it ends or its frame does.
class Wait {
public:
    Wait() noexcept = default;
    Wait(const Wait&) = delete;
    ~Wait() { unhook(); }

protected:
    /// True: suspended. False: it ended already, see error. `slot`: where whoever resumes it looks; null: it knows by itself.
    bool begin(Promise& promise, Loop& loop, Wait** slot, Until until) noexcept;
    bool ended() const noexcept { return !error.ok(); }
    bool waits() const noexcept { return promise_ != nullptr; }
    /// Nothing points here any more.
    void unhook() noexcept;
    /// Goes on with this outcome.
    void end(Error outcome) noexcept;
    void resume() noexcept;
    Error error;

private:
    friend class co::Cancel;
    friend class Ring;
    friend class StreamState;
    friend class DatagramsState;
    virtual bool ready() noexcept = 0;
    Promise* promise_ = nullptr;
    Wait** slot_ = nullptr;
    Timer timer_;
    Cancel* token_ = nullptr;
    Wait* next_ = nullptr;
    Wait** link_ = nullptr;
};

/// A wait for the loop alone, which rings it once.
class Parked : protected Wait {
protected:
    Parked() noexcept = default;
    ~Parked() { detach(); }
    /// Whoever was to ring does nothing.
    void detach() noexcept;
    Error outcome;  ///< when it rings

private:
    friend class Ring;
    bool ready() noexcept override { return false; }
    Ring* ring_ = nullptr;
};

class Sleep : Parked {
public:
    Sleep(Loop& loop, Duration delay, Until until) noexcept : loop_(loop), delay_(delay), token_(until.token) {
        if (until.limit.duration >= delay) return;
        delay_ = until.limit.duration;
        outcome = Error(Errc::timed_out);
    }
    ~Sleep() { detach(); }  // before the timer lets go of the ring
    bool await_ready() const noexcept { return false; }
    template <class P>
    bool await_suspend(std::coroutine_handle<P> frame) noexcept {
        return begin(frame.promise());
    }
    Result<void> await_resume() const noexcept { return error; }

private:
    bool begin(Promise& promise) noexcept;
    Loop& loop_;
    Duration delay_;
    Cancel* token_;
    Timer timer_;
};

class Yield : Parked {
public:
    explicit Yield(Loop& loop) noexcept : loop_(loop) {}
    bool await_ready() const noexcept { return false; }
    template <class P>
    bool await_suspend(std::coroutine_handle<P> frame) noexcept {
        return begin(frame.promise());
    }
    Result<void> await_resume() const noexcept { return error; }

private:
    bool begin(Promise& promise) noexcept;
    Loop& loop_;
};

class Hop {
public:
    explicit Hop(LoopRef to) noexcept : to_(to) {}
    Hop(const Hop&) = delete;
    bool await_ready() const noexcept { return false; }
    template <class P>
    bool await_suspend(std::coroutine_handle<P> frame) noexcept {
        return begin(frame.promise());
    }
    Result<void> await_resume() const noexcept { return error_; }

private:
    friend void depart() noexcept;
    class Arrival;
    bool begin(Promise& promise) noexcept;
    void go() noexcept;
    LoopRef to_;
    Promise* promise_ = nullptr;
    Error error_;
};

}  // namespace detail

/// Ends the operations it was given to with Errc::cancelled, those under way and those to come. Loop's thread; outlives them all,
/// and is not destroyed by what cancel() resumes.
class Cancel {
public:
    Cancel() noexcept = default;
    Cancel(const Cancel&) = delete;
    /// Resumes those who wait, in the order in which they began. A second call does nothing.
    void cancel() noexcept;
    /// cancel() was called.
    bool cancelled() const noexcept { return cancelled_; }

private:
    friend class detail::Wait;
    detail::Wait* first_ = nullptr;
    bool cancelled_ = false;
};

/// A coroutine that runs when awaited and gives a T. Destroying it destroys its frame, wherever it waits. An exception passes to who
/// awaits it. Cost: a frame from the thread's pool.
template <class T>
class [[nodiscard]] Task {
public:
    struct promise_type : detail::Outcome<T> {
        Task get_return_object() noexcept {
            const auto frame = std::coroutine_handle<promise_type>::from_promise(*this);
            this->self = frame;
            return Task(frame);
        }
        std::suspend_always initial_suspend() const noexcept { return {}; }
        detail::Finish final_suspend() const noexcept { return {}; }
        void unhandled_exception() noexcept { thrown = std::current_exception(); }
        std::exception_ptr thrown;
    };
    /// What it gives.
    using Value = T;
    /// Moving leaves the other empty. Errors: none.
    Task(Task&& other) noexcept : frame_(std::exchange(other.frame_, nullptr)) {}
    /// Exchanges the two.
    Task& operator=(Task&& other) noexcept {
        std::swap(frame_, other.frame_);
        return *this;
    }
    ~Task() {
        if (frame_) frame_.destroy();
    }

    bool await_ready() const noexcept { return false; }
    template <class P>
    bool await_suspend(std::coroutine_handle<P> parent) noexcept {
        auto& promise = frame_.promise();
        promise.parent = &parent.promise();
        promise.inside = true;
        frame_.resume();
        promise.inside = false;
        return !frame_.done();
    }
    T await_resume() {
        if (frame_.promise().thrown) std::rethrow_exception(frame_.promise().thrown);
        return frame_.promise().take();
    }

private:
    explicit Task(std::coroutine_handle<promise_type> frame) noexcept : frame_(frame) {}
    std::coroutine_handle<promise_type> frame_;
};

namespace detail {

/// A coroutine nobody waits for. Its frame goes when it ends.
struct Root {
    struct promise_type : Promise {
        Root get_return_object() noexcept {
            self = std::coroutine_handle<promise_type>::from_promise(*this);
            return {};
        }
        std::suspend_never initial_suspend() const noexcept { return {}; }
        std::suspend_never final_suspend() const noexcept { return {}; }
        void return_void() const noexcept {}
        [[noreturn]] void unhandled_exception() const noexcept { std::terminate(); }  // Root's bodies catch all
    };
};
template <class Hook>
Root run_spawned(Task<> task, Hook hook) {
    std::exception_ptr thrown;
    try {
        co_await task;
    } catch (...) {
        thrown = std::current_exception();
    }
    try {
        if (thrown) hook(thrown);
    } catch (...) {  // the end of the line: nobody is left to tell
    }
}

}  // namespace detail

/// Waits at least so long. When the loop ends before, the coroutine and those that wait for it are destroyed.
/// Errors: timed_out when `until` is shorter than the delay, cancelled, out_of_memory. Await it where it is made.
inline detail::Sleep sleep(Loop& loop, Duration delay, Until until = {}) noexcept { return {loop, delay, until}; }

/// Lets others have their turn: goes on after what is deferred already, later in this turn or in the next. When the loop ends before, as
/// with sleep(). Errors: out_of_memory. Await it where it is made.
inline detail::Yield yield(Loop& loop) noexcept { return detail::Yield(loop); }

/// Goes on on another loop's thread, with all coroutines that wait for this one. What belongs to the former loop (streams, sockets, buffers,
/// tokens) must not be touched there, nor end there: a Parcel carries bytes, and another post_to() leads back.
/// When the other loop ends before they have arrived, they are destroyed there.
/// Errors, without leaving: stopped when the loop has ended or there is no memory; misuse inside when_all() and when_any(). Await it where it is made.
inline detail::Hop post_to(LoopRef loop) noexcept { return detail::Hop(loop); }
/// The same, of a loop that lives.
inline detail::Hop post_to(const Loop& loop) noexcept { return detail::Hop(loop.ref()); }

/// Runs a task that nobody waits for, from now on. `hook(std::exception_ptr)` hears of what it throws; what the hook throws is dropped.
template <class Hook>
void spawn(Task<> task, Hook hook) {
    detail::run_spawned(std::move(task), std::move(hook));
    detail::depart();
}

}  // namespace evpl::co
#pragma GCC visibility pop
