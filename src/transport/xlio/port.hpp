#pragma once

// The inside: links, listeners and the port of one loop. xlio.hpp is what others see.

#include <cstdint>

#include "memory/heap.hpp"
#include "memory/ring_queue.hpp"
#include "transport/common/receive_block.hpp"
#include "transport/transport.hpp"
#include "transport/xlio/abi.hpp"
#include "transport/xlio/domain.hpp"
#include "transport/xlio/options.hpp"

namespace evpl::transport::xlio {

class XlioPort;

/// Received bytes up to this are copied, and the stack has its buffer back at once.
inline constexpr std::uint32_t copied_bytes_most = 512;
/// A buffer of the stack that a program holds counts as this much at the least, however few bytes are in it.
inline constexpr std::size_t held_bytes_least = 2048;
/// Bytes of one send: the larger ones go in parts, so that a stack that is short of memory can take some, and progress is seen.
inline constexpr std::uint32_t send_bytes_most = 256u << 10;
/// So many bytes may leave inline before a send by reference, whose completion tells that they have arrived.
inline constexpr std::uint32_t inline_run_bytes = 16u << 10;
/// Peers that wait at a paused listener; more are reset. The stack has no backlog of its own.
inline constexpr std::uint32_t backlog_most = 1024;
/// What such a peer may have sent us meanwhile.
inline constexpr std::size_t early_bytes_most = 1u << 20;
/// Who finishes goes on receiving until the peer has ended or was quiet for so long: the stack has no half-close, and what arrives after
/// the close is lost.
inline constexpr std::int64_t quiet_ns = 10'000'000;
/// Idle loops sleep so long between two looks at the stack: from the first, doubled each time, to the second. The stack's own timers tick
/// every 10 to 100 ms.
inline constexpr std::int64_t idle_wait_ns_least = 50'000, idle_wait_ns_most = 1'000'000;

/// What a socket's userdata points to. Stays until the stack has said `terminated`.
struct Owner {
    bool is_listening = false;
};

/// A send by reference that the stack has: its buffers are the next `slices` of XlioLink::with_stack. Its completion says of the bytes that
/// went inline before it, too, that they have arrived.
struct Request {
    std::uint32_t bytes = 0;
    std::uint32_t inline_bytes = 0;
    std::uint32_t slices = 0;
};

class XlioListening;

class XlioLink final : public Link, public Owner {
public:
    enum class State : std::uint8_t { free, connecting, waiting, open, over };

    // -- every message
    State state = State::free;
    bool touched = false;   ///< in the port's list of links that need a look after the poll
    bool blocked = false;   ///< flush said so, writable() is owed
    bool is_short = false;  ///< the stack said ENOMEM: in the port's list for after the next poll
    std::uint32_t inline_bytes = 0;
    std::uint32_t inline_run = 0;  ///< bytes sent inline since the last send by reference
    std::uint32_t window_bytes = 0;
    std::uint64_t in_flight_bytes = 0;
    std::uint64_t next_operation = 1;  ///< of the next send by reference; those of `requests` precede it
    abi::Socket socket = 0;
    memory::RingQueue<Request, 8> requests;
    SliceQueue with_stack;
    XlioLink* next_touched = nullptr;
    XlioLink* next_short = nullptr;
    // -- now and then
    bool established = false;  ///< the stack said so
    bool end_heard = false;    ///< the peer's FIN, maybe before its last bytes
    bool ended = false;
    bool finishing = false;
    bool closed_told = false;
    bool destroyed = false;  ///< asked for; the stack answers with terminated
    bool terminated = false;
    bool hard = false;   ///< ends with a reset
    bool known = false;  ///< core has it
    bool heard = false;  ///< received something since it began to finish, or since the last look
    int failure = 0;     ///< what the stack's error event said
    std::int64_t quiet_since_ns = 0;
    XlioListening* listening = nullptr;
    XlioLink* next_free = nullptr;
    SliceQueue early;  ///< came before core knew that the link is open
    Error error;
    Caps own_caps;
    Address local, remote;
};

class XlioListening final : public Listening, public Owner {
public:
    std::string_view url() const noexcept override { return url_text; }
    std::uint16_t port_number() const noexcept override { return bound_port; }
    void pause() noexcept override { paused = true; }
    void resume() noexcept override;
    void close() noexcept override;

    XlioPort* owner = nullptr;
    abi::Socket socket = 0;
    bool paused = false;
    bool over = false;
    std::uint16_t bound_port = 0;
    Options options;
    memory::RingQueue<XlioLink*, 4> backlog;
    XlioListening* next = nullptr;
    char url_text[96] = {};
};

/// Where buffers go back to. Outlives its port while programs still hold some.
struct ReturnDesk {
    const abi::Calls* calls = nullptr;
    abi::Group group = 0;
    std::size_t held_bytes = 0;
    std::uint64_t held_buffers = 0;
    bool orphaned = false;  ///< the port is gone: the group goes with the last buffer
};

class XlioPort final : public Port {
public:
    static Result<Port*> open(Host& host, const abi::Calls& calls) noexcept;
    ~XlioPort() override;

    // -- setup.cpp
    Result<Listening*> listen(const Endpoint& at, bool shared, Acceptor& acceptor, Diagnostic& why) override;
    Result<Link*> connect(const Endpoint& to, const Address& address, Sink& sink, SendQueue& outbox, Diagnostic& why) override;
    void close(Link& link, How how) override;
    void alarm() override;
    Address remote_address(const Link& link) const override { return static_cast<const XlioLink&>(link).remote; }
    Address local_address(const Link& link) const override { return static_cast<const XlioLink&>(link).local; }
    std::size_t remote_name(const Link& link, std::span<char> room) const override;

    // -- datapath.cpp
    unsigned poll(unsigned budget) override;
    PollPrice poll_price() const noexcept override { return PollPrice::memory; }
    Flushed flush(Link& link) override;
    Armed arm() override;
    void hand_over() override { poll(0); }  // a closed socket is destroyed there

    // -- for listeners
    void drop_listening(XlioListening& listening) noexcept;
    void serve_later() noexcept;

private:
    /// While one lives, the stack may call back. Callbacks at any other time are of a port that is gone.
    class InStack {
    public:
        explicit InStack(XlioPort& port) noexcept : before_(polling_) { polling_ = &port; }
        ~InStack() { polling_ = before_; }
        InStack(const InStack&) = delete;
        InStack& operator=(const InStack&) = delete;

    private:
        XlioPort* const before_;
    };

    XlioPort(Host& host, const abi::Calls& calls, ReturnDesk& desk) noexcept;

    // setup.cpp
    XlioLink* take_link() noexcept;
    void release(XlioLink& link);
    Result<abi::Socket> make_socket(int domain, Owner& owner) noexcept;
    void set_options(abi::Socket socket, const Options& options) noexcept;
    void serve_backlogs();
    void open_link(XlioLink& link);
    void end_link(XlioLink& link, Error error, bool hard) noexcept;
    bool is_quiet(XlioLink& link) noexcept;
    void look_by(std::int64_t at_ns) noexcept;
    void finish_link(XlioLink& link);
    void destroy(XlioLink& link) noexcept;
    void reset_on_close(abi::Socket socket) noexcept;
    Address name_of(abi::Socket socket, int (*ask)(abi::Socket, sockaddr*, socklen_t*)) noexcept;
    void drop_over_listeners() noexcept;
    void empty_group() noexcept;

    // datapath.cpp: from inside the stack
    static void on_event(abi::Socket, std::uintptr_t userdata, int event, int value);
    static void on_completion(abi::Socket, std::uintptr_t userdata, std::uintptr_t operation);
    static void on_received(abi::Socket, std::uintptr_t userdata, void* data, std::size_t bytes, abi::Buf*);
    static void on_accepted(abi::Socket made, abi::Socket parent, std::uintptr_t parent_userdata);
    void accepted(abi::Socket socket, XlioListening& listening) noexcept;
    void note_early(abi::Socket socket, int event, int value) noexcept;
    Buffer take_bytes(std::byte* data, std::uint32_t bytes, abi::Buf* buf) noexcept;
    void deliver(XlioLink& link, Buffer&& bytes);
    static void give_back(void* buf) noexcept;
    void completed(XlioLink& link, std::uintptr_t operation);

    // datapath.cpp: outside of it
    void turn_stack();
    void settle(XlioLink& link);
    void settle();
    void touch(XlioLink& link) noexcept;
    void touch_short() noexcept;
    bool push_outbox(XlioLink& link);
    static unsigned flush_flag(const XlioLink& link, std::uint64_t bytes) noexcept;
    bool send_inline(XlioLink& link);
    bool send_by_reference(XlioLink& link);
    bool refused(XlioLink& link, int error) noexcept;
    bool has_room(const XlioLink& link) const noexcept { return link.in_flight_bytes < link.window_bytes; }

    static thread_local XlioPort* polling_;  ///< whose stack is running: its callbacks may come

    Host& host_;
    const abi::Calls& calls_;
    ReturnDesk& desk_;
    ReceiveBlock block_;
    unsigned events_ = 0;  ///< callbacks of this poll
    unsigned sockets_ = 0;
    std::int64_t idle_wait_ns_ = idle_wait_ns_least;
    bool backlogs_ = false;
    bool destroyed_ = false;  ///< sockets, since the last poll: it takes one more
    std::int64_t look_again_ns_ = INT64_MAX;
    XlioLink* touched_first_ = nullptr;
    XlioLink* touched_last_ = nullptr;
    XlioLink* short_ = nullptr;
    std::size_t held_bytes_most_ = 0;
    XlioLink* sending_ = nullptr;             ///< is being sent on right now
    std::uintptr_t completed_meanwhile_ = 0;  ///< the last of its operations that completed inside of that
    abi::Socket early_failure_ = 0;           ///< failed with early_errno_ before it was accepted
    int early_errno_ = 0;
    memory::RingQueue<abi::Socket, 4> doomed_;  ///< accepted, and nobody's: destroyed after the poll
    XlioListening* listenings_ = nullptr;

    static constexpr unsigned links_per_chunk = 16;
    struct Chunk {
        Chunk* next = nullptr;
        XlioLink links[links_per_chunk];
    };
    Chunk* chunks_ = nullptr;
    XlioLink* free_links_ = nullptr;
};

}  // namespace evpl::transport::xlio
