#pragma once

#include <string>
#include <string_view>

namespace evpl::transport::xlio {

/// What speaks against loading the library here; empty: nothing.
struct Obstacle {
    std::string reason;
    std::string remedy;
    explicit operator bool() const noexcept { return !reason.empty(); }
};

/// What a machine and a process are asked. Tests give a folder of files, and an environment, of their own.
class Surroundings {
public:
    explicit Surroundings(std::string root = "/") : root_(std::move(root)) {}
    virtual ~Surroundings() = default;
    virtual const char* variable(const char* name) const;
    /// The interface is up and has an IP address.
    virtual bool has_address(const std::string& interface) const;
    /// RLIMIT_MEMLOCK in bytes; UINT64_MAX: unlimited.
    virtual unsigned long long memlock_bytes() const;
    const std::string& root() const { return root_; }

private:
    std::string root_;
};

/// Settings under which loading the library ends the process. Looked at always.
Obstacle dangerous_setting(const Surroundings& here);
/// No card, no device file, no address, no rights, too little memory that may be locked. Without these the library would be loaded in vain.
Obstacle missing_device(const Surroundings& here);

}  // namespace evpl::transport::xlio
