#include "sim/stage.hpp"

namespace evpl::sim_test {
namespace {

constexpr Duration life = Duration::of_ns(2'000'000'000);        // until everything is closed
constexpr Duration patience = Duration::of_ns(200'000'000'000);  // beyond the 30 s of connect and of a silent peer

}  // namespace

Stage::Stage(const Script& of) : script(of), net(of.net) {
    for (unsigned i = 0; i < script.loops; ++i) {
        LoopOptions options;
        options.mode = i % 2 == 0 ? Mode::hybrid : Mode::event;
        options.batch = 1 + std::uint32_t((script.seed >> i) % 64);
        owned.push_back(std::make_unique<Loop>(options));
        loops.push_back(owned.back().get());
    }
}

std::string Stage::url(std::uint32_t which) const {
    static constexpr const char* urls[Script::urls] = {"sim://plain", "sim://messages?mode=msg", "sim://frames"};
    return urls[which % Script::urls];
}

void Stage::listen_at(std::uint32_t which) {
    which %= Script::urls;
    Loop& loop = some_loop(which);
    const std::string at = url(which);
    auto made = which == 0   ? listen(loop, at, [this](Connection& peer) { return Actor(*this, peer, false); })
                : which == 1 ? listen(loop, at, [this](Connection& peer) { return EndingActor(*this, peer, false); })
                             : listen(loop, at, [this](Connection& peer) {
                                   if (notes.size() % 7 == 6) throw std::runtime_error("a factory may throw");
                                   return FramedActor(*this, peer, true);
                               });
    if (made) listeners[which] = *std::move(made);
}

void Stage::connect_to(Loop& loop, std::uint32_t which) {
    const std::size_t notes_before = notes.size();
    const auto made = which % Script::urls == 2 ? connect(loop, url(which), [this](Connection& peer) { return FramedActor(*this, peer, true); })
                      : which % 2 == 0
                          ? connect(loop, url(which), [this](Connection& peer) { return EndingActor(*this, peer, false); })
                          : connect(
                                loop, url(which), [this](Connection& peer) { return Actor(*this, peer, false); }, within(Duration::of_ns(50'000'000)));
    if (made) return connecting.push_back(*made);
    if (notes.size() == notes_before) return;  // no handler was made
    notes.back().created_nothing = true;
}

void Stage::open_datagram(const Step& step) {
    const std::size_t before = datagram_notes.size();
    const auto factory = [this](Datagram& socket) { return DatagramActor(*this, socket); };
    const std::string at = "sim-dgram://d" + std::to_string(step.a % 2);
    const auto made = step.act == Act::bind ? evpl::bind(some_loop(step.a), at, factory) : connect_datagram(some_loop(step.b), at, factory);
    if (made) return sockets.push_back(*made);
    if (datagram_notes.size() == before) return;  // no handler was made
    if (datagram_notes.back().destroyed != 1 || datagram_notes.back().closed != 0) broke("a failed bind leaves a handler, or calls it");
    datagram_notes.pop_back();
}

/// Later, if the connection is still there, the handler does what the step says.
void Stage::later(Act how, const Step& step, Note& note, Connection& peer) {
    const auto run = [this, on = &note, what = &step] {
        Connection* there = on->ref.get();
        if (there != nullptr && on->actor == nullptr) return broke("a reference outlives on_close");
        if (there != nullptr) on->actor->act(what->later, *what, *there);
    };
    Loop& loop = peer.loop();
    switch (how) {
    case Act::defer: (void)loop.defer(run); return;
    case Act::post:
        if (step.b % 2 == 0) (void)loop.post(run);
        else (void)some_loop(step.b).post([home = loop.ref(), run] { (void)home.post(run); });
        return;
    case Act::timer:
        if (auto timer = loop.after(Duration::of_ns(std::int64_t(step.a) * 1000), run)) timers.push_back(*std::move(timer));
        return;
    default: break;
    }
    periods_left.push_back(step.b);
    timers.emplace_back();
    auto timer = loop.every(Duration::of_ns(std::int64_t(step.a + 100) * 1000), [left = &periods_left.back(), own = &timers.back()] {
        if ((*left)-- == 0) own->cancel();
    });
    if (timer) timers.back() = *std::move(timer);
}

void Stage::perform(const Step& step) {
    Listener* listener = nullptr;
    if (const auto found = listeners.find(step.a % Script::urls); found != listeners.end()) listener = &found->second;
    switch (step.act) {
    case Act::listen: return listen_at(step.a);
    case Act::connect: return connect_to(some_loop(step.b), step.a);
    case Act::bind:
    case Act::connect_datagram: return open_datagram(step);
    case Act::pass:
        if (!run(net, loops, Duration::of_ns(std::int64_t(step.a) * 1000))) broke("a loop never came to rest");
        return;
    case Act::jump: return net.advance(Duration::of_ns(std::int64_t(step.a) * 1'000'000));
    case Act::cut_links: return net.cut_links();
    case Act::silence_links: return net.silence_links();
    case Act::drop_listener: return drop_listener(step.a);
    case Act::pause_listener: return listener != nullptr ? listener->pause() : void();
    case Act::resume_listener: return listener != nullptr ? listener->resume() : void();
    case Act::limit_listener: return listener != nullptr ? listener->limit_connections(step.b % 4) : void();
    case Act::cancel:
        if (connecting.empty()) return;
        if (Connection* there = connecting[step.a % connecting.size()].get()) there->close();
        return;
    case Act::stop_loop: return some_loop(step.a).stop();
    case Act::stop_within: return some_loop(step.a).stop(within(Duration::of_ns(std::int64_t(step.b) * 1000)));
    default: return;
    }
}

void Stage::end_all() {
    timers.clear();
    listeners.clear();
    for (Note& note : notes)
        if (Connection* there = note.ref.get()) there->close();
    for (const ConnectionRef& ref : connecting)
        if (Connection* there = ref.get()) there->close();
    for (const DatagramRef& ref : sockets)
        if (Datagram* there = ref.get()) there->close();
}

Verdict Stage::play() {
    for (const Step& step : script.steps)
        if (step.when == When::script) perform(step);
    if (!run(net, loops, life)) broke("a loop never came to rest");
    end_all();
    const auto over = [&] {
        for (const Loop* loop : loops)
            if (loop->metrics().connections_open != 0) return false;
        for (const Note& note : notes)
            if (note.destroyed == 0) return false;
        for (const Note& note : datagram_notes)
            if (note.destroyed == 0) return false;
        return net.stats().links_not_retired == 0;
    };
    // on_close may connect anew: whoever comes late is closed as well.
    for (int round = 0; round < 20 && !over(); ++round) {
        if (!run_until(net, loops, round < 10 ? life : patience, over)) broke("a loop never came to rest");
        end_all();
    }
    if (!over()) broke("something never ended");
    judge();
    const std::uint64_t hash = net.trace_hash();
    loops.clear();
    owned.clear();
    if (wrapped_out != 0) broke("wrapped memory was not released");
    return {hash, std::move(broken)};
}

void Stage::judge(const Note& note, const char* kind) {
    const std::string who = std::string(kind) + " " + std::to_string(note.number) + ": ";
    if (note.destroyed != 1) broke(who + "destroyed " + std::to_string(note.destroyed) + " times");
    if (note.created_nothing && note.opened == 0 && note.closed == 0) return;  // the connect failed at once: no callback follows
    if (note.closed != 1) broke(who + "on_close came " + std::to_string(note.closed) + " times");
    if (note.opened > 1) broke(who + "on_open came twice");
    if (note.ended > 1) broke(who + "on_end came twice");
    if (note.after_close) broke(who + "something came after on_close");
    if (note.closed > 0 && note.error.ok()) broke(who + "an end without a name");
}

void Stage::judge() {
    std::map<unsigned, unsigned> receivers;
    for (const Note& note : notes) {
        judge(note, "connection");
        if (note.ref.get() != nullptr) broke("a reference outlives on_close");
        if (note.flow != 0 && ++receivers[note.flow] > 1) broke("two connections got the same bytes");
    }
    for (const Note& note : datagram_notes) judge(note, "datagram socket");
    for (const Loop* loop : loops)
        if (loop->metrics().buffers_out != 0) broke("a buffer was not given back");
    const auto stats = net.stats();
    if (stats.violations != 0) broke(std::string("rule of the device broken: ") + stats.first_violation);
    if (stats.links_open != 0 || stats.bytes_held != 0 || stats.device_buffers_held != 0) broke("a device still holds something");
}

Verdict run_script(const Script& script) {
    Stage stage(script);
    return stage.play();
}

Script shrink(Script script) {
    const auto fails = [](const Script& candidate) { return !run_script(candidate).broken.empty(); };
    for (std::size_t part = std::max<std::size_t>(1, script.steps.size() / 2); part > 0; part /= 2) {
        for (std::size_t at = 0; at < script.steps.size();) {
            Script without = script;
            const auto from = without.steps.begin() + std::ptrdiff_t(at);
            without.steps.erase(from, from + std::ptrdiff_t(std::min(part, script.steps.size() - at)));
            if (fails(without)) script = std::move(without);
            else at += part;
        }
    }
    const auto quiet = [&](auto SimOptions::*fault) {
        Script without = script;
        without.net.*fault = 0;
        if (without.net.*fault != script.net.*fault && fails(without)) script = std::move(without);
    };
    for (auto fault :
         {&SimOptions::split, &SimOptions::stall, &SimOptions::clog, &SimOptions::refuse, &SimOptions::reset, &SimOptions::silence, &SimOptions::late_retire,
          &SimOptions::early_end, &SimOptions::immediate_sent, &SimOptions::lose, &SimOptions::duplicate, &SimOptions::reorder, &SimOptions::truncate})
        quiet(fault);
    quiet(&SimOptions::fail_allocation_at);
    quiet(&SimOptions::devices);
    return script;
}

}  // namespace evpl::sim_test
