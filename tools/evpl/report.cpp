#include "report.hpp"

#include <sys/utsname.h>
#include <ctime>
#include <fstream>
#include <thread>

#include <fmt/format.h>
#include <evpl/version.hpp>
#include <nlohmann/json.hpp>

#include "text.hpp"

namespace tool {
namespace {

using Json = nlohmann::ordered_json;

constexpr double percents[] = {50, 90, 99, 99.9, 99.99, 99.999};

std::string cpu_name() {
    std::ifstream file("/proc/cpuinfo");
    for (std::string line; std::getline(file, line);) {
        const std::size_t colon = line.find(": ");
        if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
    }
    return "unknown CPU";
}

std::string kernel_name() {
    utsname names{};
    return uname(&names) == 0 ? fmt::format("{} {}", names.sysname, names.release) : "unknown kernel";
}

double megabytes_per_second(const Cell& cell) { return cell.outcome.per_second() * cell.plan.size / 1e6; }

std::string loss_text(const Outcome& outcome) {
    std::string text;
    const auto add = [&text](std::uint64_t n, std::string_view what) {
        if (n > 0) text += fmt::format("{}{} {}", text.empty() ? "" : ", ", grouped(n), what);
    };
    add(outcome.lost, "lost");
    add(outcome.late, "late or double");
    add(outcome.unsent, "due but not sent in time");
    add(outcome.retries, "waited for a free port");
    return text;
}

Json json_of(const Histogram& times) {
    Json json{{"min", times.min()}, {"mean", times.mean()}};
    for (const double p : percents) json[fmt::format("p{}", p)] = times.percentile(p);
    json["max"] = times.max();
    return json;
}

Json json_of(const Cell& cell) {
    const Plan& plan = cell.plan;
    const Outcome& outcome = cell.outcome;
    return {{"transport", cell.transport},
            {"url", plan.url},
            {"test", name_of(plan.test)},
            {"size_bytes", plan.size},
            {"depth", plan.depth},
            {"connections", plan.connections},
            {"threads", plan.threads},
            {"mode", name_of(plan.mode)},
            {"target_per_second", plan.rate},
            {"warmup_s", plan.warmup_s},
            {"seconds", outcome.seconds},
            {"messages", outcome.messages()},
            {"messages_per_second", outcome.per_second()},
            {"bytes_per_second", outcome.per_second() * plan.size},
            {"lost", outcome.lost},
            {"late", outcome.late},
            {"unsent", outcome.unsent},
            {"connect_retries", outcome.retries},
            {"time_ns", json_of(outcome.times)},
            {"error", outcome.failure}};
}

std::string now_text() {
    const std::time_t now = std::time(nullptr);
    char text[32];
    std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&now));
    return text;
}

}  // namespace

const char* name_of(Test test) noexcept {
    constexpr const char* names[] = {"latency", "rate", "stream", "connect"};
    return names[std::size_t(test)];
}

std::string machine_text() { return fmt::format("evpl {} on {} x {}, {}", evpl::version(), std::thread::hardware_concurrency(), cpu_name(), kernel_name()); }

std::string what_text(const Plan& plan) {
    const std::string size = size_text(plan.size);
    std::string text = plan.test == Test::connect ? fmt::format("connect, exchange {}, close, and again", size)
                       : plan.rate > 0            ? fmt::format("{} messages at {}/s, timed from when each was due to its echo", size, plan.rate)
                       : plan.depth == 1          ? fmt::format("one {} message at a time, timed from send to its echo", size)
                                                  : fmt::format("{} messages, up to {} in flight, each timed from send to its echo", size, plan.depth);
    if (plan.connections > 1) text += fmt::format(", on each of {} connections", grouped(plan.connections));
    if (plan.threads > 1) text += fmt::format(" in {} threads", plan.threads);
    return text;
}

void print_cell(const Cell& cell) {
    const Outcome& outcome = cell.outcome;
    fmt::print("\n{} over {}: {}\n", name_of(cell.plan.test), cell.transport, what_text(cell.plan));
    if (!outcome.failure.empty() && outcome.messages() == 0) return;
    const bool connects = cell.plan.test == Test::connect;
    fmt::print("  {} in {}: {}/s", counted(outcome.messages(), connects ? "connection" : "message"), time_text(outcome.seconds * 1e9),
               grouped(std::uint64_t(outcome.per_second())));
    if (!connects) fmt::print(", {:.1f} MB/s each way", megabytes_per_second(cell));
    const std::string loss = loss_text(outcome);
    fmt::print("{}{}\n", loss.empty() ? "" : "; ", loss);
    fmt::print("  {:>10}", "min");
    for (const double p : percents) fmt::print("{:>10}", fmt::format("p{}", p));
    fmt::print("{:>10}\n  {:>10}", "max", time_text(double(outcome.times.min())));
    for (const double p : percents) fmt::print("{:>10}", time_text(double(outcome.times.percentile(p))));
    fmt::print("{:>10}\n", time_text(double(outcome.times.max())));
    std::fflush(stdout);
}

OverviewTable::OverviewTable(const std::vector<Plan>& plans) : plans_(plans) {}

void OverviewTable::print_header() const {
    std::string above = fmt::format("{:10}", ""), below = fmt::format("{:10}", "transport");
    for (const Plan& plan : plans_) {
        switch (plan.test) {
        case Test::latency:
            above += fmt::format("  {:^38}", fmt::format("round trip, {} alone", size_text(plan.size)));
            below += fmt::format("  {:>8}{:>10}{:>10}{:>10}", "p50", "p99", "p99.9", "max");
            break;
        case Test::rate:
            above += fmt::format("  {:^22}", fmt::format("{}, {} in flight", size_text(plan.size), plan.depth));
            below += fmt::format("  {:>12}{:>10}", "messages/s", "p99");
            break;
        case Test::stream:
            above += fmt::format("  {:>13}", size_text(plan.size));
            below += fmt::format("  {:>13}", "MB/s each way");
            break;
        case Test::connect:
            above += fmt::format("  {:>10}", "connect");
            below += fmt::format("  {:>10}", "per second");
            break;
        }
    }
    fmt::print("{}\n{}\n", above, below);
    std::fflush(stdout);
}

void OverviewTable::print_row(const std::string& transport, const std::vector<Cell>& cells) const {
    std::string row = fmt::format("{:10}", transport), notes;
    const auto note = [&](std::string_view test, std::string_view text) {
        if (!text.empty()) notes += fmt::format("{:10}  {}: {}\n", "", test, text);
    };
    for (const Plan& plan : plans_) {
        const Cell* cell = nullptr;
        for (const Cell& one : cells)
            if (one.plan.test == plan.test) cell = &one;
        const bool good = cell != nullptr && cell->outcome.failure.empty();
        const auto percentile = [&](double p) { return good ? time_text(double(cell->outcome.times.percentile(p))) : "-"; };
        const auto number = [&](double n) { return good ? grouped(std::uint64_t(n)) : "-"; };
        switch (plan.test) {
        case Test::latency: row += fmt::format("  {:>8}{:>10}{:>10}{:>10}", percentile(50), percentile(99), percentile(99.9), percentile(100)); break;
        case Test::rate: row += fmt::format("  {:>12}{:>10}", number(good ? cell->outcome.per_second() : 0), percentile(99)); break;
        case Test::stream: row += fmt::format("  {:>13}", number(good ? megabytes_per_second(*cell) : 0)); break;
        case Test::connect: row += fmt::format("  {:>10}", number(good ? cell->outcome.per_second() : 0)); break;
        }
        if (cell == nullptr) continue;
        note(name_of(plan.test), good ? loss_text(cell->outcome) : cell->outcome.failure);
        if (good && cell->plan.size != plan.size) note(name_of(plan.test), what_text(cell->plan));
    }
    fmt::print("{}\n{}", row, notes);
    std::fflush(stdout);
}

void OverviewTable::print_absent(const Absent& absent) const {
    fmt::print("{:10}  {}\n", absent.transport, absent.reason);
    std::fflush(stdout);
}

Json json_of(const PerfOptions& options, const std::vector<Cell>& cells, const std::vector<Absent>& absent) {
    Json document{{"tool", "evpl perf"}, {"version", evpl::version()}, {"time", now_text()}};
    document["machine"] = {{"cpu", cpu_name()}, {"cpus", std::thread::hardware_concurrency()}, {"kernel", kernel_name()}};
    document["parameters"] = {{"connect", options.url},     {"all", options.all},      {"test", options.test},
                              {"size", options.size},       {"depth", options.depth},  {"connections", options.connections},
                              {"threads", options.threads}, {"time", options.seconds}, {"warmup", options.warmup_s},
                              {"count", options.count},     {"rate", options.rate},    {"mode", name_of(options.mode)},
                              {"seed", options.seed}};
    document["results"] = Json::array();
    for (const Cell& cell : cells) document["results"].push_back(json_of(cell));
    document["absent"] = Json::array();
    for (const Absent& one : absent) document["absent"].push_back({{"transport", one.transport}, {"reason", one.reason}});
    return document;
}

}  // namespace tool
