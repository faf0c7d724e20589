#pragma once

#include <sys/epoll.h>
#include <sys/un.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "support/limits.hpp"
#include "support/sockets.hpp"

namespace evpl::test {

/// The client side of many connections, in plain epoll: holds them, counts what each hears and how it ends.
/// `where` is tcp:PORT, tcp:PORT@HOST or unix:PATH.
class Holder {
public:
    Holder(std::string where, std::size_t count, std::size_t expected_bytes)
        : where_(std::move(where)), sockets_(count), heard_(count), expected_bytes_(expected_bytes) {}

    int run() {
        raise_file_limit();
        while (connected_ < sockets_.size()) {
            while (started_ < sockets_.size() && started_ - connected_ < 100 && start(started_)) ++started_;
            turn(10);
        }
        std::printf("connected %zu\n", connected_);
        while (closed_ < sockets_.size()) {
            turn(100);
            if (!told_ && complete_ == sockets_.size()) {
                told_ = true;
                std::printf("heard %zu\n", complete_);
            }
        }
        std::printf("closed %zu\n", closed_);
        return 0;
    }

private:
    /// False: the listener's queue is full for now.
    bool start(std::size_t i) {
        sockaddr_storage storage{};
        socklen_t size = 0;
        if (where_.find("tcp:") == 0) {
            const std::size_t at = where_.find('@');
            const std::string host = at == where_.npos ? "127.0.0.1" : where_.substr(at + 1);
            const sockaddr_in address = loopback(std::uint16_t(std::stoul(where_.substr(4))), host.c_str());
            std::memcpy(&storage, &address, size = sizeof address);
        } else {
            sockaddr_un address{};
            address.sun_family = AF_UNIX;
            where_.copy(address.sun_path, sizeof address.sun_path - 1, 5);
            std::memcpy(&storage, &address, size = sizeof address);
        }
        Fd fd(::socket(storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
        if (!fd) std::exit(2);
        if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&storage), size) != 0 && errno != EINPROGRESS) {
            if (errno == EAGAIN) return false;
            std::exit(3);
        }
        sockets_[i] = std::move(fd);
        epoll_event event{};
        event.events = EPOLLIN | EPOLLOUT | EPOLLET;
        event.data.u64 = i;
        epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, sockets_[i].get(), &event);
        return true;
    }

    void turn(int wait_ms) {
        epoll_event events[256];
        const int count = epoll_wait(epoll_.get(), events, 256, wait_ms);
        for (int e = 0; e < count; ++e) {
            const std::size_t i = events[e].data.u64;
            if ((events[e].events & EPOLLOUT) != 0 && !heard_[i].open) {
                heard_[i].open = true;
                ++connected_;
            }
            if ((events[e].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) read(i);
        }
    }

    void read(std::size_t i) {
        char room[16384];
        while (sockets_[i]) {
            const ssize_t n = ::read(sockets_[i].get(), room, sizeof room);
            if (n < 0 && errno == EAGAIN) return;
            if (n <= 0) {
                sockets_[i].reset();
                ++closed_;
                return;
            }
            const bool before = heard_[i].bytes >= expected_bytes_;
            heard_[i].bytes += std::size_t(n);
            if (!before && heard_[i].bytes >= expected_bytes_) ++complete_;
        }
    }

    struct Heard {
        std::size_t bytes = 0;
        bool open = false;
    };
    std::string where_;
    std::vector<Fd> sockets_;
    std::vector<Heard> heard_;
    std::size_t expected_bytes_, started_ = 0, connected_ = 0, complete_ = 0, closed_ = 0;
    bool told_ = false;
    Fd epoll_{epoll_create1(EPOLL_CLOEXEC)};
};

inline int hold_main(const std::vector<std::string>& arguments) {
    return Holder(arguments.at(0), std::stoul(arguments.at(1)), std::stoul(arguments.at(2))).run();
}

}  // namespace evpl::test
