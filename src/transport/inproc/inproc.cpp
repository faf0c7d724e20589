#include "transport/inproc/inproc.hpp"

#include <algorithm>
#include <mutex>
#include <new>

#include "transport/inproc/port.hpp"

namespace evpl::transport {
namespace inproc {

// -- the names of the process ----------------------------------------------------------------------------------

struct Registry::State {
    std::mutex mutex;
    InprocListening* listenings = nullptr;
    std::uint64_t last_port = 0;
    std::uint64_t last_listening = 0;
    std::uint64_t turn = 0;
};

Registry& Registry::instance() noexcept {
    // Never destroyed: loops may end in static destructors.
    alignas(Registry) static std::byte room[sizeof(Registry)];
    static Registry* const registry = new (room) Registry;
    return *registry;
}

Registry::Registry() noexcept {
    alignas(State) static std::byte room[sizeof(State)];
    state_ = new (room) State;
}

std::uint64_t Registry::new_port_number() noexcept {
    const std::lock_guard lock(state_->mutex);
    return ++state_->last_port;
}

bool Registry::add(InprocListening& listening) noexcept {
    const std::lock_guard lock(state_->mutex);
    const std::string_view name(listening.name);
    for (InprocListening* each = state_->listenings; each != nullptr; each = each->next_known) {
        if (each->kind == listening.kind && name == each->name && !(each->shared && listening.shared)) return false;
    }
    listening.id = ++state_->last_listening;
    listening.next_known = std::exchange(state_->listenings, &listening);
    return true;
}

void Registry::remove(InprocListening& listening) noexcept {
    const std::lock_guard lock(state_->mutex);
    for (InprocListening** at = &state_->listenings; *at != nullptr; at = &(*at)->next_known) {
        if (*at != &listening) continue;
        *at = listening.next_known;
        return;
    }
}

Result<End*> Registry::reach(InprocPort& from, std::string_view name, Kind kind, std::uint64_t& listening) noexcept {
    const std::lock_guard lock(state_->mutex);
    const auto matches = [&](const InprocListening& each) { return each.kind == kind && name == each.name; };
    std::uint64_t count = 0;
    for (InprocListening* each = state_->listenings; each != nullptr; each = each->next_known) count += matches(*each) ? 1 : 0;
    if (count == 0) return Error(Errc::refused, Step::connect, Who::peer);
    std::uint64_t skip = state_->turn++ % count;
    InprocListening* chosen = state_->listenings;
    while (!matches(*chosen) || skip-- > 0) chosen = chosen->next_known;
    listening = chosen->id;
    InprocPort& target = *chosen->owner;

    from.take_new_ends();  // the other side may have made a pipe just now
    if (End* known = from.find_end(target.number)) return known;
    auto* pipe = new (std::nothrow) Pipe;
    if (pipe == nullptr) return Error(Errc::out_of_memory, Step::connect);
    End& ours = pipe->ends[0];
    End& theirs = pipe->ends[1];
    ours.peer_port = target.number;
    theirs.peer_port = from.number;
    from.add_end(ours);
    if (&from == &target) {
        from.add_end(theirs);
        return &ours;
    }
    ours.peer_bell = &target.host.bell();
    theirs.peer_bell = &from.host.bell();
    target.announce(theirs);
    return &ours;
}

void Registry::detach(End& end) noexcept {
    Pipe* pipe = end.pipe;
    {
        const std::lock_guard lock(state_->mutex);
        if (--pipe->attached > 0) return;
    }
    delete pipe;
}

// -- the backend -----------------------------------------------------------------------------------------------

namespace {

constexpr Scheme schemes[] = {
    {"inproc", "between the loops of this process, through memory", "inproc", Kind::stream, false, 0},
};

class InprocTransport final : public Transport {
public:
    std::span<const Scheme> schemes() const noexcept override { return inproc::schemes; }
    Probe probe(const Scheme&) noexcept override { return {true, "always present", {}, caps_of(Kind::stream)}; }
    Result<Caps> caps(const Scheme&, const Endpoint& endpoint, Diagnostic& why) noexcept override {
        const auto kind = kind_of(endpoint, why);
        if (!kind) return kind.error();
        return caps_of(*kind);
    }
    Result<Port*> open(Host& host) noexcept override {
        auto* port = new (std::nothrow) InprocPort(host);
        if (port == nullptr) return Error(Errc::out_of_memory, Step::open);
        return port;
    }
};

}  // namespace
}  // namespace inproc

Transport& inproc_transport() noexcept {
    static constinit inproc::InprocTransport transport;
    return transport;
}

}  // namespace evpl::transport
