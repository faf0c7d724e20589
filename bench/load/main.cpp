// The load generator: one thread, hand-written on epoll so that it shares nothing with what it measures.
#include <sched.h>
#include <sys/resource.h>

#include <csignal>

#include "streams.hpp"

namespace {

void pin_to(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set)) load::fail("--pin");
}

void allow_all_descriptors() {
    rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace

int main(int argc, char** argv) {
    const load::Options options = load::parse_options(argc, argv);
    std::signal(SIGPIPE, SIG_IGN);
    allow_all_descriptors();
    if (options.pin_cpu >= 0) pin_to(options.pin_cpu);
    if (options.mode == "closed") load::run_closed(options);
    else if (options.mode == "turns") load::run_turns(options);
    else if (options.mode == "open") load::run_open(options);
    else if (options.mode == "stream") load::run_stream(options);
    else if (options.mode == "connect") load::run_connect(options);
    else if (options.mode == "udp") load::run_udp(options);
    else load::run_hold(options);
}
