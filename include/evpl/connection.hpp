#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "evpl/address.hpp"
#include "evpl/chain.hpp"
#include "evpl/config.hpp"
#include "evpl/duration.hpp"
#include "evpl/handler.hpp"
#include "evpl/remote.hpp"
#include "evpl/result.hpp"
#include "evpl/transport_info.hpp"

#pragma GCC visibility push(default)
namespace evpl {

class Loop;
struct ConnectionMetrics;
namespace core {
class LoopControl;
}

/// What a send answers. The bytes are taken in every case but misuse.
class Flow {
public:
    /// What the caller should do now.
    enum class State : std::uint8_t { go, pause, refused };
    /// Made by the library, and by whoever fakes a connection in tests.
    constexpr Flow(State state, Errc error = Errc::none) noexcept : state_(state), error_(error) {}
    /// True: there is room for more.
    constexpr explicit operator bool() const noexcept { return state_ == State::go; }
    /// True: the high-water mark is reached; on_writable follows at the low-water mark.
    constexpr bool paused() const noexcept { return state_ == State::pause; }
    /// misuse when the connection is closed or its sending side was shut down; send_limit past the hard limit.
    constexpr Errc error() const noexcept { return error_; }

private:
    State state_;
    Errc error_;
};

/// Names a connection without keeping it: 16 bytes, copyable, may be held and compared on any thread.
class ConnectionRef {
public:
    constexpr ConnectionRef() noexcept = default;
    /// The connection, or null once it is closed or its loop has ended. Thread: the owning loop's.
    Connection* get() const noexcept;
    friend bool operator==(const ConnectionRef&, const ConnectionRef&) noexcept = default;

private:
    friend struct CoreAccess;
    core::LoopControl* control_ = nullptr;
    std::uint32_t slot_ = 0;
    std::uint32_t generation_ = 0;
};
static_assert(sizeof(ConnectionRef) == 16);

/// How much may wait in a connection's queues, in bytes. Fields that are not given take the process's setting `limits.<field>`
/// (config.hpp), built in as noted.
struct QueueLimits {
    /// unread bytes that stop reading; 1 MiB
    std::uint32_t receive = std::uint32_t(detail::configured(detail::Known::limits_receive));
    /// on_writable comes when the outbox has drained to here; 128 KiB
    std::uint32_t send_low = std::uint32_t(detail::configured(detail::Known::limits_send_low));
    /// send answers pause from here; 512 KiB
    std::uint32_t send_high = std::uint32_t(detail::configured(detail::Known::limits_send_high));
    /// a send past this ends the connection with send_limit; 64 MiB
    std::uint32_t send_hard = std::uint32_t(detail::configured(detail::Known::limits_send_hard));
    /// largest framed message; a larger one ends the connection with too_large; 16 MiB
    std::uint32_t message = std::uint32_t(detail::configured(detail::Known::limits_message));
};

/// Who is at the other end of a Unix socket (unix(7), SO_PEERCRED).
struct Credentials {
    std::int32_t pid = -1;  ///< of the process that connected
    std::uint32_t uid = 0;  ///< its effective user
    std::uint32_t gid = 0;  ///< its effective group
};

/// One connection of a stream or message transport. The loop owns it: a reference is valid until its on_close returns.
/// No callback runs inside a call made here; all calls belong on the loop's thread.
class Connection {
public:
    Connection(const Connection&) = delete;
    Connection& operator=(const Connection&) = delete;

    // -- who and what ------------------------------------------------------------------------------------------
    /// The loop that owns it. Thread: its own. Cost: none.
    Loop& loop() const noexcept;
    /// A name that outlives the connection. Cost: none.
    ConnectionRef ref() const noexcept;
    /// The scheme in use, e.g. "tcp" for a stream:// endpoint, and what its link can do.
    std::string_view transport() const noexcept;
    /// What its link can do; before it is open, what is expected of it.
    const Caps& caps() const noexcept;
    /// Between on_open and the end.
    bool is_open() const noexcept;
    /// The peer's IP address; family none on transports that have none.
    Address remote_address() const noexcept;
    /// Our own end's IP address, as the other.
    Address local_address() const noexcept;
    /// The peer as text: address, path or name. Valid until on_close.
    std::string_view remote_name() const noexcept;
    /// Errors: not_supported where caps().credentials is false.
    Result<Credentials> credentials() const noexcept;
    /// A kernel descriptor to look at (getsockopt), -1 when there is none. It stays the library's.
    int native_fd() const noexcept;
    /// What the peer said with its connect (at the side that accepts), or with its accept or reject (at the side that connects; after a
    /// reject in on_close). Empty: nothing, or not yet. The connection managers of RoCE and InfiniBand pad it with zeros: protocols carry
    /// a length of their own. Valid until the next event of this connection.
    std::span<const std::byte> private_data() const noexcept;
    /// What goes with our connect, accept or reject: called by the handler's factory, which at a listener with
    /// caps().private_data_bytes_max runs before the peer is answered, and by the error it returns rejects. Copied.
    /// Errors: not_supported, too_large (caps().private_data_bytes_max), misuse (later than in the factory), out_of_memory.
    Result<void> set_private_data(std::span<const std::byte> data) noexcept;
    /// Its counters, now. Cost: copies a few numbers; counting pinned bytes visits the inbox.
    ConnectionMetrics metrics() const noexcept;

    // -- receive: pull -----------------------------------------------------------------------------------------
    /// Unread bytes in the inbox.
    std::size_t available() const noexcept;
    /// Hands over up to max_bytes of what is queued; empty when there is nothing. With a `frame` callback or on a message
    /// transport it never crosses the end of a message. Cost: moves slices; no copy.
    Chain recv(std::size_t max_bytes = SIZE_MAX) noexcept;
    /// Exactly n bytes, or an empty chain while they are not all there (the receive limit is raised to n; on_recv comes again
    /// when they are). Errors: too_large when n exceeds limits().message, or what is left of the message with a `frame` callback or on a
    /// message transport; end when the peer finished before.
    Result<Chain> recv_exactly(std::uint32_t n) noexcept;
    /// A whole message is queued (also an empty one, which recv_message gives as an empty chain).
    bool has_message() noexcept;
    /// The next whole message (message transports, or a handler with `frame`); an empty chain while there is none.
    /// Errors: not_supported on a stream without `frame`; end after the last.
    Result<Chain> recv_message() noexcept;
    /// Copies bytes without consuming them; returns how many. consume() then drops them; with a `frame` callback, those of a frame
    /// that is not all there yet stay.
    std::size_t peek(std::span<std::byte> target) const noexcept;
    /// Drops n unread bytes at the front (all, when there are fewer).
    void consume(std::size_t n) noexcept;
    /// The next `target.size()` bytes land in the caller's block, without a copy where the transport can. on_recv comes when it
    /// is full, or when the peer has ended before: it is then shorter. landed() gives it back (empty before). Errors: misuse while another one is under way,
    /// for an empty target, on a message transport and with a `frame` callback.
    Result<void> recv_into(Buffer target) noexcept;
    /// The buffer of recv_into, once it is full or the peer has ended; empty before.
    Buffer landed() noexcept;
    /// Ends a recv_into that nobody waits for any more: what has landed is unread bytes again. Errors: out_of_memory, which ends the connection.
    Result<void> cancel_recv_into() noexcept;
    /// Where `what` begins among the unread bytes, at `from` or behind; SIZE_MAX: nowhere yet. Cost: visits the bytes from there on.
    std::size_t find(std::string_view what, std::size_t from = 0) const noexcept;
    /// A descriptor that came with the bytes read last (caps().descriptors); -1 when there is none. The caller closes it.
    int recv_descriptor() noexcept;
    /// The key that the message taken last has taken back (caps().remote_invalidate): the peer's send_invalidating named it, and what we
    /// exposed by it is revoked. 0: none. Cost: none.
    std::uint64_t invalidated_key() const noexcept;

    // -- send: takes ownership ---------------------------------------------------------------------------------
    /// Queues the bytes; they leave at the end of the turn. On a message transport (or for a peer with `frame`) one send is one
    /// message. Cost: moves slices, no system call.
    Flow send(Chain bytes) noexcept;
    /// Copies the bytes into a block of the loop.
    Flow send(std::span<const std::byte> bytes) noexcept;
    /// Copies the text into a block of the loop.
    Flow send(std::string_view text) noexcept { return send(std::as_bytes(std::span(text.data(), text.size()))); }
    /// The same, and the peer's device takes back what the peer has exposed by `key`: when it hears of the message, nobody can use that
    /// any more. A key that is not the peer's ends the connection. Refused: not_supported where caps().remote_invalidate is false.
    Flow send_invalidating(Chain bytes, std::uint64_t key) noexcept;
    /// Takes the bytes only when they fit below the high-water mark; else they stay in `bytes`.
    bool try_send(Chain& bytes) noexcept;
    /// Room below the high-water mark, in bytes. On a message transport: none, or enough for the largest message.
    std::size_t send_room() const noexcept;
    /// Bytes taken and not yet given to the system or device.
    std::size_t queued() const noexcept;
    /// Sends what is queued now instead of at the end of the turn.
    void flush() noexcept;
    /// Sends a duplicate of `fd` with the bytes (unix stream and seqpacket). Errors: not_supported, misuse (no bytes), and
    /// those of dup(2). The caller keeps `fd`.
    Result<void> send_descriptor(int fd, Chain bytes) noexcept;

    // -- end ---------------------------------------------------------------------------------------------------
    /// No more sends: drains the outbox, then ends our direction. Where half-close is missing it drains and closes.
    void shutdown(Limit limit = {}) noexcept;
    /// Drops what is queued and closes. on_close(closed) follows at the end of the turn. A second call is answered by nothing.
    void close() noexcept;
    /// The same with a reason that on_close will tell. A cancelled connect ends with `cancelled`.
    void close(Error reason) noexcept;

    // -- limits ------------------------------------------------------------------------------------------------
    /// How much may wait in its queues.
    const QueueLimits& limits() const noexcept;
    /// Changes them for this connection, at once. What is queued already stays.
    void set_limits(const QueueLimits& limits) noexcept;
    /// The connection ends with timed_out when no byte arrives for so long (forever: off, the default).
    void deadline_recv(Duration idle) noexcept;
    /// The connection ends with timed_out when queued bytes make no progress for so long (forever: off, the default), and none
    /// in 20 ms more. Time in which the loop itself stood still does not count, three times at the most.
    void deadline_send(Duration stalled) noexcept;

    // -- remote memory (caps().rma) -----------------------------------------------------------------------------
    /// Lets this connection's peer read or write exactly these bytes until revoke() or the end of the connection.
    /// Errors: not_supported (also Access::atomic where caps().remote_atomics is false), and those of registration.
    Result<RemoteRegion> expose(Buffer range, Access access) noexcept;
    /// Afterwards no access starts; the buffer is released when the last one under way has ended.
    Result<void> revoke(const RemoteRegion& region) noexcept;
    /// Fills `into` from the peer's region at `offset`, or writes `from` to it; on_completed tells how it ended, exactly once.
    /// Errors: not_supported, misuse (closed, out of the region's bounds).
    Result<OperationId> read(const RemoteRegion& region, std::uint64_t offset, Buffer into) noexcept;
    /// Writes `from` to the peer's region at `offset`. Otherwise as read().
    Result<OperationId> write(const RemoteRegion& region, std::uint64_t offset, Buffer from) noexcept;
    /// The same, and then tells the peer: its on_written gets `word` once the bytes are in its memory, in the order of these writes. What we sent
    /// before and is no longer queued() is in its inbox by then; on_recv tells of what we send later only afterwards. A peer that does not read is not told,
    /// either. Errors: as write(); not_supported where caps().remote_tells is false.
    Result<OperationId> write_telling(const RemoteRegion& region, std::uint64_t offset, Buffer from, std::uint32_t word) noexcept;
    /// Adds to the 8 bytes at `offset` of what the peer has exposed with Access::atomic: one number in its machine's byte order, at an address
    /// that is a multiple of 8. The completion's `value` is what was there before. No two atomics on the same bytes cut into each other when they
    /// come to the owner through one device (RDMA) or at all (inproc); what the owner's own program does meanwhile may.
    /// Errors: not_supported where caps().remote_atomics is false; misuse (closed, out of bounds, not a multiple of 8); out_of_buffers.
    Result<OperationId> fetch_add(const RemoteRegion& region, std::uint64_t offset, std::uint64_t add) noexcept;
    /// Makes the 8 bytes `desired` if they are `expected`; they were when the completion's `value` is. Otherwise as fetch_add().
    Result<OperationId> compare_swap(const RemoteRegion& region, std::uint64_t offset, std::uint64_t expected, std::uint64_t desired) noexcept;

protected:
    Connection() noexcept = default;
    ~Connection() = default;
};

namespace detail {
Result<ConnectionRef> connect(Loop& loop, std::string_view url, ConnectionFactory factory, Limit limit) noexcept;
}

/// Starts a connection. `handler`: a factory `(Connection&) -> H | H& | Result<H>`, a handler to move in, or an lvalue handler to
/// share. Events follow: on_open, or on_close when it fails. A failing Result means nothing was created; the reason is also
/// `loop.last_failure()`. Errors: bad_endpoint, unknown_scheme, unknown_option, bad_option, transport_absent, out_of_memory, too_many_files.
/// Thread: the loop's. Without a limit, a connect attempt ends after 30 s.
template <class H>
    requires(!std::is_same_v<std::decay_t<H>, Limit>)
Result<ConnectionRef> connect(Loop& loop, std::string_view url, H&& handler, Limit limit = {}) {
    return detail::connect(loop, url, detail::factory_of<HandlerTable, Connection>(std::forward<H>(handler)), limit);
}
/// `connect<Session>(loop, url, within(3_s), args...)`: a Session{args...} for the connection.
template <class H, class... Args>
Result<ConnectionRef> connect(Loop& loop, std::string_view url, Limit limit, Args&&... args) {
    return detail::connect(loop, url, detail::factory_for<HandlerTable, Connection, H>(std::forward<Args>(args)...), limit);
}
template <class H>
Result<ConnectionRef> connect(Loop& loop, std::string_view url) {
    return connect<H>(loop, url, Limit{});
}

}  // namespace evpl
#pragma GCC visibility pop
