// RDMA beyond what every transport promises: faults of the wire and the device, peers that are not ours. Runs where a device is
// (make lab); elsewhere each test is skipped.
#include <gtest/gtest.h>

#include "support/watchdog.hpp"

int main(int argc, char** argv) {
    testing::InitGoogleTest(&argc, argv);
    evpl::test::keep_watch();
    return RUN_ALL_TESTS();
}
