#include "transport/xlio/options.hpp"

#include <cstring>

#include "base/settings.hpp"
#include "transport/options.hpp"

namespace evpl::transport::xlio {

namespace {

constexpr std::uint64_t held_bytes_usual = 32u << 20;

OptionSpec held_spec(std::uint64_t& held) noexcept {
    return OptionSpec::bytes("held", held, 0, std::int64_t(1) << 40, "received bytes in the stack's own buffers, per loop; only as a setting");
}

}  // namespace

std::size_t Options::held_bytes() noexcept {
    std::uint64_t held = held_bytes_usual;
    if (const base::Setting* set = base::settings().find("xlio", "held")) base::read_value(held_spec(held), set->value);
    return std::size_t(held);
}

Result<Options> Options::read(const Endpoint& endpoint, Diagnostic& why) noexcept {
    Options o;
    constexpr std::int64_t buffer_most = 1 << 30;
    std::string_view congestion, library, probe, engine;
    bool unused_flag = true;
    std::int64_t unused = 0;
    std::uint64_t held = held_bytes_usual;
    const OptionSpec specs[] = {
        OptionSpec::flag("nodelay", o.nodelay, "send small messages at once (TCP_NODELAY)"),
        OptionSpec::flag("keepalive", o.keepalive, "probe a silent peer (SO_KEEPALIVE)"),
        OptionSpec::duration("keepalive_idle", o.keepalive_idle, 1_s, 32767_s, "silence before the first probe"),
        OptionSpec::duration("keepalive_interval", o.keepalive_interval, 1_s, 32767_s, "between probes"),
        OptionSpec::duration("silent_after", o.silent_after, 0_s, 2'000'000_s, "a peer silent for so long is given up; 0: the stack decides"),
        OptionSpec::bytes("sndbuf", o.send_buffer_bytes, 0, buffer_most, "the stack's send buffer; 0: its default"),
        OptionSpec::bytes("rcvbuf", o.receive_buffer_bytes, 0, buffer_most, "the stack's receive window; 0: its default"),
        OptionSpec::integer("tos", o.type_of_service, 0, 255, "IP type of service"),
        OptionSpec::text("congestion", congestion, 1, 15, "congestion control, e.g. cubic"),
        OptionSpec::integer("backlog", unused, 0, 1 << 20, "of the kernel's listener beside it; the stack has none"),
        OptionSpec::flag("zerocopy", unused_flag, "large sends go by reference always"),
        OptionSpec::flag("reuseport", unused_flag, "of the kernel's listener beside it"),
        OptionSpec::choice("engine", engine, "epoll|uring", "of the kernel's sockets, where they take over"),
        OptionSpec::bytes("window", o.window_bytes, 64 << 10, 1 << 30, "bytes sent and not acknowledged, at the most"),
        OptionSpec::bytes("inline", o.inline_bytes, 0, 1024, "messages up to this are copied into the stack"),
        OptionSpec::flag("fallback", unused_flag, "the kernel's TCP where the card cannot serve an endpoint"),
        held_spec(held),
        OptionSpec::text("library", library, 1, 400, "where libxlio is; only as a setting (EVPL_XLIO_LIBRARY)"),
        OptionSpec::text("probe", probe, 0, 400, "the program that tries the library first, or off; only as a setting"),
        OptionSpec::flag("check", unused_flag, "look for a card before loading the library; only as a setting"),
    };
    if (const auto read = read_options(endpoint, specs, why); !read) return read.error();
    for (const char* name : {"library", "probe", "check", "held"})
        if (endpoint.option(name).data() != nullptr) return base::refuse(why, Errc::bad_option, "option %s is the process's: set xlio.%s instead", name, name);
    if (!congestion.empty()) std::memcpy(o.congestion, congestion.data(), congestion.size());
    return o;
}

Caps caps_of(const Options& options) noexcept {
    Caps caps;
    caps.kind = Kind::stream;
    caps.zero_copy_send = true;
    caps.zero_copy_receive = true;
    caps.inline_bytes_max = options.inline_bytes;
    return caps;
}

}  // namespace evpl::transport::xlio
