#pragma once

#include <cstdarg>
#include <cstdint>

#include "base/clock.hpp"
#include "core/loop_control.hpp"
#include "core/member.hpp"
#include "core/timer_wheel.hpp"
#include "evpl/loop.hpp"
#include "memory/heap.hpp"
#include "memory/ring_queue.hpp"
#include "transport/transport.hpp"

namespace evpl::core {

class Resolver;

/// A foreign descriptor's entry. From a type-stable pool of the loop.
struct WatchState final : transport::Watcher {
    std::uint32_t ready(std::uint32_t events) override;
    LoopCore* core = nullptr;
    void (*call)(void* context, Ready what) = nullptr;
    void* context = nullptr;
    WatchState* next_free = nullptr;
    WatchState* next_ready = nullptr;
    std::uint32_t pending = 0;
    bool queued = false;
};

/// A loop behind its facade: ports, sleeper, timers, members, and the turn.
class LoopCore final : public transport::Host {
public:
    /// Null: out of memory.
    static LoopCore* create(Loop& facade, const LoopOptions& options) noexcept;
    ~LoopCore();

    // -- Host
    memory::Heap& heap() noexcept override { return *heap_; }
    Result<transport::Sleeper*> sleeper() noexcept override;
    bool adopt_sleeper(transport::Sleeper& successor) noexcept override;
    transport::Bell& bell() noexcept override { return control->bell; }
    std::int64_t now_ns() const noexcept override {
        if (now_stale_) read_clock();
        return now_ns_;
    }
    std::uint32_t batch_bytes() const noexcept override { return options.batch_bytes; }
    void set_alarm(transport::Port& port, std::int64_t at_ns) noexcept override;
    void poll_again() noexcept override { poll_again_ = true; }
    void log_line(std::uint8_t level, std::string_view line) noexcept override;

    // -- run
    int run(bool until_idle) noexcept;
    bool run_once(std::int64_t wait_ns) noexcept;
    Result<int> native_fd() noexcept;
    /// We are a forked child, and this loop is in use in the parent; last_failure says so.
    bool is_forked_off() noexcept;

    // -- members
    void enroll(Member& member) noexcept;
    /// Its last callback has returned; its link may still retire.
    void passed_away(Member& member) noexcept;
    /// Out of the list; destroyed at the end of the turn.
    void bury(Member& member) noexcept;
    void mark(Member& member) noexcept { marked_.push(member); }
    void mark_dirty(Member& member) noexcept { dirty_.push(member); }
    void touch(Member& member) noexcept { touched_.push(member); }

    // -- slots: what ConnectionRef and DatagramRef name
    struct Slot {
        Member* member;
        std::uint32_t generation;
        std::uint32_t next_free;
    };
    /// False: out of memory.
    bool take_slot(Member& member, std::uint32_t& slot, std::uint32_t& generation) noexcept;
    void free_slot(std::uint32_t slot) noexcept;
    Member* find(std::uint32_t slot, std::uint32_t generation) const noexcept {
        return slot < slot_count_ && slots_[slot].generation == generation ? slots_[slot].member : nullptr;
    }

    Result<transport::Port*> port_of(transport::Transport& transport) noexcept;
    /// Counts an endpoint that another transport serves, and says so in the log, once per loop.
    void note_fallback(const transport::Scheme& wanted, const transport::Scheme& instead, const Endpoint& endpoint, std::string_view why) noexcept;
    Resolver* resolver() noexcept;  ///< null: out of memory

    /// Flushes this member again in a turn after the registrar has rung.
    void flush_when_keyed(std::uint32_t slot, std::uint32_t generation) noexcept;

    // -- work
    bool defer(Task&& task) noexcept;
    Result<WatchState*> watch(int fd, Ready wanted, void (*ready)(void*, Ready), void* context) noexcept;
    void unwatch(WatchState& state) noexcept;
    void watch_ready(WatchState& state, std::uint32_t events) noexcept;

    /// Records the sentence for last_failure() and returns the error.
    [[gnu::format(printf, 3, 4)]] Error fail(Error error, const char* format, ...) noexcept;
    void note_failure(std::string_view sentence) noexcept;
    void callback_threw() noexcept;

    Loop& facade;
    LoopOptions options;
    LoopControl* control = nullptr;
    TimerWheel timers;
    base::BurstClock clock;  ///< for what counts from now and may be a little late
    LoopMetrics metrics;
    std::uint64_t busy_cycles = 0, longest_turn_cycles = 0;
    base::CycleScale cycle_scale;
    char last_failure[320] = {};
    Loop::Hook before_wait = nullptr, after_wait = nullptr, turn_end = nullptr;
    void *before_wait_context = nullptr, *after_wait_context = nullptr, *turn_end_context = nullptr;
    bool stopping = false;

private:
    struct PortEntry : Alarm {
        transport::Transport* transport;
        transport::Port* port;
        LoopCore* core;
        PortEntry* next;
        transport::PollPrice price;
    };
    struct BellWatcher final : transport::Watcher {
        std::uint32_t ready(std::uint32_t) override { return 0; }
    };
    struct TimerWatcher final : transport::Watcher {
        explicit TimerWatcher(LoopCore& owner) noexcept : core(owner) {}
        std::uint32_t ready(std::uint32_t) override;
        LoopCore& core;
    };

    LoopCore(Loop& facade, const LoopOptions& options) noexcept;

    // the turn (turn.cpp)
    bool turn(std::int64_t wait_ns_max) noexcept;
    unsigned gather(std::int64_t wait_ns_max) noexcept;
    unsigned poll_ports() noexcept;
    unsigned sleep(std::int64_t wait_ns_max) noexcept;
    std::int64_t wait_until(std::int64_t due_ns, std::int64_t wait_ns_max) noexcept;
    bool arm_timer(std::int64_t due_ns, std::int64_t left_ns) noexcept;
    bool open_timer() noexcept;
    unsigned work() noexcept;
    unsigned dispatch_marked() noexcept;
    unsigned flush_dirty() noexcept;
    unsigned run_posts() noexcept;
    unsigned run_deferred() noexcept;
    unsigned run_watches() noexcept;
    unsigned run_timers() noexcept;
    void finish_turn(bool busy) noexcept;
    void count_long_turn(std::uint64_t spent_cycles) noexcept;
    bool has_work() const noexcept;
    void learn(std::int64_t started_ns, bool busy) noexcept;
    void trim_when_due(bool busy) noexcept;
    void read_clock() const noexcept {
        now_ns_ = base::clock_ns();
        now_stale_ = false;
    }
    void retry_unkeyed() noexcept;
    std::int64_t next_wait_ns() const noexcept;

    bool is_idle() const noexcept;
    void begin_stop() noexcept;
    void stop_members(bool drain) noexcept;
    bool stop_step() noexcept;
    void arm_for_host() noexcept;
    void disarm_for_host() noexcept;
    void free_buried() noexcept;

    memory::Heap* heap_ = nullptr;
    transport::Sleeper* sleeper_ = nullptr;
    std::uint32_t opened_in_ = 0;  ///< base::forks() when the sleeper was opened
    BellWatcher bell_watcher_;
    TimerWatcher timer_watcher_{*this};
    unsigned own_watchers_ = 1;  ///< the bell, and the timer's descriptor once it is open
    int timer_fd_ = -1;
    std::int64_t timer_due_ns_ = INT64_MAX;  ///< when timer_fd_ wakes us
    PortEntry* ports_ = nullptr;
    bool memory_ports_ = false;
    bool poll_again_ = false;
    bool fallback_told_ = false;
    // The clock costs as much as all else that an idle turn does: it is read when somebody asks, once per turn.
    mutable std::int64_t now_ns_ = 0;
    mutable bool now_stale_ = true;
    std::uint64_t busy_since_cycles_ = 0;  ///< of this turn: its start, which is the end of a busy one before it, or the end of its sleep
    bool in_burst_ = false;                ///< the turn before this one was busy, and nothing came between
    std::int64_t last_wait_ns_ = 0;

    MemberQueue<&Member::next_marked, &Member::marked> marked_;
    MemberQueue<&Member::next_dirty, &Member::dirty> dirty_;
    MemberQueue<&Member::next_touched, &Member::touched> touched_;
    Member* members_ = nullptr;
    Member* buried_ = nullptr;
    std::size_t alive_ = 0;

    Slot* slots_ = nullptr;
    std::uint32_t slot_count_ = 0;
    std::uint32_t slot_capacity_ = 0;
    std::uint32_t free_slot_ = UINT32_MAX;
    std::uint32_t generation_most_ = 1;

    memory::RingQueue<Task, 2> deferred_;
    WatchState* free_watches_ = nullptr;
    WatchState* ready_watches_ = nullptr;
    struct WatchChunk;
    void free_watch_chunk() noexcept;
    WatchChunk* watch_chunks_ = nullptr;
    std::size_t watches_ = 0;
    Resolver* resolver_ = nullptr;
    struct Waiting {
        std::uint32_t slot, generation;
    };
    memory::RingQueue<Waiting, 4> unkeyed_;  ///< members whose outbox waits for registration

    // hybrid
    std::int64_t idle_since_ns_ = 0;    // 0: the last turn had work
    std::int64_t expected_gap_ns_ = 0;  // learned length of idle times
    std::int64_t spin_until_ns_ = 0;
    std::int64_t trim_due_ns_ = 0;
    bool trim_pending_ = false;
    std::uint8_t trim_skipped_ = 0;  // busy turns since the last look at the time

    // stop
    std::int64_t drain_until_ns_ = 0;
    bool draining_ = false;

    // nesting
    bool nested_ = false;
    bool armed_for_host_ = false;
    bool running_ = false;
};

}  // namespace evpl::core

namespace evpl {
/// The library's own door to handles.
struct CoreAccess {
    static core::LoopCore* core(const Loop& loop) noexcept { return loop.core_; }
    template <class Ref>
    static Ref ref(core::LoopControl* control, std::uint32_t slot, std::uint32_t generation) noexcept {
        Ref made;
        made.control_ = control;
        made.slot_ = slot;
        made.generation_ = generation;
        return made;
    }
    static LoopRef loop_ref(core::LoopControl* control, std::uint64_t epoch) noexcept {
        LoopRef made;
        made.control_ = control;
        made.generation_ = epoch;
        return made;
    }
    static Timer timer(core::TimerHandle handle) noexcept {
        Timer made;
        made.chunk_ = handle.chunk;
        made.token_ = handle.token;
        return made;
    }
    static Watch watch(core::WatchState* state) noexcept {
        Watch made;
        made.state_ = state;
        return made;
    }
    template <class Handle, class State>
    static Handle handle(State* state) noexcept {
        Handle made;
        made.state_ = state;
        return made;
    }
    template <class Handle>
    static auto state_of(const Handle& handle) noexcept {
        return handle.state_;
    }
};
}  // namespace evpl
