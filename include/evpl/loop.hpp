#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "evpl/buffer.hpp"
#include "evpl/config.hpp"
#include "evpl/duration.hpp"
#include "evpl/metrics.hpp"
#include "evpl/region.hpp"
#include "evpl/result.hpp"
#include "evpl/task.hpp"
#include "evpl/timer.hpp"
#include "evpl/watch.hpp"

#pragma GCC visibility push(default)
namespace evpl {

namespace core {
class LoopCore;
class LoopControl;
}  // namespace core

/// How a loop waits. hybrid: polls while that pays, else sleeps. poll: never sleeps. event: never spins.
enum class Mode : std::uint8_t { hybrid, poll, event };

/// How a loop works. Fields that are not given take the process's setting `loop.<field>` (config.hpp), built in as noted.
struct LoopOptions {
    Mode mode = Mode(detail::configured(detail::Known::loop_mode));  ///< hybrid
    /// hybrid: longest time to poll before sleeping; 50 us
    Duration spin = Duration::of_ns(detail::configured(detail::Known::loop_spin));
    /// slabs this loop may hold, in bytes; 1 GiB
    std::size_t memory_bytes_max = std::size_t(detail::configured(detail::Known::loop_memory_bytes_max));
    /// events, timers, posts and deferrals of one kind per turn; 64
    std::uint32_t batch = std::uint32_t(detail::configured(detail::Known::loop_batch));
    /// bytes read before callbacks run; 256 KiB
    std::uint32_t batch_bytes = std::uint32_t(detail::configured(detail::Known::loop_batch_bytes));
    /// a longer turn is counted and logged; 100 ms
    Duration stall = Duration::of_ns(detail::configured(detail::Known::loop_stall));
    const char* name = "loop";  ///< appears in messages; must outlive the loop
    /// "127.0.0.1:5353,...": instead of the system's; for tests and special set-ups; none
    const char* dns_servers = detail::configured_dns_servers();
};

/// Names a loop for other threads; stays valid after the loop has ended. 16 bytes, copyable.
class LoopRef {
public:
    constexpr LoopRef() noexcept = default;
    /// Runs `task` on the loop's thread, in order per posting thread. False: the loop has ended (or there is no memory), and the
    /// task was destroyed on this thread. Thread: any. Cost: no allocation in steady state; a system call only when the loop sleeps.
    bool post(Task task) const noexcept;
    /// Asks the loop to stop, as Loop::stop(). Thread: any; also async-signal-safe.
    void stop() const noexcept;
    /// As Loop::stop(Limit).
    void stop(Limit drain) const noexcept;
    friend bool operator==(const LoopRef&, const LoopRef&) noexcept = default;

private:
    friend struct CoreAccess;
    core::LoopControl* control_ = nullptr;
    std::uint64_t generation_ = 0;
};

/// One event loop: owns its connections, timers and memory. One thread runs it; only post(), stop() and ref() are thread-safe.
/// The constructor opens nothing and cannot fail; declare the loop after what its handlers use.
class Loop {
public:
    Loop() noexcept : Loop(LoopOptions{}) {}
    /// A loop with these options. Errors: none; without memory every call answers out_of_memory.
    explicit Loop(const LoopOptions& options) noexcept;
    /// Closes everything that is left, with its on_close.
    ~Loop();
    Loop(const Loop&) = delete;
    Loop& operator=(const Loop&) = delete;

    // -- run ---------------------------------------------------------------------------------------------------
    /// Runs until stop(); returns when each connection had its on_close. 0, or 1 when the loop could not run (last_failure()), as in a
    /// forked child, where it is the parent's.
    int run() noexcept;
    /// The same, and SIGINT and SIGTERM stop it (signalfd(2); the thread's mask is restored).
    int run_until_signal() noexcept;
    /// Runs until nothing is left: no connection, listener, datagram socket, timer, watch, deferral or post.
    int run_until_idle() noexcept;
    /// One turn, waiting at most `wait` for something to happen. True: something happened. Before it returns everything is armed, so
    /// that native_fd() becomes readable when there is work and when the next timer is due.
    bool run_once(Duration wait = Duration{}) noexcept;
    /// A descriptor for another event loop to watch, readable when run_once() has something to do. Errors: too_many_files.
    Result<int> native_fd() noexcept;

    /// Ends run(): closes listeners and connections (on_close(stopped)). Thread: any.
    void stop() noexcept;
    /// Stops accepting, drains outboxes, half-closes, waits for the peers up to the limit, then stop(). Thread: any.
    void stop(Limit drain) noexcept;
    /// stop() was called, and run() has not yet returned.
    bool stopping() const noexcept;

    // -- time --------------------------------------------------------------------------------------------------
    /// Monotonic time, the same for all who ask in one turn; asked for anew after a sleep. now_precise() asks the clock (vdso(7), about 25 ns).
    Duration now() const noexcept;
    /// Asks the clock. Cost: vdso(7), about 25 ns.
    Duration now_precise() const noexcept;
    /// Runs `task` once after `delay`, never early. Errors: out_of_memory. Cost: under 30 ns, plus a pool growing.
    Result<Timer> after(Duration delay, Task task) noexcept;
    /// Runs `task` every `period`; a late turn runs it once, not once per missed period.
    Result<Timer> every(Duration period, Task task) noexcept;

    // -- work --------------------------------------------------------------------------------------------------
    /// Runs `task` later in this turn or in the next, after what is deferred already. False: out of memory.
    bool defer(Task task) noexcept;
    /// As LoopRef::post(). Thread: any, while the Loop lives.
    bool post(Task task) noexcept;
    /// A name that other threads may use and that outlives the loop. Thread: any, while the Loop lives.
    LoopRef ref() const noexcept;
    /// Watches a foreign descriptor; `context` comes back with what it is ready for. Errors: those of epoll_ctl(2).
    Result<Watch> watch(int fd, Ready wanted, void (*ready)(void* context, Ready what), void* context) noexcept;
    /// Hooks of the turn: before the loop may sleep, after it woke, at the end of the turn. Each replaces the former one; null removes.
    using Hook = void (*)(void* context, Loop& loop);
    /// Called before the loop may sleep.
    void on_before_wait(Hook hook, void* context) noexcept;
    /// Called after it woke.
    void on_after_wait(Hook hook, void* context) noexcept;
    /// Called at the end of each turn.
    void on_turn_end(Hook hook, void* context) noexcept;

    // -- memory ------------------------------------------------------------------------------------------------
    /// A fresh slice of `size_bytes` (1 to 2 MiB). Errors: out_of_buffers, out_of_memory, too_large.
    Result<Buffer> allocate(std::uint32_t size_bytes) noexcept;
    /// The same, filled.
    Result<Buffer> copy(std::span<const std::byte> bytes) noexcept;
    /// The same, of a text.
    Result<Buffer> copy(std::string_view text) noexcept { return copy(std::as_bytes(std::span(text.data(), text.size()))); }
    /// The caller's own memory as a slice; `release(context)` runs on this loop's thread when the last reference is gone.
    Result<Buffer> wrap(std::span<std::byte> bytes, void (*release)(void* context), void* context) noexcept;
    /// Bytes [offset, offset + size_bytes) of a region, by reference. Errors: misuse (out of its bounds, no bytes), out_of_memory.
    Result<Buffer> slice(const Region& region, std::size_t offset, std::uint32_t size_bytes) noexcept;

    // -- looking -----------------------------------------------------------------------------------------------
    /// As it was made, and as set_mode() has changed it.
    const LoopOptions& options() const noexcept;
    /// How it waits, from the next turn on.
    void set_mode(Mode mode) noexcept;
    /// Its counters, now. Thread: the loop's.
    LoopMetrics metrics() const noexcept;
    /// One sentence about the last set-up call that failed, naming its input. Valid until the next such call.
    std::string_view last_failure() const noexcept;

private:
    friend struct CoreAccess;
    core::LoopCore* core_;  // null only when there was no memory; every call answers that
};

/// Prints `loop.last_failure()` or the error's own text to standard error, because you asked; returns 1 for main().
int complain(const Loop& loop, Error error) noexcept;

}  // namespace evpl
#pragma GCC visibility pop
