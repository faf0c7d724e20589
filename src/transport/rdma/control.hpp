#pragma once

// The process's thread for everything that may block: the connection manager's events, queue pairs, completion queues. It and the loops
// talk in flags: a loop asks, the thread tells. Both directions are lists under one mutex, and each session is in either list at most
// once, so that nothing is allocated to say something. Set-up only: no byte of payload passes here.

#include <atomic>
#include <cstdint>

#include "evpl/address.hpp"
#include "evpl/error.hpp"
#include "memory/ring_queue.hpp"
#include "transport/bell.hpp"
#include "transport/common/sockets/address_bytes.hpp"
#include "transport/rdma/device.hpp"
#include "transport/rdma/options.hpp"
#include "transport/rdma/wire.hpp"

namespace evpl::transport::rdma {

class RdmaLink;
class UdLink;
class Mailbox;
struct Session;

/// How long the manager may look for an address and a route.
inline constexpr int resolve_ms = 2000;
/// What has no memory or no key yet is tried again after this long.
inline constexpr std::int64_t retry_ns = 1'000'000;
/// Completions that are taken at a time.
inline constexpr unsigned completions_per_poll = 32;

/// One device's queues of one port: completions of all its queue pairs, and the receives that they share. Made and destroyed by the
/// control thread; in between the loop's alone.
struct Queues {
    Device* device = nullptr;
    ibv_comp_channel* channel = nullptr;
    ibv_cq* cq = nullptr;
    ibv_srq* srq = nullptr;
    unsigned completions_most = 0;  ///< work requests that may be posted, receives included
    unsigned receives_most = 0;
    unsigned gather_most = 1;       ///< slices of one SEND
    std::uint32_t block_bytes = 0;  ///< of a receive
    Queues* next = nullptr;         ///< of the mailbox
    void* rail = nullptr;           ///< the loop's side of it
    bool lost = false;              ///< the device, or the completion queue: nobody else comes on them. The control thread's own
    unsigned pairs = 0;             ///< queue pairs on them. The control thread's own
    Session* given_up = nullptr;    ///< asked to destroy them when there are none left. The control thread's own
};

/// What a datagram socket has with a device.
struct UdQueues {
    Device* device = nullptr;
    ibv_comp_channel* channel = nullptr;
    ibv_cq* sends = nullptr;
    ibv_cq* receives = nullptr;
    ibv_qp* qp = nullptr;
    std::uint32_t payload_bytes = 0;  ///< of one datagram: the port's MTU
};

/// Where a datagram goes.
struct UdTarget {
    ibv_ah* handle = nullptr;
    std::uint32_t qp_number = 0;
    std::uint32_t qkey = 0;
};

/// A connection, a datagram socket or one of its peers under the connection manager's eyes.
struct Session {
    enum class Role : std::uint8_t { connection, datagrams, peer, group };
    enum Ask : std::uint32_t {
        ask_resolve = 1,    ///< the address and the route, then a queue pair
        ask_connect = 2,    ///< with `ours`
        ask_accept = 4,     ///< with `ours`
        ask_reject = 8,     ///< for `refusal`
        ask_open = 32,      ///< datagrams: a queue pair
        ask_answer = 128,   ///< datagrams: who asks for it may be told
        ask_peer = 64,      ///< peer: a target for `target`, or for who sent `arrival`; group: join it
        ask_give_up = 256,  ///< `queues` that are lost: the loop looks at them no more
        ask_finish = 16     ///< disconnect, destroy the queue pair; the last word
    };
    enum Tell : std::uint32_t {
        tell_prepared = 1,  ///< there is a queue pair: connect
        tell_request = 2,   ///< a peer is there, and a queue pair for it: accept or reject
        tell_established = 4,
        tell_failed = 8,         ///< with `error`
        tell_disconnected = 16,  ///< the peer has gone, or its process
        tell_removed = 32,       ///< the device is gone
        tell_destroyed = 64,     ///< nothing of it is left with the device: the last word
        tell_broken = 128,       ///< its port is down, or its queues have failed: `error`
        tell_deaf = 256,         ///< the device that `listening` listened at is gone; the session is only this word
        tell_lost = 512,         ///< `queues` are of no use any more: `error`; the session is only this word, and the next two
        tell_given_up = 1024     ///< they are no more
    };

    // -- set by the loop before it asks
    Mailbox* home = nullptr;
    RdmaLink* link = nullptr;  ///< the loop's own
    Options options;
    socket::SocketAddress target;
    Hello ours;
    Refusal refusal = Refusal::none;
    std::uint8_t said_bytes = 0;
    std::byte said[256];  ///< raw: goes with connect, accept or reject
    Role role = Role::connection;
    UdLink* datagrams = nullptr;
    std::uint32_t peer_index = 0, peer_generation = 0;
    Session* socket = nullptr;  ///< of a peer or group: the datagram socket
    bool connected = false;     ///< datagrams: no address of its own, only that of the way to `target`
    bool has_arrival = false;
    ibv_wc arrival{};
    ibv_grh arrival_header{};
    // -- set by the control thread before it tells
    std::uint64_t listening = 0;  ///< number of the one that the peer came to
    rdma_cm_id* id = nullptr;
    ibv_qp* qp = nullptr;
    Queues* queues = nullptr;
    std::uint32_t inline_bytes = 0;
    std::uint32_t depth = 0;
    std::uint32_t receives = 0;  ///< raw: of its own queue
    bool has_greeted = false;    ///< `peer` is what it said
    Hello peer;
    Error error;
    bool has_heard = false;  ///< raw: `heard` is what the peer said
    std::uint8_t heard_bytes = 0;
    std::atomic<std::uint8_t> reads_granted{0};  ///< that the peer serves at a time; a receive may open the link before the news
    std::byte heard[256];
    Address local, remote;
    UdQueues ud;
    Device* used = nullptr;  ///< datagrams: until the session is forgotten
    UdTarget ud_target;
    std::uint8_t reads_asked = 0, reads_offered = 0;  ///< of the request
    // -- under the mutex
    std::uint32_t asks = 0, tells = 0;
    Session* next_ask = nullptr;
    Session* next_tell = nullptr;
    Session* next = nullptr;  ///< of the mailbox
    Session* previous = nullptr;
    // -- the control thread's own
    bool disconnects = false;  ///< accept or connect was called
    bool finished = false;
    bool answers = false;                      ///< datagrams: there are receives
    memory::RingQueue<rdma_cm_id*, 2> askers;  ///< datagrams: who asked before that
};

/// Where the control thread leaves its news for a port.
class Mailbox {
public:
    explicit Mailbox(Bell& of_loop) noexcept : bell(of_loop) {}
    /// Cheap: one load.
    bool has_news() const noexcept { return news_.load(std::memory_order_acquire); }
    /// The next session with news, and which; null: none. Thread: the loop's.
    Session* next(std::uint32_t& tells) noexcept;

    Bell& bell;

private:
    friend class Control;
    std::atomic<bool> news_{false};
    // under the mutex
    Session* first_ = nullptr;
    Session* last_ = nullptr;
    Session* sessions_ = nullptr;
    Queues* queues_ = nullptr;
    bool closing_ = false;
    bool closed_ = false;
    bool listed_ = false;
    Mailbox* next_ = nullptr;       // of those that close
    Mailbox* next_open_ = nullptr;  // of those with sessions
};

void make_nonblocking(int fd) noexcept;
Address address_of(const sockaddr& from) noexcept;

class Control {
public:
    /// Started by the first call; never joined. Errors: out_of_memory, device_error. Thread: any.
    static Result<Control*> instance() noexcept;

    /// False in a forked child, which has no such thread.
    bool is_here() const noexcept;

    /// Thread: the loop's. `session` is the control thread's until it tells.
    void ask(Session& session, Session::Ask what) noexcept;
    /// A fresh session of `home`; null: out of memory.
    Session* make(Mailbox& home) noexcept;
    /// After tell_destroyed.
    void forget(Session& session) noexcept;

    /// Listens at `at` for `home`; with `shared`, next to others of this process, who take turns. `number` names it in tell_request.
    /// Answers the port. Errors: address_in_use, address_unavailable, and what the manager says. Blocks for some system calls.
    Result<std::uint16_t> listen(Mailbox& home, const socket::SocketAddress& at, const Options& options, bool shared, std::uint64_t& number) noexcept;
    void close_listening(std::uint64_t number) noexcept;

    /// The address of a datagram socket that is not connected; its `local` is what it got. Errors: as listen.
    Result<void> bind(Session& session, const socket::SocketAddress& at) noexcept;

    /// Takes everything of `home` from the devices; returns when that is done.
    void close(Mailbox& home) noexcept;

private:
    friend class Mailbox;
    struct State;
    struct Place;
    explicit Control(State& state) noexcept : state_(state) {}
    static void* run(void* control) noexcept;
    rdma_event_channel* events() const noexcept;
    void tell(Session& session, std::uint32_t what) noexcept;
    void put(Session& session, std::uint32_t what) noexcept;
    template <class Match>
    void tell_all(Match match, std::uint32_t what, Error error) noexcept;
    void hear_device(Device& device) noexcept;
    void unlist(Mailbox& home) noexcept;
    void lose_place(Place& place) noexcept;
    template <class Match>
    void lose_places(Match match) noexcept;
    void lose(Device& device) noexcept;
    template <class Match>
    void lose_queues(Match match, Error why) noexcept;
    void give_up(Session& session) noexcept;
    void unask(Session& session) noexcept;
    void set_id(Session& session, rdma_cm_id* id) noexcept;
    void wake() noexcept;
    void do_asked() noexcept;
    void hear_events() noexcept;
    void hear(const rdma_cm_event& event) noexcept;
    void resolve(Session& session) noexcept;
    void connect(Session& session) noexcept;
    void accept(Session& session) noexcept;
    void reject(Session& session) noexcept;
    void finish(Session& session) noexcept;
    void requested(const rdma_cm_event& event) noexcept;
    void keep_private_data(Session& session, const rdma_cm_event& event) noexcept;
    void established(Session& session, const rdma_cm_event& event) noexcept;
    Error make_queue_pair(Session& session) noexcept;
    Result<Queues*> queues_for(Session& session, Device& device) noexcept;
    void destroy(Queues& queues) noexcept;
    void close_places() noexcept;
    void close_mailboxes() noexcept;
    void fail(Session& session, Error error) noexcept;

    // control_path.cpp
    int create_queue_pair(Session& session, ibv_pd& pd, ibv_qp_init_attr& wanted) noexcept;
    void destroy_queue_pair(Session& session) noexcept;
    int bring_up(Session& session, const rdma_conn_param* agreed) noexcept;
    void answered(Session& session, const rdma_cm_event& event) noexcept;

    // control_datagrams.cpp
    void open_datagrams(Session& session) noexcept;
    void answer_all(Session& session) noexcept;
    void look_for(Session& session) noexcept;
    void found(Session& session, const rdma_cm_event& event) noexcept;
    void resolved(Session& session) noexcept;
    void joined(Session& session, const rdma_cm_event& event) noexcept;
    void asked_for(Session& session, rdma_cm_id& asking) noexcept;
    void answer(Session& session, rdma_cm_id& asking) noexcept;
    Error make_datagram_queues(Session& session) noexcept;
    void finish_datagrams(Session& session) noexcept;

    State& state_;
};

}  // namespace evpl::transport::rdma
