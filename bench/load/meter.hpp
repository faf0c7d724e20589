// The measured window: warm-up, then the time or count asked for. Probes the server at both ends.
#pragma once
#include <cstdint>

#include "histogram.hpp"
#include "options.hpp"
#include "server_probe.hpp"

namespace load {

class Meter {
public:
    explicit Meter(const Options& options);

    /// Call at least once per turn. Opens the window after the warm-up; false once it has closed.
    bool running(std::int64_t now_ns);

    /// One answered request of this many bytes.
    void record(std::int64_t latency_ns, std::uint64_t bytes) {
        latencies_.record(latency_ns);
        bytes_ += bytes;
        ++all_requests_;
    }
    /// Echoed bytes without a latency of their own.
    void add_bytes(std::uint64_t bytes) { bytes_ += bytes; }
    void add_lost(std::uint64_t datagrams) { lost_ += datagrams; }
    void set_memory(ServerMemory before, ServerMemory after) { before_ = before, after_ = after; }

    /// Prints text or JSON.
    void report() const;

private:
    void open_window(std::int64_t now_ns);
    void close_window(std::int64_t now_ns);

    const Options& options_;
    Histogram latencies_;
    std::uint64_t bytes_ = 0, lost_ = 0, all_requests_ = 0;
    std::int64_t begin_ns_ = 0, end_ns_ = 0, window_begin_ns_ = 0, window_end_ns_ = 0;
    std::int64_t own_cpu_ns_ = 0;
    ServerState server_begin_, server_end_;
    ServerMemory before_, after_;
    bool measuring_ = false;
};

}  // namespace load
