// race_program: the scenarios, or one of them, or one execution of one of them.
//   race_program                                  all, within their bounds
//   race_program NAME [PREEMPTIONS STALE [EXECUTIONS [SEED]]]
//   race_program NAME PREEMPTIONS STALE --replay CHOICES
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "scenarios.hpp"

namespace {

using namespace evpl;
using namespace evpl::race;

bool play(const Scenario& scenario, const Bounds& bounds) {
    std::printf("%s: ", scenario.name);
    std::fflush(stdout);
    const Outcome outcome = explore(scenario.play, bounds);
    std::printf("%llu executions of %llu steps, %u preemptions, %u stale loads, %s\n", static_cast<unsigned long long>(outcome.executions),
                static_cast<unsigned long long>(outcome.steps / outcome.executions), bounds.preemptions, bounds.stale_loads,
                outcome.complete   ? "all there are"
                : bounds.seed != 0 ? "by chance"
                                   : "the first ones");
    return outcome.executions > 0;
}

}  // namespace

int main(int argc, char** argv) {
    carry(&current_heap, &set_current_heap);
    memory::Heap::create(memory::slab_bytes)->retire();  // makes what is made by the first use
    std::vector<Scenario> all;
    for (const auto& group : {mailbox_scenarios(), heap_scenarios(), ring_scenarios(), port_scenarios()}) {
        all.insert(all.end(), group.begin(), group.end());
    }
    if (argc > 1 && std::strcmp(argv[1], "--list") == 0) {
        for (const Scenario& each : all) std::printf("%s\n", each.name);
        return 0;
    }
    int played = 0;
    for (const Scenario& each : all) {
        if (argc > 1 && std::strcmp(argv[1], each.name) != 0) continue;
        Bounds bounds = each.bounds;
        if (argc > 3) {
            bounds = {unsigned(std::atoi(argv[2])), unsigned(std::atoi(argv[3])), argc > 4 ? std::strtoull(argv[4], nullptr, 10) : 0,
                      argc > 5 ? std::strtoull(argv[5], nullptr, 10) : 0};
        }
        if (argc > 5 && std::strcmp(argv[4], "--replay") == 0) replay(each.play, bounds, argv[5]);
        else play(each, bounds);
        ++played;
    }
    if (played == 0) std::printf("there is no such scenario\n");
    return played > 0 ? 0 : 2;
}
