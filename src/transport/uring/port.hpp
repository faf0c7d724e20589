#pragma once

#include <array>
#include <memory>
#include <optional>

#include "memory/ring_queue.hpp"
#include "transport/common/sockets/listening.hpp"
#include "transport/common/sockets/port.hpp"
#include "transport/uring/buffers.hpp"
#include "transport/uring/pinned_slabs.hpp"
#include "transport/uring/ring_sleeper.hpp"

namespace evpl::transport::socket {

/// An operation that completes again and again until it ends by itself or is cancelled.
struct Shot {
    bool out = false;        ///< the kernel has it, or will with the next enter()
    bool cancelled = false;  ///< its end is on the way
};

/// What the ring's port keeps for a link: its operations under way and the memory they use. From the port's type-stable pool, and used
/// again only when the last of them has completed, so that a completion always finds whom it means.
struct alignas(16) Driven {
    SocketLink* link = nullptr;
    Driven* next_free = nullptr;
    Shot receive;                   ///< multishot receive (tcp), or multishot poll (all others)
    Shot room;                      ///< poll for room to send, or for a connect to be through
    Shot hangup;                    ///< poll for the peer's last sign, when nothing is received any more
    bool sending = false;           ///< a send is out, which is for `held`
    bool by_reference = false;      ///< the newest send is, or was
    std::uint16_t send_number = 0;  ///< part of its name: notifications of sends by reference come later, in any order
    bool by_bytes = false;          ///< received in provided buffers: udp, and tcp that does not bring much at a time
    bool changes_way = false;       ///< between by_bytes and edges: its receive is cancelled for that
    std::uint8_t misfits = 0;       ///< receives in a row that say that the other way fits better
    bool early_end = false;         ///< the peer ended while receiving was paused
    std::uint16_t operations = 0;   ///< of all kinds, whose last completion has not come
    std::uint32_t last_put = 0;     ///< the ring's number of the newest one
    Error early_error;
    SliceQueue held;   ///< the kernel's until the send completes; by reference it stays that until the notification
    SliceQueue early;  ///< received after the link was paused; datagrams with what the kernel put before them
};

/// A multishot accept. It outlives its listener until the kernel has let go.
struct alignas(16) AcceptShot {
    SocketListening* listening = nullptr;
    Shot accept;
    AcceptShot* next = nullptr;
    bool queued = false;              ///< in the port's list of those that have peers
    bool counted = false;             ///< among those that wait
    bool polled = false;              ///< its socket is watched instead
    memory::RingQueue<int, 2> early;  ///< accepted after the listener was paused
};

}  // namespace evpl::transport::socket

namespace evpl::transport::uring {

using socket::AcceptShot;
using socket::Driven;
using socket::Flavor;
using socket::Shot;
using socket::SocketLink;
using socket::SocketListening;

/// What is rare, and should be seen to have happened.
struct PortCounts {
    std::uint64_t starved = 0;              ///< receives that ended because their buffer group was empty
    std::uint64_t out_of_blocks = 0;        ///< batches after which a group stayed empty: the heap had no block
    std::uint64_t ended_by_themselves = 0;  ///< multishot operations that had brought something, and were armed anew
    std::uint64_t late = 0;                 ///< bytes and peers that came although their operation was being cancelled
    std::uint64_t closed_under_way = 0;     ///< operations that the kernel had when their descriptor was closed
    std::uint64_t taken_back = 0;           ///< operations that it had not seen yet then
    std::uint64_t short_sends = 0;          ///< sends through the ring that took a part
    std::uint64_t by_reference = 0;         ///< sends without a copy
    std::uint64_t registered = 0;           ///< of these, those out of a registered slab
    std::uint64_t copied = 0;               ///< of these, those that the kernel copied after all
    std::uint64_t ways_changed = 0;         ///< links that went over from receiving by the ring to edges, or back
    std::uint64_t refused_sends = 0;        ///< sends that took nothing for lack of memory: tried again in a millisecond
};

/// Kernel sockets of one loop, driven by the completions of its ring.
class UringPort final : public socket::SocketPort, public Completer {
public:
    UringPort(Host& loop, Sleeper& inner) noexcept : SocketPort(loop, inner) {}
    ~UringPort() override;

    Result<Listening*> listen(const Endpoint& at, bool shared, Acceptor& acceptor, Diagnostic& why) override;
    Result<Link*> connect(const Endpoint& to, const Address& address, Sink& sink, SendQueue& outbox, Diagnostic& why) override;
    Result<Link*> bind(const Endpoint& at, const Address* remote, Sink& sink, SendQueue& outbox, Diagnostic& why) override;
    Result<Link*> adopt(const Endpoint& options, int descriptor, const Address& peer, Sink& sink, SendQueue& outbox) override;
    unsigned poll(unsigned budget) override;
    Flushed flush(Link& link) override;
    void pause(Link& link) override;

    // -- SocketPort
    Result<void> watch(SocketLink& link, std::uint32_t events) noexcept override;
    Result<void> watch(SocketListening& listening) noexcept override;
    void unwatch(SocketListening& listening, bool closing) noexcept override;
    void handed_over(SocketListening& listening) noexcept override;

    // -- Completer
    std::uint32_t complete(const abi::Cqe& done) override;
    void batch_done() override;
    void ring_lost() override;
    unsigned waiting() const noexcept override { return waiting_; }

    const PortCounts& counts() const noexcept { return counts_; }

    /// The low bits of an operation's user data; then the address of what it belongs to, of 48 bits, and a number.
    enum Kind : std::uint64_t { k_receive = 1, k_room, k_hangup, k_send, k_accept };
    static constexpr std::uint64_t kind_mask = 7;
    static constexpr unsigned number_shift = 48;
    static std::uint64_t name_of_operation(const void* whose, Kind kind, std::uint16_t number = 0) noexcept {
        return reinterpret_cast<std::uintptr_t>(whose) | kind | std::uint64_t(number) << number_shift;
    }

private:
    // -- SocketPort
    void close_descriptor(SocketLink& link, bool reset) noexcept override;
    void read_again(SocketLink& link) override;
    void ask_for_room(SocketLink& link, bool wanted) override;
    bool holds(const SocketLink& link) const noexcept override;
    bool busy(const SocketLink& link) const noexcept override { return link.driven != nullptr && link.driven->operations > 0; }
    void free_driven(SocketLink& link) noexcept override;

    // -- set-up (setup.cpp)
    Error open_ring(const Endpoint& endpoint, Diagnostic& why) noexcept;
    Error open_groups() noexcept;
    Driven* take_driven() noexcept;
    bool submit(Driven& driven, Kind kind, abi::Sqe operation, std::uint16_t number = 0) noexcept;
    void poll_for(Driven& driven, Kind kind, Shot& shot, std::uint32_t events, bool again) noexcept;
    void cancel(std::uint64_t name, Shot& shot) noexcept;
    void end(Driven& driven, std::uint64_t name, Shot shot) noexcept;
    void submit_accept(AcceptShot& shot) noexcept;
    Result<void> await_peers(AcceptShot& shot) noexcept;
    void accepted(AcceptShot& shot, const abi::Cqe& done);
    bool take_peer(AcceptShot& shot, int fd);
    void deliver_peers(AcceptShot& shot);
    void let_go(AcceptShot& shot) noexcept;
    void end_operations() noexcept;
    static unsigned take_last(Ring& ring) noexcept;

    // -- data path (datapath.cpp)
    void arm_receive(Driven& driven) noexcept;
    std::uint32_t received(Driven& driven, const abi::Cqe& done);
    std::uint32_t became_ready(Driven& driven, const abi::Cqe& done);
    void got_room(Driven& driven, const abi::Cqe& done);
    void hung_up(Driven& driven, const abi::Cqe& done);
    void sent(Driven& driven, const abi::Cqe& done);
    void notified(Driven& driven, const abi::Cqe& done);
    void tell_sent(SocketLink& link, std::size_t bytes);
    bool sends_by_reference(SocketLink& link, abi::Sqe& send) noexcept;
    void stop_references(SocketLink& link) noexcept;
    bool send_again(Driven& driven, int error);
    std::uint32_t received_datagram(Driven& driven, const abi::Cqe& done);
    void deliver_message(SocketLink& link, Buffer&& raw);
    bool receives_datagrams() noexcept;
    abi::Sqe datagram_receive(const SocketLink& link) noexcept;
    void finished(Driven& driven) noexcept;
    void deliver(Driven& driven, Buffer&& bytes);
    bool ring_refused(Driven& driven) noexcept;
    void count_misfits(Driven& driven, bool misfit) noexcept;
    void change_way(Driven& driven) noexcept;
    void receive_failed(Driven& driven, int error) noexcept;
    Flushed send_stream(SocketLink& link);
    bool send_inline(SocketLink& link);
    Flushed submit_send(SocketLink& link);

    /// Message headers and their vectors: the kernel reads them when it is entered, not later.
    struct Messages {
        static constexpr unsigned count = 64;
        static constexpr unsigned vectors_each = 64;
        msghdr headers[count];
        iovec vectors[count][vectors_each];
        unsigned used = 0;
        msghdr datagrams[2][2] = {};  ///< room for the sender's name, and for control data, or not
    };

    RingSleeper* ring_sleeper_ = nullptr;  ///< the loop's, which outlives this port
    std::optional<BufferGroup> streams_;
    std::optional<BufferGroup> datagrams_;
    std::unique_ptr<Messages> messages_;
    PinnedSlabs pinned_;
    unsigned references_ = 0;  ///< links that send by reference
    bool starved_ = false;     ///< the heap had no block for an empty group
    unsigned waiting_ = 0;     ///< links and listeners
    /// With more of them another one is likely to send soon, too (docs/decisions/0062).
    static constexpr unsigned few_links = 4;
    unsigned flushes_ = 0;  ///< since the last enter()
    unsigned flushes_before_ = 0;
    PortCounts counts_;

    struct Chunk;
    Chunk* driven_chunks_ = nullptr;
    Driven* free_ = nullptr;
    AcceptShot* shots_ = nullptr;
    memory::RingQueue<AcceptShot*, 2> accepting_;  ///< have early peers, and a listener that wants them
};

}  // namespace evpl::transport::uring
