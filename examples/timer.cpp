// A periodic timer, a single one, and one that is cancelled because it is dropped.
#include <cstdio>
#include <evpl/evpl.hpp>
using namespace evpl::literals;

int main() {
    evpl::Loop loop;
    int ticks = 0;
    auto tick = loop.every(20_ms, [&] { std::printf("tick %d\n", ++ticks); });
    auto end = loop.after(110_ms, [&] { loop.stop(); });
    if (!tick || !end) return evpl::complain(loop, tick ? end.error() : tick.error());
    {
        auto never = loop.after(50_ms, [] { std::puts("this is never printed"); });
    }
    const int status = loop.run();
    std::printf("%s\n", ticks >= 1 && ticks <= 5 ? "done" : "a timer came early or never");
    return status;
}
