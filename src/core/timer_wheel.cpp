#include "core/timer_wheel.hpp"

#include <algorithm>
#include <bit>
#include <mutex>
#include <new>
#include <utility>

#include "evpl/timer.hpp"

namespace evpl::core {

// -- the raw wheel -----------------------------------------------------------------------------------------------

namespace {

constexpr std::uint64_t tick_ns = 1u << AlarmWheel::tick_shift;

/// Rounded up: an alarm is due when its whole tick has begun, hence never early.
std::uint64_t due_tick_of(std::int64_t due_ns) noexcept {
    return (std::uint64_t(std::max<std::int64_t>(due_ns, 0)) + tick_ns - 1) >> AlarmWheel::tick_shift;
}

std::uint64_t tick_at(std::int64_t now_ns) noexcept {
    return std::uint64_t(std::max<std::int64_t>(now_ns, 0)) >> AlarmWheel::tick_shift;
}

}  // namespace

AlarmWheel::AlarmWheel() noexcept {
    for (TimerLinks& slot : slots_) slot.next = slot.previous = &slot;
}

std::int64_t AlarmWheel::due_after(std::int64_t now_ns, std::int64_t delay_ns) noexcept {
    std::int64_t due_ns = 0;
    return __builtin_add_overflow(now_ns, std::max<std::int64_t>(delay_ns, 0), &due_ns) ? INT64_MAX : due_ns;
}

void AlarmWheel::set(Alarm& alarm, std::int64_t now_ns, std::int64_t due_ns) noexcept {
    if (alarm.is_set()) unlink(alarm);
    // An empty wheel may jump to the present, which saves the alarm its way down from a high level.
    if (size_ == 0) {
        tick_ = std::max(tick_, tick_at(now_ns));
        cascading_ = {0, 0};
    }
    alarm.due_tick = std::max({due_tick_of(due_ns), tick_, floor_tick_});
    link(alarm);
}

void AlarmWheel::cancel(Alarm& alarm) noexcept {
    if (alarm.is_set()) unlink(alarm);
}

void AlarmWheel::link(Alarm& alarm) noexcept {
    // The lowest digit always counts as different: level 0 when nothing above differs.
    const std::uint64_t differing = (alarm.due_tick ^ tick_) | (slots - 1);
    const unsigned level = unsigned(std::bit_width(differing) - 1) / slot_bits;
    const unsigned slot = unsigned(alarm.due_tick >> (level * slot_bits)) % slots;
    TimerLinks& head = slots_[level * slots + slot];
    alarm.next = &head;
    alarm.previous = head.previous;
    head.previous->next = &alarm;
    head.previous = &alarm;
    bits_[level] |= std::uint64_t(1) << slot;
    occupied_ |= 1u << level;
    ++size_;
}

void AlarmWheel::unlink(TimerLinks& links) noexcept {
    TimerLinks* const next = links.next;
    next->previous = links.previous;
    links.previous->next = next;
    links.next = links.previous = nullptr;
    --size_;
    if (next->next != next) return;
    // Only an empty slot points to itself, and its place tells which bit is its own.
    const std::size_t index = std::size_t(next - slots_.data());
    const std::size_t level = index / slots;
    bits_[level] &= ~(std::uint64_t(1) << index % slots);
    if (bits_[level] == 0) occupied_ &= ~(1u << level);
}

/// The first tick of a slot: the wheel's digits above its level, its own digit, zeros below.
std::uint64_t AlarmWheel::start_of(Place place) const noexcept {
    const unsigned shift = place.level * slot_bits;
    return ((tick_ >> shift >> slot_bits << slot_bits) | place.slot) << shift;
}

bool AlarmWheel::next_place(Place& place) const noexcept {
    if (cascading_.level != 0) {  // its alarms may be earlier than any on the levels below
        place = cascading_;
        return true;
    }
    if (occupied_ == 0) return false;
    place.level = unsigned(std::countr_zero(occupied_));
    place.slot = unsigned(std::countr_zero(bits_[place.level]));
    return true;
}

std::int64_t AlarmWheel::next_due_ns() const noexcept {
    Place place;
    if (size_ == 0 || !next_place(place)) return INT64_MAX;
    const std::uint64_t start = start_of(place);
    return start > std::uint64_t(INT64_MAX) >> tick_shift ? INT64_MAX : std::int64_t(start << tick_shift);
}

/// Moves a slot's alarms to lower levels. False: it has more than may be moved now.
bool AlarmWheel::cascade(Place place, unsigned& moves_left) noexcept {
    TimerLinks& head = slots_[place.level * slots + place.slot];
    for (; head.next != &head; --moves_left) {
        if (moves_left == 0) {
            cascading_ = place;
            return false;
        }
        Alarm& alarm = static_cast<Alarm&>(*head.next);
        unlink(alarm);
        link(alarm);
    }
    cascading_ = {0, 0};
    return true;
}

unsigned AlarmWheel::expire(std::int64_t now_ns, unsigned budget) noexcept {
    const std::uint64_t now_tick = tick_at(now_ns);
    const std::uint64_t outer_floor = std::exchange(floor_tick_, std::max(floor_tick_, now_tick + 1));
    unsigned calls = 0;
    unsigned moves_left = moved_max;
    bool all_done = false;
    while (calls < budget) {
        Place place;
        if (!next_place(place) || start_of(place) > now_tick) {
            all_done = true;
            break;
        }
        tick_ = start_of(place);
        if (place.level != 0) {
            if (!cascade(place, moves_left)) break;
            continue;
        }
        Alarm& alarm = static_cast<Alarm&>(*slots_[place.slot].next);
        unlink(alarm);
        ++calls;
        alarm.due_fn(alarm);
    }
    if (all_done) tick_ = std::max(tick_, now_tick);
    floor_tick_ = outer_floor;
    return calls;
}

// -- the pool ----------------------------------------------------------------------------------------------------

struct TimerWheel::Chunk {
    static constexpr std::uint32_t capacity = 511;  // with the header 64 KiB

    alignas(64) Chunk* next = nullptr;
    std::uint32_t used = 0;  // nodes from here on were never touched
    alignas(64) std::byte room[capacity * sizeof(TimerNode)];

    void* place(std::uint32_t i) noexcept { return room + i * sizeof(TimerNode); }
    TimerNode* node(std::uint32_t i) noexcept { return std::launder(static_cast<TimerNode*>(place(i))); }
};

namespace {

/// Chunks of wheels that have ended. They are never freed: a Timer may outlive its loop and still look at its node.
struct ChunkStore {
    std::mutex mutex;
    TimerWheel::Chunk* first = nullptr;
};
constinit ChunkStore store;

TimerWheel::Chunk* take_stored() noexcept {
    const std::lock_guard lock(store.mutex);
    return store.first != nullptr ? std::exchange(store.first, store.first->next) : nullptr;
}

}  // namespace

bool TimerWheel::grow() noexcept {
    Chunk* chunk = take_stored();
    if (chunk == nullptr) {
        void* const memory = ::operator new(sizeof(Chunk), std::align_val_t{alignof(Chunk)}, std::nothrow);
        if (memory == nullptr) return false;
        chunk = new (memory) Chunk;  // leaves `room` untouched
    }
    for (std::uint32_t i = chunk->used; i-- > 0;) {  // nodes of its former wheel; the lowest ends up first
        chunk->node(i)->next = free_;
        free_ = chunk->node(i);
    }
    chunk->next = std::exchange(chunks_, chunk);
    return true;
}

TimerNode* TimerWheel::take_node() noexcept {
    if (free_ == nullptr && (chunks_ == nullptr || chunks_->used == Chunk::capacity) && !grow()) return nullptr;
    if (free_ != nullptr) {
        TimerNode* const node = static_cast<TimerNode*>(std::exchange(free_, free_->next));
        node->next = nullptr;
        return node;
    }
    return new (chunks_->place(chunks_->used++)) TimerNode;
}

// -- timers ------------------------------------------------------------------------------------------------------

TimerWheel::~TimerWheel() {
    closing_ = true;  // a task's destructor that adds a timer gets none
    for (Chunk* chunk = chunks_; chunk != nullptr; chunk = chunk->next)
        for (std::uint32_t i = 0; i < chunk->used; ++i)
            cancel({chunk->node(i), chunk->node(i)->generation.load(std::memory_order_relaxed)});
    while (chunks_ != nullptr) {
        Chunk* const chunk = std::exchange(chunks_, chunks_->next);
        const std::lock_guard lock(store.mutex);
        chunk->next = std::exchange(store.first, chunk);
    }
}

TimerHandle TimerWheel::add(std::int64_t now_ns, std::int64_t delay_ns, Task task, std::int64_t period_ns) noexcept {
    TimerNode* const node = closing_ ? nullptr : take_node();
    if (node == nullptr) return {};
    node->due_fn = run_due;
    node->due_ns = AlarmWheel::due_after(now_ns, delay_ns);
    node->period_ns = std::max<std::int64_t>(period_ns, 0);
    node->wheel = this;
    node->state = TimerNode::State::pending;
    node->task = std::move(task);
    alarms_.set(*node, now_ns, node->due_ns);
    ++timers_;
    return {node, node->generation.load(std::memory_order_relaxed)};
}

bool TimerWheel::pending(TimerHandle handle) noexcept {
    const TimerNode* const node = handle.node;
    if (node == nullptr || node->generation.load(std::memory_order_relaxed) != handle.generation) return false;
    return node->state != TimerNode::State::free && node->is_set();  // a free node is linked too, in the pool
}

bool TimerWheel::cancel(TimerHandle handle) noexcept {
    if (!pending(handle)) return false;
    TimerNode& node = *handle.node;
    TimerWheel& wheel = *node.wheel;
    wheel.alarms_.cancel(node);
    --wheel.timers_;
    // A periodic timer that cancels itself: its task is running and goes when it returns.
    if (node.state == TimerNode::State::pending) wheel.finish(node);
    return true;
}

/// The node's use ends. Its handles go stale before the task is destroyed, since that may run anything; only then is it free.
void TimerWheel::finish(TimerNode& node) noexcept {
    node.generation.store(node.generation.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    node.state = TimerNode::State::free;
    node.task.reset();
    node.next = free_;
    free_ = &node;
}

unsigned TimerWheel::expire(std::int64_t now_ns, unsigned budget) noexcept {
    now_ns_ = now_ns;
    return alarms_.expire(now_ns, budget);
}

void TimerWheel::run_due(Alarm& alarm) noexcept {
    TimerNode& node = static_cast<TimerNode&>(alarm);
    node.wheel->run(node);
}

void TimerWheel::run(TimerNode& node) noexcept {
    node.state = TimerNode::State::running;
    if (node.period_ns > 0) {
        // The next multiple after now: periods that a late turn missed are not made up for.
        const std::int64_t missed = (now_ns_ - node.due_ns) / node.period_ns;
        node.due_ns = AlarmWheel::due_after(node.due_ns, missed * node.period_ns);
        node.due_ns = AlarmWheel::due_after(node.due_ns, node.period_ns);
        alarms_.set(node, now_ns_, node.due_ns);
    } else {
        --timers_;
    }
    call(node);
    if (node.is_set())
        node.state = TimerNode::State::pending;
    else
        finish(node);
}

void TimerWheel::call(TimerNode& node) noexcept {
    if (!node.task) return;
    try {
        node.task();
    } catch (...) {
        if (threw_ != nullptr) threw_(context_);
    }
}

}  // namespace evpl::core

namespace evpl {

void Timer::cancel() noexcept {
    core::TimerWheel::cancel({std::exchange(node_, nullptr), generation_});
}

bool Timer::pending() const noexcept {
    return core::TimerWheel::pending({node_, generation_});
}

}  // namespace evpl
