#pragma once

#include <sys/epoll.h>
#include <unistd.h>

#include <initializer_list>

#include "explorer.hpp"
#include "memory/heap.hpp"
#include "transport/bell.hpp"

namespace evpl::race {

struct Scenario {
    const char* name;
    void (*play)();
    Bounds bounds;  // what is walked through with every change
};

std::initializer_list<Scenario> mailbox_scenarios();
std::initializer_list<Scenario> heap_scenarios();
std::initializer_list<Scenario> ring_scenarios();
std::initializer_list<Scenario> port_scenarios();

/// A bell and what a loop sleeps in.
class Bedside {
public:
    Bedside() : waiter_(epoll_create1(EPOLL_CLOEXEC)) {
        require(waiter_ >= 0 && bell.open(), "there are descriptors");
        epoll_event event{};
        event.events = EPOLLIN | EPOLLET;
        require(epoll_ctl(waiter_, EPOLL_CTL_ADD, bell.fd(), &event) == 0, "there are descriptors");
    }
    ~Bedside() {
        bell.close();
        ::close(waiter_);
    }
    Bedside(const Bedside&) = delete;

    /// As a loop does it: announce, look once more, sleep, get up.
    template <class Nothing>
    void sleep_while(Nothing nothing_to_do) {
        bell.prepare_sleep();
        if (nothing_to_do()) {
            wait_readable(waiter_, "its bell");
            epoll_event event;
            epoll_wait(waiter_, &event, 1, 0);
        }
        bell.cancel_sleep();
    }

    transport::Bell bell;

private:
    int waiter_;
};

inline void* current_heap() { return memory::Heap::current(); }
inline void set_current_heap(void* heap) { memory::Heap::set_current(static_cast<memory::Heap*>(heap)); }

}  // namespace evpl::race
