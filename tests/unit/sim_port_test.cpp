// The simulated port against the contract, with a stand-in for core (sim_harness.hpp).

#include "support/patience.hpp"
#include "unit/sim_harness.hpp"

namespace evpl::sim_test {
namespace {

/// EVPL_SIM_SEED=n repeats one seed; EVPL_SIM_SEEDS=n looks at the first n; else at `count`, or their share (patience.hpp).
std::vector<std::uint64_t> seeds(std::uint64_t count) {
    if (const char* one = std::getenv("EVPL_SIM_SEED")) return {std::strtoull(one, nullptr, 10)};
    count /= test::single_thread_share;
    if (const char* more = std::getenv("EVPL_SIM_SEEDS")) count = std::strtoull(more, nullptr, 10);
    std::vector<std::uint64_t> all;
    for (std::uint64_t seed = 1; seed <= count; ++seed) all.push_back(seed);
    return all;
}

/// All knobs drawn from the seed; about half of them off.
SimOptions any_options(std::uint64_t seed, bool lossless = false) {
    Random random(seed * 77 + 5);
    const auto knob = [&](unsigned most) { return std::uint16_t(random.below(2) == 0 ? 0 : random.below(most + 1)); };
    SimOptions options;
    options.seed = seed;
    options.split = knob(900);
    options.stall = knob(100);
    options.clog = knob(400);
    options.late_retire = knob(500);
    options.early_end = knob(1000);
    options.immediate_sent = knob(700);
    options.receive_pause = random.below(2) == 0;
    options.half_close = random.below(4) != 0;
    options.poll_only = random.below(2) == 0;
    options.devices = unsigned(random.below(4));
    options.device_buffers = std::uint32_t(1 + random.below(64));
    options.device_block_bytes = std::uint32_t(64 + random.below(4000));
    options.window_bytes = std::uint32_t(1000 + random.below(100'000));
    options.delay_most = Duration::of_ns(std::int64_t(10'000 + random.below(2'000'000)));
    if (lossless) return options;
    options.refuse = knob(300);
    options.reset = knob(400);
    options.silence = knob(300);
    if (random.below(3) == 0) options.fail_allocation_at = 6 + random.below(200);  // set-up takes five
    return options;
}

struct Outcome {
    std::uint64_t hash = 0;
    std::uint64_t delivered = 0;
    std::uint64_t clean = 0;
};

// A few connections send both ways, pause now and then, and end in one of several ways.
Outcome run_transfers(const SimOptions& options, bool lossless) {
    Outcome outcome;
    SimNet net(options);
    Random random(options.seed + 1000);
    {
        Machine server(net), other(net), client(net);
        server.listen("sim://stream");
        other.listen("sim://messages?mode=msg");
        std::uint64_t flow = 0;
        const auto load = [&](End& end) {
            end.keep = random.below(2) == 0;
            if (random.below(2) == 0) end.pause_after = random.below(20'000);
            for (std::uint64_t i = random.below(12); i > 0; --i) end.send(random.below(5) == 0 ? random.below(40'000) : random.below(300), random);
            const How how = lossless || random.below(4) != 0 ? How::drain : random.below(2) == 0 ? How::finish : How::abort;
            if (how == How::abort || options.half_close) end.close(how);
            else end.on_ended = [](End& one) { one.close(How::finish); };
        };
        // The flows of a pair are named on both sides before any byte travels: pairs are matched by the order of
        // acceptance.
        std::map<std::string, std::uint64_t> flows;
        const auto accepted = [&](End& end) {
            char name[64];
            const std::size_t length = end.machine->port->remote_name(*end.link, name);
            end.out = 2 * flows[std::string(name, length)] + 1;
            end.in = end.out - 1;
            load(end);
        };
        server.on_accepted = other.on_accepted = accepted;
        for (unsigned i = 0; i < 4; ++i) {
            End* end = client.connect(i % 2 == 0 ? "sim://stream" : "sim://messages?mode=msg");
            if (end == nullptr) continue;
            flows["sim-" + std::to_string(net.stats().links_made)] = ++flow;
            end->out = 2 * flow;
            end->in = 2 * flow + 1;
            load(*end);
            if (!options.half_close) end->close(How::finish);
        }
        drive(net, {&server, &other, &client}, INT64_MAX, [&] {
            for (Machine* machine : {&server, &other, &client})
                for (auto& end : machine->ends) {
                    if (end->link != nullptr && end->link->receive_paused && random.below(3) == 0) end->resume();
                    if (end->kept.size() > 3 && random.below(2) == 0) end->kept.clear();
                }
        });
        for (Machine* machine : {&server, &other, &client})  // whoever is still paused gets the rest
            for (auto& end : machine->ends) {
                end->pause_after = UINT64_MAX;
                end->resume();
            }
        drive(net, {&server, &other, &client});
        std::map<std::uint64_t, const End*> by_out;
        for (Machine* machine : {&server, &other, &client})
            for (auto& end : machine->ends) by_out[end->out] = end.get();
        for (const auto& [out, end] : by_out) {
            EXPECT_LE(end->opened_count, 1);
            EXPECT_EQ(end->closed_count, 1) << "flow " << out;
            EXPECT_EQ(end->retired_count, 1) << "flow " << out;
            outcome.delivered += end->delivered_bytes;
            const auto peer = by_out.find(end->in);
            if (peer == by_out.end()) continue;
            EXPECT_LE(end->delivered_bytes, peer->second->given);
            if (end->kind == Kind::message) {
                EXPECT_LE(end->messages_delivered.size(), peer->second->messages_given.size());
                for (std::size_t i = 0; i < end->messages_delivered.size(); ++i) EXPECT_EQ(end->messages_delivered[i], peer->second->messages_given[i]);
            }
            if (end->ended_count == 1) {
                EXPECT_EQ(end->delivered_bytes, peer->second->given) << "ended before the last byte of flow " << end->in;
                EXPECT_TRUE(end->kind != Kind::message || end->messages_delivered.size() == peer->second->messages_given.size());
            }
            if (end->error == Errc::end) {
                ++outcome.clean;
                EXPECT_EQ(end->sent_bytes, end->given);
            }
        }
        const auto stats = net.stats();
        EXPECT_EQ(stats.violations, 0u) << stats.first_violation;
        EXPECT_EQ(stats.links_open, 0u);
        EXPECT_EQ(stats.links_not_retired, 0u);
        EXPECT_EQ(stats.bytes_held, 0u);
        EXPECT_LE(stats.device_buffers_held_most, options.device_buffers);
        for (Machine* machine : {&server, &other, &client}) {
            for (auto& end : machine->ends) end->kept.clear();
            EXPECT_EQ(machine->heap().blocks_out(), 0u);
        }
        EXPECT_EQ(net.stats().device_buffers_held, 0u);
    }
    outcome.hash = net.trace_hash();
    return outcome;
}

// Goal: bytes are an exact prefix, all of them when the end is orderly, and each link ends once, whatever the device
// does. Method: 400 seeds draw all knobs, faults of links included.
TEST(SimPort, KeepsTheContractUnderAllKnobs) {
    std::uint64_t clean = 0;
    const auto tried = seeds(400);
    for (const std::uint64_t seed : tried) {
        SCOPED_TRACE("EVPL_SIM_SEED=" + std::to_string(seed));
        clean += run_transfers(any_options(seed), false).clean;
        if (HasFailure()) return;
    }
    EXPECT_TRUE(clean > tried.size() || std::getenv("EVPL_SIM_SEED") != nullptr) << "the faults leave too little to look at: " << clean;
}

// Goal: without losses everything arrives and every link ends in order.
TEST(SimPort, DeliversEverythingWhenNothingIsLost) {
    for (const std::uint64_t seed : seeds(200)) {
        SCOPED_TRACE("EVPL_SIM_SEED=" + std::to_string(seed));
        SimOptions options = any_options(seed, true);
        options.half_close = true;
        EXPECT_EQ(run_transfers(options, true).clean, 8u);
        if (HasFailure()) return;
    }
}

// Goal: same seed, same events; another seed, others.
TEST(SimPort, RepeatsExactly) {
    std::map<std::uint64_t, std::uint64_t> hashes;
    for (const std::uint64_t seed : seeds(40)) {
        SCOPED_TRACE("EVPL_SIM_SEED=" + std::to_string(seed));
        const std::uint64_t hash = run_transfers(any_options(seed), false).hash;
        EXPECT_EQ(hash, run_transfers(any_options(seed), false).hash);
        EXPECT_EQ(hashes.count(hash), 0u);
        hashes[hash] = seed;
    }
}

/// One open pair, client first.
struct Pair {
    explicit Pair(const SimOptions& options, std::string_view url = "sim://here") : net(options), server(net), client(net) {
        listening = server.listen(url);
        a = client.connect(url);
        drive(net, {&server, &client});
        b = server.ends.empty() ? nullptr : server.ends[0].get();
        if (b == nullptr) return;
        a->out = b->in = 1;
        a->in = b->out = 2;
    }
    void run(std::int64_t until_ns = INT64_MAX) { drive(net, {&server, &client}, until_ns); }
    SimNet net;
    Machine server, client;
    transport::Listening* listening = nullptr;
    End *a = nullptr, *b = nullptr;
    Random random{3};
};

TEST(SimPort, TheDeviceKeepsSlicesUntilSent) {
    Pair pair({});
    pair.a->send(5000, pair.random);
    pair.a->dirty = false;
    EXPECT_EQ(pair.a->flush(), Flushed::all);
    EXPECT_TRUE(pair.a->outbox.empty());
    EXPECT_EQ(pair.net.stats().bytes_held, 5000u);
    EXPECT_EQ(pair.a->sent_bytes, 0u);
    pair.run();
    EXPECT_EQ(pair.a->sent_bytes, 5000u);
    EXPECT_EQ(pair.b->delivered_bytes, 5000u);
    EXPECT_EQ(pair.net.stats().bytes_held, 0u);
}

TEST(SimPort, ASlabWithoutAKeyIsFoundOut) {
    Pair pair({.devices = 2});
    memory::Heap::set_current(&pair.client.heap());
    auto slice = pair.client.heap().allocate(100);
    for (std::uint32_t i = 0; i < 100; ++i) slice->data()[i] = pattern(1, i);
    pair.a->with_device.push_back(slice->share());
    pair.a->given = 100;
    ASSERT_TRUE(pair.a->outbox.push(*std::move(slice)));
    pair.a->dirty = true;
    pair.run();
    EXPECT_EQ(pair.net.stats().violations, 1u);
    EXPECT_STREQ(pair.net.stats().first_violation, "a slice without a key in the link's domain");

    // Wrapped memory has no slab, and so no key either.
    static std::byte own[10];
    for (std::uint32_t i = 0; i < 10; ++i) own[i] = pattern(1, 100 + i);
    auto wrapped = pair.client.heap().wrap(own, 10, nullptr, nullptr);
    pair.a->with_device.push_back(wrapped->share());
    pair.a->given += 10;
    ASSERT_TRUE(pair.a->outbox.push(*std::move(wrapped)));
    pair.a->dirty = true;
    pair.run();
    EXPECT_EQ(pair.net.stats().violations, 2u);
    EXPECT_EQ(pair.b->delivered_bytes, 110u);
}

TEST(SimPort, AKeyOfAnotherDomainDoesNotHelp) {
    Pair pair({.devices = 2});
    memory::Domain* mine = pair.a->link->domain;
    memory::Domain* others = pair.b->link->domain;
    ASSERT_NE(mine, others);
    auto slice = pair.client.heap().allocate(1);
    others->request(*memory::slab_of(*slice), nullptr, nullptr);
    ASSERT_TRUE(pair.net.settle());
    slice->data()[0] = pattern(1, 0);
    pair.a->with_device.push_back(slice->share());
    pair.a->given = 1;
    ASSERT_TRUE(pair.a->outbox.push(*std::move(slice)));
    pair.a->dirty = true;
    pair.run();
    EXPECT_EQ(pair.net.stats().violations, 1u);
}

// Goal: a reader that keeps what it got cannot use up the device's memory.
TEST(SimPort, CopiesOutBeyondTheCapOfReceiveBlocks) {
    Pair pair({.device_buffers = 8, .device_block_bytes = 1000});
    pair.b->keep = true;
    pair.a->send(50'000, pair.random);
    pair.run();
    EXPECT_EQ(pair.b->delivered_bytes, 50'000u);
    EXPECT_EQ(pair.net.stats().device_buffers_held, 6u);
    EXPECT_EQ(pair.net.stats().bytes_copied_out, 44'000u);
    pair.b->kept.clear();
    EXPECT_EQ(pair.net.stats().device_buffers_held, 0u);
    pair.b->keep = false;
    pair.a->send(50'000, pair.random);
    pair.run();
    EXPECT_EQ(pair.net.stats().bytes_copied_out, 44'000u);
}

TEST(SimPort, ABlockMayOutliveItsPort) {
    Buffer kept;
    {
        Pair pair({});
        pair.b->keep = true;
        pair.a->send(100, pair.random);
        pair.run();
        ASSERT_EQ(pair.b->kept.size(), 1u);
        kept = std::move(pair.b->kept[0]);
    }
    for (std::uint32_t i = 0; i < 100; ++i) EXPECT_EQ(kept.data()[i], pattern(1, i));
    kept.reset();
}

// Goal: the end reported before the last bytes is told after them.
TEST(SimPort, TheEndComesAfterTheLastBytesThoughTheDeviceReportsItFirst) {
    Pair pair({.split = 1000, .stall = 500, .early_end = 1000});
    pair.a->send(20'000, pair.random);
    pair.a->close(How::drain);
    pair.run();
    EXPECT_EQ(pair.b->delivered_bytes, 20'000u);
    EXPECT_EQ(pair.b->ended_count, 1);
    EXPECT_EQ(pair.b->closed_count, 0);
    pair.b->send(700, pair.random);  // the other direction goes on
    pair.b->close(How::drain);
    pair.run();
    EXPECT_EQ(pair.a->delivered_bytes, 700u);
    EXPECT_EQ(pair.a->error, Errc::end);
    EXPECT_EQ(pair.b->error, Errc::end);
    EXPECT_EQ(pair.a->retired_count + pair.b->retired_count, 2);
}

TEST(SimPort, FinishSendsWhatIsQueuedAndClosesBothWays) {
    Pair pair({.clog = 500});
    pair.a->send(30'000, pair.random);
    pair.a->close(How::finish);
    pair.run();
    EXPECT_EQ(pair.a->error, Errc::closed);
    EXPECT_EQ(pair.b->delivered_bytes, 30'000u);
    EXPECT_EQ(pair.b->ended_count, 1);
    pair.b->send(10, pair.random);
    pair.run();
    EXPECT_EQ(pair.b->error, Errc::reset) << "nobody is there to receive it";
}

TEST(SimPort, AnAbortIsAResetForThePeer) {
    Pair pair({});
    pair.a->close(How::abort);
    pair.a->close(How::abort);
    EXPECT_EQ(pair.a->closed_count, 0) << "no upcall inside close";
    pair.run();
    EXPECT_EQ(pair.a->error, Errc::closed);
    EXPECT_EQ(pair.b->error, Errc::reset);
    EXPECT_EQ(pair.b->error.who(), Who::peer);
}

TEST(SimPort, ALinkMayRetireLateAndKeepsItsBuffersUntilThen) {
    Pair pair({.late_retire = 1000});
    pair.a->send(3000, pair.random);
    pair.a->flush();
    pair.a->close(How::abort);
    while (pair.a->closed_count == 0) pair.client.turn();
    EXPECT_EQ(pair.a->retired_count, 0);
    EXPECT_EQ(pair.net.stats().bytes_held, 3000u);
    EXPECT_EQ(pair.net.stats().links_not_retired, 2u);
    pair.run();
    EXPECT_EQ(pair.a->retired_count, 1);
    EXPECT_EQ(pair.net.stats().bytes_held, 0u);
    EXPECT_EQ(pair.net.stats().links_not_retired, 0u);
}

TEST(SimPort, AReusedLinkHasAnotherGeneration) {
    Pair pair({});
    transport::Link* const first = pair.a->link;
    const std::uint32_t generation = first->generation;
    pair.a->close(How::abort);
    pair.run();
    End* again = pair.client.connect("sim://here");
    EXPECT_EQ(again->link, first);
    EXPECT_NE(again->link->generation, generation);
    pair.run();
    EXPECT_EQ(again->opened_count, 1);
}

TEST(SimPort, APausedLinkStopsTheSenderAndLosesNothing) {
    Pair pair({.window_bytes = 10'000});
    pair.b->pause();
    pair.a->send(50'000, pair.random);
    pair.run();
    EXPECT_EQ(pair.b->delivered_bytes, 0u);
    EXPECT_EQ(pair.net.stats().bytes_in_flight, 10'000u);
    EXPECT_EQ(pair.a->outbox.bytes(), 40'000u);
    EXPECT_TRUE(pair.a->refused);
    pair.b->resume();
    pair.run();
    EXPECT_EQ(pair.b->delivered_bytes, 50'000u);
}

TEST(SimPort, PausingALinkThatCannotIsFoundOut) {
    Pair pair({.receive_pause = false});
    EXPECT_FALSE(pair.a->link->caps->receive_pause);
    pair.a->pause();
    EXPECT_EQ(pair.net.stats().violations, 1u);
}

TEST(SimPort, ConnectingToNobodyIsRefused) {
    SimNet net;
    Machine client(net);
    End* end = client.connect("sim://nobody");
    ASSERT_NE(end, nullptr);
    drive(net, {&client});
    EXPECT_EQ(end->opened_count, 0);
    EXPECT_EQ(end->error, Errc::refused);
    EXPECT_EQ(end->retired_count, 1);
}

TEST(SimPort, AStreamIsNotAMessageListener) {
    SimNet net;
    Machine server(net), client(net);
    server.listen("sim://here?mode=msg");
    End* end = client.connect("sim://here");
    drive(net, {&server, &client});
    EXPECT_EQ(end->error, Errc::refused);
}

TEST(SimPort, ARefusingAcceptorLeavesNothingBehind) {
    SimNet net;
    Machine server(net), client(net);
    server.listen("sim://here");
    server.refuse_all = true;
    End* end = client.connect("sim://here");
    drive(net, {&server, &client});
    EXPECT_EQ(end->error, Errc::refused);
    EXPECT_EQ(net.stats().links_not_retired, 0u);
}

TEST(SimPort, ACancelledConnectEndsBothSides) {
    for (int turns = 0; turns < 6; ++turns) {
        SimNet net;
        Machine server(net), client(net);
        server.listen("sim://here");
        End* end = client.connect("sim://here");
        for (int i = 0; i < turns; ++i) {
            server.turn();
            net.step();
        }
        end->close(How::abort);
        drive(net, {&server, &client});
        EXPECT_EQ(end->error, Errc::closed);
        for (auto& other : server.ends) EXPECT_EQ(other->error, Errc::reset);
        EXPECT_EQ(net.stats().links_not_retired, 0u);
    }
}

TEST(SimPort, APausedListenerAcceptsLater) {
    SimNet net;
    Machine server(net), client(net);
    transport::Listening* listening = server.listen("sim://here");
    listening->pause();
    End* end = client.connect("sim://here");
    drive(net, {&server, &client});
    EXPECT_EQ(end->opened_count + end->closed_count, 0);
    listening->resume();
    drive(net, {&server, &client});
    EXPECT_EQ(end->opened_count, 1);
    listening->close();
    EXPECT_EQ(client.connect("sim://here")->closed_count, 0);
    drive(net, {&server, &client});
    EXPECT_EQ(client.ends[1]->error, Errc::refused);
    EXPECT_EQ(end->closed_count, 0) << "accepted links stay";
}

TEST(SimPort, ASilentPeerIsNoticedAfterTheLimit) {
    Pair pair({.silence_limit = Duration::of_ns(1'000'000'000)});
    const std::int64_t start = pair.net.now_ns();
    pair.net.silence_links();
    pair.a->send(1000, pair.random);
    pair.run();
    EXPECT_EQ(pair.b->delivered_bytes, 0u);
    EXPECT_EQ(pair.a->error, Errc::peer_silent);
    EXPECT_EQ(pair.b->error, Errc::peer_silent);
    EXPECT_EQ(pair.net.now_ns() - start, 1'000'000'000);
}

TEST(SimPort, ACutMayComeBeforeOrAfterTheLastBytesButEndsTheLink) {
    int with_bytes = 0;
    for (std::uint64_t seed = 1; seed <= 40; ++seed) {
        Pair pair({.seed = seed, .device_block_bytes = 100});
        pair.a->send(2000, pair.random);
        while (pair.b->delivered_bytes == 0) {
            pair.server.turn();
            pair.client.turn();
            pair.net.step();
        }
        pair.net.cut_links();
        pair.run();
        EXPECT_EQ(pair.a->error, Errc::reset);
        EXPECT_EQ(pair.b->error, Errc::reset);
        with_bytes += pair.b->delivered_bytes == 2000;
    }
    EXPECT_GT(with_bytes, 0);
    EXPECT_LT(with_bytes, 40);
}

TEST(SimPort, ATriedAllocationThatFailsEndsNothing) {
    // Every step that may allocate fails once: set-up answers out_of_memory, later steps are tried again.
    const auto run = [](std::uint64_t at) {
        SimNet net({.split = 300, .device_block_bytes = 500, .fail_allocation_at = at});
        Machine* server = at == 1 ? nullptr : new Machine(net);
        if (server == nullptr) return net.stats().allocations;
        std::unique_ptr<Machine> own(server);
        if (at == 2) return std::uint64_t(2);
        Machine client(net);
        Diagnostic why;
        auto listening = server->port->listen(*Endpoint::parse("sim://here"), false, *server, why);
        EXPECT_EQ(listening.ok(), at != 3);
        if (!listening) {
            EXPECT_EQ(listening.error(), Errc::out_of_memory);
            EXPECT_NE(why.view(), "");
            return std::uint64_t(3);
        }
        End* a = client.connect("sim://here");
        EXPECT_EQ(a != nullptr, at != 4);
        if (a == nullptr) return std::uint64_t(4);
        a->out = 1;
        server->on_accepted = [](End& end) { end.in = 1; };
        Random random(1);
        a->send(5000, random);
        a->close(How::drain);
        drive(net, {server, &client});
        EXPECT_EQ(server->ends.size(), 1u);
        EXPECT_EQ(server->ends[0]->delivered_bytes, 5000u);
        EXPECT_EQ(server->ends[0]->ended_count, 1);
        EXPECT_EQ(server->accept_pauses, at == 5 ? 1 : 0);
        return net.stats().allocations;
    };
    const std::uint64_t steps = run(0);
    EXPECT_GT(steps, 10u);
    for (std::uint64_t at = 3; at <= steps; ++at) {
        SCOPED_TRACE(at);
        run(at);
    }
}

TEST(SimPort, ACompletionStyleRingsTheBellAndAPollOnlyStyleLimitsTheSleep) {
    {
        Pair pair({});
        EXPECT_FALSE(pair.server.port->arm().work_waiting);
        pair.server.port->disarm();
        pair.a->send(10, pair.random);
        pair.client.turn();
        ASSERT_TRUE(pair.server.bell_.open());
        pair.server.bell_.prepare_sleep();
        EXPECT_FALSE(pair.server.port->arm().work_waiting);
        EXPECT_EQ(pair.server.port->arm().sleep_ns_max, INT64_MAX);
        pair.net.advance(Duration::of_ns(1'000'000));
        EXPECT_TRUE(pair.server.bell_.cancel_sleep());
        pair.server.port->disarm();
        EXPECT_TRUE(pair.server.port->arm().work_waiting);
        pair.server.port->disarm();
        pair.server.bell_.close();
        pair.run();
    }
    Pair pair({.poll_only = true});
    EXPECT_EQ(pair.server.port->arm().sleep_ns_max, INT64_MAX);
    pair.a->send(10, pair.random);
    pair.client.turn();
    const transport::Armed armed = pair.server.port->arm();
    EXPECT_FALSE(armed.work_waiting);
    EXPECT_EQ(armed.sleep_ns_max, pair.net.next_event_ns() - pair.net.now_ns());
    pair.net.advance(Duration::of_ns(1'000'000));
    EXPECT_EQ(pair.server.port->arm().sleep_ns_max, 0);
    pair.server.port->disarm();
    pair.run();
}

TEST(SimPort, AdvanceMovesTheWireButMakesNoUpcalls) {
    Pair pair({});
    pair.a->send(10, pair.random);
    pair.client.turn();
    const std::uint64_t upcalls = pair.net.stats().upcalls;
    pair.net.advance(Duration::of_ns(1'000'000'000));
    EXPECT_EQ(pair.net.stats().upcalls, upcalls);
    EXPECT_TRUE(pair.net.completions_waiting());
    EXPECT_EQ(pair.b->delivered_bytes, 0u);
    pair.server.turn();
    EXPECT_EQ(pair.b->delivered_bytes, 10u);
}

TEST(SimPort, APortThatGoesReleasesEverythingAndResetsItsPeers) {
    SimNet net({.late_retire = 1000});
    Machine server(net);
    server.listen("sim://here");
    {
        Machine client(net);
        End* one = client.connect("sim://here");
        End* two = client.connect("sim://here");
        drive(net, {&server, &client});
        Random random(1);
        one->out = server.ends[0]->in = 1;
        one->send(4000, random);
        one->flush();
        two->close(How::abort);
        client.turn();
        client.connect("sim://here");
    }
    drive(net, {&server});
    EXPECT_EQ(server.ends[0]->error, Errc::reset);
    EXPECT_EQ(server.ends[1]->error, Errc::reset);
    EXPECT_EQ(net.stats().links_not_retired, 0u);
    EXPECT_EQ(net.stats().bytes_held, 0u);
}

// -- messages and datagrams ------------------------------------------------------------------------------------

TEST(SimPort, MessagesKeepTheirEndsAlsoEmptyOnes) {
    Pair pair({.split = 500, .clog = 200, .device_block_bytes = 777}, "sim://here?mode=msg");
    EXPECT_EQ(pair.a->link->caps->kind, Kind::message);
    for (const std::uint64_t size : {0u, 1u, 5000u, 0u, 0u, 70'000u, 3u, 0u}) pair.a->send(size, pair.random);
    pair.a->close(How::drain);
    pair.run();
    EXPECT_EQ(pair.b->messages_delivered, pair.a->messages_given);
    EXPECT_EQ(pair.b->ended_count, 1);
}

TEST(SimPort, DatagramsGoByAddressAndComeWithTheirSource) {
    SimNet net;
    Machine one(net), two(net);
    End* a = one.bind("sim-dgram://a");
    End* b = two.bind("sim-dgram://b:7");
    EXPECT_EQ(two.bind("sim-dgram://a"), nullptr);
    EXPECT_EQ(two.last_error, Errc::address_in_use);
    End* c = two.bind("sim-dgram://a", true);
    drive(net, {&one, &two});
    EXPECT_EQ(a->opened_count + b->opened_count + c->opened_count, 3);
    const Address to_b = two.port->local_address(*b->link);
    EXPECT_EQ(to_b.family, Address::Family::ipv4);
    EXPECT_EQ(to_b.bytes[0], 10);
    EXPECT_EQ(to_b.port, 7);
    EXPECT_EQ(two.port->remote_address(*c->link), one.port->local_address(*a->link));
    a->send_datagram("hello b", &to_b);
    a->send_datagram("", &to_b);
    c->send_datagram("hello a");
    b->send_datagram("c takes nothing from b", nullptr);
    b->outbox.clear();
    b->with_device.clear();
    const Address to_c = two.port->local_address(*c->link);
    b->send_datagram("c takes nothing from b", &to_c);
    drive(net, {&one, &two});
    EXPECT_EQ(b->datagrams, (std::vector<std::string>{"hello b", ""}));
    EXPECT_EQ(b->sources[0], one.port->local_address(*a->link));
    EXPECT_EQ(a->datagrams, std::vector<std::string>{"hello a"});
    EXPECT_TRUE(c->datagrams.empty());
    a->send_datagram(std::string(5000, 'x'), &to_b);
    const Address nowhere;
    a->send_datagram("nobody", &nowhere);
    drive(net, {&one, &two});
    ASSERT_EQ(a->failures.size(), 2u);
    EXPECT_EQ(a->failures[0], Errc::too_large);
    EXPECT_EQ(a->failures[1], Errc::unreachable);
    EXPECT_EQ(a->sent_bytes, a->given);
    EXPECT_EQ(net.stats().violations, 0u);
    for (End* end : {a, b, c}) end->close(How::finish);
    drive(net, {&one, &two});
    EXPECT_EQ(net.stats().links_not_retired, 0u);
    EXPECT_NE(one.bind("sim-dgram://a"), nullptr) << "a closed socket's name is free";
}

TEST(SimPort, DatagramsAreLostDoubledReorderedAndCutByTheSeed) {
    SimNet net({.lose = 100, .duplicate = 100, .reorder = 200, .truncate = 50});
    Machine one(net), two(net);
    End* a = one.bind("sim-dgram://*");
    End* b = two.bind("sim-dgram://b");
    drive(net, {&one, &two});
    const Address to_b = two.port->local_address(*b->link);
    std::map<std::string, int> seen;
    for (int i = 0; i < 500; ++i) {
        a->send_datagram("datagram " + std::to_string(1000 + i), &to_b);
        if (i % 10 == 9) drive(net, {&one, &two}, net.now_ns() + 100'000);
    }
    drive(net, {&one, &two});
    int doubled = 0, reordered = 0, cut = 0;
    std::string last;
    for (const std::string& each : b->datagrams) {
        if (each.size() != 13) {
            ++cut;
            continue;
        }
        doubled += ++seen[each] == 2;
        reordered += each < last;
        last = each;
    }
    EXPECT_GT(doubled, 10);
    EXPECT_GT(reordered, 10);
    EXPECT_GT(cut, 5);
    EXPECT_GT(net.stats().datagrams_lost, 10u);
    EXPECT_LT(net.stats().datagrams_lost, 200u);
    EXPECT_EQ(a->sent_bytes, a->given) << "lost ones are sent, too";
}

// -- remote memory ---------------------------------------------------------------------------------------------

TEST(SimPort, RemoteMemoryHasBoundsRightsAndRevocation) {
    Pair pair({});
    memory::Heap::set_current(&pair.server.heap());
    auto exposed = pair.server.heap().copy(reinterpret_cast<const std::byte*>("0123456789"), 10);
    std::byte* const there = exposed->data();
    const auto region = pair.server.port->expose(*pair.b->link, exposed->share(), Access::read);
    const auto writable = pair.server.port->expose(*pair.b->link, *std::move(exposed), Access::read_write);
    ASSERT_TRUE(region.ok() && writable.ok());
    EXPECT_NE(region->key, writable->key);

    memory::Heap::set_current(&pair.client.heap());
    transport::Port& port = *pair.client.port;
    transport::Link& link = *pair.a->link;
    std::uint64_t next = 0;
    const auto outcome = [&](bool reads, RemoteRegion where, std::uint64_t offset, std::string_view bytes) {
        auto buffer = pair.client.heap().copy(reinterpret_cast<const std::byte*>(bytes.data()), std::uint32_t(bytes.size()));
        const OperationId id{++next};
        const auto started = reads ? port.read(link, id, where, offset, *std::move(buffer)) : port.write(link, id, where, offset, *std::move(buffer));
        EXPECT_TRUE(started.ok());
        pair.run();
        EXPECT_EQ(pair.a->completions.size(), next);
        EXPECT_EQ(pair.a->completions.back().id, id);
        return pair.a->completions.back();
    };
    EXPECT_EQ(outcome(true, *region, 2, "....").bytes, "2345");
    EXPECT_TRUE(pair.a->completions.back().error.ok());
    EXPECT_EQ(outcome(true, *region, 7, "....").error, Errc::remote_access);
    EXPECT_EQ(outcome(true, *region, UINT64_MAX, "....").error, Errc::remote_access);
    EXPECT_EQ(outcome(false, *region, 0, "xy").error, Errc::remote_access);
    EXPECT_TRUE(outcome(false, *writable, 8, "xy").error.ok());
    EXPECT_EQ(std::string(reinterpret_cast<char*>(there), 10), "01234567xy");
    RemoteRegion wrong = *region;
    ++wrong.key;
    EXPECT_EQ(outcome(true, wrong, 0, ".").error, Errc::remote_access);
    ASSERT_TRUE(pair.server.port->revoke(*pair.b->link, *region).ok());
    EXPECT_EQ(pair.server.port->revoke(*pair.b->link, *region).error(), Errc::misuse);
    EXPECT_EQ(outcome(true, *region, 2, ".").error, Errc::remote_access);

    // Operations under way when the link ends are answered, once, before closed.
    auto buffer = pair.client.heap().allocate(4);
    ASSERT_TRUE(port.read(link, OperationId{++next}, *writable, 0, *std::move(buffer)).ok());
    pair.b->close(How::abort);
    pair.run();
    EXPECT_EQ(pair.a->completions.size(), next);
    EXPECT_EQ(pair.a->closed_count, 1);
    EXPECT_EQ(pair.server.heap().blocks_out(), 0u);
    EXPECT_EQ(pair.client.heap().blocks_out(), 0u);
}

// -- the transport ---------------------------------------------------------------------------------------------

TEST(SimTransport, IsPresentWhereANetIs) {
    transport::Transport& transport = transport::sim_transport();
    ASSERT_EQ(transport.schemes().size(), 2u);
    EXPECT_EQ(SimNet::current(), nullptr);
    for (const transport::Scheme& scheme : transport.schemes()) {
        EXPECT_FALSE(transport.probe(scheme).present);
        EXPECT_FALSE(transport.probe(scheme).reason.empty());
        EXPECT_EQ(scheme.preference, 0);
        EXPECT_FALSE(scheme.has_address);
    }
    SimNet net;
    EXPECT_EQ(SimNet::current(), &net);
    EXPECT_TRUE(transport.probe(transport.schemes()[0]).present);
    {
        SimNet inner({.receive_pause = false});
        EXPECT_EQ(SimNet::current(), &inner);
        EXPECT_FALSE(transport.probe(transport.schemes()[0]).caps.receive_pause);
    }
    EXPECT_EQ(SimNet::current(), &net);
}

TEST(SimTransport, ChecksItsOptions) {
    transport::Transport& transport = transport::sim_transport();
    const transport::Scheme& scheme = transport.schemes()[0];
    Diagnostic why;
    EXPECT_EQ(transport.caps(scheme, *Endpoint::parse("sim://a"), why)->kind, Kind::stream);
    EXPECT_EQ(transport.caps(scheme, *Endpoint::parse("sim://a?mode=msg"), why)->kind, Kind::message);
    EXPECT_EQ(transport.caps(scheme, *Endpoint::parse("sim://a?mode=dance"), why).error(), Errc::bad_option);
    EXPECT_EQ(transport.caps(scheme, *Endpoint::parse("sim://a?colour=red"), why).error(), Errc::unknown_option);
    EXPECT_NE(why.view().find("colour"), std::string_view::npos);
    const transport::Scheme& datagrams = transport.schemes()[1];
    EXPECT_EQ(transport.caps(datagrams, *Endpoint::parse("sim-dgram://a"), why)->kind, Kind::datagram);
    EXPECT_EQ(transport.caps(datagrams, *Endpoint::parse("sim-dgram://a?mode=msg"), why).error(), Errc::unknown_option);
}

}  // namespace
}  // namespace evpl::sim_test
