// inproc between threads: the same promises while both sides run, sleep and go away at any moment.
#include <atomic>
#include <random>
#include <thread>

#include "unit/inproc_world.hpp"

namespace evpl::transport::inproc_test {
namespace {

class InprocThreadTest : public testing::Test {};

/// Turns a loop until `done`; sleeps on its bell when there is nothing to do, as core does.
template <class Done>
void drive(FakeLoop& loop, std::initializer_list<End*> ends, bool sleeps, Done done) {
    int idle = 0;
    while (!done()) {
        bool busy = loop.turn() > 0;
        for (End* end : ends) {
            if (end->closes > 0 || std::exchange(end->writables, 0) == 0) continue;
            end->flush();
            busy = true;
        }
        idle = busy ? 0 : idle + 1;
        if (idle < 50 || loop.again()) continue;
        if (!sleeps) {
            std::this_thread::yield();
            continue;
        }
        ASSERT_TRUE(loop.sleep()) << "nobody rang";
    }
}

/// Sends `total` pattern bytes in random slices, a little at a time.
struct Source {
    End& end;
    std::size_t total;
    std::minstd_rand dice;
    std::size_t put = 0;
    void more() {
        while (put < total && end.outbox.bytes() < 400'000) {
            const std::size_t most = dice() % 8 == 0 ? 100'000 : dice() % 2 == 0 ? 300 : 100;
            const std::size_t n = std::min(total - put, std::size_t(1 + dice() % most));
            end.put(pattern(n, put), dice() % 2 == 0);
            put += n;
        }
        if (end.outbox.count() > 0) end.flush();
    }
    bool done() const { return put == total && end.outbox.count() == 0; }
};

void both_ways(bool sleeps, bool pauses, std::size_t total) {
    const std::string url = fresh_name("threads") + "?mode=msg";
    FakeLoop near_loop, far_loop;
    memory::Heap::set_current(nullptr);
    std::atomic<bool> listening{false};
    const auto finish = [&](FakeLoop& loop, End& end) {
        // The far end may read the rest while this one is only polled.
        Source source{end, total, std::minstd_rand{std::uint32_t(total) + (&loop == &near_loop ? 1u : 2u)}};
        std::minstd_rand dice{7};
        drive(loop, {&end}, sleeps, [&] {
            if (end.opens == 0) return end.closes > 0;
            if (!source.done()) source.more();
            if (pauses && dice() % 16 == 0 && !end.link->receive_paused) loop.port->pause(*end.link);
            else if (end.link != nullptr && end.closes == 0 && end.link->receive_paused) loop.port->resume(*end.link);
            return source.done() && end.received_bytes == total;
        });
        EXPECT_TRUE(end.good);
        EXPECT_EQ(end.sent_bytes, total);
        end.close(How::drain);
        drive(loop, {&end}, sleeps, [&] { return end.over(); });
        EXPECT_EQ(end.why, Errc::end);
        memory::Heap::current()->flush_departures();
        memory::Heap::set_current(nullptr);
    };
    std::thread far_thread([&] {
        Door door;
        End server(far_loop);
        server.check_only = true;
        door.ready.push_back(&server);
        door.listen(far_loop, url);
        listening = true;
        finish(far_loop, server);
        door.listening->close();
    });
    while (!listening) std::this_thread::yield();
    {
        End client(near_loop);
        client.check_only = true;
        client.connect(url);
        finish(near_loop, client);
    }
    far_thread.join();
}

TEST_F(InprocThreadTest, CarriesBytesBothWaysWhilePolling) { both_ways(false, false, 20u << 20); }
TEST_F(InprocThreadTest, CarriesBytesBothWaysWhileSleeping) { both_ways(true, false, 20u << 20); }
TEST_F(InprocThreadTest, CarriesBytesBothWaysWhilePausing) { both_ways(false, true, 5u << 20); }

// Goal: no wake-up is lost when both sides sleep between single messages.
TEST_F(InprocThreadTest, WakesASleepingLoopForEachMessage) {
    constexpr int count = 2000;
    const std::string url = fresh_name("sleepers");
    FakeLoop near_loop, far_loop;
    std::atomic<bool> listening{false};
    std::thread far_thread([&] {
        Door door;
        End server(far_loop);
        door.ready.push_back(&server);
        door.listen(far_loop, url);
        listening = true;
        std::size_t answered = 0;
        drive(far_loop, {&server}, true, [&] {
            for (; answered < server.received_bytes; ++answered) server.send("a");
            return answered == count;
        });
        drive(far_loop, {&server}, true, [&] { return server.over(); });
    });
    while (!listening) std::this_thread::yield();
    End client(near_loop);
    client.connect(url);
    std::size_t asked = 0;
    drive(near_loop, {&client}, true, [&] {
        if (client.opens == 1 && asked == client.received_bytes && asked < count) {
            ++asked;
            client.send("q");
        }
        return client.received_bytes == count;
    });
    client.close(How::abort);
    drive(near_loop, {&client}, true, [&] { return client.over(); });
    far_thread.join();
}

// Goal: a reader that sleeps on a full ring and a writer that sleeps because it is full wake each other.
TEST_F(InprocThreadTest, WakesAWriterThatWaitsForRoom) {
    constexpr std::size_t total = 3'000'000;
    const std::string url = fresh_name("room");
    FakeLoop near_loop, far_loop;
    std::atomic<bool> listening{false};
    std::thread far_thread([&] {
        Door door;
        End server(far_loop);
        server.check_only = true;
        door.ready.push_back(&server);
        door.listen(far_loop, url);
        listening = true;
        drive(far_loop, {&server}, true, [&] { return server.received_bytes == total; });
        EXPECT_TRUE(server.good);
        server.close(How::drain);
        drive(far_loop, {&server}, true, [&] { return server.over(); });
    });
    while (!listening) std::this_thread::yield();
    End client(near_loop);
    client.connect(url);
    client.put(pattern(total), false, 340);  // entries of three units: the ring is full long before the window
    client.writables = 1;
    drive(near_loop, {&client}, true, [&] { return client.sent_bytes == total; });
    client.close(How::finish);
    drive(near_loop, {&client}, true, [&] { return client.over(); });
    far_thread.join();
}

// Goal: operations on remote memory while both sides work at it.
TEST_F(InprocThreadTest, ReadsRemoteMemoryBetweenThreads) {
    const std::string url = fresh_name("remote-threads");
    FakeLoop near_loop, far_loop;
    std::atomic<int> step{0};
    RemoteRegion region;
    std::thread far_thread([&] {
        Door door;
        End server(far_loop);
        door.ready.push_back(&server);
        door.listen(far_loop, url);
        step = 1;
        drive(far_loop, {&server}, true, [&] { return server.opens == 1; });
        auto memory = far_loop.heap().allocate(100'000);
        ASSERT_TRUE(memory.ok());
        std::memcpy(memory->data(), pattern(100'000).data(), 100'000);
        const auto exposed = far_loop.port->expose(*server.link, *std::move(memory), Access::read_write);
        ASSERT_TRUE(exposed.ok());
        region = *exposed;
        step = 2;
        drive(far_loop, {&server}, true, [&] { return server.over(); });
    });
    while (step < 1) std::this_thread::yield();
    End client(near_loop);
    client.connect(url);
    drive(near_loop, {&client}, false, [&] { return client.opens == 1 && step == 2; });
    std::uint64_t started = 0;
    std::size_t checked = 0;
    drive(near_loop, {&client}, true, [&] {
        for (; started < 20'000 && started < checked + 200; ++started) {
            auto into = near_loop.heap().allocate(1 + std::uint32_t(started % 3000));
            EXPECT_TRUE(near_loop.port->read(*client.link, {started}, region, started * 7 % 90'000, *std::move(into)).ok());
        }
        for (const Completion& done : client.completions) {
            EXPECT_TRUE(done.error.ok());
            EXPECT_EQ(done.id.value, checked);
            const std::size_t from = checked * 7 % 90'000;
            bool same = true;
            for (std::uint32_t i = 0; i < done.buffer.size(); ++i) same &= char(done.buffer.data()[i]) == pattern_at(from + i);
            EXPECT_TRUE(same);
            ++checked;
        }
        client.completions.clear();
        return checked == 20'000;
    });
    client.close(How::abort);
    drive(near_loop, {&client}, true, [&] { return client.over(); });
    far_thread.join();
}

// Goal: ports appear and go away on both threads at any moment, with traffic and operations under way: everybody hears one end,
// nothing leaks, nothing is used after it was freed (the sanitizers look).
TEST_F(InprocThreadTest, SurvivesPortsThatGoAtAnyMoment) {
    constexpr int rounds = 1000;
    const std::string url = fresh_name("mortal");
    struct Life {
        std::unique_ptr<FakeLoop> loop = std::make_unique<FakeLoop>();
    };
    std::deque<Life> near_lives(rounds), far_lives(rounds);  // bells are made on this thread
    memory::Heap::set_current(nullptr);
    std::atomic<int> near_at{0}, far_at{0}, opened{0};
    // Both have come so far: each thread counts its own steps.
    const auto meet = [&](bool near_side) {
        auto &ours = near_side ? near_at : far_at, &theirs = near_side ? far_at : near_at;
        const int here = ++ours;
        while (theirs < here) std::this_thread::yield();
    };
    const auto live = [&](FakeLoop& loop, int round, bool near_side) {
        std::minstd_rand dice{std::uint32_t(round * 2 + near_side + 1)};
        std::deque<End> clients, servers;
        Door door;
        door.listen(loop, url + (near_side ? "-near" : "-far"));
        for (int i = 0; i < 4; ++i) door.ready.push_back(&servers.emplace_back(loop));
        meet(near_side);
        for (int i = 0; i < 4; ++i) {
            clients.emplace_back(loop).connect(url + (near_side ? "-far" : "-near"));
        }
        const int turns = int(dice() % 400);
        for (int i = 0; i < turns; ++i) {
            loop.turn(1 + dice() % 64);
            for (auto* list : {&clients, &servers}) {
                for (End& end : *list) {
                    end.check_only = true;
                    end.good = true;
                    if (end.link == nullptr || end.opens == 0 || end.closes > 0) continue;
                    switch (dice() % 12) {
                    case 0: end.put(pattern(dice() % 20'000), false), end.flush(); break;
                    case 1: end.put(pattern(dice() % 200), false), end.flush(); break;
                    case 2: end.flush(); break;
                    case 3: loop.port->pause(*end.link); break;
                    case 4: loop.port->resume(*end.link); break;
                    case 5: {
                        auto buffer = loop.heap().allocate(5000);
                        static_cast<void>(loop.port->read(*end.link, {1}, {1, 2, 3}, 0, *std::move(buffer)));
                        break;
                    }
                    case 6:
                        if (dice() % 20 == 0) end.close(How::abort);
                        break;
                    case 7:
                        if (dice() % 20 == 0) end.close(How::finish);
                        break;
                    default: break;
                    }
                }
            }
        }
        loop.enter();
        for (auto* list : {&clients, &servers}) {
            for (End& end : *list) {
                opened += end.opens;
                end.abandoned = true;
                end.outbox.clear();
                end.completions.clear();
            }
        }
        loop.end();
    };
    std::thread far_thread([&] {
        for (int round = 0; round < rounds; ++round) {
            meet(false);
            live(*far_lives[std::size_t(round)].loop, round, false);
        }
    });
    for (int round = 0; round < rounds; ++round) {
        meet(true);
        live(*near_lives[std::size_t(round)].loop, round, true);
    }
    far_thread.join();
    EXPECT_GT(opened, rounds) << "most rounds are to have something to lose";
}

}  // namespace
}  // namespace evpl::transport::inproc_test
