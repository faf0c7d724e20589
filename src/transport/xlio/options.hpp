#pragma once

#include <cstdint>

#include "evpl/duration.hpp"
#include "evpl/endpoint.hpp"
#include "evpl/result.hpp"
#include "evpl/transport_info.hpp"

namespace evpl::transport::xlio {

/// What an endpoint's query may say. What tcp has is understood, so that stream:// may choose either.
struct Options {
    bool nodelay = true;
    bool keepalive = true;
    Duration keepalive_idle = Duration::of_ns(10'000'000'000);
    Duration keepalive_interval = Duration::of_ns(1'000'000'000);
    Duration silent_after = Duration::of_ns(25'000'000'000);
    std::int64_t send_buffer_bytes = 0;
    std::int64_t receive_buffer_bytes = 0;
    std::int64_t type_of_service = -1;
    char congestion[16] = {};
    std::uint32_t window_bytes = 2u << 20;  ///< sent and not acknowledged, at the most: the stack itself has no bound
    std::uint32_t inline_bytes = 128;       ///< up to here copied into the stack, beyond by reference

    /// Of the stack's receive buffers, a loop's programs hold so much at the most (`xlio.held`); beyond it bytes are copied. The stack's
    /// pool is the process's, it opens its window before we have the bytes, and drops packets when the pool is empty.
    static std::size_t held_bytes() noexcept;
    /// Errors: unknown_option, bad_option.
    static Result<Options> read(const Endpoint& endpoint, Diagnostic& why) noexcept;
};

Caps caps_of(const Options& options) noexcept;

}  // namespace evpl::transport::xlio
