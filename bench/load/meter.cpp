#include "meter.hpp"

#include <time.h>

#include <cstdio>

#include "sockets.hpp"

namespace load {
namespace {

std::int64_t own_cpu_ns() {
    timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return t.tv_sec * 1'000'000'000LL + t.tv_nsec;
}

}  // namespace

Meter::Meter(const Options& options) : options_(options) {
    begin_ns_ = now_ns() + std::int64_t(options.warmup_s * 1e9);
    end_ns_ = begin_ns_ + std::int64_t(options.seconds * 1e9);
    if (options.requests) open_window(now_ns());
}

bool Meter::running(std::int64_t now) {
    if (options_.requests) {
        if (all_requests_ < options_.requests) return true;
    } else if (now < end_ns_) {
        if (!measuring_ && now >= begin_ns_) open_window(now);
        return true;
    }
    close_window(now);
    return false;
}

void Meter::open_window(std::int64_t now) {
    latencies_.clear();
    bytes_ = lost_ = 0;
    measuring_ = true;
    server_begin_ = probe_server(options_.server_pid);
    own_cpu_ns_ = own_cpu_ns();
    window_begin_ns_ = options_.requests ? now : now_ns();
}

void Meter::close_window(std::int64_t) {
    window_end_ns_ = now_ns();
    own_cpu_ns_ = own_cpu_ns() - own_cpu_ns_;
    server_end_ = probe_server(options_.server_pid);
}

void Meter::report() const {
    const double seconds = double(window_end_ns_ - window_begin_ns_) / 1e9;
    const double server_cpu_ns = double(server_end_.cpu_ns - server_begin_.cpu_ns);
    // A stream has blocks instead of requests.
    const double requests = options_.mode == "stream" ? double(bytes_) / options_.size_bytes : double(latencies_.total());
    const struct {
        const char* name;
        double value;
    } figures[] = {
        {"connections", double(options_.connections)},
        {"size", double(options_.size_bytes)},
        {"depth", double(options_.depth)},
        {"seconds", seconds},
        {"requests", requests},
        {"requests_per_s", requests / seconds},
        {"mb_per_s", double(bytes_) / seconds / 1e6},
        {"p50_us", latencies_.quantile_ns(0.5) / 1e3},
        {"p90_us", latencies_.quantile_ns(0.9) / 1e3},
        {"p99_us", latencies_.quantile_ns(0.99) / 1e3},
        {"p999_us", latencies_.quantile_ns(0.999) / 1e3},
        {"max_us", double(latencies_.max_ns()) / 1e3},
        {"server_cpu_us_per_request", requests > 0 ? server_cpu_ns / requests / 1e3 : 0},
        {"server_cpu_percent", server_cpu_ns / seconds / 1e7},
        {"server_voluntary_switches", double(server_end_.voluntary_switches - server_begin_.voluntary_switches)},
        {"server_involuntary_switches", double(server_end_.involuntary_switches - server_begin_.involuntary_switches)},
        {"load_cpu_percent", double(own_cpu_ns_) / seconds / 1e7},
        {"lost", double(lost_)},
        {"server_rss_kib_before", double(before_.rss_kib)},
        {"server_rss_kib_after", double(after_.rss_kib)},
        {"server_private_kib_before", double(before_.private_kib)},
        {"server_private_kib_after", double(after_.private_kib)},
    };
    if (options_.json) std::printf("{\"mode\": \"%s\"", options_.mode.c_str());
    for (const auto& [name, value] : figures) std::printf(options_.json ? ", \"%s\": %.6g" : "%-28s %.6g\n", name, value);
    if (options_.json) std::puts("}");
}

}  // namespace load
