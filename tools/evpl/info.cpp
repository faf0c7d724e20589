#include "info.hpp"

#include <string>
#include <utility>

#include <fmt/format.h>
#include <evpl/transport_info.hpp>
#include <evpl/version.hpp>
#include <nlohmann/json.hpp>

#include "text.hpp"

namespace tool {
namespace {

const char* name_of(evpl::Kind kind) { return kind == evpl::Kind::stream ? "stream" : kind == evpl::Kind::message ? "message" : "datagram"; }

/// Capabilities in the words of transport_info.hpp.
constexpr std::pair<const char*, bool evpl::Caps::*> abilities[] = {
    {"half_close", &evpl::Caps::half_close},
    {"receive_pause", &evpl::Caps::receive_pause},
    {"rma", &evpl::Caps::rma},
    {"descriptors", &evpl::Caps::descriptors},
    {"credentials", &evpl::Caps::credentials},
    {"multicast", &evpl::Caps::multicast},
    {"segmentation", &evpl::Caps::segmentation},
    {"zero_copy_send", &evpl::Caps::zero_copy_send},
    {"zero_copy_receive", &evpl::Caps::zero_copy_receive},
    {"simulated_time", &evpl::Caps::simulated_time},
    {"remote_tells", &evpl::Caps::remote_tells},
    {"remote_atomics", &evpl::Caps::remote_atomics},
    {"remote_invalidate", &evpl::Caps::remote_invalidate},
};
constexpr std::pair<const char*, std::uint32_t evpl::Caps::*> limits[] = {
    {"message_bytes_max", &evpl::Caps::message_bytes_max}, {"inline_bytes_max", &evpl::Caps::inline_bytes_max},
    {"copy_bytes_max", &evpl::Caps::copy_bytes_max},       {"private_data_bytes_max", &evpl::Caps::private_data_bytes_max},
    {"remote_reads_max", &evpl::Caps::remote_reads_max},
};

nlohmann::ordered_json json_of(const evpl::TransportInfo& one) {
    nlohmann::ordered_json caps{{"kind", name_of(one.caps.kind)}};
    for (const auto& [name, member] : abilities) caps[name] = one.caps.*member;
    for (const auto& [name, member] : limits) caps[name] = one.caps.*member;
    return {{"scheme", one.scheme}, {"summary", one.summary}, {"present", one.present}, {"reason", one.reason}, {"remedy", one.remedy}, {"caps", caps}};
}

std::string abilities_text(const evpl::Caps& caps) {
    std::string text = name_of(caps.kind);
    for (const auto& [name, member] : abilities)
        if (caps.*member) text += fmt::format(", {}", name);
    return text;
}

std::string limits_text(const evpl::Caps& caps) {
    std::string text;
    const auto add = [&text](std::string_view what, std::uint32_t bytes) {
        if (bytes > 0) text += fmt::format("{}{} up to {}", text.empty() ? "" : ", ", what, size_text(bytes));
    };
    add("messages of", caps.message_bytes_max);
    add("inline", caps.inline_bytes_max);
    add("copied", caps.copy_bytes_max);
    return text;
}

void print_line(std::string_view what, std::string_view text) {
    if (!text.empty()) fmt::print("{:23}{:8} {}\n", "", what, text);
}

}  // namespace

int run_info(bool json) {
    if (json) {
        nlohmann::ordered_json all = nlohmann::ordered_json::array();
        for (const evpl::TransportInfo& one : evpl::transports()) all.push_back(json_of(one));
        const nlohmann::ordered_json document{{"version", evpl::version()}, {"transports", all}};
        fmt::print("{}\n", document.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
        return 0;
    }
    fmt::print("evpl {}\n", evpl::version());
    for (const evpl::TransportInfo& one : evpl::transports()) {
        fmt::print("\n{:12}  {:7}  {}\n", one.scheme, one.present ? "present" : "absent", one.summary);
        print_line(one.present ? "found:" : "reason:", one.reason);
        print_line("remedy:", one.remedy);
        if (!one.present) continue;
        print_line("can:", abilities_text(one.caps));
        print_line("limits:", limits_text(one.caps));
    }
    return 0;
}

}  // namespace tool
