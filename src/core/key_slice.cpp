#include "core/key_slice.hpp"

#include <algorithm>
#include <cstring>

namespace evpl::core {
namespace {

memory::KeyState state_in(const memory::Domain& domain, const memory::Slab& slab) noexcept {
    return slab.keys[domain.number()].state.load(std::memory_order_acquire);
}

void ask_for_key(LoopCore& core, memory::Domain& domain, memory::Slab& slab) noexcept {
    domain.request(
        slab, [](void* bell) { static_cast<transport::Bell*>(bell)->ring(); }, &core.bell());
}

Keyed verdict(memory::KeyState state) noexcept {
    if (state == memory::KeyState::ready) return Keyed::yes;
    return state == memory::KeyState::failed ? Keyed::never : Keyed::later;
}

Keyed key_slice(LoopCore& core, memory::Domain& domain, Buffer& slice) noexcept {
    if (slice.empty()) return Keyed::yes;
    if (!domain.enrolled()) return Keyed::never;
    memory::Slab* slab = memory::slab_of(slice);
    if (slab != nullptr) {
        if (state_in(domain, *slab) == memory::KeyState::ready) [[likely]]
            return Keyed::yes;
        ask_for_key(core, domain, *slab);
    }
    if (slice.size() > memory::block_bytes_max) {  // larger than any block: it waits for the key of its region, or is to be sent in parts
        return slab != nullptr ? verdict(state_in(domain, *slab)) : Keyed::never;
    }
    auto block = core.heap().allocate(slice.size());
    if (!block) return Keyed::later;
    memory::Slab& target = *memory::slab_of(*block);
    const Keyed keyed = verdict(state_in(domain, target));
    if (keyed != Keyed::yes) {
        ask_for_key(core, domain, target);
        return keyed;
    }
    std::memcpy(block->data(), slice.data(), slice.size());
    BufferAccess::set_flags(*block, BufferAccess::flags(slice));
    slice = *std::move(block);
    return Keyed::yes;
}

}  // namespace

Keyed key_tail(LoopCore& core, memory::Domain& domain, transport::SliceQueue& queue, std::uint32_t& unkeyed) noexcept {
    const std::uint32_t count = queue.count();
    const detail::Block* known = nullptr;  // its slab has a key; slices of a batch mostly lie in one block
    for (std::uint32_t i = count - std::min(unkeyed, count); i < count; ++i) {
        if (known != nullptr && BufferAccess::block(queue[i]) == known) continue;
        const Keyed keyed = key_slice(core, domain, queue[i]);
        if (keyed != Keyed::yes) {
            unkeyed = count - i;
            return keyed;
        }
        if (!queue[i].empty()) known = BufferAccess::block(queue[i]);  // it may be a copy
    }
    unkeyed = 0;
    return Keyed::yes;
}

}  // namespace evpl::core
