// Frames that end while they wait, at every operation and over every transport: what comes afterwards finds nobody, and no byte is lost.
#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "evpl/co.hpp"
#include "support/world.hpp"

namespace evpl::test {
namespace {

/// A coroutine that the test may destroy wherever it waits.
class Held {
public:
    struct promise_type : co::detail::Promise {
        Held get_return_object() noexcept {
            const auto frame = std::coroutine_handle<promise_type>::from_promise(*this);
            self = frame;
            return Held(frame);
        }
        std::suspend_never initial_suspend() const noexcept { return {}; }
        std::suspend_always final_suspend() const noexcept { return {}; }
        void return_void() const noexcept {}
        void unhandled_exception() const noexcept { ADD_FAILURE() << "the coroutine threw"; }
    };
    Held(Held&& other) noexcept : frame_(std::exchange(other.frame_, nullptr)) {}
    ~Held() {
        if (frame_) frame_.destroy();
    }
    bool done() const { return frame_.done(); }

private:
    explicit Held(std::coroutine_handle<promise_type> frame) noexcept : frame_(frame) {}
    std::coroutine_handle<promise_type> frame_;
};

/// Looks at its end that descriptors and memory are what they were before.
struct Checked {
    ~Checked() { baseline.expect_back(); }
    Baseline baseline;
};

/// Both ends of one connection. The streams outlive the coroutines that wait on them.
struct Ends : Checked {
    explicit Ends(const Row& row) : loop(World::quiet()) {
        const std::string url = fresh_url(row);
        auto made = co::serve(loop, url, [this](co::Stream peer) -> co::Task<> {
            server.emplace(std::move(peer));
            co_return;
        });
        EXPECT_TRUE(made.ok()) << loop.last_failure();
        if (!made) return;
        where = dial_url(url, made->url());
        listener = *std::move(made);
        const Held dialling = dial(*this);
        EXPECT_TRUE(drive(loop, [&] { return client && server; }));
    }
    static Held dial(Ends& ends) {
        auto made = co_await co::connect(ends.loop, ends.where, co::within(10_s));
        EXPECT_TRUE(made.ok());
        if (made) ends.client.emplace(*std::move(made));
    }
    bool ok() const { return client && server; }

    /// Until nothing more fits between the two, for longer than an acknowledgement may be put off (40 ms): what was sent by reference waits for that.
    void fill() {
        const std::string text(4096, 'x');
        const auto has_room = [&] { return client->connection() != nullptr && client->connection()->send_room() > 0; };
        for (std::size_t before = SIZE_MAX; before != sent || has_room(); drive_for(loop, 60_ms)) {
            before = sent;
            for (; has_room(); sent += text.size()) (void)client->send(text);
        }
    }
    /// The server reads so many bytes; false when it cannot.
    bool read(std::size_t bytes) {
        std::size_t got = 0;
        const Held reading = read_all(*server, bytes, got);
        return drive(loop, [&] { return reading.done(); }) && got == bytes;
    }
    static Held read_all(co::Stream& from, std::size_t bytes, std::size_t& got) {
        while (got < bytes) {
            auto some = co_await from.recv(co::within(10_s));
            if (!some) co_return;
            got += some->size();
        }
    }

    std::string where;
    std::size_t sent = 0;
    std::optional<co::Stream> client, server;
    Loop loop;
    Listener listener;
};

/// How far the coroutine under test has come: nothing may go on after its frame is gone.
struct Trace {
    int frames = 0;
    int resumed = 0;
};
struct Inside {
    explicit Inside(Trace& into) : trace(&into) { ++trace->frames; }
    Inside(const Inside&) = delete;
    ~Inside() { --trace->frames; }
    Trace* trace;
};

/// Runs `wait` until it is suspended, destroys its frame there, and looks that it was.
template <class F>
void destroy_waiting(F wait) {
    Trace trace;
    {
        const Held held = wait(trace);
        EXPECT_FALSE(held.done());
        EXPECT_GE(trace.frames, 1);
    }
    EXPECT_EQ(trace.frames, 0);
    EXPECT_EQ(trace.resumed, 0);
}

class CoDestroyTest : public TransportTest {
protected:
    /// After a receive was destroyed: what comes is all there for the next one.
    static void expect_nothing_consumed(Ends& ends) {
        (void)ends.client->send("after");
        EXPECT_TRUE(ends.read(5));
    }
};
class CoDestroyMessageTest : public CoDestroyTest {};

TEST_P(CoDestroyTest, AReceiveThatIsDestroyedConsumesNothing) {
    Ends ends{GetParam()};
    ASSERT_TRUE(ends.ok());
    destroy_waiting([&](Trace& trace) {
        return [](co::Stream& from, Trace& into) -> Held {
            const Inside inside(into);
            (void)co_await from.recv();
            ++into.resumed;
        }(*ends.server, trace);
    });
    expect_nothing_consumed(ends);
}

TEST_P(CoDestroyTest, AReceiveOfExactlySoMuchThatIsDestroyedConsumesNothing) {
    Ends ends{GetParam()};
    ASSERT_TRUE(ends.ok());
    destroy_waiting([&](Trace& trace) {
        return [](co::Stream& from, Trace& into) -> Held {
            const Inside inside(into);
            (void)co_await from.recv_exactly(5);
            ++into.resumed;
        }(*ends.server, trace);
    });
    expect_nothing_consumed(ends);
}

TEST_P(CoDestroyMessageTest, AReceiveThatIsDestroyedConsumesNothing) {
    Ends ends{GetParam()};
    ASSERT_TRUE(ends.ok());
    destroy_waiting([&](Trace& trace) {
        return [](co::Stream& from, Trace& into) -> Held {
            const Inside inside(into);
            (void)co_await from.recv_message();
            ++into.resumed;
        }(*ends.server, trace);
    });
    expect_nothing_consumed(ends);
}

// Goal: neither the timer nor the token of an operation reaches a frame that is gone, and the token is good for others.
TEST_P(CoDestroyTest, ADestroyedFrameHearsOfNeitherItsDeadlineNorItsToken) {
    co::Cancel token;
    Ends ends{GetParam()};
    ASSERT_TRUE(ends.ok());
    destroy_waiting([&](Trace& trace) {
        return [](co::Stream& from, co::Cancel& cancel, Trace& into) -> Held {
            const Inside inside(into);
            (void)co_await from.recv({co::within(10_ms), cancel});
            ++into.resumed;
        }(*ends.server, token, trace);
    });
    bool later = false;
    auto timer = ends.loop.after(20_ms, [&] { later = true; });
    ASSERT_TRUE(timer.ok());
    EXPECT_TRUE(drive(ends.loop, [&] { return later; }));
    token.cancel();
    expect_nothing_consumed(ends);
}

TEST_P(CoDestroyTest, ASendThatIsDestroyedLeavesItsBytesOnTheirWay) {
    Ends ends{GetParam()};
    ASSERT_TRUE(ends.ok());
    ends.fill();
    destroy_waiting([&](Trace& trace) {
        return [](co::Stream& to, Trace& into) -> Held {
            const Inside inside(into);
            (void)co_await to.send("taken at once");
            ++into.resumed;
        }(*ends.client, trace);
    });
    EXPECT_TRUE(ends.read(ends.sent + 13));
}

TEST_P(CoDestroyTest, AWaitForTheOutboxThatIsDestroyedLeavesItAsItIs) {
    Ends ends{GetParam()};
    ASSERT_TRUE(ends.ok());
    ends.fill();
    destroy_waiting([&](Trace& trace) {
        return [](co::Stream& to, Trace& into) -> Held {
            const Inside inside(into);
            (void)co_await to.sent();
            ++into.resumed;
        }(*ends.client, trace);
    });
    EXPECT_TRUE(ends.read(ends.sent));
}

// Goal: a whole stack of coroutines goes, innermost frame first, and the streams in it take their connection along.
TEST_P(CoDestroyTest, AStackOfFramesGoesWithItsStreams) {
    Ends ends{GetParam()};
    ASSERT_TRUE(ends.ok());
    destroy_waiting([&](Trace& trace) {
        static constexpr auto inner = [](co::Stream from, Trace& into) -> co::Task<> {
            const Inside inside(into);
            (void)co_await from.recv();
            ++into.resumed;
        };
        return [](co::Stream from, Trace& into) -> Held {
            const Inside inside(into);
            co_await inner(std::move(from), into);
            ++into.resumed;
        }(*std::move(ends.client), trace);
    });
    ends.client.reset();
    Errc heard = Errc::none;
    const Held peer = [](co::Stream& from, Errc& out) -> Held { out = (co_await from.recv(co::within(10_s))).error().code(); }(*ends.server, heard);
    EXPECT_TRUE(drive(ends.loop, [&] { return peer.done(); }));
    EXPECT_EQ(heard, Errc::end);
}

TEST_P(CoDestroyTest, AConnectThatIsDestroyedLeavesNothingBehind) {
    Ends ends{GetParam()};
    ASSERT_TRUE(ends.ok());
    destroy_waiting([&](Trace& trace) {
        return [](Ends& of, Trace& into) -> Held {
            const Inside inside(into);
            (void)co_await co::connect(of.loop, of.where);
            ++into.resumed;
        }(ends, trace);
    });
    ends.listener.close();
    ends.client.reset();
    ends.server.reset();
    EXPECT_EQ(ends.loop.run_until_idle(), 0);
}

INSTANTIATE_TEST_SUITE_P(All, CoDestroyTest, connection_rows(), name_of_row);
INSTANTIATE_TEST_SUITE_P(All, CoDestroyMessageTest, message_rows(), name_of_row);

TEST(CoDestroySleepTest, ASleepThatIsDestroyedDoesNotRing) {
    Loop loop(World::quiet());
    destroy_waiting([&](Trace& trace) {
        return [](Loop& on, Trace& into) -> Held {
            const Inside inside(into);
            (void)co_await co::sleep(on, 5_ms);
            ++into.resumed;
        }(loop, trace);
    });
    EXPECT_EQ(loop.run_until_idle(), 0);
}

/// Roughly where the stack is.
[[gnu::noinline]] std::uintptr_t stack_depth() { return reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0)); }

// Goal: a million operations that end at once, and many that end later, leave the stack where it was.
TEST(CoStackTest, OperationsThatEndDoNotGrowTheStack) {
    Ends ends{rows[0]};
    ASSERT_TRUE(ends.ok());
    std::uintptr_t lowest = UINTPTR_MAX, highest = 0;
    const auto look = [&] {
        lowest = std::min(lowest, stack_depth());
        highest = std::max(highest, stack_depth());
    };
    const Held working = [](Ends& of, auto see) -> Held {
        static constexpr auto one = [](co::Stream& on) -> co::Task<> { (void)co_await on.sent(); };
        (void)co_await co::sleep(of.loop, 1_ms);  // from here on the loop is below
        see();
        for (int i = 0; i < 1'000'000; ++i) (void)co_await of.client->sent();
        see();
        for (int i = 0; i < 100'000; ++i) co_await one(*of.client);
        see();
        for (int i = 0; i < 2'000; ++i) {
            (void)of.client->send("x");
            (void)co_await of.server->recv_exactly(1);
            see();
        }
    }(ends, look);
    EXPECT_TRUE(drive(ends.loop, [&] { return working.done(); }));
    EXPECT_LT(highest - lowest, 4096u);
}

// Goal: the end of a loop takes coroutines that sleep, innermost frame first.
TEST(CoDestroySleepTest, TheEndOfTheLoopDestroysTheInnermostFrameFirst) {
    struct Note {
        ~Note() { into.push_back(name); }
        std::vector<int>& into;
        int name;
    };
    std::vector<int> order;
    {
        Loop loop(World::quiet());
        static constexpr auto sleeper = [](Loop& on, std::vector<int>& into) -> co::Task<> {
            const Note note{into, 3};
            (void)co_await co::sleep(on, 100_s);
        };
        static constexpr auto middle = [](Loop& on, std::vector<int>& into) -> co::Task<> {
            const Note note{into, 2};
            co_await sleeper(on, into);
        };
        static constexpr auto outer = [](Loop& on, std::vector<int>& into) -> co::Task<> {
            const Note note{into, 1};
            co_await middle(on, into);
        };
        co::spawn(outer(loop, order), [](std::exception_ptr) { ADD_FAILURE() << "nobody threw"; });
        drive_for(loop, 5_ms);
        EXPECT_TRUE(order.empty());
    }
    EXPECT_EQ(order, (std::vector<int>{3, 2, 1}));
}

}  // namespace
}  // namespace evpl::test
