#pragma once

// What the double is made of. Everything is under one mutex, except posting and polling in memory mode.

#include <infiniband/verbs.h>
#include <netinet/in.h>
#include <rdma/rdma_cma.h>

#undef ibv_reg_mr
#undef ibv_get_device_list
#undef ibv_query_port

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "knobs.hpp"

namespace verbs_double {

[[gnu::format(printf, 1, 2)]] void misuse(const char* format, ...);

Knobs& knobs();
/// Never destroyed: threads may still be at it when the process ends.
std::mutex& everything();
/// For posting and polling.
class DataLock {
public:
    DataLock() : on_(knobs().memory.load(std::memory_order_relaxed) == 0) {
        if (on_) everything().lock();
    }
    ~DataLock() {
        if (on_) everything().unlock();
    }
    DataLock(const DataLock&) = delete;
    DataLock& operator=(const DataLock&) = delete;

private:
    bool on_;
};

/// Runs `what` under the mutex, `us` from now, on the double's own thread.
void later(std::uint64_t us, std::function<void()> what);
std::uint64_t draw(std::uint64_t below);

/// A descriptor that is readable while something is queued.
template <class Item>
struct Mail {
    int fd = -1;
    std::deque<Item> items;
    void open();
    void close();
    void push(Item item);
    /// Waits where the descriptor does. False: EAGAIN.
    bool pop(Item& item, std::unique_lock<std::mutex>& lock);
};

struct Context;
struct Card : ibv_device {
    unsigned number = 0;
    bool port_up = true;
    in_addr v4{};
    in6_addr v6{};
    Context* current = nullptr;  ///< null: removed
};
struct Context : ibv_context {
    Card* card = nullptr;
    bool removed = false;
    Mail<ibv_async_event> news;
};
struct Pd : ibv_pd {
    unsigned users = 0;
};
struct Mr : ibv_mr {
    int access = 0;
};
struct CompChannel : ibv_comp_channel {
    Mail<ibv_cq*> mail;
    unsigned queues = 0;
};
struct Cqe {
    ibv_wc wc;
    std::uint32_t frees = 0;  ///< work requests that this is the completion of
    bool receive = false;
};
struct Cq : ibv_cq {
    std::vector<Cqe> ring;  ///< begins anew whenever it runs empty
    std::size_t head = 0, tail = 0;
    bool armed = false;
    bool broken = false;  ///< it has overrun: what completes is lost
    unsigned unacked = 0, users = 0;
    std::uint64_t claims = 0;  ///< completions that what is posted may bring
};
struct Receive {
    std::uint64_t wr_id;
    ibv_sge places[2];
    int count;
};
struct ReceiveQueue {
    std::vector<Receive> ring;
    std::uint64_t head = 0, tail = 0;
    std::vector<std::uint32_t> waiting;  ///< queue pairs that met no receive
    std::size_t size() const { return std::size_t(tail - head); }
};
struct Srq : ibv_srq {
    ReceiveQueue queue;
    Cq* completions = nullptr;
    unsigned users = 0;
};
struct Ah : ibv_ah {
    in6_addr to{};
};
/// A work request that waits.
struct Work {
    std::uint64_t wr_id = 0;
    ibv_wr_opcode opcode{};
    unsigned flags = 0;
    __be32 imm = 0;
    std::uint64_t remote = 0;
    std::uint32_t rkey = 0;
    std::uint64_t operand = 0, swap = 0;
    in6_addr to{};
    std::uint32_t to_number = 0, qkey = 0;
    std::vector<ibv_sge> places;
    std::string copied;  ///< inline
};
struct Id;
struct Qp : ibv_qp {
    Id* id = nullptr;
    ibv_qp_cap cap{};
    std::uint32_t peer = 0;  ///< a number
    unsigned rnr_retry = 0;
    unsigned rnr_left = 0;
    std::uint32_t used = 0;        ///< of the send queue
    std::uint32_t unreported = 0;  ///< of these, no completion tells yet
    std::uint64_t wait = 0;        ///< number of the current wait; 0: none
    bool scheduled = false;
    std::deque<Work> pending;
    ReceiveQueue receives;
};
struct Channel;
struct Event : rdma_cm_event {
    std::string data;
    Id* owner = nullptr;
};
struct Channel : rdma_event_channel {
    Mail<Event*> mail;
};
struct Id : rdma_cm_id {
    enum class State { idle, listening, asked, connecting, connected, disconnected } step = State::idle;
    std::uint64_t serial = 0;
    unsigned unacked = 0;
    std::uint64_t peer = 0;  ///< a serial
    bool bound = false;
    rdma_conn_param wanted{};
    std::set<std::string> groups;
};

struct Books {
    std::atomic<long> pd{0}, mr{0}, mr_bytes{0}, cq{0}, channel{0}, srq{0}, qp{0}, ah{0}, id{0}, unacked{0}, overruns{0}, async_heard{0};
    std::atomic<long> post_send{0}, sends{0}, post_recv{0}, polls{0}, memory_post_send{0};
};
Books& books();

Qp* qp_of(std::uint32_t number);
Card* card_of(const sockaddr& address);
Card* card_of(const in6_addr& gid);
Card& card(unsigned number);
constexpr unsigned cards = 2;
void open_card(Card& card);
in6_addr gid_of(const sockaddr& address);

// data.cpp
void set_ops(ibv_context_ops& ops);
int create_qp(Id& id, Pd& pd, ibv_qp_init_attr& wanted);
void destroy_qp(Qp& qp);
void enter(Qp& qp, ibv_qp_state state);
void run(Qp& qp);
std::map<std::string, std::set<std::uint32_t>>& groups();
/// `element` is the queue that the event names; null: the port.
void tell_async(Context& context, ibv_event_type type, void* element = nullptr);

// manager.cpp
void lose(Context& context);

}  // namespace verbs_double
