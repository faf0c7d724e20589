#include "transport/uring/ring_sleeper.hpp"

#include <sys/epoll.h>

#include <cerrno>

namespace evpl::transport::uring {
namespace {

/// User data of the poll of the epoll set; operations of the port carry addresses.
constexpr std::uint64_t inner_name = 8;
/// Linux 6.13 and later run 20 completions at a time.
constexpr unsigned hand_over_enters_max = 2048;

}  // namespace

RingSleeper::~RingSleeper() {
    if (nested_ && inner_ != nullptr) inner_->remove(ring_watcher_, false);
    ring.close();
}

// One-shot: it looks at the set when it is armed, so nothing that was left in there is lost, and it costs no call of its own.
void RingSleeper::arm_inner() noexcept {
    if (inner_armed_ || inner_ready_ || inner_->watched() == 0) return;
    abi::Sqe poll;
    poll.operation = abi::op_poll_add;
    poll.fd = inner_fd_;
    poll.operation_flags = EPOLLIN;
    poll.user_data = inner_name;
    inner_armed_ = ring.put(poll);
}

void RingSleeper::lose() noexcept {
    lost_ = true;
    if (completer_ != nullptr) completer_->ring_lost();
}

void RingSleeper::enter(std::int64_t timeout_ns) noexcept {
    if (timeout_ns == 0 && !ring.has_submissions() && !ring.wants_enter()) return;
    const int error = ring.enter(timeout_ns != 0 ? 1 : 0, timeout_ns);
    if (error == EOWNERDEAD || error == EBADF || error == EEXIST || error == EINVAL || error == EOPNOTSUPP) [[unlikely]]
        lose();
}

unsigned RingSleeper::wait(std::int64_t timeout_ns, unsigned events_max, std::uint32_t bytes_max) {
    if (!lost_ && !ring.usable()) [[unlikely]]
        lose();
    if (lost_) [[unlikely]]
        return inner_->wait(timeout_ns, events_max, bytes_max);
    if (nested_) [[unlikely]]
        return wait_nested(timeout_ns, events_max, bytes_max);
    arm_inner();
    enter(has_leftover() ? 0 : timeout_ns);
    return deliver(events_max, bytes_max);
}

unsigned RingSleeper::wait_nested(std::int64_t timeout_ns, unsigned events_max, std::uint32_t bytes_max) {
    enter(0);
    unsigned delivered = inner_->wait(has_leftover() ? 0 : timeout_ns, events_max, bytes_max);
    inner_ready_ = false;
    enter(0);
    delivered += deliver(events_max, bytes_max);
    return delivered;
}

// Both kinds have the whole batch, so that neither starves the other.
unsigned RingSleeper::deliver(unsigned events_max, std::uint32_t bytes_max) {
    unsigned delivered = 0;
    std::uint32_t bytes = 0;
    abi::Cqe done;
    while (!lost_ && delivered < events_max && bytes < bytes_max && ring.take(done)) {
        if (done.user_data == inner_name) {
            inner_armed_ = false;
            inner_ready_ = !nested_;
        } else if (done.user_data != 0 && completer_ != nullptr) {
            bytes += completer_->complete(done);
            ++delivered;
        }
    }
    if (completer_ != nullptr) completer_->batch_done();
    if (inner_ready_ || (!nested_ && inner_->has_leftover())) {
        delivered += inner_->wait(0, events_max, bytes_max);
        inner_ready_ = false;  // what is left in the set is seen when it is armed again
    }
    return delivered;
}

int RingSleeper::fd() noexcept {
    if (nested_ || lost_) return inner_->fd();
    nested_ = true;
    if (inner_armed_) {  // else each would wake the other
        abi::Sqe cancel;
        cancel.operation = abi::op_async_cancel;
        cancel.address = inner_name;
        (void)ring.put(cancel);
    }
    if (!inner_->add(ring_watcher_, ring.fd(), EPOLLIN)) lose();
    return inner_->fd();
}

void RingSleeper::wake_host() noexcept {
    if (!nested_) return;
    (void)ring.put({});  // an idle operation, whose completion makes the ring readable
    hand_over();
}

void RingSleeper::hand_over() noexcept {
    if (lost_ || !ring.usable()) return;
    if (!nested_) arm_inner();
    enter(0);
    // What was cancelled holds its socket until its completion has run, of which each enter() runs some.
    for (unsigned i = 0; i < hand_over_enters_max && !lost_ && ring.has_task_work(); ++i) enter(0);
}

}  // namespace evpl::transport::uring
