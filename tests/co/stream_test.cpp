// Coroutines over every transport: what operations give, how deadlines, tokens and the end of a loop end them.
#include <stdexcept>

#include "co/served.hpp"

namespace evpl::test {
namespace {

class CoTest : public TransportTest {};
class CoStreamTest : public TransportTest {};

TEST_P(CoTest, EchoesWhatWasSent) {
    Served world{GetParam(), echo};
    world.client([](co::Stream peer) -> co::Task<> {
        for (int i = 0; i < 50; ++i) {
            const std::string text = pattern(100 + std::size_t(i));
            EXPECT_TRUE((co_await peer.send(text)).ok());
            std::string got;
            while (got.size() < text.size()) {
                auto bytes = co_await peer.recv(co::within(10_s));
                EXPECT_TRUE(bytes.ok());
                if (!bytes) co_return;
                got += text_of(*bytes);
            }
            EXPECT_EQ(got, text);
        }
        EXPECT_TRUE((co_await peer.sent(co::within(10_s))).ok());
    });
    EXPECT_TRUE(world.finish());
}

TEST_P(CoTest, ATimedOutReceiveConsumesNothing) {
    Served world{GetParam(), echo};
    world.client([](co::Stream peer) -> co::Task<> {
        EXPECT_EQ((co_await peer.recv(co::within(20_ms))).error().code(), Errc::timed_out);
        (void)co_await peer.send("hello");
        auto bytes = co_await peer.recv(co::within(10_s));
        EXPECT_TRUE(bytes.ok() && text_of(*bytes) == "hello");
    });
    EXPECT_TRUE(world.finish());
}

TEST_P(CoTest, ACancelledReceiveEndsOnceAndLaterOnesAtOnce) {
    co::Cancel token;
    Served world{GetParam(), echo};
    int cancelled = 0;
    world.client([&](co::Stream peer) -> co::Task<> {
        for (int i = 0; i < 2; ++i) cancelled += (co_await peer.recv(token)).error() == Errc::cancelled;
    });
    drive_for(world.loop, 50_ms);
    EXPECT_EQ(cancelled, 0);
    token.cancel();
    EXPECT_TRUE(world.done);
    EXPECT_EQ(cancelled, 2);
}

TEST_P(CoTest, ACancelledConnectLeavesNothingBehind) {
    co::Cancel token;
    Errc got = Errc::none;
    Served world{GetParam(), echo};
    auto dial = [](Served& served, co::Cancel& cancel, Errc& out) -> co::Task<> {
        out = (co_await co::connect(served.loop, served.where, cancel)).error().code();
    };
    co::spawn(dial(world, token, got), fail);
    token.cancel();
    EXPECT_EQ(got, Errc::cancelled);
    world.listener.close();
    EXPECT_EQ(world.loop.run_until_idle(), 0);
}

TEST_P(CoTest, ThePeersEndIsAnError) {
    Served world{GetParam(), [](co::Stream) -> co::Task<> { co_return; }};
    world.client([](co::Stream peer) -> co::Task<> { EXPECT_EQ((co_await peer.recv(co::within(10_s))).error().code(), Errc::end); });
    EXPECT_TRUE(world.finish());
}

TEST_P(CoTest, ASessionThatThrowsEndsItsConnectionOnly) {
    Served world{GetParam(), [](co::Stream peer) -> co::Task<> {
                     (void)co_await peer.recv();
                     throw std::runtime_error("planted");
                 }};
    world.client([](co::Stream peer) -> co::Task<> {
        (void)co_await peer.send("x");
        EXPECT_FALSE((co_await peer.recv(co::within(10_s))).ok());
    });
    EXPECT_TRUE(world.finish());
}

TEST_P(CoTest, TheEndOfTheLoopDestroysFramesWhereverTheyWait) {
    int frames = 0;
    {
        Served world{GetParam(), [&frames](co::Stream peer) -> co::Task<> {
                         const Mark mark(frames);
                         (void)co_await peer.recv();
                         if (Connection* c = peer.connection()) (void)co_await co::sleep(c->loop(), 100_s);
                     }};
        world.client([&](co::Stream peer) -> co::Task<> {
            const Mark mark(frames);
            (void)co_await peer.send("to sleep");
            EXPECT_FALSE((co_await peer.recv()).ok());
        });
        EXPECT_TRUE(drive(world.loop, [&] { return frames == 2; }));
        drive_for(world.loop, 50_ms);
        EXPECT_EQ(frames, 2);
    }
    EXPECT_EQ(frames, 0);
}

TEST_P(CoTest, ASecondReceiveAtATimeIsMisuse) {
    Served world{GetParam(), echo};
    co::Cancel token;
    world.client([&](co::Stream peer) -> co::Task<> {
        auto second = [](co::Stream& shared) -> co::Task<Errc> { co_return (co_await shared.recv()).error().code(); };
        Errc got = Errc::none;
        auto other = [](co::Task<Errc> task, Errc& out) -> co::Task<> { out = co_await task; };
        auto first = [](co::Stream& shared, co::Cancel& cancel) -> co::Task<> { (void)co_await shared.recv(cancel); };
        co::spawn(first(peer, token), fail);
        co::spawn(other(second(peer), got), fail);
        EXPECT_EQ(got, Errc::misuse);
        token.cancel();
        co_return;
    });
    EXPECT_TRUE(world.finish());
}

TEST_P(CoStreamTest, ReceivesExactlyAndConsumesNothingBefore) {
    Served world{GetParam(), echo};
    world.client([](co::Stream peer) -> co::Task<> {
        (void)co_await peer.send("12345");
        EXPECT_EQ((co_await peer.recv_exactly(8, co::within(50_ms))).error().code(), Errc::timed_out);
        (void)co_await peer.send("678");
        auto bytes = co_await peer.recv_exactly(8, co::within(10_s));
        EXPECT_TRUE(bytes.ok() && text_of(*bytes) == "12345678");
        EXPECT_EQ((co_await peer.recv_message()).error().code(), Errc::not_supported);
    });
    EXPECT_TRUE(world.finish());
}

TEST_P(CoStreamTest, OperationsAllocateNothing) {
    Served world{GetParam(), echo};
    std::size_t made = 1;
    world.client([&](co::Stream peer) -> co::Task<> {
        for (int i = 0; i < 300; ++i) {
            if (i == 100) made = news;
            (void)co_await peer.send("0123456789");
            (void)co_await peer.recv_exactly(10, co::within(10_s));
            (void)co_await peer.sent(co::within(10_s));
        }
        made = news - made;
    });
    EXPECT_TRUE(world.finish());
    EXPECT_EQ(made, 0u);
}

TEST_P(CoStreamTest, ReceivesUntilADelimiterHoweverTheBytesCome) {
    Served world{GetParam(), [](co::Stream peer) -> co::Task<> {
                     (void)co_await peer.send("one\r\ntwo\r");
                     Loop& loop = peer.connection()->loop();
                     (void)co_await co::sleep(loop, 10_ms);
                     (void)co_await peer.send("\nthree\rfour");
                     (void)co_await co::sleep(loop, 10_ms);
                     (void)co_await peer.send("\r\nrest");
                 }};
    world.client([](co::Stream peer) -> co::Task<> {
        std::string lines;
        EXPECT_EQ((co_await peer.recv_until("\r\n", 2)).error().code(), Errc::too_large);
        while (auto line = co_await peer.recv_until("\r\n", SIZE_MAX, co::within(10_s))) lines += text_of(*line) + "|";
        EXPECT_EQ(lines, "one\r\n|two\r\n|three\rfour\r\n|");
        EXPECT_EQ((co_await peer.recv_until("")).error().code(), Errc::misuse);
        auto rest = co_await peer.recv();  // what did not end in a delimiter is still there
        EXPECT_TRUE(rest.ok() && text_of(*rest) == "rest");
        EXPECT_EQ((co_await peer.recv_until("\n")).error().code(), Errc::end);
    });
    EXPECT_TRUE(world.finish());
}

TEST_P(CoStreamTest, ATimedOutReceiveIntoOrUntilConsumesNothing) {
    Served world{GetParam(), echo};
    world.client([](co::Stream peer) -> co::Task<> {
        Loop& loop = peer.connection()->loop();
        (void)co_await peer.send("12345");
        EXPECT_EQ((co_await peer.recv_until("\n", SIZE_MAX, co::within(30_ms))).error().code(), Errc::timed_out);
        EXPECT_EQ((co_await peer.recv_into(*loop.allocate(8), co::within(30_ms))).error().code(), Errc::timed_out);
        (void)co_await peer.send("678\n");
        auto block = co_await peer.recv_into(*loop.allocate(8), co::within(10_s));
        EXPECT_TRUE(block.ok() && std::string_view(reinterpret_cast<const char*>(block->data()), block->size()) == "12345678");
        auto line = co_await peer.recv_until("\n", SIZE_MAX, co::within(10_s));
        EXPECT_TRUE(line.ok() && text_of(*line) == "\n");
    });
    EXPECT_TRUE(world.finish());
}

TEST_P(CoStreamTest, ReceivesIntoTheCallersBlockAndLessAtTheEnd) {
    static const std::string sent = pattern(150'000);
    Served world{GetParam(), [](co::Stream peer) -> co::Task<> { (void)co_await peer.send(sent); }};
    world.client([](co::Stream peer) -> co::Task<> {
        std::string got;
        for (int i = 0; i < 2; ++i) {
            auto block = co_await peer.recv_into(*peer.connection()->loop().allocate(100'000), co::within(10_s));
            EXPECT_TRUE(block.ok());
            if (!block) co_return;
            EXPECT_EQ(block->size(), i == 0 ? 100'000u : 50'000u);
            got.append(reinterpret_cast<const char*>(block->data()), block->size());
        }
        EXPECT_EQ(got, sent);
        EXPECT_EQ((co_await peer.recv_into(*peer.connection()->loop().allocate(10))).error().code(), Errc::end);
    });
    EXPECT_TRUE(world.finish());
}

// Goal: a frame destroyed while it waits leaves nothing behind that a later event could find, whatever it waits for; what had
// come is there for the next.
TEST_P(CoTest, AFrameMayBeDestroyedAtEverySuspensionPoint) {
    using Point = co::Task<> (*)(co::Stream&, co::Cancel&);
    static constexpr Point points[] = {
        [](co::Stream& peer, co::Cancel&) -> co::Task<> { (void)co_await peer.recv(); },
        [](co::Stream& peer, co::Cancel& token) -> co::Task<> {
            (void)co_await peer.recv({co::within(100_s), token});
        },
        [](co::Stream& peer, co::Cancel&) -> co::Task<> { (void)co_await peer.recv_exactly(1000, co::within(100_s)); },
        [](co::Stream& peer, co::Cancel&) -> co::Task<> { (void)co_await peer.recv_until("\n", SIZE_MAX, co::within(100_s)); },
        [](co::Stream& peer, co::Cancel&) -> co::Task<> { (void)co_await peer.recv_message(co::within(100_s)); },
        [](co::Stream& peer, co::Cancel& token) -> co::Task<> { (void)co_await peer.recv_into(*peer.connection()->loop().allocate(1000), token); },
        [](co::Stream& peer, co::Cancel&) -> co::Task<> {
            (void)co_await co::connect(peer.connection()->loop(), "tcp://127.0.0.1:9", co::within(100_s));
            (void)co_await co::sleep(peer.connection()->loop(), 100_s);
        },
        [](co::Stream& peer, co::Cancel& token) -> co::Task<> { (void)co_await co::sleep(peer.connection()->loop(), 100_s, token); },
        [](co::Stream& peer, co::Cancel&) -> co::Task<> {
            for (;;) (void)co_await co::yield(peer.connection()->loop());
        },
        [](co::Stream& peer, co::Cancel& token) -> co::Task<> {
            const auto inner = [](co::Stream& on, co::Cancel& cancel) -> co::Task<> { (void)co_await on.recv(cancel); };
            const auto nap = [](Loop& loop) -> co::Task<> { (void)co_await co::sleep(loop, 100_s); };
            co_await co::when_all(inner(peer, token), nap(peer.connection()->loop()));
        },
    };
    for (const Point& point : points) {
        int frames = 0;
        co::Cancel token;
        bool echoed = false;
        Served world{GetParam(), echo};
        world.client([&](co::Stream peer) -> co::Task<> {
            const auto marked = [](Point at, co::Stream& on, co::Cancel& cancel, int& count) -> co::Task<> {
                const Mark mark(count);
                co_await at(on, cancel);
            };
            const auto nap = [](Loop& loop) -> co::Task<> { (void)co_await co::sleep(loop, 2_ms); };
            const auto won = co_await co::when_any(marked(point, peer, token, frames), nap(peer.connection()->loop()));
            EXPECT_EQ(frames, 0);
            token.cancel();
            const std::string text = pattern(300);
            (void)co_await peer.send(text);
            std::string got;
            while (got.size() < text.size()) {
                auto bytes = co_await peer.recv(co::within(10_s));
                if (!bytes) break;
                got += text_of(*bytes);
            }
            echoed = got == text;
            (void)won;
        });
        EXPECT_TRUE(world.finish());
        EXPECT_TRUE(echoed) << "at suspension point " << &point - points;
    }
}

// Goal: the same while sends wait for room and for the system.
TEST_P(CoTest, AFrameMayBeDestroyedWhileItsSendsWait) {
    int frames = 0;
    bool room_won = true;
    Served world{GetParam(), [](co::Stream peer) -> co::Task<> {
                     (void)co_await co::sleep(peer.connection()->loop(), 50_ms);
                     while (co_await peer.recv()) {}
                 }};
    world.client([&](co::Stream peer) -> co::Task<> {
        const auto flood = [](co::Stream& on, int& count) -> co::Task<> {
            const Mark mark(count);
            const std::string part = pattern(30'000);
            while (co_await on.send(part)) {}
        };
        const auto drain = [](co::Stream& on, int& count) -> co::Task<> {
            const Mark mark(count);
            (void)co_await co::sleep(on.connection()->loop(), 5_ms);
            (void)co_await on.sent();
            (void)co_await co::sleep(on.connection()->loop(), 100_s);
        };
        const auto nap = [](Loop& loop) -> co::Task<> { (void)co_await co::sleep(loop, 20_ms); };
        const auto first = co_await co::when_any(flood(peer, frames), drain(peer, frames), nap(peer.connection()->loop()));
        room_won = first.index != 2;
        EXPECT_EQ(frames, 0);
        EXPECT_TRUE((co_await peer.sent(co::within(10_s))).ok());
    });
    EXPECT_TRUE(world.finish());
    EXPECT_FALSE(room_won);
}

// -- remote memory, where a transport has it -------------------------------------------------------------------

TEST_P(CoTest, ReadsAndWritesWhatThePeerExposed) {
    if (!caps_of(GetParam()).rma) GTEST_SKIP() << GetParam().name << " has no remote memory";
    static RemoteRegion region;
    static Buffer memory;
    Served world{GetParam(), [](co::Stream peer) -> co::Task<> {
                     memory = *peer.connection()->loop().allocate(10'000);
                     fill_pattern(memory.bytes(), 1, 0);
                     region = *peer.connection()->expose(memory.share(), Access::read_write);
                     (void)co_await peer.send("exposed");
                     (void)co_await peer.recv();
                 }};
    world.client([](co::Stream peer) -> co::Task<> {
        Loop& loop = peer.connection()->loop();
        (void)co_await peer.recv();
        auto got = co_await peer.read(region, 1000, *loop.allocate(500), co::within(10_s));
        EXPECT_TRUE(got.ok());
        EXPECT_EQ(pattern_mismatch(got->bytes(), 1, 1000), 500u);
        auto from = loop.allocate(700);
        fill_pattern(from->bytes(), 2, 0);
        auto put = co_await peer.write(region, 2000, *std::move(from));
        EXPECT_TRUE(put.ok() && put->size() == 700);
        EXPECT_EQ(pattern_mismatch(memory.bytes().subspan(2000, 700), 2, 0), 700u);
        EXPECT_EQ((co_await peer.read(region, 9'900, *loop.allocate(500))).error().code(), Errc::misuse);
        // Several at a time, and one that nobody waits for any more.
        const auto read = [](co::Stream& on, Loop& l) -> co::Task<bool> { co_return (co_await on.read(region, 0, *l.allocate(100))).ok(); };
        auto [one, two] = co_await co::when_all(read(peer, loop), read(peer, loop));
        EXPECT_TRUE(one && two);
        co::Cancel cancelled;
        cancelled.cancel();
        EXPECT_EQ((co_await peer.read(region, 0, *loop.allocate(100), cancelled)).error().code(), Errc::cancelled);
        (void)co_await co::sleep(loop, 5_ms);
    });
    EXPECT_TRUE(world.finish());
    memory.reset();
}

TEST_P(CoTest, ChangesNumbersOfThePeerAndTells) {
    if (!caps_of(GetParam()).remote_atomics || !caps_of(GetParam()).remote_tells)
        GTEST_SKIP() << GetParam().name << " has neither atomics nor writes that tell";
    static RemoteRegion region;
    static Buffer memory;
    Served world{GetParam(), [](co::Stream peer) -> co::Task<> {
                     memory = *peer.connection()->loop().allocate(64);
                     std::memset(memory.data(), 0, 64);
                     region = *peer.connection()->expose(memory.share(), Access::read_write | Access::atomic);
                     (void)co_await peer.send("exposed");
                     (void)co_await peer.recv();
                 }};
    world.client([](co::Stream peer) -> co::Task<> {
        Loop& loop = peer.connection()->loop();
        (void)co_await peer.recv();
        const auto none = co_await peer.fetch_add(region, 8, 5);
        EXPECT_TRUE(none.ok() && *none == 0);
        const auto five = co_await peer.compare_swap(region, 8, 5, 9, co::within(10_s));
        EXPECT_TRUE(five.ok() && *five == 5);
        const auto nine = co_await peer.fetch_add(region, 8, 0);
        EXPECT_TRUE(nine.ok() && *nine == 9);
        EXPECT_EQ((co_await peer.fetch_add(region, 4, 1)).error().code(), Errc::misuse);
        const auto told = co_await peer.write_telling(region, 16, *loop.copy(std::string_view("told")), 7);
        EXPECT_TRUE(told.ok());
        EXPECT_EQ(std::memcmp(memory.data() + 16, "told", 4), 0);
        co::Cancel cancelled;
        cancelled.cancel();
        EXPECT_EQ((co_await peer.fetch_add(region, 8, 1, cancelled)).error().code(), Errc::cancelled);
        const auto ten = co_await peer.fetch_add(region, 8, 0);  // in order behind the one that nobody waits for
        EXPECT_TRUE(ten.ok() && *ten == 10);
    });
    EXPECT_TRUE(world.finish());
    memory.reset();
}

TEST_P(CoTest, RemoteOperationsWithoutRemoteMemoryAreErrors) {
    if (caps_of(GetParam()).rma) GTEST_SKIP() << GetParam().name << " has remote memory";
    Served world{GetParam(), echo};
    world.client([](co::Stream peer) -> co::Task<> {
        RemoteRegion region{1, 2, 1000};
        EXPECT_EQ((co_await peer.read(region, 0, *peer.connection()->loop().allocate(100))).error().code(), Errc::not_supported);
        EXPECT_EQ((co_await peer.fetch_add(region, 0, 1)).error().code(), Errc::not_supported);
    });
    EXPECT_TRUE(world.finish());
}

INSTANTIATE_TEST_SUITE_P(All, CoTest, connection_rows(), name_of_row);
INSTANTIATE_TEST_SUITE_P(All, CoStreamTest, stream_rows(), name_of_row);

// Goal: GCC 12 destroys braced temporaries in co_await expressions twice; operations and their options do not mind.
TEST(CoTaskTest, BracedOptionsAreNotDestroyedTwice) {
    co::Cancel token;
    Served world{rows[0], echo};
    world.client([&](co::Stream peer) -> co::Task<> {
        EXPECT_EQ((co_await peer.recv({co::within(5_ms), token})).error().code(), Errc::timed_out);
        EXPECT_EQ((co_await peer.recv(co::Until{co::within(5_ms), token})).error().code(), Errc::timed_out);
    });
    EXPECT_TRUE(world.finish());
}

}  // namespace
}  // namespace evpl::test
