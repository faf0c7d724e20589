// Goal: no sequence of calls breaks a promise: each connection ends once, bytes are an exact prefix, nothing is kept.
// Method: the input is a program for the simulated network (tests/sim): 4 bytes of seed for the network and its faults, a byte for the number
// of loops, then 8 bytes a step. The fuzzer looks for sequences where the seeds of tests/sim draw them.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <string>

#include "sim/stage.hpp"

namespace evpl::sim_test {
namespace {

constexpr std::size_t steps_max = 48;
// Of all sends of a program together: the net may split them into pieces of a few bytes, and up to ten handlers do the same.
constexpr std::uint32_t sent_bytes_max = 64 << 10;

Act simple_act(std::uint8_t byte) {
    // As any_simple(): not one that plans another.
    const unsigned below = unsigned(Act::defer), choice = byte % (below + 2);
    return choice < below ? Act(choice) : choice == below ? Act::connect : Act::drop_listener;
}

Step step_from(const std::uint8_t* at) {
    constexpr unsigned common = unsigned(last_common) + 1;
    Step step;
    step.when = When(at[0] % unsigned(When::count_));
    step.act = step.when == When::script && at[1] % 4 != 0 ? Act(common + at[1] % (unsigned(Act::count_) - common)) : Act(at[1] % common);
    if (step.when == When::script && step.act <= last_common) step.act = Act::connect;  // the others belong to a handler
    step.later = simple_act(at[2]);
    step.who = at[3] % Script::whos;
    step.round = std::uint8_t(at[3] / Script::whos % 4);
    step.a = std::uint32_t(at[4] | at[5] << 8) << (at[6] & 1);
    step.b = at[7];
    return step;
}

bool sends(const Step& step) {
    const bool plans = step.act >= Act::defer && step.act <= Act::timer;
    return step.when != When::script && (plans ? step.later : step.act) <= Act::send_parcel;
}

Script script_from(const std::uint8_t* data, std::size_t size) {
    Script script;
    for (unsigned i = 0; i < 4; ++i) script.seed = script.seed << 8 | data[i];
    Random random(script.seed * 7 + 11);
    script.net = any_options(script.seed, random);
    script.net.devices = data[4] >> 4 & 1;
    script.loops = 1 + data[4] % 3;
    script.steps.push_back({.act = Act::listen});
    script.steps.push_back({.act = Act::connect});
    std::uint32_t left = sent_bytes_max;
    for (std::size_t at = 5; at + 8 <= size && script.steps.size() < steps_max; at += 8) {
        Step step = step_from(data + at);
        if (sends(step)) left -= step.a = std::min(step.a, left);
        script.steps.push_back(step);
    }
    return script;
}

}  // namespace
}  // namespace evpl::sim_test

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace evpl::sim_test;
    if (size < 5) return 0;
    const Script script = script_from(data, size);
    const Verdict verdict = run_script(script);
    if (verdict.broken.empty()) return 0;
    for (const std::string& line : verdict.broken) std::fprintf(stderr, "%s\n", line.c_str());
    std::fprintf(stderr, "seed %llu, %s", static_cast<unsigned long long>(script.seed), text_of(script).c_str());
    __builtin_trap();
}
