#pragma once

#include <string>

namespace tool {

struct SelftestOptions {
    std::string xlio;  ///< the peer: HOST:PORT or a URL of an echo server
    bool json = false;
};

/// `evpl selftest --xlio PEER`: asks libxlio whether it behaves as the backend believes, in a process of its own (evpl-xlio-probe).
/// Status: 0 when nothing differs, exit_failure when something does, or when the library could not be asked.
int run_selftest(const SelftestOptions& options);

}  // namespace tool
