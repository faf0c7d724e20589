#pragma once

// Datagrams over unreliable queue pairs: the sockets, whom they know, and their port. A datagram's sender is told by its packet's header
// and by 16 bits of immediate data with its port number, so that the payload fills the whole MTU.

#include <cstdint>

#include "memory/heap.hpp"
#include "memory/ring_queue.hpp"
#include "transport/common/receive_block.hpp"
#include "transport/rdma/control.hpp"
#include "transport/transport.hpp"

namespace evpl::transport::rdma {

inline constexpr std::uint32_t ud_sends_most = 256;
inline constexpr std::uint32_t ud_receives = 256;
inline constexpr std::uint32_t ud_gather_most = 4;
/// The packet's header, which comes before the payload (InfiniBand Architecture Specification 1.4, 11.4.1.2).
inline constexpr std::uint32_t ud_header_bytes = 40;
/// Peers that a socket remembers; the longest unused one makes room.
inline constexpr std::uint32_t ud_peers_most = 1024;
/// Datagrams that wait until their peer is found; more are dropped. (Their bytes are bounded by the socket's own limit.)
inline constexpr std::uint32_t ud_waiting_most = 4096;
/// A payload up to this is copied out of its block, which is posted again at once: unread datagrams must not pin four times their size.
inline constexpr std::uint32_t ud_copied_most = 2048;
/// Largest payload of any device: an MTU of 4096.
inline constexpr std::uint32_t ud_payload_most = 4096;
/// Immediate data: this mark, then the sender's port.
inline constexpr std::uint32_t ud_mark = 0x65760000;

class UdPort;

/// What a socket has at the least, before its device is known.
Caps ud_caps() noexcept;

/// Somebody whom a socket sends to, or heard from.
struct UdPeer {
    enum class State : std::uint8_t { free, looking, ready };
    State state = State::free;
    Address address;
    UdTarget target;
    Session* session = nullptr;
    std::uint32_t generation = 0;
    std::uint32_t sends_out = 0;  ///< with the device: the handle stays
    std::uint64_t used = 0;       ///< the socket's count of uses when it was last used
    std::uint16_t next = 0;       ///< of the same hash, plus one; 0: none
    SliceQueue waiting;           ///< until it is found
};

class UdLink final : public Link, public Watcher {
public:
    enum class State : std::uint8_t { free, opening, open, over };
    struct Send {
        std::uint32_t bytes;
        std::uint16_t slices;
        std::uint16_t peer;
    };

    std::uint32_t ready(std::uint32_t events) override;

    State state = State::free;
    bool connected = false;
    bool is_raw = false;
    bool blocked = false;
    bool armed_sends = false, armed_receives = false;
    bool dead = false;     ///< the device is gone
    bool answers = false;  ///< there are receives: peers may be told of the queue pair
    bool watched_channel = false;
    bool closed_told = false;
    bool finish_asked = false;
    Session* session = nullptr;
    UdQueues queues;
    Caps own_caps;
    Address local, remote;
    std::uint16_t next_number = 0;
    memory::RingQueue<Send, 4> sends;
    SliceQueue with_device;
    Buffer blocks[ud_receives];
    std::uint32_t free_blocks[ud_receives];
    std::uint32_t free_count = 0;
    unsigned unacknowledged_sends = 0, unacknowledged_receives = 0;
    UdPeer* peers = nullptr;  ///< ud_peers_most of them, once there is one
    std::uint16_t* heads = nullptr;
    std::uint32_t waiting = 0;  ///< datagrams that wait with their peers
    std::uint64_t uses = 0;
    Error error;
    UdLink* next = nullptr;
};

/// One per loop.
class UdPort final : public Port {
public:
    UdPort(Host& host, Sleeper& sleeper, Control& control) noexcept;
    ~UdPort() override;

    Result<Listening*> listen(const Endpoint& at, bool shared, Acceptor& acceptor, Diagnostic& why) override;
    Result<Link*> connect(const Endpoint& to, const Address& address, Sink& sink, SendQueue& outbox, Diagnostic& why) override;
    Result<Link*> bind(const Endpoint& at, const Address* remote, Sink& sink, SendQueue& outbox, Diagnostic& why) override;
    unsigned poll(unsigned budget) override;
    PollPrice poll_price() const noexcept override { return PollPrice::memory; }
    Flushed flush(Link& link) override;
    void pause(Link& link) override { link.receive_paused = true; }
    void resume(Link& link) override;
    void close(Link& link, How how) override;
    void alarm() override;
    Armed arm() override;
    Address remote_address(const Link& link) const override { return static_cast<const UdLink&>(link).remote; }
    Address local_address(const Link& link) const override { return static_cast<const UdLink&>(link).local; }
    Result<void> join(Link& link, const Address& group, const Address& interface, bool leave) override;

    Host& host;

private:
    struct Batch;
    void hear(Session& session, std::uint32_t tells);
    void hear_socket(UdLink& link, Session& session, std::uint32_t tells);
    void hear_peer(UdLink& link, Session& session, std::uint32_t tells);
    UdLink* take_link() noexcept;
    void opened(UdLink& link);
    void destroyed(UdLink& link);
    void end_link(UdLink& link, Error error) noexcept;
    void ask_finish(UdLink& link) noexcept;
    unsigned poll_link(UdLink& link, unsigned budget);
    unsigned take_sends(UdLink& link);
    unsigned take_receives(UdLink& link, unsigned budget);
    void received(UdLink& link, const ibv_wc& done);
    void post_receives(UdLink& link);
    void post_free(UdLink& link);
    bool fill(UdLink& link, Buffer& block, std::uint32_t& lkey) noexcept;
    UdPeer* peer_of(UdLink& link, const Address& address) noexcept;
    UdPeer* find_peer(UdLink& link, const Address& address) noexcept;
    std::uint16_t raw_port_of(UdLink& link, const Address& from, std::uint32_t qp_number) noexcept;
    UdPeer* add_peer(UdLink& link, const Address& address) noexcept;
    void forget_peer(UdLink& link, UdPeer& peer) noexcept;
    bool look_for(UdLink& link, UdPeer& peer, Session::Role role, const ibv_wc* arrival, const void* header) noexcept;
    void send_waiting(UdLink& link, UdPeer& peer);
    bool gather(UdLink& link, UdPeer& peer, SliceQueue& from, Batch& batch);
    void ring(UdLink& link, Batch& batch);
    void not_sent(UdLink& link, std::size_t bytes, Errc why);
    void drop_datagram(UdLink& link, SliceQueue& from, Error error);

    Control& control_;
    Sleeper& sleeper_;
    Mailbox mailbox_;
    ReceiveBlock block_;
    UdLink* links_ = nullptr;
    UdLink* free_links_ = nullptr;  // kept: an event that the sleeper has taken may name them still
    bool some_over_ = false;
};

}  // namespace evpl::transport::rdma
