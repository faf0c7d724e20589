#pragma once

#include <cstdint>

#include "core/loop_core.hpp"
#include "core/member.hpp"
#include "core/origin.hpp"
#include "core/timer_wheel.hpp"
#include "evpl/connection.hpp"
#include "evpl/metrics.hpp"
#include "transport/transport.hpp"

namespace evpl::core {

class Connector;

/// A connection behind its facade: inbox, outbox, handler, and which of its events wait to be called. The handler lives right behind it
/// in the same allocation.
class alignas(64) ConnectionState final : public Connection, public Member, public transport::Sink {
public:
    /// Null: out of memory. Takes a reference on `origin`.
    static ConnectionState* create(LoopCore& core, Origin& origin) noexcept;

    // -- Sink: takes note, calls nobody
    void opened() override;
    void delivered(Buffer&& bytes, const transport::Arrival& arrival) override;
    void delivered_messages(std::span<Buffer> messages) override;
    void landed(std::uint32_t bytes) override;
    void ended() override;
    void sent(std::size_t bytes) override;
    void send_failed(Error error) override;
    void writable() override;
    void completed(OperationId operation, Error error, Buffer&& buffer) override;
    void closed(Error error) override;
    void retired() override;

    // -- Member
    void dispatch() override;
    void flush_outbox() override;
    void settle() override;
    void stop(bool drain, Error reason) override;
    bool is_alive() const noexcept override { return phase != Phase::closed; }
    bool is_connection() const noexcept override { return true; }
    void destroy() noexcept override;

    void plan(const Caps& caps) noexcept {
        planned_caps = caps;
        kind = caps.kind;
    }
    /// A link that will open, or has opened, is this connection's.
    void attach(transport::Link& link) noexcept;
    /// Every attempt failed.
    void connect_failed(Error error) noexcept;
    void note(std::uint32_t event) noexcept {
        events |= event;
        core.mark(*this);
    }

    /// Makes the handler: at once for connect(), before on_open for an accepted peer. False: it closes.
    bool build() noexcept;
    Result<void> say(std::span<const std::byte> data) noexcept;
    /// What the peer has said stays when the link goes. Without memory it is lost.
    void keep_private_data(std::span<const std::byte> heard) noexcept;
    /// What set_private_data has left for a link that is being made.
    void give_private_data(transport::Link& made) const noexcept;
    /// Undoes a connect() that could not start: no callback, the handler is destroyed.
    void discard() noexcept;

    // -- the public calls (connection.cpp)
    Chain take(std::size_t max_bytes) noexcept;
    Result<Chain> take_message() noexcept;
    Flow push(Chain&& bytes, int descriptor, std::uint64_t key = 0) noexcept;
    [[gnu::noinline]] bool push_slices(std::span<Buffer> slices, int descriptor, std::uint64_t key) noexcept;
    void begin_close(Error reason) noexcept;
    void begin_shutdown(Limit limit) noexcept;
    void flush_now() noexcept;
    bool may_send() const noexcept { return phase <= Phase::open && !send_ended; }
    bool is_message() const noexcept { return kind == Kind::message; }
    const Caps& caps_now() const noexcept { return link != nullptr ? *link->caps : planned_caps; }
    void after_take() noexcept;
    void message_taken(std::uint32_t flags) noexcept;
    /// Bytes of the first whole message of the inbox, or -1 while it is not complete.
    std::int64_t message_bytes() noexcept;
    bool can_receive() noexcept;
    /// The clock is asked only where a deadline looks at it.
    void note_received() noexcept {
        if (receive_idle_ns != INT64_MAX) last_received_ns = core.now_ns();
    }
    void count_received(std::size_t bytes, std::size_t deliveries) noexcept {
        received_bytes += bytes;
        core.metrics.received_bytes += bytes;
        core.metrics.received_messages += deliveries;
        note_received();
    }
    void pause_at_limit() noexcept;
    /// Unread bytes at which reading stops: more than the limit while the next message or recv_exactly needs it.
    std::size_t receive_most() noexcept;
    void end_beyond_limit() noexcept;
    void end_landing() noexcept;
    void arm_deadlines() noexcept;
    void note_progress(std::int64_t now) noexcept { last_progress_ns = now, own_stalls = looks = 0; }
    /// A receive deadline counts: we have read all there is. Not while unread bytes stop reading; that is our own time.
    bool awaits_bytes() const noexcept { return !receive_paused || inbox.count() == 0; }
    void set_pause(bool pause) noexcept;

    /// Descriptors that came with bytes and wait for recv_descriptor(): reading stops here.
    static constexpr std::uint32_t descriptors_most = 64;
    enum class Phase : std::uint8_t { opening, open, closing, closed };
    enum Event : std::uint32_t {
        ev_open = 1,
        ev_recv = 2,
        ev_writable = 4,
        ev_sent = 8,
        ev_end = 16,
        ev_completed = 32,
        ev_close = 64,
        ev_asked = 128,  ///< a peer whose link awaits our answer
        ev_written = 256
    };
    /// What goes with connect, accept and reject. Only few connections have it.
    struct PrivateData {
        static constexpr std::size_t bytes_most = 256;  // the connection manager of InfiniBand carries up to 196
        std::uint16_t said_bytes = 0, heard_bytes = 0;
        std::byte said[bytes_most], heard[bytes_most];
    };

    // What a message touches comes first and fills whole cache lines: of a thousand connections, each message finds its own cold.
    const HandlerTable* handler;
    void* self = nullptr;  ///< null until built and after destruction
    transport::Link* link = nullptr;
    std::uint32_t events = 0;
    Phase phase = Phase::opening;
    bool link_closed = false;  ///< the port said closed()
    bool link_retired = false;
    bool peer_ended = false;   ///< the port said ended()
    bool end_told = false;     ///< on_end or its default has run
    bool send_ended = false;   ///< shutdown() was called
    bool drain_told = false;   ///< the port knows of that
    bool send_paused = false;  ///< a send answered pause: on_writable is owed
    bool receive_paused = false;
    std::uint8_t own_stalls = 0;  ///< so often deadline_send was not reached for the peer's sake, without progress
    std::uint8_t looks = 0;       ///< and so often it was looked at once more
    bool landing_done = false;
    bool by_frames = false;         ///< messages are cut by handler->frame
    Kind kind = Kind::stream;       ///< as in planned_caps
    std::uint32_t messages_in = 0;  ///< whole ones in the inbox, of a message transport
    std::uint32_t fresh_in = 0;     ///< slices at the inbox's end that settle() has not seen
    transport::SliceQueue inbox;
    std::uint32_t want_bytes = 0;  ///< recv_exactly waits for so many
    std::uint32_t frame_left = 0;  ///< of the message at the inbox's front, when a frame callback has told; 0: unknown
    QueueLimits limits;
    std::uint32_t fresh_out = 0;
    std::uint32_t unkeyed_out = 0;  ///< slices at the outbox's end whose memory may not be known to the link's domain
    std::uint32_t landed_bytes = 0;
    Buffer landing;  ///< recv_into's block
    Error close_reason;
    std::size_t queued_bytes = 0;  ///< taken by send, not yet sent()
    std::int64_t receive_idle_ns = INT64_MAX;
    std::int64_t send_stalled_ns = INT64_MAX;
    std::uint64_t received_bytes = 0, sent_bytes = 0;
    transport::SendQueue outbox;  // with what few messages have at its end

    Origin* origin;
    Connector* connector = nullptr;  ///< while attempts are under way
    std::uint32_t slot = 0, generation = 0;
    std::size_t sent_since = 0;  ///< for on_sent
    memory::RingQueue<int, 4> descriptors;
    memory::RingQueue<std::uint64_t, 1> keys_in;  ///< one per slice of the inbox with BufferAccess::has_key
    std::uint64_t invalidated_key = 0;            ///< by the message taken last
    memory::RingQueue<std::uint32_t, 1> words;    ///< of the peer's writes, for on_written
    PrivateData* private_data = nullptr;
    memory::RingQueue<Completion, 1> completions;
    std::uint32_t operations_out = 0;
    std::uint64_t next_operation = 1;
    static constexpr std::uint64_t atomic_bit = std::uint64_t(1) << 63;  ///< in an atomic's number: its buffer is ours, and becomes a value
    Caps planned_caps;                                                   ///< before there is a link; then the link's, as they were when it came
    bool counted_open = false;
    const transport::Scheme* scheme = nullptr;

    struct Deadline : Alarm {
        ConnectionState* owner;
    } deadline;
    std::int64_t open_by_ns = INT64_MAX;
    std::int64_t shutdown_by_ns = INT64_MAX;
    std::int64_t last_received_ns = 0;
    std::int64_t last_progress_ns = 0;
    std::uint64_t receive_pauses = 0, send_pauses = 0;
    Address peer_address;  ///< kept when the link goes
    char peer_text[112] = {};

private:
    ConnectionState(LoopCore& core, Origin& origin) noexcept;
    ~ConnectionState();
    void* handler_room() noexcept;
    template <class Call>
    void guard(Call call) noexcept;
    void call_open() noexcept;
    void call_recv() noexcept;
    void call_end() noexcept;
    void call_completions() noexcept;
    void told(std::uint32_t word) noexcept;
    void call_written() noexcept;
    void finish_close() noexcept;
    void drop_queues() noexcept;
    void answer() noexcept;
    PrivateData* make_private_data() noexcept;
    /// The device may touch every slice of the outbox. False: not yet; flushed again when registration has answered.
    bool give_keys(memory::Domain& domain) noexcept;
    void land(Buffer& bytes) noexcept;
    void deadline_due() noexcept;
    void stalled(std::int64_t now) noexcept;
    [[gnu::noinline]] void take_descriptors(std::span<const int> came) noexcept;
    void check_frame() noexcept;
    bool make_head(std::uint32_t wanted) noexcept;
};

inline ConnectionState& state_of(Connection& connection) noexcept { return static_cast<ConnectionState&>(connection); }
inline const ConnectionState& state_of(const Connection& connection) noexcept { return static_cast<const ConnectionState&>(connection); }

}  // namespace evpl::core
