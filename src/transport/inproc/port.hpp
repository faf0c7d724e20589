#pragma once

// The inside: links, listeners and the port. inproc.hpp is what others see.

#include <atomic>
#include <cstdint>

#include "memory/heap.hpp"
#include "memory/ring_queue.hpp"
#include "transport/common/receive_block.hpp"
#include "transport/inproc/channel.hpp"
#include "transport/transport.hpp"

namespace evpl::transport::inproc {

/// What one side of a link may have sent and the other not yet taken: bytes, and entry_charge for each piece, so that the memory that
/// a paused reader costs is bounded also when the pieces are empty.
inline constexpr std::uint64_t window_charge = 1u << 20;
inline constexpr std::uint32_t entry_charge = 64;
/// A longer slice travels in parts, so that one delivery is no larger than a batch (LoopOptions::batch_bytes).
inline constexpr std::uint32_t block_bytes_most = 256u << 10;
/// When less than this is left of the window, a larger slice waits instead of being cut into crumbs.
inline constexpr std::uint32_t block_bytes_least = 16u << 10;
/// Largest message; a longer one ends its link with too_large.
inline constexpr std::uint32_t message_bytes_most = 16u << 20;
/// A mark of ours on a held slice: it stands for a word.
inline constexpr std::uint32_t is_word = 1u << 31;
/// Callers that wait at a paused listener; more are refused.
inline constexpr std::uint32_t backlog_most = 1024;

struct Exposure;

/// A remote operation that waits until the peer can take it.
struct WaitingOperation {
    OperationId id;
    RemoteRegion region;
    std::uint64_t offset;
    Buffer buffer;
    Does does;
    std::uint32_t word = 0;
    std::uint64_t operand = 0, desired = 0;
};

class InprocLink final : public Link {
public:
    enum class State : std::uint8_t { free, connecting, open, over };
    /// What the link has yet to tell its peer, said in this order.
    enum Says : std::uint8_t { say_connect = 1, say_accept = 2, say_refuse = 4, say_credit = 8, say_end = 16, say_finish = 32, say_reset = 64 };

    // -- every message
    InprocLink* peer = nullptr;
    End* end = nullptr;                     ///< null: the peer's port is gone
    std::uint64_t limit = window_charge;    ///< how far the peer lets us go
    std::uint64_t charged = 0;              ///< how far we have gone
    std::uint64_t taken = 0;                ///< how far the sink has taken what the peer sent
    std::uint64_t granted = window_charge;  ///< how far we let the peer go
    std::uint32_t peer_generation = 0;
    std::uint32_t message_bytes = 0;  ///< of the message under way
    State state = State::free;
    std::uint8_t says = 0;
    bool hindered = false;  ///< flush must look closer: connecting, over, finished by the peer, or operations wait
    bool blocked = false;   ///< flush said so, writable() is owed
    bool is_message = false;
    // -- now and then
    bool draining = false;
    bool finishing = false;
    bool end_said = false;       ///< our direction is over
    bool end_heard = false;      ///< the peer's is; ended() follows once `held` is empty
    bool ended = false;          ///< and was told
    bool peer_finished = false;  ///< the peer takes no more
    bool peer_lets_go = false;   ///< the peer is not going to touch our memory again
    bool awaits_answer = false;  ///< over, but the connect was said: an accept must be answered by a reset
    bool closed_told = false;
    bool stuck = false;
    bool owed = false;
    InprocLink* next_stuck = nullptr;
    InprocLink* next_owed = nullptr;
    InprocLink* next_free = nullptr;
    SliceQueue held;                                 ///< came while receiving was paused
    memory::RingQueue<std::uint32_t, 1> held_words;  ///< one per slice with is_word
    memory::RingQueue<WaitingOperation, 1> waiting;
    std::uint32_t operations_out = 0;  ///< in the peer's hand
    Exposure* exposures = nullptr;
    std::uint64_t listening = 0;  ///< who is to be connected to
    std::uint32_t serial = 0;
    Error error;         ///< what closed() will say
    char name[64] = {};  ///< the peer's
};

/// Memory that a link's peer may use.
struct Exposure {
    Buffer range;
    std::uint64_t key = 0;
    InprocLink* link = nullptr;
    Access access = Access::read;
    std::uint32_t index = 0;
    Exposure* next = nullptr;  ///< of the link, or of the free ones
    Exposure* previous = nullptr;
};

class InprocListening final : public Listening {
public:
    struct Caller {
        End* end;
        InprocLink* from;
        std::uint32_t generation;
        std::uint32_t serial;
    };

    std::string_view url() const noexcept override { return url_text; }
    void pause() noexcept override { paused = true; }
    void resume() noexcept override;
    void close() noexcept override;

    /// Callers from that end are gone.
    void forget(const End& end) noexcept;

    InprocPort* owner = nullptr;
    std::uint64_t id = 0;
    Kind kind = Kind::stream;
    bool shared = false;
    bool paused = false;
    InprocListening* next = nullptr;        ///< of the port
    InprocListening* next_known = nullptr;  ///< of the process
    memory::RingQueue<Caller, 4> backlog;
    char name[Endpoint::text_bytes_max + 1] = {};
    char url_text[Endpoint::text_bytes_max + 1] = {};
};

/// The names of the process. Under one mutex: listening, connecting, and ports that come and go.
class Registry {
public:
    static Registry& instance() noexcept;

    std::uint64_t new_port_number() noexcept;
    /// False: somebody listens there, and not both of them share.
    bool add(InprocListening& listening) noexcept;
    void remove(InprocListening& listening) noexcept;
    /// The end of a pipe from `from` to whoever listens there; shared listeners take turns. Errors: refused, out_of_memory.
    Result<End*> reach(InprocPort& from, std::string_view name, Kind kind, std::uint64_t& listening) noexcept;
    /// The end's port does not use it any more.
    void detach(End& end) noexcept;

private:
    struct State;
    Registry() noexcept;
    State* state_;
};

class InprocPort final : public Port {
public:
    explicit InprocPort(Host& host) noexcept;
    ~InprocPort() override;

    // -- setup.cpp
    Result<Listening*> listen(const Endpoint& at, bool shared, Acceptor& acceptor, Diagnostic& why) override;
    Result<Link*> connect(const Endpoint& to, const Address& address, Sink& sink, SendQueue& outbox, Diagnostic& why) override;
    void close(Link& link, How how) override;
    std::size_t remote_name(const Link& link, std::span<char> room) const override;

    // -- datapath.cpp
    unsigned poll(unsigned budget) override;
    PollPrice poll_price() const noexcept override { return PollPrice::memory; }
    Flushed flush(Link& link) override;
    void pause(Link& link) override { link.receive_paused = true; }
    void resume(Link& link) override;
    Armed arm() override;

    // -- remote.cpp
    Result<RemoteRegion> expose(Link& link, Buffer range, Access access) override;
    Result<void> revoke(Link& link, const RemoteRegion& region) override;
    Result<void> read(Link& link, OperationId operation, const RemoteRegion& region, std::uint64_t offset, Buffer into) override;
    Result<void> write(Link& link, OperationId operation, const RemoteRegion& region, std::uint64_t offset, Buffer from) override;
    Result<void> atomic(Link& link, OperationId operation, const RemoteRegion& region, std::uint64_t offset, const Atomic& what, Buffer before) override;
    Result<void> write_telling(Link& link, OperationId operation, const RemoteRegion& region, std::uint64_t offset, Buffer from, std::uint32_t word) override;

    // -- for the registry, under its mutex
    void add_end(End& end) noexcept;
    void take_new_ends() noexcept;
    End* find_end(std::uint64_t peer_port) noexcept;
    void announce(End& end) noexcept;

    // -- for listeners
    void drop_listening(InprocListening& listening) noexcept;
    void look_at_backlogs() noexcept;

    Host& host;
    const std::uint64_t number;

private:
    enum class Pushed : std::uint8_t { yes, window_is_full, ring_is_full };

    // datapath.cpp
    unsigned receive(End& end, unsigned budget);
    void receive_one(End& end, Mark mark);
    void receive_bytes(Ring& in, Mark mark, bool last);
    void receive_block(End& end, Mark mark, bool last);
    void deliver(InprocLink& link, Buffer&& bytes, bool last);
    void deliver_held(InprocLink& link);
    void hold(InprocLink& link, Buffer&& bytes, bool last);
    void deliver_word(InprocLink& link, std::uint32_t word);
    void count_taken(InprocLink& link, std::uint32_t size);
    Flushed push_outbox(InprocLink& link, std::size_t& sent);
    Flushed look_closer(InprocLink& link, std::size_t& sent);
    Flushed push_all(InprocLink& link, std::size_t& sent);
    Pushed push_copy(InprocLink& link, std::size_t& sent);
    Pushed push_reference(InprocLink& link, std::size_t& sent);
    detail::Block* carrier_of(const Buffer& slice, bool same_loop) noexcept;
    bool fits_message(InprocLink& link, std::uint32_t size, bool last);

    // what is owed to peers and sinks (link.cpp)
    template <class Body>
    bool say(End& end, What what, InprocLink* to, std::uint32_t generation, const Body& body) noexcept;
    bool say_one(InprocLink& link, std::uint8_t what) noexcept;
    bool speak(InprocLink& link) noexcept;
    void touch(End& end) noexcept;
    void ring_bells() noexcept;
    void wait_for_room(InprocLink& link, bool ring_is_full) noexcept;
    void unstick(End& end);
    void owe(InprocLink& link) noexcept;
    void settle_owed();
    void settle(InprocLink& link);
    void hear(End& end, Mark mark);
    void hear_end(InprocLink& link, bool finished);
    void tell_ended(InprocLink& link);
    void end_if_done(InprocLink& link);
    void end_link(InprocLink& link, Error error, bool tell_peer) noexcept;
    void lost(End& end);
    void forget_lost_ends();
    void lose_peer(InprocLink& link);
    template <class Visit>
    void visit_links(Visit visit);

    // setup.cpp
    InprocLink* take_link(Kind kind) noexcept;
    void release(InprocLink& link) noexcept;
    void called(End& end, const ConnectBody& body);
    void accept(InprocListening& listening, const InprocListening::Caller& caller);
    void refuse(const InprocListening::Caller& caller) noexcept;
    void accepted(InprocLink* link, std::uint32_t generation, const AcceptBody& body);
    void serve_backlogs();

    // remote.cpp
    Result<void> start(Link& link, WaitingOperation&& operation);
    bool post_operations(InprocLink& link) noexcept;
    void serve(End& end, InprocLink* link, Mark mark, const RequestBody& request);
    void reply(End& end, const ReplyBody& body) noexcept;
    bool say_replies(End& end) noexcept;
    void replied(End& end, const ReplyBody& body);
    void complete_all(InprocLink& link);
    void park_operations(End& end) noexcept;
    Exposure* find_exposure(std::uint64_t key) noexcept;
    void drop_exposure(Exposure& exposure) noexcept;
    void drop_exposure_chunks() noexcept;
    std::uint64_t random() noexcept;

    std::uint32_t bytes_left_ = 0;  // of this poll's batch
    const std::uint32_t batch_bytes_;
    bool in_poll_ = false;
    bool some_gone_ = false;
    bool backlogs_ = false;  // a listener was resumed
    unsigned end_count_ = 0;
    End* last_polled_ = nullptr;  // the circle of ends
    End* touched_ = nullptr;
    InprocLink* owed_first_ = nullptr;
    InprocLink* owed_last_ = nullptr;
    ReceiveBlock block_;
    std::atomic<End*> new_ends_{nullptr};

    static constexpr unsigned links_per_chunk = 32;
    struct LinkChunk {
        LinkChunk* next = nullptr;
        InprocLink links[links_per_chunk];
    };
    struct ExposureChunk;
    LinkChunk* link_chunks_ = nullptr;
    InprocLink* free_links_ = nullptr;
    InprocListening* listenings_ = nullptr;
    memory::RingQueue<ExposureChunk*, 2> exposure_chunks_;
    Exposure* free_exposures_ = nullptr;
    std::uint64_t random_state_ = 0;
    std::uint32_t last_serial_ = 0;
};

template <class Visit>
void InprocPort::visit_links(Visit visit) {
    for (LinkChunk* chunk = link_chunks_; chunk != nullptr; chunk = chunk->next) {
        for (InprocLink& link : chunk->links) visit(link);
    }
}

const Caps& caps_of(Kind kind) noexcept;
/// Errors: unknown_option, bad_option.
Result<Kind> kind_of(const Endpoint& endpoint, Diagnostic& why) noexcept;

}  // namespace evpl::transport::inproc
