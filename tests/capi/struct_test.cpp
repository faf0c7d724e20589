// Structs that begin with their size: programs older and newer than the library.
#include <gtest/gtest.h>

#include <cstddef>
#include <cstring>

#include "capi/world.hpp"

namespace {

struct Counts {
    int opened = 0, received = 0, closed = 0;
};
void count_open(void* self, evpl_connection*) { ++static_cast<Counts*>(self)->opened; }
void count_recv(void* self, evpl_connection* peer) { received(peer), ++static_cast<Counts*>(self)->received; }
void count_close(void* self, evpl_connection*, evpl_error) { ++static_cast<Counts*>(self)->closed; }

// Goal: a table that ends after on_recv is used so far and no further, whatever lies behind it.
TEST(CapiStruct, AShortHandlerTableHasNoLaterEvents) {
    Counts counts;
    World world;
    evpl_handler old;
    std::memset(static_cast<void*>(&old), 0xff, sizeof old);  // poison: calling one of these would crash
    old.size_bytes = offsetof(evpl_handler, on_writable);
    old.on_open = count_open;
    old.on_recv = count_recv;
    evpl_handler now = {sizeof now};
    now.on_close = count_close;
    evpl_listener* listener;
    ASSERT_EQ(evpl_listen(world.loop, "inproc://capi-short", &old, &counts, &listener).code, EVPL_OK);
    evpl_connection_ref ref;
    ASSERT_EQ(evpl_connect(world.loop, "inproc://capi-short", &now, &counts, 0, &ref).code, EVPL_OK);
    evpl_connection_send_bytes(evpl_connection_get(ref), "x", 1);
    ASSERT_TRUE(world.until([&] { return counts.received > 0; }));
    evpl_connection_close(evpl_connection_get(ref), {});
    ASSERT_TRUE(world.until([&] { return counts.closed > 0; }));
    EXPECT_EQ(counts.opened, 1);
    evpl_listener_free(listener);
}

TEST(CapiStruct, ALongHandlerTableIsReadAsFarAsKnown) {
    Counts counts;
    World world;
    struct Newer {
        evpl_handler known;
        void* later[4];
    } newer = {};
    std::memset(static_cast<void*>(newer.later), 0xff, sizeof newer.later);
    newer.known.size_bytes = sizeof newer;
    newer.known.on_open = count_open;
    evpl_listener* listener;
    ASSERT_EQ(evpl_listen(world.loop, "inproc://capi-long", &newer.known, &counts, &listener).code, EVPL_OK);
    std::memset(static_cast<void*>(&newer), 0xff, sizeof newer);  // the table was copied
    const evpl_handler none = {sizeof none};
    ASSERT_EQ(evpl_connect(world.loop, "inproc://capi-long", &none, nullptr, 0, nullptr).code, EVPL_OK);
    EXPECT_TRUE(world.until([&] { return counts.opened > 0; }));
    evpl_listener_free(listener);
}

TEST(CapiStruct, OptionsBeyondTheSizeAreDefaults) {
    evpl_loop_options old;
    std::memset(static_cast<void*>(&old), 0xff, sizeof old);
    old.size_bytes = offsetof(evpl_loop_options, spin_ns);
    old.mode = EVPL_EVENT;
    evpl_loop* loop;
    ASSERT_EQ(evpl_loop_new(&old, &loop).code, EVPL_OK);
    EXPECT_EQ(evpl_loop_free(loop).code, EVPL_OK);
}

TEST(CapiStruct, MetricsFillAsMuchAsTheProgramKnows) {
    World world;
    evpl_defer(
        world.loop, [](void*) {}, nullptr);
    evpl_loop_run_until_idle(world.loop);
    evpl_loop_metrics metrics;
    std::memset(&metrics, 0xff, sizeof metrics);
    metrics.size_bytes = offsetof(evpl_loop_metrics, empty_polls);
    ASSERT_EQ(evpl_loop_get_metrics(world.loop, &metrics).code, EVPL_OK);
    EXPECT_GT(metrics.turns, 0u);
    EXPECT_LT(metrics.turns, UINT64_MAX);
    EXPECT_EQ(metrics.empty_polls, UINT64_MAX) << "nothing behind the size is written";
    struct Newer {
        evpl_loop_metrics known;
        std::uint64_t later;
    } newer;
    std::memset(&newer, 0xff, sizeof newer);
    newer.known.size_bytes = sizeof newer;
    ASSERT_EQ(evpl_loop_get_metrics(world.loop, &newer.known).code, EVPL_OK);
    EXPECT_EQ(newer.later, 0u);
    newer.known.size_bytes = 4;
    EXPECT_EQ(evpl_loop_get_metrics(world.loop, &newer.known).code, EVPL_MISUSE);
}

}  // namespace
