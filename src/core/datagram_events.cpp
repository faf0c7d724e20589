// A datagram socket's news: noted from the port, told to the handler once per turn.
#include <cstdlib>
#include <new>

#include "core/compact.hpp"
#include "core/connector.hpp"
#include "core/datagram_state.hpp"
#include "core/key_slice.hpp"

namespace evpl::core {

DatagramState* DatagramState::create(LoopCore& core, const detail::DatagramFactory& factory) noexcept {
    const std::size_t align = std::max<std::size_t>(factory.handler_align, alignof(DatagramState));
    const std::size_t bytes = (handler_offset<DatagramState>(align) + factory.handler_bytes + align - 1) & ~(align - 1);
    void* room = std::aligned_alloc(align, bytes);
    if (room == nullptr) return nullptr;
    auto* made = new (room) DatagramState(core, factory);
    if (!core.take_slot(*made, made->slot, made->generation)) {
        made->~DatagramState();
        std::free(room);
        return nullptr;
    }
    core.enroll(*made);
    return made;
}

DatagramState::DatagramState(LoopCore& owner, const detail::DatagramFactory& given) noexcept : Member(owner), factory(given) {}

void* DatagramState::handler_room() noexcept {
    const std::size_t align = std::max<std::size_t>(factory.handler_align, alignof(DatagramState));
    return reinterpret_cast<std::byte*>(this) + handler_offset<DatagramState>(align);
}

void DatagramState::destroy() noexcept {
    DatagramConnector::abandon(*this);
    factory.drop(factory.context);
    void* room = this;
    this->~DatagramState();
    std::free(room);
}

bool DatagramState::build() noexcept {
    close_reason = Error(Errc::handler_threw, Step::open, Who::local);
    try {
        auto made = factory.build(factory.context, *this, handler_room());
        if (made) {
            self = *made;
            close_reason = {};
            return true;
        }
        close_reason = Error(Errc::refused_by_handler, Step::open, Who::local);
    } catch (...) {}
    return false;
}

void DatagramState::discard() noexcept {
    phase = Phase::closed;
    core.free_slot(slot);
    if (self != nullptr && factory.destroy != nullptr) factory.destroy(self);
    self = nullptr;
    core.passed_away(*this);
    core.bury(*this);
}

// -- what the port tells ---------------------------------------------------------------------------------------

void DatagramState::opened() {
    if (phase == Phase::opening) phase = Phase::open;
    note(ev_open);
}

void DatagramState::delivered(Buffer&& bytes, const transport::Arrival& arrival) {
    if (phase > Phase::open) return;
    const std::uint32_t size = bytes.size();
    const std::uint32_t packets = arrival.segment_bytes > 0 && size > 0 ? (size + arrival.segment_bytes - 1) / arrival.segment_bytes : 1;
    counted.received_packets += packets;
    counted.received_bytes += size;
    counted.truncated_packets += arrival.truncated ? 1 : 0;
    core.metrics.received_bytes += size;
    core.metrics.received_messages += packets;
    Received one{std::move(bytes), {}, {}, arrival.segment_bytes, arrival.truncated};
    if (arrival.source != nullptr) one.from = *arrival.source;
    if (arrival.local != nullptr) one.to = *arrival.local;
    if (unread_bytes + size > limits.receive + std::size_t(caps_now().message_bytes_max) || !inbox.push(std::move(one))) {
        counted.dropped_packets += packets;  // a transport without pause, and a reader that does not read
        return;
    }
    ++fresh_in;
    unread_bytes += size + 64;  // an empty datagram is not free
    if (unread_bytes >= limits.receive && !receive_paused && link != nullptr && caps_now().receive_pause) {
        receive_paused = true;
        link->port->pause(*link);
    }
    note(ev_recv);
}

void DatagramState::sent(std::size_t bytes) {
    queued_bytes -= bytes;
    counted.sent_bytes += bytes;
    core.metrics.sent_bytes += bytes;
    if (send_paused && queued_bytes <= limits.send_low) note(ev_writable);
}

void DatagramState::send_failed(Error error) {
    ++counted.send_errors;
    send_error = error;
    note(ev_error);
}

void DatagramState::writable() { core.mark_dirty(*this); }

void DatagramState::closed(Error error) {
    link_closed = true;
    if (phase <= Phase::open) close_reason = error;
    note(ev_close);
}

void DatagramState::retired() {
    link = nullptr;
    if (phase == Phase::closed) core.bury(*this);
}

// -- what the handler hears ------------------------------------------------------------------------------------

template <class Call>
void DatagramState::guard(Call call) noexcept {
    try {
        call();
    } catch (...) {
        begin_close(Error(Errc::handler_threw, Step::none, Who::local));
    }
}

void DatagramState::dispatch() {
    if (phase == Phase::closed) return;
    const std::uint32_t now = std::exchange(events, 0);
    const DatagramTable& table = *factory.table;
    if (phase == Phase::open && (now & ev_open) != 0) {
        if (outbox.count() > 0) core.mark_dirty(*this);
        if (table.on_open != nullptr) guard([&] { table.on_open(self, *this); });
    }
    if (phase == Phase::open && (now & ev_recv) != 0 && !inbox.empty() && table.on_recv != nullptr) {
        guard([&] { table.on_recv(self, *this); });
    }
    if (phase == Phase::open && (now & ev_error) != 0 && table.on_error != nullptr) {
        guard([&] { table.on_error(self, *this, send_error); });
    }
    if (phase == Phase::open && (now & ev_writable) != 0 && send_paused && queued_bytes <= limits.send_low) {
        send_paused = false;
        if (table.on_writable != nullptr) guard([&] { table.on_writable(self, *this); });
    }
    if (fresh_in > 0 || fresh_out > 0) core.touch(*this);
    if (phase == Phase::closing || link_closed) finish_close();
}

void DatagramState::begin_close(Error reason) noexcept {
    if (phase > Phase::open) return;
    phase = Phase::closing;
    close_reason = reason;
    note(ev_close);
}

void DatagramState::finish_close() noexcept {
    DatagramConnector::abandon(*this);
    if (!link_closed && link != nullptr) link->port->close(*link, transport::How::abort);
    phase = Phase::closed;
    core.free_slot(slot);
    if (self != nullptr) {
        if (factory.table->on_close != nullptr) guard([this] { factory.table->on_close(self, *this, close_reason); });
        if (factory.destroy != nullptr) factory.destroy(self);
        self = nullptr;
    }
    inbox.clear();
    outbox.clear();
    outbox.destinations.clear();
    core.passed_away(*this);
    if (link == nullptr) core.bury(*this);
}

void DatagramState::stop(bool drain, Error reason) {
    if (drain && phase == Phase::open && queued_bytes > 0) return;  // its outbox drains; the end of the drain closes it
    begin_close(reason);
}

void DatagramState::flush_outbox() {
    if (link == nullptr || link_closed || phase != Phase::open) return;
    if (memory::Domain* domain = link->domain; domain != nullptr) {
        const Keyed keyed = key_tail(core, *domain, outbox, unkeyed_out);
        if (keyed == Keyed::later) return core.flush_when_keyed(slot, generation);
        if (keyed == Keyed::never) return begin_close(Error(Errc::device_error, Step::send));
    }
    link->port->flush(*link);
    if (outbox.count() > 0) {
        if (fresh_out > 0) core.touch(*this);
        return;
    }
    fresh_out = 0;
    if (core.stopping) begin_close(Error(Errc::stopped, Step::loop));
}

// A packet that uses little of its block must not pin it: unread ones move into blocks of their own.
void DatagramState::settle() {
    std::size_t copied = 0;
    const std::uint32_t count = inbox.size();
    for (std::uint32_t i = count - std::min(fresh_in, count); i < count; ++i) {
        Buffer& bytes = inbox[i].bytes;
        if (bytes.empty() || std::uint64_t(bytes.size()) * 8 >= memory::block_bytes(bytes)) continue;
        auto copy = core.heap().copy(bytes.data(), bytes.size());
        if (!copy) break;
        copied += bytes.size();
        bytes = std::move(*copy);
    }
    if (fresh_out > 0) {
        copied += compact_tail(core.heap(), outbox, fresh_out);
        unkeyed_out = std::max(unkeyed_out, fresh_out);  // the new block may lie in a slab that the link's domain does not know
    }
    fresh_in = fresh_out = 0;
    core.metrics.compacted_bytes += copied;
    if (inbox.empty()) inbox.shrink();
}

}  // namespace evpl::core
