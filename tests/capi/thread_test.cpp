// Loops, timers, watches, posts, threads, pools and parcels through the C interface.
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cstring>

#include "capi/world.hpp"

namespace {

void count(void* counter) { ++*static_cast<std::atomic<int>*>(counter); }

TEST(CapiLoop, TimersDefersAndWatches) {
    std::atomic<int> once{0}, often{0}, never{0}, deferred{0}, readable{0};
    World world;
    evpl_timer ticks = {}, dropped = {};
    const std::int64_t began = evpl_loop_now_precise(world.loop);
    ASSERT_EQ(evpl_after(world.loop, 5 * EVPL_MS, count, &once, nullptr).code, EVPL_OK);
    ASSERT_EQ(evpl_every(world.loop, EVPL_MS, count, &often, &ticks).code, EVPL_OK);
    ASSERT_EQ(evpl_after(world.loop, EVPL_MS, count, &never, &dropped).code, EVPL_OK);
    EXPECT_TRUE(evpl_timer_pending(&dropped));
    evpl_timer_cancel(&dropped);
    EXPECT_FALSE(evpl_timer_pending(&dropped));
    ASSERT_EQ(evpl_defer(world.loop, count, &deferred).code, EVPL_OK);
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    evpl_watch watch = {};
    ASSERT_EQ(evpl_watch_fd(
                  world.loop, ends[0], EVPL_READ,
                  [](void* c, std::uint8_t what) {
                      EXPECT_EQ(what & EVPL_READ, EVPL_READ);
                      count(c);
                  },
                  &readable, &watch)
                  .code,
              EVPL_OK);
    ASSERT_EQ(write(ends[1], "x", 1), 1);
    EXPECT_TRUE(world.until([&] { return once == 1 && often >= 2 && readable >= 1; }));
    EXPECT_GE(evpl_loop_now(world.loop) - began, 5 * EVPL_MS);
    EXPECT_EQ(never, 0);
    EXPECT_EQ(deferred, 1);
    evpl_watch_cancel(&watch);
    evpl_timer_cancel(&ticks);
    close(ends[0]), close(ends[1]);
    int fd = -1;
    EXPECT_EQ(evpl_loop_native_fd(world.loop, &fd).code, EVPL_OK);
    EXPECT_GE(fd, 0);
}

TEST(CapiLoop, HooksRunAtTheirPlaces) {
    std::string seen;
    World world;
    ASSERT_EQ(evpl_loop_on_turn_end(
                  world.loop, [](void* s, evpl_loop*) { *static_cast<std::string*>(s) += 'e'; }, &seen)
                  .code,
              EVPL_OK);
    ASSERT_EQ(evpl_loop_on_before_wait(
                  world.loop, [](void* s, evpl_loop*) { *static_cast<std::string*>(s) += 'b'; }, &seen)
                  .code,
              EVPL_OK);
    ASSERT_EQ(evpl_loop_on_after_wait(
                  world.loop, [](void* s, evpl_loop*) { *static_cast<std::string*>(s) += 'a'; }, &seen)
                  .code,
              EVPL_OK);
    EXPECT_TRUE(world.until([&] { return seen.find("ba") != std::string::npos && seen.find('e') != std::string::npos; })) << seen;
    evpl_loop_on_turn_end(world.loop, nullptr, nullptr);
    evpl_loop_on_before_wait(world.loop, nullptr, nullptr);
    evpl_loop_on_after_wait(world.loop, nullptr, nullptr);
}

TEST(CapiLoop, APostRunsOrIsDropped) {
    std::atomic<int> ran{0}, dropped{0};
    evpl_loop_ref ref;
    {
        World world;
        ref = evpl_loop_get_ref(world.loop);
        ASSERT_EQ(evpl_post(ref, count, &ran, nullptr).code, EVPL_OK);
        EXPECT_TRUE(world.until([&] { return ran == 1; }));
    }
    struct Both {
        std::atomic<int>&ran, &dropped;
    } both{ran, dropped};
    EXPECT_EQ(evpl_post(
                  ref, [](void* b) { ++static_cast<Both*>(b)->ran; }, &both, [](void* b) { ++static_cast<Both*>(b)->dropped; })
                  .code,
              EVPL_LOOP_ENDED);
    EXPECT_EQ(ran, 1);
    EXPECT_EQ(dropped, 1);
}

TEST(CapiLoop, TheLogSinkHearsAndCanBeSilenced) {
    static std::atomic<int> lines;
    lines = 0;
    const evpl_log_sink sink = [](void*, std::uint8_t, evpl_text line) { lines += line.size > 0; };
    ASSERT_EQ(evpl_set_log(sink, nullptr, EVPL_LOG_DEBUG).code, EVPL_OK);
    const evpl_handler none = {sizeof none};
    {
        World world;
        evpl_listener* listener;
        ASSERT_EQ(evpl_listen(world.loop, "inproc://capi-log", &none, nullptr, &listener).code, EVPL_OK);
        evpl_listener_free(listener);
    }
    EXPECT_GT(lines, 0);
    ASSERT_EQ(evpl_set_log(nullptr, nullptr, 0).code, EVPL_OK);
}

TEST(CapiLoop, TransportsAreKnownByName) {
    bool tcp = false;
    ASSERT_GT(evpl_transport_count(), 3u);
    for (std::size_t i = 0; i < evpl_transport_count(); ++i) {
        evpl_transport_info info = {};
        info.size_bytes = sizeof info;
        ASSERT_EQ(evpl_transport_get(i, &info).code, EVPL_OK);
        tcp |= text_of(info.scheme) == "tcp" && info.present;
    }
    EXPECT_TRUE(tcp);
    evpl_endpoint* endpoint;
    char why[200];
    ASSERT_EQ(evpl_endpoint_parse("tcp://host:12?a=b", why, sizeof why, &endpoint).code, EVPL_OK);
    EXPECT_EQ(text_of(evpl_endpoint_scheme(endpoint)) + text_of(evpl_endpoint_host(endpoint)) + text_of(evpl_endpoint_option(endpoint, "a")), "tcphostb");
    EXPECT_EQ(evpl_endpoint_port(endpoint), 12);
    evpl_endpoint_free(endpoint);
    EXPECT_EQ(evpl_endpoint_parse("tcp:/", why, sizeof why, &endpoint).code, EVPL_BAD_ENDPOINT);
    EXPECT_GT(std::strlen(why), 0u);
}

/// A buffer on its way from a loop to a thread and back.
struct Journey {
    evpl_parcel parcel = {};
    evpl_loop_ref home = {};
    evpl_loop* there = nullptr;
    std::atomic<bool> back{false};
};

TEST(CapiThread, ParcelsTravelBetweenThreads) {
    World world;
    evpl_thread* thread;
    evpl_thread_options options = {};
    options.size_bytes = sizeof options;
    options.name = "capi";
    ASSERT_EQ(evpl_thread_start(&options, &thread).code, EVPL_OK);
    Journey journey;
    journey.home = evpl_loop_get_ref(world.loop);
    journey.there = evpl_thread_loop(thread);
    evpl_buffer buffer = {};
    ASSERT_EQ(evpl_copy(world.loop, "hello", 5, &buffer).code, EVPL_OK);
    ASSERT_EQ(evpl_buffer_pack(&buffer, &journey.parcel).code, EVPL_OK);
    EXPECT_EQ(evpl_buffer_size(&buffer), 0u);
    EXPECT_EQ(evpl_parcel_size(&journey.parcel), 5u);
    ASSERT_EQ(evpl_post(
                  evpl_loop_get_ref(journey.there),
                  [](void* j) {
                      auto& trip = *static_cast<Journey*>(j);
                      evpl_buffer here = {};
                      ASSERT_EQ(evpl_parcel_open(&trip.parcel, trip.there, &here).code, EVPL_OK);
                      static_cast<char*>(evpl_buffer_data(&here))[0] = 'j';
                      ASSERT_EQ(evpl_buffer_pack(&here, &trip.parcel).code, EVPL_OK);
                      evpl_post(
                          trip.home, [](void* t) { static_cast<Journey*>(t)->back = true; }, j, nullptr);
                  },
                  &journey, nullptr)
                  .code,
              EVPL_OK);
    ASSERT_TRUE(world.until([&] { return journey.back.load(); }));
    ASSERT_EQ(evpl_parcel_open(&journey.parcel, world.loop, &buffer).code, EVPL_OK);
    EXPECT_EQ(std::memcmp(evpl_buffer_data(&buffer), "jello", 5), 0);
    evpl_buffer_release(&buffer);
    EXPECT_EQ(evpl_thread_free(thread).code, EVPL_OK);
}

TEST(CapiThread, RunWaitsAndAThreadDoesNotWaitForItself) {
    evpl_thread* thread;
    ASSERT_EQ(evpl_thread_start(nullptr, &thread).code, EVPL_OK);
    struct Seen {
        evpl_thread* thread;
        std::uint16_t free = 0, join = 0, run = 0;
    } seen{thread};
    ASSERT_EQ(evpl_thread_run(
                  thread,
                  [](void* s) {
                      auto& me = *static_cast<Seen*>(s);
                      me.free = evpl_thread_free(me.thread).code;
                      me.join = evpl_thread_join(me.thread).code;
                      me.run = evpl_thread_run(
                                   me.thread, [](void*) {}, nullptr)
                                   .code;
                  },
                  &seen)
                  .code,
              EVPL_OK);
    EXPECT_EQ(seen.free, EVPL_MISUSE);
    EXPECT_EQ(seen.join, EVPL_MISUSE);
    EXPECT_EQ(seen.run, EVPL_MISUSE);
    EXPECT_EQ(evpl_thread_stop(thread, 0).code, EVPL_OK);
    EXPECT_EQ(evpl_thread_join(thread).code, EVPL_OK);
    EXPECT_EQ(evpl_thread_run(
                  thread, [](void*) {}, nullptr)
                  .code,
              EVPL_LOOP_ENDED);
    EXPECT_EQ(evpl_thread_free(thread).code, EVPL_OK);
}

struct PoolState {
    std::atomic<int> made{0}, destroyed{0}, served{0}, dropped{0};
    evpl_local* local = nullptr;
};
PoolState pool_state;

struct Answer {
    std::string bytes;
    bool closed = false;
};

TEST(CapiPool, ServesOnSeveralThreadsWithStatePerThread) {
    evpl_pool_options options = {};
    options.size_bytes = sizeof options;
    options.threads = 3;
    evpl_pool* pool;
    ASSERT_EQ(evpl_pool_start(&options, &pool).code, EVPL_OK);
    ASSERT_EQ(evpl_pool_size(pool), 3u);
    EXPECT_EQ(evpl_pool_loop(pool, 3), nullptr);
    EXPECT_EQ(evpl_loop_free(evpl_pool_loop(pool, 0)).code, EVPL_MISUSE);
    ASSERT_EQ(evpl_pool_local(
                  pool, [](void*, evpl_loop*) -> void* { return ++pool_state.made, new std::string("mine"); }, nullptr,
                  [](void* object) { ++pool_state.destroyed, delete static_cast<std::string*>(object); }, &pool_state.local)
                  .code,
              EVPL_OK);
    EXPECT_EQ(pool_state.made, 3);
    World world;
    EXPECT_EQ(evpl_local_of(pool_state.local, world.loop), nullptr) << "a loop of nobody's pool";
    evpl_handler handler = {sizeof handler};
    handler.on_recv = [](void*, evpl_connection* peer) {
        auto* mine = static_cast<std::string*>(evpl_local_of(pool_state.local, evpl_connection_loop(peer)));
        ++pool_state.served;
        received(peer);
        evpl_connection_send_bytes(peer, mine->data(), mine->size());
    };
    evpl_factory factory = {sizeof factory};
    factory.state_bytes = 8;
    factory.drop = [](void*) { ++pool_state.dropped; };
    evpl_pool_listener* listener;
    ASSERT_EQ(evpl_pool_listen(pool, "tcp://127.0.0.1:0", &handler, &factory, nullptr, EVPL_SPREAD_AUTOMATIC, &listener).code, EVPL_OK);
    EXPECT_GT(evpl_pool_listener_port(listener), 0);
    const std::string url = text_of(evpl_pool_listener_url(listener));
    evpl_pool_listener* second;
    EXPECT_EQ(evpl_pool_listen(pool, url.c_str(), &handler, nullptr, nullptr, 0, &second).code, EVPL_ADDRESS_IN_USE);
    EXPECT_NE(text_of(evpl_pool_last_failure(pool)), "");
    evpl_handler client = {sizeof client};
    client.on_recv = [](void* self, evpl_connection* peer) {
        static_cast<Answer*>(self)->bytes += received(peer);
        evpl_connection_close(peer, {});
    };
    client.on_close = [](void* self, evpl_connection*, evpl_error) { static_cast<Answer*>(self)->closed = true; };
    Answer answers[8];
    for (Answer& one : answers) {
        evpl_connection_ref ref;
        ASSERT_EQ(evpl_connect(world.loop, url.c_str(), &client, &one, 5 * EVPL_S, &ref).code, EVPL_OK);
        evpl_connection_send_bytes(evpl_connection_get(ref), "?", 1);
    }
    for (Answer& one : answers) {
        ASSERT_TRUE(world.until([&] { return one.closed; }));
        EXPECT_EQ(one.bytes, "mine");
    }
    EXPECT_EQ(evpl_pool_stop(pool, EVPL_S).code, EVPL_OK);
    EXPECT_EQ(evpl_pool_stop(pool, 0).code, EVPL_OK);
    EXPECT_EQ(pool_state.destroyed, 3);
    EXPECT_EQ(pool_state.dropped, 1) << "once, though every thread had a copy";
    evpl_local* late;
    EXPECT_EQ(evpl_pool_local(
                  pool, [](void*, evpl_loop*) -> void* { return nullptr; }, nullptr, nullptr, &late)
                  .code,
              EVPL_MISUSE);
    EXPECT_EQ(evpl_pool_free(pool).code, EVPL_OK);
    EXPECT_EQ(evpl_pool_free(pool).code, EVPL_MISUSE);
    EXPECT_EQ(evpl_pool_listener_free(listener).code, EVPL_MISUSE) << "it went with its pool";
}

}  // namespace
