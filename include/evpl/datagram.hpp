#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "evpl/address.hpp"
#include "evpl/buffer.hpp"
#include "evpl/connection.hpp"

#pragma GCC visibility push(default)
namespace evpl {

struct DatagramMetrics;

/// One received datagram.
struct Packet {
    Buffer bytes;            ///< its contents
    Address from;            ///< who sent it
    Address to;              ///< where it was sent to (packet info); family none when unknown
    bool truncated = false;  ///< it was larger than the receive block; the rest is lost
};

/// Names a datagram socket without keeping it, like ConnectionRef.
class DatagramRef {
public:
    constexpr DatagramRef() noexcept = default;
    /// Null once it is closed or its loop has ended. Thread: the owning loop's.
    Datagram* get() const noexcept;
    friend bool operator==(const DatagramRef&, const DatagramRef&) noexcept = default;

private:
    friend struct CoreAccess;
    core::LoopControl* control_ = nullptr;
    std::uint32_t slot_ = 0;
    std::uint32_t generation_ = 0;
};

/// A datagram socket, connected to one peer or not. The loop owns it; a reference is valid until its on_close returns.
/// A send that fails never closes it: on_error tells. All calls belong on the loop's thread.
class Datagram {
public:
    Datagram(const Datagram&) = delete;
    Datagram& operator=(const Datagram&) = delete;

    /// The loop that owns it. Thread: its own. Cost: none.
    Loop& loop() const noexcept;
    /// A name that outlives the socket. Cost: none.
    DatagramRef ref() const noexcept;
    /// The scheme in use, "udp" for a dgram:// endpoint.
    std::string_view transport() const noexcept;
    /// What it can do.
    const Caps& caps() const noexcept;
    /// From bind() or on_open until the end.
    bool is_open() const noexcept;
    /// As bound. The wildcard address when it is bound to that.
    Address local_address() const noexcept;
    /// The peer of a connected socket; family none otherwise.
    Address remote_address() const noexcept;
    /// As really bound, e.g. "udp://127.0.0.1:40001". Valid until on_close.
    std::string_view url() const noexcept;
    /// A kernel descriptor to look at (getsockopt), -1 when there is none. It stays the library's.
    int native_fd() const noexcept;
    /// Its counters, now. Cost: copies a few numbers.
    DatagramMetrics metrics() const noexcept;

    /// The next datagram, or one with empty bytes and family none in `from` when there is none: `while (auto p = peer.recv())` does
    /// not work for empty datagrams, so has_packet() asks. Cost: no copy.
    bool has_packet() const noexcept;
    /// The next datagram; see has_packet().
    Packet recv() noexcept;

    /// Queues one datagram; it leaves at the end of the turn, equal sizes to one peer as one batch where the system can.
    /// pause: the outbox is at its high-water mark. Past the hard limit the datagram is dropped, counted, and the answer is
    /// refused(send_limit). too_large: above caps().message_bytes_max. misuse: closed, or no peer.
    Flow send_to(const Address& to, Buffer bytes) noexcept;
    /// The same; copies the bytes into a block of the loop.
    Flow send_to(const Address& to, std::span<const std::byte> bytes) noexcept;
    /// To the peer of a connected socket. Otherwise as send_to().
    Flow send(Buffer bytes) noexcept;
    /// The same; copies the bytes into a block of the loop.
    Flow send(std::span<const std::byte> bytes) noexcept;
    /// The same; copies the text.
    Flow send(std::string_view text) noexcept { return send(std::as_bytes(std::span(text.data(), text.size()))); }
    /// Bytes taken and not yet given to the system.
    std::size_t queued() const noexcept;
    /// Sends what is queued now instead of at the end of the turn.
    void flush() noexcept;

    /// Joins or leaves a multicast group on the interface that has address `interface` (none: the system's choice).
    /// Errors: not_supported, and those of setsockopt(2) IP_ADD_MEMBERSHIP.
    Result<void> join(const Address& group, const Address& interface = {}) noexcept;
    /// Leaves the group. Errors: as join().
    Result<void> leave(const Address& group, const Address& interface = {}) noexcept;

    /// How much may wait in its queues.
    const QueueLimits& limits() const noexcept;
    /// Changes them for this socket, at once.
    void set_limits(const QueueLimits& limits) noexcept;

    /// Drops what is queued and closes; on_close(closed) follows at the end of the turn.
    void close() noexcept;

protected:
    Datagram() noexcept = default;
    ~Datagram() = default;
};

namespace detail {
Result<DatagramRef> bind(Loop& loop, std::string_view url, DatagramFactory factory) noexcept;
Result<DatagramRef> connect_datagram(Loop& loop, std::string_view url, DatagramFactory factory, Limit limit) noexcept;
}  // namespace detail

/// Opens a datagram socket bound to `url`. `handler` as in connect(). It is open when this returns.
/// Errors: as listen().
template <class H>
Result<DatagramRef> bind(Loop& loop, std::string_view url, H&& handler) {
    return detail::bind(loop, url, detail::factory_of<DatagramTable, Datagram>(std::forward<H>(handler)));
}
/// Opens a datagram socket connected to `url` (on_open comes when the name is resolved). Errors: as connect().
template <class H>
Result<DatagramRef> connect_datagram(Loop& loop, std::string_view url, H&& handler, Limit limit = {}) {
    return detail::connect_datagram(loop, url, detail::factory_of<DatagramTable, Datagram>(std::forward<H>(handler)), limit);
}

}  // namespace evpl
#pragma GCC visibility pop
