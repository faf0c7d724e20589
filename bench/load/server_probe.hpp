// Looks at the server process from outside: CPU time in ns, context switches, memory.
#pragma once
#include <sys/types.h>

#include <cstdint>

namespace load {

struct ServerState {
    std::int64_t cpu_ns = 0;                // all threads, user and system
    std::int64_t voluntary_switches = 0;    // it went to sleep
    std::int64_t involuntary_switches = 0;  // something else wanted its CPU: the run was disturbed
};

struct ServerMemory {
    std::int64_t rss_kib = 0;
    std::int64_t private_kib = 0;  // Private_Clean + Private_Dirty + Private_Hugetlb
};

/// Everything is zero for pid 0. A pid that has gone ends the program: the figures would be wrong.
ServerState probe_server(pid_t pid);
ServerMemory probe_memory(pid_t pid);

}  // namespace load
