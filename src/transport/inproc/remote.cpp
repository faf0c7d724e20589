// Remote memory: requests travel as entries, and the thread that owns the exposed memory copies.

#include <sys/random.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <new>

#include "transport/inproc/port.hpp"

namespace evpl::transport::inproc {

namespace {
constexpr unsigned exposures_per_chunk = 64;
constexpr unsigned index_bits = 24;  // of a key: where the exposure is; the rest is random
}  // namespace

struct InprocPort::ExposureChunk {
    Exposure exposures[exposures_per_chunk];
};

// -- exposing --------------------------------------------------------------------------------------------------

std::uint64_t InprocPort::random() noexcept {
    while (random_state_ == 0) {
        if (getrandom(&random_state_, sizeof random_state_, 0) != sizeof random_state_) {
            random_state_ = reinterpret_cast<std::uintptr_t>(this) ^ std::uint64_t(host.now_ns());
        }
    }
    std::uint64_t z = random_state_ += 0x9e3779b97f4a7c15u;  // splitmix64
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

Exposure* InprocPort::find_exposure(std::uint64_t key) noexcept {
    const auto index = std::uint32_t(key & ((1u << index_bits) - 1));
    if (index / exposures_per_chunk >= exposure_chunks_.size()) return nullptr;
    Exposure& one = exposure_chunks_[index / exposures_per_chunk]->exposures[index % exposures_per_chunk];
    return one.link != nullptr && one.key == key ? &one : nullptr;
}

Result<RemoteRegion> InprocPort::expose(Link& base, Buffer range, Access access) {
    auto& link = static_cast<InprocLink&>(base);
    if (link.state == InprocLink::State::over) return Error(Errc::misuse, Step::remote);
    if (free_exposures_ == nullptr) {
        if (exposure_chunks_.size() >= (1u << index_bits) / exposures_per_chunk) return Error(Errc::out_of_buffers, Step::remote);
        auto* chunk = new (std::nothrow) ExposureChunk;
        const auto first = exposure_chunks_.size() * exposures_per_chunk;
        if (chunk == nullptr || !exposure_chunks_.push(std::move(chunk))) {
            delete chunk;
            return Error(Errc::out_of_memory, Step::remote);
        }
        for (unsigned i = exposures_per_chunk; i-- > 0;) {
            Exposure& one = chunk->exposures[i];
            one.index = first + i;
            one.next = std::exchange(free_exposures_, &one);
        }
    }
    Exposure& made = *free_exposures_;
    free_exposures_ = made.next;
    made.range = std::move(range);
    made.key = random() << index_bits | made.index;
    made.link = &link;
    made.access = access;
    made.previous = nullptr;
    made.next = link.exposures;
    if (made.next != nullptr) made.next->previous = &made;
    link.exposures = &made;
    return RemoteRegion{reinterpret_cast<std::uintptr_t>(made.range.data()), made.key, made.range.size()};
}

Result<void> InprocPort::revoke(Link& base, const RemoteRegion& region) {
    Exposure* const one = find_exposure(region.key);
    if (one == nullptr || one->link != &base) return Error(Errc::misuse, Step::remote);
    drop_exposure(*one);
    return {};
}

void InprocPort::drop_exposure(Exposure& one) noexcept {
    if (one.previous != nullptr) one.previous->next = one.next;
    else one.link->exposures = one.next;
    if (one.next != nullptr) one.next->previous = one.previous;
    one.link = nullptr;
    one.range.reset();
    one.next = std::exchange(free_exposures_, &one);
}

void InprocPort::drop_exposure_chunks() noexcept {
    for (; !exposure_chunks_.empty(); exposure_chunks_.pop()) delete exposure_chunks_.front();
}

// -- asking ----------------------------------------------------------------------------------------------------

Result<void> InprocPort::read(Link& link, OperationId operation, const RemoteRegion& region, std::uint64_t offset, Buffer into) {
    return start(link, {operation, region, offset, std::move(into), Does::read});
}

Result<void> InprocPort::write(Link& link, OperationId operation, const RemoteRegion& region, std::uint64_t offset, Buffer from) {
    return start(link, {operation, region, offset, std::move(from), Does::write});
}

Result<void> InprocPort::write_telling(Link& link, OperationId operation, const RemoteRegion& region, std::uint64_t offset, Buffer from, std::uint32_t word) {
    return start(link, {operation, region, offset, std::move(from), Does::write_telling, word});
}

Result<void> InprocPort::atomic(Link& link, OperationId operation, const RemoteRegion& region, std::uint64_t offset, const Atomic& what, Buffer before) {
    return start(link, {operation, region, offset, std::move(before), what.swaps ? Does::swap : Does::add, 0, what.operand, what.desired});
}

Result<void> InprocPort::start(Link& base, WaitingOperation&& operation) {
    auto& link = static_cast<InprocLink&>(base);
    if (link.state != InprocLink::State::open || link.end_said || link.finishing) return Error(Errc::misuse, Step::remote);
    if (link.peer_finished) return Error(Errc::reset, Step::remote, Who::peer);
    if (!link.waiting.push(std::move(operation))) return Error(Errc::out_of_memory, Step::remote);
    post_operations(link);
    if (touched_ != nullptr && !in_poll_) ring_bells();
    return {};
}

/// Hands the peer what it can take. False: some wait, and bytes that were sent after them wait, too.
bool InprocPort::post_operations(InprocLink& link) noexcept {
    while (!link.waiting.empty()) {
        link.hindered = true;
        End& end = *link.end;
        if (end.free_operation == operations_most) {
            wait_for_room(link, false);
            return false;
        }
        Operation& slot = end.operations[end.free_operation];
        WaitingOperation& wanted = link.waiting.front();
        const std::uint32_t charge = wanted.does == Does::write_telling ? entry_charge : 0;  // the word waits with the bytes of a paused link
        if (link.limit - link.charged < charge) {
            link.blocked = true;  // the peer's credit has the link flushed
            return false;
        }
        const RequestBody request{wanted.region.key,    wanted.region.address + wanted.offset,
                                  wanted.buffer.data(), wanted.buffer.size(),
                                  end.free_operation,   wanted.does,
                                  wanted.word,          wanted.operand,
                                  wanted.desired};
        if (link.says != 0 || !say(end, What::request, link.peer, link.peer_generation, request)) {
            wait_for_room(link, true);
            return false;
        }
        link.charged += charge;
        end.free_operation = slot.next_free;
        slot.link = &link;
        slot.id = wanted.id;
        slot.buffer = std::move(wanted.buffer);
        slot.in_flight = true;
        ++link.operations_out;
        link.waiting.pop();
    }
    link.hindered = link.peer_finished || link.state != InprocLink::State::open;
    return true;
}

void InprocPort::replied(End& end, const ReplyBody& body) {
    Operation& slot = end.operations[body.operation];
    InprocLink* const link = std::exchange(slot.link, nullptr);
    Buffer buffer = std::move(slot.buffer);
    slot.in_flight = false;
    slot.next_free = std::exchange(end.free_operation, body.operation);
    end.retry = true;
    if (link == nullptr) return;
    --link->operations_out;
    const Error error = body.error == Errc::none ? Error() : Error(body.error, Step::remote, Who::peer);
    link->sink->completed(slot.id, error, std::move(buffer));
    if (link->finishing) end_if_done(*link);
}

/// The link is over: everything it asked for ends now. What the peer may have in hand stays ours until it replies, so that a late
/// write does not hit memory that is used for something else; its completion comes without the buffer.
void InprocPort::complete_all(InprocLink& link) {
    if (link.end != nullptr && link.operations_out > 0) {
        for (Operation& slot : link.end->operations) {
            if (slot.link != &link) continue;
            slot.link = nullptr;
            link.sink->completed(slot.id, link.error, link.peer_lets_go ? std::move(slot.buffer) : Buffer());
        }
        link.operations_out = 0;
    }
    for (; !link.waiting.empty(); link.waiting.pop()) {
        WaitingOperation& one = link.waiting.front();
        link.sink->completed(one.id, link.error, std::move(one.buffer));
    }
}

/// The port goes away while the peer has operations in hand: their memory stays with the pipe.
void InprocPort::park_operations(End& end) noexcept {
    for (Operation& slot : end.operations) {
        slot.link = nullptr;
        if (!slot.buffer) continue;
        if (end.peer_bell == nullptr || end.gone) {
            slot.buffer.reset();
            continue;
        }
        slot.parked = std::move(slot.buffer).pack();
        BufferAccess::detach(slot.buffer);  // packed; or, without memory for a parcel, rather lost than written to by a late peer
    }
}

// -- answering -------------------------------------------------------------------------------------------------

namespace {

Access needed_for(Does does) noexcept {
    switch (does) {
    case Does::read: return Access::read;
    case Does::add:
    case Does::swap: return Access::atomic;
    default: return Access::write;
    }
}

/// Between `here` and the asking side's memory, which waits for the reply. Owners on several loops may have exposed the same bytes.
void carry_out(const RequestBody& request, std::byte* here) noexcept {
    switch (request.does) {
    case Does::read:
        if (request.size > 0) std::memmove(request.memory, here, request.size);
        return;
    case Does::add:
    case Does::swap: {
        const std::atomic_ref number(*reinterpret_cast<std::uint64_t*>(here));
        std::uint64_t before = request.operand;
        if (request.does == Does::add) before = number.fetch_add(request.operand);
        else number.compare_exchange_strong(before, request.desired);
        std::memcpy(request.memory, &before, sizeof before);
        return;
    }
    default:
        if (request.size > 0) std::memmove(here, request.memory, request.size);
    }
}

}  // namespace

void InprocPort::serve(End& end, InprocLink* link, Mark mark, const RequestBody& request) {
    ReplyBody answer{request.operation, Errc::none};
    if (link->generation != mark.generation() || link->state != InprocLink::State::open) {
        answer.error = Errc::reset;
        return reply(end, answer);
    }
    const Exposure* one = find_exposure(request.key);
    const auto needed = std::uint8_t(needed_for(request.does));
    bool allowed = one != nullptr && one->link == link && (std::uint8_t(one->access) & needed) != 0;
    std::uint64_t offset = 0;
    if (allowed) {
        offset = request.address - reinterpret_cast<std::uintptr_t>(one->range.data());
        allowed = offset <= one->range.size() && request.size <= one->range.size() - offset;
        if (needed == std::uint8_t(Access::atomic)) allowed &= request.address % sizeof(std::uint64_t) == 0;
    }
    if (!allowed) {
        answer.error = Errc::remote_access;
        return reply(end, answer);
    }
    carry_out(request, one->range.data() + offset);
    bytes_left_ -= std::min(bytes_left_, request.size);
    reply(end, answer);
    if (request.does == Does::write_telling) deliver_word(*link, request.word);
}

void InprocPort::reply(End& end, const ReplyBody& body) noexcept {
    if (end.replies_count == 0 && say(end, What::reply, nullptr, 0, body)) return;
    end.replies[(end.replies_first + end.replies_count++) % operations_most] = body;
    end.full = true;
    if (end.out->ask_notice()) touch(end);
}

bool InprocPort::say_replies(End& end) noexcept {
    while (end.replies_count > 0) {
        if (!say(end, What::reply, nullptr, 0, end.replies[end.replies_first])) return false;
        end.replies_first = (end.replies_first + 1) % operations_most;
        --end.replies_count;
    }
    return true;
}

}  // namespace evpl::transport::inproc
