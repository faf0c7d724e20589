#pragma once

// A loop as a port sees it, for tests of ports at their contract: its clock goes a millisecond a turn, and it sleeps only when asked.

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>

#include "memory/heap.hpp"
#include "transport/transport.hpp"

namespace evpl::transport {

class PortHost final : public Host {
public:
    explicit PortHost(std::size_t heap_bytes_max = 64u << 20) : heap_(memory::Heap::create(heap_bytes_max)), sleeper_(*open_sleeper()) {
        memory::Heap::set_current(heap_);
    }
    ~PortHost() {
        delete sleeper_;
        memory::Heap::set_current(nullptr);
        heap_->retire();
    }
    memory::Heap& heap() noexcept override { return *heap_; }
    Result<Sleeper*> sleeper() noexcept override { return sleeper_; }
    bool adopt_sleeper(Sleeper& successor) noexcept override {
        sleeper_ = &successor;  // which has taken the one before
        return true;
    }
    Bell& bell() noexcept override { return bell_; }
    std::int64_t now_ns() const noexcept override { return now; }
    std::uint32_t batch_bytes() const noexcept override { return batch; }
    void set_alarm(Port&, std::int64_t at_ns) noexcept override { alarm_at = at_ns; }
    void poll_again() noexcept override { again = true; }
    void log_line(std::uint8_t, std::string_view line) noexcept override { log += std::string(line) + "\n"; }

    /// A turn of the loop, without sleeping longer than `timeout_ms`.
    void turn(Port& port, int timeout_ms = 0) {
        sleeper_->wait(again ? 0 : std::int64_t(timeout_ms) * 1'000'000, events_max, UINT32_MAX);
        again = false;
        port.poll(64);
        now += 1'000'000;
        if (now >= alarm_at) {
            alarm_at = INT64_MAX;
            port.alarm();
        }
    }

    std::int64_t now = 0;
    std::int64_t alarm_at = INT64_MAX;
    std::uint32_t batch = 256u << 10;
    unsigned events_max = 64;  ///< per turn
    bool again = false;
    std::string log;

private:
    memory::Heap* heap_;
    Sleeper* sleeper_;
    Bell bell_;
};

}  // namespace evpl::transport
