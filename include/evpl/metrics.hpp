#pragma once

#include <cstdint>

#pragma GCC visibility push(default)
namespace evpl {

/// Counters since the loop, listener or connection was made. Plain numbers, one writer; read them on the loop's thread.
struct LoopMetrics {
    std::uint64_t turns = 0;              ///< rounds of polling, waiting and calling back
    std::uint64_t empty_polls = 0;        ///< turns that found nothing to do
    std::uint64_t sleeps = 0;             ///< waits in the kernel
    std::uint64_t busy_ns = 0;            ///< time in turns that did something; excludes empty polling and sleep
    std::uint64_t doorbell_writes = 0;    ///< system calls that woke another loop
    std::uint64_t posts_run = 0;          ///< tasks from post()
    std::uint64_t timers_fired = 0;       ///< callbacks of timers
    std::uint64_t received_bytes = 0;     ///< by all connections and sockets
    std::uint64_t sent_bytes = 0;         ///< given to the system or device
    std::uint64_t received_messages = 0;  ///< deliveries: reads, messages or datagrams
    std::uint64_t flushes = 0;            ///< times that an outbox was given to a port
    std::uint64_t accepted = 0;           ///< connections from listeners
    std::uint64_t closed = 0;             ///< connections that had their on_close
    std::uint64_t connections_open = 0;   ///< now, not since the start
    std::uint64_t accept_pauses = 0;      ///< out of descriptors or memory: accepting waited
    std::uint64_t stalls = 0;             ///< turns longer than LoopOptions::stall
    std::uint64_t longest_turn_ns = 0;    ///< callbacks included, sleep excluded
    std::uint64_t compacted_bytes = 0;    ///< copied so that a small slice does not pin a large block
    std::uint64_t buffers_out = 0;        ///< blocks in use
    std::uint64_t slab_bytes = 0;         ///< memory held by this loop
    std::uint64_t fallbacks = 0;          ///< connects and listeners that the kernel serves because their own device cannot
};

/// Of one listener, since it was made.
struct ListenerMetrics {
    std::uint64_t accepted = 0;       ///< connections that opened
    std::uint64_t refused = 0;        ///< by the factory or for lack of memory
    std::uint64_t open = 0;           ///< now
    std::uint64_t accept_pauses = 0;  ///< out of descriptors or memory
};

/// Of one connection, since it was made.
struct ConnectionMetrics {
    std::uint64_t received_bytes = 0;  ///< since it opened
    std::uint64_t sent_bytes = 0;      ///< given to the system or device
    std::uint64_t queued_bytes = 0;    ///< in the outbox now
    std::uint64_t unread_bytes = 0;    ///< in the inbox now
    std::uint64_t pinned_bytes = 0;    ///< of the blocks that unread bytes hold
    std::uint64_t receive_pauses = 0;  ///< times that reading stopped at limits().receive
    std::uint64_t send_pauses = 0;     ///< times that the high-water mark was reached
};

/// Of one datagram socket, since it was made.
struct DatagramMetrics {
    std::uint64_t received_packets = 0;   ///< delivered to the inbox
    std::uint64_t received_bytes = 0;     ///< of these
    std::uint64_t sent_packets = 0;       ///< given to the system
    std::uint64_t sent_bytes = 0;         ///< of these
    std::uint64_t dropped_packets = 0;    ///< refused at the hard limit, or unread beyond the receive limit
    std::uint64_t truncated_packets = 0;  ///< larger than a receive block
    std::uint64_t send_errors = 0;        ///< told by on_error
};

}  // namespace evpl
#pragma GCC visibility pop
