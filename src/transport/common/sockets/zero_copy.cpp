#include "transport/common/sockets/zero_copy.hpp"

#include <sys/socket.h>

#include <cerrno>
#include <ctime>

#include <linux/errqueue.h>

#include "transport/common/sockets/port.hpp"

namespace evpl::transport::socket {
namespace {

/// Below this a copy is cheaper than the notification (measured thresholds in docs/limits.md).
constexpr std::size_t zero_copy_bytes_least = 32u << 10;
/// After so many reports of copying it is switched off for the connection.
constexpr std::uint32_t copied_reports_max = 4;

}  // namespace

bool SocketPort::wants_zero_copy(const SocketLink& link, std::size_t bytes) const noexcept {
    return link.zero_copy != nullptr && !link.zero_copy->off && bytes >= zero_copy_bytes_least;
}

void ZeroCopy::started(SliceQueue& from, std::size_t bytes) noexcept {
    Call call{0, bytes, false};
    for (std::size_t left = bytes; left > 0; ++call.slices) {
        Buffer slice;
        if (from[0].size() <= left) {
            slice = from.pop();
        } else {  // sent in part
            slice = from[0].share(0, std::uint32_t(left));
            from.drop_front(left);
        }
        left -= slice.size();
        (void)held.push(std::move(slice));
    }
    (void)calls.push(std::move(call));
}

bool ZeroCopy::done(std::uint32_t number, bool copied) noexcept {
    copied_reports += copied;
    if (number - first < calls.size()) calls[number - first].done = true;
    return copied_reports >= copied_reports_max;
}

std::size_t ZeroCopy::release() noexcept {
    std::size_t bytes = 0;
    for (; !calls.empty() && calls.front().done; ++first) {
        for (std::uint32_t i = 0; i < calls.front().slices; ++i) held.pop();
        bytes += calls.front().bytes;
        calls.pop();
    }
    return bytes;
}

// Notifications come as ranges of call numbers on the error queue, for TCP in order.
void SocketPort::zero_copy_done(SocketLink& link) {
    ZeroCopy& state = *link.zero_copy;
    for (;;) {
        alignas(cmsghdr) char control[128];
        msghdr message{nullptr, 0, nullptr, 0, control, sizeof control, 0};
        if (::recvmsg(link.watched_fd, &message, MSG_ERRQUEUE) < 0) break;
        for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
            sock_extended_err report;
            __builtin_memcpy(&report, CMSG_DATA(c), sizeof report);
            if (report.ee_origin != SO_EE_ORIGIN_ZEROCOPY) continue;
            const bool copied = report.ee_code == SO_EE_CODE_ZEROCOPY_COPIED;
            for (std::uint32_t number = report.ee_info; number != report.ee_data + 1; ++number)
                state.off |= state.done(number, copied && number == report.ee_info);
        }
    }
    zero_copy_released(link);
}

void SocketPort::zero_copy_released(SocketLink& link) {
    const std::size_t bytes = link.zero_copy->release();
    if (link.state != SocketLink::State::open) return;
    if (bytes > 0) link.sink->sent(bytes);
    if ((link.draining || link.finishing) && link.outbox->count() == 0) outbox_empty(link);
}

}  // namespace evpl::transport::socket
