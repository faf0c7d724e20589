#include "transport/options.hpp"

#include <algorithm>
#include <utility>

#include "base/settings.hpp"

namespace evpl::transport {

using base::refuse;

namespace {

constexpr std::size_t npos = std::string_view::npos;

thread_local OptionListing* listing = nullptr;

Error refuse_unknown(const Endpoint& endpoint, std::string_view name, std::span<const OptionSpec> specs, Diagnostic& why) noexcept {
    const std::string_view scheme = endpoint.scheme();
    if (specs.empty()) return refuse(why, Errc::unknown_option, "unknown option \"%.*s\": %.*s has no options", EVPL_SHOWN(name), EVPL_SHOWN(scheme));
    char names[128];
    base::list_names(specs, names, sizeof names);
    const std::string_view meant = base::nearest(name, specs);
    return refuse(why, Errc::unknown_option, "unknown option \"%.*s\"%s%.*s%s; %.*s has %s", EVPL_SHOWN(name), meant.empty() ? "" : ": did you mean ",
                  EVPL_SHOWN(meant), meant.empty() ? "" : "?", EVPL_SHOWN(scheme), names);
}

Error refuse_value(const OptionSpec& spec, std::string_view value, Diagnostic& why) noexcept {
    char range[120];
    base::describe_range(spec, range, sizeof range);
    return refuse(why, Errc::bad_option, "bad value \"%.*s\" of option %.*s: %s", EVPL_SHOWN(value), EVPL_SHOWN(spec.name), range);
}

Error read_item(const Endpoint& endpoint, std::string_view item, std::span<const OptionSpec> specs, Diagnostic& why) noexcept {
    const std::size_t equals = item.find('=');
    const std::string_view name = item.substr(0, equals);
    const std::string_view value = equals == npos ? std::string_view("") : item.substr(equals + 1);
    for (const OptionSpec& spec : specs) {
        if (spec.name != name) continue;
        // The first occurrence is what Endpoint::option finds: a later one with other data is a repetition.
        const bool is_bare = equals == npos;
        const std::string_view first = endpoint.option(name);
        const char* const here = is_bare ? item.data() + item.size() : value.data();
        if (first.data() != here)
            return refuse(why, Errc::bad_option, "option %.*s is given twice: give it once", int(std::min<std::size_t>(name.size(), 48)), name.data());
        const bool flag_without_value = spec.type == OptionSpec::Type::flag && !is_bare && value.empty();  // "nodelay=" says nothing
        return !flag_without_value && base::read_value(spec, value) ? Error{} : refuse_value(spec, value, why);
    }
    return refuse_unknown(endpoint, name, specs, why);
}

/// What the query leaves open, from the configuration.
Error read_setting(const Endpoint& endpoint, const OptionSpec& spec, Diagnostic& why) noexcept {
    if (endpoint.option(spec.name).data() != nullptr) return {};
    const base::Settings& settings = base::settings();
    const base::Setting* found = settings.find(endpoint.scheme(), spec.name);
    if (found == nullptr) found = settings.find(shared_group_of(endpoint.scheme()), spec.name);
    return found == nullptr || base::read_value(spec, found->value) ? Error{} : base::refuse_setting(*found, spec, why);
}

}  // namespace

OptionListing::OptionListing(Show show, void* context) noexcept : show_(show), context_(context) { listing = this; }
OptionListing::~OptionListing() { listing = nullptr; }

std::string_view shared_group_of(std::string_view scheme) noexcept {
    if (scheme == "stream" || scheme == "uring" || scheme == "xlio") return "tcp";
    if (scheme == "dgram" || scheme == "uring-udp") return "udp";
    return scheme == "uring-unix" ? "unix" : "";
}

Result<void> read_options(const Endpoint& endpoint, std::span<const OptionSpec> specs, Diagnostic& why) noexcept {
    if (listing != nullptr) {
        listing->show_(listing->context_, specs);
        return refuse(why, Errc::cancelled, "the options were listed");
    }
    std::string_view rest = endpoint.query();
    while (!rest.empty()) {
        const std::size_t end = rest.find('&');
        if (const Error error = read_item(endpoint, rest.substr(0, end), specs, why); !error.ok()) return error;
        rest = end == npos ? std::string_view{} : rest.substr(end + 1);
    }
    if (base::settings().empty()) return {};
    for (const OptionSpec& spec : specs)
        if (const Error error = read_setting(endpoint, spec, why); !error.ok()) return error;
    return {};
}

}  // namespace evpl::transport
