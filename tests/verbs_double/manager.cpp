// Connections and addresses: what librdmacm does. Between any two ids of the process, whatever devices they are on.

#include <arpa/inet.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <unordered_map>

#include "objects.hpp"

namespace verbs_double {
namespace {

using Lock = std::unique_lock<std::mutex>;

Id& id_of(rdma_cm_id* id) { return *static_cast<Id*>(id); }

std::unordered_map<std::uint64_t, Id*>& alive() {
    static auto* const all = new std::unordered_map<std::uint64_t, Id*>;
    return *all;
}
Id* find(std::uint64_t serial) {
    const auto found = alive().find(serial);
    return found != alive().end() ? found->second : nullptr;
}

Id* make(Channel* channel, void* context, rdma_port_space space) {
    static std::uint64_t last = 0;
    auto* id = new Id();
    id->channel = channel;
    id->context = context;
    id->ps = space;
    id->qp_type = space == RDMA_PS_UDP ? IBV_QPT_UD : IBV_QPT_RC;
    id->serial = ++last;
    alive()[id->serial] = id;
    ++books().id;
    return id;
}

std::size_t size_of(const sockaddr& address) { return address.sa_family == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in); }
std::uint16_t port_of(const sockaddr& address) { return ntohs(reinterpret_cast<const sockaddr_in&>(address).sin_port); }  // IPv6 has it there, too
void set_port(sockaddr& address, std::uint16_t port) { reinterpret_cast<sockaddr_in&>(address).sin_port = htons(port); }
bool is_any(const sockaddr& address) {
    const in6_addr gid = gid_of(address);
    return address.sa_family == AF_INET6 ? IN6_IS_ADDR_UNSPECIFIED(&gid) : reinterpret_cast<const sockaddr_in&>(address).sin_addr.s_addr == 0;
}
bool same_gid(const sockaddr& a, const sockaddr& b) {
    const in6_addr one = gid_of(a), other = gid_of(b);
    return std::memcmp(&one, &other, sizeof one) == 0;
}

void attach(Id& id, Card& card) {
    id.verbs = card.current;
    id.port_num = 1;
}

bool taken(const Id& asking, const sockaddr& at) {
    for (const auto& [serial, each] : alive()) {
        if (each == &asking || each->ps != asking.ps || !each->bound) continue;
        const sockaddr& there = each->route.addr.src_addr;
        if (port_of(there) == port_of(at) && (is_any(there) || is_any(at) || same_gid(there, at))) return true;
    }
    return false;
}

/// Port 0 becomes a free one. False: the port is taken.
bool claim_port(Id& id) {
    static std::uint16_t next = 40000;
    sockaddr& at = id.route.addr.src_addr;
    if (port_of(at) != 0) return !taken(id, at);
    for (int tried = 0; tried < 20000; ++tried) {
        set_port(at, next);
        next = next >= 60000 ? std::uint16_t(40000) : std::uint16_t(next + 1);
        if (!taken(id, at)) return true;
    }
    return false;
}

// -- events --------------------------------------------------------------------------------------------------------

Event* event_of(Id& id, rdma_cm_event_type type, int status) {
    auto* event = new Event();
    event->id = &id;
    event->owner = &id;
    event->event = type;
    event->status = status;
    return event;
}
void send(Event* event) { static_cast<Channel*>(event->owner->channel)->mail.push(event); }
void tell(Id& id, rdma_cm_event_type type, int status = 0) { send(event_of(id, type, status)); }

/// Private data as it arrives: padded.
void enclose(Event& event, const rdma_conn_param& given, std::size_t padded, bool garbage) {
    event.data.assign(static_cast<const char*>(given.private_data), given.private_data_len);
    event.data.resize(std::max(padded, event.data.size()));
    if (garbage)
        for (char& byte : event.data) byte = char(draw(256));
    event.param.conn = given;
    event.param.conn.private_data = event.data.data();
    event.param.conn.private_data_len = std::uint8_t(event.data.size());
}
constexpr std::size_t request_bytes = 56, accept_bytes = 196, reject_bytes = 148;  // as soft-RoCE's manager shows them

/// The queue pair is in error, and flushed, before whose it is hears why.
void tell_reject(Id& to, int status, const rdma_conn_param& given) {
    to.step = Id::State::idle;
    if (to.qp != nullptr) enter(*static_cast<Qp*>(to.qp), IBV_QPS_ERR);
    const auto say = [serial = to.serial, status, said = std::string(static_cast<const char*>(given.private_data), given.private_data_len)] {
        Id* const there = find(serial);
        if (there == nullptr) return;
        rdma_conn_param same{};
        same.private_data = said.data();
        same.private_data_len = std::uint8_t(said.size());
        Event* event = event_of(*there, RDMA_CM_EVENT_REJECTED, status);
        enclose(*event, same, reject_bytes, false);
        send(event);
    };
    if (knobs().late_rejected > 0) later(knobs().late_rejected * 1000, say);
    else say();
}

void tell_unreachable(Id& to, int status) {
    to.step = Id::State::idle;
    tell(to, RDMA_CM_EVENT_UNREACHABLE, status);
}

/// The other side is told that this one leaves. Who left first hears of it only when both have.
void leave(Id& id) {
    if (id.step != Id::State::connected) return;
    id.step = Id::State::disconnected;
    Id* const peer = find(id.peer);
    if (peer == nullptr) return;
    if (peer->step == Id::State::disconnected) return tell(*peer, RDMA_CM_EVENT_DISCONNECTED);
    const auto say = [serial = peer->serial] {
        if (Id* there = find(serial)) tell(*there, RDMA_CM_EVENT_DISCONNECTED);
    };
    if (knobs().late_disconnected > 0) later(knobs().late_disconnected * 1000, say);
    else say();
}

Id* listener_at(const Id& asking) {
    const sockaddr& at = asking.route.addr.dst_addr;
    for (const auto& [serial, each] : alive()) {
        if (each->step != Id::State::listening || each->ps != asking.ps) continue;
        const sockaddr& there = each->route.addr.src_addr;
        if (port_of(there) == port_of(at) && (is_any(there) || same_gid(there, at))) return each;
    }
    return nullptr;
}

/// The listener's side of a connection to be.
void request(Id& asking, Id& listener) {
    Card* const card = card_of(asking.route.addr.dst_addr);
    Id& child = *make(static_cast<Channel*>(listener.channel), listener.context, listener.ps);
    child.step = Id::State::asked;
    child.peer = asking.serial;
    asking.peer = child.serial;
    attach(child, *card);
    std::memcpy(&child.route.addr.src_storage, &asking.route.addr.dst_storage, sizeof(sockaddr_storage));
    std::memcpy(&child.route.addr.dst_storage, &asking.route.addr.src_storage, sizeof(sockaddr_storage));
    Event* event = event_of(child, RDMA_CM_EVENT_CONNECT_REQUEST, 0);
    event->listen_id = &listener;
    event->owner = &listener;
    enclose(*event, asking.wanted, request_bytes, knobs().hello_request.hits());
    send(event);
}

int connect_datagrams(Id& id) {
    Id* const listener = listener_at(id);
    if (listener == nullptr || card_of(id.route.addr.dst_addr) == nullptr) tell_unreachable(id, 3);
    else request(id, *listener);
    return 0;
}

int accept_datagrams(Id& id, std::uint32_t qp_number) {
    Id* const asking = find(id.peer);
    id.step = Id::State::idle;
    if (asking == nullptr || asking->step != Id::State::connecting) return 0;
    asking->step = Id::State::idle;
    Event* event = event_of(*asking, RDMA_CM_EVENT_ESTABLISHED, 0);
    event->param.ud = {};
    event->param.ud.qp_num = qp_number;
    event->param.ud.qkey = RDMA_UDP_QKEY;
    event->param.ud.ah_attr.is_global = 1;
    event->param.ud.ah_attr.port_num = 1;
    const in6_addr gid = gid_of(asking->route.addr.dst_addr);
    std::memcpy(event->param.ud.ah_attr.grh.dgid.raw, &gid, sizeof gid);
    send(event);
    return 0;
}

void join_pair(Id& id, Id& peer) {
    auto& here = *static_cast<Qp*>(id.qp);
    auto& there = *static_cast<Qp*>(peer.qp);
    here.peer = there.qp_num;
    there.peer = here.qp_num;
    here.rnr_retry = here.rnr_left = peer.wanted.rnr_retry_count;
    there.rnr_retry = there.rnr_left = id.wanted.rnr_retry_count;
    enter(here, IBV_QPS_RTS);
    enter(there, IBV_QPS_RTS);
    id.step = peer.step = Id::State::connected;
}

int fail(int os) {
    errno = os;
    return -1;
}

/// What of `id` nobody has taken: gone with it. Whoever asked at a listener that goes is refused.
void drop_events(Id& id) {
    auto& items = static_cast<Channel*>(id.channel)->mail.items;
    std::deque<Event*> kept;
    std::vector<Event*> gone;
    for (Event* each : items) {
        if (each->owner == &id || each->id == &id) gone.push_back(each);
        else kept.push_back(each);
    }
    items = std::move(kept);
    for (Event* each : gone) {
        if (each->event == RDMA_CM_EVENT_CONNECT_REQUEST && each->id != &id) {
            Id& child = id_of(each->id);
            if (Id* asking = find(child.peer)) {
                if (child.ps == RDMA_PS_UDP) tell_unreachable(*asking, 1);
                else tell_reject(*asking, 8, {});
            }
            alive().erase(child.serial);
            --books().id;
            delete &child;
        }
        delete each;
    }
}

}  // namespace

/// A device goes: every id on it is told, listeners too.
void lose(Context& context) {
    std::vector<std::uint64_t> on_it;
    for (const auto& [serial, each] : alive())
        if (each->verbs == &context) on_it.push_back(serial);
    std::sort(on_it.begin(), on_it.end());
    for (const std::uint64_t serial : on_it) tell(*find(serial), RDMA_CM_EVENT_DEVICE_REMOVAL);
}

}  // namespace verbs_double

using namespace verbs_double;

extern "C" {

rdma_event_channel* rdma_create_event_channel(void) {
    const Lock lock(everything());
    auto* channel = new Channel();
    channel->mail.open();
    channel->fd = channel->mail.fd;
    if (channel->fd >= 0) return channel;
    delete channel;
    return nullptr;
}
void rdma_destroy_event_channel(rdma_event_channel* handle) {
    const Lock lock(everything());
    auto* channel = static_cast<Channel*>(handle);
    for (const auto& [serial, each] : alive())
        if (each->channel == channel) misuse("an event channel is destroyed, ids use it");
    channel->mail.close();
    delete channel;
}

int rdma_create_id(rdma_event_channel* channel, rdma_cm_id** out, void* context, rdma_port_space space) {
    const Lock lock(everything());
    if (knobs().id.hits()) return fail(ENOMEM);
    *out = make(static_cast<Channel*>(channel), context, space);
    return 0;
}
int rdma_destroy_id(rdma_cm_id* handle) {
    const Lock lock(everything());
    Id& id = id_of(handle);
    if (find(id.serial) != &id) misuse("an id is destroyed that is none");
    if (id.qp != nullptr) misuse("an id is destroyed before its queue pair");
    if (id.unacked > 0) misuse("an id is destroyed with %u events that were not acknowledged: the real call waits for ever", id.unacked);
    leave(id);
    if (id.step == Id::State::asked) {
        if (Id* asking = find(id.peer); asking != nullptr && asking->step == Id::State::connecting) {
            if (id.ps == RDMA_PS_UDP) tell_unreachable(*asking, 1);
            else tell_reject(*asking, 28, {});
        }
    }
    if (id.step == Id::State::connecting) {
        if (Id* child = find(id.peer); child != nullptr && child->step == Id::State::asked && child->ps == RDMA_PS_TCP) tell_reject(*child, 28, {});
    }
    drop_events(id);
    alive().erase(id.serial);
    --books().id;
    delete &id;
    return 0;
}

int rdma_bind_addr(rdma_cm_id* handle, sockaddr* at) {
    const Lock lock(everything());
    Id& id = id_of(handle);
    Card* const card = is_any(*at) ? nullptr : card_of(*at);
    if (card == nullptr && !is_any(*at)) return fail(ENODEV);
    std::memcpy(&id.route.addr.src_storage, at, size_of(*at));
    if (!claim_port(id)) return fail(EADDRINUSE);
    id.bound = true;
    if (card != nullptr) attach(id, *card);
    return 0;
}
int rdma_listen(rdma_cm_id* handle, int) {
    const Lock lock(everything());
    Id& id = id_of(handle);
    if (!id.bound) return fail(EINVAL);
    id.step = Id::State::listening;
    return 0;
}

int rdma_resolve_addr(rdma_cm_id* handle, sockaddr* from, sockaddr* to, int) {
    const Lock lock(everything());
    Id& id = id_of(handle);
    std::memcpy(&id.route.addr.dst_storage, to, size_of(*to));
    Card* const there = card_of(*to);
    Card* const card = from != nullptr ? card_of(*from) : there;
    if (card == nullptr) return fail(ENODEV);
    if (there == nullptr || knobs().address_error.hits()) {
        tell(id, RDMA_CM_EVENT_ADDR_ERROR, -EHOSTUNREACH);
        return 0;
    }
    std::memcpy(&id.route.addr.src_storage, from != nullptr ? from : to, size_of(*to));
    set_port(id.route.addr.src_addr, 0);
    if (!claim_port(id)) return fail(EADDRNOTAVAIL);
    attach(id, *card);
    tell(id, RDMA_CM_EVENT_ADDR_RESOLVED);
    return 0;
}
int rdma_resolve_route(rdma_cm_id* handle, int) {
    const Lock lock(everything());
    Id& id = id_of(handle);
    if (id.verbs == nullptr) misuse("a route without an address");
    if (knobs().route_error.hits()) tell(id, RDMA_CM_EVENT_ROUTE_ERROR, -ETIMEDOUT);
    else tell(id, RDMA_CM_EVENT_ROUTE_RESOLVED);
    return 0;
}

int rdma_connect(rdma_cm_id* handle, rdma_conn_param* wanted) {
    const Lock lock(everything());
    Id& id = id_of(handle);
    id.wanted = *wanted;
    id.step = Id::State::connecting;
    if (id.ps == RDMA_PS_UDP) return connect_datagrams(id);
    if (id.qp == nullptr) misuse("connecting without a queue pair");
    if (wanted->private_data_len > request_bytes) return fail(EINVAL);
    if (knobs().silent.hits()) return 0;
    Id* const listener = listener_at(id);
    if (knobs().unreachable.hits()) {
        tell_unreachable(id, -ETIMEDOUT);
    } else if (knobs().connect_error.hits()) {
        tell(id, RDMA_CM_EVENT_CONNECT_ERROR, -EINVAL);
    } else if (listener == nullptr || card_of(id.route.addr.dst_addr) == nullptr) {
        tell_reject(id, 8, {});
    } else if (knobs().reject.hits()) {
        tell_reject(id, 28, {});
    } else {
        request(id, *listener);
    }
    id.wanted.private_data = nullptr;  // the caller's, and copied
    id.wanted.private_data_len = 0;
    return 0;
}
int rdma_accept(rdma_cm_id* handle, rdma_conn_param* wanted) {
    const Lock lock(everything());
    Id& id = id_of(handle);
    if (id.step != Id::State::asked) return fail(EINVAL);
    if (id.ps == RDMA_PS_UDP) return accept_datagrams(id, wanted->qp_num);
    if (id.qp == nullptr) misuse("accepting without a queue pair");
    if (wanted->private_data_len > accept_bytes) return fail(EINVAL);
    Id* const asking = find(id.peer);
    if (asking == nullptr || asking->step != Id::State::connecting || asking->qp == nullptr) {
        id.step = Id::State::idle;
        tell(id, RDMA_CM_EVENT_CONNECT_ERROR, -ECONNRESET);
        return 0;
    }
    id.wanted = *wanted;
    join_pair(id, *asking);
    Event* event = event_of(*asking, RDMA_CM_EVENT_ESTABLISHED, 0);
    enclose(*event, *wanted, accept_bytes, knobs().hello_accept.hits());
    send(event);
    id.wanted.private_data = nullptr;
    id.wanted.private_data_len = 0;
    const auto say = [serial = id.serial] {
        if (Id* here = find(serial)) tell(*here, RDMA_CM_EVENT_ESTABLISHED);
    };
    if (knobs().late_established > 0) later(knobs().late_established * 1000, say);
    else say();
    return 0;
}
int rdma_reject(rdma_cm_id* handle, const void* data, std::uint8_t bytes) {
    const Lock lock(everything());
    Id& id = id_of(handle);
    if (id.step != Id::State::asked) return fail(EINVAL);
    id.step = Id::State::idle;
    Id* const asking = find(id.peer);
    if (asking == nullptr || asking->step != Id::State::connecting) return 0;
    rdma_conn_param given{};
    given.private_data = data;
    given.private_data_len = bytes;
    if (id.ps == RDMA_PS_UDP) tell_unreachable(*asking, 1);
    else tell_reject(*asking, 28, given);
    return 0;
}
int rdma_disconnect(rdma_cm_id* handle) {
    const Lock lock(everything());
    Id& id = id_of(handle);
    if (id.qp != nullptr) enter(*static_cast<Qp*>(id.qp), IBV_QPS_ERR);
    if (id.step != Id::State::connected) return fail(EINVAL);
    leave(id);
    return 0;
}

int rdma_get_cm_event(rdma_event_channel* handle, rdma_cm_event** out) {
    Lock lock(everything());
    Event* event = nullptr;
    if (!static_cast<Channel*>(handle)->mail.pop(event, lock)) return -1;
    ++event->owner->unacked;
    ++books().unacked;
    *out = event;
    return 0;
}
int rdma_ack_cm_event(rdma_cm_event* handle) {
    const Lock lock(everything());
    auto* event = static_cast<Event*>(handle);
    --event->owner->unacked;
    --books().unacked;
    event->data.assign(event->data.size(), '\xdd');  // who still reads it notices
    delete event;
    return 0;
}

int rdma_create_qp(rdma_cm_id* handle, ibv_pd* pd, ibv_qp_init_attr* wanted) {
    const Lock lock(everything());
    Id& id = id_of(handle);
    if (id.verbs == nullptr || id.qp != nullptr || pd->context != id.verbs) return fail(EINVAL);
    const int failed = create_qp(id, *static_cast<Pd*>(pd), *wanted);
    return failed != 0 ? fail(failed) : 0;
}
void rdma_destroy_qp(rdma_cm_id* handle) {
    const Lock lock(everything());
    Id& id = id_of(handle);
    if (id.qp == nullptr) return misuse("a queue pair is destroyed that is none");
    destroy_qp(*static_cast<Qp*>(id.qp));
    id.qp = nullptr;
}
// Queue pairs that their user takes through the states are not modelled: a path of its own (gid_index, sl, mtu) is refused here.
ibv_qp* ibv_create_qp(ibv_pd*, ibv_qp_init_attr*) {
    errno = EOPNOTSUPP;
    return nullptr;
}
int ibv_destroy_qp(ibv_qp*) { return EOPNOTSUPP; }
int ibv_modify_qp(ibv_qp*, ibv_qp_attr*, int) { return EOPNOTSUPP; }
int rdma_init_qp_attr(rdma_cm_id*, ibv_qp_attr*, int*) { return fail(EOPNOTSUPP); }
int rdma_establish(rdma_cm_id*) { return fail(EOPNOTSUPP); }
int rdma_set_option(rdma_cm_id*, int, int, void*, std::size_t) { return 0; }

int rdma_join_multicast(rdma_cm_id* handle, sockaddr* group, void* context) {
    const Lock lock(everything());
    Id& id = id_of(handle);
    if (id.qp == nullptr) return fail(EINVAL);
    const in6_addr gid = gid_of(*group);
    const std::string name(reinterpret_cast<const char*>(&gid), sizeof gid);
    id.groups.insert(name);
    groups()[name].insert(id.qp->qp_num);
    Event* event = event_of(id, RDMA_CM_EVENT_MULTICAST_JOIN, 0);
    event->param.ud = {};
    event->param.ud.private_data = context;
    event->param.ud.qp_num = 0xffffff;
    event->param.ud.qkey = RDMA_UDP_QKEY;
    event->param.ud.ah_attr.is_global = 1;
    event->param.ud.ah_attr.port_num = 1;
    std::memcpy(event->param.ud.ah_attr.grh.dgid.raw, &gid, sizeof gid);
    send(event);
    return 0;
}
int rdma_leave_multicast(rdma_cm_id* handle, sockaddr* group) {
    const Lock lock(everything());
    Id& id = id_of(handle);
    const in6_addr gid = gid_of(*group);
    const std::string name(reinterpret_cast<const char*>(&gid), sizeof gid);
    if (id.groups.erase(name) == 0) return fail(EINVAL);
    if (id.qp != nullptr) groups()[name].erase(id.qp->qp_num);
    return 0;
}

ibv_context** rdma_get_devices(int* count) {
    const Lock lock(everything());
    static auto* const lists = new std::vector<ibv_context**>;  // the real one's are kept by who called, too
    auto** list = new ibv_context*[cards + 1]();
    int n = 0;
    for (unsigned i = 0; i < cards; ++i)
        if (card(i).current != nullptr) list[n++] = card(i).current;
    lists->push_back(list);
    if (count != nullptr) *count = n;
    return list;
}
const char* rdma_event_str(rdma_cm_event_type type) {
    static constexpr const char* names[] = {"address resolved", "address error",   "route resolved", "route error",  "connect request", "connect response",
                                            "connect error",    "unreachable",     "rejected",       "established",  "disconnected",    "device removal",
                                            "multicast join",   "multicast error", "address change", "timewait exit"};
    return names[unsigned(type)];
}

}  // extern "C"
