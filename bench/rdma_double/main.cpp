// What our RDMA loop itself costs: messages of 64 bytes, 16 under way, echoed between two queue pairs of one loop, on the verbs double in its memory-only
// mode, against the same exchange written by hand on the same double. The double's own work is in both; the difference is ours.
//   rdma_double [--pairs N] [--rounds N] [--only evpl|hand]      one line of JSON for each, and one for the difference
// Both run by turns, N pairs in each round; figures are medians over the rounds.
// A pair is one receive and one send. Numbers are per pair, but doorbells, which are calls of post_send per batch of 16.

#include <arpa/inet.h>
#include <dlfcn.h>
#include <infiniband/verbs.h>
#include <poll.h>
#include <rdma/rdma_cma.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <new>
#include <string>
#include <vector>

#include "evpl/evpl.hpp"

#undef ibv_reg_mr

extern "C" void* __libc_malloc(std::size_t);

namespace {

std::uint64_t allocations = 0;

}  // namespace

extern "C" void* malloc(std::size_t bytes) {
    __atomic_store_n(&allocations, __atomic_load_n(&allocations, __ATOMIC_RELAXED) + 1, __ATOMIC_RELAXED);
    return __libc_malloc(bytes);
}

namespace {

constexpr unsigned depth = 16;
constexpr unsigned message_bytes = 64;
constexpr unsigned receives = 64;

void* library() {
    static void* const one = [] {
        void* opened = dlopen(VERBS_DOUBLE_PATH, RTLD_NOW | RTLD_LOCAL);
        if (opened == nullptr) std::fprintf(stderr, "%s\n", dlerror()), std::exit(1);
        return opened;
    }();
    return one;
}
#define FROM_DOUBLE(name) reinterpret_cast<decltype(&::name)>(dlsym(library(), #name))
long count(const char* what) { return reinterpret_cast<long (*)(const char*)>(dlsym(library(), "verbs_double_count"))(what); }
void check(bool good, const char* what) {
    if (!good) std::fprintf(stderr, "rdma_double: %s failed\n", what), std::exit(1);
}

double now_ns() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return double(t.tv_sec) * 1e9 + double(t.tv_nsec);
}

struct Result {
    double ns_per_pair, allocations_per_pair, doorbells_per_batch, sends_per_pair;
};

/// The function's name is what profilers are told to look at.
template <class Exchange>
[[gnu::noinline]] void counted(std::uint64_t pairs, Exchange& exchange) {
    exchange(pairs);
}

/// Runs `exchange(pairs)` and counts.
template <class Exchange>
Result measure(std::uint64_t pairs, Exchange&& exchange) {
    exchange(20'000);  // until everything has its size
    const long doorbells = count("post_send"), sends = count("sends");
    const std::uint64_t before = allocations;
    const double began = now_ns();
    counted(pairs, exchange);
    const double ns = now_ns() - began;
    const double n = double(pairs);
    return {ns / n, double(allocations - before) / n, double(count("post_send") - doorbells) * depth / n, double(count("sends") - sends) / n};
}

/// Sorts them.
double median(std::vector<double>& of) {
    std::sort(of.begin(), of.end());
    return of[of.size() / 2];
}

Result median_of(const std::vector<Result>& rounds) {
    const auto each = [&](double Result::*what) {
        std::vector<double> values;
        for (const Result& one : rounds) values.push_back(one.*what);
        return median(values);
    };
    return {each(&Result::ns_per_pair), each(&Result::allocations_per_pair), each(&Result::doorbells_per_batch), each(&Result::sends_per_pair)};
}

void print(const char* who, const Result& r) {
    std::printf("{\"loop\": \"%s\", \"ns_per_pair\": %.1f, \"allocations_per_pair\": %.4f, \"doorbells_per_batch\": %.3f, \"sends_per_pair\": %.3f}\n", who,
                r.ns_per_pair, r.allocations_per_pair, r.doorbells_per_batch, r.sends_per_pair);
}

// -- by hand -------------------------------------------------------------------------------------------------------

/// Two connected queue pairs with one completion queue and one shared receive queue, as our loop has them.
class Hand {
public:
    Hand() {
        channel_ = FROM_DOUBLE(rdma_create_event_channel)();
        rdma_cm_id* listener = nullptr;
        check(FROM_DOUBLE(rdma_create_id)(channel_, &listener, nullptr, RDMA_PS_TCP) == 0, "rdma_create_id");
        sockaddr_in at{};
        at.sin_family = AF_INET;
        inet_pton(AF_INET, "10.77.0.1", &at.sin_addr);
        check(FROM_DOUBLE(rdma_bind_addr)(listener, reinterpret_cast<sockaddr*>(&at)) == 0, "rdma_bind_addr");
        check(FROM_DOUBLE(rdma_listen)(listener, 8) == 0, "rdma_listen");
        at = listener->route.addr.src_sin;
        check(FROM_DOUBLE(rdma_create_id)(channel_, &ids_[0], nullptr, RDMA_PS_TCP) == 0, "rdma_create_id");
        check(FROM_DOUBLE(rdma_resolve_addr)(ids_[0], nullptr, reinterpret_cast<sockaddr*>(&at), 1000) == 0, "rdma_resolve_addr");
        expect(RDMA_CM_EVENT_ADDR_RESOLVED);
        make_queues(ids_[0]->verbs);
        check(FROM_DOUBLE(rdma_resolve_route)(ids_[0], 1000) == 0, "rdma_resolve_route");
        expect(RDMA_CM_EVENT_ROUTE_RESOLVED);
        make_pair(ids_[0]);
        rdma_conn_param wanted{};
        wanted.rnr_retry_count = 6;
        check(FROM_DOUBLE(rdma_connect)(ids_[0], &wanted) == 0, "rdma_connect");
        ids_[1] = expect(RDMA_CM_EVENT_CONNECT_REQUEST);
        make_pair(ids_[1]);
        check(FROM_DOUBLE(rdma_accept)(ids_[1], &wanted) == 0, "rdma_accept");
        expect(RDMA_CM_EVENT_ESTABLISHED);
        expect(RDMA_CM_EVENT_ESTABLISHED);
    }

    void exchange(std::uint64_t pairs) {
        send(ids_[0]->qp, depth);
        for (std::uint64_t done = 0; done < pairs;) done += turn(done + depth < pairs);
        while (turn(false) > 0) {}
    }

private:
    rdma_cm_id* expect(rdma_cm_event_type type) {
        rdma_cm_event* event = nullptr;
        check(FROM_DOUBLE(rdma_get_cm_event)(channel_, &event) == 0 && event->event == type, "the connection manager");
        rdma_cm_id* id = event->id;
        FROM_DOUBLE(rdma_ack_cm_event)(event);
        return id;
    }
    void make_queues(ibv_context* context) {
        pd_ = FROM_DOUBLE(ibv_alloc_pd)(context);
        cq_ = FROM_DOUBLE(ibv_create_cq)(context, 1024, nullptr, nullptr, 0);
        ibv_srq_init_attr shared{};
        shared.attr = {receives, 1, 0};
        srq_ = FROM_DOUBLE(ibv_create_srq)(pd_, &shared);
        mr_ = FROM_DOUBLE(ibv_reg_mr)(pd_, memory_, sizeof memory_, IBV_ACCESS_LOCAL_WRITE);
        check(mr_ != nullptr, "ibv_reg_mr");
        for (unsigned i = 0; i < receives; ++i) again_[i] = i;
        post_receives(receives);
    }
    void make_pair(rdma_cm_id* id) {
        ibv_qp_init_attr wanted{};
        wanted.send_cq = wanted.recv_cq = cq_;
        wanted.srq = srq_;
        wanted.qp_type = IBV_QPT_RC;
        wanted.cap = {128, 0, 1, 0, 220};
        check(FROM_DOUBLE(rdma_create_qp)(id, pd_, &wanted) == 0, "rdma_create_qp");
    }
    void post_receives(unsigned n) {
        ibv_recv_wr requests[receives];
        ibv_sge places[receives];
        for (unsigned i = 0; i < n; ++i) {
            places[i] = {reinterpret_cast<std::uintptr_t>(memory_[again_[i]]), message_bytes, mr_->lkey};
            requests[i] = {again_[i], i + 1 < n ? &requests[i + 1] : nullptr, &places[i], 1};
        }
        ibv_recv_wr* bad = nullptr;
        check(n == 0 || ibv_post_srq_recv(srq_, requests, &bad) == 0, "ibv_post_srq_recv");
    }
    void send(ibv_qp* qp, unsigned n) {
        ibv_send_wr requests[depth];
        ibv_sge place{reinterpret_cast<std::uintptr_t>(out_), message_bytes, mr_->lkey};
        for (unsigned i = 0; i < n; ++i) {
            requests[i] = {};
            requests[i].wr_id = sent_bit;
            requests[i].next = i + 1 < n ? &requests[i + 1] : nullptr;
            requests[i].sg_list = &place;
            requests[i].num_sge = 1;
            requests[i].opcode = IBV_WR_SEND_WITH_IMM;
            requests[i].send_flags = unsigned(IBV_SEND_INLINE) | (i + 1 == n ? unsigned(IBV_SEND_SIGNALED) : 0u);
        }
        ibv_send_wr* bad = nullptr;
        check(ibv_post_send(qp, requests, &bad) == 0, "ibv_post_send");
    }
    /// What has come is answered. The number of receives.
    unsigned turn(bool more) {
        ibv_wc done[32];
        const int got = ibv_poll_cq(cq_, 32, done);
        unsigned n = 0;
        std::uint32_t at = 0;
        for (int i = 0; i < got; ++i) {
            check(done[i].status == IBV_WC_SUCCESS, "a work request");
            if (done[i].wr_id == sent_bit) continue;
            again_[n++] = std::uint32_t(done[i].wr_id);
            at = done[i].qp_num;
        }
        if (n == 0) return 0;
        post_receives(n);
        if (more) send(ids_[at == ids_[0]->qp->qp_num ? 0 : 1]->qp, n);
        return n;
    }

    static constexpr std::uint64_t sent_bit = std::uint64_t(1) << 63;
    rdma_event_channel* channel_ = nullptr;
    rdma_cm_id* ids_[2] = {};
    ibv_pd* pd_ = nullptr;
    ibv_cq* cq_ = nullptr;
    ibv_srq* srq_ = nullptr;
    ibv_mr* mr_ = nullptr;
    std::byte memory_[receives][message_bytes] = {};
    std::byte out_[message_bytes] = {};
    std::uint32_t again_[receives] = {};
};

// -- by our loop ---------------------------------------------------------------------------------------------------

/// Both ends: what comes goes back.
struct Echo {
    std::uint64_t* pairs;
    bool* more;
    void on_recv(evpl::Connection& peer) {
        for (;;) {
            evpl::Chain message = peer.recv();
            if (message.empty()) return;
            ++*pairs;
            if (*more) peer.send(std::move(message));
        }
    }
};

class Ours {
public:
    Ours() : loop_({.mode = evpl::Mode::poll}) {
        auto listener = evpl::listen(loop_, "rdma://10.77.0.1:0?mode=msg", [this](evpl::Connection&) { return Echo{&pairs_, &more_}; });
        if (!listener) std::exit(evpl::complain(loop_, listener.error()));
        listener_ = *std::move(listener);
        client_ = *evpl::connect(loop_, listener_.url(), Echo{&pairs_, &more_});
        while (client_.get() != nullptr && !client_.get()->is_open()) loop_.run_once();
        for (int i = 0; i < 1000; ++i) loop_.run_once();
        check(client_.get() != nullptr, "connecting");
    }
    void exchange(std::uint64_t pairs) {
        pairs_ = 0;
        more_ = true;
        const std::byte message[message_bytes] = {};
        for (unsigned i = 0; i < depth; ++i) client_.get()->send(message);
        while (pairs_ + depth < pairs) loop_.run_once();
        more_ = false;
        for (std::uint64_t before = 0; before != pairs_;) {
            before = pairs_;
            loop_.run_once();
            loop_.run_once();
        }
    }

private:
    std::uint64_t pairs_ = 0;
    bool more_ = true;
    evpl::Loop loop_;
    evpl::Listener listener_;
    evpl::ConnectionRef client_;
};

}  // namespace

int main(int argc, char** argv) {
    std::uint64_t pairs = 100'000, rounds = 41;  // short rounds: a neighbour of the machine disturbs some of them, not most
    std::string only;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (std::strcmp(argv[i], "--pairs") == 0) pairs = std::strtoull(argv[i + 1], nullptr, 10);
        else if (std::strcmp(argv[i], "--rounds") == 0) rounds = std::strtoull(argv[i + 1], nullptr, 10);
        else if (std::strcmp(argv[i], "--only") == 0) only = argv[i + 1];
        else return 2;
    }
    setenv("EVPL_RDMA_LIBRARY", VERBS_DOUBLE_PATH, 1);
    setenv("VERBS_DOUBLE", "memory", 1);
    std::vector<Result> hand, ours;
    std::vector<double> difference;
    for (std::uint64_t round = 0; round < rounds; ++round) {
        if (only != "evpl") {
            static Hand by_hand;
            hand.push_back(measure(pairs, [](std::uint64_t n) { by_hand.exchange(n); }));
        }
        if (only != "hand") {
            static Ours by_us;
            ours.push_back(measure(pairs, [](std::uint64_t n) { by_us.exchange(n); }));
        }
        if (only.empty()) difference.push_back(ours.back().ns_per_pair - hand.back().ns_per_pair);
    }
    if (!hand.empty()) print("hand", median_of(hand));
    if (!ours.empty()) print("evpl", median_of(ours));
    if (!difference.empty()) {
        const double middle = median(difference);
        std::printf("{\"difference_ns_per_pair\": %.1f, \"least\": %.1f, \"most\": %.1f}\n", middle, difference.front(), difference.back());
    }
    return 0;
}
