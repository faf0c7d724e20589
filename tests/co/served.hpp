#pragma once

// What the tests of coroutines share: an echo session, a loop that serves one, and marks that count frames.

#include "evpl/co.hpp"
#include "support/world.hpp"

extern thread_local std::size_t news;  // calls of operator new on this thread

namespace evpl::test {

/// Counts the frames it lives in.
struct Mark {
    explicit Mark(int& counter) : count(&counter) { ++*count; }
    Mark(const Mark&) = delete;
    ~Mark() { --*count; }
    int* count;
};

inline co::Task<> echo(co::Stream peer) {
    while (auto bytes = co_await peer.recv())
        if (!co_await peer.send(*std::move(bytes))) break;
}

inline void fail(std::exception_ptr) { ADD_FAILURE() << "the coroutine threw"; }

/// A loop that serves `session`; what the client coroutines use is declared before it.
struct Served {
    template <class F>
    Served(const Row& row, F session) : loop(World::quiet()) {
        const std::string url = fresh_url(row);
        auto made = co::serve(loop, url, session);
        EXPECT_TRUE(made.ok()) << loop.last_failure();
        if (!made) return;
        where = dial_url(url, made->url());
        listener = *std::move(made);
    }
    template <class F>
    void client(F body) {
        co::spawn(run(*this, body), fail);
    }
    template <class F>
    static co::Task<> run(Served& self, F body) {
        auto peer = co_await co::connect(self.loop, self.where, co::within(10_s));
        EXPECT_TRUE(peer.ok());
        if (peer) co_await body(*std::move(peer));
        self.done = true;
    }
    bool finish() {
        return drive(loop, [&] { return done; });
    }
    bool done = false;
    std::string where;
    Loop loop;
    Listener listener;
};

}  // namespace evpl::test
