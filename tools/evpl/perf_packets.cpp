#include <cstring>

#include <fmt/format.h>
#include <evpl/datagram.hpp>

#include "perf_bytes.hpp"
#include "text.hpp"

namespace tool {
namespace {

/// Datagrams may be lost, doubled and reordered: each carries its number and its slot in the window.
class PacketChannel : public Channel {
public:
    static constexpr std::uint32_t header_bytes = 8;  ///< number << 16 | slot

    PacketChannel(Worker& worker, std::uint32_t index) : Channel(worker, index), slots_(worker.plan().depth), packet_(worker.plan().size) {
        for (std::uint32_t i = 0; i < slots_.size(); ++i) free_.push_back(std::uint16_t(slots_.size() - 1 - i));
    }

    void open() override {
        auto made = evpl::connect_datagram(worker_.loop(), worker_.plan().url, *this, connect_limit);
        if (!made) return worker_.failed(fmt::format("cannot connect to {}: {}", worker_.plan().url, reason_of(worker_.loop(), made.error())));
        socket_ = *made;
    }

    void on_open(evpl::Datagram& socket) {
        const std::uint32_t most = socket.caps().message_bytes_max;
        if (most > 0 && worker_.plan().size > most)
            return worker_.failed(fmt::format("--size {}: datagrams of {} have at most {} bytes", worker_.plan().size, socket.transport(), most));
        was_open_ = true;
        worker_.opened();
    }
    void on_recv(evpl::Datagram& socket) {
        const std::int64_t now = worker_.clock();
        while (socket.has_packet() && !worker_.ending()) take(socket.recv(), now);
        send(socket, now);
    }
    void on_writable(evpl::Datagram& socket) { send(socket, worker_.clock()); }
    void on_error(evpl::Datagram&, evpl::Error why) {
        if (!answered_any_) worker_.lost_peer(why, false);  // nobody there; later errors show as loss
    }
    void on_close(evpl::Datagram&, evpl::Error why) { worker_.lost_peer(why, was_open_); }

    void pump(std::int64_t now) override {
        if (evpl::Datagram* socket = socket_.get(); socket != nullptr && was_open_) send(*socket, now);
    }
    void expire(std::int64_t now) override {
        for (std::size_t i = 0; i < slots_.size(); ++i)
            if (slots_[i].busy && now - slots_[i].sent_at > lost_after_ns) {
                release(std::uint16_t(i));
                worker_.count_lost(measured(slots_[i].number));
            }
        pump(now);
    }

private:
    struct Slot {
        std::uint64_t number = 0;
        std::int64_t sent_at = 0;
        bool busy = false;
    };

    void release(std::uint16_t slot) {
        slots_[slot].busy = false;
        free_.push_back(slot);
    }
    std::uint64_t pattern_at(std::uint64_t number) const { return start_of(index_) + number * worker_.plan().size + header_bytes; }

    void send(evpl::Datagram& socket, std::int64_t now) {
        while (!free_.empty() && may_send(now)) {
            const std::uint16_t slot = free_.back();
            const std::uint64_t header = sent_ << 16 | slot;
            std::memcpy(packet_.data(), &header, header_bytes);
            copy_pattern(pattern_at(sent_));
            const evpl::Flow flow = socket.send(std::span<const std::byte>(packet_));
            if (flow.error() == evpl::Errc::too_large || flow.error() == evpl::Errc::misuse)
                return worker_.failed(fmt::format("cannot send to {}: {}", worker_.plan().url, name_of(flow.error())));
            free_.pop_back();
            slots_[slot] = {sent_, now, true};
            ++sent_;
            if (!flow) return;
        }
    }
    void copy_pattern(std::uint64_t at) {
        for (std::size_t done = header_bytes; done < packet_.size();) {
            const std::size_t n = std::min(packet_.size() - done, Pattern::period);
            std::memcpy(packet_.data() + done, worker_.pattern().bytes(at, n).data(), n);
            done += n;
            at += n;
        }
    }

    void take(const evpl::Packet& packet, std::int64_t now) {
        std::uint64_t header = 0;
        const auto bytes = packet.bytes.bytes();
        const auto wrong = [&](const char* what) { worker_.corrupt(fmt::format("{} came back from {}", what, worker_.plan().url)); };
        if (bytes.size() != packet_.size() || packet.truncated) return wrong("a datagram of another size");
        std::memcpy(&header, bytes.data(), header_bytes);
        const std::uint64_t number = header >> 16;
        const auto slot = std::uint16_t(header);
        if (slot >= slots_.size() || number >= sent_) return wrong("a datagram that was never sent");
        const auto body = bytes.subspan(header_bytes);
        if (worker_.pattern().agreeing(pattern_at(number), body) < body.size()) return wrong("a datagram with wrong bytes");
        if (!slots_[slot].busy || slots_[slot].number != number) return worker_.count_late();
        answered_any_ = true;
        worker_.count_reply();
        release(slot);
        record(number, sent_time(number, slots_[slot].sent_at), now);
    }

    std::vector<Slot> slots_;
    std::vector<std::uint16_t> free_;  ///< slots; last in, first out
    std::vector<std::byte> packet_;    ///< the one under construction
    evpl::DatagramRef socket_;
    bool was_open_ = false, answered_any_ = false;
};

}  // namespace

std::unique_ptr<Channel> make_packet_channel(Worker& worker, std::uint32_t index) { return std::make_unique<PacketChannel>(worker, index); }

}  // namespace tool
