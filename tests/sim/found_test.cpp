// What random programs have found, each as the smallest program that showed it.

#include "sim/stage.hpp"

namespace evpl::sim_test {
namespace {

std::string broken_by(const Script& script) {
    std::string text;
    for (const std::string& line : run_script(script).broken) text += line + "\n";
    return text;
}

// A datagram socket at its receive limit, on a device that cannot pause: the limit holds by dropping.
TEST(FoundBySimulation, ADatagramDeviceWithoutReceivePauseIsNotPaused) {
    Script script;
    script.net.receive_pause = false;
    script.steps = {{.act = Act::bind},
                    {.act = Act::connect_datagram},
                    {.when = When::open, .who = 2, .act = Act::send_copy, .a = 355},
                    {.when = When::open, .who = 1, .act = Act::limits, .a = 123}};
    EXPECT_EQ(broken_by(script), "");
}

// A small slice of a large block waits for a full device and is moved into a block of its own meanwhile: the device must know that
// memory, too.
TEST(FoundBySimulation, WhatMovesWhileItWaitsToBeSentHasAKeyWhenItIsSent) {
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
        Script script;
        script.net.seed = seed;
        script.net.clog = 900;
        script.steps = {{.act = Act::listen},
                        {.act = Act::connect},
                        {.when = When::open, .who = 1, .act = Act::send_copy, .a = 60'000},
                        {.when = When::sent, .who = 1, .act = Act::send_shared, .a = 100, .b = 60'000}};
        EXPECT_EQ(broken_by(script), "") << "seed " << seed;
    }
}

// The same, when the connection has been told to end behind what it sends: the device goes on by itself.
TEST(FoundBySimulation, WhatDrainsIsNotMovedToMemoryWithoutAKey) {
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
        Script script;
        script.net.seed = seed;
        script.net.clog = 900;
        script.steps = {{.act = Act::listen},
                        {.act = Act::connect},
                        {.when = When::open, .who = 1, .act = Act::send_copy, .a = 60'000},
                        {.when = When::sent, .who = 1, .act = Act::send_shared, .a = 100, .b = 60'000},
                        {.when = When::sent, .who = 1, .act = Act::shutdown}};
        EXPECT_EQ(broken_by(script), "") << "seed " << seed;
    }
}

// An empty message behind one whose memory the device does not know yet.
TEST(FoundBySimulation, AnEmptyMessageDoesNotHideTheOneBeforeItFromRegistration) {
    Script script;
    script.steps = {{.act = Act::listen, .a = 1},
                    {.act = Act::connect, .a = 1},
                    {.when = When::open, .who = 1, .act = Act::send_wrapped, .a = 25},
                    {.when = When::open, .who = 1, .act = Act::send_empty}};
    EXPECT_EQ(broken_by(script), "");
}

}  // namespace
}  // namespace evpl::sim_test
