// Listeners, connections, remote memory.
#include "capi.hpp"

using namespace evpl;
using namespace evpl::capi;

namespace {

struct OwnedListener : Owned {
    Listener listener;
};
Listener& cpp(evpl_listener* handle) noexcept { return reinterpret_cast<OwnedListener*>(handle)->listener; }
const Listener& cpp(const evpl_listener* handle) noexcept { return reinterpret_cast<const OwnedListener*>(handle)->listener; }
using evpl::capi::cpp;

evpl_error give(Result<Chain> made, evpl_chain* chain) noexcept {
    if (!made) {
        clear(chain);
        return to_c(made.error());
    }
    put(chain, *std::move(made));
    return success;
}

RemoteRegion to_cpp(const evpl_remote_region& region) noexcept { return {region.address, region.key, region.size_bytes}; }

evpl_error listen_source(evpl_loop* loop, const char* url, const Source& source, evpl_listener** listener) noexcept {
    auto* made = new (std::nothrow) OwnedListener;
    if (made == nullptr) {
        if (source.factory.drop != nullptr) source.factory.drop(source.factory.context);
        return no_memory;
    }
    auto opened = detail::listen(cpp(loop), url, factory_of(source));
    if (!opened) {
        delete made;
        return to_c(opened.error());
    }
    made->listener = *std::move(opened);
    *listener = reinterpret_cast<evpl_listener*>(made);
    made->enlist(*listener);
    return success;
}

evpl_error connect_source(evpl_loop* loop, const char* url, const Source& source, int64_t within_ns, evpl_connection_ref* connection) noexcept {
    const auto started = detail::connect(cpp(loop), url, factory_of(source), limit_of(within_ns));
    if (started && connection != nullptr) cpp(connection) = *started;
    return status(started);
}

evpl_error remote(Result<OperationId> started, uint64_t* id) noexcept {
    if (started && id != nullptr) *id = started->value;
    return status(started);
}

}  // namespace

extern "C" {

evpl_error evpl_listen(evpl_loop* loop, const char* url, const evpl_handler* handler, void* self, evpl_listener** listener) {
    if (listener == nullptr) return misuse;
    *listener = nullptr;
    Source source;
    if (loop == nullptr || url == nullptr || !make_source(handler, nullptr, self, source)) return misuse;
    return listen_source(loop, url, source, listener);
}
evpl_error evpl_listen_each(evpl_loop* loop, const char* url, const evpl_handler* handler, const evpl_factory* factory, evpl_listener** listener) {
    if (listener == nullptr) return misuse;
    *listener = nullptr;
    Source source;
    if (loop == nullptr || url == nullptr || factory == nullptr || !make_source(handler, factory, nullptr, source)) return misuse;
    return listen_source(loop, url, source, listener);
}
evpl_text evpl_listener_url(const evpl_listener* listener) { return listener == nullptr ? evpl_text{} : to_c(cpp(listener).url()); }
uint16_t evpl_listener_port(const evpl_listener* listener) { return listener == nullptr ? uint16_t(0) : cpp(listener).port(); }
int evpl_listener_hand_over(evpl_listener* listener) { return listener == nullptr ? -1 : cpp(listener).hand_over(); }
evpl_error evpl_listener_pause(evpl_listener* listener) {
    if (listener == nullptr) return misuse;
    cpp(listener).pause();
    return success;
}
evpl_error evpl_listener_resume(evpl_listener* listener) {
    if (listener == nullptr) return misuse;
    cpp(listener).resume();
    return success;
}
evpl_error evpl_listener_limit_connections(evpl_listener* listener, uint32_t most) {
    if (listener == nullptr) return misuse;
    cpp(listener).limit_connections(most);
    return success;
}
evpl_error evpl_listener_free(evpl_listener* listener) {
    auto* const found = Owned::take<OwnedListener>(listener);
    if (found == nullptr) return misuse;
    delete found;
    return success;
}
evpl_error evpl_listener_get_metrics(const evpl_listener* listener, evpl_listener_metrics* metrics) {
    if (listener == nullptr || metrics == nullptr) return misuse;
    const ListenerMetrics m = cpp(listener).metrics();
    return write(metrics, evpl_listener_metrics{0, 0, m.accepted, m.refused, m.open, m.accept_pauses});
}

evpl_error evpl_connect(evpl_loop* loop, const char* url, const evpl_handler* handler, void* self, int64_t within_ns, evpl_connection_ref* connection) {
    if (connection != nullptr) *connection = {};
    Source source;
    if (loop == nullptr || url == nullptr || !make_source(handler, nullptr, self, source)) return misuse;
    return connect_source(loop, url, source, within_ns, connection);
}
evpl_error evpl_connect_each(evpl_loop* loop, const char* url, const evpl_handler* handler, const evpl_factory* factory, int64_t within_ns,
                             evpl_connection_ref* connection) {
    if (connection != nullptr) *connection = {};
    Source source;
    if (loop == nullptr || url == nullptr || factory == nullptr || !make_source(handler, factory, nullptr, source)) return misuse;
    return connect_source(loop, url, source, within_ns, connection);
}
evpl_connection_ref evpl_connection_get_ref(const evpl_connection* peer) {
    evpl_connection_ref ref{};
    if (peer != nullptr) cpp(&ref) = cpp(peer).ref();
    return ref;
}
evpl_connection* evpl_connection_get(evpl_connection_ref ref) { return reinterpret_cast<evpl_connection*>(cpp(&ref).get()); }

evpl_loop* evpl_connection_loop(const evpl_connection* peer) { return peer == nullptr ? nullptr : reinterpret_cast<evpl_loop*>(&cpp(peer).loop()); }
evpl_text evpl_connection_transport(const evpl_connection* peer) { return peer == nullptr ? evpl_text{} : to_c(cpp(peer).transport()); }
evpl_text evpl_connection_remote_name(const evpl_connection* peer) { return peer == nullptr ? evpl_text{} : to_c(cpp(peer).remote_name()); }
bool evpl_connection_is_open(const evpl_connection* peer) { return peer != nullptr && cpp(peer).is_open(); }
evpl_address evpl_connection_remote_address(const evpl_connection* peer) {
    evpl_address address{};
    if (peer != nullptr) cpp(&address) = cpp(peer).remote_address();
    return address;
}
evpl_address evpl_connection_local_address(const evpl_connection* peer) {
    evpl_address address{};
    if (peer != nullptr) cpp(&address) = cpp(peer).local_address();
    return address;
}
evpl_error evpl_connection_credentials(const evpl_connection* peer, int32_t* pid, uint32_t* uid, uint32_t* gid) {
    if (peer == nullptr) return misuse;
    const auto who = cpp(peer).credentials();
    if (!who) return status(who);
    if (pid != nullptr) *pid = who->pid;
    if (uid != nullptr) *uid = who->uid;
    if (gid != nullptr) *gid = who->gid;
    return success;
}
int evpl_connection_native_fd(const evpl_connection* peer) { return peer == nullptr ? -1 : cpp(peer).native_fd(); }

size_t evpl_connection_available(const evpl_connection* peer) { return peer == nullptr ? 0 : cpp(peer).available(); }
evpl_error evpl_connection_recv(evpl_connection* peer, size_t max, evpl_chain* chain) {
    if (peer == nullptr || chain == nullptr) return misuse;
    put(chain, cpp(peer).recv(max));
    return success;
}
evpl_error evpl_connection_recv_exactly(evpl_connection* peer, uint32_t n, evpl_chain* chain) {
    if (peer == nullptr || chain == nullptr) return misuse;
    return give(cpp(peer).recv_exactly(n), chain);
}
bool evpl_connection_has_message(evpl_connection* peer) { return peer != nullptr && cpp(peer).has_message(); }
evpl_error evpl_connection_recv_message(evpl_connection* peer, evpl_chain* chain) {
    if (peer == nullptr || chain == nullptr) return misuse;
    return give(cpp(peer).recv_message(), chain);
}
size_t evpl_connection_peek(const evpl_connection* peer, void* target, size_t room) {
    return peer == nullptr || target == nullptr ? 0 : cpp(peer).peek(std::span(static_cast<std::byte*>(target), room));
}
evpl_error evpl_connection_consume(evpl_connection* peer, size_t n) {
    if (peer == nullptr || n > cpp(peer).available()) return misuse;
    cpp(peer).consume(n);
    return success;
}
evpl_error evpl_connection_recv_into(evpl_connection* peer, evpl_buffer* target) {
    if (peer == nullptr || target == nullptr) return misuse;
    return status(cpp(peer).recv_into(std::move(cpp(target))));
}
evpl_error evpl_connection_landed(evpl_connection* peer, evpl_buffer* buffer) {
    if (peer == nullptr || buffer == nullptr) return misuse;
    cpp(buffer) = cpp(peer).landed();
    return success;
}
int evpl_connection_recv_descriptor(evpl_connection* peer) { return peer == nullptr ? -1 : cpp(peer).recv_descriptor(); }

evpl_flow evpl_connection_send(evpl_connection* peer, evpl_chain* chain) {
    if (peer == nullptr || chain == nullptr || is_copied(chain)) {
        clear(chain);
        return flow_misuse;
    }
    Chain* const bytes = chain_in(chain);
    const Flow flow = cpp(peer).send(bytes == nullptr ? Chain() : std::move(*bytes));
    clear(chain);
    return to_c(flow);
}
evpl_flow evpl_connection_send_buffer(evpl_connection* peer, evpl_buffer* buffer) {
    if (peer == nullptr || buffer == nullptr) {
        evpl_buffer_release(buffer);
        return flow_misuse;
    }
    return to_c(cpp(peer).send(Chain(std::move(cpp(buffer)))));
}
evpl_flow evpl_connection_send_bytes(evpl_connection* peer, const void* bytes, size_t size) {
    if (peer == nullptr || (bytes == nullptr && size > 0)) return flow_misuse;
    return to_c(cpp(peer).send(std::span(static_cast<const std::byte*>(bytes), size)));
}
evpl_flow evpl_connection_send_invalidating(evpl_connection* peer, evpl_chain* chain, uint64_t key) {
    if (peer == nullptr || chain == nullptr || is_copied(chain)) {
        clear(chain);
        return flow_misuse;
    }
    Chain* const bytes = chain_in(chain);
    const Flow flow = cpp(peer).send_invalidating(bytes == nullptr ? Chain() : std::move(*bytes), key);
    clear(chain);
    return to_c(flow);
}
uint64_t evpl_connection_invalidated_key(const evpl_connection* peer) { return peer == nullptr ? 0 : cpp(peer).invalidated_key(); }
bool evpl_connection_try_send(evpl_connection* peer, evpl_chain* chain) {
    if (peer == nullptr || chain == nullptr || is_copied(chain)) return false;
    Chain none;
    Chain* const bytes = chain_in(chain);
    if (!cpp(peer).try_send(bytes == nullptr ? none : *bytes)) return false;
    clear(chain);
    return true;
}
size_t evpl_connection_send_room(const evpl_connection* peer) { return peer == nullptr ? 0 : cpp(peer).send_room(); }
size_t evpl_connection_queued(const evpl_connection* peer) { return peer == nullptr ? 0 : cpp(peer).queued(); }
evpl_error evpl_connection_flush(evpl_connection* peer) {
    if (peer == nullptr) return misuse;
    cpp(peer).flush();
    return success;
}
evpl_error evpl_connection_send_descriptor(evpl_connection* peer, int fd, evpl_chain* chain) {
    if (peer == nullptr || chain == nullptr || is_copied(chain) || fd < 0) {
        clear(chain);
        return misuse;
    }
    return status(cpp(peer).send_descriptor(fd, take(chain)));
}

evpl_error evpl_connection_shutdown(evpl_connection* peer, int64_t limit_ns) {
    if (peer == nullptr) return misuse;
    cpp(peer).shutdown(limit_of(limit_ns));
    return success;
}
evpl_error evpl_connection_close(evpl_connection* peer, evpl_error reason) {
    if (peer == nullptr) return misuse;
    if (reason.code == EVPL_OK) cpp(peer).close();
    else cpp(peer).close(from_c(reason));
    return success;
}

evpl_error evpl_connection_limits(const evpl_connection* peer, evpl_queue_limits* limits) {
    if (peer == nullptr || limits == nullptr) return misuse;
    return write(limits, limits_to_c(cpp(peer).limits()));
}
evpl_error evpl_connection_set_limits(evpl_connection* peer, const evpl_queue_limits* limits) {
    if (peer == nullptr || limits == nullptr || limits->size_bytes < 8) return misuse;
    cpp(peer).set_limits(limits_over(cpp(peer).limits(), read(limits)));
    return success;
}
evpl_error evpl_connection_deadline_recv(evpl_connection* peer, int64_t idle_ns) {
    if (peer == nullptr || idle_ns <= 0) return misuse;
    cpp(peer).deadline_recv(Duration::of_ns(idle_ns));
    return success;
}
evpl_error evpl_connection_deadline_send(evpl_connection* peer, int64_t stalled_ns) {
    if (peer == nullptr || stalled_ns <= 0) return misuse;
    cpp(peer).deadline_send(Duration::of_ns(stalled_ns));
    return success;
}
evpl_error evpl_connection_get_metrics(const evpl_connection* peer, evpl_connection_metrics* metrics) {
    if (peer == nullptr || metrics == nullptr) return misuse;
    const ConnectionMetrics m = cpp(peer).metrics();
    return write(metrics, evpl_connection_metrics{0, 0, m.received_bytes, m.sent_bytes, m.queued_bytes, m.unread_bytes, m.pinned_bytes, m.receive_pauses,
                                                  m.send_pauses});
}
evpl_error evpl_connection_caps(const evpl_connection* peer, evpl_caps* caps) {
    if (peer == nullptr || caps == nullptr) return misuse;
    return write(caps, caps_to_c(cpp(peer).caps()));
}

evpl_bytes evpl_connection_private_data(const evpl_connection* peer) {
    if (peer == nullptr) return {};
    const auto heard = cpp(peer).private_data();
    return {heard.data(), heard.size()};
}
evpl_error evpl_connection_set_private_data(evpl_connection* peer, const void* bytes, size_t size) {
    if (peer == nullptr || (bytes == nullptr && size > 0)) return misuse;
    return status(cpp(peer).set_private_data(std::span(static_cast<const std::byte*>(bytes), size)));
}

evpl_error evpl_connection_expose(evpl_connection* peer, evpl_buffer* range, uint8_t access, evpl_remote_region* region) {
    if (peer == nullptr || range == nullptr || region == nullptr || access == 0 || access > (EVPL_ACCESS_READ_WRITE | EVPL_ACCESS_ATOMIC)) {
        evpl_buffer_release(range);
        return misuse;
    }
    const auto exposed = cpp(peer).expose(std::move(cpp(range)), Access(access));
    if (exposed) *region = {exposed->address, exposed->key, exposed->size_bytes};
    return status(exposed);
}
evpl_error evpl_connection_revoke(evpl_connection* peer, const evpl_remote_region* region) {
    if (peer == nullptr || region == nullptr) return misuse;
    return status(cpp(peer).revoke(to_cpp(*region)));
}
evpl_error evpl_connection_read(evpl_connection* peer, const evpl_remote_region* region, uint64_t offset, evpl_buffer* into, uint64_t* id) {
    if (peer == nullptr || region == nullptr || into == nullptr) {
        evpl_buffer_release(into);
        return misuse;
    }
    return remote(cpp(peer).read(to_cpp(*region), offset, std::move(cpp(into))), id);
}
evpl_error evpl_connection_write(evpl_connection* peer, const evpl_remote_region* region, uint64_t offset, evpl_buffer* from, uint64_t* id) {
    if (peer == nullptr || region == nullptr || from == nullptr) {
        evpl_buffer_release(from);
        return misuse;
    }
    return remote(cpp(peer).write(to_cpp(*region), offset, std::move(cpp(from))), id);
}
evpl_error evpl_connection_write_telling(evpl_connection* peer, const evpl_remote_region* region, uint64_t offset, evpl_buffer* from, uint32_t word,
                                         uint64_t* id) {
    if (peer == nullptr || region == nullptr || from == nullptr) {
        evpl_buffer_release(from);
        return misuse;
    }
    return remote(cpp(peer).write_telling(to_cpp(*region), offset, std::move(cpp(from)), word), id);
}
evpl_error evpl_connection_fetch_add(evpl_connection* peer, const evpl_remote_region* region, uint64_t offset, uint64_t add, uint64_t* id) {
    if (peer == nullptr || region == nullptr) return misuse;
    return remote(cpp(peer).fetch_add(to_cpp(*region), offset, add), id);
}
evpl_error evpl_connection_compare_swap(evpl_connection* peer, const evpl_remote_region* region, uint64_t offset, uint64_t expected, uint64_t desired,
                                        uint64_t* id) {
    if (peer == nullptr || region == nullptr) return misuse;
    return remote(cpp(peer).compare_swap(to_cpp(*region), offset, expected, desired), id);
}
uint64_t evpl_completion_value(const evpl_completion* done) { return done == nullptr ? 0 : cpp(done).value; }
uint64_t evpl_completion_id(const evpl_completion* done) { return done == nullptr ? 0 : cpp(done).id.value; }
evpl_error evpl_completion_error(const evpl_completion* done) { return done == nullptr ? misuse : to_c(cpp(done).error); }
evpl_error evpl_completion_take(evpl_completion* done, evpl_buffer* buffer) {
    if (done == nullptr || buffer == nullptr) return misuse;
    cpp(buffer) = std::move(cpp(done).buffer);
    return success;
}

}  // extern "C"
