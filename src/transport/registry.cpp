// The backends, in an explicit list; which of them serves a scheme; and the process's answer to "what is here?".
#include <array>
#include <atomic>
#include <cstdio>

#include "base/log_line.hpp"
#include "base/option.hpp"
#include "base/settings.hpp"
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
    base::log_format(LogLevel::warning, "%.*s is absent, %.*s is used instead: %.*s. Remedy: %.*s", EVPL_SHOWN(wanted.name), EVPL_SHOWN(instead.name),
                     int(probe.reason.size()), probe.reason.data(), int(probe.remedy.size()), probe.remedy.data());
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

bool may_fall_back(const Scheme& scheme, const Endpoint& endpoint) noexcept {
    bool allowed = true;
    const auto spec = base::OptionSpec::flag("fallback", allowed, "");
    if (const auto asked = endpoint.option(spec.name); asked.data() != nullptr) {
        if (!asked.empty()) base::read_value(spec, asked);
    } else if (const base::Setting* set = base::settings().find(scheme.name, spec.name)) {
        base::read_value(spec, set->value);
    }
    return allowed;
}

/// "?a=1&b=2" of those options that `to` knows.
void translate_query(std::string_view query, const Choice& to, char* text, std::size_t room) noexcept {
    text[0] = '\0';
    std::size_t used = 0;
    while (!query.empty()) {
        const std::string_view item = query.substr(0, query.find('&'));
        query = item.size() < query.size() ? query.substr(item.size() + 1) : std::string_view();
        char alone[Endpoint::text_bytes_max + 1];
        std::snprintf(alone, sizeof alone, "%.*s://127.0.0.1:1?%.*s", int(to.scheme->name.size()), to.scheme->name.data(), int(item.size()), item.data());
        const auto parsed = Endpoint::parse(alone);
        Diagnostic why;
        if (!parsed || !to.transport->caps(*to.scheme, *parsed, why)) continue;
        const int n = std::snprintf(text + used, room - used, "%s%.*s", used == 0 ? "?" : "&", int(item.size()), item.data());
        if (n < 0 || std::size_t(n) >= room - used) return;
        used += std::size_t(n);
    }
}

}  // namespace

bool fall_back(const Choice& from, const Endpoint& endpoint, Choice& to, Endpoint& instead) noexcept {
    if (from.scheme->fallback.empty() || !may_fall_back(*from.scheme, endpoint)) return false;
    to = find(from.scheme->fallback);
    if (to.transport == nullptr || !to.transport->probe(*to.scheme).present) return false;
    char query[Endpoint::text_bytes_max + 1], url[2 * Endpoint::text_bytes_max];
    translate_query(endpoint.query(), to, query, sizeof query);
    const bool bracket = endpoint.host().find(':') != std::string_view::npos;
    std::snprintf(url, sizeof url, "%.*s://%s%.*s%s:%u%s", int(to.scheme->name.size()), to.scheme->name.data(), bracket ? "[" : "", int(endpoint.host().size()),
                  endpoint.host().data(), bracket ? "]" : "", unsigned(endpoint.port()), query);
    const auto parsed = Endpoint::parse(url);
    if (parsed) instead = *parsed;
    return parsed.ok();
}

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
        Endpoint unused;
        Choice instead;
        if (probe.present || fall_back(named, endpoint, instead, unused)) return named;
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
