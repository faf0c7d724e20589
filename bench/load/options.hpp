// What the load generator was asked to do.
#pragma once
#include <netinet/in.h>
#include <sys/types.h>

#include <cstdint>
#include <string>

namespace load {

struct Options {
    std::string mode;
    sockaddr_in target{};
    unsigned connections = 1;
    std::uint32_t size_bytes = 64;
    unsigned depth = 1;                     // requests in flight per connection (closed, udp)
    unsigned active = 10;                   // connections that ask at once (turns)
    std::uint64_t window_bytes = 1u << 20;  // bytes in flight per connection (stream)
    double gap_us = 1000;                   // between two requests over all connections (open)
    bool poisson = false;                   // exponential gaps instead of equal ones (open)
    double seconds = 1;
    double warmup_s = 0.2;
    std::uint64_t requests = 0;  // stop after exactly this many instead (closed)
    int pin_cpu = -1;
    bool spin = false;
    bool linger0 = false;  // reset instead of an orderly close (connect)
    bool gso = false;      // UDP_SEGMENT and UDP_GRO (udp)
    pid_t server_pid = 0;
    bool json = false;
};

/// Reads the command line; prints the usage and exits with 2 when it makes no sense.
Options parse_options(int argc, char** argv);

}  // namespace load
