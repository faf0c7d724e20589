// Faults at the level of processes: what the kernel, other programs and the name service may do to a program that uses
// evpl.
#include <gtest/gtest.h>

#include "support/helper.hpp"
#include "support/watchdog.hpp"

int main(int argc, char** argv) {
    if (const auto code = evpl::test::run_as_helper(argc, argv)) return *code;
    testing::InitGoogleTest(&argc, argv);
    evpl::test::keep_watch();
    return RUN_ALL_TESTS();
}
