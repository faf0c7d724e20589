#pragma once

// Where the lab's RDMA devices are, and what its shell does.

#include <cstdlib>
#include <string>

#include "evpl/loop.hpp"
#include "support/patience.hpp"

namespace evpl::test {

inline std::string address(const char* variable) {
    const char* value = std::getenv(variable);
    return value != nullptr ? value : "";
}

/// Runs a command line; its exit status.
inline int run(const std::string& line) { return std::system((line + " >/dev/null 2>&1").c_str()); }

/// Loops of tests sleep at once, and what is slow in an emulated machine is no stall.
inline LoopOptions quiet() {
    LoopOptions options;
    options.mode = Mode::event;
    options.stall = 60_s;
    return options;
}

/// An address of a device to listen at, and how to connect from the other end of the cable where there is one.
struct Devices {
    std::string here = address("EVPL_TEST_RDMA_ADDRESS"), there = address("EVPL_TEST_RDMA_PEER_ADDRESS");
    bool present() const { return !here.empty(); }
    /// The address that clients come from.
    const std::string& source() const { return there.empty() ? here : there; }
};

}  // namespace evpl::test
