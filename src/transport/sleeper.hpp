#pragma once

#include <cstdint>

#include "evpl/result.hpp"

namespace evpl::transport {

/// Somebody who waits for a descriptor. Lives in type-stable memory: a late event of a closed descriptor finds another tag and is dropped.
class Watcher {
public:
    /// `events` as in epoll_ctl(2). Returns the bytes it took in, which count against the batch.
    virtual std::uint32_t ready(std::uint32_t events) = 0;

    int watched_fd = -1;
    bool watched = false;   ///< between add and remove
    std::uint16_t tag = 0;  ///< advanced by the sleeper on remove

protected:
    ~Watcher() = default;
};

/// Waits for the whole loop and delivers in one call: the epoll set, or a ring. One per loop.
class Sleeper {
public:
    virtual ~Sleeper() = default;
    /// `events`: EPOLLIN and so on, EPOLLET for edges. Errors: those of epoll_ctl(2).
    virtual Result<void> add(Watcher& watcher, int fd, std::uint32_t events) = 0;
    virtual Result<void> modify(Watcher& watcher, std::uint32_t events) = 0;
    /// `closing`: the descriptor is closed right after this, which removes it without a system call.
    virtual void remove(Watcher& watcher, bool closing) = 0;
    /// Waits up to timeout_ns (0: not at all, INT64_MAX: for ever), then calls ready() for up to `events_max` events or until
    /// `bytes_max` were taken in. Events left over are delivered first by the next call, which then does not wait.
    virtual unsigned wait(std::int64_t timeout_ns, unsigned events_max, std::uint32_t bytes_max) = 0;
    /// Events of the last wait are left over.
    virtual bool has_leftover() const noexcept = 0;
    /// A descriptor that is readable when wait would find something (nesting), from this call on; -1: none.
    virtual int fd() noexcept = 0;
    /// The loop returns to its caller, who may be long in coming back: what was put off until the next wait goes to the kernel now.
    virtual void hand_over() noexcept {}
    /// Watchers added and not removed.
    virtual unsigned watched() const noexcept = 0;
    /// System calls made by wait so far.
    virtual std::uint64_t system_calls() const noexcept = 0;
};

}  // namespace evpl::transport
