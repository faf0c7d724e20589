// The data path of a port: the stack's callbacks to sinks, outboxes to the stack.
//
// Inside a callback the stack allows sends, returning buffers, update and names. Everything else is noted on the link and done in settle(),
// after the poll.

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "transport/xlio/port.hpp"

namespace evpl::transport::xlio {

thread_local XlioPort* XlioPort::polling_ = nullptr;

namespace {

constexpr unsigned gather_most = 16;

// A buffer that a program holds remembers its desk and its size: 48 bits of address, and 64 bytes as the unit of the rest.
constexpr unsigned address_bits = 48;
constexpr std::uint64_t address_mask = (std::uint64_t(1) << address_bits) - 1;

std::uint64_t note_of(const ReturnDesk& desk, std::size_t bytes) noexcept {
    const std::uint64_t units = std::min<std::uint64_t>((std::max(bytes, held_bytes_least) + 63) / 64, UINT16_MAX);
    return std::uint64_t(reinterpret_cast<std::uintptr_t>(&desk)) | units << address_bits;
}
std::size_t held_of(std::uint64_t note) noexcept { return std::size_t(note >> address_bits) * 64; }

Owner* owner_of(std::uintptr_t userdata) noexcept { return reinterpret_cast<Owner*>(userdata); }
XlioLink* link_of(std::uintptr_t userdata) noexcept {
    Owner* const owner = owner_of(userdata);
    return owner != nullptr && !owner->is_listening ? static_cast<XlioLink*>(owner) : nullptr;
}

}  // namespace

// -- polling ---------------------------------------------------------------------------------------------------

unsigned XlioPort::poll(unsigned) {
    if (sockets_ == 0 && touched_first_ == nullptr) return 0;
    events_ = 0;
    turn_stack();
    if (destroyed_) turn_stack();  // the loop may not come again: the peer should hear of the end
    if (events_ > 0) idle_wait_ns_ = idle_wait_ns_least;
    return events_;
}

void XlioPort::turn_stack() {
    destroyed_ = false;
    {
        const InStack in(*this);
        calls_.group_poll(desk_.group);
    }
    for (; !doomed_.empty(); doomed_.pop()) calls_.socket_destroy(doomed_.front());
    if (backlogs_) serve_backlogs();
    touch_short();
    settle();
}

/// Nobody wakes the loop for the stack: it looks again soon, and less and less soon while nothing comes.
Armed XlioPort::arm() {
    if (sockets_ == 0) return {};
    const std::int64_t wait = idle_wait_ns_;
    idle_wait_ns_ = std::min(idle_wait_ns_ * 2, idle_wait_ns_most);
    return {touched_first_ != nullptr, wait};
}

// -- from inside the stack -------------------------------------------------------------------------------------

void XlioPort::on_event(abi::Socket socket, std::uintptr_t userdata, int event, int value) {
    XlioPort* const port = polling_;
    if (port == nullptr) return;
    ++port->events_;
    if (event == abi::terminated) --port->sockets_;
    if (userdata == 0) return port->note_early(socket, event, value);
    if (owner_of(userdata)->is_listening) {
        auto& listening = *static_cast<XlioListening*>(owner_of(userdata));
        if (event == abi::terminated) listening.socket = 0;
        if (event == abi::error && !listening.over) listening.acceptor->failed(Error::from_errno(value, Step::listen));
        return;
    }
    XlioLink& link = *link_of(userdata);
    switch (event) {
    case abi::established: link.established = true; break;
    case abi::closed: link.end_heard = true; break;
    case abi::error: link.failure = value != 0 ? value : ECONNRESET; break;
    case abi::terminated: link.terminated = true; break;
    default: break;
    }
    port->touch(link);
}

/// A peer that failed before its accept callback: the socket's errors are told once, and to nobody else.
void XlioPort::note_early(abi::Socket socket, int event, int value) noexcept {
    if (event != abi::error) return;
    early_failure_ = socket;
    early_errno_ = value != 0 ? value : ECONNRESET;
}

void XlioPort::on_accepted(abi::Socket made, abi::Socket, std::uintptr_t parent_userdata) {
    XlioPort* const port = polling_;
    if (port == nullptr || parent_userdata == 0) return;
    ++port->events_;
    ++port->sockets_;
    port->accepted(made, *static_cast<XlioListening*>(owner_of(parent_userdata)));
}

void XlioPort::accepted(abi::Socket socket, XlioListening& listening) noexcept {
    XlioLink* const link = listening.over || listening.backlog.size() >= backlog_most || !listening.backlog.reserve(1) ? nullptr : take_link();
    if (link == nullptr) {
        (void)doomed_.push(std::move(socket));  // without memory for that it stays until the group goes
        return;
    }
    link->state = XlioLink::State::waiting;
    link->socket = socket;
    link->established = true;
    link->listening = &listening;
    if (early_failure_ == socket) link->failure = early_errno_;
    early_failure_ = 0;
    calls_.socket_update(socket, 0, reinterpret_cast<std::uintptr_t>(static_cast<Owner*>(link)));
    XlioLink* queued = link;
    (void)listening.backlog.push(std::move(queued));  // reserved
    backlogs_ = true;
}

void XlioPort::on_received(abi::Socket, std::uintptr_t userdata, void* data, std::size_t bytes, abi::Buf* buf) {
    XlioPort* const port = polling_;
    if (port == nullptr) return;
    ++port->events_;
    XlioLink* const link = link_of(userdata);
    if (link == nullptr || link->state == XlioLink::State::over) return port->calls_.group_buf_free(port->desk_.group, buf);
    Buffer slice = port->take_bytes(static_cast<std::byte*>(data), std::uint32_t(bytes), buf);
    link->heard = true;
    if (slice) return port->deliver(*link, std::move(slice));
    link->failure = ENOBUFS;
    port->touch(*link);
}

/// The bytes as a slice: the stack's own buffer, or a copy when they are few or when too much is held. Empty: no memory.
Buffer XlioPort::take_bytes(std::byte* data, std::uint32_t bytes, abi::Buf* buf) noexcept {
    if (bytes > copied_bytes_most && desk_.held_bytes + bytes <= held_bytes_most_) {
        buf->userdata = note_of(desk_, bytes);
        if (auto wrapped = host_.heap().wrap(data, bytes, &XlioPort::give_back, buf)) {
            desk_.held_bytes += held_of(buf->userdata);
            ++desk_.held_buffers;
            return *std::move(wrapped);
        }
    }
    Buffer copy;
    if (bytes <= ReceiveBlock::size_bytes) {
        if (const auto room = block_.room(bytes); !room.empty()) {
            std::memcpy(room.data(), data, bytes);
            copy = block_.cut(bytes);
        }
    } else if (auto made = host_.heap().copy(data, bytes)) {
        copy = *std::move(made);
    }
    calls_.group_buf_free(desk_.group, buf);
    return copy;
}

/// The last slice of a wrapped buffer is gone. On the loop's thread; after the loop's end on any, one at a time.
void XlioPort::give_back(void* context) noexcept {
    auto* const buf = static_cast<abi::Buf*>(context);
    const std::uint64_t note = buf->userdata;
    auto& desk = *reinterpret_cast<ReturnDesk*>(note & address_mask);
    desk.held_bytes -= held_of(note);
    --desk.held_buffers;
    if (desk.orphaned) desk.calls->group_poll(desk.group);  // the group is this thread's from here on
    desk.calls->group_buf_free(desk.group, buf);
    if (!desk.orphaned || desk.held_buffers > 0) return;
    desk.calls->group_destroy(desk.group);
    delete &desk;
}

void XlioPort::deliver(XlioLink& link, Buffer&& bytes) {
    static constexpr Arrival nothing_else{};  // one for all: it need not be made for each
    if (link.known && link.state == XlioLink::State::open) return link.sink->delivered(std::move(bytes), nothing_else);
    if (link.early.bytes() >= early_bytes_most) link.failure = ENOBUFS;
    else if (!link.early.push(std::move(bytes))) link.failure = ENOMEM;
    touch(link);
}

void XlioPort::on_completion(abi::Socket, std::uintptr_t userdata, std::uintptr_t operation) {
    XlioPort* const port = polling_;
    if (port == nullptr) return;
    ++port->events_;
    if (XlioLink* const link = link_of(userdata)) port->completed(*link, operation);
}

/// The peer's stack has everything up to this send, what went inline before it too.
void XlioPort::completed(XlioLink& link, std::uintptr_t operation) {
    if (sending_ == &link) {  // from inside a send, whose own request is not noted yet
        completed_meanwhile_ = std::max(completed_meanwhile_, operation);
        return;
    }
    const std::uintptr_t oldest = link.next_operation - link.requests.size();
    if (operation < oldest || operation >= link.next_operation) return;
    std::size_t bytes = 0;
    for (std::uintptr_t left = operation - oldest + 1; left > 0; --left) {
        const Request request = link.requests.front();
        link.requests.pop();
        link.in_flight_bytes -= request.bytes + request.inline_bytes;
        bytes += request.bytes;
        for (std::uint32_t i = 0; i < request.slices; ++i) link.with_stack.pop();
    }
    touch(link);
    if (link.state == XlioLink::State::open) link.sink->sent(bytes);
}

// -- sending ---------------------------------------------------------------------------------------------------

Flushed XlioPort::flush(Link& base) {
    auto& link = static_cast<XlioLink&>(base);
    if (link.state != XlioLink::State::open) return Flushed::blocked;
    idle_wait_ns_ = idle_wait_ns_least;  // an answer may come
    if (push_outbox(link)) return Flushed::all;
    link.blocked = true;
    return Flushed::blocked;
}

/// True: the outbox is empty. The stack is asked to put on the wire what it was given once, with the last send.
bool XlioPort::push_outbox(XlioLink& link) {
    const InStack in(*this);
    SendQueue& outbox = *link.outbox;
    std::size_t inline_bytes = 0;
    bool unflushed = false;
    sending_ = &link;
    while (!outbox.empty() && has_room(link) && link.failure == 0) {
        const std::uint32_t bytes = outbox[0].size();
        if (bytes == 0) {
            outbox.pop();
            continue;
        }
        const bool few = bytes <= link.inline_bytes && link.inline_run + bytes <= inline_run_bytes;
        if (!(few ? send_inline(link) : send_by_reference(link))) break;
        if (few) inline_bytes += bytes;
        unflushed = outbox.bytes() > 0;
    }
    sending_ = nullptr;
    if (const std::uintptr_t operation = std::exchange(completed_meanwhile_, 0); operation != 0) [[unlikely]]
        completed(link, operation);
    if (unflushed) calls_.socket_flush(link.socket);
    if (inline_bytes > 0) link.sink->sent(inline_bytes);
    return outbox.empty();
}

/// What the send of so many bytes asks for besides: the last one is flushed.
unsigned XlioPort::flush_flag(const XlioLink& link, std::uint64_t bytes) noexcept { return bytes == link.outbox->bytes() ? abi::send_flush : 0; }

/// One vector: with several the stack may take the first and refuse the second.
bool XlioPort::send_inline(XlioLink& link) {
    SendQueue& outbox = *link.outbox;
    const std::uint32_t bytes = outbox[0].size();
    const abi::SendAttr attr{abi::send_inline | flush_flag(link, bytes), 0, 0};
    if (calls_.socket_send(link.socket, outbox[0].data(), bytes, &attr) != 0) return refused(link, errno);
    link.inline_run += bytes;
    link.in_flight_bytes += bytes;
    outbox.pop();
    return true;
}

/// As many slices as lie in one registered region.
bool XlioPort::send_by_reference(XlioLink& link) {
    SendQueue& outbox = *link.outbox;
    auto& domain = static_cast<Domain&>(*link.domain);
    iovec pieces[gather_most];
    Request request{0, link.inline_run, 0};
    std::uint32_t lkey = 0;
    const std::uint64_t room = std::min<std::uint64_t>(send_bytes_most, link.window_bytes - link.in_flight_bytes);
    for (std::uint32_t i = 0; i < outbox.count() && request.slices < gather_most && request.bytes < room; ++i) {
        const Buffer& slice = outbox[i];
        if (slice.empty()) break;
        std::uint64_t key = 0;
        const memory::Slab* slab = memory::slab_of(slice);
        if (slab == nullptr || domain.key_of(*slab, key) == nullptr) {
            if (i > 0) break;
            return refused(link, EFAULT);  // core has seen to it
        }
        if (i > 0 && Domain::lkey_of(key) != lkey) break;
        lkey = Domain::lkey_of(key);
        const auto part = std::uint32_t(std::min<std::uint64_t>(slice.size(), room - request.bytes));
        pieces[request.slices++] = {slice.data(), part};
        request.bytes += part;
    }
    if (!link.requests.reserve(1) || !link.with_stack.reserve(request.slices)) return refused(link, ENOMEM);
    const abi::SendAttr attr{flush_flag(link, request.bytes), lkey, std::uintptr_t(link.next_operation)};
    const int failed = request.slices == 1 ? calls_.socket_send(link.socket, pieces[0].iov_base, pieces[0].iov_len, &attr)
                                           : calls_.socket_sendv(link.socket, pieces, request.slices, &attr);
    if (failed != 0) return refused(link, errno);
    ++link.next_operation;
    link.in_flight_bytes += request.bytes;
    link.inline_run = 0;
    for (unsigned i = 0; i < request.slices; ++i) {  // reserved
        const auto part = std::uint32_t(pieces[i].iov_len);
        if (part == outbox[0].size()) {
            (void)link.with_stack.push(outbox.pop());
            continue;
        }
        (void)link.with_stack.push(outbox[0].share(0, part));
        outbox.drop_front(part);
    }
    (void)link.requests.push(std::move(request));
    return true;
}

/// Always false.
bool XlioPort::refused(XlioLink& link, int error) noexcept {
    if (error != ENOMEM && error != EAGAIN) {
        link.failure = error;
        touch(link);
    } else if (!std::exchange(link.is_short, true)) {
        link.next_short = std::exchange(short_, &link);
    }
    return false;
}

// -- after a poll ----------------------------------------------------------------------------------------------

void XlioPort::touch(XlioLink& link) noexcept {
    if (std::exchange(link.touched, true)) return;
    link.next_touched = nullptr;
    (touched_first_ == nullptr ? touched_first_ : touched_last_->next_touched) = &link;
    touched_last_ = &link;
}

/// Links whose send was refused try again after each poll; that is no reason to stay awake.
void XlioPort::touch_short() noexcept {
    for (XlioLink* link = std::exchange(short_, nullptr); link != nullptr; link = std::exchange(link->next_short, nullptr)) touch(*link);
}

void XlioPort::settle() {
    XlioLink* link = std::exchange(touched_first_, nullptr);  // what these touch again waits for the next poll
    while (link != nullptr) {
        XlioLink& one = *link;
        link = one.next_touched;
        one.touched = false;
        settle(one);
    }
}

void XlioPort::settle(XlioLink& link) {
    using State = XlioLink::State;
    if (link.state == State::connecting && link.established) open_link(link);
    if (link.state == State::open && link.end_heard && !link.ended) {
        link.ended = true;
        link.sink->ended();
    }
    if (link.state != State::over && link.state != State::waiting && link.failure != 0) {
        const Step step = link.state == State::connecting ? Step::connect : Step::recv;
        end_link(link, Error::from_errno(link.failure, step), true);
    }
    if (link.state == State::open) {
        const bool room = std::exchange(link.is_short, false) || link.in_flight_bytes <= link.window_bytes / 2;
        if (link.finishing) {
            if (room && !link.outbox->empty()) push_outbox(link);
            const bool done = link.failure == 0 && link.outbox->empty() && link.requests.empty();
            if (done && is_quiet(link)) end_link(link, Error(Errc::end, Step::close, Who::local), false);
        } else if (link.blocked && room) {
            link.blocked = false;
            link.sink->writable();
        }
    }
    if (link.state == State::over || link.terminated) finish_link(link);
}

}  // namespace evpl::transport::xlio
