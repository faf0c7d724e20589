#pragma once

#include <span>
#include <string_view>

#include "base/option.hpp"
#include "evpl/endpoint.hpp"
#include "evpl/result.hpp"

namespace evpl::transport {

using base::OptionSpec;

/// Reads the endpoint's whole query into the targets of `specs`. What it does not name comes from the configuration
/// (`<scheme>.<name>`), and else keeps its default. Errors: unknown_option, bad_option (also for an option given twice, and for a
/// wrong value in the configuration), with a sentence in `why`; targets of options that stand before the bad one are set already.
/// Thread: any. Cost: options times specs; no allocation.
Result<void> read_options(const Endpoint& endpoint, std::span<const OptionSpec> specs, Diagnostic& why) noexcept;

/// While one lives, read_options on this thread reads nothing: it shows the table it was called with, and fails with `cancelled`.
/// So the configuration learns which options a scheme has, from the only place that says it.
class OptionListing {
public:
    using Show = void (*)(void* context, std::span<const OptionSpec> specs);
    OptionListing(Show show, void* context) noexcept;
    ~OptionListing();
    OptionListing(const OptionListing&) = delete;
    OptionListing& operator=(const OptionListing&) = delete;

private:
    friend Result<void> read_options(const Endpoint&, std::span<const OptionSpec>, Diagnostic&) noexcept;
    Show show_;
    void* context_;
};

/// The group of settings whose values a scheme takes besides its own: that of the kernel transport with the same wire format.
/// "tcp" for stream, uring and xlio; empty: none.
std::string_view shared_group_of(std::string_view scheme) noexcept;

}  // namespace evpl::transport
