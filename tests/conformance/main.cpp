// The conformance suite: what every transport promises, by kind and capability, through the public headers alone.
#include <gtest/gtest.h>

#include "support/helper.hpp"
#include "support/watchdog.hpp"

int main(int argc, char** argv) {
    if (const auto code = evpl::test::run_as_helper(argc, argv)) return *code;
    testing::InitGoogleTest(&argc, argv);
    evpl::test::keep_watch();
    return RUN_ALL_TESTS();
}
