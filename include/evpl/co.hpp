#pragma once

// Coroutines on the callbacks of the core: straight-line code, one frame per coroutine, nothing allocated per operation.

#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <type_traits>
#include <utility>

#include "evpl/connection.hpp"
#include "evpl/listener.hpp"
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
};
/// Destroys the whole stack of coroutines that `leaf` is the innermost of.
void destroy_from_root(Promise* leaf) noexcept;

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

/// One suspended operation. It lives in the frame; timer, token and stream point to it until it ends or its frame does.
class Wait {
public:
    Wait() noexcept = default;
    Wait(const Wait&) = delete;
    ~Wait() { unhook(); }

protected:
    /// True: suspended. False: it ended already, see error.
    bool begin(Promise& promise, Loop& loop, Wait** slot, Until until) noexcept;
    bool ended() const noexcept { return !error.ok(); }
    /// Nothing points here any more.
    void unhook() noexcept;
    Error error;

private:
    friend class co::Cancel;
    friend class StreamState;
    virtual bool ready() noexcept = 0;
    void resume() noexcept;
    void fail(Error reason) noexcept;
    Promise* promise_ = nullptr;
    Wait** slot_ = nullptr;
    Timer timer_;
    Cancel* token_ = nullptr;
    Wait* next_ = nullptr;
    Wait** link_ = nullptr;
};

/// What a Stream and the connection's handler share: freed when both are gone.
class StreamState {
public:
    static StreamState* create(Loop& loop);
    void ref() noexcept { ++refs_; }
    void unref() noexcept;
    /// The last Stream is gone: what was sent is drained, what comes is dropped.
    void orphan() noexcept;

    void on_open(Connection& connection) noexcept;
    void on_recv(Connection& connection) noexcept;
    void on_end(Connection& connection) noexcept;
    void on_writable(Connection&) noexcept { look(writer); }
    void on_sent(Connection&, std::size_t) noexcept { look(drainer); }
    void on_close(Connection& connection, Error reason) noexcept;

    Loop* loop = nullptr;
    Connection* connection = nullptr;  // null once closed
    Error reason;                      // why it closed
    bool open = false, peer_ended = false;
    std::uint32_t streams = 0;
    Wait* opener = nullptr;
    Wait* reader = nullptr;
    Wait* writer = nullptr;
    Wait* drainer = nullptr;

private:
    explicit StreamState(Loop& owner) noexcept : loop(&owner) {}
    void look(Wait* slot) noexcept;
    std::uint32_t refs_ = 1;
};

/// The connection's handler: one reference on the state.
class Handler {
public:
    explicit Handler(StreamState& state) noexcept : state_(&state) { state.ref(); }
    Handler(Handler&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
    ~Handler() {
        if (state_ != nullptr) state_->unref();
    }
    void on_open(Connection& c) { state_->on_open(c); }
    void on_recv(Connection& c) { state_->on_recv(c); }
    void on_end(Connection& c) { state_->on_end(c); }
    void on_writable(Connection& c) { state_->on_writable(c); }
    void on_sent(Connection& c, std::size_t n) { state_->on_sent(c, n); }
    void on_close(Connection& c, Error e) { state_->on_close(c, e); }

protected:
    StreamState* state_;
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

/// One connection, for coroutines. Movable; when it is gone, what was sent is drained and the connection ends (within 10 s).
/// One operation of each kind at a time: a second one ends with misuse. Loop's thread.
class Stream {
public:
    /// The library's own: streams come from serve() and connect().
    explicit Stream(detail::StreamState& state) noexcept : state_(&state) {
        state.ref();
        ++state.streams;
    }
    /// Moving leaves the other empty. Errors: none.
    Stream(Stream&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
    /// Exchanges the two.
    Stream& operator=(Stream&& other) noexcept {
        std::swap(state_, other.state_);
        return *this;
    }
    ~Stream() {
        if (state_ == nullptr) return;
        if (--state_->streams == 0) state_->orphan();
        state_->unref();
    }

    /// A receive that waits, to be awaited where it is made.
    class Recv : detail::Wait {
    public:
        /// Which of the calls made it.
        enum class What : std::uint8_t { some, exactly, message };
        /// The library's own.
        Recv(detail::StreamState& state, What what, std::size_t bytes, Until until) noexcept
            : state_(state), bytes_(bytes), until_(until), what_(what) {}
        bool await_ready() noexcept { return until_.token == nullptr && state_.reader == nullptr && ready(); }
        template <class P>
        bool await_suspend(std::coroutine_handle<P> frame) noexcept {
            return begin(frame.promise(), *state_.loop, &state_.reader, until_);
        }
        Result<Chain> await_resume() noexcept {
            if (ended()) return error;
            return std::move(got_);
        }

    private:
        bool ready() noexcept override;
        detail::StreamState& state_;
        std::size_t bytes_;
        Until until_;
        What what_;
        Chain got_;
    };
    /// A wait for the outbox, to be awaited where it is made.
    class Room : detail::Wait {
    public:
        /// The library's own.
        Room(detail::StreamState& state, bool all, bool wait, Errc refused, Until until) noexcept
            : state_(state), until_(until), all_(all), wait_(wait) {
            if (refused != Errc::none) error = Error(refused, Step::send);
        }
        bool await_ready() noexcept { return !wait_ || ended() || ready(); }
        template <class P>
        bool await_suspend(std::coroutine_handle<P> frame) noexcept {
            return begin(frame.promise(), *state_.loop, all_ ? &state_.drainer : &state_.writer, until_);
        }
        Result<void> await_resume() noexcept { return error; }

    private:
        bool ready() noexcept override;
        detail::StreamState& state_;
        Until until_;
        bool all_, wait_;
    };

    /// What is queued, at least a byte, at most `max_bytes`. Errors: end after the peer's last byte; timed_out and cancelled, which
    /// consume nothing; the reason of the connection's end.
    Recv recv(std::size_t max_bytes, Until until = {}) noexcept { return {*state_, Recv::What::some, max_bytes, until}; }
    /// All that is queued.
    Recv recv(Until until = {}) noexcept { return recv(SIZE_MAX, until); }
    /// Exactly n bytes. Errors: also too_large above limits().message.
    Recv recv_exactly(std::uint32_t n, Until until = {}) noexcept { return {*state_, Recv::What::exactly, n, until}; }
    /// The next message of a message transport, which may be empty. Errors: also not_supported.
    Recv recv_message(Until until = {}) noexcept { return {*state_, Recv::What::message, 0, until}; }
    /// Takes the bytes now; awaiting it waits for room below the high-water mark. Ending the wait leaves the bytes on their way.
    Room send(Chain bytes, Until until = {}) noexcept;
    /// The same of a copy.
    Room send(std::string_view text, Until until = {}) noexcept;
    /// Until everything sent was given to the system or device: its buffers are released.
    Room sent(Until until = {}) noexcept { return {*state_, true, true, Errc::none, until}; }
    /// No more sends; what is queued is drained.
    void shutdown() noexcept;
    /// Drops what is queued.
    void close() noexcept;
    /// The connection below, null once it has closed: addresses, limits, metrics.
    Connection* connection() const noexcept { return state_->connection; }

private:
    detail::StreamState* state_;
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
void close_threw(StreamState& state) noexcept;

template <class F>
Root run_session(F session, StreamState* state) {
    const Handler hold(*state);  // also when the frame is destroyed while it waits
    try {
        co_await session(Stream(*state));
    } catch (...) {
        close_threw(*state);
    }
}
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

template <class F>
struct Session : Handler {
    Session(StreamState& state, const F& given) : Handler(state), session(given) {}
    void on_open(Connection& c) {
        Handler::on_open(c);
        run_session(session, state_);
    }
    F session;
};

class Sleep {
public:
    Sleep(Loop& loop, Duration delay) noexcept : loop_(loop), delay_(delay) {}
    Sleep(const Sleep&) = delete;
    ~Sleep() {
        promise_ = nullptr;
        timer_.cancel();
    }
    bool await_ready() const noexcept { return false; }
    template <class P>
    bool await_suspend(std::coroutine_handle<P> frame) noexcept {
        return begin(frame.promise());
    }
    Result<void> await_resume() const noexcept { return error_; }

private:
    struct Ring;
    bool begin(Promise& promise) noexcept;
    Loop& loop_;
    Duration delay_;
    Promise* promise_ = nullptr;
    Timer timer_;
    Error error_;
};

class Connecting : Wait {
public:
    Connecting(Loop& loop, std::string_view url, Until until);
    bool await_ready() noexcept { return ended() || (until_.token == nullptr && ready()); }
    template <class P>
    bool await_suspend(std::coroutine_handle<P> frame) noexcept {
        return begin(frame.promise(), *state_->loop, &state_->opener, until_);
    }
    Result<Stream> await_resume() noexcept;
    ~Connecting();

private:
    bool ready() noexcept override;
    StreamState* state_;
    Stream stream_;
    Until until_;
};

}  // namespace detail

/// Waits at least so long. When the loop ends before, the coroutine and those that wait for it are destroyed.
/// Errors: out_of_memory. Await it where it is made.
inline detail::Sleep sleep(Loop& loop, Duration delay) noexcept { return {loop, delay}; }

/// `auto peer = co_await co::connect(loop, url, within(3_s))`: a Result<Stream>. Ended early it leaves nothing behind.
/// Errors: those of evpl::connect, cancelled, and those that end the attempt.
inline detail::Connecting connect(Loop& loop, std::string_view url, Until until = {}) { return {loop, url, until}; }

/// Listens at `url`; each connection runs its own `session(Stream)`, a coroutine `Task<>`. One that throws ends its connection with
/// handler_threw. Errors: as evpl::listen.
template <class F>
Result<Listener> serve(Loop& loop, std::string_view url, F session) {
    return evpl::listen(loop, url, [&loop, session](Connection&) {
        detail::StreamState* state = detail::StreamState::create(loop);
        detail::Session<F> made(*state, session);
        state->unref();
        return made;
    });
}

/// Runs a task that nobody waits for, from now on. `hook(std::exception_ptr)` hears of what it throws; what the hook throws is dropped.
template <class Hook>
void spawn(Task<> task, Hook hook) {
    detail::run_spawned(std::move(task), std::move(hook));
}

}  // namespace evpl::co
#pragma GCC visibility pop
