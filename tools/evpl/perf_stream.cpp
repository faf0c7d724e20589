#include <fmt/format.h>

#include "perf_bytes.hpp"
#include "text.hpp"

namespace tool {
namespace {

/// Sends on one connection and measures the echo.
class StreamChannel : public Channel {
public:
    StreamChannel(Worker& worker, std::uint32_t index) : Channel(worker, index), checker_(worker, start_of(index)), sent_at_(worker.plan().depth) {}

    void open() override {
        auto made = evpl::connect(worker_.loop(), worker_.plan().url, *this, connect_limit);
        if (!made) return worker_.failed(fmt::format("cannot connect to {}: {}", worker_.plan().url, reason_of(worker_.loop(), made.error())));
        peer_ = *made;
    }

    void on_open(evpl::Connection& peer) {
        was_open_ = true;
        const std::uint32_t most = peer.caps().kind == evpl::Kind::message ? peer.caps().message_bytes_max : 0;
        if (most > 0 && worker_.plan().size > most)
            return worker_.failed(fmt::format("--size {}: messages of {} have at most {} bytes", worker_.plan().size, peer.transport(), most));
        worker_.opened();
    }
    void on_recv(evpl::Connection& peer) {
        evpl::Chain bytes;
        const bool whole = peer.caps().kind == evpl::Kind::message;
        while (!worker_.ending() && receive(peer, bytes)) {
            if (whole && bytes.size() != worker_.plan().size)
                return worker_.corrupt(fmt::format("a message of {} bytes came back from {} with {}", worker_.plan().size, worker_.plan().url, bytes.size()));
            if (!checker_.take(bytes)) return;
        }
        const std::int64_t now = worker_.clock();
        complete(now);
        send(peer, now);
    }
    void on_writable(evpl::Connection& peer) {
        paused_ = false;
        send(peer, worker_.clock());
    }
    void on_end(evpl::Connection& peer) { on_close(peer, evpl::Error(evpl::Errc::end, evpl::Step::recv, evpl::Who::peer)); }
    void on_close(evpl::Connection&, evpl::Error why) { worker_.lost_peer(why, was_open_); }

    void pump(std::int64_t now) override {
        if (evpl::Connection* peer = peer_.get(); peer != nullptr && was_open_) send(*peer, now);
    }

private:
    bool has_room() const { return worker_.plan().rate > 0 || sent_ - answered_ < worker_.plan().depth; }

    void send(evpl::Connection& peer, std::int64_t now) {
        while (!paused_ && has_room() && may_send(now)) {
            const evpl::Flow flow = send_message(worker_, peer, start_of(index_) + sent_ * worker_.plan().size);
            if (!flow && !flow.paused()) return worker_.failed(fmt::format("cannot send to {}: {}", worker_.plan().url, name_of(flow.error())));
            sent_at_[sent_ % sent_at_.size()] = now;
            ++sent_;
            paused_ = flow.paused();
        }
    }

    /// Every message whose last byte is back.
    void complete(std::int64_t now) {
        const std::uint64_t size = worker_.plan().size;
        if (checker_.received() > sent_ * size) return worker_.corrupt(fmt::format("more bytes came back from {} than were sent", worker_.plan().url));
        for (; (answered_ + 1) * size <= checker_.received(); ++answered_) {
            worker_.count_reply();
            record(answered_, sent_time(answered_, sent_at_[answered_ % sent_at_.size()]), now);
        }
    }

    Checker checker_;
    std::vector<std::int64_t> sent_at_;  ///< of the messages in flight; open loops compute it instead
    std::uint64_t answered_ = 0;
    evpl::ConnectionRef peer_;
    bool was_open_ = false, paused_ = false;
};

}  // namespace

std::unique_ptr<Channel> make_stream_channel(Worker& worker, std::uint32_t index) { return std::make_unique<StreamChannel>(worker, index); }

}  // namespace tool
