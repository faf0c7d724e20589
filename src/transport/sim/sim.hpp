#pragma once

#include <cstddef>
#include <cstdint>

#include "evpl/duration.hpp"
#include "transport/transport.hpp"

namespace evpl::transport {

namespace sim {
struct World;
}

/// How a simulated network behaves. Chances are per mille, drawn from the seed; all faults are off by default.
struct SimOptions {
    std::uint64_t seed = 1;
    Duration delay_least = Duration::of_ns(10'000);  ///< one way; each trip draws between the two
    Duration delay_most = Duration::of_ns(200'000);

    // -- faults of links
    std::uint16_t split = 0;           ///< the wire takes only a few bytes at a time (per piece)
    std::uint16_t stall = 0;           ///< a piece, and all behind it, is late by up to 50 times delay_most
    std::uint16_t clog = 0;            ///< a flush finds the device full
    std::uint16_t refuse = 0;          ///< a connect is refused although somebody listens
    std::uint16_t reset = 0;           ///< the link is cut within fault_window of its opening
    std::uint16_t silence = 0;         ///< the link dies without a word within fault_window of its opening
    std::uint16_t late_retire = 0;     ///< the device keeps a closed link and its buffers for up to 50 times delay_most
    std::uint16_t early_end = 0;       ///< the device reports the peer's end before its last bytes
    std::uint16_t immediate_sent = 0;  ///< a send completes inside flush
    Duration fault_window = Duration::of_ns(20'000'000);
    Duration silence_limit = Duration::of_ns(30'000'000'000);  ///< then the port closes with peer_silent; zero: never

    // -- faults of datagrams
    std::uint16_t lose = 0;
    std::uint16_t duplicate = 0;
    std::uint16_t reorder = 0;
    std::uint16_t truncate = 0;

    // -- the device
    bool receive_pause = true;
    bool half_close = true;
    bool poll_only = false;                   ///< arm() limits the sleep; else completions ring the bell
    unsigned devices = 1;                     ///< each with a protection domain; 0: any memory will do
    std::uint32_t device_buffers = 64;        ///< receive blocks per port; beyond 3/4 of them bytes are copied out
    std::uint32_t device_block_bytes = 2048;  ///< of a receive block, and the largest datagram
    std::uint32_t window_bytes = 256u << 10;  ///< of one direction of a link: taken from the outbox and not yet delivered
    std::uint32_t message_bytes_max = 1u << 20;
    std::uint64_t fail_allocation_at = 0;  ///< the allocation of this number (from 1) fails; 0: none does
};

/// What a simulated network counts.
struct SimStats {
    std::uint64_t violations = 0;  ///< of the contract, by whoever drives the ports
    const char* first_violation = "";
    std::uint64_t unregistered_remote = 0;  ///< reads and writes of remote memory with a local buffer without a key
    std::uint64_t allocations = 0;          ///< steps that fail_allocation_at counts
    std::size_t bytes_in_flight = 0;        ///< on the wire or in a device, not yet delivered
    std::size_t bytes_held = 0;             ///< of outboxes, with a device that is not done with them
    std::uint32_t device_buffers_held = 0;  ///< receive blocks that somebody keeps, also of ports that are gone
    std::uint32_t device_buffers_held_most = 0;
    std::uint64_t bytes_copied_out = 0;   ///< received by copy because too many receive blocks were held
    std::uint32_t links_open = 0;         ///< between connect or accept and closed
    std::uint32_t links_not_retired = 0;  ///< between connect or accept and retired
    std::uint64_t links_made = 0;
    std::uint64_t datagrams_lost = 0;
    std::uint64_t upcalls = 0;
};

/// One upcall as it happened.
struct SimTrace {
    std::int64_t at_ns;
    const char* upcall;
    std::uint64_t link;    ///< links are numbered from 1 as they are made
    std::uint64_t detail;  ///< bytes, or the error's code
};

/// A network in virtual time, and the devices on it. The newest one of a thread is what `sim://` means there.
/// Same seed, same calls: same events, in the same order. It must outlive the loops that use it. Thread: the one that
/// made it.
class SimNet {
public:
    explicit SimNet(const SimOptions& options = {});
    ~SimNet();
    SimNet(const SimNet&) = delete;
    SimNet& operator=(const SimNet&) = delete;

    /// The thread's newest, or null.
    static SimNet* current() noexcept;

    const SimOptions& options() const noexcept;
    /// Virtual time; starts at one second.
    std::int64_t now_ns() const noexcept;
    /// When something happens next; INT64_MAX: never, unless a port is called.
    std::int64_t next_event_ns() const noexcept;
    /// Moves the clock on. What falls due happens on the wire and in the devices; upcalls wait for Port::poll.
    void advance(Duration by);
    /// Moves the clock to the next event and lets it happen, with all others of that instant. False: there is none.
    bool step();
    /// A completion waits in some port.
    bool completions_waiting() const noexcept;
    /// Waits, in real time, until the registrar has answered what was asked of it for our domains; the only thing here
    /// that another thread does. False: not within `real_ms`.
    bool settle(unsigned real_ms = 1000) const noexcept;

    /// Cuts every open link, loudly (both ends hear reset) or silently.
    void cut_links();
    void silence_links();

    /// Walks all links and all that is under way.
    SimStats stats() const noexcept;
    /// SimStats::upcalls, at the cost of reading it.
    std::uint64_t upcalls() const noexcept;
    /// A digest of all upcalls so far: kind, link, detail, bytes and time.
    std::uint64_t trace_hash() const noexcept;
    /// `trace` is told of each upcall right before it is made. Null: nobody.
    void set_trace(void (*trace)(void* context, const SimTrace& event), void* context) noexcept;

private:
    friend struct sim::World;
    sim::World* world_;
    SimNet* previous_;
};

/// Schemes `sim` (mode=stream or msg) and `sim-dgram`, present on threads that have a SimNet.
Transport& sim_transport() noexcept;

}  // namespace evpl::transport
