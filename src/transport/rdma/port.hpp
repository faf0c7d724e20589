#pragma once

// The inside: links, listeners and the port of one loop. rdma.hpp is what others see.

#include <cstdint>

#include "memory/heap.hpp"
#include "memory/ring_queue.hpp"
#include "transport/common/receive_block.hpp"
#include "transport/rdma/control.hpp"
#include "transport/transport.hpp"

namespace evpl::transport::rdma {

class RdmaPort;

/// SENDs that an idle peer may have under way to us: what is kept for returning credits, and as many for payload.
inline constexpr std::uint32_t credits_least = 4;
/// The last credits only return credits, so that two full senders cannot wait for each other. Two of them, because they are given back in
/// pairs: were there one, giving it back would itself use up one that has to be given back, without end.
inline constexpr std::uint32_t credits_kept = 2;
/// A peer that is down to these has used half of what it had, so that it is given more (settle()).
static_assert(credits_least >= 2 * credits_kept);
/// Work requests that payload leaves to credits, ends and probes.
inline constexpr std::uint32_t requests_kept = 4;
/// A payload up to this is copied out of its block, which is posted again at once.
inline constexpr std::uint32_t copied_bytes_most = 512;
/// Slices of one SEND.
inline constexpr unsigned gather_most = 8;
/// In the id of a work request: a receive, by its slot; a receive of a raw link's own queue.
inline constexpr std::uint64_t receive_bit = std::uint64_t(1) << 63;
inline constexpr std::uint64_t own_receive = receive_bit | std::uint64_t(1) << 62;
/// Peers that wait at a paused listener; more are rejected.
inline constexpr std::uint32_t backlog_most = 1024;

enum class Sent : std::uint8_t { payload, note, end, probe, operation, window };

/// A work request that the device has. Its buffers are the next `slices` of RdmaLink::with_device.
struct Request {
    std::uint32_t bytes = 0;
    std::uint16_t slices = 0;
    Sent what = Sent::payload;
    std::uint8_t count = 1;  ///< a run of small messages is noted as one
};

/// A remote operation, waiting or with the device.
struct Operation {
    enum class Does : std::uint8_t { read, write, write_telling, atomic };
    OperationId id;
    RemoteRegion region;
    std::uint64_t offset = 0;
    Buffer buffer;
    Does does = Does::read;
    std::uint32_t word = 0;  ///< write_telling
    Atomic what = {};        ///< atomic
    Buffer registered = {};  ///< stands in for a buffer that the device does not know
    bool told = false;       ///< its link is over; the device may still be at it
    /// The peer's device answers with bytes, which it does for so many at a time.
    bool reads() const noexcept { return does == Does::read || does == Does::atomic; }
};

/// A range that the peer may use: by the registration's own key, or by a window into it, which the peer's SEND can take back.
struct Exposure {
    ibv_mr* region = nullptr;
    ibv_mw* window = nullptr;
    std::uint32_t key = 0;
    bool bound = true;     ///< false: the device has yet to bind the window
    bool revoked = false;  ///< before that
    Buffer range;
};

/// Work requests that leave with one doorbell. What is the same in all of them is written once.
struct SendBatch {
    static constexpr unsigned most = 16;
    SendBatch() noexcept;

    ibv_send_wr requests[most] = {};
    ibv_sge slices[most * gather_most];
    detail::Block* copied[most];  ///< references of messages that the device copies while they are posted
    unsigned count = 0;
    unsigned slice_count = 0;
    unsigned copied_count = 0;
};

Error failure_of(const ibv_wc& done, Step step, bool raw) noexcept;

struct Rail;

class alignas(64) RdmaLink final : public Link {
public:
    enum class State : std::uint8_t { free, connecting, answering, open, over };
    struct Received {
        Buffer bytes;
        bool end_of_message = false;
        std::uint32_t invalidated_key = 0;
        std::uint32_t word = 0;  ///< without bytes: of a write of the peer's
        bool is_word = false;
    };

    // -- every message
    State state = State::free;
    bool is_message = false;
    bool is_raw = false;            ///< no credits, no notes, receives of its own
    bool blocked = false;           ///< flush said so, writable() is owed
    bool touched = false;           ///< in the port's list of links that a batch has met
    bool starving = false;          ///< waits for receive memory to grant
    bool fence = false;             ///< a remote read is under way: the next SEND waits for it
    std::uint16_t next_number = 0;  ///< of the next work request
    std::uint32_t requests_out = 0;
    std::uint32_t depth = 0;
    std::uint32_t credits = 0;    ///< SENDs that the peer can take
    std::uint32_t granted = 0;    ///< SENDs that the peer may send and has not
    std::uint32_t owed = 0;       ///< of these, the peer does not know of so many
    std::uint32_t notes = 0;      ///< SENDs without payload whose receives were not granted again
    std::uint32_t set_aside = 0;  ///< of the rail's receives: what is granted, and at least credits_least from the first grant on
    std::uint32_t target = credits_least;
    std::uint32_t window = 32;
    std::uint32_t peer_block = 0;  ///< most bytes of one SEND
    std::uint32_t inline_bytes = 0;
    std::uint32_t message_bytes = 0;  ///< received of the message under way
    ibv_qp* qp = nullptr;
    Rail* rail = nullptr;
    SliceQueue with_device;
    memory::RingQueue<Request, 4> requests;
    memory::RingQueue<Buffer, 1> own_receives;  ///< raw: blocks that the device has, in order
    // -- now and then
    bool accepted = false;          ///< raw: the user has
    bool has_heard = false;         ///< raw: the session's `heard` is what the peer said
    std::uint32_t receives = 0;     ///< raw: so many are wanted
    std::uint32_t block_bytes = 0;  ///< raw: of each
    bool draining = false;
    bool finishing = false;  ///< does not wait for the peer's end
    bool end_said = false;
    bool end_acked = false;  ///< the peer's device has our end
    bool end_heard = false;
    bool ended = false;  ///< and was told
    bool closed_told = false;
    bool active = false;     ///< we connected
    bool greeted = false;    ///< connect or accept was asked for
    bool note_due = false;   ///< in the port's list of links that may have to return credits
    bool lingering = false;  ///< over in order; waits for the peer to disconnect first
    bool finish_asked = false;
    std::int64_t heard_ns = 0;  ///< a sign of life, as of the last look
    bool traffic = false;       ///< a sign of life since then
    std::uint32_t qp_number = 0;
    RdmaLink* next_due = nullptr;
    RdmaLink* next_free = nullptr;
    RdmaLink* next_touched = nullptr;
    memory::RingQueue<Received, 1> held;  ///< came while receiving was paused
    memory::RingQueue<Operation, 1> waiting;
    memory::RingQueue<Operation, 1> operations;  ///< with the device, in order
    memory::RingQueue<Exposure, 1> exposures;
    Session* session = nullptr;
    std::int64_t linger_until_ns = 0;
    std::int64_t silent_after_ns = 0;
    Error error;
    Caps own_caps;
    Address local, remote;

    /// What is next uses up a receive of the peer's, and the peer has granted none; its next credits bring the link here again.
    bool awaits_credit() noexcept { return !waiting.empty() && waiting.front().does == Operation::Does::write_telling && credits <= credits_kept; }
};

/// Links by their queue pair's number (24 bits).
class QueuePairTable {
public:
    ~QueuePairTable();
    RdmaLink* find(std::uint32_t number) const noexcept {
        const Page* page = pages_[number >> 12 & 0xfff];
        return page != nullptr ? page->links[number & 0xfff] : nullptr;
    }
    /// False: out of memory.
    bool insert(std::uint32_t number, RdmaLink& link) noexcept;
    void remove(std::uint32_t number) noexcept;

private:
    struct Page {
        RdmaLink* links[4096] = {};
        unsigned used = 0;
    };
    Page* pages_[4096] = {};
};

/// The loop's side of a device's queues.
struct Rail final : Watcher {
    std::uint32_t ready(std::uint32_t events) override;
    ~Rail() {
        delete[] slots;
        delete[] free_slots;
    }

    struct Slot {
        ibv_recv_wr request{};
        ibv_sge place{};  ///< the block, with its key; of no length until the device knows it
        Buffer block;
    };

    RdmaPort* port = nullptr;
    Queues* queues = nullptr;
    Rail* next = nullptr;
    bool armed = false;         ///< the next completion makes the channel readable
    bool dead = false;          ///< the device or the queue is gone: neither posted to nor polled
    Session* notice = nullptr;  ///< by which its queues are given up, once no link is on them
    bool given_up = false;
    unsigned link_count = 0;
    bool refused = false;         ///< the device takes no more memory
    bool crowded = false;         ///< somebody was refused because the completion queue is spoken for
    unsigned requests_out = 0;    ///< work requests of all links
    unsigned receives_out = 0;    ///< posted and not consumed
    unsigned own_receives = 0;    ///< what raw links have posted, or will
    unsigned promised = 0;        ///< of these, granted to peers
    unsigned set_aside = 0;       ///< by all links
    unsigned unacknowledged = 0;  ///< events of the channel
    unsigned early_count = 0;     ///< completions that arming found
    ibv_wc early[16];
    Slot* slots = nullptr;
    std::uint32_t* free_slots = nullptr;  ///< a stack; those with a block are at its top
    std::uint32_t free_count = 0;
    QueuePairTable links;
};

class RdmaListening final : public Listening {
public:
    std::string_view url() const noexcept override { return url_text; }
    std::uint16_t port_number() const noexcept override { return bound_port; }
    void pause() noexcept override { paused = true; }
    void resume() noexcept override;
    void close() noexcept override;

    RdmaPort* owner = nullptr;
    std::uint64_t number = 0;
    bool paused = false;
    std::uint16_t bound_port = 0;
    RdmaListening* next = nullptr;
    memory::RingQueue<Session*, 2> backlog;
    char url_text[Endpoint::text_bytes_max + 1] = {};
};

class RdmaPort final : public Port {
public:
    RdmaPort(Host& host, Sleeper& sleeper, Control& control) noexcept;
    ~RdmaPort() override;

    // -- setup.cpp
    Result<Listening*> listen(const Endpoint& at, bool shared, Acceptor& acceptor, Diagnostic& why) override;
    Result<Link*> connect(const Endpoint& to, const Address& address, Sink& sink, SendQueue& outbox, Diagnostic& why) override;
    void close(Link& link, How how) override;
    void alarm() override;
    void admit(Link& link) override;
    void set_private_data(Link& link, std::span<const std::byte> data) override;
    std::span<const std::byte> private_data(const Link& link) const override;
    Address remote_address(const Link& link) const override { return static_cast<const RdmaLink&>(link).remote; }
    Address local_address(const Link& link) const override { return static_cast<const RdmaLink&>(link).local; }
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

    // -- for listeners
    void drop_listening(RdmaListening& listening) noexcept;
    void look_at_backlogs() noexcept;

    Host& host;

private:
    friend struct Rail;

    // setup.cpp
    RdmaLink* take_link() noexcept;
    void release(RdmaLink& link);
    unsigned hear();
    void hear(Session& session, std::uint32_t tells);
    void prepared(RdmaLink& link);
    void requested(Session& session);
    void deaf(Session& notice);
    void answer(RdmaListening& listening, Session& session);
    void reject(Session& session, Refusal why) noexcept;
    void established(RdmaLink& link);
    void disconnected(RdmaLink& link);
    void destroyed(Session& session);
    void leave_backlogs(Session& session) noexcept;
    void greet(RdmaLink& link) noexcept;
    bool meet(RdmaLink& link, const Session& session) noexcept;
    void ask_finish(RdmaLink& link) noexcept;
    bool attach(RdmaLink& link, Session& session) noexcept;
    Result<Rail*> rail_of(Queues& queues) noexcept;
    void lose_rail(Rail& rail, Error why) noexcept;
    void queues_lost(Session& notice);
    void give_up_if_unused(Rail& rail) noexcept;
    void given_up(Session& notice) noexcept;
    void unwatch(Rail& rail) noexcept;
    void serve_backlogs();
    void open_link(RdmaLink& link);
    void end_link(RdmaLink& link, Error error) noexcept;
    void end_if_done(RdmaLink& link);
    void tell_end(RdmaLink& link);
    void tick_by(std::int64_t at_ns) noexcept;
    RdmaListening* find_listening(std::uint64_t number) noexcept;
    template <class Visit>
    void visit_links(Visit visit);

    // datapath.cpp
    unsigned poll_rail(Rail& rail, unsigned budget);
    void drain_rail(Rail& rail);
    void relieve(Rail& rail);
    void complete(Rail& rail, const ibv_wc& done);
    void received(Rail& rail, const ibv_wc& done);
    void take_payload(RdmaLink& link, Rail& rail, std::uint32_t slot, std::uint32_t bytes, bool end_of_message);
    void deliver(RdmaLink& link, Buffer&& bytes, bool end_of_message, std::uint32_t invalidated_key = 0);
    void deliver_held(RdmaLink& link);
    void take_word(RdmaLink& link, std::uint32_t word);
    void take_note(RdmaLink& link, std::uint32_t note);
    void sent(Rail& rail, const ibv_wc& done);
    void pass_requests(RdmaLink& link, unsigned count, std::size_t& bytes, Error error);
    void send_failed(RdmaLink& link, const ibv_wc& done);
    void touch(RdmaLink& link) noexcept;
    void untouch(RdmaLink& link) noexcept;
    void return_credits();
    void settle();
    void settle(RdmaLink& link);
    void set_aside(RdmaLink& link, std::uint32_t receives) noexcept;
    std::uint32_t grant(RdmaLink& link, std::uint32_t wanted) noexcept;
    void grant_for_payload(RdmaLink& link);
    void grant_for_notes(RdmaLink& link) noexcept;
    unsigned post_receives(Rail& rail, unsigned count) noexcept;
    bool make_ready(Rail& rail, Rail::Slot& slot) noexcept;
    bool fill(Rail& rail, Buffer& block, std::uint32_t block_bytes, std::uint32_t& lkey) noexcept;
    bool may_post(const RdmaLink& link, std::uint32_t kept) const noexcept;
    unsigned send_room(const RdmaLink& link) const noexcept;
    bool is_prompt(const RdmaLink& link) const noexcept;
    Buffer& next_fresh(RdmaLink& link);
    void deliver_fresh();
    bool push_outbox(RdmaLink& link);
    void gather_small(RdmaLink& link, SendBatch& batch, unsigned room) noexcept;
    bool gather(RdmaLink& link, SendBatch& batch);
    void say_note(RdmaLink& link, std::uint32_t flags, Sent what);
    void say_end(RdmaLink& link);
    void probe(RdmaLink& link);
    void posted(RdmaLink& link, Request request) noexcept;
    bool post(RdmaLink& link, ibv_send_wr& first) noexcept;

    // raw.cpp
    void received_raw(Rail& rail, const ibv_wc& done);
    void settle_raw(RdmaLink& link);
    bool post_own_receives(RdmaLink& link) noexcept;
    bool gather_into_one(RdmaLink& link) noexcept;

    // remote.cpp
    Result<RemoteRegion> bind_window(RdmaLink& link, ibv_mr* region, Buffer&& range, int rights);
    void window_bound(RdmaLink& link) noexcept;
    bool take_back(RdmaLink& link, std::uint32_t key) noexcept;
    Result<void> start(Link& link, Operation&& operation);
    bool post_waiting(RdmaLink& link);
    bool make_known(RdmaLink& link, Operation& operation, std::uint32_t& lkey, Error& error);
    void operation_done(RdmaLink& link, Error error);
    void drop_operations(RdmaLink& link);
    void drop_exposures(RdmaLink& link) noexcept;

    Control& control_;
    Sleeper& sleeper_;
    Mailbox mailbox_;
    ReceiveBlock block_;
    SendBatch batch_;
    /// Small messages of one link that its sink is about to be told of; none between polls.
    struct Fresh {
        RdmaLink* link = nullptr;
        unsigned count = 0;
        Buffer messages[completions_per_poll];
    };
    Fresh fresh_;
    Rail* rails_ = nullptr;
    RdmaLink* touched_first_ = nullptr;
    RdmaLink* touched_last_ = nullptr;
    RdmaLink* due_ = nullptr;
    bool backlogs_ = false;
    std::int64_t tick_ns_ = INT64_MAX;

    static constexpr unsigned links_per_chunk = 16;
    struct Chunk {
        Chunk* next = nullptr;
        RdmaLink links[links_per_chunk];
    };
    Chunk* chunks_ = nullptr;
    RdmaLink* free_links_ = nullptr;
    RdmaListening* listenings_ = nullptr;
};

template <class Visit>
void RdmaPort::visit_links(Visit visit) {
    for (Chunk* chunk = chunks_; chunk != nullptr; chunk = chunk->next) {
        for (RdmaLink& link : chunk->links) {
            if (link.state != RdmaLink::State::free) visit(link);
        }
    }
}

}  // namespace evpl::transport::rdma
