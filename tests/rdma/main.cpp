// RDMA beyond what every transport promises: faults of the wire and the device, peers that are not ours. On a device where one is named (make lab),
// elsewhere over the double of the vendor's libraries; a test that needs the other is skipped.
#include <gtest/gtest.h>

#include <cstdlib>

#include "support/watchdog.hpp"

int main(int argc, char** argv) {
#ifdef VERBS_DOUBLE_PATH
    if (std::getenv("EVPL_TEST_RDMA_ADDRESS") == nullptr) ::setenv("EVPL_RDMA_LIBRARY", VERBS_DOUBLE_PATH, 1);
#endif
    testing::InitGoogleTest(&argc, argv);
    evpl::test::keep_watch();
    return RUN_ALL_TESTS();
}
