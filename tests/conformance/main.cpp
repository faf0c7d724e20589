// The conformance suite: what every transport promises, by kind and capability, through the public headers alone.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>

#include "support/helper.hpp"
#include "support/watchdog.hpp"
#include "support/world.hpp"

namespace {

/// A device and its connection manager stay open as long as the process: opened before descriptors are counted.
void open_devices() {
    using namespace evpl::test;
    for (const Row& row : rows) {
        if (std::string_view(row.url).find('$') == std::string_view::npos || row.kind == evpl::Kind::datagram || absence(row)) continue;
        Peer server, client;
        World world{row, World::quiet(), World::Check::by_caller};
        if (!world.open(server, client)) std::fprintf(stderr, "%s: the first connection failed\n", row.url);
        return;
    }
}

void show_log(void*, evpl::LogLevel, std::string_view line) { std::fprintf(stderr, "%.*s\n", int(line.size()), line.data()); }

}  // namespace

int main(int argc, char** argv) {
    if (const auto code = evpl::test::run_as_helper(argc, argv)) return *code;
    testing::InitGoogleTest(&argc, argv);
    evpl::test::keep_watch();
    if (std::getenv("EVPL_TEST_LOG") != nullptr) evpl::set_log(&show_log, nullptr, evpl::LogLevel::debug);
    open_devices();
    return RUN_ALL_TESTS();
}
