#include "perf.hpp"

#include <unistd.h>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <optional>

#include <fmt/format.h>
#include <evpl/endpoint.hpp>
#include <evpl/thread.hpp>
#include <evpl/transport_info.hpp>
#include <nlohmann/json.hpp>

#include "echo.hpp"
#include "report.hpp"
#include "text.hpp"

namespace tool {
namespace {

constexpr std::uint32_t default_size = 64;
constexpr std::uint32_t stream_size = 64 << 10;
constexpr std::uint32_t packet_size = 1400;  // what fits an Ethernet frame with room for headers of tunnels
/// Connections that `--all` makes per transport: enough for a figure, and far from the 28,000 ports a machine has for
/// them.
constexpr std::uint64_t overview_connects = 4000;

/// Decides what the command line left open.
Plan plan_of(const PerfOptions& options, Test test, const std::string& url) {
    const bool packets = is_datagram(url);
    Plan plan;
    plan.url = url;
    plan.test = test;
    plan.size = test != Test::stream ? default_size : packets ? packet_size : stream_size;
    plan.depth = test == Test::rate ? 64 : test == Test::stream ? (packets ? 64 : 16) : 1;
    if (options.rate > 0 && packets) plan.depth = 1024;
    if (options.size > 0) plan.size = options.size;
    if (options.depth > 0) plan.depth = options.depth;
    plan.connections = options.connections;
    plan.threads = std::min(options.threads, options.connections);
    plan.seconds = options.seconds;
    plan.count = options.count;
    plan.warmup_s = options.warmup_s >= 0 ? options.warmup_s : options.count > 0 ? 0 : std::min(0.2, options.seconds / 5);
    plan.rate = options.rate;
    plan.seed = options.seed;
    plan.mode = options.mode;
    plan.progress = options.progress;
    return plan;
}

/// The JSON file, opened before anything is measured: a wrong path must not cost a run.
class JsonOutput {
public:
    /// False: it cannot be written, and that was said.
    bool open(const std::string& path) {
        path_ = path;
        if (path.empty()) return true;
        file_ = path == "-" ? stdout : std::fopen(path.c_str(), "we");
        if (file_ == nullptr) fail(fmt::format("cannot write {}: {}", path, std::strerror(errno)));
        return file_ != nullptr;
    }
    bool to_stdout() const { return path_ == "-"; }
    bool write(const nlohmann::ordered_json& document) {
        if (file_ == nullptr) return true;
        fmt::print(file_, "{}\n", document.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
        const bool good = std::fflush(file_) == 0;
        if (!good) fail(fmt::format("cannot write {}: {}", path_, std::strerror(errno)));
        if (!to_stdout()) std::fclose(file_);
        file_ = nullptr;
        return good;
    }

private:
    std::string path_;
    std::FILE* file_ = nullptr;
};

/// What the options say that no measurement can do; empty when all is well.
std::string refusal(const PerfOptions& options, const std::vector<Test>& tests) {
    if (!is_datagram(options.url)) return {};
    if (options.size > 0 && options.size < 8) return fmt::format("--size {}: a datagram carries its number, so 8 bytes are the least", options.size);
    for (const Test test : tests)
        if (test == Test::connect) return fmt::format("--test connect: {} has no connections", options.url);
    return {};
}

std::vector<Test> tests_of(const std::string& name) {
    for (const Test test : {Test::latency, Test::rate, Test::stream, Test::connect})
        if (name == name_of(test)) return {test};
    return {Test::latency, Test::rate};
}

std::string transport_of(const std::string& url) { return url.substr(0, url.find("://")); }

int run_against_server(const PerfOptions& options) {
    const std::vector<Test> tests = tests_of(options.test);
    evpl::Diagnostic why;
    if (!evpl::Endpoint::parse(options.url, &why)) return fail(fmt::format("--connect {}: {}", options.url, why.view())), exit_usage;
    if (const std::string no = refusal(options, tests); !no.empty()) return fail(no), exit_usage;
    JsonOutput json;
    if (!json.open(options.json)) return exit_failure;
    if (!json.to_stdout()) fmt::print("{}\n", machine_text());

    std::vector<Cell> cells;
    int status = 0;
    for (const Test test : tests) {
        const Plan plan = plan_of(options, test, options.url);
        cells.push_back({transport_of(options.url), plan, measure(plan)});
        const bool good = cells.back().outcome.failure.empty();
        if (!json.to_stdout() && (good || cells.back().outcome.messages() > 0)) print_cell(cells.back());
        if (!good) {
            std::fflush(stdout);
            status = fail(cells.back().outcome.failure);
            break;
        }
    }
    if (!json.write(json_of(options, cells, {}))) return exit_failure;
    return status;
}

/// Where a server of this process can listen without disturbing anybody.
std::string local_url(const std::string& scheme) {
    if (scheme == "inproc") return fmt::format("inproc://evpl-perf-{}", getpid());
    if (scheme.ends_with("unix")) return fmt::format("{}://@evpl-perf-{}", scheme, getpid());
    return scheme + "://127.0.0.1:0";
}

/// A server on its own thread; this thread is the client.
class LocalServer {
public:
    /// Empty when it serves, else why not.
    std::string start(const std::string& url, evpl::Mode mode) {
        evpl::ThreadOptions options;
        options.loop.mode = mode;
        options.name = "evpl-server";
        auto thread = evpl::Thread::start(options);
        if (!thread) return text_of(thread.error());
        thread_ = *std::move(thread);
        std::string failure = "its thread has ended";
        thread_.run([&, this] {
            const auto opened = service_.open(thread_.loop(), url);
            failure = opened ? "" : reason_of(thread_.loop(), opened.error());
        });
        return failure;
    }
    ~LocalServer() {
        if (thread_) thread_.run([this] { service_.close(); });
    }
    const std::string& url() const { return service_.url(); }

private:
    EchoService service_;
    evpl::Thread thread_;
};

void show_step(const PerfOptions& options, const std::string& scheme, const char* test) {
    if (options.progress && isatty(STDERR_FILENO) != 0)
        fmt::print(stderr, "\r\033[K{}", scheme.empty() ? "" : fmt::format("measuring {}: {} ...", scheme, test));
}

/// All cells of one transport.
std::vector<Cell> measure_transport(const PerfOptions& options, const std::string& scheme, const std::string& url) {
    std::vector<Cell> cells;
    for (const Test test : {Test::latency, Test::rate, Test::stream, Test::connect}) {
        if (test == Test::connect && is_datagram(url)) continue;
        Plan plan = plan_of(options, test, url);
        plan.progress = false;
        if (test == Test::connect) {
            plan.warmup_s = 0;
            plan.count = std::min(overview_connects, std::uint64_t(1 + double(overview_connects) * options.seconds));
        }
        show_step(options, scheme, name_of(test));
        cells.push_back({scheme, plan, measure(plan)});
    }
    show_step(options, "", "");
    return cells;
}

int run_overview(const PerfOptions& options) {
    JsonOutput json;
    if (!json.open(options.json)) return exit_failure;
    const bool print = !json.to_stdout();
    std::vector<Plan> columns;
    for (const Test test : {Test::latency, Test::rate, Test::stream, Test::connect}) columns.push_back(plan_of(options, test, "tcp://"));
    const OverviewTable table(columns);
    if (print) {
        fmt::print(
            "{}\nOne echo server thread and one client thread exchange messages over each transport of this machine, "
            "{} per figure.\n\n",
            machine_text(), time_text(options.seconds * 1e9));
        table.print_header();
    }
    std::vector<Cell> cells;
    std::vector<Absent> absent;
    int status = 0;
    for (const evpl::TransportInfo& one : evpl::transports()) {
        if (one.caps.simulated_time) continue;  // its clock is not ours
        const std::string scheme(one.scheme);
        LocalServer server;
        std::string reason;
        if (!one.present) {
            reason = fmt::format("absent: {}", one.reason);
        } else if (const std::string why = server.start(local_url(scheme), options.mode); !why.empty()) {
            reason = fmt::format("failed: cannot listen on {}: {}", local_url(scheme), why);
            status = exit_failure;
        }
        if (!reason.empty()) {
            absent.push_back({scheme, reason});
            if (print) table.print_absent(absent.back());
            continue;
        }
        const std::vector<Cell> row = measure_transport(options, scheme, server.url());
        if (print) table.print_row(scheme, row);
        for (const Cell& cell : row)
            if (!cell.outcome.failure.empty()) status = exit_failure;
        cells.insert(cells.end(), row.begin(), row.end());
    }
    if (!json.write(json_of(options, cells, absent))) return exit_failure;
    if (status != 0) {
        std::fflush(stdout);
        for (const Cell& cell : cells)
            if (!cell.outcome.failure.empty()) fail(fmt::format("{} over {}: {}", name_of(cell.plan.test), cell.transport, cell.outcome.failure));
    }
    return status;
}

}  // namespace

int run_perf(const PerfOptions& options) {
    raise_descriptor_limit();
    return options.all ? run_overview(options) : run_against_server(options);
}

}  // namespace tool
