#pragma once

#include <cstdint>

#include "base/option.hpp"
#include "evpl/address.hpp"
#include "evpl/endpoint.hpp"
#include "evpl/result.hpp"

namespace evpl::transport::socket {

enum class Flavor : std::uint8_t { tcp, unix_stream, unix_message, udp };

/// What an endpoint's query may say. Defaults are what a server on the open network wants.
struct Options {
    bool nodelay = true;
    bool keepalive = true;
    std::int64_t keepalive_idle_s = 10;     ///< first probe after so much silence,
    std::int64_t keepalive_interval_s = 1;  ///< then so often: a crowd's probes are lost together, each needs many tries (decision 0065)
    std::int64_t silent_after_ms = 25'000;  ///< given up at the first probe past this. 0: after 45 s of probes, nine at least
    std::int64_t send_buffer_bytes = 0;     ///< 0: the kernel sizes it by itself
    std::int64_t receive_buffer_bytes = 0;
    std::int64_t type_of_service = -1;
    std::int64_t backlog = 0;      ///< 0: net.core.somaxconn
    char congestion[16] = {};      ///< empty: the system's default
    bool zero_copy = false;        ///< MSG_ZEROCOPY for large sends, given up when the kernel copies anyway
    bool message_mode = false;     ///< unix: mode=msg
    bool reuse_port = false;       ///< several sockets on one address (SO_REUSEPORT)
    std::int64_t descriptor = -1;  ///< listeners: of a socket that listens already
    std::int64_t unlink = 1;       ///< unix: remove a stale socket file before bind, and ours after
    bool segmentation = true;      ///< udp: GSO and GRO where the kernel has them
    Address multicast_interface;   ///< udp: multicast leaves by the interface that has this address; none: by its route
    std::int64_t multicast_ttl = -1;
    bool multicast_loop = true;
    bool broadcast = false;
};

/// What an endpoint, or the settings `uring.*`, wish of the ring that drives its loop's sockets.
struct RingWishes {
    std::uint32_t tier = 2;
    std::uint32_t entries = 256;
    Duration min_wait;
    static constexpr std::size_t count = 3;
    /// Errors: bad_option.
    static Result<RingWishes> read(const Endpoint& endpoint, Diagnostic& why) noexcept;
    std::size_t describe(base::OptionSpec* specs) noexcept;
};

/// Errors: unknown_option, bad_option.
Result<Options> parse_options(const Endpoint& endpoint, Flavor flavor, Diagnostic& why) noexcept;

/// Sets on a fresh socket what a connection of these options needs; accepted sockets inherit it from their listener.
/// Errors: bad_option (named in `why`), those of setsockopt(2).
Result<void> apply_options(int fd, Flavor flavor, bool ipv6, const Options& options, Diagnostic& why) noexcept;

/// The number of the interface that has this address; 0: none.
unsigned interface_number(const Address& interface) noexcept;

}  // namespace evpl::transport::socket
