// The backends, in an explicit list; which of them serves a scheme; and the process's answer to "what is here?".
#include <array>
#include <cstdio>

#include "transport/common/epoll_sleeper.hpp"
#include "transport/inproc/inproc.hpp"
#include "transport/sim/sim.hpp"
#include "transport/socket/socket.hpp"
#include "transport/transport.hpp"

namespace evpl::transport {

std::span<Transport* const> all_transports() noexcept {
    static const std::array<Transport*, 3> list{&socket_transport(), &inproc_transport(), &sim_transport()};
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

Result<Choice> choose_generic(std::string_view scheme, std::string_view wire, Diagnostic& why) noexcept {
    Choice best;
    for (Transport* transport : all_transports()) {
        for (const Scheme& one : transport->schemes()) {
            const bool better = best.scheme == nullptr || one.preference > best.scheme->preference;
            if (one.wire == wire && one.preference > 0 && better && transport->probe(one).present) best = {transport, &one};
        }
    }
    if (best.transport != nullptr) return best;
    return say(why, Errc::transport_absent, "%.*s:// found no present transport", scheme);
}

}  // namespace

Result<Choice> choose(const Endpoint& endpoint, Diagnostic& why) noexcept {
    const std::string_view scheme = endpoint.scheme();
    if (const auto wire = wire_of_generic(scheme); !wire.empty()) return choose_generic(scheme, wire, why);
    for (Transport* transport : all_transports()) {
        for (const Scheme& one : transport->schemes()) {
            if (one.name != scheme) continue;
            const Probe probe = transport->probe(one);
            if (probe.present) return Choice{transport, &one};
            return say(why, Errc::transport_absent, "%.*s:// is not present here: %.*s", scheme, probe.reason);
        }
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
