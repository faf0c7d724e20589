#pragma once

// The contract between core and a backend. docs/backends.md tells how one received and one sent message
// travel through it on a readiness, a completion and a poll-only device.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>

#include "evpl/address.hpp"
#include "evpl/chain.hpp"
#include "evpl/endpoint.hpp"
#include "evpl/remote.hpp"
#include "evpl/result.hpp"
#include "evpl/transport_info.hpp"
#include "transport/bell.hpp"
#include "transport/queue.hpp"
#include "transport/sleeper.hpp"

namespace evpl::memory {
class Heap;
class Domain;
}  // namespace evpl::memory

namespace evpl::transport {

class Port;
class Link;
class Listening;

/// What arrived with some bytes.
struct Arrival {
    bool end_of_message = false;      ///< the bytes complete a message (message and datagram links)
    bool truncated = false;           ///< the rest of the message is lost
    std::uint32_t segment_bytes = 0;  ///< GRO: the bytes are several datagrams of this size, the last may be smaller; 0: one
    std::uint32_t immediate = 0;
    bool has_immediate = false;         ///< no bytes: the peer has written to exposed memory, and `immediate` is its word for that
    std::uint64_t invalidated_key = 0;  ///< the message has taken back what was exposed by it; 0: none
    const Address* source = nullptr;    ///< datagrams; borrowed until the upcall returns
    const Address* local = nullptr;     ///< datagrams: where it was sent to, when known
    std::span<const int> descriptors;   ///< descriptor passing: the sink takes (and must close) them
};

/// Upcalls of a link. All of them come from inside Port::poll, hand_over or flush, or Sleeper::wait, on the loop's thread, never from
/// inside listen, connect, bind, pause, resume or close. A sink only takes note; the application's callbacks run later in the turn.
/// Order: opened, then delivered/landed/sent/ended in any number, then closed once, then retired once. A link that never opens goes
/// straight to closed.
class Sink {
public:
    virtual void opened() = 0;
    /// Received bytes. The sink takes the slices, also beyond its limit: it then pauses the link, or closes it where pausing is absent.
    virtual void delivered(Buffer&& bytes, const Arrival& arrival) = 0;
    /// Slices that end a message each, with nothing else to say of them, as so many calls of delivered: where messages are small, the call
    /// takes longer than the rest. What the sink leaves, the port drops.
    virtual void delivered_messages(std::span<Buffer> messages) {
        static constexpr Arrival last{.end_of_message = true};
        for (Buffer& message : messages) delivered(std::move(message), last);
    }
    /// `bytes` were received straight into Link::landing, which the port has advanced.
    virtual void landed(std::uint32_t bytes) = 0;
    /// The peer will send no more. Follows the last delivered.
    virtual void ended() = 0;
    /// This many bytes of the outbox's front are the device's no more: their memory may be reused.
    virtual void sent(std::size_t bytes) = 0;
    /// A datagram could not be sent and was dropped; the link goes on.
    virtual void send_failed(Error error) = 0;
    /// The outbox had been refused (flush answered blocked) and can be flushed again.
    virtual void writable() = 0;
    virtual void completed(OperationId operation, Error error, Buffer&& buffer) = 0;
    /// The link is over. The port takes nothing from the outbox any more. No other upcall but retired follows.
    virtual void closed(Error error) = 0;
    /// The device is done with the link and its buffers; the Link is reused after this returns.
    virtual void retired() = 0;

protected:
    ~Sink() = default;
};

/// Upcalls of a listener, under the same rules.
class Acceptor {
public:
    /// A peer is there. The acceptor fills in sink and outbox of `link` and returns true, or returns false: the port closes the peer.
    /// `opened` follows later, then the bytes. Also used to hand a link to another loop before it opens, see Port::adopt.
    virtual bool accepted(Link& link) = 0;
    /// Hand-out: asked before a link exists. True: the acceptor took `descriptor` (and `peer`) away to another loop.
    virtual bool taken(int descriptor, const Address& peer) = 0;
    /// Accepting waits for descriptors or memory and resumes by itself.
    virtual void paused(Error why) = 0;
    /// The listener is broken; nothing follows.
    virtual void failed(Error error) = 0;

protected:
    ~Acceptor() = default;
};

/// Where the next bytes of a stream should land: the caller's own block.
struct Landing {
    std::byte* at = nullptr;
    std::uint32_t left_bytes = 0;
};

/// One connection's end in a port. Lives in its port's type-stable pool; a Connection points to it. It may outlive its Connection's
/// interest (between closed and retired), and a Connection may try several.
class Link {
public:
    Port* port = nullptr;
    Sink* sink = nullptr;              ///< whoever listens; never null between accepted/connect and retired
    SendQueue* outbox = nullptr;       ///< owned by the sink's side, alive until closed; ports take from its front in flush
    const Caps* caps = nullptr;        ///< of this link; alive until retired
    memory::Domain* domain = nullptr;  ///< slices of the outbox must be registered there; null: any memory will do. Set before opened()
    Landing landing;                   ///< ports that can land fill this first; where they deliver instead, core copies and moves it on
    bool receive_paused = false;       ///< set by core through Port::pause
    bool awaits_accept = false;        ///< set by the port before accepted(): the peer is answered by Port::admit, or rejected by close(abort)
    std::uint32_t generation = 0;

protected:
    Link() noexcept = default;
    ~Link() = default;
};

/// A listening endpoint of a port.
class Listening {
public:
    Port* port = nullptr;
    Acceptor* acceptor = nullptr;
    /// As really bound.
    virtual std::string_view url() const noexcept = 0;
    virtual std::uint16_t port_number() const noexcept { return 0; }
    virtual void pause() noexcept = 0;
    virtual void resume() noexcept = 0;
    /// Its socket, of which another process gets a duplicate: from now on nothing may be taken from its backlog that is not served, and nothing
    /// of its name may be removed. -1: it has none.
    virtual int hand_over() noexcept { return -1; }
    /// Stops accepting and frees this object. Links accepted stay.
    virtual void close() noexcept = 0;

protected:
    ~Listening() = default;
};

enum class How : std::uint8_t {
    drain,   ///< send what is queued, then end our direction; receiving goes on (half-close)
    finish,  ///< send what is queued, then close both directions
    abort    ///< drop everything; the peer sees a reset where the transport has one
};

/// What a flush did.
enum class Flushed : std::uint8_t {
    all,     ///< the outbox is empty, or wholly with the device
    blocked  ///< the device is full: the sink hears writable() (or sent()) when it is worth another try
};

/// What a port says before the loop sleeps.
struct Armed {
    bool work_waiting = false;              ///< do not sleep: poll again
    std::int64_t sleep_ns_max = INT64_MAX;  ///< poll-only stacks: how long the loop may sleep at the most
};

/// What polling a port costs.
enum class PollPrice : std::uint8_t {
    nothing,  ///< it is driven by the sleeper alone: poll() has nothing to do
    memory,   ///< loads from memory
    system_call
};

/// The services of a loop that a port may use. Outlives its ports.
class Host {
public:
    virtual memory::Heap& heap() noexcept = 0;
    virtual Result<Sleeper*> sleeper() noexcept = 0;  ///< opened on first use
    /// From now on the loop waits in `successor`, which it owns; the sleeper there was is the successor's to keep and to free, and who
    /// holds it may go on using it. Called by ports when they open their first endpoint. False: this loop cannot.
    virtual bool adopt_sleeper(Sleeper& successor) noexcept {
        (void)successor;
        return false;
    }
    virtual Bell& bell() noexcept = 0;                 ///< other threads ring it to wake this loop
    virtual std::int64_t now_ns() const noexcept = 0;  ///< monotonic, of this turn
    virtual std::uint32_t batch_bytes() const noexcept = 0;
    /// Runs `due(context)` at `at_ns` or later (INT64_MAX: never). One alarm per port.
    virtual void set_alarm(Port& port, std::int64_t at_ns) noexcept = 0;
    /// Asks for a poll() in the next turn although nothing else happens: the port has work it put off.
    virtual void poll_again() noexcept = 0;
    /// One line for the log.
    virtual void log_line(std::uint8_t level, std::string_view line) noexcept = 0;

protected:
    ~Host() = default;
};

/// What an atomic does to 8 bytes of the peer's.
struct Atomic {
    bool swaps = false;         ///< else it adds
    std::uint64_t operand = 0;  ///< is added, or is compared
    std::uint64_t desired = 0;  ///< swaps: what they become where they were `operand`
};

/// One device queue, ring or descriptor set of one loop. All calls on the loop's thread.
class Port {
public:
    virtual ~Port() = default;

    // -- set-up: may take its time, but never blocks; upcalls come later
    /// Errors: as evpl::listen, with a sentence in `why`. `options_shared`: several loops listen on the same endpoint.
    virtual Result<Listening*> listen(const Endpoint& at, bool shared, Acceptor& acceptor, Diagnostic& why) = 0;
    /// `address` is resolved (family none for transports without addresses). The link's sink and outbox are set at once.
    virtual Result<Link*> connect(const Endpoint& to, const Address& address, Sink& sink, SendQueue& outbox, Diagnostic& why) = 0;
    /// Datagram ports: bound to `at` when `remote` is null, else connected to it.
    virtual Result<Link*> bind(const Endpoint& at, const Address* remote, Sink& sink, SendQueue& outbox, Diagnostic& why);
    /// Takes over a peer that another loop's listener gave to Acceptor::taken. Opens as an accepted link of `options`.
    virtual Result<Link*> adopt(const Endpoint& options, int descriptor, const Address& peer, Sink& sink, SendQueue& outbox);

    // -- per batch and per dirty link
    /// Does what is waiting, up to `budget` events; returns how many. Ports driven by the sleeper return 0.
    virtual unsigned poll(unsigned budget) {
        (void)budget;
        return 0;
    }
    virtual PollPrice poll_price() const noexcept { return PollPrice::nothing; }
    /// Puts as much of the link's outbox on the wire as fits, calling sent() for what is the device's no more.
    virtual Flushed flush(Link& link) = 0;
    /// No more delivered() once the batch in hand is through. Only where caps.receive_pause.
    virtual void pause(Link& link) { (void)link; }
    virtual void resume(Link& link) { (void)link; }
    /// drain and finish wait for the outbox; abort does not. closed() follows (after drain: when the peer has ended too).
    /// May be called again with a harsher `how`.
    virtual void close(Link& link, How how) = 0;
    /// The peer of a link that awaits it is accepted; opened() follows.
    virtual void admit(Link& link) { (void)link; }
    /// What goes with the connect (right after connect()), accept or reject (before it) of a link whose caps allow it, and whose
    /// private_data_bytes_max it does not exceed. Copied.
    virtual void set_private_data(Link& link, std::span<const std::byte> data) { (void)link, (void)data; }
    /// What the peer has said; valid until the next poll.
    virtual std::span<const std::byte> private_data(const Link&) const { return {}; }
    /// The alarm set with Host::set_alarm is due.
    virtual void alarm() {}

    // -- sleep
    /// The loop wants to sleep. After this the port is polled once more.
    virtual Armed arm() { return {}; }
    virtual void disarm() {}
    /// Somebody asked for poll_again(), but the loop returns to its caller first, who may be long in coming back: what peers wait for, ends above all,
    /// leaves now.
    virtual void hand_over() {}

    // -- looking
    virtual Address remote_address(const Link&) const { return {}; }
    virtual Address local_address(const Link&) const { return {}; }
    /// The peer as text into `room`; returns the length.
    virtual std::size_t remote_name(const Link&, std::span<char> room) const {
        (void)room;
        return 0;
    }
    virtual int native_fd(const Link&) const noexcept { return -1; }
    virtual Result<void> credentials(const Link&, std::int32_t& pid, std::uint32_t& uid, std::uint32_t& gid) const;

    // -- datagrams
    virtual Result<void> join(Link&, const Address& group, const Address& interface, bool leave);

    // -- remote memory
    virtual Result<RemoteRegion> expose(Link&, Buffer range, Access access);
    virtual Result<void> revoke(Link&, const RemoteRegion& region);
    virtual Result<void> read(Link&, OperationId operation, const RemoteRegion& region, std::uint64_t offset, Buffer into);
    virtual Result<void> write(Link&, OperationId operation, const RemoteRegion& region, std::uint64_t offset, Buffer from);
    /// Where caps.remote_tells: the peer's sink is told `word` by delivered().
    virtual Result<void> write_telling(Link&, OperationId operation, const RemoteRegion& region, std::uint64_t offset, Buffer from, std::uint32_t word);
    /// Where caps.remote_atomics; the address is a multiple of 8. `before` has 8 bytes, which become what was there before.
    virtual Result<void> atomic(Link&, OperationId operation, const RemoteRegion& region, std::uint64_t offset, const Atomic& what, Buffer before);
};

/// A scheme and what it is for.
struct Scheme {
    std::string_view name;     ///< "tcp"
    std::string_view summary;  ///< "kernel TCP through epoll"
    std::string_view wire;     ///< schemes of one wire format reach each other: "tcp", "udp", ...; stream:// and dgram:// choose by it
    Kind kind;
    bool has_address;                ///< host is a name or IP address to resolve, and a port is needed
    std::uint8_t preference;         ///< of stream:// and dgram://: the highest present wins; 0: only by name
    bool needs_card = false;         ///< lives on a network card of one kind: its absence is no news
    std::string_view fallback = {};  ///< the scheme that takes an endpoint over where this one answers transport_absent; empty: none
};

/// Present, or absent with a reason and the remedy.
struct Probe {
    bool present = false;
    std::string_view reason;
    std::string_view remedy;
    Caps caps;
};

/// One backend of the process; may serve several schemes. Stateless but for its probe.
class Transport {
public:
    virtual std::span<const Scheme> schemes() const noexcept = 0;
    /// Cheap after the first call. Thread: any.
    virtual Probe probe(const Scheme& scheme) noexcept = 0;
    /// The caps an endpoint of this scheme would have (mode=msg and the like); checks the options. Errors: unknown_option, bad_option.
    virtual Result<Caps> caps(const Scheme& scheme, const Endpoint& endpoint, Diagnostic& why) noexcept = 0;
    /// A port for one loop; owned by the loop.
    virtual Result<Port*> open(Host& host) noexcept = 0;

protected:
    ~Transport() = default;
};

/// Every backend, in a fixed order: registry.cpp, an explicit list.
std::span<Transport* const> all_transports() noexcept;

/// The backend and scheme for an endpoint: by name, or for stream:// and dgram:// the best present one.
struct Choice {
    Transport* transport = nullptr;
    const Scheme* scheme = nullptr;
};
/// Errors: unknown_scheme, transport_absent; the sentence tells what would be right.
Result<Choice> choose(const Endpoint& endpoint, Diagnostic& why) noexcept;

/// Where an endpoint goes that its own device cannot serve (transport_absent): the backend of Scheme::fallback, and the endpoint in its
/// words, without the options that it does not know. False: nowhere, because there is no such scheme or `fallback=off` forbids it.
bool fall_back(const Choice& from, const Endpoint& endpoint, Choice& to, Endpoint& instead) noexcept;

/// The sleeper of a loop whose ports bring none of their own.
Result<Sleeper*> open_sleeper() noexcept;

}  // namespace evpl::transport
