#pragma once

#include <cstdint>

#include "evpl/address.hpp"
#include "evpl/duration.hpp"
#include "evpl/endpoint.hpp"
#include "evpl/result.hpp"
#include "evpl/transport_info.hpp"

namespace evpl::transport::rdma {

/// What an endpoint's query may say.
struct Options {
    bool is_message = false;
    bool is_raw = false;                                      ///< one message is one SEND, and nothing of ours beside it
    Address source;                                           ///< connect from this address, and so from the device that has it; none: by the route
    std::uint32_t block_bytes = 8192;                         ///< of a receive block: the largest SEND that we take
    std::uint32_t receives = 32;                              ///< raw: receives of a connection of its own
    std::uint32_t window = 32;                                ///< SENDs that a busy peer may have under way to us
    std::uint32_t depth = 128;                                ///< work requests of a queue pair
    std::uint32_t inline_bytes = 220;                         ///< wished for; the device may give less
    std::int64_t traffic_class = -1;                          ///< -1: the system decides
    std::int64_t gid_index = -1;                              ///< of the port's table; -1: the manager chooses by address
    std::int64_t service_level = -1;                          ///< -1: the manager's choice
    std::uint32_t mtu = 0;                                    ///< bytes of payload per packet, the same at both ends; 0: the way's own
    std::int64_t ack_timeout = -1;                            ///< 4.096 us * 2^n until a retry (InfiniBand Architecture Specification 1.4, 9.7.6.1.3)
    std::uint32_t retry = 7;                                  ///< retries without an answer, 7 at the most
    std::uint32_t rnr_retry = 6;                              ///< retries at a receiver that is not ready; 7 would mean for ever
    std::uint32_t reads = 16;                                 ///< remote reads under way per direction
    Duration silent_after = Duration::of_ns(15'000'000'000);  ///< an idle link is probed so often; zero: never

    /// Something that the connection manager does not ask us about.
    bool chooses_path() const noexcept { return gid_index >= 0 || service_level >= 0 || mtu != 0; }

    /// Errors: unknown_option, bad_option.
    static Result<Options> read(const Endpoint& endpoint, Diagnostic& why) noexcept;
};

/// What an endpoint of datagrams may say.
struct UdOptions {
    bool is_raw = false;  ///< peers that are not ours: each is known by its queue pair instead of a port number
    /// Errors: unknown_option, bad_option.
    static Result<UdOptions> read(const Endpoint& endpoint, Diagnostic& why) noexcept;
};

/// Largest message: longer ones end their link with too_large.
inline constexpr std::uint32_t message_bytes_most = 16u << 20;

/// What the connection manager carries on RoCE and InfiniBand (InfiniBand Architecture Specification 1.4, 12.6): with a connect 92 bytes,
/// of which the address translation takes 36 (annex A11); with a reject 148, with an accept 196. Who accepts has not decided yet.
inline constexpr std::uint32_t private_connect_most = 56, private_answer_most = 148;

/// `accepts`: of a link whose peer has connected.
Caps caps_of(const Options& options, std::uint32_t inline_bytes, bool accepts = false) noexcept;

}  // namespace evpl::transport::rdma
