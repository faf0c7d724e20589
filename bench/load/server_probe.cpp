#include "server_probe.hpp"

#include <time.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

#include "sockets.hpp"

namespace load {
namespace {

// Adds up "Name:   123 ..." lines whose name starts as asked.
std::int64_t sum_of(const std::string& file, const std::string& name) {
    std::ifstream in(file);
    std::int64_t sum = 0;
    for (std::string line; std::getline(in, line);)
        if (line.starts_with(name)) sum += std::strtoll(line.c_str() + line.find(':') + 1, nullptr, 10);
    return sum;
}

std::string proc(pid_t pid, const char* file) { return "/proc/" + std::to_string(pid) + "/" + file; }

}  // namespace

ServerState probe_server(pid_t pid) {
    ServerState state;
    if (pid == 0) return state;
    std::error_code gone;
    for (const auto& task : std::filesystem::directory_iterator(proc(pid, "task"), gone)) {
        const std::string status = task.path().string() + "/status";
        state.voluntary_switches += sum_of(status, "voluntary_ctxt_switches");
        state.involuntary_switches += sum_of(status, "nonvoluntary_ctxt_switches");
    }
    clockid_t clock;
    timespec t;
    if (gone || clock_getcpuclockid(pid, &clock) || clock_gettime(clock, &t)) fail("the server process has gone");
    state.cpu_ns = t.tv_sec * 1'000'000'000LL + t.tv_nsec;
    return state;
}

ServerMemory probe_memory(pid_t pid) {
    if (pid == 0) return {};
    const std::string file = proc(pid, "smaps_rollup");
    return {sum_of(file, "Rss"), sum_of(file, "Private_")};
}

}  // namespace load
