// A connection's news: what the port tells is noted, what was noted is told to the handler, once per turn and in order.
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <new>

#include "base/clock.hpp"
#include "core/compact.hpp"
#include "core/connection_state.hpp"
#include "core/connector.hpp"
#include "core/key_slice.hpp"
#include "core/listener_state.hpp"

namespace evpl::core {

using transport::Arrival;

Origin* Origin::create(const detail::ConnectionFactory& factory) noexcept {
    auto* origin = factory.context != nullptr ? new (std::nothrow) Origin : nullptr;
    if (origin == nullptr) {
        if (factory.context != nullptr) factory.drop(factory.context);
        return nullptr;
    }
    origin->factory = factory;
    return origin;
}

void Origin::unref() noexcept {
    if (--refs != 0) return;
    factory.drop(factory.context);
    delete this;
}

// -- birth and death -------------------------------------------------------------------------------------------

ConnectionState* ConnectionState::create(LoopCore& core, Origin& origin) noexcept {
    const std::size_t align = std::max<std::size_t>(origin.factory.handler_align, alignof(ConnectionState));
    std::size_t bytes = handler_offset<ConnectionState>(align) + origin.factory.handler_bytes;
    bytes = (bytes + align - 1) & ~(align - 1);
    void* room = std::aligned_alloc(align, bytes);
    if (room == nullptr) return nullptr;
    auto* made = new (room) ConnectionState(core, origin);
    if (!core.take_slot(*made, made->slot, made->generation)) {
        made->~ConnectionState();
        std::free(room);
        return nullptr;
    }
    core.enroll(*made);
    return made;
}

ConnectionState::ConnectionState(LoopCore& owner, Origin& from) noexcept : Member(owner), handler(from.factory.table), origin(&from) {
    origin->ref();
    by_frames = handler->frame != nullptr;
    deadline.owner = this;
    deadline.due_fn = [](Alarm& alarm) { static_cast<Deadline&>(alarm).owner->deadline_due(); };
}

ConnectionState::~ConnectionState() { origin->unref(); }

void* ConnectionState::handler_room() noexcept {
    const std::size_t align = std::max<std::size_t>(origin->factory.handler_align, alignof(ConnectionState));
    return reinterpret_cast<std::byte*>(this) + handler_offset<ConnectionState>(align);
}

void ConnectionState::destroy() noexcept {
    core.timers.cancel_alarm(deadline);
    delete private_data;
    void* room = this;
    this->~ConnectionState();
    std::free(room);
}

void ConnectionState::attach(transport::Link& made) noexcept {
    link = &made;
    made.sink = this;
    made.outbox = &outbox;
    plan(*made.caps);  // still asked for in on_close
    if (made.caps->kind == Kind::message) by_frames = false;
    if (made.awaits_accept) note(ev_asked);
}

// -- private data ----------------------------------------------------------------------------------------------

ConnectionState::PrivateData* ConnectionState::make_private_data() noexcept {
    if (private_data == nullptr) private_data = new (std::nothrow) PrivateData;
    return private_data;
}

Result<void> ConnectionState::say(std::span<const std::byte> data) noexcept {
    if (data.size() > std::min<std::size_t>(caps_now().private_data_bytes_max, PrivateData::bytes_most)) return Error(Errc::too_large, Step::open);
    if (make_private_data() == nullptr) return Error(Errc::out_of_memory, Step::open);
    if (!data.empty()) std::memcpy(private_data->said, data.data(), data.size());
    private_data->said_bytes = std::uint16_t(data.size());
    if (link != nullptr) give_private_data(*link);  // a peer that asks; who connects has no link yet
    return {};
}

void ConnectionState::give_private_data(transport::Link& made) const noexcept {
    if (private_data != nullptr) made.port->set_private_data(made, std::span(private_data->said).first(private_data->said_bytes));
}

void ConnectionState::keep_private_data(std::span<const std::byte> heard) noexcept {
    if (heard.empty() || make_private_data() == nullptr) return;
    private_data->heard_bytes = std::uint16_t(std::min(heard.size(), PrivateData::bytes_most));
    std::memcpy(private_data->heard, heard.data(), private_data->heard_bytes);
}

// -- what the port tells ---------------------------------------------------------------------------------------

void ConnectionState::opened() {
    if (phase == Phase::opening) note(ev_open);
}

void ConnectionState::take_descriptors(std::span<const int> came) noexcept {
    for (int fd : came) {
        if (phase > Phase::open || !descriptors.push(std::move(fd))) ::close(fd);
    }
}

void ConnectionState::delivered(Buffer&& bytes, const Arrival& arrival) {
    if (!arrival.descriptors.empty()) [[unlikely]]
        take_descriptors(arrival.descriptors);
    if (phase > Phase::open) [[unlikely]]
        return;
    if (arrival.has_immediate) [[unlikely]]
        return told(arrival.immediate);
    count_received(bytes.size(), 1);
    if (arrival.truncated) [[unlikely]]
        return begin_close(Error(Errc::too_large, Step::recv, Who::peer));
    if (landing && !landing_done) [[unlikely]] {
        land(bytes);
        if (bytes.empty() && !arrival.end_of_message) return;
    }
    std::uint32_t flags = arrival.end_of_message ? BufferAccess::end_of_message : 0;
    if (std::uint64_t key = arrival.invalidated_key; key != 0) [[unlikely]] {
        flags |= BufferAccess::has_key;
        if (!keys_in.push(std::move(key))) return begin_close(Error(Errc::out_of_memory, Step::recv));
    }
    BufferAccess::set_flags(bytes, flags);
    if (!inbox.push(std::move(bytes))) [[unlikely]]
        return begin_close(Error(Errc::out_of_memory, Step::recv));
    ++fresh_in;
    messages_in += arrival.end_of_message ? 1 : 0;
    // A peer must not use up what the process may open.
    if (!arrival.descriptors.empty() && descriptors.size() >= descriptors_most) [[unlikely]]
        set_pause(true);
    if (inbox.bytes() >= limits.receive && !receive_paused) [[unlikely]]
        pause_at_limit();
    note(ev_recv);
}

void ConnectionState::delivered_messages(std::span<Buffer> messages) {
    if (phase > Phase::open) [[unlikely]]
        return;
    const auto count = std::uint32_t(messages.size());
    if (!inbox.reserve(count)) [[unlikely]]
        return begin_close(Error(Errc::out_of_memory, Step::recv));
    std::size_t bytes = 0;
    for (Buffer& message : messages) {
        bytes += message.size();
        BufferAccess::set_flags(message, BufferAccess::end_of_message);
        inbox.push_reserved(std::move(message));
    }
    count_received(bytes, count);
    fresh_in += count;
    messages_in += count;
    if (inbox.bytes() >= limits.receive && !receive_paused) [[unlikely]]
        pause_at_limit();
    note(ev_recv);
}

void ConnectionState::pause_at_limit() noexcept {
    if (caps_now().receive_pause && inbox.bytes() >= receive_most()) set_pause(true);
}

/// The words of one turn wait for its callbacks; ports bound how many a peer may have under way.
void ConnectionState::told(std::uint32_t word) noexcept {
    note_received();
    const bool hears = handler->size_bytes > offsetof(HandlerTable, on_written) && handler->on_written != nullptr;
    if (!hears) return;
    if (!words.push(std::move(word))) return begin_close(Error(Errc::out_of_memory, Step::recv));
    note(ev_written);
}

std::size_t ConnectionState::receive_most() noexcept {
    // Who cannot be stopped may be ahead of a reader that keeps up on the whole: a burst is no reason to lose the connection.
    constexpr std::size_t unstoppable_factor = 16;
    const std::size_t factor = caps_now().receive_pause ? 1 : unstoppable_factor;
    const std::size_t usual = std::max<std::size_t>(limits.receive * factor, want_bytes);
    if (is_message()) return messages_in > 0 ? usual : std::max<std::size_t>(usual, caps_now().message_bytes_max);
    if (!by_frames) return usual;
    return std::max<std::size_t>(usual, frame_left != 0 ? frame_left : limits.message);
}

/// Where the sender cannot be stopped, a program that has had its chance to read and left too much unread loses the connection.
void ConnectionState::end_beyond_limit() noexcept {
    if (phase != Phase::open || caps_now().receive_pause || inbox.bytes() <= receive_most()) return;
    begin_close(Error(Errc::receive_limit, Step::recv));
}

// The port does not land, or not always, or received before it knew of the block: copied here.
void ConnectionState::land(Buffer& bytes) noexcept {
    const std::uint32_t n = std::min(bytes.size(), landing.size() - landed_bytes);
    std::memcpy(landing.data() + landed_bytes, bytes.data(), n);
    bytes.drop_front(n);
    landed_bytes += n;
    const std::uint32_t left = landing.size() - landed_bytes;
    if (link != nullptr) link->landing = left > 0 ? transport::Landing{landing.data() + landed_bytes, left} : transport::Landing{};
    if (left > 0) return;
    landing_done = true;
    note(ev_recv);
}

// What has landed is all that ever will.
void ConnectionState::end_landing() noexcept {
    landing.truncate(landed_bytes);
    landing_done = true;
    if (link != nullptr) link->landing = {};
}

void ConnectionState::landed(std::uint32_t bytes) {
    if (phase > Phase::open) return;
    landed_bytes += bytes;
    received_bytes += bytes;
    core.metrics.received_bytes += bytes;
    note_received();
    if (landed_bytes < landing.size()) return;
    landing_done = true;
    note(ev_recv);
}

void ConnectionState::ended() {
    peer_ended = true;
    if (phase > Phase::open) return;
    if (landing && !landing_done) end_landing();
    // A recv_exactly that waits for more than there will ever be asks once more, and is told.
    const bool waits = landing_done || (want_bytes > 0 && inbox.count() > 0);
    note(waits ? ev_end | ev_recv : ev_end);
}

void ConnectionState::sent(std::size_t bytes) {
    queued_bytes -= bytes;
    sent_bytes += bytes;
    core.metrics.sent_bytes += bytes;
    if (send_stalled_ns != INT64_MAX) note_progress(core.now_ns());
    if (phase > Phase::open) return;
    if (handler->on_sent != nullptr) {
        sent_since += bytes;
        note(ev_sent);
    }
    if (send_paused && queued_bytes <= limits.send_low) note(ev_writable);
}

void ConnectionState::send_failed(Error) {}

void ConnectionState::writable() {
    if (phase <= Phase::open || outbox.count() > 0) core.mark_dirty(*this);
}

void ConnectionState::completed(OperationId operation, Error error, Buffer&& buffer) {
    --operations_out;
    Completion done{operation, error, std::move(buffer)};
    if ((operation.value & atomic_bit) != 0) {
        if (error.ok()) std::memcpy(&done.value, done.buffer.data(), sizeof done.value);
        done.buffer.reset();
    }
    if (completions.push(std::move(done))) note(ev_completed);
}

void ConnectionState::closed(Error error) {
    link_closed = true;
    if (link != nullptr) {  // still asked for in on_close
        peer_address = link->port->remote_address(*link);
        keep_private_data(link->port->private_data(*link));
    }
    if (phase <= Phase::open && close_reason.ok()) close_reason = error;
    note(ev_close);
}

void ConnectionState::retired() {
    link_retired = true;
    link = nullptr;
    if (phase == Phase::closed) core.bury(*this);
}

void ConnectionState::connect_failed(Error error) noexcept {
    link_closed = link_retired = true;
    if (close_reason.ok()) close_reason = error;
    note(ev_close);
}

// -- what the handler hears ------------------------------------------------------------------------------------

template <class Call>
void ConnectionState::guard(Call call) noexcept {
    try {
        call();
    } catch (...) {
        begin_close(Error(Errc::handler_threw, Step::none, Who::local));
    }
}

bool ConnectionState::build() noexcept {
    Error failure(Errc::handler_threw, Step::open, Who::local);
    try {
        auto made = origin->factory.build(origin->factory.context, *this, handler_room());
        if (made) {
            self = *made;
            return true;
        }
        failure = Error(Errc::refused_by_handler, Step::accept, Who::local, made.error().os());
    } catch (...) {}
    ++origin->refused;
    begin_close(failure);
    return false;
}

/// The peer waits for our answer. A factory that refuses it has begun to close: that rejects it.
void ConnectionState::answer() noexcept {
    open_by_ns = AlarmWheel::due_after(core.now_ns(), connect_limit_ns);
    arm_deadlines();
    if (build()) link->port->admit(*link);
}

void ConnectionState::call_open() noexcept {
    if (self == nullptr && !build()) return;
    phase = phase == Phase::opening ? Phase::open : phase;
    if (receive_idle_ns != INT64_MAX || send_stalled_ns != INT64_MAX) last_received_ns = last_progress_ns = core.now_ns();
    open_by_ns = INT64_MAX;
    arm_deadlines();
    if (outbox.count() > 0 || send_ended) core.mark_dirty(*this);
    if (phase == Phase::open && handler->on_open != nullptr) guard([this] { handler->on_open(self, *this); });
}

/// The first slice becomes at least `wanted` bytes long, by copying from those behind it. In a block of its own it grows in place, so that
/// bytes that dribble in are copied once. False: no memory, or longer than a block.
bool ConnectionState::make_head(std::uint32_t wanted) noexcept {
    if (wanted > memory::block_bytes_max) return false;
    Buffer first = inbox.pop();
    std::uint32_t size = first.size();
    if (!memory::can_grow_to(first, wanted)) {
        auto bigger = core.heap().allocate(std::min(wanted * 2, memory::block_bytes_max));
        if (!bigger) return false;
        std::memcpy(bigger->data(), first.data(), size);
        first = *std::move(bigger);
    }
    while (size < wanted) {
        const std::uint32_t n = std::min(inbox[0].size(), wanted - size);
        std::memcpy(first.data() + size, inbox[0].data(), n);
        size += n;
        inbox.drop_front(n);
    }
    std::byte* const data = first.data();
    return inbox.push_front(BufferAccess::adopt(BufferAccess::detach(first), data, size));
}

// The bytes at the inbox's front tell how long their message is, as soon as the frame callback can say. It sees one piece of memory: the
// first slice, and more of the inbox when that does not suffice.
void ConnectionState::check_frame() noexcept {
    while (frame_left == 0 && !inbox.empty() && phase <= Phase::open) {
        Frame frame;
        const std::span<const std::byte> head = inbox[0].bytes();
        guard([&] { frame = handler->frame(self, head); });
        if (phase > Phase::open) return;
        if (frame.bad) return begin_close(Error(Errc::bad_frame, Step::recv, Who::peer));
        if (frame.size_bytes > limits.message) return begin_close(Error(Errc::too_large, Step::recv, Who::peer));
        frame_left = frame.size_bytes;
        if (frame_left != 0) return;
        if (inbox.bytes() >= limits.message || head.size() >= memory::block_bytes_max) {
            return begin_close(Error(Errc::too_large, Step::recv, Who::peer));
        }
        if (inbox.count() == 1) return;  // all there is: more bytes, please
        const std::size_t wanted = std::min<std::size_t>({inbox.bytes(), memory::block_bytes_max, std::max<std::size_t>(256, head.size() * 2)});
        if (!make_head(std::uint32_t(wanted))) return begin_close(Error(Errc::out_of_buffers, Step::recv));
    }
}

std::int64_t ConnectionState::message_bytes() noexcept {
    if (by_frames) {
        if (self != nullptr) check_frame();
        return frame_left != 0 && inbox.bytes() >= frame_left ? std::int64_t(frame_left) : -1;
    }
    if (messages_in == 0) return -1;
    std::int64_t bytes = 0;
    for (std::uint32_t i = 0;; ++i) {
        bytes += inbox[i].size();
        if ((BufferAccess::flags(inbox[i]) & BufferAccess::end_of_message) != 0) return bytes;
    }
}

bool ConnectionState::can_receive() noexcept {
    if (landing) return landing_done;
    if (inbox.count() == 0) return false;
    if (by_frames || is_message()) {
        if (message_bytes() >= 0) return true;
        if (phase <= Phase::open && receive_paused && inbox.bytes() < receive_most()) set_pause(false);
        return false;
    }
    return peer_ended || inbox.bytes() >= want_bytes;
}

/// With messages, on_recv comes again while it takes some and whole ones are left: a handler may take one each time.
void ConnectionState::call_recv() noexcept {
    if (handler->on_recv == nullptr) return;
    const bool by_messages = by_frames || is_message();
    for (std::uint32_t calls = 0; phase == Phase::open && can_receive(); ++calls) {
        if (calls == core.options.batch) return note(ev_recv);  // others have their turn
        const std::uint32_t slices = inbox.count();
        const std::size_t bytes = inbox.bytes();
        guard([this] { handler->on_recv(self, *this); });
        if (!by_messages || (inbox.count() == slices && inbox.bytes() == bytes)) return;
    }
}

void ConnectionState::call_end() noexcept {
    if (end_told) return;
    if (inbox.count() > 0) {  // waits until the inbox is pulled empty
        if (by_frames && message_bytes() < 0 && phase == Phase::open) {
            begin_close(Error(Errc::truncated, Step::recv, Who::peer));  // half a message, and no more to come
        }
        return;
    }
    end_told = true;
    if (handler->on_end != nullptr) guard([this] { handler->on_end(self, *this); });
    else begin_shutdown({});
}

void ConnectionState::call_written() noexcept {
    while (!words.empty() && phase == Phase::open) {
        const std::uint32_t word = words.front();
        words.pop();
        guard([&] { handler->on_written(self, *this, word); });
    }
}

void ConnectionState::call_completions() noexcept {
    while (!completions.empty() && self != nullptr) {
        Completion done = std::move(completions.front());
        completions.pop();
        if (handler->on_completed != nullptr) guard([&] { handler->on_completed(self, *this, done); });
    }
    if (!completions.empty()) events |= ev_completed;  // for the next dispatch
}

void ConnectionState::dispatch() {
    if (phase == Phase::closed) return;
    const std::uint32_t now = std::exchange(events, 0);
    if ((now & ev_asked) != 0 && phase == Phase::opening && !link_closed && self == nullptr) answer();
    if ((now & ev_open) != 0 && phase == Phase::opening) call_open();
    if (phase == Phase::open) {
        if ((now & ev_written) != 0) call_written();
        if ((now & ev_recv) != 0 && phase == Phase::open) {
            call_recv();
            if (inbox.bytes() > limits.receive) [[unlikely]]
                end_beyond_limit();
        }
        if ((now & ev_sent) != 0 && phase == Phase::open && sent_since > 0) {
            const std::size_t bytes = std::exchange(sent_since, 0);
            guard([&] { handler->on_sent(self, *this, bytes); });
        }
        if ((now & ev_writable) != 0 && phase == Phase::open && send_paused && queued_bytes <= limits.send_low) {
            send_paused = false;
            if (handler->on_writable != nullptr && !send_ended) {
                guard([this] { handler->on_writable(self, *this); });
                if ((by_frames || is_message()) && inbox.count() > 0) note(ev_recv);  // it may have taken one message of several
            }
        }
        if (peer_ended && phase == Phase::open) call_end();
    }
    if ((now & ev_completed) != 0) call_completions();
    if (inbox.count() == 0) fresh_in = 0;
    if (fresh_in > 0) core.touch(*this);
    const bool unread = close_reason.code() == Errc::end && inbox.count() > 0 && phase == Phase::open;
    if (phase == Phase::closing || (link_closed && !unread)) finish_close();
}

// The last callback. The port may still hold the link: its retired() comes when the device is done.
void ConnectionState::finish_close() noexcept {
    phase = Phase::closing;
    if (connector != nullptr) Connector::abandon(*this);
    if (!link_closed && link != nullptr) {
        link->port->close(*link, transport::How::abort);
        if (operations_out > 0) return;  // remote operations end first, each with its own callback; closed() follows them
    }
    phase = Phase::closed;
    core.timers.cancel_alarm(deadline);
    core.free_slot(slot);
    if (self != nullptr) {
        if (handler->on_close != nullptr) guard([this] { handler->on_close(self, *this, close_reason); });
        if (origin->factory.destroy != nullptr) origin->factory.destroy(self);
        self = nullptr;
    }
    drop_queues();
    if (counted_open) {
        --origin->open;
        if (origin->listener != nullptr) origin->listener->connection_closed();
    }
    core.passed_away(*this);
    if (link == nullptr) core.bury(*this);
}

void ConnectionState::discard() noexcept {
    phase = Phase::closed;
    core.free_slot(slot);
    if (self != nullptr && origin->factory.destroy != nullptr) origin->factory.destroy(self);
    self = nullptr;
    core.passed_away(*this);
    core.bury(*this);
}

void ConnectionState::drop_queues() noexcept {
    for (auto* queue : {&descriptors, &outbox.descriptors}) {
        for (; !queue->empty(); queue->pop()) ::close(queue->front());
    }
    inbox.clear();
    keys_in.clear();
    outbox.clear();
    outbox.keys.clear();
    landing.reset();
}

void ConnectionState::stop(bool drain, Error reason) {
    if (drain && phase == Phase::open) begin_shutdown({});
    else if (!drain) begin_close(reason);
}

// -- sending and settling --------------------------------------------------------------------------------------

void ConnectionState::flush_outbox() {
    if (link == nullptr || link_closed || phase == Phase::opening) return;
    if (memory::Domain* domain = link->domain; domain != nullptr && !give_keys(*domain)) return;
    link->port->flush(*link);
    if (outbox.count() > 0) {
        if (fresh_out > 0) core.touch(*this);
    } else {
        fresh_out = 0;
        outbox.shrink();
    }
    if (!send_ended || drain_told || link == nullptr || link_closed) return;
    drain_told = true;  // the last bytes are in the outbox, with their keys: the port goes on by itself
    link->port->close(*link, link->caps->half_close ? transport::How::drain : transport::How::finish);
}

bool ConnectionState::give_keys(memory::Domain& domain) noexcept {
    const Keyed keyed = key_tail(core, domain, outbox, unkeyed_out);
    if (keyed == Keyed::later) core.flush_when_keyed(slot, generation);
    if (keyed == Keyed::never) begin_close(Error(Errc::device_error, Step::send));
    return keyed == Keyed::yes;
}

void ConnectionState::settle() {
    std::size_t copied = 0;
    if (fresh_in > 0) copied += compact_tail(core.heap(), inbox, fresh_in);
    if (fresh_out > 0 && !drain_told) {  // a port that goes on by itself must find the memory that has keys
        copied += compact_tail(core.heap(), outbox, fresh_out);
        unkeyed_out = std::max(unkeyed_out, fresh_out);  // the new block may lie in a slab that the link's domain does not know
    }
    fresh_in = fresh_out = 0;
    core.metrics.compacted_bytes += copied;
    if (inbox.count() == 0) inbox.shrink();
}

// -- deadlines -------------------------------------------------------------------------------------------------

void ConnectionState::arm_deadlines() noexcept {
    std::int64_t due = std::min(open_by_ns, shutdown_by_ns);
    if (receive_idle_ns != INT64_MAX && awaits_bytes()) due = std::min(due, AlarmWheel::due_after(last_received_ns, receive_idle_ns));
    if (send_stalled_ns != INT64_MAX && queued_bytes > 0) due = std::min(due, AlarmWheel::due_after(last_progress_ns, send_stalled_ns));
    if (due == INT64_MAX) core.timers.cancel_alarm(deadline);
    else core.timers.set_alarm(deadline, core.now_ns(), due);
}

// Traffic does not touch the alarm: it is looked at when it fires, and set again for what is left.
void ConnectionState::deadline_due() noexcept {
    const std::int64_t now = base::clock_ns();
    if (now >= open_by_ns) return begin_close(Error(Errc::timed_out, Connector::step_of(*this), Who::peer));
    if (now >= shutdown_by_ns) return begin_close(Error(Errc::timed_out, Step::close, Who::peer));
    if (receive_idle_ns != INT64_MAX && awaits_bytes() && now >= AlarmWheel::due_after(last_received_ns, receive_idle_ns)) {
        return begin_close(Error(Errc::timed_out, Step::recv, Who::peer));
    }
    if (send_stalled_ns != INT64_MAX && queued_bytes > 0 && now >= AlarmWheel::due_after(last_progress_ns, send_stalled_ns)) {
        return stalled(now);
    }
    arm_deadlines();
}

// This loop itself may have stood still, in a callback or with its whole process: then room has come meanwhile, and nobody has looked. An
// alarm that comes late tells of it, and the time counts from now, a few times at the most. Before the peer is blamed, what waits is offered
// once more, and the loop gets a few turns to hear of room.
void ConnectionState::stalled(std::int64_t now) noexcept {
    constexpr std::int64_t late_ns = 5'000'000, look_again_ns = 4'000'000;
    constexpr std::uint8_t stalls_most = 3, looks_most = 5;
    const bool late = now - AlarmWheel::due_ns(deadline) > late_ns;
    const std::int64_t before = last_progress_ns;
    if (phase == Phase::open) flush_outbox();
    if (phase > Phase::open || last_progress_ns != before || queued_bytes == 0) return arm_deadlines();
    if (late && own_stalls < stalls_most) {
        ++own_stalls;
        last_progress_ns = core.now_ns();
        return arm_deadlines();
    }
    if (++looks > looks_most) return begin_close(Error(Errc::timed_out, Step::send, Who::peer));
    core.timers.set_alarm(deadline, core.now_ns(), AlarmWheel::due_after(now, look_again_ns));
}

}  // namespace evpl::core
