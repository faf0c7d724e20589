#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "evpl/result.hpp"

#pragma GCC visibility push(default)
namespace evpl {

/// One sentence about why a set-up call failed; names the input and what would be right.
struct Diagnostic {
    char text[256] = {};  ///< terminated; empty when nothing failed
    /// The sentence. Cost: looks for its end.
    std::string_view view() const noexcept { return std::string_view(text); }
};

/// A parsed endpoint URL: `scheme://host:port?name=value&name=value`, `unix:///path`, `unix://@name`, `inproc://name`.
/// Holds its own copy of the text; no allocation.
class Endpoint {
public:
    /// A longer URL is bad_endpoint. A path of a Unix socket has at most 108 bytes (unix(7)); host names at most 253 (RFC 1035).
    static constexpr std::size_t text_bytes_max = 480;

    Endpoint() noexcept = default;

    /// Errors: bad_endpoint, with a sentence in `why` (may be null). Whether the scheme exists and which options it has
    /// is decided when the endpoint is used. IP transports need a port; the host may be `*` (any address, both families).
    /// Thread: any. Cost: one pass.
    static Result<Endpoint> parse(std::string_view url, Diagnostic* why = nullptr) noexcept;

    /// "tcp", in lower case.
    std::string_view scheme() const noexcept { return part(scheme_); }
    /// Host name or address without brackets; for `unix` and `inproc` the whole path or name, percent-decoded.
    std::string_view host() const noexcept { return part(host_); }
    /// 0 when the URL names none.
    std::uint16_t port() const noexcept { return port_; }
    /// Whether the URL names a port, 0 included.
    bool has_port() const noexcept { return has_port_; }
    /// All of the query, without the question mark.
    std::string_view query() const noexcept { return part(query_); }
    /// The value of option `name`; a name without `=` has the value "". Null data when absent.
    std::string_view option(std::string_view name) const noexcept;

private:
    struct Part {
        std::uint16_t at = 0, size = 0;
    };
    std::string_view part(Part p) const noexcept { return {text_ + p.at, p.size}; }
    friend struct EndpointParser;

    char text_[text_bytes_max + 1] = {};
    Part scheme_, host_, query_;
    std::uint16_t port_ = 0;
    bool has_port_ = false;
};

}  // namespace evpl
#pragma GCC visibility pop
