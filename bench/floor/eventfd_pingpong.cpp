// 64-byte messages there and back between two threads that sleep: a ring each way, an eventfd as the
// doorbell, epoll to wait for it. What a cross-thread wake-up costs at best.
//   eventfd_pingpong [--seconds S]
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <thread>

#include "pingpong.hpp"

struct Mailbox {
    Ring ring;
    int bell = eventfd(0, EFD_NONBLOCK);
    int poller = epoll_create1(0);

    Mailbox() {
        epoll_event event{.events = EPOLLIN | EPOLLET, .data = {}};  // edge: the counter need not be read
        epoll_ctl(poller, EPOLL_CTL_ADD, bell, &event);
    }
    void put(const Message& message) {
        ring.push(message);
        const std::uint64_t one = 1;
        if (write(bell, &one, sizeof one) != sizeof one) perror("eventfd");
    }
    void take(Message& message) {
        epoll_event event;
        while (!ring.pop(message)) epoll_wait(poller, &event, 1, -1);
    }
};

int main(int argc, char** argv) {
    Mailbox there, back;
    std::thread echo([&] {
        pin_to(0);
        for (Message message;;) {
            there.take(message);
            back.put(message);
            if (message.words[0] == 0) return;
        }
    });
    pin_to(1);
    Message message{{1}};
    const auto round_trip = [&] {
        there.put(message);
        back.take(message);
    };
    measure("eventfd_pingpong", seconds_from(argc, argv), round_trip);
    message.words[0] = 0;
    round_trip();
    echo.join();
}
