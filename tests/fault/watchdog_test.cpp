// Goal: a test that hangs fails, with its name and the stacks of all threads. Method: this program runs itself with a test that hangs.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <string>
#include <thread>

#include "support/helper.hpp"

namespace evpl::test {
namespace {

// Only ever run by the test below.
TEST(WatchdogTest, DISABLED_HangsInTwoThreads) {
    std::thread other([] { pause(); });
    pause();
    other.join();
}

TEST(WatchdogTest, AHangingTestFailsWithTheStacksOfAllThreads) {
    const std::string command = "env -u GTEST_TOTAL_SHARDS -u GTEST_SHARD_INDEX EVPL_WATCHDOG_S=1 '" + own_path() +
                                "' --gtest_also_run_disabled_tests --gtest_filter=WatchdogTest.DISABLED_HangsInTwoThreads 2>&1";
    FILE* output = popen(command.c_str(), "r");
    ASSERT_NE(output, nullptr);
    std::string text;
    for (char line[1000]; std::fgets(line, sizeof line, output) != nullptr;) text += line;
    const int status = pclose(output);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 1) << status;
    EXPECT_NE(text.find("WATCHDOG: WatchdogTest.DISABLED_HangsInTwoThreads takes too long"), std::string::npos) << text;
    unsigned stacks = 0;
    for (std::size_t at = text.find("--\n"); at != std::string::npos; at = text.find("--\n", at + 1)) ++stacks;
    EXPECT_GE(stacks, 2u) << text;
}

}  // namespace
}  // namespace evpl::test
