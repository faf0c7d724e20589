#include "transport/common/epoll_sleeper.hpp"

#include <sys/epoll.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <ctime>
#include <new>

#include "base/log_line.hpp"

namespace evpl::transport {
namespace {

constexpr int events_per_wait = 256;

// An event carries the watcher's address (48 bits on x86-64 and arm64) and its tag. Watchers live in type-stable memory, so an event of
// a watcher removed meanwhile, or of a descriptor that lives on in a forked child, is recognised by its tag.
constexpr unsigned address_bits = 48;

std::uint64_t name_of_watcher(const Watcher& watcher) noexcept {
    return (std::uint64_t(watcher.tag) << address_bits) | reinterpret_cast<std::uintptr_t>(&watcher);
}

/// Once per process, however many loops find out.
void tell_of_milliseconds() noexcept {
    constinit static std::atomic<bool> told{false};
    if (told.exchange(true, std::memory_order_relaxed)) return;
    base::log_line(LogLevel::info, "loops wait in whole milliseconds: epoll_pwait2 is refused (it needs Linux 5.11, and a filter that knows it)");
}

class EpollSleeper final : public Sleeper {
public:
    explicit EpollSleeper(int fd) noexcept : fd_(fd) {}
    ~EpollSleeper() override { ::close(fd_); }

    Result<void> add(Watcher& watcher, int fd, std::uint32_t events) override {
        epoll_event event{events, {.u64 = name_of_watcher(watcher)}};
        if (epoll_ctl(fd_, EPOLL_CTL_ADD, fd, &event) != 0) return Error::from_errno(errno, Step::open);
        watcher.watched_fd = fd;
        watcher.watched = true;
        ++watched_;
        return {};
    }

    Result<void> modify(Watcher& watcher, std::uint32_t events) override {
        epoll_event event{events, {.u64 = name_of_watcher(watcher)}};
        if (epoll_ctl(fd_, EPOLL_CTL_MOD, watcher.watched_fd, &event) != 0) return Error::from_errno(errno, Step::open);
        return {};
    }

    void remove(Watcher& watcher, bool closing) override {
        ++watcher.tag;
        if (watcher.watched) --watched_;
        if (!closing && watcher.watched) {
            epoll_event unused{};
            epoll_ctl(fd_, EPOLL_CTL_DEL, watcher.watched_fd, &unused);
        }
        watcher.watched = false;
        watcher.watched_fd = -1;
    }

    unsigned wait(std::int64_t timeout_ns, unsigned events_max, std::uint32_t bytes_max) override {
        if (next_ == count_) {
            next_ = 0;
            count_ = take(timeout_ns);
        }
        return deliver(events_max, bytes_max);
    }

    bool has_leftover() const noexcept override { return next_ < count_; }
    int fd() noexcept override { return fd_; }
    unsigned watched() const noexcept override { return watched_; }
    std::uint64_t system_calls() const noexcept override { return system_calls_; }

private:
    unsigned take(std::int64_t timeout_ns) noexcept {
        ++system_calls_;
        int got;
        if (timeout_ns == 0 || timeout_ns == INT64_MAX) {
            got = epoll_wait(fd_, events_, events_per_wait, timeout_ns == 0 ? 0 : -1);
        } else {
            got = wait_ns(timeout_ns);
        }
        return got > 0 ? unsigned(got) : 0;  // EINTR: as if nothing came; the loop waits again
    }

    int wait_ns(std::int64_t timeout_ns) noexcept {
        if (nanoseconds_) {
            const timespec limit{time_t(timeout_ns / 1'000'000'000), long(timeout_ns % 1'000'000'000)};
            const int got = epoll_pwait2(fd_, events_, events_per_wait, &limit, nullptr);
            if (got >= 0 || (errno != ENOSYS && errno != EPERM)) return got;
            nanoseconds_ = false;  // before Linux 5.11, or a container's filter that does not know the call
            tell_of_milliseconds();
        }
        const std::int64_t ms = timeout_ns / 1'000'000 + 1;
        return epoll_wait(fd_, events_, events_per_wait, ms > INT32_MAX ? INT32_MAX : int(ms));
    }

    unsigned deliver(unsigned events_max, std::uint32_t bytes_max) {
        unsigned delivered = 0;
        std::uint32_t bytes = 0;
        while (next_ < count_ && delivered < events_max && bytes < bytes_max) {
            const epoll_event event = events_[next_++];
            auto* watcher = reinterpret_cast<Watcher*>(event.data.u64 & ((std::uint64_t(1) << address_bits) - 1));
            if (watcher->tag != std::uint16_t(event.data.u64 >> address_bits)) continue;
            bytes += watcher->ready(event.events);
            ++delivered;
        }
        return delivered;
    }

    int fd_;
    bool nanoseconds_ = true;
    unsigned next_ = 0;
    unsigned count_ = 0;
    unsigned watched_ = 0;
    std::uint64_t system_calls_ = 0;
    epoll_event events_[events_per_wait];
};

}  // namespace

Result<Sleeper*> open_epoll_sleeper() noexcept {
    const int fd = epoll_create1(EPOLL_CLOEXEC);
    if (fd < 0) return Error::from_errno(errno, Step::open);
    auto* sleeper = new (std::nothrow) EpollSleeper(fd);
    if (sleeper == nullptr) {
        ::close(fd);
        return Errc::out_of_memory;
    }
    return static_cast<Sleeper*>(sleeper);
}

}  // namespace evpl::transport
