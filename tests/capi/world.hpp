#pragma once

// A loop of the C interface that ends with the test, and waiting for something.

#include <gtest/gtest.h>

#include <string>

#include "evpl/evpl.h"
#include "support/patience.hpp"

struct World {
    evpl_loop* loop = nullptr;

    World() { EXPECT_EQ(evpl_loop_new(nullptr, &loop).code, EVPL_OK); }
    ~World() { EXPECT_EQ(evpl_loop_free(loop).code, EVPL_OK); }
    World(const World&) = delete;
    World& operator=(const World&) = delete;

    template <class Done>
    [[nodiscard]] bool until(Done done) {
        const evpl::test::Stopwatch watch;
        while (!done()) {
            if (watch.elapsed() > evpl::Duration::of_ns(15 * EVPL_S) * evpl::test::patience) return false;
            evpl_loop_run_once(loop, 10 * EVPL_MS);
        }
        return true;
    }
};

inline std::string text_of(evpl_text text) { return std::string(text.data, text.size); }
inline std::string text_of(evpl_error error) {
    char text[256];
    return std::string(text, evpl_error_text(error, text, sizeof text));
}
/// All that is queued, taken out.
inline std::string received(evpl_connection* peer) {
    evpl_chain chain = {};
    EXPECT_EQ(evpl_connection_recv(peer, SIZE_MAX, &chain).code, EVPL_OK);
    std::string bytes(evpl_chain_size(&chain), '\0');
    EXPECT_EQ(evpl_chain_copy_to(&chain, bytes.data(), bytes.size(), 0), bytes.size());
    evpl_chain_clear(&chain);
    return bytes;
}
