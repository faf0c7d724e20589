#pragma once

#include <string_view>

#include "evpl/result.hpp"
#include "transport/xlio/abi.hpp"

namespace evpl::transport::xlio {

/// What is there.
struct Support {
    bool present = false;
    std::string_view reason;
    std::string_view remedy;
};

/// Looks at the machine and loads the library at the first call. Thread: any. Cost: up to two seconds then, and a lock afterwards.
/// A failure is final for the process.
Support support() noexcept;

/// Initialises the library at the first call. Errors: transport_absent, for ever after a failure: the library itself would answer the second
/// call with success, and fall over later. Thread: any.
Result<const abi::Calls*> start() noexcept;

}  // namespace evpl::transport::xlio
