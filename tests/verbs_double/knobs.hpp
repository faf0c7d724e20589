#pragma once

// What the double is told: in one environment variable when it is loaded, VERBS_DOUBLE="seed=7,async,reorder", and by verbs_double_tell() while it runs.

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

namespace verbs_double {

/// Something that goes wrong the next `next` times, and every `every`-th time.
class Fault {
public:
    std::atomic<std::uint64_t> next{0}, every{0};
    bool hits() {
        const std::uint64_t n = every.load(std::memory_order_relaxed);
        if (next.load(std::memory_order_relaxed) == 0 && n == 0) return false;
        if (n != 0 && ++count_ % n == 0) return true;
        std::uint64_t left = next.load();
        while (left > 0)
            if (next.compare_exchange_weak(left, left - 1)) return true;
        return false;
    }

private:
    std::atomic<std::uint64_t> count_{0};
};

struct Knobs {
    using Number = std::atomic<std::uint64_t>;
    Number seed{1};
    Number strict{1};   ///< misuse stops the program
    Number memory{0};   ///< posting and polling take no lock and no system call: for one thread, without faults
    Number async{0};    ///< work requests are done by a thread of the double's, some microseconds later
    Number reorder{0};  ///< completions of different queue pairs come in any order
    Number cqe{65536};  ///< largest completion queue
    Number srq{16384};  ///< largest shared receive queue
    Number sge{16};
    Number atomics{1};
    Number inline_bytes{512};
    Number memlock{UINT64_MAX};   ///< bytes that may be registered: ENOMEM beyond
    Number retry_ms{200};         ///< until a peer that answers nothing is given up
    Number rnr_ms{20};            ///< between two tries at a receiver that is not ready
    Number late_established{0};   ///< ms between the first bytes and who accepted being told
    Number late_disconnected{0};  ///< ms
    Number late_rejected{0};      ///< ms between the end of the queue pair and who asked being told
    Number send_status{12};       ///< of `send`: IBV_WC_RETRY_EXC_ERR
    // calls that are refused
    Fault mr, qp, cq, srq_made, ah, id, post;
    // queues that the device declares broken: a completion queue at its next completion, a queue pair at its next request
    Fault overrun, qp_fatal;
    // work requests: fail with send_status; carry garbage for immediate data; arrive a hundred times; meet no receiver
    Fault send, note, repeat, rnr;
    // the connection manager
    Fault address_error, route_error, unreachable, connect_error, reject, silent, hello_request, hello_accept;

    /// False: there is no such knob.
    bool set(std::string_view name, std::uint64_t value) {
        const struct {
            const char* name;
            Number* number;
        } numbers[] = {{"seed", &seed},
                       {"strict", &strict},
                       {"memory", &memory},
                       {"async", &async},
                       {"reorder", &reorder},
                       {"cqe", &cqe},
                       {"srq", &srq},
                       {"sge", &sge},
                       {"atomics", &atomics},
                       {"inline", &inline_bytes},
                       {"memlock", &memlock},
                       {"retry_ms", &retry_ms},
                       {"rnr_ms", &rnr_ms},
                       {"late_established", &late_established},
                       {"late_disconnected", &late_disconnected},
                       {"late_rejected", &late_rejected},
                       {"send_status", &send_status}};
        for (const auto& each : numbers)
            if (name == each.name) return each.number->store(value), true;
        const struct {
            const char* name;
            Fault* fault;
        } faults[] = {{"mr", &mr},
                      {"qp", &qp},
                      {"cq", &cq},
                      {"srq_made", &srq_made},
                      {"ah", &ah},
                      {"id", &id},
                      {"post", &post},
                      {"send", &send},
                      {"overrun", &overrun},
                      {"qp_fatal", &qp_fatal},
                      {"note", &note},
                      {"repeat", &repeat},
                      {"rnr", &rnr},
                      {"address_error", &address_error},
                      {"route_error", &route_error},
                      {"unreachable", &unreachable},
                      {"connect_error", &connect_error},
                      {"reject", &reject},
                      {"silent", &silent},
                      {"hello_request", &hello_request},
                      {"hello_accept", &hello_accept}};
        for (const auto& each : faults) {
            if (name == each.name) return each.fault->next.store(value), true;
            if (name == std::string(each.name) + "_every") return each.fault->every.store(value), true;
        }
        return false;
    }
};

/// Calls `take(name, value)` for each item; a bare name means 1. What nobody takes is a test that tests nothing: the program ends.
template <class Take>
void read_items(std::string_view text, Take take) {
    while (!text.empty()) {
        const std::string item(text.substr(0, text.find(',')));
        text = item.size() < text.size() ? text.substr(item.size() + 1) : std::string_view();
        const std::size_t equals = item.find('=');
        const std::uint64_t value = equals == item.npos ? 1 : std::strtoull(item.c_str() + equals + 1, nullptr, 10);
        if (take(std::string_view(item).substr(0, equals), value)) continue;
        std::fprintf(stderr, "verbs double: there is no knob %s\n", item.c_str());
        std::abort();
    }
}

}  // namespace verbs_double
