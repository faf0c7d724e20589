// What a loop is made of: its members, slots, ports and watches.
#include "core/loop_core.hpp"

#include <sys/epoll.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <new>

#include "base/clock.hpp"
#include "base/forks.hpp"
#include "base/log_line.hpp"
#include "core/resolver.hpp"
#include "memory/array_pool.hpp"

namespace evpl::core {

LoopCore::LoopCore(Loop& loop, const LoopOptions& given) noexcept
    : facade(loop), options(given), timers([](void* core) { static_cast<LoopCore*>(core)->callback_threw(); }, this) {}

LoopCore* LoopCore::create(Loop& facade, const LoopOptions& options) noexcept {
    auto* core = new (std::nothrow) LoopCore(facade, options);
    if (core == nullptr) return nullptr;
    core->heap_ = memory::Heap::create(options.memory_bytes_max);
    core->control = core->heap_ != nullptr ? LoopControl::take(*core) : nullptr;
    if (core->control == nullptr) {
        if (core->heap_ != nullptr) std::exchange(core->heap_, nullptr)->retire();  // there is nothing else to end
        delete core;
        return nullptr;
    }
    core->generation_most_ = core->control->first_generation;
    return core;
}

LoopCore::~LoopCore() {
    if (heap_ == nullptr) return;
    memory::Heap* const before = memory::Heap::current();
    memory::Heap::set_current(heap_);
    // Everybody hears of the end; what their callbacks open meanwhile does, too. A bound ends a callback that always opens another.
    for (unsigned round = 0; round < 100 && alive_ > 0; ++round) {
        stop_members(false);
        poll_ports();
        dispatch_marked();
        free_buried();
    }
    for (PortEntry* entry = ports_; entry != nullptr;) {
        PortEntry* next = entry->next;
        timers.cancel_alarm(*entry);
        delete entry->port;
        delete entry;
        entry = next;
    }
    // Closed ones whose links had not retired, and listeners.
    while (Member* member = members_) {
        if (!member->left_to_handle()) {
            bury(*member);
            continue;
        }
        members_ = member->next;
        if (members_ != nullptr) members_->previous = nullptr;
    }
    free_buried();
    delete resolver_;
    deferred_.clear();
    if (timer_fd_ >= 0) ::close(timer_fd_);
    delete sleeper_;
    control->give_back(generation_most_ + 1);
    while (watch_chunks_ != nullptr) free_watch_chunk();
    std::free(slots_);
    heap_->flush_departures();
    memory::Heap::set_current(before == heap_ ? nullptr : before);
    memory::trim_arrays();
    heap_->retire();
}

void LoopCore::log_line(std::uint8_t level, std::string_view line) noexcept { base::log_line(LogLevel(level), line); }

Error LoopCore::fail(Error error, const char* format, ...) noexcept {
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(last_failure, sizeof last_failure, format, arguments);
    va_end(arguments);
    return error;
}

void LoopCore::note_failure(std::string_view sentence) noexcept {
    std::snprintf(last_failure, sizeof last_failure, "%.*s", int(sentence.size()), sentence.data());
}

void LoopCore::callback_threw() noexcept { base::log_format(LogLevel::error, "%s: a task or hook threw an exception; the loop goes on", options.name); }

// -- sleeper and ports -----------------------------------------------------------------------------------------

Result<transport::Sleeper*> LoopCore::sleeper() noexcept {
    if (sleeper_ != nullptr) return sleeper_;
    if (!control->bell.open()) return fail(Error::from_errno(errno, Step::open), "out of descriptors: the loop needs two (ulimit -n)");
    const auto opened = transport::open_sleeper();
    if (!opened) return fail(opened.error(), "out of descriptors: the loop needs two (ulimit -n)");
    if (const auto added = (*opened)->add(bell_watcher_, control->bell.fd(), EPOLLIN | EPOLLET); !added) {
        delete *opened;
        return added.error();
    }
    sleeper_ = *opened;
    opened_in_ = base::forks();
    return sleeper_;
}

// The descriptors are shared with the parent: a wait here would take its events away.
bool LoopCore::is_forked_off() noexcept {
    if (sleeper_ == nullptr || opened_in_ == base::forks()) [[likely]]
        return false;
    fail(Errc::misuse, "this loop is the parent's: a forked child may exec, exit with _exit(2), or make loops of its own");
    return true;
}

bool LoopCore::adopt_sleeper(transport::Sleeper& successor) noexcept {
    sleeper_ = &successor;
    if (nested_) (void)successor.fd();  // the host waits on the descriptor of the one before, which stays good
    return true;
}

Result<transport::Port*> LoopCore::port_of(transport::Transport& transport) noexcept {
    for (PortEntry* entry = ports_; entry != nullptr; entry = entry->next) {
        if (entry->transport == &transport) return entry->port;
    }
    const auto opened = transport.open(*this);
    if (!opened) return opened.error();
    auto* entry = new (std::nothrow) PortEntry;
    if (entry == nullptr) {
        delete *opened;
        return Errc::out_of_memory;
    }
    entry->transport = &transport;
    entry->port = *opened;
    entry->core = this;
    entry->price = entry->port->poll_price();
    entry->due_fn = [](Alarm& alarm) { static_cast<PortEntry&>(alarm).port->alarm(); };
    entry->next = ports_;
    ports_ = entry;
    memory_ports_ |= entry->price != transport::PollPrice::nothing;
    return entry->port;
}

void LoopCore::note_fallback(const transport::Scheme& wanted, const transport::Scheme& instead, const Endpoint& endpoint, std::string_view why) noexcept {
    ++metrics.fallbacks;
    if (std::exchange(fallback_told_, true)) return;
    base::log_format(LogLevel::warning, "%s: %.*s cannot serve %.*s, %.*s does: %.*s", options.name, int(wanted.name.size()), wanted.name.data(),
                     int(endpoint.host().size()), endpoint.host().data(), int(instead.name.size()), instead.name.data(), int(why.size()), why.data());
}

void LoopCore::set_alarm(transport::Port& port, std::int64_t at_ns) noexcept {
    for (PortEntry* entry = ports_; entry != nullptr; entry = entry->next) {
        if (entry->port == &port) return timers.set_alarm(*entry, now_ns(), at_ns);
    }
}

Resolver* LoopCore::resolver() noexcept {
    if (resolver_ == nullptr) resolver_ = new (std::nothrow) Resolver(*this);
    return resolver_;
}

// -- members and slots -----------------------------------------------------------------------------------------

void LoopCore::enroll(Member& member) noexcept {
    member.next = members_;
    member.previous = nullptr;
    if (members_ != nullptr) members_->previous = &member;
    members_ = &member;
    ++alive_;
    if (member.is_connection()) ++metrics.connections_open;
}

void LoopCore::passed_away(Member& member) noexcept {
    --alive_;
    if (!member.is_connection()) return;
    --metrics.connections_open;
    ++metrics.closed;
}

void LoopCore::bury(Member& member) noexcept {
    if (member.buried) return;
    member.buried = true;
    if (member.previous != nullptr) member.previous->next = member.next;
    else members_ = member.next;
    if (member.next != nullptr) member.next->previous = member.previous;
    member.next = buried_;
    buried_ = &member;
}

void LoopCore::free_buried() noexcept {
    while (Member* member = buried_) {
        buried_ = member->next;
        marked_.remove(*member);
        dirty_.remove(*member);
        touched_.remove(*member);
        member->destroy();
    }
}

bool LoopCore::take_slot(Member& member, std::uint32_t& slot, std::uint32_t& generation) noexcept {
    if (free_slot_ == UINT32_MAX) {
        if (slot_count_ == slot_capacity_) {
            const std::uint32_t capacity = slot_capacity_ == 0 ? 64 : slot_capacity_ * 2;
            auto* bigger = static_cast<Slot*>(std::realloc(slots_, capacity * sizeof(Slot)));
            if (bigger == nullptr) return false;
            slots_ = bigger;
            slot_capacity_ = capacity;
        }
        slots_[slot_count_] = {nullptr, control->first_generation, UINT32_MAX};
        free_slot_ = slot_count_++;
    }
    slot = free_slot_;
    free_slot_ = slots_[slot].next_free;
    slots_[slot].member = &member;
    generation = slots_[slot].generation;
    return true;
}

void LoopCore::free_slot(std::uint32_t slot) noexcept {
    slots_[slot].member = nullptr;
    if (++slots_[slot].generation > generation_most_) generation_most_ = slots_[slot].generation;
    slots_[slot].next_free = free_slot_;
    free_slot_ = slot;
}

void LoopCore::flush_when_keyed(std::uint32_t slot, std::uint32_t generation) noexcept {
    if (unkeyed_.push(Waiting{slot, generation})) return;
    if (Member* member = find(slot, generation)) mark_dirty(*member);  // no memory to wait: asked again at once
}

// -- deferrals and watches -------------------------------------------------------------------------------------

bool LoopCore::defer(Task&& task) noexcept { return deferred_.push(std::move(task)); }

struct LoopCore::WatchChunk {
    WatchChunk* next = nullptr;
    WatchState watches[16];
};

void LoopCore::free_watch_chunk() noexcept {
    WatchChunk* chunk = watch_chunks_;
    watch_chunks_ = chunk->next;
    delete chunk;
}

Result<WatchState*> LoopCore::watch(int fd, Ready wanted, void (*ready)(void*, Ready), void* context) noexcept {
    const auto set = sleeper();
    if (!set) return set.error();
    if (free_watches_ == nullptr) {
        auto* chunk = new (std::nothrow) WatchChunk;
        if (chunk == nullptr) return Errc::out_of_memory;
        chunk->next = watch_chunks_;
        watch_chunks_ = chunk;
        for (WatchState& state : chunk->watches) {
            state.next_free = free_watches_;
            free_watches_ = &state;
        }
    }
    WatchState* state = free_watches_;
    const std::uint32_t events = (has(wanted, Ready::read) ? EPOLLIN : 0u) | (has(wanted, Ready::write) ? EPOLLOUT : 0u);
    if (const auto added = (*set)->add(*state, fd, events); !added) {
        return fail(added.error(), "descriptor %d cannot be watched: %s", fd, std::strerror(added.error().os()));
    }
    free_watches_ = state->next_free;
    state->core = this;
    state->call = ready;
    state->context = context;
    ++watches_;
    return state;
}

void LoopCore::unwatch(WatchState& state) noexcept {
    sleeper_->remove(state, false);
    state.call = nullptr;
    --watches_;
    if (state.queued) return;  // freed when the turn comes to it
    state.next_free = free_watches_;
    free_watches_ = &state;
}

std::uint32_t WatchState::ready(std::uint32_t events) {
    core->watch_ready(*this, events);
    return 0;
}

// Their callbacks wait like all others until the ports have delivered.
void LoopCore::watch_ready(WatchState& state, std::uint32_t events) noexcept {
    state.pending |= events;
    if (state.queued) return;
    state.queued = true;
    state.next_ready = ready_watches_;
    ready_watches_ = &state;
}

unsigned LoopCore::run_watches() noexcept {
    unsigned count = 0;
    WatchState* list = std::exchange(ready_watches_, nullptr);
    while (list != nullptr) {
        WatchState& state = *list;
        list = state.next_ready;
        state.queued = false;
        const std::uint32_t events = std::exchange(state.pending, 0);
        if (state.call != nullptr) {
            Ready what = Ready::none;
            if ((events & (EPOLLIN | EPOLLRDHUP)) != 0) what = what | Ready::read;
            if ((events & EPOLLOUT) != 0) what = what | Ready::write;
            if ((events & (EPOLLERR | EPOLLHUP)) != 0) what = what | Ready::error;
            try {
                state.call(state.context, what);
            } catch (...) {
                callback_threw();
            }
            ++count;
        } else {
            state.next_free = free_watches_;
            free_watches_ = &state;
        }
    }
    return count;
}

// -- nesting ---------------------------------------------------------------------------------------------------

Result<int> LoopCore::native_fd() noexcept {
    const auto set = sleeper();
    if (!set) return set.error();
    if (!open_timer()) return fail(Error::from_errno(errno, Step::open), "out of descriptors: a nested loop needs three (ulimit -n)");
    nested_ = true;
    timer_due_ns_ = INT64_MAX;  // from here on it is armed for the host, each time anew
    if (!running_ && !armed_for_host_) arm_for_host();
    return (*set)->fd();
}

}  // namespace evpl::core
