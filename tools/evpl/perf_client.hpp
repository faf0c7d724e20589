#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include <evpl/loop.hpp>

#include "pattern.hpp"
#include "perf.hpp"

namespace tool {

class Worker;

/// A datagram without a reply for so long counts as lost. Far above a round trip on a loaded machine, far below a run.
inline constexpr std::int64_t lost_after_ns = 100'000'000;
/// A run in which no reply comes for so long has failed.
inline constexpr std::int64_t stalled_after_ns = 5'000'000'000;
/// Messages up to here are copied into the loop's blocks, as a program that builds small messages does; larger ones go
/// by reference.
inline constexpr std::uint32_t copied_bytes_max = 2048;

/// One source of messages: a connection, a datagram socket, or a series of connections. Lives on its worker's loop.
class Channel {
public:
    Channel(Worker& worker, std::uint32_t index) : worker_(worker), index_(index) {}
    virtual ~Channel() = default;
    Channel(const Channel&) = delete;
    Channel& operator=(const Channel&) = delete;

    /// Starts it; Worker::opened() or Worker::failed() follows.
    virtual void open() = 0;
    /// Sends what may be sent now.
    virtual void pump(std::int64_t now) = 0;
    /// Gives up on what has waited too long.
    virtual void expire(std::int64_t) {}
    /// From here on messages count.
    void measure_from_here() { measured_from_ = sent_; }
    std::uint32_t index() const { return index_; }
    std::uint64_t sent() const { return sent_; }

protected:
    /// When message n counts as sent: in an open loop when it was due, else `really`.
    std::int64_t sent_time(std::uint64_t n, std::int64_t really) const;
    /// Message n may go: its time has come and the plan asks for more.
    bool may_send(std::int64_t now);
    void record(std::uint64_t n, std::int64_t sent_at, std::int64_t now);
    bool measured(std::uint64_t n) const { return n >= measured_from_; }

    Worker& worker_;
    const std::uint32_t index_;
    std::uint64_t sent_ = 0;  ///< messages; also the number of the next one

private:
    std::uint64_t measured_from_ = 0;
};

/// What the threads of one measurement share. Written by one, read by others: progress and bad news only.
struct Team {
    std::atomic<std::uint64_t> replies{0};
    std::atomic<bool> failed{false};
};

/// One thread's part of a measurement: a loop, its channels and its results.
class Worker {
public:
    Worker(const Plan& plan, Team& team, const Pattern& pattern, std::uint32_t first, std::uint32_t channels, std::uint64_t quota);
    ~Worker();

    /// Opens the channels; the loop stops when all is done. Thread: the loop's, like all but the results.
    void start(evpl::Loop& loop);

    // -- for channels ------------------------------------------------------------------------------------------
    const Plan& plan() const { return plan_; }
    const Pattern& pattern() const { return pattern_; }
    const evpl::Buffer& table() const { return table_; }
    evpl::Loop& loop() { return *loop_; }
    std::int64_t clock() const { return loop_->now_precise().ns; }
    bool ending() const { return ending_; }
    void opened();
    void failed(std::string why);
    void corrupt(std::string what);
    /// The connection of a channel could not be made, or ended.
    void lost_peer(evpl::Error error, bool was_open);
    /// One more message may go; takes it from the quota.
    bool take_one();
    bool due(const Channel& channel, std::int64_t now) const { return due_time(channel, channel.sent()) <= now; }
    /// When message n of a channel is due in an open loop.
    std::int64_t due_time(const Channel& channel, std::uint64_t n) const;
    void record(std::int64_t ns);
    void count_reply() { ++replies_; }
    void count_lost(bool measured);
    void count_late() { out.late += measuring_; }
    void count_retry() { ++out.retries; }

    Outcome out;  ///< complete when the loop has ended

private:
    void warm();
    void pump_all();
    void pace(std::int64_t now);
    void tick();
    void show_progress(std::int64_t now);
    void finish();
    bool quota_met() const { return quota_ > 0 && out.messages() + out.lost >= quota_; }

    const Plan& plan_;
    Team& team_;
    const Pattern& pattern_;
    evpl::Loop* loop_ = nullptr;
    evpl::Buffer table_;
    const bool leads_;           ///< shows progress
    const std::uint64_t quota_;  ///< messages to measure; 0: by time
    std::uint64_t budget_ = 0;   ///< of those, not yet sent
    std::vector<std::unique_ptr<Channel>> channels_;
    evpl::Timer ticker_, clock_timer_, pacer_;
    std::size_t open_ = 0;
    bool running_ = false, measuring_ = false, ending_ = false;
    std::int64_t began_ = 0, measuring_since_ = 0, last_reply_ = 0, last_shown_ = 0;
    std::uint64_t replies_ = 0, replies_seen_ = 0, replies_published_ = 0, replies_shown_ = 0;
};

/// One connection, one datagram socket, or connections one after the other: perf_stream.cpp, perf_packets.cpp,
/// perf_connect.cpp.
std::unique_ptr<Channel> make_stream_channel(Worker& worker, std::uint32_t index);
std::unique_ptr<Channel> make_packet_channel(Worker& worker, std::uint32_t index);
std::unique_ptr<Channel> make_connect_channel(Worker& worker, std::uint32_t index);

}  // namespace tool
