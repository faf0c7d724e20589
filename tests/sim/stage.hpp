#pragma once

// Plays a script: the loops, the handlers that react as it says, and the rules that must hold whatever it says.

#include <array>
#include <deque>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "evpl/evpl.hpp"
#include "sim/script.hpp"

namespace evpl::sim_test {

/// Byte `at` of a flow. The first two name the flow, so that a receiver knows whose bytes it has.
inline std::byte flow_byte(std::uint64_t flow, std::uint64_t at) noexcept {
    return at == 0 ? std::byte(flow & 0xff) : at == 1 ? std::byte(flow >> 8) : pattern(flow, at);
}

/// What one side of a connection gave and took. Stays until the run is judged.
struct Note {
    std::uint64_t number = 0;
    ConnectionRef ref;
    class Actor* actor = nullptr;
    int opened = 0, ended = 0, closed = 0, destroyed = 0;
    bool after_close = false, framed = false, messages = false, misled = false;
    bool created_nothing = false;  ///< connect answered an error, after it had made the handler
    std::uint64_t sent = 0, released = 0;
    std::vector<std::uint64_t> message_ends;  ///< of what was sent, on message transports
    std::uint64_t received = 0;
    unsigned flow = 0;  ///< whose bytes come in; 0: not known yet
    std::byte first{};
    std::uint64_t frame_start = 0;
    Error error;
};

class Stage;

/// A handler that does what the script says for each event, and else reads what comes.
class Actor {
public:
    Actor(Stage& stage, Connection& peer, bool framed);
    Actor(const Actor&) = delete;
    Actor& operator=(const Actor&) = delete;
    ~Actor();

    void on_open(Connection& peer);
    void on_recv(Connection& peer);
    void on_writable(Connection& peer) { react(When::writable, peer); }
    void on_sent(Connection& peer, std::size_t bytes);
    void on_close(Connection& peer, Error error);

    void act(Act act, const Step& step, Connection& peer);

protected:
    void react(When when, Connection& peer);
    Note& note_;

private:
    void send(Connection& peer, Chain bytes);
    void sent(Connection& peer, std::uint64_t size, const Flow& flow);
    bool prepare(std::span<std::byte> bytes);
    Chain made(Connection& peer, std::uint32_t size, std::uint32_t slices);
    void read(Connection& peer, std::size_t most);
    void read_message(Connection& peer);
    void read_exactly(Connection& peer, std::uint32_t n);
    void take_landed(Connection& peer);
    void peek_consume(Connection& peer, std::uint32_t n);
    void check(const Chain& bytes);
    void check(std::span<const std::byte> bytes, std::uint64_t at);
    void check_whole(std::uint64_t from);
    void send_other(Act act, const Step& step, Connection& peer);

    Stage& stage_;
    std::array<std::uint32_t, unsigned(When::count_)> rounds_{};  // wide: one that wraps lets a program feed itself for ever
    bool reading_ = true, landing_ = false;
    Chain held_;
};

struct EndingActor : Actor {
    using Actor::Actor;
    void on_end(Connection& peer) {
        ++note_.ended;
        react(When::end, peer);
    }
};

/// A frame's first byte says how long it is.
struct FramedActor : EndingActor {
    using EndingActor::EndingActor;
    static std::uint32_t frame_bytes(std::byte first) { return 1 + std::uint32_t(first) % 64; }
    Frame frame(std::span<const std::byte> head) { return {head.empty() ? 0 : frame_bytes(head[0]), false}; }
};

/// Datagrams: number of the sender, number of the datagram, then bytes that follow from both.
class DatagramActor {
public:
    DatagramActor(Stage& stage, Datagram& socket);
    DatagramActor(const DatagramActor&) = delete;
    DatagramActor& operator=(const DatagramActor&) = delete;
    ~DatagramActor() { ++note_.destroyed; }

    void on_open(Datagram& socket) {
        ++note_.opened;
        react(When::open, socket);
    }
    void on_recv(Datagram& socket);
    void on_writable(Datagram& socket) { react(When::writable, socket); }
    void on_error(Datagram& socket, Error error);
    void on_close(Datagram& socket, Error error);

private:
    void react(When when, Datagram& socket);
    void act(const Step& step, Datagram& socket);
    void send(Datagram& socket, std::uint32_t size);
    void check(const Packet& packet);

    Stage& stage_;
    Note& note_;
    std::array<std::uint32_t, unsigned(When::count_)> rounds_{};  // wide: one that wraps lets a program feed itself for ever
    Address last_from_;
};

struct Verdict {
    std::uint64_t hash = 0;
    std::vector<std::string> broken;
};

class Stage {
public:
    explicit Stage(const Script& script);
    Verdict play();

    Note& note() {
        notes.emplace_back();
        notes.back().number = notes.size();
        return notes.back();
    }
    void broke(std::string what) {
        if (broken.size() < 20) broken.push_back(std::move(what));
    }
    Loop& some_loop(std::uint32_t number) { return *loops[number % loops.size()]; }
    void later(Act how, const Step& step, Note& note, Connection& peer);
    void connect_to(Loop& loop, std::uint32_t which);
    void drop_listener(std::uint32_t which) { listeners.erase(which % Script::urls); }

    const Script& script;
    std::vector<std::string> broken;
    std::deque<Note> notes;
    std::deque<Note> datagram_notes;
    std::uint64_t wrapped_out = 0;
    VirtualTime time;
    SimNet net;
    std::vector<std::unique_ptr<Loop>> owned;
    std::vector<Loop*> loops;
    std::map<std::uint32_t, Listener> listeners;
    std::vector<ConnectionRef> connecting;
    std::vector<DatagramRef> sockets;
    std::deque<Timer> timers;
    std::deque<std::uint32_t> periods_left;

private:
    std::string url(std::uint32_t which) const;
    void perform(const Step& step);
    void listen_at(std::uint32_t which);
    void open_datagram(const Step& step);
    void end_all();
    void judge();
    void judge(const Note& note, const char* kind);
};

Verdict run_script(const Script& script);
/// Leaves out what is not needed for the failure.
Script shrink(Script script);

}  // namespace evpl::sim_test
