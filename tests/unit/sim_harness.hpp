#pragma once

// A stand-in for core at the level of the contract: hosts, ends of links, and the order in which a loop would call a
// port.

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "memory/domain.hpp"
#include "memory/heap.hpp"
#include "transport/sim/random.hpp"
#include "transport/sim/sim.hpp"

namespace evpl::sim_test {

using transport::Flushed;
using transport::How;
using transport::SimNet;
using transport::SimOptions;
using transport::sim::Random;

/// What byte `at` of a flow is; flows differ.
inline std::byte pattern(std::uint64_t flow, std::uint64_t at) noexcept {
    std::uint64_t z = (flow * 0x9e3779b97f4a7c15u) ^ (at >> 3);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    return std::byte(z >> (8 * (at & 7)));
}

struct Machine;

/// One end of a link: sends flow `out`, expects flow `in`, and holds the port to the contract's order.
struct End final : transport::Sink {
    Machine* machine = nullptr;
    transport::Link* link = nullptr;
    transport::SendQueue outbox;
    Kind kind = Kind::stream;
    std::uint64_t out = 0, in = 0;  ///< flows

    int opened_count = 0, ended_count = 0, closed_count = 0, retired_count = 0;
    std::uint64_t given = 0;  ///< bytes put into the outbox
    std::uint64_t sent_bytes = 0;
    std::uint64_t delivered_bytes = 0;
    std::vector<std::uint64_t> messages_given, messages_delivered;
    std::uint64_t message_bytes = 0;
    std::deque<Buffer> with_device;  ///< shares of what was sent: spoilt at sent()
    std::vector<Buffer> kept;        ///< received and not let go yet
    std::vector<std::string> datagrams;
    std::vector<Address> sources;
    std::vector<Error> failures;
    struct Completed {
        OperationId id;
        Error error;
        std::string bytes;
    };
    std::vector<Completed> completions;
    Error error;
    bool keep = false;
    bool dirty = false, refused = false;
    bool pause_often = false;
    std::uint64_t pause_after = UINT64_MAX;
    std::function<void(End&)> on_delivered, on_ended, on_opened;

    void opened() override;
    void delivered(Buffer&& bytes, const transport::Arrival& arrival) override;
    void landed(std::uint32_t) override { FAIL() << "no landing was set"; }
    void ended() override;
    void sent(std::size_t bytes) override;
    void send_failed(Error failure) override { failures.push_back(failure); }
    void writable() override;
    void completed(OperationId operation, Error failure, Buffer&& buffer) override;
    void closed(Error why) override;
    void retired() override;

    /// One message, or some bytes of the stream, in slices of random size.
    void send(std::uint64_t bytes, Random& random);
    void send_datagram(std::string_view text, const Address* to = nullptr);
    Flushed flush();
    void close(How how);
    void pause();
    void resume();
};

/// A loop's services, and the ends that live on it.
struct Machine final : transport::Host, transport::Acceptor {
    explicit Machine(SimNet& on) : net(on), heap_(memory::Heap::create(256u << 20)) {
        memory::Heap::set_current(heap_);
        auto opened = transport::sim_transport().open(*this);
        EXPECT_TRUE(opened.ok());
        port.reset(*opened);
    }
    ~Machine() {
        memory::Heap::set_current(heap_);
        ends.clear();
        port.reset();
        memory::Heap::current()->flush_departures();
        memory::Heap::set_current(nullptr);
        heap_->retire();
    }

    memory::Heap& heap() noexcept override { return *heap_; }
    Result<transport::Sleeper*> sleeper() noexcept override { return Errc::not_supported; }  // a port without descriptors asks for none
    transport::Bell& bell() noexcept override { return bell_; }
    std::int64_t now_ns() const noexcept override { return net.now_ns(); }
    std::uint32_t batch_bytes() const noexcept override { return 256u << 10; }
    void set_alarm(transport::Port&, std::int64_t) noexcept override {}
    void poll_again() noexcept override {}
    void log_line(std::uint8_t, std::string_view) noexcept override {}

    bool accepted(transport::Link& link) override {
        if (refuse_all) return false;
        End& end = add();
        end.link = &link;
        end.kind = link.caps->kind;
        link.sink = &end;
        link.outbox = &end.outbox;
        if (on_accepted) on_accepted(end);
        return true;
    }
    bool taken(int, const Address&) override { return false; }
    void paused(Error) override { ++accept_pauses; }
    void failed(Error) override { ADD_FAILURE() << "a simulated listener does not break"; }

    End& add() {
        ends.push_back(std::make_unique<End>());
        ends.back()->machine = this;
        return *ends.back();
    }
    transport::Listening* listen(std::string_view url) {
        auto at = Endpoint::parse(url);
        Diagnostic why;
        auto made = port->listen(*at, false, *this, why);
        EXPECT_TRUE(made.ok()) << why.text;
        return made.ok() ? *made : nullptr;
    }
    /// Null: refused at once.
    End* connect(std::string_view url) {
        auto to = Endpoint::parse(url);
        Diagnostic why;
        End& end = add();
        auto made = port->connect(*to, {}, end, end.outbox, why);
        if (!made) {
            last_error = made.error();
            ends.pop_back();
            return nullptr;
        }
        end.link = *made;
        end.kind = end.link->caps->kind;
        return &end;
    }
    End* bind(std::string_view url, bool connected = false) {
        auto at = Endpoint::parse(url);
        Diagnostic why;
        End& end = add();
        const Address nobody;
        auto made = port->bind(*at, connected ? &nobody : nullptr, end, end.outbox, why);
        if (!made) {
            last_error = made.error();
            ends.pop_back();
            return nullptr;
        }
        end.link = *made;
        end.kind = Kind::datagram;
        return &end;
    }

    /// One turn: poll, then flush what is dirty. True: something happened.
    bool turn() {
        memory::Heap::set_current(heap_);
        bool busy = port->poll(7) > 0;
        for (std::size_t i = 0; i < ends.size(); ++i) {
            End& end = *ends[i];
            if (!end.dirty || end.closed_count > 0 || end.opened_count == 0) continue;
            end.dirty = false;
            end.flush();
            busy = true;
        }
        return busy;
    }

    SimNet& net;
    memory::Heap* heap_;
    transport::Bell bell_;
    std::unique_ptr<transport::Port> port;
    std::vector<std::unique_ptr<End>> ends;
    std::function<void(End&)> on_accepted;
    bool refuse_all = false;
    int accept_pauses = 0;
    Error last_error;
};

/// Runs until nothing is left to happen, or until `until_ns` of virtual time.
inline void drive(SimNet& net, std::initializer_list<Machine*> machines, std::int64_t until_ns = INT64_MAX, const std::function<void()>& between = {}) {
    for (;;) {
        bool busy = false;
        for (Machine* machine : machines) busy |= machine->turn();
        if (busy) continue;
        if (between) between();
        bool dirty = false;
        for (Machine* machine : machines)
            for (auto& end : machine->ends) dirty |= end->dirty && end->closed_count == 0 && end->opened_count > 0;
        if (dirty || net.completions_waiting()) continue;
        if (net.next_event_ns() > until_ns || !net.step()) return;
    }
}

// -- the ends --------------------------------------------------------------------------------------------------

inline void End::opened() {
    EXPECT_EQ(opened_count++, 0);
    EXPECT_EQ(closed_count, 0);
    dirty = !outbox.empty();
    if (on_opened) on_opened(*this);
}

inline void End::delivered(Buffer&& bytes, const transport::Arrival& arrival) {
    EXPECT_EQ(opened_count, 1) << "bytes before opened";
    EXPECT_EQ(ended_count + closed_count, 0) << "bytes after the end";
    EXPECT_FALSE(link->receive_paused) << "bytes while paused";
    if (kind == Kind::datagram) {
        EXPECT_TRUE(arrival.end_of_message);
        EXPECT_NE(arrival.source, nullptr);
        datagrams.emplace_back(reinterpret_cast<const char*>(bytes.data()), bytes.size());
        sources.push_back(*arrival.source);
    } else {
        std::uint64_t wrong = 0;
        for (std::uint32_t i = 0; i < bytes.size(); ++i) wrong += bytes.data()[i] != pattern(in, delivered_bytes + i);
        EXPECT_EQ(wrong, 0u) << "at byte " << delivered_bytes << " of flow " << in;
    }
    delivered_bytes += bytes.size();
    EXPECT_FALSE(kind == Kind::stream && arrival.end_of_message);
    if (kind != Kind::stream) message_bytes += bytes.size();
    if (arrival.end_of_message) {
        messages_delivered.push_back(message_bytes);
        message_bytes = 0;
    }
    if (keep) kept.push_back(std::move(bytes));
    if (delivered_bytes >= pause_after && link->caps->receive_pause) {
        pause_after = UINT64_MAX;
        pause();
    }
    if (on_delivered) on_delivered(*this);
}

inline void End::ended() {
    EXPECT_EQ(ended_count++, 0);
    EXPECT_EQ(opened_count, 1);
    EXPECT_EQ(closed_count, 0);
    EXPECT_EQ(message_bytes, 0u) << "an end inside a message";
    if (on_ended) on_ended(*this);
}

inline void End::sent(std::size_t bytes) {
    EXPECT_EQ(closed_count, 0) << "sent after closed";
    EXPECT_GT(bytes, 0u);
    sent_bytes += bytes;
    EXPECT_LE(sent_bytes, given);
    for (std::size_t left = bytes; left > 0;) {  // the memory is ours again: what the device still read would be found out
        Buffer& first = with_device.front();
        const std::uint32_t part = std::uint32_t(std::min<std::size_t>(left, first.size()));
        std::memset(first.data(), 0xee, part);
        first.drop_front(part);
        left -= part;
        if (first.empty()) with_device.pop_front();
    }
}

inline void End::writable() {
    EXPECT_TRUE(refused) << "writable was not owed";
    EXPECT_EQ(closed_count, 0);
    refused = false;
    dirty = true;
}

inline void End::completed(OperationId operation, Error failure, Buffer&& buffer) {
    EXPECT_EQ(closed_count, 0);
    completions.push_back({operation, failure, std::string(reinterpret_cast<const char*>(buffer.data()), buffer.size())});
}

inline void End::closed(Error why) {
    EXPECT_EQ(closed_count++, 0);
    EXPECT_EQ(retired_count, 0);
    EXPECT_FALSE(why.ok());
    error = why;
    outbox.clear();
    outbox.destinations.clear();
}

inline void End::retired() {
    EXPECT_EQ(closed_count, 1) << "retired before closed";
    EXPECT_EQ(retired_count++, 0);
    link = nullptr;
    with_device.clear();
}

inline void End::send(std::uint64_t bytes, Random& random) {
    messages_given.push_back(bytes);
    do {
        const std::uint64_t most = random.below(4) == 0 ? 9000 : 700;
        const std::uint32_t size = std::uint32_t(std::min<std::uint64_t>(bytes, random.below(most) + 1));
        auto slice = machine->heap().allocate(size);
        ASSERT_TRUE(slice.ok());
        for (std::uint32_t i = 0; i < size; ++i) slice->data()[i] = pattern(out, given + i);
        if (memory::Domain* domain = link->domain) {
            std::uint64_t room;
            if (domain->key_of(*memory::slab_of(*slice), room) == nullptr) {
                domain->request(*memory::slab_of(*slice), nullptr, nullptr);
                ASSERT_TRUE(machine->net.settle());
            }
        }
        if (size > 0) with_device.push_back(slice->share());
        given += size;
        bytes -= size;
        if (bytes == 0) BufferAccess::set_flags(*slice, BufferAccess::end_of_message);
        ASSERT_TRUE(outbox.push(*std::move(slice)));
    } while (bytes > 0);
    dirty = true;
}

inline void End::send_datagram(std::string_view text, const Address* to) {
    auto slice = machine->heap().copy(reinterpret_cast<const std::byte*>(text.data()), std::uint32_t(text.size()));
    ASSERT_TRUE(slice.ok());
    if (memory::Domain* domain = link->domain) {
        domain->request(*memory::slab_of(*slice), nullptr, nullptr);
        ASSERT_TRUE(machine->net.settle());
    }
    if (!text.empty()) with_device.push_back(slice->share());
    given += text.size();
    BufferAccess::set_flags(*slice, BufferAccess::end_of_message);
    if (to != nullptr) {
        ASSERT_TRUE(outbox.destinations.push(Address(*to)));
    }
    ASSERT_TRUE(outbox.push(*std::move(slice)));
    dirty = true;
}

inline Flushed End::flush() {
    const Flushed flushed = machine->port->flush(*link);
    EXPECT_TRUE(flushed == Flushed::blocked || outbox.empty());
    refused |= flushed == Flushed::blocked;
    return flushed;
}

inline void End::close(How how) {
    if (link != nullptr) machine->port->close(*link, how);
}
inline void End::pause() {
    if (link != nullptr && closed_count == 0) machine->port->pause(*link);
}
inline void End::resume() {
    if (link != nullptr && closed_count == 0) machine->port->resume(*link);
}

}  // namespace evpl::sim_test
