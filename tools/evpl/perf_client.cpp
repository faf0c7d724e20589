#include "perf_client.hpp"

#include <unistd.h>
#include <cstdio>

#include <fmt/format.h>
#include <evpl/thread.hpp>

#include "text.hpp"

namespace tool {
namespace {

constexpr std::int64_t second_ns = 1'000'000'000;
constexpr std::int64_t tick_ns = 10'000'000;

std::unique_ptr<Channel> make_channel(Worker& worker, std::uint32_t index) {
    if (worker.plan().test == Test::connect) return make_connect_channel(worker, index);
    return is_datagram(worker.plan().url) ? make_packet_channel(worker, index) : make_stream_channel(worker, index);
}

}  // namespace

std::int64_t Channel::sent_time(std::uint64_t n, std::int64_t really) const { return worker_.plan().rate > 0 ? worker_.due_time(*this, n) : really; }

bool Channel::may_send(std::int64_t now) { return (worker_.plan().rate == 0 || worker_.due(*this, now)) && worker_.take_one(); }

void Channel::record(std::uint64_t n, std::int64_t sent_at, std::int64_t now) {
    if (measured(n)) worker_.record(now - sent_at);
}

Worker::Worker(const Plan& plan, Team& team, const Pattern& pattern, std::uint32_t first, std::uint32_t channels, std::uint64_t quota)
    : plan_(plan), team_(team), pattern_(pattern), leads_(first == 0), quota_(quota) {
    for (std::uint32_t i = 0; i < channels; ++i) channels_.push_back(make_channel(*this, first + i));
}

Worker::~Worker() = default;

void Worker::start(evpl::Loop& loop) {
    loop_ = &loop;
    last_reply_ = clock();
    if (plan_.size > copied_bytes_max) table_ = pattern_.load(loop);
    if (plan_.size > copied_bytes_max && !table_) return failed("no memory for the messages");
    auto ticker = loop.every(evpl::Duration::of_ns(tick_ns), [this] { tick(); });
    if (!ticker) return failed(text_of(ticker.error()));
    ticker_ = *std::move(ticker);
    for (auto& channel : channels_)
        if (!ending_) channel->open();
}

void Worker::opened() {
    if (++open_ < channels_.size() || ending_) return;
    running_ = true;
    began_ = last_reply_ = last_shown_ = clock();
    if (plan_.warmup_s <= 0) {
        warm();
    } else if (auto timer = loop_->after(duration_of(plan_.warmup_s), [this] { warm(); })) {
        clock_timer_ = *std::move(timer);
    } else {
        return failed(text_of(timer.error()));
    }
    pump_all();
}

void Worker::warm() {
    measuring_ = true;
    budget_ = quota_;
    measuring_since_ = clock();
    for (auto& channel : channels_) channel->measure_from_here();
    if (quota_ > 0) return pump_all();
    auto timer = loop_->after(duration_of(plan_.seconds), [this] { finish(); });
    if (!timer) return failed(text_of(timer.error()));
    clock_timer_ = *std::move(timer);
}

void Worker::pump_all() {
    const std::int64_t now = clock();
    for (auto& channel : channels_) channel->pump(now);
    if (plan_.rate > 0) pace(now);
}

/// Open loop: wakes when the next message is due.
void Worker::pace(std::int64_t now) {
    std::int64_t next = INT64_MAX;
    for (auto& channel : channels_) next = std::min(next, due_time(*channel, channel->sent()));
    // What is due already waits for room, and on_writable or a reply sends it: the pacer looks again soon in any case.
    const std::int64_t delay = next > now ? next - now : 1'000'000;
    auto timer = loop_->after(evpl::Duration::of_ns(delay), [this] { pump_all(); });
    if (!timer) return failed(text_of(timer.error()));
    pacer_ = *std::move(timer);
}

std::int64_t Worker::due_time(const Channel& channel, std::uint64_t n) const {
    const double nth = double(n) * plan_.connections + channel.index();
    return began_ + std::int64_t(nth * double(second_ns) / plan_.rate);
}

bool Worker::take_one() {
    if (!running_ || ending_) return false;
    if (quota_ == 0 || !measuring_) return true;
    if (budget_ == 0) return false;
    --budget_;
    return true;
}

void Worker::record(std::int64_t ns) {
    if (!measuring_ || ending_) return;
    out.times.record(std::uint64_t(std::max<std::int64_t>(ns, 0)));
    if (quota_met()) finish();
}

void Worker::count_lost(bool measured) {
    if (!measured || !measuring_ || ending_) return;
    ++out.lost;
    if (quota_met()) finish();
}

void Worker::tick() {
    if (ending_) return;
    if (team_.failed.load(std::memory_order_relaxed)) return finish();
    const std::int64_t now = clock();
    for (auto& channel : channels_) channel->expire(now);
    if (replies_ != replies_seen_) {
        team_.replies.fetch_add(replies_ - replies_seen_, std::memory_order_relaxed);
        replies_seen_ = replies_;
        last_reply_ = now;
    } else if (running_ && now - last_reply_ > stalled_after_ns && (plan_.rate == 0 || plan_.rate > 1)) {
        return failed("no reply for " + time_text(double(stalled_after_ns)));
    }
    if (leads_ && plan_.progress && running_ && now - last_shown_ >= second_ns) show_progress(now);
}

void Worker::show_progress(std::int64_t now) {
    const std::uint64_t replies = team_.replies.load(std::memory_order_relaxed);
    const double rate = double(replies - replies_shown_) * second_ns / double(now - last_shown_);
    const bool terminal = isatty(STDERR_FILENO) != 0;
    fmt::print(stderr, "{}{:4.0f} s  {:>12} {}/s{}", terminal ? "\r\033[K" : "", double(now - began_) / second_ns, grouped(std::uint64_t(rate)),
               plan_.test == Test::connect ? "connections" : "messages", terminal ? "" : "\n");
    replies_shown_ = replies;
    last_shown_ = now;
}

void Worker::finish() {
    if (ending_) return;
    ending_ = true;
    const std::int64_t now = clock();
    if (measuring_) out.seconds = double(now - measuring_since_) / second_ns;
    if (plan_.rate > 0 && running_ && quota_ == 0)
        for (auto& channel : channels_)
            for (std::uint64_t n = channel->sent(); due_time(*channel, n) <= now; ++n) ++out.unsent;
    if (leads_ && plan_.progress && last_shown_ != began_ && isatty(STDERR_FILENO) != 0) fmt::print(stderr, "\r\033[K");
    ticker_.cancel();
    clock_timer_.cancel();
    pacer_.cancel();
    table_.reset();
    loop_->stop();
}

void Worker::failed(std::string why) {
    if (ending_) return;
    if (out.failure.empty()) out.failure = std::move(why);
    team_.failed.store(true, std::memory_order_relaxed);
    finish();
}

void Worker::corrupt(std::string what) {
    out.corrupt = true;
    failed(std::move(what));
}

void Worker::lost_peer(evpl::Error error, bool was_open) {
    if (ending_) return;
    failed(fmt::format("{} {}: {}", was_open ? "connection lost to" : "cannot connect to", plan_.url, text_of(error)));
}

namespace {

void merge(Outcome& all, const Outcome& one) {
    all.times.merge(one.times);
    all.seconds = std::max(all.seconds, one.seconds);
    all.lost += one.lost;
    all.late += one.late;
    all.unsent += one.unsent;
    all.retries += one.retries;
    all.corrupt = all.corrupt || one.corrupt;
    if (all.failure.empty()) all.failure = one.failure;
}

/// The part of `total` that thread i of n gets.
std::uint64_t part(std::uint64_t total, std::uint64_t i, std::uint64_t n) { return total / n + (i < total % n); }

}  // namespace

Outcome measure(const Plan& plan) {
    Team team;
    const Pattern pattern(plan.seed);
    std::uint32_t count = std::min(plan.threads, plan.connections);
    if (plan.count > 0) count = std::uint32_t(std::min<std::uint64_t>(count, plan.count));
    std::vector<std::unique_ptr<Worker>> workers;
    for (std::uint32_t i = 0, first = 0; i < count; ++i) {
        const auto channels = std::uint32_t(part(plan.connections, i, count));
        workers.push_back(std::make_unique<Worker>(plan, team, pattern, first, channels, part(plan.count, i, count)));
        first += channels;
    }
    auto all = std::make_unique<Outcome>();
    {
        evpl::ThreadOptions options;
        options.loop.mode = plan.mode;
        options.name = "evpl-perf";
        std::vector<evpl::Thread> threads;  // joined before anything else goes
        for (std::uint32_t i = 1; i < count; ++i) {
            auto thread = evpl::Thread::start(options);
            if (!thread) {
                all->failure = "cannot start a thread: " + text_of(thread.error());
                return *all;
            }
            thread->post([&worker = *workers[i], &loop = thread->loop()] { worker.start(loop); });
            threads.push_back(*std::move(thread));
        }
        evpl::Loop loop(options.loop);
        loop.post([&worker = *workers[0], &loop] { worker.start(loop); });
        if (loop.run() != 0 && workers[0]->out.failure.empty()) workers[0]->out.failure = std::string(loop.last_failure());
        for (evpl::Thread& thread : threads) thread.join();
    }
    for (const auto& worker : workers) merge(*all, worker->out);
    if (all->failure.empty() && all->messages() == 0) all->failure = "no reply from " + plan.url;
    return *all;
}

}  // namespace tool
