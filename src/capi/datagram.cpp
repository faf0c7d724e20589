// Datagram sockets.
#include "capi.hpp"

using namespace evpl;
using namespace evpl::capi;

namespace {

struct DatagramSource {
    evpl_datagram_handler table;
    void* self;
};

bool make_source(const evpl_datagram_handler* handler, void* self, DatagramSource& source) noexcept {
    if (handler == nullptr || handler->size_bytes < offsetof(evpl_datagram_handler, on_recv)) return false;
    source.table = read(handler);
    source.table.size_bytes = sizeof source.table;
    source.self = self;
    return true;
}

detail::DatagramFactory factory_of(const DatagramSource& source) noexcept {
    detail::DatagramFactory made;
    auto* const kept = new (std::nothrow) DatagramSource(source);
    made.context = kept;  // null: the library answers out_of_memory
    made.table = reinterpret_cast<const DatagramTable*>(kept != nullptr ? &kept->table : nullptr);
    made.build = [](void* context, Datagram&, void*) -> Result<void*> { return static_cast<DatagramSource*>(context)->self; };
    made.drop = [](void* context) { delete static_cast<DatagramSource*>(context); };
    return made;
}

evpl_error give(const Result<DatagramRef>& opened, evpl_datagram_ref* socket) noexcept {
    if (opened && socket != nullptr) cpp(socket) = *opened;
    return status(opened);
}

}  // namespace

extern "C" {

evpl_error evpl_bind(evpl_loop* loop, const char* url, const evpl_datagram_handler* handler, void* self, evpl_datagram_ref* socket) {
    if (socket != nullptr) *socket = {};
    DatagramSource source;
    if (loop == nullptr || url == nullptr || !make_source(handler, self, source)) return misuse;
    return give(detail::bind(cpp(loop), url, factory_of(source)), socket);
}
evpl_error evpl_connect_datagram(evpl_loop* loop, const char* url, const evpl_datagram_handler* handler, void* self, int64_t within_ns,
                                 evpl_datagram_ref* socket) {
    if (socket != nullptr) *socket = {};
    DatagramSource source;
    if (loop == nullptr || url == nullptr || !make_source(handler, self, source)) return misuse;
    return give(detail::connect_datagram(cpp(loop), url, factory_of(source), limit_of(within_ns)), socket);
}
evpl_datagram_ref evpl_datagram_get_ref(const evpl_datagram* socket) {
    evpl_datagram_ref ref{};
    if (socket != nullptr) cpp(&ref) = cpp(socket).ref();
    return ref;
}
evpl_datagram* evpl_datagram_get(evpl_datagram_ref ref) { return reinterpret_cast<evpl_datagram*>(cpp(&ref).get()); }
evpl_loop* evpl_datagram_loop(const evpl_datagram* socket) { return socket == nullptr ? nullptr : reinterpret_cast<evpl_loop*>(&cpp(socket).loop()); }
evpl_text evpl_datagram_transport(const evpl_datagram* socket) { return socket == nullptr ? evpl_text{} : to_c(cpp(socket).transport()); }
evpl_text evpl_datagram_url(const evpl_datagram* socket) { return socket == nullptr ? evpl_text{} : to_c(cpp(socket).url()); }
bool evpl_datagram_is_open(const evpl_datagram* socket) { return socket != nullptr && cpp(socket).is_open(); }
evpl_address evpl_datagram_local_address(const evpl_datagram* socket) {
    evpl_address address{};
    if (socket != nullptr) cpp(&address) = cpp(socket).local_address();
    return address;
}
evpl_address evpl_datagram_remote_address(const evpl_datagram* socket) {
    evpl_address address{};
    if (socket != nullptr) cpp(&address) = cpp(socket).remote_address();
    return address;
}
int evpl_datagram_native_fd(const evpl_datagram* socket) { return socket == nullptr ? -1 : cpp(socket).native_fd(); }

bool evpl_datagram_has_packet(const evpl_datagram* socket) { return socket != nullptr && cpp(socket).has_packet(); }
bool evpl_datagram_recv(evpl_datagram* socket, evpl_buffer* bytes, evpl_address* from, evpl_address* to, bool* truncated) {
    if (socket == nullptr || bytes == nullptr || !cpp(socket).has_packet()) return false;
    Packet packet = cpp(socket).recv();
    cpp(bytes) = std::move(packet.bytes);
    if (from != nullptr) cpp(from) = packet.from;
    if (to != nullptr) cpp(to) = packet.to;
    if (truncated != nullptr) *truncated = packet.truncated;
    return true;
}
evpl_flow evpl_datagram_send(evpl_datagram* socket, const evpl_address* to, evpl_buffer* bytes) {
    if (socket == nullptr || bytes == nullptr) {
        evpl_buffer_release(bytes);
        return flow_misuse;
    }
    return to_c(to == nullptr ? cpp(socket).send(std::move(cpp(bytes))) : cpp(socket).send_to(cpp(to), std::move(cpp(bytes))));
}
evpl_flow evpl_datagram_send_bytes(evpl_datagram* socket, const evpl_address* to, const void* bytes, size_t size) {
    if (socket == nullptr || (bytes == nullptr && size > 0)) return flow_misuse;
    const std::span span(static_cast<const std::byte*>(bytes), size);
    return to_c(to == nullptr ? cpp(socket).send(span) : cpp(socket).send_to(cpp(to), span));
}
size_t evpl_datagram_queued(const evpl_datagram* socket) { return socket == nullptr ? 0 : cpp(socket).queued(); }
evpl_error evpl_datagram_flush(evpl_datagram* socket) {
    if (socket == nullptr) return misuse;
    cpp(socket).flush();
    return success;
}
evpl_error evpl_datagram_join(evpl_datagram* socket, const evpl_address* group, const evpl_address* interface) {
    if (socket == nullptr || group == nullptr) return misuse;
    return status(cpp(socket).join(cpp(group), interface == nullptr ? Address() : cpp(interface)));
}
evpl_error evpl_datagram_leave(evpl_datagram* socket, const evpl_address* group, const evpl_address* interface) {
    if (socket == nullptr || group == nullptr) return misuse;
    return status(cpp(socket).leave(cpp(group), interface == nullptr ? Address() : cpp(interface)));
}
evpl_error evpl_datagram_limits(const evpl_datagram* socket, evpl_queue_limits* limits) {
    if (socket == nullptr || limits == nullptr) return misuse;
    return write(limits, limits_to_c(cpp(socket).limits()));
}
evpl_error evpl_datagram_set_limits(evpl_datagram* socket, const evpl_queue_limits* limits) {
    if (socket == nullptr || limits == nullptr || limits->size_bytes < 8) return misuse;
    cpp(socket).set_limits(limits_over(cpp(socket).limits(), read(limits)));
    return success;
}
evpl_error evpl_datagram_close(evpl_datagram* socket) {
    if (socket == nullptr) return misuse;
    cpp(socket).close();
    return success;
}
evpl_error evpl_datagram_get_metrics(const evpl_datagram* socket, evpl_datagram_metrics* metrics) {
    if (socket == nullptr || metrics == nullptr) return misuse;
    const DatagramMetrics m = cpp(socket).metrics();
    return write(metrics, evpl_datagram_metrics{0, 0, m.received_packets, m.received_bytes, m.sent_packets, m.sent_bytes, m.dropped_packets,
                                                m.truncated_packets, m.send_errors});
}
evpl_error evpl_datagram_caps(const evpl_datagram* socket, evpl_caps* caps) {
    if (socket == nullptr || caps == nullptr) return misuse;
    return write(caps, caps_to_c(cpp(socket).caps()));
}

}  // extern "C"
