#pragma once

#include <cstdint>
#include <string_view>
#include <utility>

#include "evpl/connection.hpp"

#pragma GCC visibility push(default)
namespace evpl {

struct ListenerMetrics;
namespace core {
class ListenerState;
}

/// Accepts connections while it lives. Dropping it stops accepting and leaves its connections.
/// Move-only; belongs to its loop's thread.
class Listener {
public:
    Listener() noexcept = default;
    /// Moving leaves the other empty. Errors: none.
    Listener(Listener&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
    /// Ends what this one holds, then takes over what the other does.
    Listener& operator=(Listener&& other) noexcept {
        if (this != &other) {
            close();
            state_ = std::exchange(other.state_, nullptr);
        }
        return *this;
    }
    ~Listener() { close(); }

    /// The endpoint as it is really bound: port 0 replaced by the real one. "tcp://127.0.0.1:43211". Valid while it lives.
    std::string_view url() const noexcept;
    /// The port really bound, 0 where there is none.
    std::uint16_t port() const noexcept;
    /// Pauses and resumes accepting.
    void pause() noexcept;
    /// Accepts again after pause().
    void resume() noexcept;
    /// Most connections it may have open at once; at the limit accepting pauses until one closes. 0: no limit.
    void limit_connections(std::uint32_t most) noexcept;
    /// Its counters, now.
    ListenerMetrics metrics() const noexcept;
    /// The descriptor of its socket, for another process that shall listen on: by exec, or over a Unix connection
    /// (Connection::send_descriptor); there `?fd=` names it (docs/guide.md). It stays the library's, open until close(). From the first call
    /// on close() leaves what the kernel has queued, and the file of a Unix socket, to the other process; only what `uring` took by then, while paused
    /// or in the same turn, is reset.
    /// -1: it has no socket of the kernel's, or two (a device's beside the kernel's), or is closed. Costs nothing worth counting.
    int hand_over() noexcept;
    /// Stops accepting; its connections stay. What the kernel has queued is refused. A second call does nothing.
    void close() noexcept;
    /// It is open: made by listen(), not moved from or closed.
    explicit operator bool() const noexcept { return state_ != nullptr; }

private:
    friend struct CoreAccess;
    friend class ThreadPool;
    void forget() noexcept { state_ = nullptr; }  // its loop has ended, and closed it
    core::ListenerState* state_ = nullptr;
};

namespace detail {
Result<Listener> listen(Loop& loop, std::string_view url, ConnectionFactory factory) noexcept;
}

/// Listens at `url`; each accepted connection gets the handler that `factory(Connection&)` gives, built on this loop.
/// Errors: bad_endpoint, unknown_scheme, unknown_option, bad_option, transport_absent, address_in_use, address_unavailable,
/// permission_denied, too_many_files, out_of_memory, name_not_found (a listener takes literal addresses and `localhost` only).
template <class F>
Result<Listener> listen(Loop& loop, std::string_view url, F&& factory) {
    return detail::listen(loop, url, detail::factory_of<HandlerTable, Connection>(std::forward<F>(factory)));
}
/// `listen<Session>(loop, url, args...)`: a Session{args...} for each connection.
template <class H, class... Args>
    requires Handler<H> Result<Listener> listen(Loop& loop, std::string_view url, Args&&... args) {
        return detail::listen(loop, url, detail::factory_for<HandlerTable, Connection, H>(std::forward<Args>(args)...));
    }

}  // namespace evpl
#pragma GCC visibility pop
