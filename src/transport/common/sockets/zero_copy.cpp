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

// Moves the slices of a call's bytes from the outbox to the held ones; a slice sent in part is shared.
void SocketPort::zero_copy_started(SocketLink& link, std::size_t bytes) {
    ZeroCopy& state = *link.zero_copy;
    SendQueue& out = *link.outbox;
    ZeroCopy::Call call{0, bytes, false};
    std::size_t left = bytes;
    while (left > 0) {
        Buffer slice;
        if (out[0].size() <= left) {
            slice = out.pop();
        } else {
            slice = out[0].share(0, std::uint32_t(left));
            out.drop_front(left);
        }
        left -= slice.size();
        ++call.slices;
        if (!state.held.push(std::move(slice))) return fail(link, Error(Errc::out_of_memory, Step::send));
    }
    if (!state.calls.push(std::move(call))) fail(link, Error(Errc::out_of_memory, Step::send));
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
            if (report.ee_code == SO_EE_CODE_ZEROCOPY_COPIED && ++state.copied_reports >= copied_reports_max) state.off = true;
            for (std::uint32_t number = report.ee_info; number != report.ee_data + 1; ++number) {
                const std::uint32_t index = number - state.first;
                if (index < state.calls.size()) state.calls[index].done = true;
            }
        }
    }
    std::size_t bytes = 0;
    while (!state.calls.empty() && state.calls.front().done) {
        for (std::uint32_t i = 0; i < state.calls.front().slices; ++i) state.held.pop();
        bytes += state.calls.front().bytes;
        state.calls.pop();
        ++state.first;
    }
    if (bytes > 0) link.sink->sent(bytes);
    if ((link.draining || link.finishing) && link.outbox->count() == 0) outbox_empty(link);
}

}  // namespace evpl::transport::socket
