#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>

#include "core/wheel.hpp"
#include "evpl/task.hpp"

namespace evpl::core {

// -- alarms ------------------------------------------------------------------------------------------------------

/// A place in a ring of alarms; the head of a ring is no more than that.
struct AlarmLinks {
    AlarmLinks* next = nullptr;
    AlarmLinks* previous = nullptr;
};

/// An internal deadline, to be embedded: no task, no allocation. Its owner cancels it before it goes away.
struct Alarm : AlarmLinks {
    std::uint64_t due_tick = 0;
    /// Runs on the loop's thread with the alarm no longer set; may set or cancel any alarm and destroy this one.
    /// Must not throw.
    void (*due_fn)(Alarm&) = nullptr;

    bool is_set() const noexcept { return next != nullptr; }
};

struct AlarmNodes {
    using Ref = AlarmLinks*;
    AlarmNodes() noexcept {
        for (AlarmLinks& head : heads) head = {&head, &head};
    }
    static AlarmLinks& links(Ref node) noexcept { return *node; }
    Ref head(unsigned slot) noexcept { return &heads[slot]; }
    unsigned slot_of(Ref head) const noexcept { return unsigned(head - heads.data()); }
    static std::uint64_t due_tick(Ref node) noexcept { return static_cast<Alarm*>(node)->due_tick; }
    static void set_due_tick(Ref node, std::uint64_t tick) noexcept { static_cast<Alarm*>(node)->due_tick = tick; }

    std::array<AlarmLinks, wheel_heads> heads;
};

/// The alarms of one loop. Thread: the loop's. Nothing here fails or allocates.
class AlarmWheel : public Wheel<AlarmNodes> {
public:
    /// Due at `due_ns` or up to a tick later, never earlier; INT64_MAX: never. Sets it anew when it is set already.
    /// Cost: O(1); touches this alarm, its neighbours and the slot.
    void set(Alarm& alarm, std::int64_t now_ns, std::int64_t due_ns) noexcept;
    /// When it is due, or was when its due_fn ran: not earlier than when it was set.
    static std::int64_t due_ns(const Alarm& alarm) noexcept { return std::int64_t(alarm.due_tick << tick_shift); }
    /// Harmless when it is not set. Cost: O(1).
    void cancel(Alarm& alarm) noexcept;
    /// Calls due_fn of up to `budget` alarms that are due; see Wheel::expire().
    unsigned expire(std::int64_t now_ns, unsigned budget) noexcept;
};

// -- timers ------------------------------------------------------------------------------------------------------

class TimerWheel;

/// The home of 512 timers. Type-stable: it returns to a pool of the process and is never freed, so that a task never
/// moves, and a Timer that outlives its loop still finds an epoch to compare.
struct TimerChunk {
    static constexpr unsigned row_bits = 9;
    static constexpr std::uint32_t capacity = 1u << row_bits;

    /// One cache line for each timer, only written by an add: the due time lies in what is the padding of a Task.
    struct Job : Task {
        explicit Job(Task&& task) noexcept : Task(std::move(task)) {}
        bool repeats() const noexcept { return (due & 1) != 0; }
        std::uint64_t due;  // tick << 1 | repeats; bit fields would be read before they are written
    };
    static_assert(sizeof(Job) == 64);
    struct Cycle {
        std::int64_t due_ns, period_ns;  // exact: a periodic timer stays on its grid
    };

    TimerWheel* wheel;
    TimerChunk* next;
    std::uint32_t first;  // its wheel's index of row 0
    /// Counts the wheels it has served. Stale handles read it, on other threads too.
    std::atomic<std::uint32_t> epoch{0};
    alignas(64) std::byte jobs[capacity][sizeof(Job)];
    std::array<Cycle, capacity> cycles;  // written for periodic timers only

    Job& job(std::uint32_t row) noexcept { return *std::launder(reinterpret_cast<Job*>(jobs[row])); }
};

/// Names one use of a row: what evpl::Timer holds. Two whole words: one that was written in parts waits for the stores.
struct TimerHandle {
    TimerHandle() noexcept = default;
    TimerHandle(TimerChunk* home, std::uint64_t word) noexcept : chunk(home), token(word) {}
    /// `plain`: the task needs no destructor.
    TimerHandle(TimerChunk& home, std::uint32_t generation, std::uint32_t row, bool plain) noexcept
        : chunk(&home), token(std::uint64_t(generation) << 32 | std::uint64_t(epoch_of(home)) << 10 | row << 1 | unsigned(plain)) {}

    static std::uint32_t epoch_of(const TimerChunk& chunk) noexcept { return chunk.epoch.load(std::memory_order_relaxed) & ((1u << 22) - 1); }
    std::uint32_t generation() const noexcept { return std::uint32_t(token >> 32); }
    std::uint32_t epoch() const noexcept { return std::uint32_t(token) >> 10; }
    std::uint32_t row() const noexcept { return std::uint32_t(token) >> 1 & (TimerChunk::capacity - 1); }
    bool plain() const noexcept { return (token & 1) != 0; }

    TimerChunk* chunk = nullptr;  // null: out of memory
    std::uint64_t token = 0;
};

/// What a cancel touches, of all timers in one array: 12 bytes of its own and 8 of each neighbour, and nothing of a task
/// that needs no destructor. 100 000 timers have 1.2 MB of rows; as nodes of 128 bytes they missed every cache.
/// Indices of 32 bits: the heads come first, then the rows of the chunks.
struct TimerNodes {
    using Ref = std::uint32_t;
    struct Row {
        std::uint32_t next, previous;
        std::uint32_t generation;  // names one use
    };

    ~TimerNodes();
    Row& links(Ref index) const noexcept { return rows[index]; }
    static Ref head(unsigned slot) noexcept { return slot; }
    static unsigned slot_of(Ref head) noexcept { return head; }
    TimerChunk& chunk_of(Ref index) const noexcept { return *chunks[(index - wheel_heads) >> TimerChunk::row_bits]; }
    static std::uint32_t row_of(Ref index) noexcept { return (index - wheel_heads) % TimerChunk::capacity; }
    TimerChunk::Job& job_of(Ref index) const noexcept { return chunk_of(index).job(row_of(index)); }
    std::uint64_t due_tick(Ref index) const noexcept { return job_of(index).due >> 1; }
    /// Makes it a timer that fires once.
    void set_due_tick(Ref index, std::uint64_t tick) noexcept { job_of(index).due = tick << 1; }
    /// False: out of memory.
    bool add_chunk(TimerChunk& chunk) noexcept;

    Row* rows = nullptr;
    TimerChunk** chunks = nullptr;
    std::uint32_t chunk_count = 0;
    std::uint32_t chunk_capacity = 0;
};

/// The timers and alarms of one loop. Thread: the loop's.
class TimerWheel : private Wheel<TimerNodes> {
public:
    /// Called when a task threw, on the loop's thread, inside the catch block.
    using Threw = void (*)(void* context);

    explicit TimerWheel(Threw threw = nullptr, void* context = nullptr) noexcept : threw_(threw), context_(context) {}
    /// Destroys the tasks that are left, without running them. Alarms are their owners' to cancel before.
    ~TimerWheel();

    /// Runs `task` once after `delay_ns` (INT64_MAX: never), or every `period_ns` when that is positive, first after
    /// `delay_ns`. A null chunk: out of memory; the task is still the caller's. Cost: O(1), and a chunk of 50 KiB at
    /// times.
    TimerHandle add(std::int64_t now_ns, std::int64_t delay_ns, Task&& task, std::int64_t period_ns = 0) noexcept;
    /// True: it was pending, and its task is destroyed; of the running one, as soon as it returns. A stale handle: false.
    static bool cancel(TimerHandle handle) noexcept;
    static bool pending(TimerHandle handle) noexcept;

    void set_alarm(Alarm& alarm, std::int64_t now_ns, std::int64_t due_ns) noexcept { alarms_.set(alarm, now_ns, due_ns); }
    void cancel_alarm(Alarm& alarm) noexcept { alarms_.cancel(alarm); }

    /// When expire() has something to do: never too late; early only to move what is set between levels.
    std::int64_t next_due_ns() const noexcept { return std::min(Wheel::next_due_ns(), alarms_.next_due_ns()); }
    /// Runs up to `budget` alarms and timers that are due; see Wheel::expire(). A call from within one does nothing.
    unsigned expire(std::int64_t now_ns, unsigned budget) noexcept;

    /// Neither timers nor alarms.
    bool empty() const noexcept { return Wheel::size() == 0 && alarms_.size() == 0; }
    /// Timers that will still run; alarms do not count.
    std::size_t timers() const noexcept { return size(); }

private:
    void fire(std::uint32_t index, std::int64_t now_ns) noexcept;
    void call(Task& task) noexcept;
    void free(std::uint32_t index, bool plain) noexcept;
    bool grow() noexcept;

    std::uint32_t free_ = 0;     // list of free rows through `next`; 0, a head, ends it
    std::uint32_t running_ = 0;  // whose task runs
    /// Rows freed last, whose jobs are still on their way into the cache: add() takes one that has arrived.
    std::array<std::uint32_t, 8> arriving_{};
    unsigned freed_ = 0;
    bool closing_ = false;
    Threw threw_;
    void* context_;
    AlarmWheel alarms_;
};

}  // namespace evpl::core
