#include "text.hpp"

#include <sys/resource.h>
#include <cstdio>

#include <fmt/format.h>
#include <evpl/endpoint.hpp>
#include <evpl/transport_info.hpp>

namespace tool {

int fail(std::string_view sentence) {
    fmt::print(stderr, "evpl: {}\n", sentence);
    return exit_failure;
}

std::string text_of(evpl::Error error) {
    char text[256];
    return {text, error.describe(text, sizeof text)};
}

std::string reason_of(const evpl::Loop& loop, evpl::Error error) {
    const std::string_view said = loop.last_failure();
    return said.empty() ? text_of(error) : std::string(said);
}

std::string grouped(std::uint64_t number) {
    std::string text = std::to_string(number);
    for (std::size_t at = text.size(); at > 3; at -= 3) text.insert(at - 3, 1, ',');
    return text;
}

/// Three significant digits.
static std::string three(double value) { return fmt::format("{:.{}f}", value, value < 9.995 ? 2 : value < 99.95 ? 1 : 0); }

std::string time_text(double ns) {
    if (ns < 999.5) return fmt::format("{:.0f} ns", ns);
    if (ns < 999.5e3) return three(ns / 1e3) + " us";
    if (ns < 999.5e6) return three(ns / 1e6) + " ms";
    return three(ns / 1e9) + " s";
}

std::string size_text(std::uint64_t bytes) {
    if (bytes > 0 && bytes % (1 << 20) == 0) return grouped(bytes >> 20) + " MiB";
    if (bytes > 0 && bytes % (1 << 10) == 0) return grouped(bytes >> 10) + " KiB";
    return grouped(bytes) + " B";
}

std::string counted(std::uint64_t n, std::string_view noun) { return fmt::format("{} {}{}", grouped(n), noun, n == 1 ? "" : "s"); }

const char* name_of(evpl::Mode mode) noexcept { return mode == evpl::Mode::poll ? "poll" : mode == evpl::Mode::event ? "event" : "hybrid"; }

bool is_datagram(std::string_view url) {
    const std::string_view scheme = url.substr(0, url.find("://"));
    if (scheme == "dgram") return true;
    for (const evpl::TransportInfo& one : evpl::transports())
        if (one.scheme == scheme) return one.caps.kind == evpl::Kind::datagram;
    return false;
}

void raise_descriptor_limit() noexcept {
    rlimit limit{};
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);  // best effort: without it the server accepts fewer peers, and goes on
}

}  // namespace tool
