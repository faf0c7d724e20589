#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#pragma GCC visibility push(default)
namespace evpl {

/// What a transport carries.
enum class Kind : std::uint8_t { stream, message, datagram };

/// What one link can do. They belong to a device and link: ask Connection::caps().
struct Caps {
    Kind kind = Kind::stream;                  ///< what it carries
    bool half_close = false;                   ///< shutdown() ends one direction, the other goes on
    bool receive_pause = false;                ///< a reader that does not read stops the sender; else receive_limit ends the link
    bool rma = false;                          ///< remote memory: expose, read, write
    bool descriptors = false;                  ///< descriptor passing
    bool credentials = false;                  ///< peer credentials
    bool multicast = false;                    ///< groups can be joined
    bool segmentation = false;                 ///< equal-size datagrams to one peer leave and arrive in batches (GSO, GRO)
    bool zero_copy_send = false;               ///< large sends leave by reference
    bool zero_copy_receive = false;            ///< received bytes reach the application without a copy in user space
    bool simulated_time = false;               ///< lives in virtual time (the simulated port)
    bool remote_tells = false;                 ///< a write to remote memory may tell the peer: write_telling
    bool remote_atomics = false;               ///< numbers in remote memory can be changed: fetch_add, compare_swap
    bool remote_invalidate = false;            ///< a message may take back what its receiver exposed: send_invalidating
    std::uint32_t message_bytes_max = 0;       ///< message, datagram: the largest one; 0 on streams
    std::uint32_t inline_bytes_max = 0;        ///< up to here: copied into the work request
    std::uint32_t copy_bytes_max = 0;          ///< up to here: copied into a registered block; beyond: by reference
    std::uint32_t private_data_bytes_max = 0;  ///< of what may go with connect, accept or reject: set_private_data; 0: nothing
    std::uint32_t remote_reads_max = 0;        ///< reads that the peer serves at a time, as negotiated; further ones wait. 0: not limited, or no rma
};

/// One transport of this library on this machine.
struct TransportInfo {
    std::string_view scheme;   ///< of its URLs: "tcp"
    std::string_view summary;  ///< one line: what it is
    bool present = false;      ///< can be used here
    std::string_view reason;   ///< why it is absent, or what it found
    std::string_view remedy;   ///< what would make it present; empty when present
    Caps caps;                 ///< the best a link of it can have here
};

/// All transports the library knows, present or not, in a fixed order. Probes on the first call.
/// Thread: any. Cost: the first call may take milliseconds.
std::span<const TransportInfo> transports() noexcept;

}  // namespace evpl
#pragma GCC visibility pop
