// Opens many connections, one echo on each, then stays silent: what do idle connections cost?
#include <time.h>
#include <unistd.h>

#include "meter.hpp"
#include "streams.hpp"

namespace load {

void run_hold(const Options& options) {
    const ServerMemory before = probe_memory(options.server_pid);
    Streams streams(options);
    unsigned answered = 0;
    const std::int64_t give_up_ns = now_ns() + 10'000'000'000;
    for (Stream& stream : streams) {
        stream.due = options.size_bytes;
        streams.pump(stream);
    }
    while (answered < options.connections) {
        streams.turn(100, [&](Stream& stream, std::int64_t) { answered += stream.received == options.size_bytes; });
        if (now_ns() > give_up_ns) errno = 0, fail("not every connection was answered within 10 s");
    }
    Meter meter(options);  // its warm-up lets the server settle
    while (meter.running(now_ns())) usleep(1000);
    meter.set_memory(before, probe_memory(options.server_pid));
    meter.report();
}

}  // namespace load
