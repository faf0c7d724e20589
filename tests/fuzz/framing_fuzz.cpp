// Goal: however bytes arrive and whatever lengths they claim, a framed handler gets exactly the messages a simple reading of the same bytes
// finds, never more memory than a message may take, and a named end where they are nonsense or cut.
// Method: 8 bytes say how the network splits and how the handler reads, the rest is sent by a peer that knows nothing of frames.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "evpl/evpl.hpp"
#include "fuzz/require.hpp"
#include "sim/drive.hpp"
#include "transport/sim/sim.hpp"

namespace {

using namespace evpl;

constexpr std::uint32_t message_max = 2000;

using fuzz::require;

/// Two bytes of length, of what follows; 0xffff is nonsense.
Frame frame_of(std::span<const std::byte> head) {
    if (head.size() < 2) return {};
    const std::uint32_t length = std::uint32_t(head[0]) << 8 | std::uint32_t(head[1]);
    return {length + 2, length == 0xffff};
}

struct Expected {
    std::vector<std::vector<std::byte>> messages;
    Errc end;
};

Expected read_simply(std::span<const std::byte> bytes) {
    Expected made{{}, Errc::end};
    while (!bytes.empty()) {
        const Frame frame = frame_of(bytes);
        if (frame.bad) return made.end = Errc::bad_frame, made;
        if (frame.size_bytes > message_max) return made.end = Errc::too_large, made;
        if (frame.size_bytes == 0 || frame.size_bytes > bytes.size()) return made.end = Errc::truncated, made;
        made.messages.emplace_back(bytes.begin(), bytes.begin() + frame.size_bytes);
        bytes = bytes.subspan(frame.size_bytes);
    }
    return made;
}

struct Reader {
    std::uint8_t how;
    std::vector<std::byte> all;  // of whole messages and of the one that is being read
    int closes = 0;
    Error ended;

    Frame frame(std::span<const std::byte> head) { return frame_of(head); }
    void on_recv(Connection& peer) {
        switch (how % 4) {
        case 0:
            while (peer.has_message()) take(*peer.recv_message());
            break;
        case 1:
            while (peer.available() > 0) {
                Chain some = peer.recv(1 + how / 4 % 7);
                if (some.empty()) break;
                take(std::move(some));
            }
            break;
        case 2: {
            while (const std::size_t before = peer.available()) {
                std::byte some[3];
                const std::size_t n = peer.peek(some);
                require(n <= std::min(before, sizeof some));
                if (n == 0) break;
                peer.consume(n);             // of a frame that is not all there, nothing
                if (!peer.is_open()) break;  // a frame behind it is nonsense: all is dropped
                const std::size_t taken = before - peer.available();
                require(taken <= n);
                all.insert(all.end(), some, some + taken);
                if (taken == 0) break;
            }
            break;
        }
        default:
            for (;;) {
                auto some = peer.recv_exactly(1 + how / 4 % 2);
                if (!some.ok() || some->empty()) {
                    if (!some.ok() && some.error() == Errc::too_large) take(peer.recv());
                    else break;
                } else {
                    take(*std::move(some));
                }
            }
        }
    }
    void on_end(Connection& peer) {
        on_recv(peer);
        peer.shutdown();
    }
    void on_close(Connection&, Error why) {
        ++closes;
        ended = why;
    }
    void take(Chain bytes) {
        for (const Buffer& slice : bytes) all.insert(all.end(), slice.bytes().begin(), slice.bytes().end());
    }
};

struct Writer {
    std::span<const std::byte> bytes;
    std::size_t piece;
    void on_open(Connection& peer) {
        for (std::size_t at = 0; at < bytes.size(); at += piece) peer.send(bytes.subspan(at, std::min(piece, bytes.size() - at)));
        peer.shutdown();
    }
    void on_recv(Connection& peer) { peer.recv(); }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 8 || size > 20'000) return 0;
    transport::SimOptions options;
    options.seed = data[0];
    options.split = std::uint16_t(data[1] << 8);
    options.stall = std::uint16_t(data[2] << 4);
    options.receive_pause = (data[3] & 1) != 0;
    const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data) + 8, size - 8);

    sim_test::VirtualTime time;
    transport::SimNet net(options);
    Reader reader{.how = data[4]};
    Writer writer{bytes, 1u + data[5] * 4u};
    {
        Loop loop;
        auto listener = listen(loop, "sim://framing", [&](Connection& peer) -> Reader& {
            QueueLimits limits = peer.limits();
            limits.message = message_max;
            peer.set_limits(limits);
            return reader;
        });
        require(listener.ok());
        require(connect(loop, "sim://framing", writer).ok());
        Loop* const loops[] = {&loop};
        require(sim_test::run_until(net, loops, 60_s, [&] { return reader.closes > 0; }));
    }
    const Expected expected = read_simply(bytes);
    require(reader.closes == 1 && !reader.ended.ok());
    std::vector<std::byte> whole;
    for (const auto& message : expected.messages) whole.insert(whole.end(), message.begin(), message.end());
    // What was read is the beginning of the sent bytes; with whole messages, exactly those.
    require(reader.all.size() <= bytes.size() && (reader.all.empty() || std::memcmp(reader.all.data(), bytes.data(), reader.all.size()) == 0));
    if (expected.end == Errc::end) require(reader.ended == Errc::end && reader.all == whole);
    else require(reader.ended == expected.end);
    if (reader.how % 4 == 0) require(reader.all == whole || (expected.end != Errc::end && reader.all.size() <= whole.size()));
    return 0;
}
