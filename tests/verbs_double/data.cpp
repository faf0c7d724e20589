// Queue pairs, completion queues, memory: what libibverbs does.

#include <arpa/inet.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <memory>
#include <utility>

#include "objects.hpp"

namespace verbs_double {
namespace {

template <class T>
T& own(const void* handle) {
    return *static_cast<T*>(const_cast<void*>(handle));
}
Context& context_of(ibv_context* context) { return *static_cast<Context*>(context); }

// -- tables: read without the mutex in memory mode -----------------------------------------------------------------

constexpr std::uint32_t table_size = 1u << 16;
struct Tables {
    std::atomic<Qp*> qps[table_size]{};
    std::atomic<Mr*> mrs[table_size]{};
    std::uint32_t next_qp = 17, next_mr = 1;
    std::uint32_t tag = 0;
};
Tables& tables() {
    static auto* const one = new Tables;
    return *one;
}

/// A free place, not one that was just left. 0: none.
template <class T>
std::uint32_t place_for(std::atomic<T*>* table, std::uint32_t& next) {
    for (std::uint32_t tried = 0; tried < table_size; ++tried) {
        const std::uint32_t at = next++ % table_size;
        if (at != 0 && table[at].load(std::memory_order_relaxed) == nullptr) return at;
    }
    return 0;
}

/// The region of a key, whether or not it covers anything; null: no such key.
Mr* region_of(std::uint32_t key) {
    Mr* mr = tables().mrs[key >> 8 & (table_size - 1)].load(std::memory_order_acquire);
    return mr != nullptr && mr->lkey == key ? mr : nullptr;
}
bool covers(const Mr& mr, std::uint64_t address, std::uint64_t bytes) {
    const auto base = std::uint64_t(reinterpret_cast<std::uintptr_t>(mr.addr));
    return address >= base && bytes <= mr.length && address - base <= mr.length - bytes;
}

// -- completions ---------------------------------------------------------------------------------------------------

void push(Cq& cq, const Cqe& cqe) {
    if (cq.broken) return;
    if (cq.head == cq.tail) cq.head = cq.tail = 0;
    const bool full = cq.tail - cq.head >= std::size_t(cq.cqe);
    if (full || knobs().overrun.hits()) {
        cq.broken = true;
        tell_async(context_of(cq.context), IBV_EVENT_CQ_ERR, static_cast<ibv_cq*>(&cq));
        if (!full) return;
        ++books().overruns;
        return misuse("a completion queue of %d has overrun", cq.cqe);
    }
    if (cq.tail == cq.ring.size()) {  // not empty, but at its end: from the start again
        std::move(cq.ring.begin() + std::ptrdiff_t(cq.head), cq.ring.begin() + std::ptrdiff_t(cq.tail), cq.ring.begin());
        cq.tail -= std::exchange(cq.head, 0);
    }
    cq.ring[cq.tail++] = cqe;
    if (cq.armed && cq.channel != nullptr) {
        cq.armed = false;
        own<CompChannel>(cq.channel).mail.push(&cq);
    }
}

void claim(Cq& cq, const char* what) {
    if (++cq.claims > std::uint64_t(cq.cqe)) misuse("%s: %llu completions may come, the queue holds %d", what, (unsigned long long)cq.claims, cq.cqe);
}

ibv_wc_opcode opcode_of(const Work& w) {
    switch (w.opcode) {
    case IBV_WR_RDMA_READ: return IBV_WC_RDMA_READ;
    case IBV_WR_ATOMIC_FETCH_AND_ADD: return IBV_WC_FETCH_ADD;
    case IBV_WR_ATOMIC_CMP_AND_SWP: return IBV_WC_COMP_SWAP;
    case IBV_WR_RDMA_WRITE:
    case IBV_WR_RDMA_WRITE_WITH_IMM: return IBV_WC_RDMA_WRITE;
    default: return IBV_WC_SEND;
    }
}

/// A send request is through. Unsignalled ones are told of by the next that tells.
void complete_send(Qp& q, const Work& w, ibv_wc_status status) {
    if (status == IBV_WC_SUCCESS && (w.flags & IBV_SEND_SIGNALED) == 0) return;
    Cqe cqe;
    cqe.wc = {};
    cqe.wc.wr_id = w.wr_id;
    cqe.wc.status = status;
    cqe.wc.qp_num = q.qp_num;
    if (status == IBV_WC_SUCCESS) {
        cqe.wc.opcode = opcode_of(w);
    } else {
        cqe.wc.opcode = ibv_wc_opcode(0x55);  // undefined after a failure
        cqe.wc.byte_len = 0xdddddddd;
    }
    // Those before it that said nothing, and itself; not those that wait behind it.
    cqe.frees = q.unreported - std::uint32_t(q.pending.size());
    q.unreported -= cqe.frees;
    push(own<Cq>(q.send_cq), cqe);
}

void complete_receive(Qp& q, const Receive& r, ibv_wc_status status, std::uint32_t bytes, const Qp& from, const Work& w, bool grh) {
    Cqe cqe;
    cqe.wc = {};
    cqe.receive = true;
    cqe.wc.wr_id = r.wr_id;
    cqe.wc.status = status;
    cqe.wc.qp_num = q.qp_num;
    if (status == IBV_WC_SUCCESS) {
        cqe.wc.opcode = w.opcode == IBV_WR_RDMA_WRITE_WITH_IMM ? IBV_WC_RECV_RDMA_WITH_IMM : IBV_WC_RECV;
        cqe.wc.byte_len = bytes;
        cqe.wc.src_qp = from.qp_num;
        if (w.opcode == IBV_WR_SEND_WITH_IMM || w.opcode == IBV_WR_RDMA_WRITE_WITH_IMM) {
            cqe.wc.wc_flags |= IBV_WC_WITH_IMM;
            cqe.wc.imm_data = w.imm;
        }
        if (grh) cqe.wc.wc_flags |= IBV_WC_GRH;
    } else {
        cqe.wc.opcode = ibv_wc_opcode(0x55);
        cqe.wc.byte_len = 0xdddddddd;
    }
    push(own<Cq>(q.recv_cq), cqe);
}

// -- work requests -------------------------------------------------------------------------------------------------

bool port_up(const ibv_qp& q) {
    const Context& context = context_of(q.context);
    return !context.removed && context.card->port_up;
}

std::uint64_t bytes_of(const Work& w) {
    std::uint64_t bytes = w.copied.size();
    for (const ibv_sge& place : w.places) bytes += place.length;
    return bytes;
}

/// The bytes of a request, as the device reads them now. False: a key does not cover them.
bool gather(const Qp& q, const Work& w, std::byte* out) {
    if (!w.copied.empty()) {
        std::memcpy(out, w.copied.data(), w.copied.size());
        return true;
    }
    for (const ibv_sge& place : w.places) {
        const Mr* mr = region_of(place.lkey);
        if (mr == nullptr || mr->pd != q.pd || !covers(*mr, place.addr, place.length)) {
            misuse("send from %#llx, %u bytes: key %#x does not cover it", (unsigned long long)place.addr, place.length, place.lkey);
            return false;
        }
        std::memcpy(out, reinterpret_cast<const void*>(place.addr), place.length);
        out += place.length;
    }
    return true;
}

/// Bytes into a receive. False: they do not fit.
bool scatter(const Qp& q, const Receive& r, const std::byte* from, std::uint64_t bytes) {
    for (int i = 0; i < r.count && bytes > 0; ++i) {
        const ibv_sge& place = r.places[i];
        const Mr* mr = region_of(place.lkey);
        if (mr == nullptr || mr->pd != q.pd || !covers(*mr, place.addr, place.length) || (mr->access & IBV_ACCESS_LOCAL_WRITE) == 0) {
            misuse("receive into %#llx, %u bytes: key %#x does not cover it", (unsigned long long)place.addr, place.length, place.lkey);
            return false;
        }
        const std::uint64_t part = std::min<std::uint64_t>(bytes, place.length);
        std::memcpy(reinterpret_cast<void*>(place.addr), from, part);
        from += part;
        bytes -= part;
    }
    return bytes == 0;
}

ReceiveQueue& receives_of(Qp& q) { return q.srq != nullptr ? own<Srq>(q.srq).queue : q.receives; }

void fail(Qp& q, const Work& w, ibv_wc_status status) {
    complete_send(q, w, status);
    enter(q, IBV_QPS_ERR);
}

/// Waits for the peer, for `us`; then the request ends with `status`, unless something has moved meanwhile.
void wait(Qp& q, std::uint64_t us, ibv_wc_status status) {
    if (q.wait != 0 || knobs().memory != 0) return;
    static std::uint64_t last = 0;
    q.wait = ++last;
    later(us, [number = q.qp_num, mark = q.wait, status] {
        Qp* waiting = qp_of(number);
        if (waiting == nullptr || waiting->wait != mark || waiting->pending.empty() || waiting->state != IBV_QPS_RTS) return;
        const bool tries_again = status == IBV_WC_RNR_RETRY_EXC_ERR && (waiting->rnr_retry == 7 || waiting->rnr_left > 0);
        waiting->wait = 0;
        if (tries_again) {
            if (waiting->rnr_left > 0) --waiting->rnr_left;
            return run(*waiting);
        }
        const Work w = std::move(waiting->pending.front());
        waiting->pending.pop_front();
        fail(*waiting, w, status);
    });
}

enum class Did { done, waits };

/// A payload buffer that grows once: a send gathers into it, a receive is filled from it.
std::byte* staging(std::uint64_t bytes) {
    static thread_local std::vector<std::byte> room(64 << 10);
    if (room.size() < bytes) room.resize(bytes);
    return room.data();
}

/// False: the peer has no receive, and the request waits for one.
bool meets_receive(Qp& q, Qp& peer) {
    ReceiveQueue& queue = receives_of(peer);
    const bool refused = knobs().rnr.hits();
    if (queue.size() > 0 && !refused) return true;
    const bool listed = std::find(queue.waiting.begin(), queue.waiting.end(), q.qp_num) != queue.waiting.end();
    if (!refused && !listed) queue.waiting.push_back(q.qp_num);
    wait(q, knobs().rnr_ms * 1000, IBV_WC_RNR_RETRY_EXC_ERR);
    return false;
}

Receive take_receive(Qp& of) {
    ReceiveQueue& queue = receives_of(of);
    return queue.ring[queue.head++ % queue.ring.size()];
}

Did do_send(Qp& q, const Work& w, Qp& peer) {
    if (!meets_receive(q, peer)) return Did::waits;
    ReceiveQueue& queue = receives_of(peer);
    const std::uint64_t bytes = bytes_of(w);
    std::byte* const payload = staging(bytes);
    if (!gather(q, w, payload)) {
        fail(q, w, IBV_WC_LOC_PROT_ERR);
        return Did::done;
    }
    for (unsigned times = knobs().repeat.hits() ? 100 : 1; times > 0 && queue.size() > 0 && peer.state == IBV_QPS_RTS; --times) {
        const Receive r = take_receive(peer);
        if (!scatter(peer, r, payload, bytes)) {
            complete_receive(peer, r, IBV_WC_LOC_LEN_ERR, 0, q, w, false);
            enter(peer, IBV_QPS_ERR);
            fail(q, w, IBV_WC_REM_INV_REQ_ERR);
            return Did::done;
        }
        complete_receive(peer, r, IBV_WC_SUCCESS, std::uint32_t(bytes), q, w, false);
    }
    q.rnr_left = q.rnr_retry;
    complete_send(q, w, IBV_WC_SUCCESS);
    return Did::done;
}

bool is_atomic(ibv_wr_opcode opcode) { return opcode == IBV_WR_ATOMIC_FETCH_AND_ADD || opcode == IBV_WR_ATOMIC_CMP_AND_SWP; }

/// Under the mutex, as a device does one after the other.
void do_atomic(Qp& q, const Work& w, Qp& peer) {
    const Mr* mr = region_of(w.rkey);
    const bool allowed = mr != nullptr && mr->pd == peer.pd && (mr->access & IBV_ACCESS_REMOTE_ATOMIC) != 0 && covers(*mr, w.remote, 8);
    if (!allowed || w.remote % 8 != 0) {
        enter(peer, IBV_QPS_ERR);
        return fail(q, w, allowed ? IBV_WC_REM_INV_REQ_ERR : IBV_WC_REM_ACCESS_ERR);
    }
    if (bytes_of(w) != 8) misuse("an atomic of %llu bytes", (unsigned long long)bytes_of(w));
    auto& number = *reinterpret_cast<std::uint64_t*>(w.remote);
    const std::uint64_t before = number;
    if (w.opcode == IBV_WR_ATOMIC_FETCH_AND_ADD) number += w.operand;
    else if (before == w.operand) number = w.swap;
    const Receive into{0, {w.places[0], {}}, 1};
    const bool fits = scatter(q, into, reinterpret_cast<const std::byte*>(&before), sizeof before);
    return fits ? complete_send(q, w, IBV_WC_SUCCESS) : fail(q, w, IBV_WC_LOC_PROT_ERR);
}

void do_remote(Qp& q, const Work& w, Qp& peer) {
    const std::uint64_t bytes = bytes_of(w);
    const bool tells = w.opcode == IBV_WR_RDMA_WRITE_WITH_IMM;             // and there is a receive
    if (bytes == 0 && !tells) return complete_send(q, w, IBV_WC_SUCCESS);  // nothing is touched: no key is looked at
    const bool reads = w.opcode == IBV_WR_RDMA_READ;
    const Mr* mr = region_of(w.rkey);
    const int right = reads ? IBV_ACCESS_REMOTE_READ : IBV_ACCESS_REMOTE_WRITE;
    if (mr == nullptr || mr->pd != peer.pd || (mr->access & right) == 0 || !covers(*mr, w.remote, bytes)) {
        tell_async(context_of(peer.context), IBV_EVENT_QP_ACCESS_ERR, static_cast<ibv_qp*>(&peer));
        enter(peer, IBV_QPS_ERR);
        return fail(q, w, IBV_WC_REM_ACCESS_ERR);
    }
    if (!reads) {
        std::byte* const payload = staging(bytes);
        if (!gather(q, w, payload)) return fail(q, w, IBV_WC_LOC_PROT_ERR);
        std::memcpy(reinterpret_cast<void*>(w.remote), payload, bytes);
        if (tells) complete_receive(peer, take_receive(peer), IBV_WC_SUCCESS, std::uint32_t(bytes), q, w, false);
        q.rnr_left = q.rnr_retry;
        return complete_send(q, w, IBV_WC_SUCCESS);
    }
    Receive into{};
    into.count = int(std::min<std::size_t>(w.places.size(), std::size(into.places)));
    for (int i = 0; i < into.count; ++i) into.places[i] = w.places[std::size_t(i)];
    const bool fits = scatter(q, into, reinterpret_cast<const std::byte*>(w.remote), bytes);
    if (!fits) return fail(q, w, IBV_WC_LOC_PROT_ERR);
    complete_send(q, w, IBV_WC_SUCCESS);
}

Did execute(Qp& q, const Work& w) {
    if (knobs().send.hits()) {
        fail(q, w, ibv_wc_status(knobs().send_status.load()));
        return Did::done;
    }
    if (knobs().qp_fatal.hits()) {  // the device gives the queue pair up, and says so on its own channel only
        q.state = IBV_QPS_ERR;
        tell_async(context_of(q.context), IBV_EVENT_QP_FATAL, static_cast<ibv_qp*>(&q));
        return Did::done;
    }
    Qp* const peer = qp_of(q.peer);
    if (peer == nullptr || peer->state != IBV_QPS_RTS || !port_up(q) || !port_up(*peer)) {
        wait(q, knobs().retry_ms * 1000, IBV_WC_RETRY_EXC_ERR);
        return Did::waits;
    }
    if (w.opcode == IBV_WR_SEND || w.opcode == IBV_WR_SEND_WITH_IMM) return do_send(q, w, *peer);
    if (w.opcode == IBV_WR_RDMA_WRITE_WITH_IMM && !meets_receive(q, *peer)) return Did::waits;
    if (is_atomic(w.opcode)) do_atomic(q, w, *peer);
    else do_remote(q, w, *peer);
    return Did::done;
}

// -- datagrams -----------------------------------------------------------------------------------------------------

/// The header as soft-RoCE leaves it: over IPv4 the last 20 bytes are an IPv4 header, and those before it are anything.
void write_header(std::byte* at, const in6_addr& from, const in6_addr& to) {
    std::memset(at, 0xa5, 40);
    if (IN6_IS_ADDR_V4MAPPED(&from)) {
        at[20] = std::byte{0x45};
        std::memcpy(at + 32, &from.s6_addr[12], 4);
        std::memcpy(at + 36, &to.s6_addr[12], 4);
        return;
    }
    at[0] = std::byte{0x60};
    std::memcpy(at + 8, &from, 16);
    std::memcpy(at + 24, &to, 16);
}

in6_addr source_of(const Qp& q, const in6_addr& to) {
    const Card& card = *context_of(q.context).card;
    if (!IN6_IS_ADDR_V4MAPPED(&to)) return card.v6;
    sockaddr_in v4{};
    v4.sin_family = AF_INET;
    v4.sin_addr = card.v4;
    return gid_of(reinterpret_cast<const sockaddr&>(v4));
}

void deliver(Qp& q, const Work& w, Qp& to, const std::byte* payload, std::uint64_t bytes) {
    constexpr std::uint64_t header = 40;
    if (to.state != IBV_QPS_RTS || !port_up(to) || to.receives.size() == 0) return;  // dropped
    const Receive r = to.receives.ring[to.receives.head++ % to.receives.ring.size()];
    std::vector<std::byte> whole(header + bytes);
    write_header(whole.data(), source_of(q, w.to), w.to);
    if (bytes > 0) std::memcpy(whole.data() + header, payload, bytes);
    const bool fits = scatter(to, r, whole.data(), whole.size());
    complete_receive(to, r, fits ? IBV_WC_SUCCESS : IBV_WC_LOC_LEN_ERR, std::uint32_t(whole.size()), q, w, true);
}

void execute_datagram(Qp& q, const Work& w) {
    const std::uint64_t bytes = bytes_of(w);
    if (bytes > 4096) misuse("a datagram of %llu bytes", (unsigned long long)bytes);
    if (knobs().send.hits()) return fail(q, w, ibv_wc_status(knobs().send_status.load()));
    std::vector<std::byte> payload(bytes);
    if (!gather(q, w, payload.data())) return fail(q, w, IBV_WC_LOC_PROT_ERR);
    if (port_up(q)) {
        const auto group = groups().find(std::string(reinterpret_cast<const char*>(&w.to), sizeof w.to));
        if (group != groups().end()) {
            for (const std::uint32_t number : group->second)
                if (Qp* member = qp_of(number); member != nullptr) deliver(q, w, *member, payload.data(), bytes);
        } else if (Qp* to = qp_of(w.to_number); to != nullptr && to->qp_type == IBV_QPT_UD && card_of(w.to) == context_of(to->context).card) {
            deliver(q, w, *to, payload.data(), bytes);
        }
    }
    complete_send(q, w, IBV_WC_SUCCESS);
}

// -- posting and polling -------------------------------------------------------------------------------------------

/// As the application gives it; what is inline is copied now.
void take(Work& w, const Qp& q, const ibv_send_wr& request) {
    w.wr_id = request.wr_id;
    w.opcode = request.opcode;
    w.flags = request.send_flags;
    w.imm = request.imm_data;
    w.remote = request.wr.rdma.remote_addr;
    w.rkey = request.wr.rdma.rkey;
    if (is_atomic(w.opcode)) {
        w.remote = request.wr.atomic.remote_addr;
        w.rkey = request.wr.atomic.rkey;
        w.operand = request.wr.atomic.compare_add;
        w.swap = request.wr.atomic.swap;
    }
    w.places.assign(request.sg_list, request.sg_list + request.num_sge);
    w.copied.clear();
    if (q.qp_type == IBV_QPT_UD) {
        w.to = own<Ah>(request.wr.ud.ah).to;
        w.to_number = request.wr.ud.remote_qpn;
        w.qkey = request.wr.ud.remote_qkey;
    }
    if ((w.flags & IBV_SEND_INLINE) != 0) {
        for (const ibv_sge& place : w.places) w.copied.append(reinterpret_cast<const char*>(place.addr), place.length);
        w.places.clear();
    }
    if (w.opcode == IBV_WR_SEND_WITH_IMM && knobs().note.hits()) w.imm = htonl(0x3fff0000u | std::uint32_t(draw(0x10000)));
}

void check(const Qp& q, const ibv_send_wr& request) {
    std::uint64_t bytes = 0;
    for (int i = 0; i < request.num_sge; ++i) bytes += request.sg_list[i].length;
    if (request.num_sge < 0 || std::uint32_t(request.num_sge) > q.cap.max_send_sge)
        misuse("%d slices in a send, %u are allowed", request.num_sge, q.cap.max_send_sge);
    if ((request.send_flags & IBV_SEND_INLINE) != 0 && bytes > q.cap.max_inline_data)
        misuse("%llu bytes inline, %u are allowed", (unsigned long long)bytes, q.cap.max_inline_data);
    if (q.qp_type == IBV_QPT_UD && request.wr.ud.ah == nullptr) misuse("a datagram without an address handle");
}

/// What a device does that has been taken away: it accepts everything, and its completions match nothing.
int post_to_nobody(Qp& q) {
    auto& cq = own<Cq>(q.send_cq);
    for (int i = 0; i < 2 && cq.tail - cq.head < std::size_t(cq.cqe); ++i) push(cq, Cqe{});
    return 0;
}

int post_send(ibv_qp* handle, ibv_send_wr* first, ibv_send_wr** bad) {
    const DataLock lock;
    auto& q = own<Qp>(handle);
    Books& b = books();
    b.post_send.store(b.post_send.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    if (context_of(q.context).removed) return post_to_nobody(q);
    if (q.state != IBV_QPS_RTS && q.state != IBV_QPS_ERR) {
        misuse("a send is posted to a queue pair in state %d", int(q.state));
        *bad = first;
        return EINVAL;
    }
    static thread_local Work scratch;
    for (ibv_send_wr* each = first; each != nullptr; each = each->next) {
        b.sends.store(b.sends.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
        const bool full = q.used >= q.cap.max_send_wr;
        if (full) misuse("a send queue of %u is full", q.cap.max_send_wr);
        if (full || knobs().post.hits()) {
            *bad = each;
            return ENOMEM;
        }
        check(q, *each);
        ++q.used;
        ++q.unreported;
        claim(own<Cq>(q.send_cq), "a send");
        const bool waits = !q.pending.empty() || q.scheduled || (knobs().async != 0 && q.state == IBV_QPS_RTS);
        if (!waits) {
            take(scratch, q, *each);
            if (q.state == IBV_QPS_ERR) complete_send(q, scratch, IBV_WC_WR_FLUSH_ERR);
            else if (q.qp_type == IBV_QPT_UD) execute_datagram(q, scratch);
            else if (execute(q, scratch) == Did::waits) q.pending.push_back(scratch);
            continue;
        }
        q.pending.emplace_back();
        take(q.pending.back(), q, *each);
    }
    if (knobs().async != 0 && !q.pending.empty() && !std::exchange(q.scheduled, true)) {
        later(draw(60), [number = q.qp_num] {
            Qp* posted = qp_of(number);
            if (posted == nullptr) return;
            posted->scheduled = false;
            run(*posted);
        });
    }
    return 0;
}

int post_receives(ReceiveQueue& queue, Cq* completions, const ibv_pd* pd, ibv_recv_wr* first, ibv_recv_wr** bad) {
    Books& b = books();
    b.post_recv.store(b.post_recv.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    for (ibv_recv_wr* each = first; each != nullptr; each = each->next) {
        if (queue.size() >= queue.ring.size()) {
            misuse("a receive queue of %zu is full", queue.ring.size());
            *bad = each;
            return ENOMEM;
        }
        Receive r{};
        r.wr_id = each->wr_id;
        r.count = each->num_sge;
        if (r.count < 0 || std::size_t(r.count) > std::size(r.places)) misuse("%d slices in a receive", r.count);
        for (int i = 0; i < r.count; ++i) {
            r.places[i] = each->sg_list[i];
            const Mr* mr = region_of(r.places[i].lkey);
            if (mr == nullptr || mr->pd != pd || !covers(*mr, r.places[i].addr, r.places[i].length))
                misuse("a receive of %u bytes: key %#x does not cover it", r.places[i].length, r.places[i].lkey);
        }
        queue.ring[queue.tail++ % queue.ring.size()] = r;
        if (completions != nullptr) claim(*completions, "a receive");
    }
    if (queue.waiting.empty()) return 0;
    for (const std::uint32_t number : std::exchange(queue.waiting, {})) {
        Qp* waiting = qp_of(number);
        if (waiting == nullptr) continue;
        waiting->wait = 0;
        run(*waiting);
    }
    return 0;
}

int post_srq_recv(ibv_srq* handle, ibv_recv_wr* first, ibv_recv_wr** bad) {
    const DataLock lock;
    auto& srq = own<Srq>(handle);
    return post_receives(srq.queue, srq.completions, srq.pd, first, bad);
}
int post_recv(ibv_qp* handle, ibv_recv_wr* first, ibv_recv_wr** bad) {
    const DataLock lock;
    auto& q = own<Qp>(handle);
    if (q.srq != nullptr) misuse("a receive is posted to a queue pair that shares its receives");
    return post_receives(q.receives, &own<Cq>(q.recv_cq), q.pd, first, bad);
}

/// Which of the waiting completions comes next: of one queue pair always the oldest.
std::size_t choose(const Cq& cq) {
    if (knobs().reorder == 0) return cq.head;
    const std::size_t any = cq.head + draw(std::min<std::size_t>(cq.tail - cq.head, 16));
    std::size_t at = cq.head;
    while (cq.ring[at].wc.qp_num != cq.ring[any].wc.qp_num) ++at;
    return at;
}

int poll_cq(ibv_cq* handle, int most, ibv_wc* out) {
    const DataLock lock;
    auto& cq = own<Cq>(handle);
    int got = 0;
    for (; got < most && cq.head < cq.tail; ++got) {
        const std::size_t at = choose(cq);
        const Cqe cqe = cq.ring[at];
        for (std::size_t i = at; i > cq.head; --i) cq.ring[i] = cq.ring[i - 1];
        ++cq.head;
        cq.claims -= std::min<std::uint64_t>(cq.claims, cqe.receive ? 1 : cqe.frees);
        if (cqe.frees > 0) {
            if (Qp* q = qp_of(cqe.wc.qp_num); q != nullptr) q->used -= cqe.frees;
        }
        out[got] = cqe.wc;
    }
    return got;
}

int req_notify_cq(ibv_cq* handle, int) {
    const DataLock lock;
    own<Cq>(handle).armed = true;
    return 0;
}

bool busy(unsigned users, const char* what) {
    if (users == 0) return false;
    misuse("%s is destroyed while %u things use it", what, users);
    errno = EBUSY;
    return true;
}

}  // namespace

void set_ops(ibv_context_ops& ops) {
    ops.post_send = &post_send;
    ops.post_recv = &post_recv;
    ops.post_srq_recv = &post_srq_recv;
    ops.poll_cq = &poll_cq;
    ops.req_notify_cq = &req_notify_cq;
}

Qp* qp_of(std::uint32_t number) { return number < table_size ? tables().qps[number].load(std::memory_order_acquire) : nullptr; }

std::map<std::string, std::set<std::uint32_t>>& groups() {
    static auto* const all = new std::map<std::string, std::set<std::uint32_t>>;
    return *all;
}

/// Does what it can of what waits.
void run(Qp& q) {
    while (!q.pending.empty() && q.state == IBV_QPS_RTS && q.wait == 0) {
        const Work w = std::move(q.pending.front());
        q.pending.pop_front();
        if (q.qp_type == IBV_QPT_UD) {
            execute_datagram(q, w);
        } else if (execute(q, w) == Did::waits) {
            q.pending.push_front(w);
            return;
        }
    }
}

/// Also flushes: everything posted is told of, signalled or not; receives that are shared are not.
void enter(Qp& q, ibv_qp_state state) {
    q.state = state;
    if (state != IBV_QPS_ERR) return;
    q.wait = 0;
    while (q.srq == nullptr && q.receives.size() > 0) complete_receive(q, take_receive(q), IBV_WC_WR_FLUSH_ERR, 0, q, {}, false);
    while (!q.pending.empty()) {
        const Work w = std::move(q.pending.front());
        q.pending.pop_front();
        complete_send(q, w, IBV_WC_WR_FLUSH_ERR);
    }
}

int create_qp(Id& id, Pd& pd, ibv_qp_init_attr& wanted) {
    Knobs& k = knobs();
    const ibv_qp_cap& cap = wanted.cap;
    if (cap.max_send_wr > 16384 || cap.max_recv_wr > 16384 || cap.max_send_sge > k.sge || cap.max_inline_data > k.inline_bytes) return EINVAL;
    if (k.qp.hits()) return ENOMEM;
    const std::uint32_t number = place_for(tables().qps, tables().next_qp);
    if (number == 0) return ENOMEM;
    auto q = std::make_unique<Qp>();
    q->context = pd.context;
    q->pd = &pd;
    q->send_cq = wanted.send_cq;
    q->recv_cq = wanted.recv_cq;
    q->srq = wanted.srq;
    q->qp_type = wanted.qp_type;
    q->qp_num = number;
    q->cap = cap;
    q->id = &id;
    q->state = wanted.qp_type == IBV_QPT_UD ? IBV_QPS_RTS : IBV_QPS_INIT;
    if (q->srq == nullptr) q->receives.ring.resize(std::max(1u, cap.max_recv_wr));
    ++pd.users;
    ++own<Cq>(q->send_cq).users;
    ++own<Cq>(q->recv_cq).users;
    if (q->srq != nullptr) {
        auto& srq = own<Srq>(q->srq);
        ++srq.users;
        if (srq.completions == nullptr) {
            srq.completions = &own<Cq>(q->recv_cq);
            srq.completions->claims += srq.queue.size();
        }
    }
    ++books().qp;
    id.qp = q.get();
    tables().qps[number].store(q.release(), std::memory_order_release);
    return 0;
}

void destroy_qp(Qp& q) {
    tables().qps[q.qp_num].store(nullptr);
    auto& sends = own<Cq>(q.send_cq);
    auto& receives = own<Cq>(q.recv_cq);
    sends.claims -= std::min<std::uint64_t>(sends.claims, q.unreported);
    receives.claims -= std::min<std::uint64_t>(receives.claims, q.receives.size());
    --sends.users;
    --receives.users;
    if (q.srq != nullptr) --own<Srq>(q.srq).users;
    --own<Pd>(q.pd).users;
    for (auto& group : groups()) group.second.erase(q.qp_num);
    --books().qp;
    delete &q;
}

}  // namespace verbs_double

// -- the library's functions ---------------------------------------------------------------------------------------

using namespace verbs_double;
using Lock = std::unique_lock<std::mutex>;

extern "C" {

ibv_device** ibv_get_device_list(int* count) {
    const Lock lock(everything());
    auto** list = new ibv_device*[cards + 1]();
    int n = 0;
    for (unsigned i = 0; i < cards; ++i)
        if (card(i).current != nullptr) list[n++] = &card(i);
    if (count != nullptr) *count = n;
    return list;
}
void ibv_free_device_list(ibv_device** list) { delete[] list; }
const char* ibv_get_device_name(ibv_device* device) { return device->name; }
ibv_context* ibv_open_device(ibv_device* device) {
    const Lock lock(everything());
    return static_cast<Card*>(device)->current;
}
int ibv_close_device(ibv_context*) { return 0; }

int ibv_query_device(ibv_context*, ibv_device_attr* out) {
    *out = {};
    std::strcpy(out->fw_ver, "double");
    out->max_qp = 32768;
    out->max_qp_wr = 16384;
    out->max_sge = int(knobs().sge.load());
    out->atomic_cap = knobs().atomics != 0 ? IBV_ATOMIC_HCA : IBV_ATOMIC_NONE;
    out->max_cq = 4096;
    out->max_cqe = int(knobs().cqe.load());
    out->max_mr = 32768;
    out->max_pd = 64;
    out->max_qp_rd_atom = out->max_qp_init_rd_atom = 16;
    out->max_srq = 4096;
    out->max_srq_wr = int(knobs().srq.load());
    out->max_srq_sge = 2;
    out->max_ah = 32768;
    out->phys_port_cnt = 1;
    out->max_mr_size = UINT64_MAX;
    return 0;
}
int ibv_query_port(ibv_context* context, std::uint8_t port, _compat_ibv_port_attr* out) {
    const Lock lock(everything());
    if (port != 1) return EINVAL;
    ibv_port_attr attr{};
    attr.state = context_of(context).card->port_up ? IBV_PORT_ACTIVE : IBV_PORT_DOWN;
    attr.max_mtu = attr.active_mtu = IBV_MTU_4096;
    attr.gid_tbl_len = 2;
    attr.max_msg_sz = 1u << 30;
    attr.link_layer = IBV_LINK_LAYER_ETHERNET;
    std::memcpy(static_cast<void*>(out), &attr, offsetof(ibv_port_attr, port_cap_flags2));  // what the old structure has
    return 0;
}
int ibv_query_gid(ibv_context* context, std::uint8_t port, int index, ibv_gid* out) {
    const Card& card = *context_of(context).card;
    if (port != 1 || index < 0 || index > 1) return -1;
    in6_addr gid = card.v6;
    if (index == 0) {
        sockaddr_in v4{};
        v4.sin_family = AF_INET;
        v4.sin_addr = card.v4;
        gid = gid_of(reinterpret_cast<const sockaddr&>(v4));
    }
    std::memcpy(out->raw, &gid, sizeof gid);
    return 0;
}

int ibv_get_async_event(ibv_context* context, ibv_async_event* event) {
    Lock lock(everything());
    if (!context_of(context).news.pop(*event, lock)) return -1;
    ++books().unacked;
    return 0;
}
void ibv_ack_async_event(ibv_async_event*) {
    --books().unacked;
    ++books().async_heard;
}

ibv_pd* ibv_alloc_pd(ibv_context* context) {
    const Lock lock(everything());
    if (context_of(context).removed) return errno = EIO, nullptr;
    auto* pd = new Pd();
    pd->context = context;
    ++books().pd;
    return pd;
}
int ibv_dealloc_pd(ibv_pd* pd) {
    const Lock lock(everything());
    if (busy(own<Pd>(pd).users, "a protection domain")) return EBUSY;
    --books().pd;
    delete &own<Pd>(pd);
    return 0;
}

ibv_mr* ibv_reg_mr(ibv_pd* pd, void* address, std::size_t bytes, int access) {
    const Lock lock(everything());
    Books& b = books();
    if (context_of(pd->context).removed) return errno = EIO, nullptr;
    if (knobs().mr.hits() || std::uint64_t(b.mr_bytes.load()) + bytes > knobs().memlock) return errno = ENOMEM, nullptr;
    if ((access & (IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC)) != 0 && (access & IBV_ACCESS_LOCAL_WRITE) == 0) return errno = EINVAL, nullptr;
    const std::uint32_t at = place_for(tables().mrs, tables().next_mr);
    if (at == 0) return errno = ENOMEM, nullptr;
    auto* mr = new Mr();
    mr->context = pd->context;
    mr->pd = pd;
    mr->addr = address;
    mr->length = bytes;
    mr->lkey = mr->rkey = at << 8 | (++tables().tag & 0xff);
    mr->access = access;
    ++own<Pd>(pd).users;
    ++b.mr;
    b.mr_bytes += long(bytes);
    tables().mrs[at].store(mr, std::memory_order_release);
    return mr;
}
int ibv_dereg_mr(ibv_mr* handle) {
    const Lock lock(everything());
    auto& mr = own<Mr>(handle);
    if (region_of(mr.lkey) != &mr) {
        misuse("a region is deregistered that is none");
        return EINVAL;
    }
    tables().mrs[mr.lkey >> 8].store(nullptr);
    --own<Pd>(mr.pd).users;
    --books().mr;
    books().mr_bytes -= long(mr.length);
    delete &mr;
    return 0;
}

ibv_comp_channel* ibv_create_comp_channel(ibv_context* context) {
    const Lock lock(everything());
    auto* channel = new CompChannel();
    channel->context = context;
    channel->mail.open();
    channel->fd = channel->mail.fd;
    if (channel->fd < 0) {
        delete channel;
        return nullptr;
    }
    ++books().channel;
    return channel;
}
int ibv_destroy_comp_channel(ibv_comp_channel* handle) {
    const Lock lock(everything());
    auto& channel = own<CompChannel>(handle);
    if (busy(channel.queues, "a completion channel")) return EBUSY;
    channel.mail.close();
    --books().channel;
    delete &channel;
    return 0;
}

ibv_cq* ibv_create_cq(ibv_context* context, int entries, void* user, ibv_comp_channel* channel, int) {
    const Lock lock(everything());
    if (entries < 1 || std::uint64_t(entries) > knobs().cqe) return errno = EINVAL, nullptr;
    if (knobs().cq.hits()) return errno = ENOMEM, nullptr;
    auto* cq = new Cq();
    cq->context = context;
    cq->cq_context = user;
    cq->channel = channel;
    cq->cqe = entries;
    cq->ring.resize(std::size_t(entries) + 64);
    if (channel != nullptr) ++own<CompChannel>(channel).queues;
    ++books().cq;
    return cq;
}
int ibv_destroy_cq(ibv_cq* handle) {
    const Lock lock(everything());
    auto& cq = own<Cq>(handle);
    if (busy(cq.users, "a completion queue")) return EBUSY;
    if (cq.unacked > 0) misuse("a completion queue is destroyed with %u events that were not acknowledged: the real call waits for ever", cq.unacked);
    if (cq.channel != nullptr) {
        auto& channel = own<CompChannel>(cq.channel);
        auto& items = channel.mail.items;
        items.erase(std::remove(items.begin(), items.end(), &cq), items.end());
        --channel.queues;
    }
    --books().cq;
    delete &cq;
    return 0;
}
int ibv_get_cq_event(ibv_comp_channel* handle, ibv_cq** queue, void** user) {
    Lock lock(everything());
    if (!own<CompChannel>(handle).mail.pop(*queue, lock)) return -1;
    ++own<Cq>(*queue).unacked;
    ++books().unacked;
    *user = (*queue)->cq_context;
    return 0;
}
void ibv_ack_cq_events(ibv_cq* handle, unsigned count) {
    const Lock lock(everything());
    auto& cq = own<Cq>(handle);
    if (count > cq.unacked) misuse("%u events of a completion queue are acknowledged, there were %u", count, cq.unacked);
    cq.unacked -= count;
    books().unacked -= long(count);
}

ibv_srq* ibv_create_srq(ibv_pd* pd, ibv_srq_init_attr* wanted) {
    const Lock lock(everything());
    if (wanted->attr.max_wr < 1 || wanted->attr.max_wr > knobs().srq || wanted->attr.max_sge > 2) return errno = EINVAL, nullptr;
    if (knobs().srq_made.hits()) return errno = ENOMEM, nullptr;
    auto* srq = new Srq();
    srq->context = pd->context;
    srq->pd = pd;
    srq->queue.ring.resize(wanted->attr.max_wr);
    ++own<Pd>(pd).users;
    ++books().srq;
    return srq;
}
int ibv_destroy_srq(ibv_srq* handle) {
    const Lock lock(everything());
    auto& srq = own<Srq>(handle);
    if (busy(srq.users, "a shared receive queue")) return EBUSY;
    --own<Pd>(srq.pd).users;
    --books().srq;
    delete &srq;
    return 0;
}

ibv_ah* ibv_create_ah(ibv_pd* pd, ibv_ah_attr* way) {
    const Lock lock(everything());
    if (way->is_global == 0) return errno = EINVAL, nullptr;
    if (knobs().ah.hits()) return errno = ENOMEM, nullptr;
    auto* ah = new Ah();
    ah->context = pd->context;
    ah->pd = pd;
    std::memcpy(&ah->to, way->grh.dgid.raw, sizeof ah->to);
    ++own<Pd>(pd).users;
    ++books().ah;
    return ah;
}
ibv_ah* ibv_create_ah_from_wc(ibv_pd* pd, ibv_wc* arrival, ibv_grh* header, std::uint8_t port) {
    if ((arrival->wc_flags & IBV_WC_GRH) == 0) return errno = EINVAL, nullptr;
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(header);
    ibv_ah_attr way{};
    way.is_global = 1;
    way.port_num = port;
    if (bytes[0] >> 4 == 6) {
        std::memcpy(way.grh.dgid.raw, bytes + 8, 16);
    } else {
        way.grh.dgid.raw[10] = way.grh.dgid.raw[11] = 0xff;
        std::memcpy(way.grh.dgid.raw + 12, bytes + 32, 4);
    }
    return ibv_create_ah(pd, &way);
}
int ibv_destroy_ah(ibv_ah* handle) {
    const Lock lock(everything());
    auto& ah = own<Ah>(handle);
    --own<Pd>(ah.pd).users;
    --books().ah;
    delete &ah;
    return 0;
}

}  // extern "C"
