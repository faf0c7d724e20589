#pragma once

// The inside of the simulated network: what is on the wire, and the devices' ports. sim.hpp is what tests see.

#include <atomic>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "memory/domain.hpp"
#include "memory/heap.hpp"
#include "transport/sim/random.hpp"
#include "transport/sim/sim.hpp"
#include "transport/transport.hpp"

namespace evpl::transport::sim {

class SimPort;
struct World;

/// Device user-data: finds a link again, or finds that it is gone.
struct LinkName {
    std::uint32_t port = 0;  ///< 0: no link
    std::uint32_t slot = 0;
    std::uint32_t generation = 0;
    explicit operator bool() const noexcept { return port != 0; }
    friend bool operator==(const LinkName&, const LinkName&) noexcept = default;
};

/// Bytes on the wire; the network's own copy.
struct Fragment {
    std::vector<std::byte> bytes;
    std::size_t taken = 0;  ///< delivered already
    bool end_of_message = false;
    bool truncated = false;
    Address source;
    Address target;
    std::size_t left() const noexcept { return bytes.size() - taken; }
};

/// A read or write of remote memory under way. The device owns the buffer.
struct RemoteOperation {
    OperationId id;
    bool reads = false;
    RemoteRegion region;
    std::uint64_t offset = 0;
    Buffer buffer;
    bool posted = false;  ///< answered, waits for poll
    Error error;
};

struct Exposed {
    RemoteRegion region;
    Access access;
    Buffer bytes;
};

class SimLink final : public Link {
public:
    enum class State : std::uint8_t { free, opening, open };

    LinkName name;
    LinkName peer;
    State state = State::free;
    Kind kind = Kind::stream;
    std::uint64_t number = 0;
    std::string target;      ///< whom a connecting link or a connected datagram link wants
    std::string shown_peer;  ///< remote_name
    Address local;           ///< datagrams

    // -- sending
    SliceQueue held;                  ///< the device's, until sent() or retired
    std::size_t read_bytes = 0;       ///< of `held`'s front that the device has read
    std::uint32_t pieces_unread = 0;  ///< transmit events under way
    std::size_t sent_ready = 0;       ///< read, and not yet told with sent()
    bool sent_posted = false;
    std::size_t window_used = 0;   ///< bytes that the peer has not been given yet
    std::uint32_t pieces_out = 0;  ///< the same in pieces
    std::uint64_t pieces_sent = 0;
    std::int64_t transmit_at = 0;  ///< of the last piece: the wire keeps order
    std::int64_t arrive_at = 0;
    bool blocked = false;  ///< flush said so, writable() is owed
    bool clogged = false;
    bool draining = false;
    How how = How::drain;
    bool end_sent = false;
    std::deque<Address> destinations;  ///< of the datagrams in `held`

    // -- receiving
    std::deque<Fragment> inbound;
    bool receive_posted = false;
    std::uint64_t pieces_received = 0;
    std::uint64_t pieces_at_end = UINT64_MAX;  ///< known once the peer's end was reported
    bool ended = false;
    std::uint32_t memory_tries = 0;
    std::int64_t inbound_until = 0;  ///< the latest arrival that the peer has under way

    // -- the end
    bool over = false;  ///< closed() is posted or through
    bool closed_told = false;
    bool cut_pending = false;  ///< closes once `inbound` is delivered
    bool silent = false;
    Error error;

    // -- remote memory
    std::deque<RemoteOperation> operations;
    std::deque<Exposed> exposed;
};

/// A device's protection domain. Keys are numbers in order.
class SimDomain final : public memory::Domain {
public:
    ~SimDomain() override { retire(); }
    Result<std::uint64_t> register_memory(std::byte*, std::size_t) noexcept override { return ++last_key_; }
    void deregister_memory(std::byte*, std::size_t, std::uint64_t) noexcept override {}

private:
    std::atomic<std::uint64_t> last_key_{0};
};

/// The receive blocks of one port. They belong to the device; a Buffer borrows one and its last reference gives it
/// back. Lives until the port is gone and the last block is back.
class DeviceMemory {
public:
    struct Block {
        DeviceMemory* memory;
        std::uint32_t number;
        std::byte* bytes;
    };
    DeviceMemory(World& world, std::uint32_t blocks, std::uint32_t block_bytes);
    /// Null: all are out.
    Block* take() noexcept;
    /// The release function of a wrapped block.
    static void give_back(void* block) noexcept;
    /// The port is gone.
    void orphan() noexcept;
    std::uint32_t held() const noexcept { return held_; }
    std::uint32_t count() const noexcept { return std::uint32_t(blocks_.size()); }
    void world_is_gone() noexcept { world_ = nullptr; }

private:
    World* world_;
    std::uint32_t block_bytes_;
    std::uint32_t held_ = 0;
    bool orphan_ = false;
    std::vector<std::byte> room_;
    std::vector<Block> blocks_;
    std::vector<std::uint32_t> free_;  // last in, first out
};

class SimListening final : public Listening {
public:
    std::string_view url() const noexcept override { return url_text; }
    std::uint16_t port_number() const noexcept override { return port_value; }
    void pause() noexcept override { paused = true; }
    void resume() noexcept override;
    void close() noexcept override;

    SimPort* owner = nullptr;
    std::uint32_t id = 0;
    std::string key;  ///< kind and name
    std::string url_text;
    std::uint16_t port_value = 0;
    Kind kind = Kind::stream;
    bool shared = false;
    bool paused = false;
    bool posted = false;   ///< a completion is under way
    bool waiting = false;  ///< for memory
    std::deque<LinkName> backlog;
};

/// What a port's poll finds: a device completion.
struct Done {
    enum class What : std::uint8_t { incoming, opened, received, sent, send_failed, writable, pump, completed, closed, retired };
    What what;
    LinkName link;
    std::uint64_t number = 0;  ///< incoming: the listening's id
    Error error;
};

class SimPort final : public Port {
public:
    SimPort(World& world, Host& host, std::uint32_t id);
    ~SimPort() override;

    // -- setup.cpp
    Result<Listening*> listen(const Endpoint& at, bool shared, Acceptor& acceptor, Diagnostic& why) override;
    Result<Link*> connect(const Endpoint& to, const Address& address, Sink& sink, SendQueue& outbox, Diagnostic& why) override;
    Result<Link*> bind(const Endpoint& at, const Address* remote, Sink& sink, SendQueue& outbox, Diagnostic& why) override;
    void close(Link& link, How how) override;
    Address remote_address(const Link& link) const override;
    Address local_address(const Link& link) const override;
    std::size_t remote_name(const Link& link, std::span<char> room) const override;
    Result<RemoteRegion> expose(Link& link, Buffer range, Access access) override;
    Result<void> revoke(Link& link, const RemoteRegion& region) override;
    Result<void> read(Link& link, OperationId operation, const RemoteRegion& region, std::uint64_t offset, Buffer into) override;
    Result<void> write(Link& link, OperationId operation, const RemoteRegion& region, std::uint64_t offset, Buffer from) override;

    SimLink* take_link(Kind kind);
    void free_link(SimLink& link);
    SimLink* find(const LinkName& name) noexcept;
    SimListening* find_listening(std::uint32_t id) noexcept;
    void drop_listening(SimListening& listening);
    void tell_peer_cut(SimLink& link);

    // -- datapath.cpp
    unsigned poll(unsigned budget) override;
    PollPrice poll_price() const noexcept override { return PollPrice::memory; }
    Flushed flush(Link& link) override;
    void pause(Link& link) override;
    void resume(Link& link) override;
    Armed arm() override;
    void disarm() override { armed_ = false; }

    void post(Done::What what, const SimLink& link, Error error = {});
    void post_incoming(SimListening& listening);
    void post_received(SimLink& link);
    void post_sent(SimLink& link);
    void post_writable(SimLink& link);
    void end_link(SimLink& link, Error error);
    void end_if_drained(SimLink& link);
    void accept(SimListening& listening);

    World& world;
    Host& host;
    const std::uint32_t id;
    Caps stream_caps, message_caps, datagram_caps;
    std::vector<std::unique_ptr<SimLink>> links;  ///< type-stable: a slot is reused, never moved or freed before the port
    std::vector<std::uint32_t> free_slots;
    std::vector<std::unique_ptr<SimListening>> listenings;
    std::deque<Done> completions;
    DeviceMemory* device_memory;

private:
    struct Piece;
    static bool ends_message(const SimLink& link, const Buffer& slice) noexcept;
    Piece next_piece(SimLink& link);
    Piece next_datagram(SimLink& link);
    bool take_piece(SimLink& link, const Piece& piece);
    void launch(SimLink& link, const Piece& piece);
    Flushed clog(SimLink& link);
    void pump(SimLink& link);
    void complete(const Done& done);
    void opened(SimLink& link);
    void receive(SimLink& link);
    bool deliver(SimLink& link);
    void starve(SimLink& link, Error error);
    void sent(SimLink& link);
    void completed(SimLink& link);
    void closed(SimLink& link);
    void retired(SimLink& link);
    Result<Buffer> receive_buffer(const std::byte* from, std::uint32_t size_bytes);
    void check_key(SimLink& link, const Buffer& slice);
    Result<void> start_remote(Link& base, RemoteOperation&& operation);

    bool armed_ = false;
};

/// Something that will happen. Those of one instant happen in the order they were planned.
struct Event {
    enum class What : std::uint8_t {
        connect_arrives,   ///< link: the connecting one
        connect_answered,  ///< link: the connecting one, other: the accepted one, or error
        transmit,          ///< the device reads `number` bytes of link's outbox
        arrives,           ///< fragment at link from other
        credited,          ///< link's peer was given `number` bytes
        end_arrives,       ///< number: the pieces before it
        cut_arrives,
        strike,  ///< a fault of link and other; number 0: reset, 1: silence
        silence_noticed,
        unclogged,
        retires,
        receive_again,
        accept_again,    ///< number: listening id, of link's port
        remote_arrives,  ///< number: operation
        remote_answered
    };
    std::int64_t at = 0;
    std::uint64_t order = 0;
    What what = What::transmit;
    LinkName link;
    LinkName other;
    std::uint64_t number = 0;
    std::int64_t then = 0;  ///< transmit: when the bytes arrive
    Error error;
    Fragment fragment;
};

struct Binding {
    std::string key;
    Address address;
    LinkName link;
};

struct World {
    explicit World(const SimOptions& options);

    static World& of(SimNet& net) noexcept { return *net.world_; }

    // -- wire.cpp
    std::int64_t delay() noexcept;
    /// For stalls and late retirement: up to 50 times delay_most.
    std::int64_t long_delay() noexcept;
    /// When something that `from` sends now arrives: behind all that it has sent already.
    std::int64_t next_arrival(SimLink& from);
    void plan(Event&& event);
    void plan(Event::What what, std::int64_t at, const LinkName& link, std::uint64_t number = 0, Error error = {});
    /// Lets everything happen that is due by `until`.
    void run_until(std::int64_t until);
    void happen(Event& event);
    void connect_arrived(SimLink& from);
    void connect_answered_by(Event& event);
    void transmit_next(SimLink& link, Event& event);
    void transmit_datagram(SimLink& link, Fragment&& fragment);
    void arrived(Event& event);
    void credit(SimLink& link, std::size_t bytes);
    void end_arrived(SimLink& link, std::uint64_t pieces);
    void cut(SimLink& link, Error error);
    void struck(SimLink& link, bool silently);
    void silence(SimLink& link);
    void remote_arrived(SimLink& origin, std::uint64_t number);
    void remote_done(SimLink& origin, std::uint64_t number, Error error);

    SimLink* find(const LinkName& name) noexcept;
    SimPort* port_of(const LinkName& name) noexcept { return name.port != 0 && name.port <= ports.size() ? ports[name.port - 1] : nullptr; }
    /// False: this allocation fails. Counts.
    bool may_allocate() noexcept { return ++allocations != options.fail_allocation_at; }
    void violation(const char* what) noexcept;
    void trace(const char* upcall, std::uint64_t link, std::uint64_t detail, std::span<const std::byte> bytes = {}) noexcept;

    SimOptions options;
    Random random;
    std::int64_t now = 1'000'000'000;
    std::uint64_t order = 0;
    std::uint64_t allocations = 0;
    std::vector<Event> events;  // a heap
    std::vector<SimPort*> ports;
    std::vector<std::unique_ptr<SimDomain>> devices;
    std::vector<DeviceMemory*> memories;  // of all ports, also gone ones whose blocks are out
    std::vector<SimListening*> listenings;
    std::vector<Binding> bindings;
    std::uint32_t last_listening = 0;
    std::uint32_t last_host = 0;
    std::uint16_t last_port = 40'000;
    std::uint64_t last_remote = 0x1000;
    SimStats counted;
    std::uint64_t hash = 0xcbf29ce484222325u;
    void (*on_trace)(void*, const SimTrace&) = nullptr;
    void* trace_context = nullptr;
};

}  // namespace evpl::transport::sim
