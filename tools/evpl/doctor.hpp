#pragma once

#include <string>

namespace tool {

struct DoctorOptions {
    bool json = false;
    /// Where /proc, /sys and the libraries are looked for. Another root than "/" is a picture of a machine, for tests: the answer
    /// of io_uring_setup(2) is then the number in its file io_uring_setup.
    std::string root = "/";
};

/// `evpl doctor`: what this machine's settings are worth to the library, and the command that mends each.
/// Status: 0, or exit_failure when something is rated a problem.
int run_doctor(const DoctorOptions& options);

}  // namespace tool
