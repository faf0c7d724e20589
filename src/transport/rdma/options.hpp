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
    Address source;                        ///< connect from this address, and so from the device that has it; none: by the route
    std::uint32_t block_bytes = 8192;      ///< of a receive block: the largest SEND that we take
    std::uint32_t window = 32;             ///< SENDs that a busy peer may have under way to us
    std::uint32_t depth = 128;             ///< work requests of a queue pair
    std::uint32_t inline_bytes = 220;      ///< wished for; the device may give less
    std::int64_t traffic_class = -1;       ///< -1: the system decides
    std::int64_t ack_timeout = -1;         ///< 4.096 us * 2^n until a retry (InfiniBand Architecture Specification 1.4, 9.7.6.1.3)
    std::uint32_t retry = 7;               ///< retries without an answer, 7 at the most
    std::uint32_t rnr_retry = 6;           ///< retries at a receiver that is not ready; 7 would mean for ever
    std::uint32_t reads = 16;              ///< remote reads under way per direction
    Duration silent_after = Duration::of_ns(15'000'000'000);  ///< an idle link is probed so often; zero: never

    /// Errors: unknown_option, bad_option.
    static Result<Options> read(const Endpoint& endpoint, Diagnostic& why) noexcept;
};

/// Largest message: longer ones end their link with too_large.
inline constexpr std::uint32_t message_bytes_most = 16u << 20;

Caps caps_of(const Options& options, std::uint32_t inline_bytes) noexcept;

}  // namespace evpl::transport::rdma
