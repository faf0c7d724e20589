#pragma once

#include <netinet/udp.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <cstdint>
#include <memory>

#include "evpl/address.hpp"
#include "memory/heap.hpp"
#include "transport/common/sockets/address_bytes.hpp"
#include "transport/queue.hpp"

namespace evpl::transport::socket {

/// Most bytes that may leave as one segmented send: 65535 (RFC 791) less the headers of IPv6 (40) and UDP (8).
inline constexpr std::uint32_t train_bytes_max = 65'487;
/// Most datagrams in one: UDP_MAX_SEGMENTS of Linux 4.18; later kernels take 128.
inline constexpr std::uint32_t train_datagrams_max = 64;

/// Receiving a datagram counts as so many bytes of the batch on top of its own: a system call's share, route and headers.
inline constexpr std::uint32_t datagram_cost_bytes = 1024;

/// What a datagram socket has beyond a link.
struct DatagramExtra {
    bool connected = false;
    bool ipv6 = false;                ///< the socket's family
    bool packet_info = false;         ///< bound to a wildcard: the kernel tells with each datagram where it was sent to
    bool segments = false;            ///< equal sizes leave as one send (UDP_SEGMENT), until the kernel refuses
    bool asked_for_room = false;      ///< EPOLLOUT is among the watched events
    std::uint16_t control_bytes = 0;  ///< room for what the kernel tells with each datagram; 0: it tells nothing
    std::uint32_t usual_bytes = 0;    ///< of the largest datagrams lately
    Address local;                    ///< where datagrams are sent to; with packet_info only the port counts

    std::uint32_t segment_bytes_max = train_bytes_max;  ///< larger ones were refused: above the path MTU
    std::uint32_t plain_datagrams = 0;                  ///< so many at the front of the outbox are sent one by one: their train was refused
    std::uint32_t suspect_bytes = 0;                    ///< segment size of the train that was refused with
    int suspect_error = 0;                              ///< this: proven when its datagrams pass one by one
    int repeated_error = 0;                             ///< the front was refused with this and is tried once more
};

/// recvmmsg(2) prepared once for all datagram links of a port.
///
/// A legal datagram, or a train merged by UDP_GRO, has up to 65,527 bytes, so each of the slots is a block of 64 KiB: nothing is
/// ever cut. What arrived small is copied to the port's shared block, so that the slots are the same few again in the next call
/// and a kept small datagram does not pin 64 KiB; what arrived large is handed over with its block, and the slot gets another one.
/// The slots of a port hold one slab (2 MiB) while it lives: without huge pages only touched pages of it are resident.
struct DatagramReceive {
    static constexpr unsigned slots_max = 32;
    static constexpr std::uint32_t slot_bytes = 64u << 10;
    /// One slot's worth of IPV6_PKTINFO (40) and UDP_GRO (24), rounded up.
    static constexpr std::uint16_t control_bytes_max = 96;

    /// Up to `wanted` slots ready for a recvmmsg; 0: out of buffers.
    unsigned prepare(memory::Heap& heap, const DatagramExtra& extra, unsigned wanted) noexcept;
    /// The block of slot i, with its first `size` bytes.
    Buffer hand_over(unsigned i, std::uint32_t size) noexcept;

    mmsghdr messages[slots_max];
    SocketAddress sources[slots_max];
    alignas(cmsghdr) char control[slots_max][control_bytes_max];

    unsigned used = slots_max;  ///< so many headers were overwritten by the last call
private:
    unsigned filled_ = 0;  // slots before this one have a block
    bool connected_ = false;
    std::uint16_t control_bytes_ = 0;
    iovec vectors_[slots_max];
    Buffer blocks_[slots_max];
};

/// sendmmsg(2) prepared once for all datagram links of a port.
struct DatagramSend {
    static constexpr unsigned messages_max = 64;
    static constexpr unsigned vectors_max = 1024;  ///< also the kernel's limit for one message (UIO_MAXIOV)

    /// One message of a call: a datagram, or several of equal size to one destination, the last may be smaller.
    struct Train {
        std::uint32_t datagrams;
        std::uint32_t slices;
        std::uint32_t bytes;
        std::uint32_t segment_bytes;
        bool open;  ///< may take another one
    };

    DatagramSend() noexcept;
    /// Lines up what stands at the front of `out`. 0: its first datagram has more pieces than a message may have.
    unsigned gather(const SendQueue& out, const DatagramExtra& extra) noexcept;

    mmsghdr messages[messages_max];
    Train trains[messages_max];

private:
    void start(unsigned index, std::uint32_t size, const Address* to, bool same_target, bool open, const DatagramExtra& extra) noexcept;
    void append(unsigned index, const Buffer& slice) noexcept;

    unsigned vectors_used_ = 0;
    unsigned targets_used_ = 0;
    iovec vectors_[vectors_max];
    SocketAddress targets_[messages_max];
    alignas(cmsghdr) char control_[messages_max][CMSG_SPACE(sizeof(std::uint16_t))];
};

/// Both, made with the first datagram link.
struct DatagramBatch {
    DatagramReceive in;
    DatagramSend out;
};

}  // namespace evpl::transport::socket
