// The backends, in an explicit list; which of them serves a scheme; and the process's answer to "what is here?".
#include <array>
#include <atomic>
#include <cstdio>

#include "base/log_line.hpp"
#include "base/option.hpp"
#include "transport/common/epoll_sleeper.hpp"
#include "transport/inproc/inproc.hpp"
#include "transport/rdma/rdma.hpp"
#include "transport/sim/sim.hpp"
#include "transport/socket/socket.hpp"
#include "transport/transport.hpp"
#include "transport/uring/uring.hpp"
#include "transport/xlio/xlio.hpp"

namespace evpl::transport {

std::span<Transport* const> all_transports() noexcept {
    static const std::array<Transport*, 7> list{&socket_transport(),  &uring_transport(),  &xlio_transport(), &rdma_transport(),
                                                &rdma_ud_transport(), &inproc_transport(), &sim_transport()};
    return list;
}

Result<Sleeper*> open_sleeper() noexcept { return open_epoll_sleeper(); }

namespace {

// stream:// and dgram:// stand for every scheme of one wire format; later ones of a higher preference win.
std::string_view wire_of_generic(std::string_view scheme) noexcept {
    if (scheme == "stream") return "tcp";
    if (scheme == "dgram") return "udp";
    return {};
}

Error say(Diagnostic& why, Errc code, const char* format, std::string_view a, std::string_view b = {}) noexcept {
    std::snprintf(why.text, sizeof why.text, format, int(a.size()), a.data(), int(b.size()), b.data());
    return Error(code, Step::parse);
}

/// One line for the process: what was wanted, why it is not here, what is used instead, and the remedy.
void say_fallback(const Scheme& wanted, const Scheme& instead, const Probe& probe) noexcept {
    static std::atomic<bool> said{false};
    if (said.exchange(true, std::memory_order_relaxed)) return;
    base::log_format(LogLevel::warning, "%.*s is absent, %.*s is used instead: %.*s. Remedy: %.*s", EVPL_SHOWN(wanted.name),
                     EVPL_SHOWN(instead.name), int(probe.reason.size()), probe.reason.data(), int(probe.remedy.size()), probe.remedy.data());
}

/// The scheme that ?engine=uring asks for in the place of `scheme`; empty: none.
std::string_view engine_of(const Endpoint& endpoint) noexcept {
    if (endpoint.option("engine") != "uring") return {};
    const std::string_view scheme = endpoint.scheme();
    return scheme == "tcp" ? "uring" : scheme == "udp" ? "uring-udp" : scheme == "unix" ? "uring-unix" : std::string_view();
}

Choice find(std::string_view name) noexcept {
    for (Transport* transport : all_transports()) {
        for (const Scheme& one : transport->schemes()) {
            if (one.name == name) return {transport, &one};
        }
    }
    return {};
}

Result<Choice> choose_generic(std::string_view scheme, std::string_view wire, Diagnostic& why) noexcept {
    Choice best, missed;
    for (Transport* transport : all_transports()) {
        for (const Scheme& one : transport->schemes()) {
            if (one.wire != wire || one.preference == 0) continue;
            const bool present = transport->probe(one).present;
            if (!present && one.needs_card) continue;  // most machines have none: no news
            Choice& among = present ? best : missed;
            if (among.scheme == nullptr || one.preference > among.scheme->preference) among = {transport, &one};
        }
    }
    if (best.transport != nullptr) {
        const bool fell = missed.transport != nullptr && missed.scheme->preference > best.scheme->preference;
        if (fell) say_fallback(*missed.scheme, *best.scheme, missed.transport->probe(*missed.scheme));
        return best;
    }
    return say(why, Errc::transport_absent, "%.*s:// found no present transport", scheme);
}

}  // namespace

Result<Choice> choose(const Endpoint& endpoint, Diagnostic& why) noexcept {
    const std::string_view scheme = endpoint.scheme();
    if (const auto wire = wire_of_generic(scheme); !wire.empty()) return choose_generic(scheme, wire, why);
    const Choice named = find(scheme);
    if (named.transport != nullptr) {
        if (const auto engine = engine_of(endpoint); !engine.empty()) {
            const Choice driven = find(engine);
            const Probe probe = driven.transport->probe(*driven.scheme);
            if (probe.present) return driven;
            say_fallback(*driven.scheme, *named.scheme, probe);
        }
        const Probe probe = named.transport->probe(*named.scheme);
        if (probe.present) return named;
        return say(why, Errc::transport_absent, "%.*s:// is not present here: %.*s", scheme, probe.reason);
    }
    return say(why, Errc::unknown_scheme, "no transport is called \"%.*s\"; `evpl info` lists what there is", scheme);
}

}  // namespace evpl::transport

namespace evpl {

std::span<const TransportInfo> transports() noexcept {
    static constexpr std::size_t most = 32;
    static thread_local std::array<TransportInfo, most> list;  // the simulated one is there or not by thread
    std::size_t count = 0;
    for (transport::Transport* one : transport::all_transports()) {
        for (const transport::Scheme& scheme : one->schemes()) {
            if (count == most) break;
            const transport::Probe probe = one->probe(scheme);
            list[count++] = {scheme.name, scheme.summary, probe.present, probe.reason, probe.remedy, probe.caps};
        }
    }
    return std::span(list).first(count);
}

}  // namespace evpl
