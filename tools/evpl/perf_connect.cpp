#include <fmt/format.h>

#include "perf_bytes.hpp"
#include "text.hpp"

namespace tool {
namespace {

/// Connects, exchanges one message, closes, and begins again.
class ConnectChannel : public Channel {
public:
    using Channel::Channel;

    void open() override { worker_.opened(); }

    void on_open(evpl::Connection& peer) {
        was_open_ = true;
        const evpl::Flow flow = send_message(worker_, peer, start_of(sent_));
        if (!flow && !flow.paused()) worker_.failed(fmt::format("cannot send to {}: {}", worker_.plan().url, name_of(flow.error())));
    }
    void on_recv(evpl::Connection& peer) {
        evpl::Chain bytes;
        while (!done_ && !worker_.ending() && receive(peer, bytes))
            if (!checker_->take(bytes)) return;
        if (done_ || checker_->received() < worker_.plan().size) return;
        done_ = true;
        worker_.count_reply();
        record(sent_ - 1, sent_time(sent_ - 1, started_), worker_.clock());
        peer.close();
    }
    void on_end(evpl::Connection& peer) { peer.close(evpl::Error(evpl::Errc::end, evpl::Step::recv, evpl::Who::peer)); }
    void on_close(evpl::Connection&, evpl::Error why) {
        busy_ = false;
        if (done_) return pump(worker_.clock());
        // Ports of closed connections rest for a while (TIME_WAIT): this one is made once some are free again.
        if (why == evpl::Errc::address_unavailable) return retry();
        worker_.lost_peer(why, was_open_);
    }

    void pump(std::int64_t now) override {
        if (busy_ || !may_send(now)) return;
        ++sent_;
        started_ = now;
        start();
    }

private:
    void start() {
        if (worker_.ending()) return;
        was_open_ = done_ = false;
        checker_ = std::make_unique<Checker>(worker_, start_of(sent_));
        auto made = evpl::connect(worker_.loop(), worker_.plan().url, *this, connect_limit);
        busy_ = bool(made);
        if (!made) worker_.failed(fmt::format("cannot connect to {}: {}", worker_.plan().url, reason_of(worker_.loop(), made.error())));
    }
    void retry() {
        worker_.count_retry();
        busy_ = true;
        auto timer = worker_.loop().after(evpl::Duration::of_ns(20'000'000), [this] { start(); });
        if (!timer) return worker_.failed(text_of(timer.error()));
        timer->release();
    }

    std::unique_ptr<Checker> checker_;
    std::int64_t started_ = 0;
    bool was_open_ = false, done_ = false, busy_ = false;
};

}  // namespace

std::unique_ptr<Channel> make_connect_channel(Worker& worker, std::uint32_t index) { return std::make_unique<ConnectChannel>(worker, index); }

}  // namespace tool
