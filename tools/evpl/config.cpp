#include "config.hpp"

#include <string>
#include <vector>

#include <fmt/format.h>
#include <evpl/config.hpp>
#include <nlohmann/json.hpp>

#include "text.hpp"

namespace tool {
namespace {

struct Row {
    std::string name, value, help, range, origin, where;
};

std::vector<Row> all_settings() {
    std::vector<Row> rows;
    evpl::Config::describe(
        [](void* context, const evpl::ConfigValue& one) {
            static_cast<std::vector<Row>*>(context)->push_back({std::string(one.name), std::string(one.value), std::string(one.help), std::string(one.range),
                                                                evpl::name_of(one.origin), std::string(one.where)});
        },
        &rows);
    return rows;
}

std::vector<std::pair<std::string, std::string>> all_faults() {
    std::vector<std::pair<std::string, std::string>> faults;
    evpl::Config::faults(
        [](void* context, const evpl::ConfigFault& one) {
            static_cast<decltype(faults)*>(context)->emplace_back(evpl::name_of(one.error.code()), std::string(one.sentence));
        },
        &faults);
    return faults;
}

std::string variable_of(const std::string& name) {
    std::string text = "EVPL_";
    for (const char c : name) text += c == '.' || c == '-' ? '_' : char(std::toupper(static_cast<unsigned char>(c)));
    return text;
}

}  // namespace

int run_config(bool json) {
    const std::vector<Row> rows = all_settings();
    const auto faults = all_faults();
    if (json) {
        nlohmann::ordered_json settings = nlohmann::ordered_json::array(), wrong = nlohmann::ordered_json::array();
        for (const Row& row : rows)
            settings.push_back({{"name", row.name},
                                {"variable", variable_of(row.name)},
                                {"value", row.value},
                                {"origin", row.origin},
                                {"where", row.where},
                                {"help", row.help},
                                {"range", row.range}});
        for (const auto& [code, sentence] : faults) wrong.push_back({{"code", code}, {"sentence", sentence}});
        const nlohmann::ordered_json document{{"settings", settings}, {"faults", wrong}};
        fmt::print("{}\n", document.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
    } else {
        for (const Row& row : rows)
            fmt::print("{:27} {:12} {:8} {}\n", row.name, row.value.empty() ? "-" : row.value, row.origin, row.where.empty() ? row.help : row.where);
    }
    std::fflush(stdout);
    for (const auto& [code, sentence] : faults) fail(sentence);
    return faults.empty() ? 0 : exit_failure;
}

}  // namespace tool
