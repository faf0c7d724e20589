#pragma once

// Handlers that take note of everything, do what a test tells them, and check the rules every handler may rely on:
// on_open first and once, on_close once and last, no callback inside a call.

#include <gtest/gtest.h>

#include <cstddef>
#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "evpl/connection.hpp"
#include "support/pattern.hpp"

namespace evpl {
inline std::ostream& operator<<(std::ostream& out, const Error& error) {
    char text[160];
    error.describe(text, sizeof text);
    return out << text;
}
inline void PrintTo(Errc code, std::ostream* out) { *out << name_of(code); }
inline void PrintTo(Step step, std::ostream* out) { *out << name_of(step); }
}  // namespace evpl

namespace evpl::test {

/// Callbacks under way on this thread; a second one would have run inside a call.
inline thread_local int callback_depth = 0;

struct InCallback {
    explicit InCallback(const char* event) { EXPECT_EQ(callback_depth++, 0) << event << " ran inside another callback"; }
    ~InCallback() { --callback_depth; }
};

/// The end of one connection, without on_end and without frame: those have defaults, see Peer and FramedPeer.
struct PlainPeer {
    // What the test wants done; by default what comes is appended to `received`.
    std::function<void(Connection&)> when_open, when_recv, when_writable;
    std::function<void(Connection&, std::size_t)> when_sent;
    std::function<void(Connection&, Completion&)> when_completed;
    std::function<void(Connection&, std::uint32_t)> when_written;
    std::function<void(Connection&, Error)> when_close;

    // What happened.
    std::string received;
    ConnectionRef ref;
    int opens = 0, recvs = 0, writables = 0, ends = 0, closes = 0;
    std::size_t sent_bytes = 0;
    Error closed_with;

    bool open() const { return opens > 0 && closes == 0; }
    bool closed() const { return closes > 0; }
    Connection* get() const { return ref.get(); }

    void on_open(Connection& c) {
        const InCallback guard("on_open");
        EXPECT_EQ(opens++, 0);
        EXPECT_EQ(closes, 0);
        EXPECT_TRUE(c.is_open());
        ref = c.ref();
        if (when_open) when_open(c);
    }
    void on_recv(Connection& c) {
        const InCallback guard("on_recv");
        expect_alive("on_recv");
        ++recvs;
        if (when_recv) when_recv(c);
        else drain(c);
    }
    void on_writable(Connection& c) {
        const InCallback guard("on_writable");
        expect_alive("on_writable");
        ++writables;
        if (when_writable) when_writable(c);
    }
    void on_sent(Connection& c, std::size_t bytes) {
        const InCallback guard("on_sent");
        expect_alive("on_sent");
        sent_bytes += bytes;
        if (when_sent) when_sent(c, bytes);
    }
    void on_completed(Connection& c, Completion& done) {
        const InCallback guard("on_completed");
        expect_alive("on_completed");
        if (when_completed) when_completed(c, done);
    }
    void on_written(Connection& c, std::uint32_t word) {
        const InCallback guard("on_written");
        expect_alive("on_written");
        if (when_written) when_written(c, word);
    }
    void on_close(Connection& c, Error why) {
        const InCallback guard("on_close");
        EXPECT_EQ(closes++, 0) << "on_close came twice";
        EXPECT_FALSE(why.ok()) << "on_close has a reason";
        EXPECT_FALSE(c.is_open());
        closed_with = why;
        if (when_close) when_close(c, why);
    }
    /// Takes all there is.
    void drain(Connection& c) {
        while (true) {
            const Chain chain = c.recv();
            if (chain.empty()) return;
            received += text_of(chain);
        }
    }

protected:
    void expect_alive(const char* event) const {
        EXPECT_EQ(opens, 1) << event << " before on_open";
        EXPECT_EQ(closes, 0) << event << " after on_close";
    }
};

/// The same with on_end: it stays open until the test closes it or shuts it down.
struct Peer : PlainPeer {
    std::function<void(Connection&)> when_end;
    void on_end(Connection& c) {
        const InCallback guard("on_end");
        expect_alive("on_end");
        EXPECT_EQ(ends++, 0) << "on_end came twice";
        EXPECT_EQ(c.available(), 0u) << "on_end comes when the inbox is empty";
        if (when_end) when_end(c);
    }
};

/// Messages that begin with their whole size in four bytes of this machine's order.
struct FramedPeer : Peer {
    static constexpr std::size_t header_bytes = 4;
    std::function<Frame(std::span<const std::byte>)> when_frame;

    Frame frame(std::span<const std::byte> head) {
        if (when_frame) return when_frame(head);
        if (head.size() < header_bytes) return {};
        std::uint32_t size = 0;
        std::memcpy(&size, head.data(), sizeof size);
        return {.size_bytes = size, .bad = size < header_bytes};
    }
    static std::string message(std::size_t size_bytes, std::uint64_t key) {
        const auto size = std::uint32_t(size_bytes);
        std::string text(reinterpret_cast<const char*>(&size), sizeof size);
        return text + pattern(size_bytes - header_bytes, key);
    }
};

/// Sends everything back, as far as there is room; works where one recv gives one message, too.
struct EchoAll {
    void on_recv(Connection& peer) {
        while (const std::size_t room = peer.send_room()) {
            Chain bytes = peer.recv(room);
            if (bytes.empty()) return;
            peer.send(std::move(bytes));
        }
    }
    void on_writable(Connection& peer) { on_recv(peer); }
};

/// Many connections with one shared handler.
struct Crowd {
    std::vector<ConnectionRef> members;
    int closes = 0;
    std::size_t heard = 0;
    std::vector<Error> reasons;
    std::function<void(Connection&)> when_recv;
    void on_open(Connection& c) { members.push_back(c.ref()); }
    void on_recv(Connection& c) {
        const InCallback guard("on_recv");
        heard += c.recv().size();
        if (when_recv) when_recv(c);
    }
    void on_close(Connection&, Error why) {
        const InCallback guard("on_close");
        ++closes;
        reasons.push_back(why);
    }
};

/// What a peer sees when the other side went away without ceremony: an end, or a reset where the transport has one.
inline bool is_departure(Error error) { return error == Errc::end || error == Errc::reset; }
/// What a peer sees when the other side did not take it in.
inline bool is_refusal(Error error) { return error == Errc::refused || is_departure(error); }

}  // namespace evpl::test
