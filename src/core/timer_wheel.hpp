#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "evpl/task.hpp"

namespace evpl::core {

/// A place in a ring of links; alone it points to itself (a slot) or to nothing (an alarm that is not set).
struct TimerLinks {
    TimerLinks* next = nullptr;
    TimerLinks* previous = nullptr;
};

/// An internal deadline, to be embedded: no task, no allocation. Its owner cancels it before it goes away.
struct Alarm : TimerLinks {
    std::uint64_t due_tick = 0;
    /// Runs on the loop's thread with the alarm no longer set; may set or cancel any alarm and destroy this one. Must not throw.
    void (*due_fn)(Alarm&) = nullptr;

    bool is_set() const noexcept { return next != nullptr; }
};

/// The raw wheel: links only. Ticks of 1024 ns; 64 slots a level, a bitmap per level. An alarm's level is the highest digit
/// (base 64) in which its tick differs from the wheel's, so the lowest occupied level always holds the earliest alarm, and
/// each alarm moves at most once per level. Nine levels cover every tick of a 63-bit clock: eight end after nine years.
/// Thread: one. Nothing here allocates.
class AlarmWheel {
public:
    static constexpr unsigned tick_shift = 10;
    static constexpr unsigned slot_bits = 6;
    static constexpr unsigned slots = 1u << slot_bits;
    static constexpr unsigned levels = 9;
    /// Alarms that one expire() moves between levels at most, so that 100 000 equal deadlines never stall a turn.
    static constexpr unsigned moved_max = 256;

    AlarmWheel() noexcept;
    AlarmWheel(const AlarmWheel&) = delete;
    AlarmWheel& operator=(const AlarmWheel&) = delete;

    /// Due at `due_ns` or up to a tick later, never earlier; INT64_MAX: never. Sets it anew when it is set already.
    /// Cost: O(1); touches this alarm, its neighbours and the slot.
    void set(Alarm& alarm, std::int64_t now_ns, std::int64_t due_ns) noexcept;
    /// Harmless when it is not set. Cost: O(1).
    void cancel(Alarm& alarm) noexcept;
    /// When expire() has something to do: INT64_MAX when never; never too late; early only to move alarms between levels.
    std::int64_t next_due_ns() const noexcept;
    /// Calls due_fn of up to `budget` alarms that are due, in order of their ticks and, within one tick, mostly of being set.
    /// What is left over stays due. What is set meanwhile waits for the next call. Returns the number of calls.
    unsigned expire(std::int64_t now_ns, unsigned budget) noexcept;

    std::size_t size() const noexcept { return size_; }
    /// now + delay, without overflow; a negative delay counts as none.
    static std::int64_t due_after(std::int64_t now_ns, std::int64_t delay_ns) noexcept;

private:
    struct Place {
        unsigned level, slot;
    };
    bool next_place(Place& place) const noexcept;
    std::uint64_t start_of(Place place) const noexcept;
    void link(Alarm& alarm) noexcept;
    void unlink(TimerLinks& links) noexcept;
    bool cascade(Place place, unsigned& moves_left) noexcept;

    std::uint64_t tick_ = 0;         // every alarm is due at this tick or later
    std::uint64_t floor_tick_ = 0;   // inside expire(): what is set there is due from here on
    std::size_t size_ = 0;
    std::uint32_t occupied_ = 0;     // bit per level
    Place cascading_{0, 0};          // a slot that is only partly moved, when its level is not 0
    std::array<std::uint64_t, levels> bits_{};
    std::array<TimerLinks, levels * slots> slots_;
};

class TimerWheel;

/// A timer of Loop::after() or every(). The first cache line is all that the wheel touches; the task has its own.
/// Type-stable: nodes return to a pool of the process and are never freed, so that a Timer that outlives its loop is harmless.
struct alignas(64) TimerNode : Alarm {
    enum class State : std::uint8_t { free, pending, running };

    std::int64_t due_ns = 0;
    std::int64_t period_ns = 0;  // 0: once
    TimerWheel* wheel = nullptr;
    std::atomic<std::uint32_t> generation{0};  // read by stale handles on other threads, once a node serves another loop
    State state = State::free;
    alignas(64) Task task;
};
static_assert(sizeof(TimerNode) == 128);  // one line for the wheel, one for the task

/// Names one use of a node: what evpl::Timer holds.
struct TimerHandle {
    TimerNode* node = nullptr;  // null: out of memory
    std::uint32_t generation = 0;
};

/// The timers and alarms of one loop. Thread: the loop's.
class TimerWheel {
public:
    /// Called when a task threw, on the loop's thread, inside the catch block.
    using Threw = void (*)(void* context);

    explicit TimerWheel(Threw threw = nullptr, void* context = nullptr) noexcept : threw_(threw), context_(context) {}
    /// Destroys the tasks that are left, without running them. Alarms are their owners' to cancel before.
    ~TimerWheel();
    TimerWheel(const TimerWheel&) = delete;
    TimerWheel& operator=(const TimerWheel&) = delete;

    /// Runs `task` once after `delay_ns` (INT64_MAX: never), or every `period_ns` when that is positive, first after `delay_ns`.
    /// A null node: out of memory; the task is then destroyed. Cost: O(1), cache misses decide, plus the pool growing by 64 KiB at times.
    TimerHandle add(std::int64_t now_ns, std::int64_t delay_ns, Task task, std::int64_t period_ns = 0) noexcept;
    /// True: it was pending, and its task is destroyed; of the running one, as soon as it returns. A stale handle: false.
    static bool cancel(TimerHandle handle) noexcept;
    static bool pending(TimerHandle handle) noexcept;

    void set_alarm(Alarm& alarm, std::int64_t now_ns, std::int64_t due_ns) noexcept { alarms_.set(alarm, now_ns, due_ns); }
    void cancel_alarm(Alarm& alarm) noexcept { alarms_.cancel(alarm); }

    std::int64_t next_due_ns() const noexcept { return alarms_.next_due_ns(); }
    /// As AlarmWheel::expire(), for timers and alarms alike.
    unsigned expire(std::int64_t now_ns, unsigned budget) noexcept;

    /// Timers that will still run; alarms do not count.
    std::size_t timers() const noexcept { return timers_; }

    /// Memory of the pool; TimerWheel's own business.
    struct Chunk;

private:
    static void run_due(Alarm& alarm) noexcept;
    void run(TimerNode& node) noexcept;
    void call(TimerNode& node) noexcept;
    void finish(TimerNode& node) noexcept;
    TimerNode* take_node() noexcept;
    bool grow() noexcept;

    AlarmWheel alarms_;
    TimerLinks* free_ = nullptr;
    Chunk* chunks_ = nullptr;  // the first one may have nodes that were never used
    std::size_t timers_ = 0;
    std::int64_t now_ns_ = 0;
    bool closing_ = false;
    Threw threw_;
    void* context_;
};

}  // namespace evpl::core
