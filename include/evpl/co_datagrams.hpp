#pragma once

// Datagram sockets for coroutines.

#include <string_view>

#include "evpl/co_task.hpp"
#include "evpl/datagram.hpp"

#pragma GCC visibility push(default)
namespace evpl::co {

namespace detail {

/// What a Datagrams and the socket's handler share: freed when both are gone.
class DatagramsState {
public:
    /// Null: out of memory.
    static DatagramsState* create(Loop& loop) noexcept;
    void ref() noexcept { ++refs_; }
    void unref() noexcept;
    void on_recv(Datagram&) noexcept { look(reader); }
    void on_writable(Datagram&) noexcept { look(writer); }
    void on_close(Datagram& socket, Error reason) noexcept;

    Loop* loop = nullptr;
    Datagram* socket = nullptr;  // null once closed
    Error reason;                // why it closed
    Wait* reader = nullptr;
    Wait* writer = nullptr;

private:
    explicit DatagramsState(Loop& owner) noexcept : loop(&owner) {}
    void look(Wait* slot) noexcept;
    std::uint32_t refs_ = 1;
};

}  // namespace detail

/// One datagram socket, for coroutines. Movable; when it is gone, what was sent leaves as far as the system takes it, and the socket closes.
/// One operation of each kind at a time: a second one ends with misuse. Loop's thread.
class Datagrams {
public:
    /// The library's own: sockets come from bind().
    explicit Datagrams(detail::DatagramsState& state) noexcept : state_(&state) { state.ref(); }
    /// Moving leaves the other empty. Errors: none.
    Datagrams(Datagrams&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
    /// Exchanges the two.
    Datagrams& operator=(Datagrams&& other) noexcept {
        std::swap(state_, other.state_);
        return *this;
    }
    ~Datagrams();

    /// A receive that waits, to be awaited where it is made.
    class RecvFrom : detail::Wait {
    public:
        /// The library's own.
        RecvFrom(detail::DatagramsState& state, Until until) noexcept : state_(state), until_(until) {}
        bool await_ready() noexcept { return until_.token == nullptr && state_.reader == nullptr && ready(); }
        template <class P>
        bool await_suspend(std::coroutine_handle<P> frame) noexcept {
            return begin(frame.promise(), *state_.loop, &state_.reader, until_);
        }
        Result<Packet> await_resume() noexcept {
            if (ended()) return error;
            return std::move(got_);
        }

    private:
        bool ready() noexcept override;
        detail::DatagramsState& state_;
        Until until_;
        Packet got_;
    };
    /// A wait for room, to be awaited where it is made.
    class SendTo : detail::Wait {
    public:
        /// The library's own.
        SendTo(detail::DatagramsState& state, Flow flow, Until until) noexcept : state_(state), until_(until), wait_(flow.paused()) {
            if (flow.error() != Errc::none) error = Error(flow.error(), Step::send);
        }
        bool await_ready() noexcept { return !wait_ || ended() || ready(); }
        template <class P>
        bool await_suspend(std::coroutine_handle<P> frame) noexcept {
            return begin(frame.promise(), *state_.loop, &state_.writer, until_);
        }
        Result<void> await_resume() noexcept { return error; }

    private:
        bool ready() noexcept override;
        detail::DatagramsState& state_;
        Until until_;
        bool wait_;
    };

    /// The next datagram, which may be empty. Errors: timed_out and cancelled, which consume nothing; the reason of the socket's end.
    RecvFrom recv_from(Until until = {}) noexcept { return {*state_, until}; }
    /// Takes one datagram now; awaiting it waits for room below the high-water mark. Ending the wait leaves it on its way. Errors: as
    /// Datagram::send_to(); a datagram the system could not send later is counted (DatagramMetrics), as datagrams get lost.
    SendTo send_to(const Address& to, Buffer bytes, Until until = {}) noexcept;
    /// The same of a copy.
    SendTo send_to(const Address& to, std::string_view text, Until until = {}) noexcept;
    /// Drops what is queued.
    void close() noexcept;
    /// The socket below, null once it has closed: address, groups, limits, metrics.
    Datagram* socket() const noexcept { return state_->socket; }

private:
    detail::DatagramsState* state_;
};

/// Opens a datagram socket bound to `url`: it can be used at once. Errors: as evpl::bind().
Result<Datagrams> bind(Loop& loop, std::string_view url) noexcept;

}  // namespace evpl::co
#pragma GCC visibility pop
