#pragma once

// A random program as data: what it does, when, and on what network. Data can be drawn from a seed, printed, and made smaller step
// by step while it still fails.

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "sim/scene.hpp"

namespace evpl::sim_test {

/// When a step happens: at its turn in the script, or inside a callback of a connection or datagram socket.
enum class When : std::uint8_t { script, open, recv, writable, sent, end, close, error, count_ };

enum class Act : std::uint8_t {
    // anywhere: by handlers, deferrals, posts, timers
    send_copy,     ///< a: bytes
    send_slices,   ///< a: bytes, b: slices
    send_try,      ///< a: bytes
    send_wrapped,  ///< a: bytes of the program's own memory
    send_shared,   ///< a: bytes, sent from a slice of a larger buffer
    send_parcel,   ///< a: bytes, packed and opened first
    send_empty,
    flush,
    recv,          ///< a: bytes at most
    recv_exactly,  ///< a: bytes
    recv_message,
    peek_consume,  ///< a: bytes
    recv_into,     ///< a: bytes
    echo,          ///< what is unread goes back
    hold,          ///< a: bytes kept until the handler goes
    stop_reading,
    read_on,
    limits,         ///< a, b: drawn from
    deadline_recv,  ///< a: microseconds
    deadline_send,  ///< a: microseconds
    shutdown,
    shutdown_within,  ///< a: microseconds
    close,
    close_reason,
    throw_it,
    defer,          ///< the next step's act, later
    post,           ///< the same, through the mailbox; b: by way of another loop
    timer,          ///< the same, a microseconds later
    periodic,       ///< a timer of a microseconds, dropped after b rounds
    connect,        ///< a: to which listener
    drop_listener,  ///< a: which
    // of the script only
    listen,            ///< a: which
    bind,              ///< a: which datagram address
    connect_datagram,  ///< a: which
    pass,              ///< a: microseconds of virtual time
    jump,              ///< a: milliseconds at once, no loop runs meanwhile
    cut_links,
    silence_links,
    pause_listener,   ///< a: which
    resume_listener,  ///< a: which
    limit_listener,   ///< a: which, b: connections
    cancel,           ///< closes connection a, which may be connecting
    stop_loop,        ///< a: which
    stop_within,      ///< a: which loop, b: microseconds to drain
    count_
};
inline constexpr Act last_common = Act::drop_listener;

inline const char* name_of(When when) {
    static constexpr const char* names[] = {"script", "open", "recv", "writable", "sent", "end", "close", "error"};
    return names[unsigned(when)];
}

inline const char* name_of(Act act) {
    static constexpr const char* names[] = {
        "send_copy",     "send_slices",   "send_try",       "send_wrapped",    "send_shared",    "send_parcel",  "send_empty",       "flush",      "recv",
        "recv_exactly",  "recv_message",  "peek_consume",   "recv_into",       "echo",           "hold",         "stop_reading",     "read_on",    "limits",
        "deadline_recv", "deadline_send", "shutdown",       "shutdown_within", "close",          "close_reason", "throw_it",         "defer",      "post",
        "timer",         "periodic",      "connect",        "drop_listener",   "listen",         "bind",         "connect_datagram", "pass",       "jump",
        "cut_links",     "silence_links", "pause_listener", "resume_listener", "limit_listener", "cancel",       "stop_loop",        "stop_within"};
    static_assert(std::size(names) == unsigned(Act::count_));
    return names[unsigned(act)];
}

struct Step {
    When when = When::script;
    std::uint8_t who = 0;    ///< reactions: of handlers whose number has this remainder by `whos`
    std::uint8_t round = 0;  ///< reactions: at the how-manieth event of that kind
    Act act = Act::pass;
    Act later = Act::flush;  ///< what defer, post and timer do
    std::uint32_t a = 0, b = 0;
};

struct Script {
    static constexpr unsigned whos = 4, urls = 3;

    std::uint64_t seed = 0;
    SimOptions net;
    unsigned loops = 1;
    std::vector<Step> steps;
};

inline std::string text_of(const Step& step) {
    std::string text = name_of(step.when);
    if (step.when != When::script) text += "[" + std::to_string(step.who) + "," + std::to_string(step.round) + "]";
    text += std::string(" ") + name_of(step.act);
    if (step.act >= Act::defer && step.act <= Act::timer) text += std::string("(") + name_of(step.later) + ")";
    return text + " " + std::to_string(step.a) + " " + std::to_string(step.b);
}

inline std::string text_of(const Script& script) {
    std::string text = std::to_string(script.loops) + " loops\n";
    for (const Step& step : script.steps) text += "  " + text_of(step) + "\n";
    return text;
}

/// Mostly small, sometimes large: both ends of every range are met.
inline std::uint32_t any_size(Random& random) {
    const std::uint64_t bits = random.below(18);
    return std::uint32_t(random.below((std::uint64_t(1) << bits) + 1));
}

inline Act any_common(Random& random) {
    // What ends things is rarer than what goes on.
    for (;;) {
        const Act act = Act(random.below(unsigned(last_common) + 1));
        const bool ends = (act >= Act::shutdown && act <= Act::throw_it) || act == Act::drop_listener;
        if (!ends || random.below(3) == 0) return act;
    }
}

/// Not one that would plan another: chains of them need not end.
inline Act any_simple(Random& random) {
    for (;;) {
        const Act act = any_common(random);
        if (act < Act::defer || act > Act::periodic) return act;
    }
}

inline Step any_reaction(Random& random) {
    Step step;
    step.when = When(1 + random.below(unsigned(When::count_) - 1));
    step.who = std::uint8_t(random.below(Script::whos));
    step.round = std::uint8_t(random.below(4));
    step.act = any_common(random);
    step.later = any_simple(random);
    step.a = any_size(random);
    step.b = std::uint32_t(random.below(8));
    return step;
}

inline Step any_scripted(Random& random) {
    Step step;
    step.act = Act(unsigned(last_common) + 1 + random.below(unsigned(Act::count_) - unsigned(last_common) - 1));
    if (random.below(4) == 0) step.act = Act::pass;
    if (random.below(4) == 0) step.act = Act::connect;
    step.a = step.act == Act::pass || step.act == Act::jump ? any_size(random) : std::uint32_t(random.below(8));
    step.b = any_size(random);
    const bool stops = step.act == Act::stop_loop || step.act == Act::stop_within;
    if (stops && random.below(3) != 0) step.act = Act::pass;
    return step;
}

inline Script any_script(std::uint64_t seed) {
    Random random(seed * 7 + 11);
    Script script;
    script.seed = seed;
    script.net = any_options(seed, random);
    script.net.devices = random.below(4) == 0 ? 1 + unsigned(random.below(2)) : 0;
    script.loops = unsigned(1 + random.below(3));
    for (unsigned i = 0; i < Script::urls; ++i) {
        script.steps.push_back({.act = Act::listen, .a = i});
        script.steps.push_back({.act = Act::connect, .a = i});
    }
    for (unsigned i = 0; i < 2; ++i) script.steps.push_back({.act = i == 0 ? Act::bind : Act::connect_datagram});
    for (std::uint64_t n = 4 + random.below(20); n > 0; --n) script.steps.push_back(any_reaction(random));
    for (std::uint64_t n = random.below(16); n > 0; --n) script.steps.push_back(any_scripted(random));
    return script;
}

}  // namespace evpl::sim_test
