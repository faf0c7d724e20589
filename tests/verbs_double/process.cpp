// The double as a process has it: what it was told, its books, its devices, and its own thread.

#include <fcntl.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <thread>
#include <utility>

#include "objects.hpp"

namespace verbs_double {
namespace {

std::uint64_t& random_state() {
    static std::uint64_t state = knobs().seed * 0x9e3779b97f4a7c15u | 1;
    return state;
}

using Clock = std::chrono::steady_clock;

/// What happens later, by time and then by order.
struct Agenda {
    std::multimap<Clock::time_point, std::function<void()>> items;
    std::condition_variable changed;
    bool running = false;

    void run() {
        std::unique_lock lock(everything());
        for (;;) {
            if (items.empty()) {
                changed.wait(lock);
                continue;
            }
            const auto due = items.begin()->first;
            if (Clock::now() < due) {
                changed.wait_until(lock, due);
                continue;
            }
            const auto what = std::move(items.begin()->second);
            items.erase(items.begin());
            what();
        }
    }
};
Agenda& agenda() {
    static auto* const one = new Agenda;
    return *one;
}

}  // namespace

void misuse(const char* format, ...) {
    if (knobs().strict == 0) return;
    va_list arguments;
    va_start(arguments, format);
    std::fputs("verbs double: misuse: ", stderr);
    std::vfprintf(stderr, format, arguments);
    std::fputc('\n', stderr);
    va_end(arguments);
    std::abort();
}

Knobs& knobs() {
    static Knobs* const one = [] {
        auto* made = new Knobs;
        const char* text = std::getenv("VERBS_DOUBLE");
        read_items(text != nullptr ? text : "", [&](std::string_view name, std::uint64_t value) { return made->set(name, value); });
        return made;
    }();
    return *one;
}

std::mutex& everything() {
    static auto* const mutex = new std::mutex;
    return *mutex;
}
Books& books() {
    static auto* const one = new Books;
    return *one;
}

std::uint64_t draw(std::uint64_t below) {
    std::uint64_t& s = random_state();
    s ^= s << 13;
    s ^= s >> 7;
    s ^= s << 17;
    return s % below;
}

void later(std::uint64_t us, std::function<void()> what) {
    Agenda& a = agenda();
    a.items.emplace(Clock::now() + std::chrono::microseconds(us), std::move(what));
    if (!std::exchange(a.running, true)) std::thread([&a] { a.run(); }).detach();
    a.changed.notify_one();
}

template <class Item>
void Mail<Item>::open() {
    fd = ::eventfd(0, EFD_SEMAPHORE | EFD_CLOEXEC);
}
template <class Item>
void Mail<Item>::close() {
    if (fd >= 0) ::close(std::exchange(fd, -1));
}
template <class Item>
void Mail<Item>::push(Item item) {
    items.push_back(std::move(item));
    const std::uint64_t one = 1;
    (void)!::write(fd, &one, sizeof one);
}
template <class Item>
bool Mail<Item>::pop(Item& item, std::unique_lock<std::mutex>& lock) {
    for (;;) {
        lock.unlock();
        std::uint64_t one;
        const auto got = ::read(fd, &one, sizeof one);
        lock.lock();
        if (got < 0) return false;
        if (items.empty()) {  // what was announced has been taken back
            if ((::fcntl(fd, F_GETFL) & O_NONBLOCK) == 0) continue;
            errno = EAGAIN;
            return false;
        }
        item = std::move(items.front());
        items.pop_front();
        return true;
    }
}
template struct Mail<ibv_cq*>;
template struct Mail<Event*>;
template struct Mail<ibv_async_event>;

// -- devices -----------------------------------------------------------------------------------------------------

/// vrd0 has 10.77.0.1 and fd77::1, vrd1 has 10.77.0.2 and fd77::2. Each reaches the other.
Card& card(unsigned number) {
    static Card* const all = [] {
        auto* made = new Card[cards]();
        for (unsigned i = 0; i < cards; ++i) {
            Card& one = made[i];
            one.number = i;
            one.node_type = IBV_NODE_CA;
            one.transport_type = IBV_TRANSPORT_IB;
            std::snprintf(one.name, sizeof one.name, "vrd%u", i);
            std::snprintf(one.dev_name, sizeof one.dev_name, "uverbs%u", i);
            one.v4.s_addr = htonl(0x0a4d0001 + i);
            one.v6.s6_addr[0] = 0xfd;
            one.v6.s6_addr[1] = 0x77;
            one.v6.s6_addr[15] = std::uint8_t(i + 1);
            open_card(one);
        }
        return made;
    }();
    return all[number];
}

/// A fresh context: also when a device comes back. The manager's library keeps all that it has opened.
void open_card(Card& card) {
    static auto* const opened = new std::vector<Context*>;
    auto* made = opened->emplace_back(new Context());
    made->card = &card;
    made->device = &card;
    made->news.open();
    made->async_fd = made->news.fd;
    made->cmd_fd = -1;
    made->num_comp_vectors = 1;
    set_ops(made->ops);
    card.current = made;
}

in6_addr gid_of(const sockaddr& address) {
    in6_addr gid{};
    if (address.sa_family == AF_INET6) {
        gid = reinterpret_cast<const sockaddr_in6&>(address).sin6_addr;
    } else {
        gid.s6_addr[10] = gid.s6_addr[11] = 0xff;
        std::memcpy(&gid.s6_addr[12], &reinterpret_cast<const sockaddr_in&>(address).sin_addr, 4);
    }
    return gid;
}
Card* card_of(const in6_addr& gid) {
    for (unsigned i = 0; i < cards; ++i) {
        Card& one = card(i);
        sockaddr_in v4{};
        v4.sin_family = AF_INET;
        v4.sin_addr = one.v4;
        const in6_addr mapped = gid_of(reinterpret_cast<const sockaddr&>(v4));
        if (std::memcmp(&gid, &one.v6, sizeof gid) == 0 || std::memcmp(&gid, &mapped, sizeof gid) == 0) return one.current != nullptr ? &one : nullptr;
    }
    return nullptr;
}
Card* card_of(const sockaddr& address) { return card_of(gid_of(address)); }

void tell_async(Context& context, ibv_event_type type, void* element) {
    ibv_async_event event{};
    event.event_type = type;
    if (element != nullptr) event.element.cq = static_cast<ibv_cq*>(element);  // a union of pointers
    else event.element.port_num = 1;
    context.news.push(event);
}

namespace {

bool act(std::string_view name, std::uint64_t value) {
    if (name != "remove" && name != "restore" && name != "port_down" && name != "port_up" && name != "fatal") return false;
    if (value >= cards) return false;
    Card& one = card(unsigned(value));
    if (name == "restore") {
        if (one.current == nullptr) open_card(one);
        one.port_up = true;
        return true;
    }
    if (one.current == nullptr) return true;
    Context& context = *one.current;
    if (name == "remove") {
        context.removed = true;
        one.current = nullptr;
        lose(context);
        tell_async(context, IBV_EVENT_DEVICE_FATAL);  // also where no id hears of it
    } else if (name == "fatal") {
        context.removed = true;
        one.current = nullptr;
        tell_async(context, IBV_EVENT_DEVICE_FATAL);
    } else {
        one.port_up = name == "port_up";
        tell_async(context, one.port_up ? IBV_EVENT_PORT_ACTIVE : IBV_EVENT_PORT_ERR);
    }
    return true;
}

}  // namespace
}  // namespace verbs_double

using namespace verbs_double;

/// Knobs, and what is to happen now: remove=N, restore=N, fatal=N (device), port_down=N, port_up=N.
extern "C" void verbs_double_tell(const char* text) {
    const std::lock_guard lock(everything());
    read_items(text, [](std::string_view name, std::uint64_t value) { return knobs().set(name, value) || act(name, value); });
}

/// What there is of something, or how often something was done; -1: no such book.
extern "C" long verbs_double_count(const char* what) {
    Books& b = books();
    const std::pair<const char*, std::atomic<long>*> all[] = {{"pd", &b.pd},
                                                              {"mr", &b.mr},
                                                              {"mr_bytes", &b.mr_bytes},
                                                              {"cq", &b.cq},
                                                              {"channel", &b.channel},
                                                              {"srq", &b.srq},
                                                              {"qp", &b.qp},
                                                              {"ah", &b.ah},
                                                              {"id", &b.id},
                                                              {"unacked", &b.unacked},
                                                              {"overruns", &b.overruns},
                                                              {"async_heard", &b.async_heard},
                                                              {"post_send", &b.post_send},
                                                              {"sends", &b.sends},
                                                              {"post_recv", &b.post_recv},
                                                              {"polls", &b.polls}};
    for (const auto& [name, book] : all)
        if (std::strcmp(name, what) == 0) return book->load();
    return -1;
}
