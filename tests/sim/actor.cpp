#include <cstring>

#include "sim/stage.hpp"

namespace evpl::sim_test {

// -- connections -----------------------------------------------------------------------------------------------

Actor::Actor(Stage& stage, Connection& peer, bool framed) : note_(stage.note()), stage_(stage) {
    note_.ref = peer.ref();
    note_.actor = this;
    note_.messages = peer.caps().kind == Kind::message;
    note_.framed = framed && !note_.messages;
}

Actor::~Actor() {
    ++note_.destroyed;
    note_.actor = nullptr;
}

void Actor::react(When when, Connection& peer) {
    note_.after_close |= note_.closed > 0;
    const unsigned round = rounds_[unsigned(when)]++;
    for (const Step& step : stage_.script.steps) {
        if (step.when != when || step.who != note_.number % Script::whos || step.round != round) continue;
        act(step.act, step, peer);
    }
}

void Actor::on_open(Connection& peer) {
    ++note_.opened;
    react(When::open, peer);
}

void Actor::on_recv(Connection& peer) {
    react(When::recv, peer);
    if (landing_) take_landed(peer);
    if (reading_ && !landing_) act(Act::read_on, {}, peer);
}

void Actor::on_sent(Connection& peer, std::size_t bytes) {
    note_.released += bytes;
    if (note_.released > note_.sent) stage_.broke("on_sent tells of more than was sent");
    react(When::sent, peer);
}

void Actor::on_close(Connection& peer, Error error) {
    note_.after_close |= note_.closed > 0;
    ++note_.closed;
    note_.error = error;
    // After on_close nothing comes: what it throws has no connection to end.
    for (const Step& step : stage_.script.steps)
        if (step.when == When::close && step.who == note_.number % Script::whos) act(step.act, step, peer);
}

void Actor::act(Act act, const Step& step, Connection& peer) {
    switch (act) {
    case Act::flush: return peer.flush();
    case Act::recv: return read(peer, step.a);
    case Act::recv_exactly: return read_exactly(peer, step.a);
    case Act::recv_message: return read_message(peer);
    case Act::peek_consume: return peek_consume(peer, step.a);
    case Act::recv_into: {
        auto room = peer.loop().allocate(std::max(step.a, 1u));
        if (!room) return;
        const bool fits = !landing_ && !note_.framed && !note_.messages;
        const bool open = peer.is_open();
        const bool taken = peer.recv_into(*std::move(room)).ok();
        if (open && taken != fits) stage_.broke("recv_into is for streams without frames, one at a time");
        landing_ |= taken;
        return take_landed(peer);
    }
    case Act::echo: {
        if (landing_) return;
        Chain bytes = peer.recv(peer.send_room());
        check(bytes);
        return send(peer, made(peer, std::uint32_t(bytes.size()), 1));  // the own flow goes on: as much, not the same
    }
    case Act::hold: {
        if (landing_) return;
        Chain bytes = peer.recv(step.a);
        check(bytes);
        if (!held_.append(std::move(bytes))) stage_.broke("no memory to hold bytes");
        return;
    }
    case Act::stop_reading: reading_ = false; return;
    case Act::read_on:
        reading_ = true;
        while (!landing_ && peer.available() > 0) {
            const std::uint64_t before = note_.received;
            read(peer, SIZE_MAX);
            if (note_.received == before) break;
        }
        while (!landing_ && peer.has_message()) read_message(peer);
        return;
    case Act::limits: {
        QueueLimits limits = peer.limits();
        limits.receive = 1 + step.a;
        limits.send_high = 1 + step.a;
        limits.send_low = limits.send_high / (1 + step.b);
        return peer.set_limits(limits);
    }
    case Act::deadline_recv: return peer.deadline_recv(Duration::of_ns(std::int64_t(step.a) * 1000));
    case Act::deadline_send: return peer.deadline_send(Duration::of_ns(std::int64_t(step.a) * 1000));
    case Act::shutdown: return peer.shutdown();
    case Act::shutdown_within: return peer.shutdown(within(Duration::of_ns(std::int64_t(step.a) * 1000)));
    case Act::close: return peer.close();
    case Act::close_reason: return peer.close(Error(Errc::protocol_error));
    case Act::throw_it: throw std::runtime_error("as the script says");
    case Act::defer:
    case Act::post:
    case Act::timer:
    case Act::periodic: return stage_.later(act, step, note_, peer);
    case Act::connect:
        if (stage_.notes.size() < 40) stage_.connect_to(peer.loop(), step.a);
        return;
    case Act::drop_listener: return stage_.drop_listener(step.a);
    default: return send_other(act, step, peer);
    }
}

// -- sending

bool Actor::prepare(std::span<std::byte> bytes) {
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = flow_byte(note_.number, note_.sent + i);
    return true;
}

Chain Actor::made(Connection& peer, std::uint32_t size, std::uint32_t slices) {
    Chain chain;
    std::uint64_t at = note_.sent;
    for (std::uint32_t left = size; left > 0;) {
        const std::uint32_t part = slices > 1 ? std::max(1u, left / slices) : left;
        auto slice = peer.loop().allocate(part);
        if (!slice) break;
        for (std::uint32_t i = 0; i < part; ++i) slice->data()[i] = flow_byte(note_.number, at++);
        if (!chain.append(*std::move(slice))) break;
        left -= part;
        if (slices > 1) --slices;
    }
    return chain;
}

void Actor::sent(Connection& peer, std::uint64_t size, const Flow& flow) {
    const Errc why = flow.error();
    if (why == Errc::misuse || why == Errc::too_large || why == Errc::out_of_memory) return;
    note_.sent += size;
    if (peer.caps().kind == Kind::message) note_.message_ends.push_back(note_.sent);
}

void Actor::send(Connection& peer, Chain bytes) {
    const std::size_t size = bytes.size();
    sent(peer, size, peer.send(std::move(bytes)));
}

void Actor::send_other(Act act, const Step& step, Connection& peer) {
    if (note_.sent > 4'000'000) return;
    const std::uint32_t size = step.a;
    if (act == Act::send_empty) return send(peer, Chain());
    if (act == Act::send_copy) {
        std::vector<std::byte> bytes(size);
        prepare(bytes);
        return sent(peer, size, peer.send(std::span<const std::byte>(bytes)));
    }
    if (act == Act::send_slices) return send(peer, made(peer, size, 1 + step.b));
    if (act == Act::send_try) {
        Chain bytes = made(peer, size, 1);
        const std::size_t whole = bytes.size();
        if (peer.try_send(bytes)) return sent(peer, whole, Flow(Flow::State::go));
        if (bytes.size() != whole && peer.is_open()) stage_.broke("try_send refuses, but takes bytes");
        return;
    }
    if (size == 0) return;
    if (act == Act::send_wrapped) {
        struct Own {
            Stage* stage;
            std::vector<std::byte> bytes;
        };
        auto* own = new Own{&stage_, std::vector<std::byte>(size)};
        prepare(own->bytes);
        const auto release = [](void* context) {
            auto* gone = static_cast<Own*>(context);
            --gone->stage->wrapped_out;
            delete gone;
        };
        auto slice = peer.loop().wrap(own->bytes, release, own);
        if (!slice) return delete own;
        ++stage_.wrapped_out;
        return send(peer, *std::move(slice));
    }
    auto slice = peer.loop().allocate(size + step.b);
    if (!slice) return;
    Buffer part = slice->share(step.b, size);
    prepare(part.bytes());
    if (act == Act::send_parcel) {
        Parcel parcel = std::move(part).pack();
        part = std::move(parcel).open(peer.loop());
    }
    send(peer, std::move(part));
}

// -- receiving

void Actor::check(std::span<const std::byte> bytes, std::uint64_t at) {
    for (const std::byte byte : bytes) {
        if (at == 0) note_.first = byte;
        if (at == 1) note_.flow = unsigned(note_.first) + (unsigned(byte) << 8);
        if (at >= 1 && byte != flow_byte(note_.flow, at) && !std::exchange(note_.misled, true))
            stage_.broke("byte " + std::to_string(at) + " of flow " + std::to_string(note_.flow) + " is wrong");
        ++at;
    }
}

void Actor::check(const Chain& bytes) {
    for (const Buffer& slice : bytes) {
        check(slice.bytes(), note_.received);
        note_.received += slice.size();
    }
    if (note_.flow > stage_.notes.size()) return stage_.broke("bytes of nobody's flow");
    if (note_.flow != 0 && note_.received > stage_.notes[note_.flow - 1].sent) stage_.broke("more bytes than were sent");
}

/// What was handed over since `from` must not cross the end of a message or frame.
void Actor::check_whole(std::uint64_t from) {
    if (note_.flow == 0 || note_.flow > stage_.notes.size()) return;
    if (note_.framed) {
        while (note_.frame_start < note_.received) {
            const std::uint64_t end = note_.frame_start + FramedActor::frame_bytes(flow_byte(note_.flow, note_.frame_start));
            if (end > note_.received) break;
            if (from < end && end < note_.received) stage_.broke("recv crosses the end of a frame");
            note_.frame_start = end;
        }
    } else if (note_.messages) {
        const auto& ends = stage_.notes[note_.flow - 1].message_ends;
        const auto end = std::upper_bound(ends.begin(), ends.end(), from);
        if (end != ends.end() && *end < note_.received && from < note_.received) stage_.broke("recv crosses the end of a message");
    }
}

void Actor::read(Connection& peer, std::size_t most) {
    if (landing_) return;
    const std::uint64_t from = note_.received;
    const Chain bytes = peer.recv(most);
    if (bytes.size() > most) stage_.broke("recv gives more than it was asked for");
    check(bytes);
    check_whole(from);
}

void Actor::read_exactly(Connection& peer, std::uint32_t n) {
    if (landing_) return;
    const auto bytes = peer.recv_exactly(n);
    if (!bytes) return;
    if (!bytes->empty() && bytes->size() != n && peer.is_open()) stage_.broke("recv_exactly(" + std::to_string(n) + ") gives " + std::to_string(bytes->size()));
    const std::uint64_t from = note_.received;
    check(*bytes);
    if (note_.framed || note_.messages) check_whole(from);
}

void Actor::read_message(Connection& peer) {
    if (landing_) return;
    const bool there = peer.has_message();
    const std::uint64_t from = note_.received;
    const auto bytes = peer.recv_message();
    if (!bytes) {
        if (there && peer.is_open()) stage_.broke("a message that is there cannot be read");
        return;
    }
    if (!there && !bytes->empty()) stage_.broke("a message comes that was not there");
    check(*bytes);
    check_whole(from);
    if (bytes->empty() || note_.flow == 0 || note_.flow > stage_.notes.size()) return;
    const auto& ends = stage_.notes[note_.flow - 1].message_ends;
    if (note_.messages && !std::binary_search(ends.begin(), ends.end(), note_.received)) stage_.broke("recv_message gives a part of a message");
    if (note_.framed && note_.frame_start != note_.received) stage_.broke("recv_message gives a part of a frame");
}

void Actor::take_landed(Connection& peer) {
    Buffer bytes = peer.landed();
    if (bytes.empty()) return;
    landing_ = false;
    check(Chain(std::move(bytes)));
    check_whole(note_.received);
}

void Actor::peek_consume(Connection& peer, std::uint32_t n) {
    if (landing_) return;
    std::vector<std::byte> bytes(n);
    const std::size_t there = peer.peek(bytes);
    check(std::span(bytes).first(there), note_.received);
    const std::size_t before = peer.available();
    peer.consume(there);
    const std::size_t dropped = before - peer.available();
    if (dropped != there && !note_.framed && peer.is_open()) stage_.broke("consume leaves what was peeked at");
    note_.received += dropped;
    check_whole(note_.received);  // no message was handed over: only the count of frames goes on
}

// -- datagrams -------------------------------------------------------------------------------------------------

DatagramActor::DatagramActor(Stage& stage, Datagram&) : stage_(stage), note_(stage.datagram_notes.emplace_back()) {
    note_.number = stage.datagram_notes.size();
}

void DatagramActor::react(When when, Datagram& socket) {
    note_.after_close |= note_.closed > 0;
    const unsigned round = rounds_[unsigned(when)]++;
    for (const Step& step : stage_.script.steps)
        if (step.when == when && step.who == note_.number % Script::whos && step.round == round) act(step, socket);
}

void DatagramActor::on_recv(Datagram& socket) {
    react(When::recv, socket);
    while (socket.has_packet()) {
        const Packet packet = socket.recv();
        check(packet);
        last_from_ = packet.from;
    }
}

void DatagramActor::on_error(Datagram& socket, Error error) {
    if (error.ok()) stage_.broke("on_error without an error");
    react(When::error, socket);
}

void DatagramActor::on_close(Datagram&, Error error) {
    note_.after_close |= note_.closed > 0;
    ++note_.closed;
    note_.error = error;
}

void DatagramActor::act(const Step& step, Datagram& socket) {
    switch (step.act) {
    case Act::close: return socket.close();
    case Act::throw_it: throw std::runtime_error("as the script says");
    case Act::flush: return socket.flush();
    case Act::limits: {
        QueueLimits limits = socket.limits();
        limits.receive = limits.send_high = limits.send_hard = 1 + step.a;
        limits.send_low = limits.send_high / 2;
        return socket.set_limits(limits);
    }
    default: return send(socket, step.a);
    }
}

void DatagramActor::send(Datagram& socket, std::uint32_t size) {
    if (note_.sent > 1000) return;
    std::vector<std::byte> bytes(size + 3);
    bytes[0] = std::byte(note_.number);
    bytes[1] = std::byte(note_.sent & 0xff);
    bytes[2] = std::byte(note_.sent >> 8);
    for (std::size_t i = 3; i < bytes.size(); ++i) bytes[i] = pattern(note_.number * 1000 + note_.sent, i);
    ++note_.sent;
    if (last_from_.family != Address::Family::none) (void)socket.send_to(last_from_, std::span<const std::byte>(bytes));
    else (void)socket.send(std::span<const std::byte>(bytes));
}

void DatagramActor::check(const Packet& packet) {
    const std::span<const std::byte> bytes = packet.bytes.bytes();
    if (bytes.size() < 3) {
        if (!packet.truncated) stage_.broke("a datagram that nobody sent");
        return;
    }
    const std::uint64_t from = std::uint64_t(bytes[0]), at = std::uint64_t(bytes[1]) + (std::uint64_t(bytes[2]) << 8);
    if (from == 0 || from > stage_.datagram_notes.size() || at >= stage_.datagram_notes[from - 1].sent) return stage_.broke("a datagram that nobody sent");
    for (std::size_t i = 3; i < bytes.size(); ++i)
        if (bytes[i] != pattern(from * 1000 + at, i)) return stage_.broke("a datagram is not what was sent");
}

}  // namespace evpl::sim_test
