#pragma once

#include <memory>

#include "transport/sleeper.hpp"
#include "transport/uring/ring.hpp"

namespace evpl::transport::uring {

/// Whose operations complete in the ring.
class Completer {
public:
    /// One completion. Returns the bytes it brought.
    virtual std::uint32_t complete(const abi::Cqe& done) = 0;
    /// A batch is through; the next enter() follows.
    virtual void batch_done() = 0;
    /// The ring is dead: another thread runs the loop now, or a forked child.
    virtual void ring_lost() = 0;
    /// Sockets that wait in the ring.
    virtual unsigned waiting() const noexcept = 0;

protected:
    ~Completer() = default;
};

/// The ring as the loop's sleeper. The epoll set that was there before goes on holding foreign descriptors, the bell and the sockets of
/// other ports: it waits in the ring as one more descriptor.
/// When the loop is nested it is the other way round, since the host holds the epoll set's descriptor: the ring waits in the set.
class RingSleeper final : public Sleeper {
public:
    explicit RingSleeper(Completer& completer) noexcept : completer_(&completer) {}
    ~RingSleeper() override;

    /// Takes `inner` over, which it deletes at its own end.
    void take_over(Sleeper& inner, int inner_fd) noexcept {
        inner_.reset(&inner);
        inner_fd_ = inner_fd;
    }
    void give_back() noexcept { (void)inner_.release(); }
    /// An endpoint was set up, perhaps by somebody whose loop the ring's loop is nested in: that one wakes and gives it a turn.
    void wake_host() noexcept;
    /// The port is gone, and with it what completes in the ring.
    void forsake() noexcept {
        completer_ = nullptr;
        lost_ = true;
    }

    Result<void> add(Watcher& watcher, int fd, std::uint32_t events) override { return inner_->add(watcher, fd, events); }
    Result<void> modify(Watcher& watcher, std::uint32_t events) override { return inner_->modify(watcher, events); }
    void remove(Watcher& watcher, bool closing) override { inner_->remove(watcher, closing); }
    unsigned wait(std::int64_t timeout_ns, unsigned events_max, std::uint32_t bytes_max) override;
    bool has_leftover() const noexcept override { return inner_ready_ || inner_->has_leftover() || (!lost_ && ring.has_completions()); }
    int fd() noexcept override;
    void hand_over() noexcept override;
    unsigned watched() const noexcept override { return inner_->watched() + (completer_ != nullptr ? completer_->waiting() : 0); }
    std::uint64_t system_calls() const noexcept override { return inner_->system_calls() + ring.system_calls(); }

    Ring ring;

private:
    struct RingWatcher final : Watcher {
        std::uint32_t ready(std::uint32_t) override { return 0; }
    };
    void arm_inner() noexcept;
    void enter(std::int64_t timeout_ns) noexcept;
    unsigned wait_nested(std::int64_t timeout_ns, unsigned events_max, std::uint32_t bytes_max);
    unsigned deliver(unsigned events_max, std::uint32_t bytes_max);
    void lose() noexcept;

    Completer* completer_;
    std::unique_ptr<Sleeper> inner_;
    int inner_fd_ = -1;
    bool inner_armed_ = false;  ///< the set is polled
    bool inner_ready_ = false;  ///< it has events
    bool nested_ = false;
    bool lost_ = false;
    RingWatcher ring_watcher_;
};

}  // namespace evpl::transport::uring
