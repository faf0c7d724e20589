// Two threads with connections between them that end in every order, while a third posts to both and lets parcels go.
#include <algorithm>
#include <atomic>
#include <thread>

#include "support/world.hpp"

namespace evpl::test {
namespace {

/// What handlers on all threads counted.
struct Tally {
    std::atomic<int> built = 0, destroyed = 0, opens = 0, closes = 0;
    std::atomic<bool> good = true;
};

/// Plays ball until its connection ends.
struct Player {
    Tally* tally;
    bool opened = false, closed = false;
    explicit Player(Tally& t) : tally(&t) { ++tally->built; }
    Player(const Player&) = delete;
    ~Player() {
        if (!closed) tally->good = false;
        ++tally->destroyed;
    }
    void on_open(Connection& c) {
        opened = true;
        ++tally->opens;
        c.send(pattern(3000));
    }
    void on_recv(Connection& c) {
        if (!opened || closed) tally->good = false;
        c.send(c.recv(c.send_room()));
    }
    void on_writable(Connection& c) { on_recv(c); }
    void on_close(Connection&, Error why) {
        if (closed || why.ok()) tally->good = false;
        closed = true;
        ++tally->closes;
    }
};

enum Ending { drop_listener, close_one, stop_client, stop_server, endings };

class EndingsTest : public TransportTest {
protected:
    static constexpr int connections = 6;

    void play(const std::array<int, endings>& order, bool waits) {
        Tally tally;
        std::atomic<int> posted = 0, refused = 0, ran = 0;
        Parcel parcels[4];
        {
            auto server = Thread::start({.loop = World::quiet()}), client = Thread::start({.loop = World::quiet()});
            ASSERT_TRUE(server.ok() && client.ok());
            Listener listener;  // of the server's thread
            std::string where;
            const std::string url = fresh_url(GetParam());
            ASSERT_TRUE(server->run([&] {
                auto made = listen<Player>(server->loop(), url, std::ref(tally));
                if (!made) return;
                listener = *std::move(made);
                where = dial_url(url, listener.url());
                for (Parcel& parcel : parcels) parcel = server->loop().allocate(3000)->share(0, 3000).pack();
            }));
            ASSERT_FALSE(where.empty());
            ConnectionRef one;
            ASSERT_TRUE(client->run([&] {
                for (int i = 0; i < connections; ++i) {
                    auto made = connect<Player>(client->loop(), where, Limit{}, std::ref(tally));
                    if (made) one = *made;
                }
            }));
            if (waits) {
                EXPECT_TRUE(await([&] { return tally.opens == 2 * connections; })) << tally.opens;
            }
            std::atomic<bool> over = false;
            std::thread poster([&] {
                unsigned turn = 0;
                while (!over) {
                    Thread& target = ++turn % 2 == 0 ? *server : *client;
                    ++posted;
                    if (!target.post([&ran, carried = std::move(parcels[turn % 4])]() mutable {
                            ++ran;
                            carried = Parcel();
                        }))
                        ++refused;
                    std::this_thread::yield();
                }
            });
            for (const int ending : order) {
                switch (ending) {
                case drop_listener: server->run([&] { listener.close(); }); break;
                case close_one:
                    client->post([one] {
                        if (Connection* c = one.get()) c->close();
                    });
                    break;
                case stop_client: client->stop(); break;
                default: server->stop(); break;
                }
            }
            if (waits) client->join();
            server->join();
            over = true;
            poster.join();
        }
        EXPECT_TRUE(tally.good);
        EXPECT_EQ(tally.built, tally.destroyed);
        EXPECT_EQ(tally.built, tally.closes);
        EXPECT_LE(ran + refused, posted);
    }
};

// Goal: whoever ends first, every handler hears of its end once, is destroyed once, and nothing is left.
TEST_P(EndingsTest, EndsInEveryOrder) {
    const Baseline baseline;
    std::array<int, endings> order{drop_listener, close_one, stop_client, stop_server};
    do {
        const auto place = [&](Ending which) { return std::find(order.begin(), order.end(), which); };
        if (place(drop_listener) > place(stop_server)) continue;  // a listener is dropped before its loop ends
        for (const bool waits : {true, false}) play(order, waits);
    } while (std::next_permutation(order.begin(), order.end()));
    baseline.expect_back();
}

INSTANTIATE_TEST_SUITE_P(Fault, EndingsTest, connection_rows(), name_of_row);

}  // namespace
}  // namespace evpl::test
