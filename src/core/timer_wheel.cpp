#include "core/timer_wheel.hpp"

#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <utility>

#include "evpl/timer.hpp"

namespace evpl::core {

// -- alarms ------------------------------------------------------------------------------------------------------

void AlarmWheel::set(Alarm& alarm, std::int64_t now_ns, std::int64_t due_ns) noexcept {
    if (alarm.is_set()) remove(&alarm);
    insert(&alarm, now_ns, due_ns);
}

void AlarmWheel::cancel(Alarm& alarm) noexcept {
    if (!alarm.is_set()) return;
    remove(&alarm);
    alarm.next = nullptr;
}

unsigned AlarmWheel::expire(std::int64_t now_ns, unsigned budget) noexcept {
    return Wheel::expire(now_ns, budget, [](AlarmLinks* node) {
        Alarm& alarm = static_cast<Alarm&>(*node);
        alarm.next = nullptr;
        alarm.due_fn(alarm);
    });
}

// -- where timers live -------------------------------------------------------------------------------------------

TimerNodes::~TimerNodes() {
    std::free(rows);
    std::free(chunks);
}

bool TimerNodes::add_chunk(TimerChunk& chunk) noexcept {
    if (chunk_count == chunk_capacity) {
        const std::uint32_t capacity = std::max(2 * chunk_capacity, 1u);
        if (capacity > 1u << 22) return false;  // 2^31 timers: indices have 32 bits
        const std::size_t row_count = wheel_heads + std::size_t(capacity) * TimerChunk::capacity;
        auto* const more_chunks = static_cast<TimerChunk**>(std::realloc(chunks, capacity * sizeof *chunks));
        if (more_chunks == nullptr) return false;
        chunks = more_chunks;
        auto* const more_rows = static_cast<Row*>(std::realloc(rows, row_count * sizeof(Row)));
        if (more_rows == nullptr) return false;
        if (rows == nullptr) {
            for (std::uint32_t i = 0; i < wheel_heads; ++i) more_rows[i] = {i, i, 0};
        }
        rows = more_rows;
        chunk_capacity = capacity;
    }
    chunk.first = wheel_heads + chunk_count * TimerChunk::capacity;
    chunks[chunk_count++] = &chunk;
    return true;
}

namespace {

/// Chunks of wheels that have ended. They are never freed: a Timer may outlive its loop and still look at its epoch.
struct ChunkStore {
    std::mutex mutex;
    TimerChunk* first = nullptr;

    TimerChunk* take() noexcept {
        const std::lock_guard lock(mutex);
        return first != nullptr ? std::exchange(first, first->next) : nullptr;
    }
    void put(TimerChunk& chunk) noexcept {
        const std::lock_guard lock(mutex);
        chunk.next = std::exchange(first, &chunk);
    }
};
constinit ChunkStore store;

}  // namespace

bool TimerWheel::grow() noexcept {
    TimerChunk* chunk = store.take();
    if (chunk == nullptr) chunk = new (std::nothrow) TimerChunk;  // writes the header only
    if (chunk == nullptr) return false;
    if (!add_chunk(*chunk)) {
        store.put(*chunk);
        return false;
    }
    chunk->wheel = this;
    for (std::uint32_t i = TimerChunk::capacity; i-- > 0;) {  // the lowest ends up first
        const std::uint32_t index = chunk->first + i;
        rows[index] = {std::exchange(free_, index), 0, 0};
    }
    return true;
}

// -- timers ------------------------------------------------------------------------------------------------------

TimerWheel::~TimerWheel() {
    closing_ = true;  // a task's destructor that adds a timer gets none
    for (std::uint32_t index; remove_any(index);) {
        ++rows[index].generation;
        free(index, false);
    }
    for (std::uint32_t i = 0; i < chunk_count; ++i) {
        // Its last wheel's thread alone writes the epoch: from here on all handles of this wheel are stale.
        chunks[i]->epoch.store(chunks[i]->epoch.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
        store.put(*chunks[i]);
    }
}

void TimerWheel::free(std::uint32_t index, bool plain) noexcept {
    if (!plain) job_of(index).~Job();
    std::swap(index, arriving_[freed_++ % arriving_.size()]);
    if (index != 0) [[likely]]
        rows[index].next = std::exchange(free_, index);
}

TimerHandle TimerWheel::add(std::int64_t now_ns, std::int64_t delay_ns, Task&& task, std::int64_t period_ns) noexcept {
    if (closing_ || (free_ == 0 && !grow())) [[unlikely]]
        return {};
    const std::uint32_t index = free_, row = row_of(index);
    TimerChunk& chunk = chunk_of(index);
    new (chunk.jobs[row]) TimerChunk::Job(std::move(task));
    const TimerHandle handle(chunk, rows[index].generation, row, chunk.job(row).is_plain());
    free_ = rows[index].next;
    const std::int64_t due_ns = due_after(now_ns, delay_ns);
    insert(index, now_ns, due_ns);
    if (period_ns > 0) [[unlikely]] {
        chunk.job(row).due |= 1;
        chunk.cycles[row] = {due_ns, period_ns};
    }
    return handle;
}

bool TimerWheel::pending(TimerHandle handle) noexcept {
    const TimerChunk* const chunk = handle.chunk;
    if (chunk == nullptr || TimerHandle::epoch_of(*chunk) != handle.epoch()) return false;
    return chunk->wheel->rows[chunk->first + handle.row()].generation == handle.generation();
}

bool TimerWheel::cancel(TimerHandle handle) noexcept {
    if (!pending(handle)) return false;
    TimerWheel& wheel = *handle.chunk->wheel;
    const std::uint32_t index = handle.chunk->first + handle.row();
    // Whoever cancels a timer mostly sets another one. It will soon be written here, so let the line come.
    __builtin_prefetch(handle.chunk->jobs[handle.row()], 1);
    // Its handles go stale before the task is destroyed, since that may run anything; only then is the row free.
    wheel.rows[index].generation = handle.generation() + 1;
    wheel.remove(index);
    // A periodic timer that cancels itself: its task is running and goes when it returns.
    if (index != wheel.running_) [[likely]]
        wheel.free(index, handle.plain());
    return true;
}

unsigned TimerWheel::expire(std::int64_t now_ns, unsigned budget) noexcept {
    if (running_ != 0) return 0;
    // Alarms run no task. So what a task sets finds both rounds begun, and waits for the next call.
    const unsigned alarms = alarms_.expire(now_ns, budget);
    return alarms + Wheel::expire(now_ns, budget - alarms, [this, now_ns](std::uint32_t index) { fire(index, now_ns); });
}

void TimerWheel::fire(std::uint32_t index, std::int64_t now_ns) noexcept {
    TimerChunk& chunk = chunk_of(index);
    TimerChunk::Job& job = chunk.job(row_of(index));
    const std::uint32_t generation = rows[index].generation;
    if (job.repeats()) {
        // The next multiple after now: periods that a late turn missed are not made up for.
        TimerChunk::Cycle& cycle = chunk.cycles[row_of(index)];
        const std::int64_t missed = (now_ns - cycle.due_ns) / cycle.period_ns;
        cycle.due_ns = due_after(due_after(cycle.due_ns, missed * cycle.period_ns), cycle.period_ns);
        insert(index, now_ns, cycle.due_ns);
        job.due |= 1;
    } else {
        ++rows[index].generation;
    }
    running_ = index;
    call(job);
    running_ = 0;
    if (rows[index].generation != generation) free(index, false);  // once, or cancelled by itself
}

void TimerWheel::call(Task& task) noexcept {
    if (!task) return;
    try {
        task();
    } catch (...) {
        if (threw_ != nullptr) threw_(context_);
    }
}

}  // namespace evpl::core

namespace evpl {

void Timer::cancel() noexcept { core::TimerWheel::cancel({std::exchange(chunk_, nullptr), token_}); }

bool Timer::pending() const noexcept { return core::TimerWheel::pending({chunk_, token_}); }

}  // namespace evpl
