// Goal: no text makes the parser or the option reader misbehave, and what they accept they can repeat.
// Method: parse, write the endpoint anew from its parts, parse again, compare; then read options of every type.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>

#include "evpl/endpoint.hpp"
#include "fuzz/require.hpp"
#include "transport/options.hpp"

namespace {

using namespace evpl;

using fuzz::require;

/// Paths are stored decoded: what would be read differently is encoded again.
std::string encoded(std::string_view path) {
    std::string text;
    for (const char c : path) {
        if (c == '%') text += "%25";
        else if (c == '?') text += "%3f";
        else text += c;
    }
    return text;
}

std::string rewritten(const Endpoint& endpoint) {
    const std::string_view scheme = endpoint.scheme(), host = endpoint.host();
    const bool is_path = scheme == "unix" || scheme == "uring-unix" || scheme == "inproc";
    const bool is_ipv6 = !is_path && host.find(':') != std::string_view::npos;
    std::string text = std::string(scheme) + "://";
    text += is_path ? encoded(host) : is_ipv6 ? "[" + std::string(host) + "]" : std::string(host);
    if (endpoint.has_port()) text += ":" + std::to_string(endpoint.port());
    if (!endpoint.query().empty()) text += "?" + std::string(endpoint.query());
    return text;
}

void check_round_trip(const Endpoint& endpoint) {
    const std::string text = rewritten(endpoint);
    if (text.size() > Endpoint::text_bytes_max) return;  // encoding made it longer
    const Result<Endpoint> again = Endpoint::parse(text);
    require(again.ok());
    require(again->scheme() == endpoint.scheme() && again->host() == endpoint.host() && again->query() == endpoint.query());
    require(again->has_port() == endpoint.has_port() && again->port() == endpoint.port());
}

void check_accessors(const Endpoint& endpoint) {
    require(!endpoint.scheme().empty() && !endpoint.host().empty());
    std::string_view rest = endpoint.query();
    while (!rest.empty()) {
        const std::size_t end = rest.find('&');
        const std::string_view item = rest.substr(0, end);
        require(endpoint.option(item.substr(0, item.find('='))).data() != nullptr);
        rest = end == std::string_view::npos ? std::string_view{} : rest.substr(end + 1);
    }
}

void check_options(const Endpoint& endpoint) {
    bool flag = false;
    std::uint16_t hops = 64;
    std::uint32_t backlog = 128;
    std::uint64_t window = 4096;
    std::int64_t offset = 0;
    Duration idle = 60_s;
    std::string_view device = "lo", mode = "stream";
    using transport::OptionSpec;
    const OptionSpec specs[] = {
        OptionSpec::flag("nodelay", flag, ""),
        OptionSpec::integer("hops", hops, 1, 255, ""),
        OptionSpec::integer("backlog", backlog, 1, 65535, ""),
        OptionSpec::bytes("window", window, 1, std::int64_t(1) << 40, ""),
        OptionSpec::integer("offset", offset, INT64_MIN, INT64_MAX, ""),
        OptionSpec::duration("idle", idle, 1_ms, Duration::forever(), ""),
        OptionSpec::text("device", device, 1, 15, ""),
        OptionSpec::choice("mode", mode, "stream|msg", ""),
    };
    Diagnostic why;
    const Result<void> result = transport::read_options(endpoint, specs, why);
    require(result.ok() || result.error() == Errc::unknown_option || result.error() == Errc::bad_option);
    require(result.ok() == (why.text[0] == '\0'));
    require(std::memchr(why.text, '\0', sizeof why.text) != nullptr);
    require(hops >= 1 && hops <= 255 && backlog >= 1 && backlog <= 65535 && window >= 1 && window <= std::uint64_t(1) << 40);
    require(idle >= 1_ms && !device.empty() && device.size() <= 15 && (mode == "stream" || mode == "msg"));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view url(reinterpret_cast<const char*>(data), size);
    Diagnostic why;
    const Result<Endpoint> endpoint = Endpoint::parse(url, &why);
    require(std::memchr(why.text, '\0', sizeof why.text) != nullptr);
    if (!endpoint) {
        require(endpoint.error() == Errc::bad_endpoint && why.text[0] != '\0');
        for (const char c : why.view()) require(static_cast<unsigned char>(c) >= 0x20);
        return 0;
    }
    require(why.text[0] == '\0');
    check_accessors(*endpoint);
    check_round_trip(*endpoint);
    check_options(*endpoint);
    return 0;
}
