// The public calls of a connection.
#include "evpl/connection.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/clock.hpp"
#include "core/connection_state.hpp"
#include "core/connector.hpp"

namespace evpl {

using core::ConnectionState;
using core::state_of;
using Phase = ConnectionState::Phase;

namespace core {
namespace {
/// A send of this much does not wait for the end of the turn: the bytes are in the cache now.
constexpr std::size_t early_flush_bytes = 256u << 10;
}  // namespace

// -- receive ---------------------------------------------------------------------------------------------------

void ConnectionState::set_pause(bool pause) noexcept {
    if (receive_paused == pause || link == nullptr || !link->caps->receive_pause) return;
    receive_paused = pause;
    if (link_closed) return;
    if (pause) {
        ++receive_pauses;
        link->port->pause(*link);
    } else {
        link->port->resume(*link);
        note_received();
        arm_deadlines();
    }
}

void ConnectionState::after_take() noexcept {
    if (receive_paused && inbox.bytes() <= limits.receive / 2 && descriptors.size() <= descriptors_most / 2) set_pause(false);
    else if (receive_paused && inbox.count() == 0) arm_deadlines();  // only descriptors that nobody takes are in the way
    if (inbox.count() == 0 && (peer_ended || link_closed)) note(ev_end);
}

/// The last slice of a message leaves the inbox.
void ConnectionState::message_taken(std::uint32_t flags) noexcept {
    --messages_in;
    invalidated_key = 0;
    if ((flags & BufferAccess::has_key) == 0) [[likely]]
        return;
    invalidated_key = keys_in.front();
    keys_in.pop();
}

Chain ConnectionState::take(std::size_t max_bytes) noexcept {
    Chain out;
    if (phase > Phase::open) return out;
    if (by_frames) {
        if (message_bytes() < 0) return out;
        max_bytes = std::min<std::size_t>(max_bytes, frame_left);
    }
    const bool whole_messages = is_message();
    if (whole_messages && inbox.count() > 0) {  // mostly one slice
        Buffer& only = inbox[0];
        const std::uint32_t size = only.size();
        if (size > 0 && size <= max_bytes && BufferAccess::flags(only) == BufferAccess::end_of_message) [[likely]] {
            BufferAccess::set_flags(only, 0);
            (void)out.append(std::move(only));  // it has room
            inbox.pop_moved(size);
            message_taken(BufferAccess::end_of_message);
            after_take();
            return out;
        }
    }
    std::size_t left = max_bytes;
    while (inbox.count() > 0 && left > 0) {
        Buffer& first = inbox[0];
        const std::uint32_t flags = BufferAccess::flags(first);
        if (first.size() > left) {
            Buffer part = first.share(0, std::uint32_t(left));
            if (out.append(std::move(part))) inbox.drop_front(left);
            break;
        }
        left -= first.size();
        const std::uint32_t size = first.size();
        BufferAccess::set_flags(first, 0);
        if (!out.append(std::move(first))) {  // no memory for a longer chain: what it has is handed over
            BufferAccess::set_flags(first, flags);
            break;
        }
        inbox.pop_moved(size);
        if ((flags & BufferAccess::end_of_message) != 0) message_taken(flags);
        if (whole_messages && (flags & BufferAccess::end_of_message) != 0) break;
    }
    if (by_frames) frame_left -= std::uint32_t(out.size());
    after_take();
    return out;
}

Result<Chain> ConnectionState::take_message() noexcept {
    if (phase > Phase::open) return Error(Errc::misuse, Step::recv);
    if (!by_frames && !is_message()) return Error(Errc::not_supported, Step::recv);
    const std::int64_t bytes = message_bytes();
    if (phase > Phase::open) return Chain();
    if (bytes < 0) {
        if (peer_ended && inbox.count() == 0) return Error(Errc::end, Step::recv, Who::peer);
        return Chain();
    }
    if (bytes == 0) {  // an empty message: one empty marked slice
        message_taken(BufferAccess::flags(inbox[0]));
        inbox.pop();
        after_take();
        return Chain();
    }
    return take(std::size_t(bytes));
}

// -- send ------------------------------------------------------------------------------------------------------

/// The slices of a message, or none of an empty one, or some of a stream. False: no memory.
bool ConnectionState::push_slices(std::span<Buffer> slices, int descriptor, std::uint64_t key) noexcept {
    const bool message = is_message();
    const std::uint32_t end_flags = key == 0 ? BufferAccess::end_of_message : BufferAccess::end_of_message | BufferAccess::has_key;
    const auto more = std::max(std::uint32_t(slices.size()), 1u);
    if (!outbox.reserve(more) || (key != 0 && !outbox.keys.push(std::move(key)))) return false;
    for (std::size_t i = 0; i < slices.size(); ++i) {
        std::uint32_t flags = message && i + 1 == slices.size() ? end_flags : 0;
        if (i == 0 && descriptor >= 0) flags |= BufferAccess::has_descriptor;
        BufferAccess::set_flags(slices[i], flags);
        outbox.push_reserved(std::move(slices[i]));
    }
    if (slices.empty()) {  // an empty message
        Buffer mark;
        BufferAccess::set_flags(mark, end_flags);
        outbox.push_reserved(std::move(mark));
    }
    fresh_out += more;  // both count slices from the end
    unkeyed_out += more;
    return true;
}

/// `descriptor`: -1, or travels with the first byte. `key`: 0, or taken back by the message.
Flow ConnectionState::push(Chain&& bytes, int descriptor, std::uint64_t key) noexcept {
    if (!may_send()) [[unlikely]]
        return Flow(Flow::State::refused, Errc::misuse);
    const std::size_t size = bytes.size();
    const bool message = is_message();
    if (message && size > caps_now().message_bytes_max) [[unlikely]]
        return Flow(Flow::State::refused, Errc::too_large);
    const auto slices = bytes.slices();
    if (!slices.empty() || message) {
        bool pushed = true;
        if (slices.size() == 1 && descriptor < 0 && key == 0 && outbox.reserve(1)) [[likely]] {
            BufferAccess::set_flags(slices[0], message ? BufferAccess::end_of_message : 0);
            outbox.push_reserved(std::move(slices[0]));
            ++fresh_out;
            ++unkeyed_out;
        } else {
            pushed = push_slices(slices, descriptor, key);
        }
        if (!pushed) [[unlikely]] {
            begin_close(Error(Errc::out_of_memory, Step::send));
            return Flow(Flow::State::refused, Errc::out_of_memory);
        }
        if (queued_bytes == 0 && send_stalled_ns != INT64_MAX) note_progress(core.now_ns());
        queued_bytes += size;
        if (send_stalled_ns != INT64_MAX && !deadline.is_set()) arm_deadlines();
        if (queued_bytes > limits.send_hard) [[unlikely]] {
            begin_close(Error(Errc::send_limit, Step::send));
            return Flow(Flow::State::refused, Errc::send_limit);
        }
    }
    const bool full = queued_bytes >= limits.send_high;
    if (full && !send_paused) ++send_pauses;
    send_paused |= full;
    if (phase == Phase::opening) core.touch(*this);  // nothing flushes it yet
    if (phase == Phase::open && outbox.count() > 0) {
        core.mark_dirty(*this);
        // Not when full: who filled send_room() to the brim has been told to wait for on_writable.
        if (!full && outbox.bytes() >= early_flush_bytes) flush_now();
    }
    return Flow(full ? Flow::State::pause : Flow::State::go);
}

void ConnectionState::flush_now() noexcept {
    if (phase == Phase::open && outbox.count() > 0) flush_outbox();
}

// -- end -------------------------------------------------------------------------------------------------------

void ConnectionState::begin_close(Error reason) noexcept {
    if (phase > Phase::open) return;
    phase = Phase::closing;
    close_reason = reason;
    note(ev_close);
}

void ConnectionState::begin_shutdown(Limit limit) noexcept {
    if (phase > Phase::open) return;
    if (limit.duration != Duration::forever()) {
        shutdown_by_ns = AlarmWheel::due_after(base::clock_ns(), limit.duration.ns);
        arm_deadlines();
    }
    if (send_ended) return;
    send_ended = true;
    if (phase == Phase::open) core.mark_dirty(*this);  // flush_outbox() tells the port; before the link opens, call_open() goes on
}

}  // namespace core

// -- who and what ----------------------------------------------------------------------------------------------

Loop& Connection::loop() const noexcept { return state_of(*this).core.facade; }

ConnectionRef Connection::ref() const noexcept {
    const auto& c = state_of(*this);
    return CoreAccess::ref<ConnectionRef>(c.core.control, c.slot, c.generation);
}

Connection* ConnectionRef::get() const noexcept {
    if (control_ == nullptr) return nullptr;
    const core::LoopCore* core = control_->core.load(std::memory_order_acquire);
    return core != nullptr ? static_cast<ConnectionState*>(core->find(slot_, generation_)) : nullptr;
}

std::string_view Connection::transport() const noexcept { return state_of(*this).scheme->name; }
const Caps& Connection::caps() const noexcept { return state_of(*this).caps_now(); }
bool Connection::is_open() const noexcept { return state_of(*this).phase == Phase::open; }

Address Connection::remote_address() const noexcept {
    const auto* link = state_of(*this).link;
    return link != nullptr ? link->port->remote_address(*link) : state_of(*this).peer_address;
}

Address Connection::local_address() const noexcept {
    const auto* link = state_of(*this).link;
    return link != nullptr ? link->port->local_address(*link) : Address{};
}

std::string_view Connection::remote_name() const noexcept {
    auto& c = const_cast<ConnectionState&>(state_of(*this));
    if (c.peer_text[0] != '\0') return c.peer_text;
    if (c.link != nullptr) c.link->port->remote_name(*c.link, c.peer_text);
    else if (c.peer_address.family != Address::Family::none) c.peer_address.describe(c.peer_text, sizeof c.peer_text);
    return c.peer_text;
}

Result<Credentials> Connection::credentials() const noexcept {
    const auto* link = state_of(*this).link;
    if (link == nullptr) return Error(Errc::misuse, Step::open);
    Credentials peer;
    if (const auto asked = link->port->credentials(*link, peer.pid, peer.uid, peer.gid); !asked) return asked.error();
    return peer;
}

int Connection::native_fd() const noexcept {
    const auto* link = state_of(*this).link;
    return link != nullptr ? link->port->native_fd(*link) : -1;
}

ConnectionMetrics Connection::metrics() const noexcept {
    const auto& c = state_of(*this);
    ConnectionMetrics m;
    m.received_bytes = c.received_bytes;
    m.sent_bytes = c.sent_bytes;
    m.queued_bytes = c.queued_bytes;
    m.unread_bytes = c.inbox.bytes();
    for (std::uint32_t i = 0; i < c.inbox.count(); ++i) m.pinned_bytes += memory::block_bytes(c.inbox[i]);
    m.receive_pauses = c.receive_pauses;
    m.send_pauses = c.send_pauses;
    return m;
}

std::span<const std::byte> Connection::private_data() const noexcept {
    const auto& c = state_of(*this);
    if (c.link != nullptr && !c.link_closed) return c.link->port->private_data(*c.link);
    if (c.private_data == nullptr) return {};
    return std::span(c.private_data->heard).first(c.private_data->heard_bytes);
}

Result<void> Connection::set_private_data(std::span<const std::byte> data) noexcept {
    auto& c = state_of(*this);
    if (c.phase != Phase::opening || c.self != nullptr) return Error(Errc::misuse, Step::open);
    if (c.caps_now().private_data_bytes_max == 0) return Error(Errc::not_supported, Step::open);
    return c.say(data);
}

// -- receive ---------------------------------------------------------------------------------------------------

std::uint64_t Connection::invalidated_key() const noexcept { return state_of(*this).invalidated_key; }

std::size_t Connection::available() const noexcept {
    const auto& c = state_of(*this);
    return c.phase <= Phase::open ? c.inbox.bytes() : 0;
}
bool Connection::has_message() noexcept {
    auto& c = state_of(*this);
    return c.phase <= Phase::open && (c.by_frames || c.is_message()) && c.message_bytes() >= 0;
}
Chain Connection::recv(std::size_t max_bytes) noexcept {
    auto& c = state_of(*this);
    c.want_bytes = 0;  // who takes what is there waits for no certain amount any more
    return c.take(max_bytes);
}
Result<Chain> Connection::recv_message() noexcept { return state_of(*this).take_message(); }

Result<Chain> Connection::recv_exactly(std::uint32_t n) noexcept {
    auto& c = state_of(*this);
    if (c.phase > Phase::open) return Error(Errc::misuse, Step::recv);
    if (n > c.limits.message) return Error(Errc::too_large, Step::recv);
    if (c.by_frames || c.is_message()) {
        const std::int64_t whole = c.message_bytes();
        if (whole >= 0 && n > whole) return Error(Errc::too_large, Step::recv);
    }
    if (c.inbox.bytes() >= n) {
        c.want_bytes = 0;
        return c.take(n);
    }
    if (c.peer_ended) return Error(Errc::end, Step::recv, Who::peer);
    c.want_bytes = n;
    if (c.receive_paused) c.set_pause(false);
    return Chain();
}

std::size_t Connection::peek(std::span<std::byte> target) const noexcept {
    const auto& c = state_of(*this);
    std::size_t copied = 0;
    if (c.phase > Phase::open) return 0;
    for (std::uint32_t i = 0; i < c.inbox.count() && copied < target.size(); ++i) {
        const std::size_t n = std::min<std::size_t>(c.inbox[i].size(), target.size() - copied);
        std::memcpy(target.data() + copied, c.inbox[i].data(), n);
        copied += n;
    }
    return copied;
}

void Connection::consume(std::size_t n) noexcept {
    auto& c = state_of(*this);
    while (n > 0 && c.inbox.count() > 0) {
        const Chain dropped = c.take(n);
        if (dropped.empty()) return;
        n -= dropped.size();
    }
}

Result<void> Connection::recv_into(Buffer target) noexcept {
    auto& c = state_of(*this);
    if (c.phase > Phase::open || c.landing || target.empty() || c.by_frames || c.is_message()) return Error(Errc::misuse, Step::recv);
    c.landing = std::move(target);
    c.landing_done = false;
    c.landed_bytes = 0;
    while (c.inbox.count() > 0 && !c.landing_done) {
        const Chain there = c.take(c.landing.size() - c.landed_bytes);
        if (there.empty()) break;
        c.landed_bytes += std::uint32_t(there.copy_to(c.landing.bytes().subspan(c.landed_bytes)));
        c.landing_done = c.landed_bytes == c.landing.size();
    }
    if (!c.landing_done && c.peer_ended) c.end_landing();
    if (c.landing_done) c.note(ConnectionState::ev_recv);
    else if (c.link != nullptr) c.link->landing = {c.landing.data() + c.landed_bytes, c.landing.size() - c.landed_bytes};
    return {};
}

Buffer Connection::landed() noexcept {
    auto& c = state_of(*this);
    if (!c.landing_done) return {};
    c.landing_done = false;
    return std::move(c.landing);
}

Result<void> Connection::cancel_recv_into() noexcept {
    auto& c = state_of(*this);
    if (!c.landing) return {};
    c.end_landing();  // the block has the bytes that have landed
    c.landing_done = false;
    Buffer there = std::move(c.landing);
    if (there.empty()) return {};
    if (!c.inbox.push_front(std::move(there))) {
        c.begin_close(Error(Errc::out_of_memory, Step::recv));
        return Error(Errc::out_of_memory, Step::recv);
    }
    c.note(ConnectionState::ev_recv);
    return {};
}

namespace {
/// `what` stands at byte `at` of slice `i`, or across the slices from there.
bool stands_at(const transport::SliceQueue& slices, std::uint32_t i, std::size_t at, std::string_view what) noexcept {
    for (; i < slices.count(); ++i, at = 0) {
        const std::size_t n = std::min<std::size_t>(what.size(), slices[i].size() - at);
        if (std::memcmp(slices[i].data() + at, what.data(), n) != 0) return false;
        what.remove_prefix(n);
        if (what.empty()) return true;
    }
    return false;
}
}  // namespace

std::size_t Connection::find(std::string_view what, std::size_t from) const noexcept {
    const auto& c = state_of(*this);
    if (c.phase > Phase::open || what.empty()) return SIZE_MAX;
    std::size_t before = 0;  // bytes of the slices before this one
    for (std::uint32_t i = 0; i < c.inbox.count(); before += c.inbox[i++].size()) {
        const Buffer& slice = c.inbox[i];
        std::size_t at = from > before ? from - before : 0;
        while (at < slice.size()) {
            const auto* hit = static_cast<const std::byte*>(std::memchr(slice.data() + at, what.front(), slice.size() - at));
            if (hit == nullptr) break;
            at = std::size_t(hit - slice.data());
            if (stands_at(c.inbox, i, at, what)) return before + at;
            ++at;
        }
    }
    return SIZE_MAX;
}

int Connection::recv_descriptor() noexcept {
    auto& c = state_of(*this);
    if (c.descriptors.empty()) return -1;
    const int fd = c.descriptors.front();
    c.descriptors.pop();
    c.after_take();
    return fd;
}

// -- send ------------------------------------------------------------------------------------------------------

Flow Connection::send(Chain bytes) noexcept { return state_of(*this).push(std::move(bytes), -1); }

Flow Connection::send_invalidating(Chain bytes, std::uint64_t key) noexcept {
    auto& c = state_of(*this);
    if (!c.may_send() || key == 0) return Flow(Flow::State::refused, Errc::misuse);
    if (!c.caps_now().remote_invalidate) return Flow(Flow::State::refused, Errc::not_supported);
    return c.push(std::move(bytes), -1, key);
}

Flow Connection::send(std::span<const std::byte> bytes) noexcept {
    auto& c = state_of(*this);
    if (!c.may_send()) return Flow(Flow::State::refused, Errc::misuse);
    Chain chain;
    do {
        const std::size_t n = std::min<std::size_t>(bytes.size(), memory::block_bytes_max);
        auto copy = c.core.heap().copy(bytes.data(), std::uint32_t(n));
        if (!copy || !chain.append(std::move(*copy))) {
            const Errc code = copy ? Errc::out_of_memory : copy.error().code();
            c.begin_close(Error(code, Step::send));  // a hole in the stream would be worse
            return Flow(Flow::State::refused, code);
        }
        bytes = bytes.subspan(n);
    } while (!bytes.empty());
    return c.push(std::move(chain), -1);
}

bool Connection::try_send(Chain& bytes) noexcept {
    auto& c = state_of(*this);
    if (!c.may_send()) return false;
    if (c.queued_bytes > 0 && c.queued_bytes + bytes.size() > c.limits.send_high) {
        c.send_paused = true;  // on_writable tells when to try again
        return false;
    }
    Chain taken = std::move(bytes);
    c.push(std::move(taken), -1);
    return true;
}

std::size_t Connection::send_room() const noexcept {
    const auto& c = state_of(*this);
    if (!c.may_send()) return 0;
    if (c.queued_bytes >= c.limits.send_high) return 0;
    const std::size_t room = c.limits.send_high - c.queued_bytes;
    return c.is_message() ? std::max<std::size_t>(room, c.caps_now().message_bytes_max) : room;
}

std::size_t Connection::queued() const noexcept { return state_of(*this).queued_bytes; }
void Connection::flush() noexcept { state_of(*this).flush_now(); }

Result<void> Connection::send_descriptor(int fd, Chain bytes) noexcept {
    auto& c = state_of(*this);
    if (!c.may_send() || bytes.empty()) return Error(Errc::misuse, Step::send);
    if (!c.caps_now().descriptors) return Error(Errc::not_supported, Step::send);
    // Refused before the descriptor is queued: it would travel with a later message.
    if (c.is_message() && bytes.size() > c.caps_now().message_bytes_max) return Error(Errc::too_large, Step::send);
    int copy = ::fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (copy < 0) return Error::from_errno(errno, Step::send);
    if (!c.outbox.descriptors.push(std::move(copy))) {
        ::close(copy);
        return Error(Errc::out_of_memory, Step::send);
    }
    const Flow flow = c.push(std::move(bytes), fd);
    if (flow.error() != Errc::none && flow.error() != Errc::send_limit) return Error(flow.error(), Step::send);
    return {};
}

// -- end -------------------------------------------------------------------------------------------------------

void Connection::shutdown(Limit limit) noexcept { state_of(*this).begin_shutdown(limit); }

void Connection::close() noexcept {
    auto& c = state_of(*this);
    c.begin_close(Error(c.phase == Phase::opening ? Errc::cancelled : Errc::closed, Step::close, Who::local));
}

void Connection::close(Error reason) noexcept { state_of(*this).begin_close(reason); }

// -- limits ----------------------------------------------------------------------------------------------------

const QueueLimits& Connection::limits() const noexcept { return state_of(*this).limits; }

void Connection::set_limits(const QueueLimits& limits) noexcept {
    auto& c = state_of(*this);
    c.limits = limits;
    if (c.receive_paused && c.inbox.bytes() < limits.receive) c.set_pause(false);
}

void Connection::deadline_recv(Duration idle) noexcept {
    auto& c = state_of(*this);
    c.receive_idle_ns = idle.ns;
    c.last_received_ns = base::clock_ns();
    c.arm_deadlines();
}

void Connection::deadline_send(Duration stalled) noexcept {
    auto& c = state_of(*this);
    c.send_stalled_ns = stalled.ns;
    c.note_progress(base::clock_ns());
    c.arm_deadlines();
}

// -- remote memory ---------------------------------------------------------------------------------------------

Result<RemoteRegion> Connection::expose(Buffer range, Access access) noexcept {
    auto& c = state_of(*this);
    if (c.phase != Phase::open || c.link == nullptr || range.empty()) return Error(Errc::misuse, Step::remote);
    const bool atomics = (std::uint8_t(access) & std::uint8_t(Access::atomic)) != 0;
    if (!c.link->caps->rma || (atomics && !c.link->caps->remote_atomics)) return Error(Errc::not_supported, Step::remote);
    return c.link->port->expose(*c.link, std::move(range), access);
}

Result<void> Connection::revoke(const RemoteRegion& region) noexcept {
    auto& c = state_of(*this);
    if (c.phase != Phase::open || c.link == nullptr) return Error(Errc::misuse, Step::remote);
    return c.link->port->revoke(*c.link, region);
}

namespace {
Error may_access(const ConnectionState& c, const RemoteRegion& region, std::uint64_t offset, std::uint32_t size) noexcept {
    if (c.phase != Phase::open || c.link == nullptr || c.link_closed || size == 0) return Error(Errc::misuse, Step::remote);
    if (!c.link->caps->rma) return Error(Errc::not_supported, Step::remote);
    if (offset > region.size_bytes || size > region.size_bytes - offset) return Error(Errc::misuse, Step::remote);
    return {};
}

/// What the port was asked for is under way, by the connection's next number.
Result<OperationId> started(ConnectionState& c, const Result<void>& asked, std::uint64_t mark = 0) noexcept {
    if (!asked) return asked.error();
    ++c.operations_out;
    return OperationId{c.next_operation++ | mark};
}

Result<OperationId> start_atomic(ConnectionState& c, const RemoteRegion& region, std::uint64_t offset, const transport::Atomic& what) noexcept {
    if (const Error error = may_access(c, region, offset, sizeof(std::uint64_t)); !error.ok()) return error;
    if (!c.link->caps->remote_atomics) return Error(Errc::not_supported, Step::remote);
    if ((region.address + offset) % sizeof(std::uint64_t) != 0) return Error(Errc::misuse, Step::remote);
    auto before = c.core.heap().allocate(sizeof(std::uint64_t));
    if (!before) return Error(before.error().code(), Step::remote);
    constexpr std::uint64_t mark = ConnectionState::atomic_bit;
    return started(c, c.link->port->atomic(*c.link, {c.next_operation | mark}, region, offset, what, *std::move(before)), mark);
}
}  // namespace

Result<OperationId> Connection::read(const RemoteRegion& region, std::uint64_t offset, Buffer into) noexcept {
    auto& c = state_of(*this);
    if (const Error error = may_access(c, region, offset, into.size()); !error.ok()) return error;
    return started(c, c.link->port->read(*c.link, {c.next_operation}, region, offset, std::move(into)));
}

Result<OperationId> Connection::write(const RemoteRegion& region, std::uint64_t offset, Buffer from) noexcept {
    auto& c = state_of(*this);
    if (const Error error = may_access(c, region, offset, from.size()); !error.ok()) return error;
    return started(c, c.link->port->write(*c.link, {c.next_operation}, region, offset, std::move(from)));
}

Result<OperationId> Connection::write_telling(const RemoteRegion& region, std::uint64_t offset, Buffer from, std::uint32_t word) noexcept {
    auto& c = state_of(*this);
    if (const Error error = may_access(c, region, offset, from.size()); !error.ok()) return error;
    if (!c.link->caps->remote_tells) return Error(Errc::not_supported, Step::remote);
    return started(c, c.link->port->write_telling(*c.link, {c.next_operation}, region, offset, std::move(from), word));
}

Result<OperationId> Connection::fetch_add(const RemoteRegion& region, std::uint64_t offset, std::uint64_t add) noexcept {
    return start_atomic(state_of(*this), region, offset, {false, add, 0});
}

Result<OperationId> Connection::compare_swap(const RemoteRegion& region, std::uint64_t offset, std::uint64_t expected, std::uint64_t desired) noexcept {
    return start_atomic(state_of(*this), region, offset, {true, expected, desired});
}

}  // namespace evpl
