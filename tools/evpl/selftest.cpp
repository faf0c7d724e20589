#include "selftest.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <map>
#include <optional>
#include <vector>

#include <fmt/format.h>
#include <evpl/config.hpp>
#include <nlohmann/json.hpp>

#include "text.hpp"

extern char** environ;

namespace tool {
namespace {

struct Peer {
    std::string address, port;
};

/// HOST:PORT, with or without a scheme, as an IPv4 address. Empty with a sentence in `why`.
std::optional<Peer> resolve(std::string text, std::string& why) {
    if (const std::size_t scheme = text.find("://"); scheme != std::string::npos) text.erase(0, scheme + 3);
    const std::size_t colon = text.rfind(':');
    if (colon == std::string::npos || colon == 0 || colon + 1 == text.size()) return why = text + " is not HOST:PORT", std::nullopt;
    const std::string host = text.substr(0, colon), port = text.substr(colon + 1);
    addrinfo hints{};
    hints.ai_family = AF_INET;
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    if (const int failed = getaddrinfo(host.c_str(), port.c_str(), &hints, &found); failed != 0)
        return why = fmt::format("{}: {}", text, gai_strerror(failed)), std::nullopt;
    char address[INET_ADDRSTRLEN] = "";
    const auto* const name = reinterpret_cast<const sockaddr_in*>(found->ai_addr);
    inet_ntop(AF_INET, &name->sin_addr, address, sizeof address);
    const Peer peer{address, std::to_string(ntohs(name->sin_port))};
    freeaddrinfo(found);
    return peer;
}

/// The value of a setting; empty: nobody set it.
std::string setting(const std::string& name) {
    std::pair<std::string, std::string> wanted{name, ""};
    evpl::Config::describe(
        [](void* context, const evpl::ConfigValue& one) {
            auto& [key, value] = *static_cast<std::pair<std::string, std::string>*>(context);
            if (one.name == key && one.origin != evpl::ConfigOrigin::built_in) value = one.value;
        },
        &wanted);
    return wanted.second;
}

struct Asked {
    std::string id, state, text, why_not;
    std::string verdict = "not asked";  ///< same, differs, unseen, not asked
    std::string seen;
};

/// What the probe wrote, and how it ended.
struct Report {
    std::vector<Asked> rules;
    std::string found;    ///< the library and its table
    std::string failure;  ///< why it could not be asked
    std::string at;       ///< what was under way last
    bool complete = false;
};

std::vector<std::string> fields_of(const std::string& line) {
    std::vector<std::string> fields;
    for (std::size_t at = 0; at <= line.size();) {
        const std::size_t tab = std::min(line.find('\t', at), line.size());
        fields.push_back(line.substr(at, tab - at));
        at = tab + 1;
    }
    fields.resize(std::max<std::size_t>(fields.size(), 5));
    return fields;
}

void take_line(Report& report, const std::string& line) {
    const std::vector<std::string> fields = fields_of(line);
    const std::string& what = fields[0];
    if (what == "rule") report.rules.push_back({fields[1], fields[2], fields[3], fields[4], "not asked", ""});
    else if (what == "found") report.found = fields[1];
    else if (what == "fail") report.failure = fields[1];
    else if (what == "begin") report.at = fields[1];
    else if (what == "end") report.complete = true;
    else
        for (Asked& rule : report.rules)
            if (rule.id == fields[1]) rule.verdict = what, rule.seen = fields[2];
}

std::string ending(int status) {
    if (WIFSIGNALED(status)) return WTERMSIG(status) == SIGALRM ? "took too long" : fmt::format("crashed (signal {})", WTERMSIG(status));
    return fmt::format("ended the process (status {})", WEXITSTATUS(status));
}

/// Runs the probe and reads what it writes. The library's own lines go to standard error.
bool ask(const std::string& probe, const std::string& library, const Peer& peer, Report& report) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) return false;
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    setenv("XLIO_TRACELEVEL", "1", 0);
    std::string words[] = {probe, "--rules", library, peer.address, peer.port};
    char* arguments[6] = {};
    std::transform(std::begin(words), std::end(words), arguments, [](std::string& word) { return word.data(); });
    pid_t child = -1;
    const int failed = posix_spawn(&child, probe.c_str(), &actions, nullptr, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    ::close(ends[1]);
    FILE* const out = fdopen(ends[0], "r");
    if (failed != 0 || out == nullptr) return false;
    char* line = nullptr;
    std::size_t room = 0;
    while (getline(&line, &room, out) > 0) take_line(report, std::string(line, std::strcspn(line, "\n")));
    std::free(line);
    std::fclose(out);
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {}
    if (report.complete || !report.failure.empty()) return true;
    const auto rule = std::find_if(report.rules.begin(), report.rules.end(), [&](const Asked& one) { return one.id == report.at; });
    report.failure = fmt::format("the library {} at: {}", ending(status), report.at);
    if (rule != report.rules.end()) rule->verdict = "differs", rule->seen = ending(status);
    return true;
}

std::map<std::string, unsigned> counts(const Report& report) {
    std::map<std::string, unsigned> found{{"same", 0}, {"differs", 0}, {"unseen", 0}, {"not asked", 0}};
    for (const Asked& rule : report.rules) ++found[rule.verdict];
    return found;
}

void print_json(const Report& report) {
    nlohmann::ordered_json rules = nlohmann::ordered_json::array();
    for (const Asked& rule : report.rules)
        rules.push_back(
            {{"rule", rule.id}, {"text", rule.text}, {"state", rule.state}, {"verdict", rule.verdict}, {"seen", rule.seen}, {"why_not", rule.why_not}});
    const nlohmann::ordered_json document{{"library", report.found}, {"failure", report.failure}, {"counts", counts(report)}, {"rules", rules}};
    fmt::print("{}\n", document.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
}

void print_text(const Report& report) {
    if (!report.found.empty()) fmt::print("{}\n\n", report.found);
    for (const Asked& rule : report.rules) {
        fmt::print("{:9}  {:20} {}\n", rule.verdict, rule.id, rule.text);
        if (!rule.seen.empty() && rule.verdict != "same") fmt::print("{:32}seen: {}\n", "", rule.seen);
        if (rule.verdict == "not asked" && !rule.why_not.empty()) fmt::print("{:32}{}\n", "", rule.why_not);
    }
    auto found = counts(report);
    fmt::print("\n{} as believed, {} different, {} not seen, {} not asked\n", found["same"], found["differs"], found["unseen"], found["not asked"]);
}

}  // namespace

int run_selftest(const SelftestOptions& options) {
    std::string why;
    const auto peer = resolve(options.xlio, why);
    if (!peer) return fail(why);
    const std::string set_probe = setting("xlio.probe"), set_library = setting("xlio.library");
    const std::string probe = set_probe.empty() ? EVPL_XLIO_PROBE : set_probe;
    if (::access(probe.c_str(), X_OK) != 0) return fail(fmt::format("{} is not there: it asks the library; name it with EVPL_XLIO_PROBE", probe));
    Report report;
    if (!ask(probe, set_library.empty() ? "libxlio.so.3" : set_library, *peer, report))
        return fail(fmt::format("{} cannot be started: {}", probe, std::strerror(errno)));
    if (options.json) print_json(report);
    else print_text(report);
    std::fflush(stdout);
    if (!report.failure.empty()) return fail(report.failure);
    return counts(report)["differs"] > 0 ? exit_failure : 0;
}

}  // namespace tool
