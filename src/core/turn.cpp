// One turn of a loop: gather what has happened, call back, send, and decide how to wait.
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "base/clock.hpp"
#include "base/log_line.hpp"
#include "base/settings.hpp"
#include "core/loop_core.hpp"
#include "memory/array_pool.hpp"

namespace evpl::core {
namespace {

/// Callbacks cause sends and sends cause callbacks: so often within one turn, then other connections have theirs.
constexpr unsigned rounds_max = 4;
/// While ports that are polled in memory are busy, the kernel is asked at most this often.
constexpr std::int64_t kernel_poll_ns = 20'000;
/// Unused memory is looked for this often.
constexpr std::int64_t trim_ns = 500'000'000;
/// Longer than this an idle time says nothing but "long".
constexpr std::int64_t gap_cap_spins = 4;
/// While an outbox waits for its memory's registration the loop sleeps no longer than this: who registers rings the loop that has asked first,
/// which may be another one, or awake still and just about to sleep.
constexpr std::int64_t key_retry_ns = 1'000'000;
/// What is due later than this wakes the loop by its timer's descriptor, armed once for many sleeps.
constexpr std::int64_t long_wait_ns = 10'000'000;

}  // namespace

bool LoopCore::has_work() const noexcept {
    return poll_again_ || !marked_.empty() || !dirty_.empty() || !deferred_.empty() || ready_watches_ != nullptr || !control->mailbox.empty() ||
           (sleeper_ != nullptr && sleeper_->has_leftover());
}

// -- gather ----------------------------------------------------------------------------------------------------

unsigned LoopCore::poll_ports() noexcept {
    unsigned events = 0;
    poll_again_ = false;
    for (PortEntry* entry = ports_; entry != nullptr; entry = entry->next) events += entry->port->poll(options.batch);
    return events;
}

unsigned LoopCore::gather(std::int64_t wait_ns_max) noexcept {
    unsigned events = 0;
    if (memory_ports_ || poll_again_) events = poll_ports();
    if (wait_ns_max > 0 && events == 0) return sleep(wait_ns_max);  // which looks at all queues itself
    // Bell and timer alone need no look while the loop is awake: who rings has put something into a queue that is looked at anyway.
    if (sleeper_ == nullptr || sleeper_->watched() <= own_watchers_) return events;
    if (memory_ports_) {
        if (now_ns() - last_wait_ns_ < kernel_poll_ns && !sleeper_->has_leftover()) return events;
        last_wait_ns_ = now_ns_;
    }
    return events + sleeper_->wait(0, options.batch, options.batch_bytes);
}

unsigned LoopCore::sleep(std::int64_t wait_ns_max) noexcept {
    if (sleeper_ == nullptr && !sleeper()) return 0;  // no descriptor is left: the loop spins, and everything still works
    if (before_wait != nullptr) before_wait(before_wait_context, facade);
    control->bell.prepare_sleep();
    bool stay_awake = has_work() || control->stop_requested() != stopping;
    for (PortEntry* entry = ports_; memory_ports_ && entry != nullptr; entry = entry->next) {
        const transport::Armed armed = entry->port->arm();
        stay_awake |= armed.work_waiting;
        wait_ns_max = std::min(wait_ns_max, armed.sleep_ns_max);
    }
    if (!unkeyed_.empty()) [[unlikely]]
        wait_ns_max = std::min(wait_ns_max, key_retry_ns);
    std::int64_t due = timers.next_due_ns();
    if (trim_pending_) due = std::min(due, trim_due_ns_);
    if (stay_awake) wait_ns_max = 0;
    else if (due != INT64_MAX) wait_ns_max = wait_until(due, wait_ns_max);
    if (wait_ns_max > 0) ++metrics.sleeps;
    now_stale_ = true;  // the hook and the wait take their time
    const unsigned events = sleeper_->wait(wait_ns_max, options.batch, options.batch_bytes);
    if (wait_ns_max > 0) busy_since_cycles_ = base::cycles();
    control->bell.cancel_sleep();
    for (PortEntry* entry = ports_; memory_ports_ && entry != nullptr; entry = entry->next) entry->port->disarm();
    if (memory_ports_) last_wait_ns_ = now_ns();
    if (after_wait != nullptr) after_wait(after_wait_context, facade);
    return events;
}

/// How long the kernel may wait so that the loop is awake at `due_ns`. A limit on each wait would have the kernel set and cancel a timer
/// each time, and nearly always in vain; the descriptor stays armed from sleep to sleep, and wakes a loop for nothing now and then.
std::int64_t LoopCore::wait_until(std::int64_t due_ns, std::int64_t wait_ns_max) noexcept {
    if (due_ns >= timer_due_ns_) return wait_ns_max;
    const std::int64_t left_ns = std::max<std::int64_t>(due_ns - base::clock_ns(), 0);
    if (left_ns >= wait_ns_max) return wait_ns_max;
    return left_ns >= long_wait_ns && arm_timer(due_ns, left_ns) ? wait_ns_max : left_ns;
}

bool LoopCore::arm_timer(std::int64_t due_ns, std::int64_t left_ns) noexcept {
    if (nested_ || base::is_virtual_time() || !open_timer()) return false;
    const itimerspec when{{}, {time_t(left_ns / 1'000'000'000), long(left_ns % 1'000'000'000)}};
    if (timerfd_settime(timer_fd_, 0, &when, nullptr) != 0) return false;
    timer_due_ns_ = due_ns;
    return true;
}

/// False: no descriptor is left for it.
bool LoopCore::open_timer() noexcept {
    if (timer_fd_ >= 0) return true;
    timer_fd_ = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (timer_fd_ < 0) return false;
    if (sleeper_->add(timer_watcher_, timer_fd_, EPOLLIN | EPOLLET)) {
        ++own_watchers_;
        return true;
    }
    ::close(std::exchange(timer_fd_, -1));
    return false;
}

std::uint32_t LoopCore::TimerWatcher::ready(std::uint32_t) {
    core.timer_due_ns_ = INT64_MAX;
    core.trim_skipped_ = UINT8_MAX;  // this turn looks whether it was for the trim
    return 0;
}

// -- work ------------------------------------------------------------------------------------------------------

unsigned LoopCore::dispatch_marked() noexcept {
    unsigned count = 0;
    decltype(marked_) batch;
    batch.take(marked_);
    while (Member* member = batch.pop()) {
        member->dispatch();
        ++count;
    }
    return count;
}

unsigned LoopCore::flush_dirty() noexcept {
    unsigned count = 0;
    decltype(dirty_) batch;
    batch.take(dirty_);
    while (Member* member = batch.pop()) {
        member->flush_outbox();
        ++count;
    }
    metrics.flushes += count;
    return count;
}

unsigned LoopCore::run_posts() noexcept {
    if (control->mailbox.empty()) return 0;
    const unsigned count = control->mailbox.drain(options.batch, [this](Task& task) {
        try {
            task();
        } catch (...) {
            callback_threw();
        }
    });
    metrics.posts_run += count;
    return count;
}

unsigned LoopCore::run_deferred() noexcept {
    unsigned count = 0;
    const std::uint32_t waiting = std::min(deferred_.size(), options.batch);  // what these defer waits for the next turn
    for (; count < waiting; ++count) {
        Task task = std::move(deferred_.front());
        deferred_.pop();
        try {
            task();
        } catch (...) {
            callback_threw();
        }
    }
    if (count > 0 && deferred_.empty()) deferred_.shrink();
    return count;
}

unsigned LoopCore::run_timers() noexcept {
    const unsigned fired = timers.expire(now_ns(), options.batch);
    metrics.timers_fired += fired;
    return fired;
}

void LoopCore::retry_unkeyed() noexcept {
    for (std::uint32_t left = unkeyed_.size(); left > 0; --left) {
        const Waiting waiting = unkeyed_.front();
        unkeyed_.pop();
        if (Member* member = find(waiting.slot, waiting.generation)) mark_dirty(*member);
    }
}

unsigned LoopCore::work() noexcept {
    unsigned done = 0;
    if (!unkeyed_.empty()) [[unlikely]]
        retry_unkeyed();
    for (unsigned round = 0; round < rounds_max; ++round) {
        done += dispatch_marked();
        if (round == 0) {
            if (ready_watches_ != nullptr) done += run_watches();
            if (!timers.empty()) done += run_timers();
            done += run_posts() + run_deferred();
            done += dispatch_marked();
        }
        done += flush_dirty();
        if (poll_again_) {
            if (round + 1 == rounds_max) break;  // the next turn begins with it: what came now would be settled before its callback
            done += poll_ports();
        }
        if (marked_.empty() && dirty_.empty()) break;
    }
    return done;
}

void LoopCore::finish_turn(bool busy) noexcept {
    while (Member* member = touched_.pop()) member->settle();
    heap_->drain_returns();
    heap_->flush_departures();
    if (turn_end != nullptr) turn_end(turn_end_context, facade);
    free_buried();
    ++metrics.turns;
    now_stale_ = true;
    in_burst_ = busy;
    if (!busy) {
        ++metrics.empty_polls;
        return;
    }
    const std::uint64_t now = base::cycles();
    const std::uint64_t spent = now - busy_since_cycles_;
    busy_since_cycles_ = now;
    busy_cycles += spent;
    if (spent > longest_turn_cycles) longest_turn_cycles = spent;
    // A cycle is never longer than a nanosecond: what is short in cycles is short.
    if (spent > std::uint64_t(options.stall.ns)) [[unlikely]]
        count_long_turn(spent);
}

void LoopCore::count_long_turn(std::uint64_t spent_cycles) noexcept {
    const std::int64_t spent_ns = cycle_scale.ns(spent_cycles);
    if (spent_ns <= options.stall.ns) return;
    ++metrics.stalls;
    base::log_format(LogLevel::warning, "%s: a turn took %lld us: a callback or a timer works too long", options.name, static_cast<long long>(spent_ns / 1000));
}

bool LoopCore::turn(std::int64_t wait_ns_max) noexcept {
    if (!in_burst_) busy_since_cycles_ = base::cycles();  // polling that finds something is work, too
    const unsigned events = gather(wait_ns_max);
    const std::int64_t started_ns = options.mode == Mode::hybrid ? now_ns() : 0;
    const bool busy = work() + events > 0;
    finish_turn(busy);
    if (options.mode == Mode::hybrid) learn(started_ns, busy);
    trim_when_due(busy);
    return busy;
}

// Two looks at an idle loop give back what it does not need; then it sleeps undisturbed.
void LoopCore::trim_when_due(bool busy) noexcept {
    if (!trim_pending_) {
        if (!busy) return;
        trim_pending_ = true;
        trim_due_ns_ = now_ns() + trim_ns;
        return;
    }
    if (busy && ++trim_skipped_ != 0) [[likely]]
        return;  // one busy turn in 256 looks at the time
    if (now_ns() < trim_due_ns_) return;
    trim_pending_ = heap_->trim();
    trim_due_ns_ = now_ns() + trim_ns;
    if (!trim_pending_) memory::trim_arrays();
}

// -- hybrid ----------------------------------------------------------------------------------------------------

// Spinning pays when the next event is expected sooner than a sleep and wake-up cost. What is learned is the usual length of an idle
// time, whether it was spent spinning or asleep, so no probe is needed to find out that traffic has become dense.
void LoopCore::learn(std::int64_t started_ns, bool busy) noexcept {
    if (!busy) {
        if (idle_since_ns_ == 0) idle_since_ns_ = now_ns();
        return;
    }
    if (idle_since_ns_ != 0) {
        const std::int64_t gap = std::min(started_ns - idle_since_ns_, options.spin.ns * gap_cap_spins);
        expected_gap_ns_ += (gap - expected_gap_ns_) / 4;
    }
    idle_since_ns_ = now_ns();
    const bool dense = expected_gap_ns_ <= options.spin.ns;
    spin_until_ns_ = dense ? idle_since_ns_ + options.spin.ns : idle_since_ns_;
}

std::int64_t LoopCore::next_wait_ns() const noexcept {
    switch (options.mode) {
    case Mode::poll: return 0;
    case Mode::event: return INT64_MAX;
    case Mode::hybrid: return now_ns() < spin_until_ns_ ? 0 : INT64_MAX;
    }
    return INT64_MAX;
}

// -- run -------------------------------------------------------------------------------------------------------

bool LoopCore::is_idle() const noexcept { return members_ == nullptr && timers.timers() == 0 && watches_ == 0 && !has_work(); }

namespace {
/// Which loop runs on this thread: memory let go for other loops is sent home in batches, and nested loops restore it.
class Current {
public:
    explicit Current(memory::Heap* heap) noexcept : heap_(heap), before_(memory::Heap::current()) { memory::Heap::set_current(heap); }
    ~Current() {
        heap_->flush_departures();
        memory::Heap::set_current(before_);
    }

private:
    memory::Heap* const heap_;
    memory::Heap* const before_;
};
}  // namespace

int LoopCore::run(bool until_idle) noexcept {
    if (running_) {
        fail(Errc::misuse, "run() was called inside a callback of the same loop");
        return 1;
    }
    if (const base::Fault* fault = base::settings().fault_of("loop")) {
        fail(fault->error, "%s", fault->sentence.c_str());
        return 1;
    }
    if (is_forked_off()) return 1;
    const Current current(heap_);
    running_ = true;
    now_stale_ = true;
    in_burst_ = false;
    for (;;) {
        if (control->stop_requested() && stop_step()) break;
        if (until_idle && is_idle()) break;
        std::int64_t wait = next_wait_ns();
        if (stopping && wait > 0) wait = std::clamp<std::int64_t>(drain_until_ns_ - now_ns(), 0, 10'000'000);
        turn(wait);
    }
    control->clear_stop();
    stopping = draining_ = false;
    if (sleeper_ != nullptr) sleeper_->hand_over();
    running_ = false;
    return 0;
}

bool LoopCore::run_once(std::int64_t wait_ns) noexcept {
    if (running_ || is_forked_off()) return false;
    const Current current(heap_);
    running_ = true;
    if (armed_for_host_) disarm_for_host();
    now_stale_ = true;
    in_burst_ = false;
    bool busy = false;
    if (control->stop_requested() && stop_step()) {
        control->clear_stop();
        stopping = draining_ = false;
    } else {
        busy = turn(wait_ns);
        for (PortEntry* entry = ports_; poll_again_ && entry != nullptr; entry = entry->next) entry->port->hand_over();
    }
    if (nested_) arm_for_host();
    else if (sleeper_ != nullptr) sleeper_->hand_over();
    running_ = false;
    return busy;
}

// -- stop ------------------------------------------------------------------------------------------------------

/// One look at a stop under way. True: every member had its last callback.
bool LoopCore::stop_step() noexcept {
    if (!stopping) {
        stopping = true;
        const std::int64_t drain_ns = control->drain_ns();
        draining_ = drain_ns > 0;
        drain_until_ns_ = AlarmWheel::due_after(now_ns(), drain_ns);
        stop_members(draining_);
    } else if (draining_) {
        const std::int64_t drain_ns = control->drain_ns();  // a later, shorter request
        if (drain_ns == 0 || now_ns() >= drain_until_ns_) {
            draining_ = false;
            stop_members(false);
        }
    } else if (alive_ > 0 && marked_.empty()) {
        stop_members(false);  // what callbacks opened meanwhile
    }
    return alive_ == 0;
}

void LoopCore::stop_members(bool drain) noexcept {
    for (Member *member = members_, *next; member != nullptr; member = next) {
        next = member->next;  // a listener leaves the list
        if (member->is_alive()) member->stop(drain, Error(Errc::stopped, Step::loop, Who::local));
    }
}

// -- nesting ---------------------------------------------------------------------------------------------------

// The host's loop sleeps on our descriptor: whatever may need us has to make it readable.
void LoopCore::arm_for_host() noexcept {
    armed_for_host_ = true;
    control->bell.prepare_sleep();
    sleeper_->hand_over();
    bool now = has_work() || control->stop_requested();
    std::int64_t due = timers.next_due_ns();
    if (!unkeyed_.empty()) due = std::min(due, AlarmWheel::due_after(now_ns(), key_retry_ns));
    for (PortEntry* entry = ports_; memory_ports_ && entry != nullptr; entry = entry->next) {
        const transport::Armed armed = entry->port->arm();
        now |= armed.work_waiting;
        if (armed.sleep_ns_max != INT64_MAX) due = std::min(due, AlarmWheel::due_after(now_ns(), armed.sleep_ns_max));
    }
    if (now) due = 1;  // in the past: at once
    itimerspec when{};
    if (due != INT64_MAX) {
        when.it_value.tv_sec = time_t(due / 1'000'000'000);
        when.it_value.tv_nsec = long(due % 1'000'000'000);
    }
    timerfd_settime(timer_fd_, TFD_TIMER_ABSTIME, &when, nullptr);
}

void LoopCore::disarm_for_host() noexcept {
    armed_for_host_ = false;
    control->bell.cancel_sleep();
    for (PortEntry* entry = ports_; memory_ports_ && entry != nullptr; entry = entry->next) entry->port->disarm();
}

}  // namespace evpl::core
