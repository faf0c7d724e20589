#include "options.hpp"

#include <arpa/inet.h>

#include <cstdio>
#include <cstdlib>
#include <string_view>

namespace load {
namespace {

constexpr const char* usage_text =
    R"(usage: load MODE --target HOST:PORT [options]
modes
  closed    C connections, D requests of S bytes in flight on each; latency per request
  turns     A of C connections ask at once; when all are answered, the next A ask
  open      a request every --gap-us, whatever the server does; latency from the intended time
  stream    C connections pump S-byte blocks both ways, --window bytes in flight on each
  connect   connect, one echo, close, over and over; C at a time
  udp       closed loop over datagrams, D in flight on each of C sockets
  hold      open C connections, one echo each, then stay silent; server CPU and memory
options
  --connections C (1)   --size S (64)       --depth D (1)        --window BYTES (1048576)
  --gap-us US (1000)    --rate PER_S        --poisson            --requests N (closed: stop after N)
  --active A (10)
  --seconds T (1)       --warmup T (0.2)    --pin CPU            --spin
  --server-pid PID      --linger0           --gso                --json
)";

[[noreturn]] void usage(const char* complaint, std::string_view what = {}) {
    if (complaint) std::fprintf(stderr, "load: %s %.*s\n", complaint, int(what.size()), what.data());
    std::fputs(usage_text, stderr);
    std::exit(2);
}

sockaddr_in parse_target(const std::string& text) {
    const auto colon = text.rfind(':');
    sockaddr_in address{};
    address.sin_family = AF_INET;
    if (colon == std::string::npos || inet_pton(AF_INET, text.substr(0, colon).c_str(), &address.sin_addr) != 1) usage("--target wants IPV4:PORT, not", text);
    address.sin_port = htons(std::uint16_t(std::atoi(text.c_str() + colon + 1)));
    return address;
}

bool known_mode(std::string_view mode) {
    for (std::string_view one : {"closed", "turns", "open", "stream", "connect", "udp", "hold"})
        if (mode == one) return true;
    return false;
}

void check(const Options& o) {
    if (!known_mode(o.mode)) usage("unknown mode", o.mode);
    if (o.target.sin_port == 0) usage("--target is missing");
    if (o.connections == 0 || o.size_bytes == 0 || o.depth == 0 || o.seconds <= 0 || o.gap_us <= 0) usage("counts, sizes and times are greater than zero");
    if (o.mode == "udp" && (o.size_bytes < 8 || o.size_bytes > 1472)) usage("udp: --size is 8 to 1472");
    if (o.mode == "stream" && o.window_bytes < o.size_bytes) usage("stream: --window is at least --size");
    if (o.mode == "turns" && (o.active == 0 || o.active > o.connections)) usage("turns: --active is 1 to --connections");
    if (o.requests && o.mode != "closed") usage("--requests goes with closed");
}

}  // namespace

Options parse_options(int argc, char** argv) {
    if (argc < 2) usage(nullptr);
    Options o;
    o.mode = argv[1];
    int i = 2;
    const auto value = [&]() -> const char* { return i + 1 < argc ? argv[++i] : (usage("a value is missing after", argv[i]), nullptr); };
    for (; i < argc; ++i) {
        const std::string_view name = argv[i];
        if (name == "--target") o.target = parse_target(value());
        else if (name == "--connections") o.connections = unsigned(std::atoi(value()));
        else if (name == "--size") o.size_bytes = std::uint32_t(std::atoi(value()));
        else if (name == "--depth") o.depth = unsigned(std::atoi(value()));
        else if (name == "--active") o.active = unsigned(std::atoi(value()));
        else if (name == "--window") o.window_bytes = std::strtoull(value(), nullptr, 10);
        else if (name == "--gap-us") o.gap_us = std::atof(value());
        else if (name == "--rate") o.gap_us = 1e6 / std::atof(value());
        else if (name == "--poisson") o.poisson = true;
        else if (name == "--requests") o.requests = std::strtoull(value(), nullptr, 10);
        else if (name == "--seconds") o.seconds = std::atof(value());
        else if (name == "--warmup") o.warmup_s = std::atof(value());
        else if (name == "--pin") o.pin_cpu = std::atoi(value());
        else if (name == "--spin") o.spin = true;
        else if (name == "--linger0") o.linger0 = true;
        else if (name == "--gso") o.gso = true;
        else if (name == "--server-pid") o.server_pid = std::atoi(value());
        else if (name == "--json") o.json = true;
        else usage("unknown option", name);
    }
    check(o);
    return o;
}

}  // namespace load
