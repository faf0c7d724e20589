// Connections, datagrams and remote memory through the C interface: every event, errors, messages.
#include <gtest/gtest.h>

#include <cstring>

#include "capi/world.hpp"

namespace {

struct Side {
    std::string bytes, events;
    evpl_error why = {};
    bool answer = false;
    evpl_buffer completed = {};
    evpl_error completion = {};
    std::uint64_t value = 0;
    evpl_connection* peer = nullptr;
};
Side& side(void* self) { return *static_cast<Side*>(self); }

evpl_handler every_event() {
    evpl_handler h = {sizeof h};
    h.on_open = [](void* s, evpl_connection* peer) { side(s).events += "open ", side(s).peer = peer; };
    h.on_recv = [](void* s, evpl_connection* peer) {
        const std::string got = received(peer);
        side(s).bytes += got;
        if (side(s).answer) evpl_connection_send_bytes(peer, got.data(), got.size());
    };
    h.on_writable = [](void* s, evpl_connection*) { side(s).events += "writable "; };
    h.on_sent = [](void* s, evpl_connection*, std::size_t) {
        if (side(s).events.find("sent") == std::string::npos) side(s).events += "sent ";
    };
    h.on_end = [](void* s, evpl_connection* peer) { side(s).events += "end ", evpl_connection_shutdown(peer, 0); };
    h.on_completed = [](void* s, evpl_connection*, evpl_completion* done) {
        side(s).events += "completed ", side(s).completion = evpl_completion_error(done), side(s).value = evpl_completion_value(done);
        EXPECT_EQ(evpl_completion_take(done, &side(s).completed).code, EVPL_OK);
    };
    h.on_written = [](void* s, evpl_connection*, std::uint32_t word) { side(s).events += "written" + std::to_string(word) + " "; };
    h.on_close = [](void* s, evpl_connection*, evpl_error why) { side(s).events += "close ", side(s).why = why, side(s).peer = nullptr; };
    return h;
}

bool has(const Side& s, const char* event) { return s.events.find(event) != std::string::npos; }

struct Sides {
    Side server, client;
};
/// The loop goes first: its end still tells both sides.
struct Pair : Sides, World {
    evpl_listener* listener = nullptr;
    evpl_connection_ref ref = {};

    void open(const char* url) {
        const evpl_handler handler = every_event();
        ASSERT_EQ(evpl_listen(loop, url, &handler, &server, &listener).code, EVPL_OK);
        const std::string bound = text_of(evpl_listener_url(listener));
        ASSERT_EQ(evpl_connect(loop, bound.c_str(), &handler, &client, 5 * EVPL_S, &ref).code, EVPL_OK);
        ASSERT_TRUE(until([&] { return client.peer != nullptr && server.peer != nullptr; }));
        ASSERT_EQ(evpl_connection_get(ref), client.peer);
    }
    ~Pair() { evpl_listener_free(listener); }
};

TEST(CapiConnection, EveryEventOfAStreamComes) {
    Pair pair;
    pair.open("tcp://127.0.0.1:0");
    EXPECT_EQ(text_of(evpl_connection_transport(pair.client.peer)), "tcp");
    EXPECT_EQ(evpl_connection_loop(pair.client.peer), pair.loop);
    EXPECT_EQ(evpl_connection_remote_address(pair.client.peer).port, evpl_listener_port(pair.listener));
    EXPECT_GE(evpl_connection_native_fd(pair.client.peer), 0);
    pair.server.answer = true;
    const std::string data(3u << 20, 'x');  // above the high-water mark
    EXPECT_EQ(evpl_connection_send_bytes(pair.client.peer, data.data(), data.size()).state, EVPL_PAUSE);
    EXPECT_TRUE(pair.until([&] { return pair.client.bytes.size() == data.size(); }));
    EXPECT_EQ(pair.client.bytes, data);
    EXPECT_EQ(evpl_connection_shutdown(pair.client.peer, 0).code, EVPL_OK);
    EXPECT_EQ(evpl_connection_send_bytes(pair.client.peer, "x", 1).error, EVPL_MISUSE);
    EXPECT_TRUE(pair.until([&] { return has(pair.client, "close") && has(pair.server, "close"); }));
    EXPECT_EQ(pair.client.events, "open sent writable end close ") << pair.client.events;
    EXPECT_EQ(pair.client.why.code, EVPL_END) << text_of(pair.client.why);
    EXPECT_EQ(evpl_connection_get(pair.ref), nullptr);
}

TEST(CapiConnection, ChainsGoThroughByReference) {
    Pair pair;
    pair.open("inproc://capi-chain");
    evpl_chain chain = {};
    for (const char* word : {"one ", "two ", "three ", "four ", "five ", "six "}) {
        evpl_buffer buffer = {};
        ASSERT_EQ(evpl_copy(pair.loop, word, std::strlen(word), &buffer).code, EVPL_OK);
        ASSERT_EQ(evpl_chain_append(&chain, &buffer).code, EVPL_OK);
    }
    EXPECT_EQ(evpl_chain_count(&chain), 6u);
    EXPECT_EQ(evpl_chain_slice(&chain, 1).size, 4u);
    EXPECT_EQ(evpl_chain_slice(&chain, 6).data, nullptr);
    evpl_chain front = {}, again = {};
    ASSERT_EQ(evpl_chain_take_front(&chain, 4, &front).code, EVPL_OK);
    ASSERT_EQ(evpl_chain_share(&chain, &again).code, EVPL_OK);
    ASSERT_EQ(evpl_chain_append_chain(&front, &chain).code, EVPL_OK);
    EXPECT_EQ(evpl_connection_send(pair.client.peer, &front).state, EVPL_GO);
    EXPECT_EQ(evpl_chain_size(&front), 0u);
    EXPECT_TRUE(evpl_connection_try_send(pair.client.peer, &again));
    const std::string all = "one two three four five six two three four five six ";
    EXPECT_TRUE(pair.until([&] { return pair.server.bytes.size() == all.size(); }));
    EXPECT_EQ(pair.server.bytes, all);
}

TEST(CapiConnection, ErrorsHaveCodeStepAndText) {
    Side side;
    World world;
    const evpl_handler handler = every_event();
    evpl_error error = evpl_connect(world.loop, "nonsense", &handler, &side, 0, nullptr);
    EXPECT_EQ(error.code, EVPL_BAD_ENDPOINT);
    EXPECT_NE(text_of(evpl_loop_last_failure(world.loop)).find("nonsense"), std::string::npos);
    EXPECT_EQ(evpl_connect(world.loop, "nosuch://a:1", &handler, &side, 0, nullptr).code, EVPL_UNKNOWN_SCHEME);
    ASSERT_EQ(evpl_connect(world.loop, "inproc://capi-nobody", &handler, &side, 0, nullptr).code, EVPL_OK);
    ASSERT_TRUE(world.until([&] { return has(side, "close"); }));
    EXPECT_EQ(side.events, "close ");
    EXPECT_EQ(side.why.code, EVPL_REFUSED);
    EXPECT_NE(text_of(side.why).find("connect: refused"), std::string::npos);
    EXPECT_STREQ(evpl_code_name(EVPL_REFUSED), "refused");
    EXPECT_STREQ(evpl_code_name(60000), "unknown");
    EXPECT_STREQ(evpl_step_name(EVPL_STEP_CONNECT), "connect");
    EXPECT_STREQ(evpl_who_name(EVPL_PEER), "peer");
}

TEST(CapiConnection, ACloseTellsItsReason) {
    Pair pair;
    pair.open("inproc://capi-reason");
    EXPECT_EQ(evpl_connection_close(pair.client.peer, {EVPL_PROTOCOL_ERROR, EVPL_STEP_RECV, EVPL_PEER, 7}).code, EVPL_OK);
    ASSERT_TRUE(pair.until([&] { return has(pair.client, "close") && has(pair.server, "close"); }));
    EXPECT_EQ(pair.client.why.code, EVPL_PROTOCOL_ERROR);
    EXPECT_EQ(pair.client.why.os, 7);
}

TEST(CapiConnection, AFrameCallbackCutsMessages) {
    std::string messages;
    Side client;
    World world;
    evpl_handler handler = {sizeof handler};
    handler.frame = [](void*, evpl_bytes head) {
        const auto* bytes = static_cast<const std::uint8_t*>(head.data);
        return head.size < 1 ? evpl_frame{} : evpl_frame{std::uint32_t(1 + bytes[0]), bytes[0] > 100};
    };
    handler.on_recv = [](void* self, evpl_connection* peer) {
        while (evpl_connection_has_message(peer)) {
            evpl_chain message = {};
            char bytes[200];
            ASSERT_EQ(evpl_connection_recv_message(peer, &message).code, EVPL_OK);
            const std::size_t size = evpl_chain_copy_to(&message, bytes, sizeof bytes, 1);
            static_cast<std::string*>(self)->append(bytes, size).append("|");
            evpl_chain_clear(&message);
        }
    };
    evpl_listener* listener;
    ASSERT_EQ(evpl_listen(world.loop, "inproc://capi-frames", &handler, &messages, &listener).code, EVPL_OK);
    const evpl_handler events = every_event();
    evpl_connection_ref ref;
    ASSERT_EQ(evpl_connect(world.loop, "inproc://capi-frames", &events, &client, 0, &ref).code, EVPL_OK);
    evpl_connection_send_bytes(evpl_connection_get(ref),
                               "\x03"
                               "abc\x01"
                               "d\x7f",
                               7);
    ASSERT_TRUE(world.until([&] { return has(client, "close"); }));  // 0x7f is nonsense
    EXPECT_EQ(messages, "abc|d|");
    evpl_listener_free(listener);
}

struct Session {
    std::uint64_t number;
};
struct Factory {
    std::uint64_t built = 0, destroyed = 0, dropped = 0;
    bool refuse = false;
};

TEST(CapiConnection, AFactoryGivesEachConnectionItsState) {
    Side one, two, three;
    World world;
    static Factory factory;  // destroy() has no context
    factory = {};
    evpl_factory each = {sizeof each};
    each.state_bytes = sizeof(Session);
    each.context = &factory;
    each.build = [](void* context, evpl_connection*, void* room, void** state) {
        auto& f = *static_cast<Factory*>(context);
        if (f.refuse) return evpl_error{EVPL_PERMISSION_DENIED, 0, EVPL_LOCAL, 0};
        EXPECT_EQ(*state, room);
        static_cast<Session*>(room)->number = ++f.built;
        return evpl_error{};
    };
    each.destroy = [](void* state) { factory.destroyed += static_cast<Session*>(state)->number; };
    each.drop = [](void* context) { ++static_cast<Factory*>(context)->dropped; };
    evpl_handler handler = {sizeof handler};
    handler.on_recv = [](void* self, evpl_connection* peer) {
        received(peer);
        evpl_connection_send_bytes(peer, std::to_string(static_cast<Session*>(self)->number).data(), 1);
    };
    evpl_listener* listener;
    ASSERT_EQ(evpl_listen_each(world.loop, "inproc://capi-each", &handler, &each, &listener).code, EVPL_OK);
    const evpl_handler events = every_event();
    for (Side* s : {&one, &two}) {
        evpl_connection_ref ref;
        ASSERT_EQ(evpl_connect(world.loop, "inproc://capi-each", &events, s, 0, &ref).code, EVPL_OK);
        evpl_connection_send_bytes(evpl_connection_get(ref), "?", 1);
        ASSERT_TRUE(world.until([&] { return !s->bytes.empty(); }));
    }
    EXPECT_EQ(one.bytes + two.bytes, "12");
    factory.refuse = true;
    ASSERT_EQ(evpl_connect(world.loop, "inproc://capi-each", &events, &three, 0, nullptr).code, EVPL_OK);
    ASSERT_TRUE(world.until([&] { return has(three, "close"); }));
    evpl_listener_metrics metrics = {};
    metrics.size_bytes = sizeof metrics;
    ASSERT_EQ(evpl_listener_get_metrics(listener, &metrics).code, EVPL_OK);
    EXPECT_EQ(metrics.open, 2u);
    evpl_listener_free(listener);
    EXPECT_EQ(factory.dropped, 0u) << "connections still use it";
    for (Side* s : {&one, &two}) evpl_connection_close(s->peer, {});
    ASSERT_TRUE(world.until([&] { return factory.dropped == 1; }));
    EXPECT_EQ(factory.destroyed, 3u);
}

TEST(CapiConnection, LimitsAndDeadlines) {
    Pair pair;
    pair.open("tcp://127.0.0.1:0");
    evpl_queue_limits limits = {sizeof limits, 0, 10, 20, 0, 0};
    ASSERT_EQ(evpl_connection_set_limits(pair.client.peer, &limits).code, EVPL_OK);
    evpl_queue_limits now = {sizeof now, 0, 0, 0, 0, 0};
    ASSERT_EQ(evpl_connection_limits(pair.client.peer, &now).code, EVPL_OK);
    EXPECT_EQ(now.send_low, 10u);
    EXPECT_EQ(now.send_high, 20u);
    EXPECT_EQ(now.receive, 1u << 20) << "zero changes nothing";
    EXPECT_EQ(evpl_connection_send_room(pair.client.peer), 20u);
    EXPECT_EQ(evpl_connection_deadline_recv(pair.client.peer, 30 * EVPL_MS).code, EVPL_OK);
    ASSERT_TRUE(pair.until([&] { return has(pair.client, "close"); }));
    EXPECT_EQ(pair.client.why.code, EVPL_TIMED_OUT);
}

TEST(CapiConnection, ReceivesIntoTheCallersBlock) {
    struct Landing {
        evpl_buffer buffer = {};
    } landing;
    Side client;
    World world;
    evpl_handler handler = {sizeof handler};
    handler.on_open = [](void*, evpl_connection* peer) {
        evpl_buffer target = {};
        ASSERT_EQ(evpl_allocate(evpl_connection_loop(peer), 5, &target).code, EVPL_OK);
        ASSERT_EQ(evpl_connection_recv_into(peer, &target).code, EVPL_OK);
    };
    handler.on_recv = [](void* self, evpl_connection* peer) {
        if (evpl_buffer_size(&static_cast<Landing*>(self)->buffer) == 0) evpl_connection_landed(peer, &static_cast<Landing*>(self)->buffer);
    };
    evpl_listener* listener;
    ASSERT_EQ(evpl_listen(world.loop, "tcp://127.0.0.1:0", &handler, &landing, &listener).code, EVPL_OK);
    const evpl_handler events = every_event();
    evpl_connection_ref ref;
    ASSERT_EQ(evpl_connect(world.loop, text_of(evpl_listener_url(listener)).c_str(), &events, &client, 0, &ref).code, EVPL_OK);
    evpl_connection_send_bytes(evpl_connection_get(ref), "hello", 5);
    ASSERT_TRUE(world.until([&] { return evpl_buffer_size(&landing.buffer) == 5; }));
    EXPECT_EQ(std::memcmp(evpl_buffer_data(&landing.buffer), "hello", 5), 0);
    evpl_buffer_release(&landing.buffer);
    evpl_listener_free(listener);
}

TEST(CapiRemote, ReadsAndWritesThePeersMemory) {
    Pair pair;
    pair.open("inproc://capi-remote");
    evpl_caps caps = {};
    caps.size_bytes = sizeof caps;
    ASSERT_EQ(evpl_connection_caps(pair.client.peer, &caps).code, EVPL_OK);
    ASSERT_TRUE(caps.rma);
    evpl_buffer exposed = {}, view = {}, target = {}, source = {};
    ASSERT_EQ(evpl_copy(pair.loop, "0123456789", 10, &exposed).code, EVPL_OK);
    ASSERT_EQ(evpl_buffer_share(&exposed, 0, 10, &view).code, EVPL_OK);
    evpl_remote_region region = {};
    ASSERT_EQ(evpl_connection_expose(pair.server.peer, &exposed, EVPL_ACCESS_READ_WRITE, &region).code, EVPL_OK);
    ASSERT_EQ(evpl_allocate(pair.loop, 4, &target).code, EVPL_OK);
    std::uint64_t id = 0;
    ASSERT_EQ(evpl_connection_read(pair.client.peer, &region, 3, &target, &id).code, EVPL_OK);
    ASSERT_TRUE(pair.until([&] { return has(pair.client, "completed"); }));
    EXPECT_EQ(pair.client.completion.code, EVPL_OK);
    EXPECT_EQ(std::memcmp(evpl_buffer_data(&pair.client.completed), "3456", 4), 0);
    evpl_buffer_release(&pair.client.completed);
    pair.client.events.clear();
    ASSERT_EQ(evpl_copy(pair.loop, "xy", 2, &source).code, EVPL_OK);
    ASSERT_EQ(evpl_connection_write(pair.client.peer, &region, 8, &source, nullptr).code, EVPL_OK);
    ASSERT_TRUE(pair.until([&] { return has(pair.client, "completed"); }));
    EXPECT_EQ(std::memcmp(evpl_buffer_data(&view), "01234567xy", 10), 0);
    EXPECT_EQ(evpl_connection_revoke(pair.server.peer, &region).code, EVPL_OK);
    evpl_buffer_release(&pair.client.completed);
    ASSERT_EQ(evpl_allocate(pair.loop, 4, &target).code, EVPL_OK);
    EXPECT_EQ(evpl_connection_read(pair.client.peer, &region, 7, &target, nullptr).code, EVPL_MISUSE) << "out of bounds";
    evpl_buffer_release(&view);
    evpl_buffer_release(&target);
}

TEST(CapiRemote, TellsAndChangesNumbers) {
    Pair pair;
    pair.open("inproc://capi-numbers");
    evpl_caps caps = {};
    caps.size_bytes = sizeof caps;
    ASSERT_EQ(evpl_connection_caps(pair.client.peer, &caps).code, EVPL_OK);
    EXPECT_TRUE(caps.remote_tells && caps.remote_atomics);
    EXPECT_FALSE(caps.remote_invalidate);
    EXPECT_EQ(caps.private_data_bytes_max, 0u);
    evpl_buffer exposed = {}, view = {}, source = {};
    ASSERT_EQ(evpl_copy(pair.loop, "\1\0\0\0\0\0\0\0........", 16, &exposed).code, EVPL_OK);
    ASSERT_EQ(evpl_buffer_share(&exposed, 0, 16, &view).code, EVPL_OK);
    evpl_remote_region region = {};
    ASSERT_EQ(evpl_connection_expose(pair.server.peer, &exposed, EVPL_ACCESS_WRITE | EVPL_ACCESS_ATOMIC, &region).code, EVPL_OK);
    ASSERT_EQ(evpl_copy(pair.loop, "written!", 8, &source).code, EVPL_OK);
    ASSERT_EQ(evpl_connection_write_telling(pair.client.peer, &region, 8, &source, 4000000000, nullptr).code, EVPL_OK);
    ASSERT_TRUE(pair.until([&] { return has(pair.server, "written4000000000 ") && has(pair.client, "completed"); }));
    EXPECT_EQ(std::memcmp(static_cast<const char*>(evpl_buffer_data(&view)) + 8, "written!", 8), 0);
    evpl_buffer_release(&pair.client.completed);
    pair.client.events.clear();
    std::uint64_t id = 0;
    ASSERT_EQ(evpl_connection_fetch_add(pair.client.peer, &region, 0, 41, &id).code, EVPL_OK);
    ASSERT_TRUE(pair.until([&] { return has(pair.client, "completed"); }));
    EXPECT_EQ(pair.client.value, 1u);
    EXPECT_NE(id, 0u);
    EXPECT_EQ(evpl_buffer_size(&pair.client.completed), 0u);
    pair.client.events.clear();
    ASSERT_EQ(evpl_connection_compare_swap(pair.client.peer, &region, 0, 42, 7, nullptr).code, EVPL_OK);
    ASSERT_TRUE(pair.until([&] { return has(pair.client, "completed"); }));
    EXPECT_EQ(pair.client.value, 42u);
    EXPECT_EQ(*static_cast<const char*>(evpl_buffer_data(&view)), 7);
    EXPECT_EQ(evpl_connection_fetch_add(pair.client.peer, &region, 4, 1, nullptr).code, EVPL_MISUSE) << "not at a multiple of 8";
    EXPECT_EQ(evpl_connection_fetch_add(nullptr, &region, 0, 1, nullptr).code, EVPL_MISUSE);
    EXPECT_EQ(evpl_connection_compare_swap(pair.client.peer, nullptr, 0, 1, 2, nullptr).code, EVPL_MISUSE);
    EXPECT_EQ(evpl_completion_value(nullptr), 0u);
    evpl_buffer_release(&view);
}

TEST(CapiConnection, PrivateDataIsForTransportsThatCarryIt) {
    Pair pair;
    pair.open("inproc://capi-private");
    EXPECT_EQ(evpl_connection_private_data(pair.client.peer).size, 0u);
    EXPECT_EQ(evpl_connection_private_data(nullptr).size, 0u);
    EXPECT_EQ(evpl_connection_set_private_data(nullptr, "x", 1).code, EVPL_MISUSE);
    EXPECT_EQ(evpl_connection_invalidated_key(pair.client.peer), 0u);
    EXPECT_EQ(evpl_connection_invalidated_key(nullptr), 0u);
    EXPECT_EQ(evpl_connection_send_invalidating(pair.client.peer, nullptr, 1).error, EVPL_MISUSE);
    struct Asked {
        std::uint32_t code = 0;
        bool dropped = false;
    } asked;
    evpl_factory factory = {sizeof factory};
    factory.context = &asked;
    factory.build = [](void* context, evpl_connection* peer, void*, void** state) -> evpl_error {
        static_cast<Asked*>(context)->code = std::uint32_t(evpl_connection_set_private_data(peer, "x", 1).code);
        *state = context;
        return {};
    };
    factory.drop = [](void* context) { static_cast<Asked*>(context)->dropped = true; };
    evpl_handler handler = {sizeof handler};
    evpl_connection_ref ref = {};
    ASSERT_EQ(evpl_connect_each(pair.loop, text_of(evpl_listener_url(pair.listener)).c_str(), &handler, &factory, 0, &ref).code, EVPL_OK);
    EXPECT_EQ(asked.code, std::uint32_t(EVPL_NOT_SUPPORTED));
    evpl_connection_close(evpl_connection_get(ref), {});
    EXPECT_TRUE(pair.until([&] { return asked.dropped; }));
    EXPECT_EQ(evpl_connect_each(pair.loop, "inproc://capi-private", &handler, nullptr, 0, nullptr).code, EVPL_MISUSE);
}

struct Box {
    std::string text, events;
    evpl_address from = {};
};

TEST(CapiDatagram, SendsBackToWhoSent) {
    Box server, client;
    World world;
    evpl_datagram_handler echo = {sizeof echo};
    echo.on_open = [](void* self, evpl_datagram*) { static_cast<Box*>(self)->events += "open "; };
    echo.on_recv = [](void* self, evpl_datagram* socket) {
        evpl_buffer bytes = {};
        evpl_address from, to;
        bool truncated = true;
        while (evpl_datagram_recv(socket, &bytes, &from, &to, &truncated)) {
            EXPECT_FALSE(truncated);
            static_cast<Box*>(self)->from = from;
            EXPECT_EQ(evpl_datagram_send(socket, &from, &bytes).state, EVPL_GO);
        }
    };
    echo.on_close = [](void* self, evpl_datagram*, evpl_error) { static_cast<Box*>(self)->events += "close "; };
    evpl_datagram_handler collect = {sizeof collect};
    collect.on_recv = [](void* self, evpl_datagram* socket) {
        evpl_buffer bytes = {};
        while (evpl_datagram_recv(socket, &bytes, nullptr, nullptr, nullptr)) {
            static_cast<Box*>(self)->text.append(static_cast<char*>(evpl_buffer_data(&bytes)), evpl_buffer_size(&bytes)) += '|';
        }
        evpl_buffer_release(&bytes);
    };
    evpl_datagram_ref bound, connected;
    ASSERT_EQ(evpl_bind(world.loop, "udp://127.0.0.1:0", &echo, &server, &bound).code, EVPL_OK);
    const std::string url = text_of(evpl_datagram_url(evpl_datagram_get(bound)));
    ASSERT_EQ(evpl_connect_datagram(world.loop, url.c_str(), &collect, &client, 0, &connected).code, EVPL_OK);
    ASSERT_TRUE(world.until([&] { return evpl_datagram_is_open(evpl_datagram_get(connected)); }));
    evpl_datagram* socket = evpl_datagram_get(connected);
    EXPECT_EQ(evpl_datagram_send_bytes(socket, nullptr, "one", 3).state, EVPL_GO);
    EXPECT_EQ(evpl_datagram_send_bytes(socket, nullptr, "two", 3).state, EVPL_GO);
    ASSERT_TRUE(world.until([&] { return client.text == "one|two|"; }));
    EXPECT_EQ(server.from.port, evpl_datagram_local_address(socket).port);
    char text[64];
    EXPECT_GT(evpl_address_text(&server.from, text, sizeof text), 10u);
    EXPECT_EQ(evpl_datagram_send_bytes(evpl_datagram_get(bound), nullptr, "x", 1).error, EVPL_MISUSE) << "it has no peer";
    evpl_datagram_metrics metrics = {};
    metrics.size_bytes = sizeof metrics;
    ASSERT_EQ(evpl_datagram_get_metrics(socket, &metrics).code, EVPL_OK);
    EXPECT_EQ(metrics.received_packets, 2u);
    evpl_datagram_close(evpl_datagram_get(bound));
    ASSERT_TRUE(world.until([&] { return server.events == "open close "; }));
    EXPECT_EQ(evpl_datagram_get(bound), nullptr);
}

}  // namespace
