// Sockets of the load generator: cubic (bbr paces with timers and doubles the noise), NODELAY,
// not blocking. And the byte pattern everything sent consists of.
#pragma once
#include <netinet/in.h>

#include <cstddef>
#include <cstdint>

#include "options.hpp"

namespace load {

/// Prints the sentence with errno when it is set, exits with 1.
[[noreturn]] void fail(const char* what);

std::int64_t now_ns();

/// A TCP socket bound to the client address of this index. 127.0.1.1 to 127.0.1.250 take turns, so
/// that ports in TIME_WAIT do not run out. Only for targets on 127/8; otherwise unbound.
int tcp_socket(const Options& options, std::uint64_t index);

/// A connected UDP socket with large buffers, and with UDP_GRO when options.gso.
int udp_socket(const Options& options);

/// Starts to connect; true when connected or under way.
bool start_connect(int fd, const sockaddr_in& target);

/// SO_ERROR of a connect that was under way.
int connect_error(int fd);

/// Byte p of a stream is pattern()[p % pattern_period]; readable from any offset below the period
/// for pattern_run bytes. A prime period, so that no block size lines up with it.
inline constexpr std::size_t pattern_period = 4093;
inline constexpr std::size_t pattern_run = 256 * 1024;
const char* pattern();

/// Ends the program unless these bytes are what was sent at that stream position. Looks at all of a
/// small piece, at both ends and the middle of a large one.
void verify(const char* bytes, std::size_t size, std::uint64_t position);

}  // namespace load
