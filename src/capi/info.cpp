// Limits, capabilities, transports, loop counters, the log.
#include <mutex>

#include "capi.hpp"

using namespace evpl;
using namespace evpl::capi;

namespace evpl::capi {

evpl_queue_limits limits_to_c(const QueueLimits& limits) noexcept {
    return {0, limits.receive, limits.send_low, limits.send_high, limits.send_hard, limits.message};
}
QueueLimits limits_over(QueueLimits limits, const evpl_queue_limits& wanted) noexcept {
    if (wanted.receive != 0) limits.receive = wanted.receive;
    if (wanted.send_low != 0) limits.send_low = wanted.send_low;
    if (wanted.send_high != 0) limits.send_high = wanted.send_high;
    if (wanted.send_hard != 0) limits.send_hard = wanted.send_hard;
    if (wanted.message != 0) limits.message = wanted.message;
    return limits;
}
evpl_caps caps_to_c(const Caps& caps) noexcept {
    return {0,
            std::uint32_t(caps.kind),
            caps.message_bytes_max,
            caps.inline_bytes_max,
            caps.copy_bytes_max,
            caps.half_close,
            caps.receive_pause,
            caps.rma,
            caps.descriptors,
            caps.credentials,
            caps.multicast,
            caps.segmentation,
            caps.zero_copy_send,
            caps.zero_copy_receive,
            caps.simulated_time,
            caps.remote_atomics,
            caps.remote_tells,
            caps.remote_invalidate,
            caps.private_data_bytes_max,
            caps.remote_reads_max};
}

namespace {

/// A C log sink. Never freed: lines of other threads may still be on their way to it.
struct Sink {
    evpl_log_sink sink;
    void* context;
    Sink* next;
};
std::mutex sinks_mutex;
Sink* sinks = nullptr;

Sink* sink_of(evpl_log_sink sink, void* context) noexcept {
    const std::lock_guard lock(sinks_mutex);
    for (Sink* at = sinks; at != nullptr; at = at->next) {
        if (at->sink == sink && at->context == context) return at;
    }
    auto* made = new (std::nothrow) Sink{sink, context, sinks};
    if (made != nullptr) sinks = made;
    return made;
}

void log_line(void* context, LogLevel level, std::string_view line) {
    const auto& sink = *static_cast<const Sink*>(context);
    sink.sink(sink.context, std::uint8_t(level), to_c(line));
}

}  // namespace
}  // namespace evpl::capi

static_assert(sizeof(evpl_loop_metrics) == 8 + sizeof(LoopMetrics));
static_assert(EVPL_STREAM == int(Kind::stream) && EVPL_MESSAGE == int(Kind::message) && EVPL_DATAGRAM == int(Kind::datagram));
static_assert(EVPL_LOG_ERROR == int(LogLevel::error));

extern "C" {

evpl_error evpl_loop_get_metrics(const evpl_loop* loop, evpl_loop_metrics* metrics) {
    if (loop == nullptr || metrics == nullptr) return misuse;
    const LoopMetrics m = cpp(loop).metrics();
    evpl_loop_metrics filled{};
    std::memcpy(&filled.turns, &m, sizeof m);  // the same counters in the same order
    return write(metrics, filled);
}

size_t evpl_transport_count(void) { return transports().size(); }
evpl_error evpl_transport_get(size_t i, evpl_transport_info* info) {
    if (info == nullptr || i >= transports().size()) return misuse;
    const TransportInfo& known = transports()[i];
    return write(info, evpl_transport_info{0, known.present, to_c(known.scheme), to_c(known.summary), to_c(known.reason), to_c(known.remedy)});
}
evpl_error evpl_transport_caps(size_t i, evpl_caps* caps) {
    if (caps == nullptr || i >= transports().size()) return misuse;
    return write(caps, caps_to_c(transports()[i].caps));
}

evpl_error evpl_set_log(evpl_log_sink sink, void* context, uint8_t least) {
    if (least > EVPL_LOG_ERROR) return misuse;
    if (sink == nullptr) {
        set_log(nullptr);
        return success;
    }
    Sink* const kept = sink_of(sink, context);
    if (kept == nullptr) return no_memory;
    set_log(&log_line, kept, LogLevel(least));
    return success;
}

}  // extern "C"
