#pragma once

// A loop with listeners and connections for one test. It is declared after what its handlers use, as every loop, and
// its end checks that descriptors and memory are what they were before.

#include <dirent.h>
#include <gtest/gtest.h>

#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "evpl/evpl.hpp"
#include "support/patience.hpp"
#include "support/peer.hpp"
#include "support/transports.hpp"

namespace evpl::test {

inline int open_descriptors() {
    DIR* listing = opendir("/proc/self/fd");
    if (listing == nullptr) return -1;
    int count = -1;  // the listing's own
    while (const dirent* entry = readdir(listing))
        if (entry->d_name[0] != '.') ++count;
    closedir(listing);
    return count;
}

/// What they are, for a message.
inline std::string list_descriptors() {
    std::string list;
    for (int fd = 0; fd < 1024; ++fd) {
        char target[64] = {};
        const std::string path = "/proc/self/fd/" + std::to_string(fd);
        if (readlink(path.c_str(), target, sizeof target - 1) > 0) list += "\n  " + std::to_string(fd) + " " + target;
    }
    return list;
}

/// Descriptors and slabs of this process at one time.
struct Baseline {
    int descriptors = open_descriptors();
    std::size_t slab_bytes = memory_use().slab_bytes;

    void expect_back() const {
        EXPECT_TRUE(await([&] { return memory_use().slab_bytes <= slab_bytes; }, 2_s))
            << "memory was not given back: " << memory_use().slab_bytes << " bytes of slabs, before " << slab_bytes;
        EXPECT_TRUE(await([&] { return open_descriptors() <= descriptors; }, 2_s))
            << "descriptors leak: " << open_descriptors() << " are open, before " << descriptors << list_descriptors();
    }
};

class World {
public:
    /// Who compares descriptors and memory at the end: with other threads at work only the caller can.
    enum class Check { at_end, by_caller };
    explicit World(const Row& row, const LoopOptions& options = quiet(), Check check = Check::at_end) : row_(row), check_(check) { loop_.emplace(options); }
    ~World() { end(); }
    World(const World&) = delete;
    World& operator=(const World&) = delete;

    /// Tests wait a lot: sleeping at once keeps the machine free for the others.
    static LoopOptions quiet() {
        LoopOptions options;
        options.mode = Mode::event;
        options.stall = 10_s;
        return options;
    }

    Loop& loop() { return *loop_; }
    const Row& row() const { return row_; }

    /// Ends the loop with all that lives on it; the last thing a test does, or leaves to the destructor.
    void end() {
        if (!loop_) return;
        listeners_.clear();
        loop_.reset();
        if (check_ == Check::at_end) baseline_.expect_back();
    }
    void end_loop_only() { loop_.reset(); }

    /// Listens at a fresh endpoint with `factory`; null when that fails, which is a failure of the test.
    template <class F>
    Listener* listen(F&& factory, std::string_view query = {}) {
        const std::string url = fresh_url(row_, query);
        auto made = evpl::listen(*loop_, url, std::forward<F>(factory));
        EXPECT_TRUE(made.ok()) << url << ": " << loop_->last_failure();
        if (!made) return nullptr;
        listeners_.push_back(std::make_unique<Listener>(*std::move(made)));
        dial_ = dial_url(url, listeners_.back()->url());
        return listeners_.back().get();
    }
    /// Where the last listener is reached.
    const std::string& where() const { return dial_; }
    void stop_listening() { listeners_.clear(); }

    template <class H>
    ConnectionRef dial(H&& handler, Limit limit = {}) {
        auto made = evpl::connect(*loop_, dial_, std::forward<H>(handler), limit);
        EXPECT_TRUE(made.ok()) << dial_ << ": " << loop_->last_failure();
        return made ? *made : ConnectionRef{};
    }

    /// One connection between two handlers, both open. False is a failure.
    template <class S, class C>
    [[nodiscard]] bool open(S& server, C& client, std::string_view query = {}) {
        if (listen(server, query) == nullptr) return false;
        client.ref = dial(client);
        return until([&] { return (server.opens > 0 && client.opens > 0) || client.closed(); }) && client.open();
    }

    template <class Done>
    [[nodiscard]] bool until(Done done, Duration limit = 15_s) {
        return drive(*loop_, done, limit);
    }
    [[nodiscard]] bool until_closed(const PlainPeer& one, const PlainPeer& other, Duration limit = 15_s) {
        return until([&] { return one.closed() && other.closed(); }, limit);
    }

    /// Until back-pressure has stopped the pump.
    [[nodiscard]] bool until_stuck(const Pump& pump, Duration limit = 15_s) {
        std::size_t before = 0, now = 0;
        return until(
            [&] {
                before = std::exchange(now, pump.sent);
                drive_for(loop(), 60_ms * slowness);
                return before == now && now == pump.sent;
            },
            limit);
    }

private:
    Row row_;
    Check check_;
    Baseline baseline_;
    std::optional<Loop> loop_;
    std::deque<std::unique_ptr<Listener>> listeners_;
    std::string dial_;
};

/// What connections of this row can do: found out once, on a connection.
inline const Caps& caps_of(const Row& row) {
    static std::deque<std::pair<std::string, Caps>> known;
    for (const auto& [name, caps] : known)
        if (name == row.name) return caps;
    Caps caps;
    {
        Peer server, client;
        World world{row};
        if (world.open(server, client)) caps = client.get()->caps();
    }
    return known.emplace_back(row.name, caps).second;
}

/// Base of all suites over transports: skips what is absent.
class TransportTest : public testing::TestWithParam<Row> {
protected:
    void SetUp() override {
        if (const auto why = absence(GetParam())) GTEST_SKIP() << *why;
    }
    const Caps& caps() const { return caps_of(GetParam()); }
};

/// Suites of a kind; INSTANTIATE_TEST_SUITE_P chooses the rows.
class ConnectionTest : public TransportTest {};  // streams and messages
class StreamTest : public TransportTest {};
class MessageTest : public TransportTest {};
class DatagramTest : public TransportTest {};

#define EVPL_NEEDS(capability)                                                                                                                                 \
    if (!caps().capability) GTEST_SKIP() << GetParam().name << " does not claim " #capability

}  // namespace evpl::test
