#pragma once

// Connections for coroutines.

#include <new>
#include <span>
#include <string_view>

#include "evpl/co_task.hpp"
#include "evpl/connection.hpp"
#include "evpl/listener.hpp"

#pragma GCC visibility push(default)
namespace evpl::co {

namespace detail {

class StreamState;

/// A remote read or write under way.
class RemoteWait : protected Wait {
public:
    RemoteWait(StreamState& state, Result<OperationId> started, Until until) noexcept;
    ~RemoteWait();
    bool await_ready() const noexcept { return ended(); }
    template <class P>
    bool await_suspend(std::coroutine_handle<P> frame) noexcept {
        return start(frame.promise());
    }
    Result<Buffer> await_resume() noexcept {
        if (ended()) return error;
        return std::move(block_);
    }

protected:
    friend class StreamState;
    bool ready() noexcept override { return done_; }
    bool start(Promise& promise) noexcept;
    StreamState& state_;
    OperationId id_;
    Until until_;
    Buffer block_;
    std::uint64_t value_ = 0;
    RemoteWait* next_ = nullptr;
    bool done_ = false;
};

/// An atomic under way.
class AtomicWait : public RemoteWait {
public:
    using RemoteWait::RemoteWait;
    Result<std::uint64_t> await_resume() noexcept {
        if (ended()) return error;
        return value_;
    }
};

/// What a Stream and the connection's handler share: freed when both are gone.
class StreamState {
public:
    /// Null: out of memory.
    static StreamState* create(Loop& loop) noexcept;
    void ref() noexcept { ++refs_; }
    void unref() noexcept;
    /// The last Stream is gone: what was sent is drained, what comes is dropped.
    void orphan() noexcept;

    void on_open(Connection& connection) noexcept;
    void on_recv(Connection& connection) noexcept;
    void on_end(Connection& connection) noexcept;
    void on_writable(Connection&) noexcept { look(writer); }
    void on_sent(Connection&, std::size_t) noexcept { look(drainer); }
    void on_completed(Connection&, Completion& done) noexcept;
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
    RemoteWait* remotes = nullptr;  // under way, newest first

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
    void on_completed(Connection& c, Completion& done) { state_->on_completed(c, done); }
    void on_close(Connection& c, Error e) { state_->on_close(c, e); }

protected:
    StreamState* state_;
};

}  // namespace detail

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
        enum class What : std::uint8_t { some, exactly, message, until };
        /// The library's own.
        Recv(detail::StreamState& state, What what, std::size_t bytes, Until until, std::string_view delimiter = {}) noexcept
            : state_(state), bytes_(bytes), delimiter_(delimiter), until_(until), what_(what) {}
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
        bool take_until(Connection& connection) noexcept;
        detail::StreamState& state_;
        std::size_t bytes_;
        std::string_view delimiter_;
        std::size_t looked_ = 0;  // the delimiter does not begin before
        Until until_;
        What what_;
        Chain got_;
    };
    /// A receive into a block of the caller's, to be awaited where it is made.
    class RecvInto : detail::Wait {
    public:
        /// The library's own.
        RecvInto(detail::StreamState& state, Buffer target, Until until) noexcept : state_(state), block_(std::move(target)), until_(until) {}
        ~RecvInto();
        bool await_ready() const noexcept { return false; }
        template <class P>
        bool await_suspend(std::coroutine_handle<P> frame) noexcept {
            return begin(frame.promise(), *state_.loop, &state_.reader, until_);
        }
        Result<Buffer> await_resume() noexcept {
            if (ended()) return error;
            return std::move(block_);
        }

    private:
        bool ready() noexcept override;
        detail::StreamState& state_;
        Buffer block_;  // before and after; in between the connection has it
        Until until_;
        bool landing_ = false;
    };
    /// A remote read or write, to be awaited where it is made.
    using Remote = detail::RemoteWait;
    /// An atomic, to be awaited where it is made.
    using Atomic = detail::AtomicWait;
    /// A wait for the outbox, to be awaited where it is made.
    class Room : detail::Wait {
    public:
        /// The library's own.
        Room(detail::StreamState& state, bool all, bool wait, Errc refused, Until until) noexcept : state_(state), until_(until), all_(all), wait_(wait) {
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
    /// All up to and with the first `delimiter`, which must live until then. Errors: also too_large when it does not end within `max_bytes` (at most
    /// limits().message), end when the peer's last byte comes before it: what came is consumed by neither; misuse for an empty delimiter.
    Recv recv_until(std::string_view delimiter, std::size_t max_bytes = SIZE_MAX, Until until = {}) noexcept {
        return {*state_, Recv::What::until, max_bytes, until, delimiter};
    }
    /// The next target.size() bytes, in the caller's block, without a copy where the transport can; fewer when the peer has ended before.
    /// Errors: end after the peer's last byte; timed_out and cancelled, which consume nothing; misuse as Connection::recv_into().
    RecvInto recv_into(Buffer target, Until until = {}) noexcept { return {*state_, std::move(target), until}; }
    /// Reads from what the peer has exposed; gives the block back, filled. As many at a time as the transport takes. Ended early, the operation
    /// goes on by itself and its block is let go after it. Errors: those of Connection::read(); how the operation ended.
    Remote read(const RemoteRegion& region, std::uint64_t offset, Buffer into, Until until = {}) noexcept;
    /// Writes into what the peer has exposed; gives the block back. Otherwise as read().
    Remote write(const RemoteRegion& region, std::uint64_t offset, Buffer from, Until until = {}) noexcept;
    /// The same, and then the peer's on_written gets `word`; a peer that is a Stream itself does not hear of it. Errors: those of Connection::write_telling();
    /// how the operation ended.
    Remote write_telling(const RemoteRegion& region, std::uint64_t offset, Buffer from, std::uint32_t word, Until until = {}) noexcept;
    /// Adds to a number that the peer has exposed; gives what it was before. Errors: those of Connection::fetch_add(); how it ended.
    Atomic fetch_add(const RemoteRegion& region, std::uint64_t offset, std::uint64_t add, Until until = {}) noexcept;
    /// Makes it `desired` if it is `expected`; gives what it was before. Otherwise as fetch_add().
    Atomic compare_swap(const RemoteRegion& region, std::uint64_t offset, std::uint64_t expected, std::uint64_t desired, Until until = {}) noexcept;
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

void close_for(StreamState& state, Errc reason) noexcept;

template <class F>
Root run_session(F session, StreamState* state) {
    const Handler hold(*state);  // also when the frame is destroyed while it waits
    try {
        co_await session(Stream(*state));
    } catch (const std::bad_alloc&) {
        close_for(*state, Errc::out_of_memory);
    } catch (...) {
        close_for(*state, Errc::handler_threw);
    }
}
template <class F>
struct Session : Handler {
    Session(StreamState& state, const F& given) : Handler(state), session(given) {}
    void on_open(Connection& c) {
        Handler::on_open(c);
        try {
            run_session(session, state_);
        } catch (const std::bad_alloc&) {  // for its frame
            close_for(*state_, Errc::out_of_memory);
        }
        depart();
    }
    F session;
};

class Connecting : Wait {
public:
    Connecting(Loop& loop, std::string_view url, Until until, std::span<const std::byte> private_data) noexcept;
    bool await_ready() noexcept { return ended() || (until_.token == nullptr && ready()); }
    template <class P>
    bool await_suspend(std::coroutine_handle<P> frame) noexcept {
        return begin(frame.promise(), loop_, &state_->opener, until_);
    }
    Result<Stream> await_resume() noexcept;
    ~Connecting();

private:
    bool ready() noexcept override;
    Loop& loop_;
    StreamState* state_;  // null: there was no memory
    Until until_;
};

}  // namespace detail

/// `auto peer = co_await co::connect(loop, url, within(3_s))`: a Result<Stream>. Ended early it leaves nothing behind.
/// `private_data` goes with the connect (Connection::set_private_data), copied. The peer's answer is the connection's private_data().
/// Errors: those of evpl::connect and Connection::set_private_data, cancelled, and those that end the attempt.
inline detail::Connecting connect(Loop& loop, std::string_view url, Until until = {}, std::span<const std::byte> private_data = {}) noexcept {
    return {loop, url, until, private_data};
}

template <class F, class A>
Result<Listener> serve(Loop& loop, std::string_view url, F session, A admit);

/// Listens at `url`; each connection runs its own `session(Stream)`, a coroutine `Task<>`. One that throws ends its connection with
/// handler_threw. Errors: as evpl::listen.
template <class F>
Result<Listener> serve(Loop& loop, std::string_view url, F session) {
    return serve(loop, url, session, [](Connection&) -> Result<void> { return {}; });
}

/// The same; `admit(Connection&)`, a plain function that answers Result<void>, runs first. Where the transport has private data it runs before the
/// peer is answered, sees the peer's, may set its own, and rejects by its error.
template <class F, class A>
Result<Listener> serve(Loop& loop, std::string_view url, F session, A admit) {
    return evpl::listen(loop, url, [&loop, session, admit](Connection& peer) -> Result<detail::Session<F>> {
        if (const Result<void> admitted = admit(peer); !admitted) return admitted.error();
        detail::StreamState* state = detail::StreamState::create(loop);
        if (state == nullptr) return Error(Errc::out_of_memory, Step::accept);
        detail::Session<F> made(*state, session);
        state->unref();
        return made;
    });
}

}  // namespace evpl::co
#pragma GCC visibility pop
