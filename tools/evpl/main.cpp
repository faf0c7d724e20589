// The command `evpl`: reads the command line; the work is done in info.cpp, config.cpp,
// doctor.cpp, echo.cpp, perf.cpp and selftest.cpp.
#include <unistd.h>
#include <algorithm>
#include <cstdio>
#include <exception>
#include <map>

#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <evpl/version.hpp>

#include "config.hpp"
#include "doctor.hpp"
#include "echo.hpp"
#include "info.hpp"
#include "perf.hpp"
#include "selftest.hpp"
#include "text.hpp"

namespace tool {
namespace {

/// A number from `least` to `most`. CLI::Range lets "nan" through.
CLI::Validator number(double least, double most) {
    const std::string range = fmt::format("{} to {}", least, most);
    return CLI::Validator(
        [=](std::string& text) {
            double value = 0;
            const bool good = CLI::detail::lexical_cast(text, value) && value >= least && value <= most;
            return good ? std::string() : fmt::format("{} is not a number from {}", text, range);
        },
        range, "number");
}

/// "64k" and "1M" besides plain numbers of bytes.
CLI::Validator size(std::uint64_t most) {
    return CLI::Validator(
        [most](std::string& text) {
            const std::size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
            const std::string unit = text.substr(digits);
            const int shift = unit.empty() ? 0 : unit == "k" || unit == "K" ? 10 : unit == "m" || unit == "M" ? 20 : -1;
            const std::uint64_t value = digits > 0 && digits < 10 && shift >= 0 ? std::stoull(text.substr(0, digits)) << shift : 0;
            if (value == 0 || value > most) return fmt::format("{} is not a size from 1 to {} bytes (64, 64k, 1M)", text, most);
            text = std::to_string(value);
            return std::string();
        },
        "BYTES", "size");
}

const std::map<std::string, evpl::Mode> modes{{"hybrid", evpl::Mode::hybrid}, {"poll", evpl::Mode::poll}, {"event", evpl::Mode::event}};

void add_mode(CLI::App& app, evpl::Mode& mode) {
    app.add_option("--mode", mode, "how loops wait: hybrid polls while that pays, poll never sleeps, event never spins")
        ->transform(CLI::CheckedTransformer(modes).description("hybrid|poll|event"))
        ->option_text("MODE");
}

struct InfoOptions {
    bool json = false;
    bool config = false;
};

void add_info(CLI::App& app, InfoOptions& options, int& status) {
    CLI::App* info = app.add_subcommand("info", "Show every transport: present or not, why, and what would change that");
    info->add_flag("--json", options.json, "print JSON");
    info->add_flag("--config", options.config, "show every setting instead: its value in force and where that comes from");
    info->callback([&options, &status] { status = options.config ? run_config(options.json) : run_info(options.json); });
}

void add_doctor(CLI::App& app, DoctorOptions& options, int& status) {
    CLI::App* doctor = app.add_subcommand("doctor", "Rate this machine's settings and name the command that mends each");
    doctor->add_flag("--json", options.json, "print JSON");
    doctor->add_option("--root", options.root, "look below this folder instead of /: for tests")->check(CLI::ExistingDirectory)->group("");
    doctor->callback([&options, &status] { status = run_doctor(options); });
}

void add_echo(CLI::App& app, EchoOptions& options, int& status) {
    CLI::App* echo = app.add_subcommand("echo", "Serve: send back what comes, until SIGTERM or SIGINT");
    echo->add_option("--listen", options.listen, "endpoint to listen on, for example tcp://127.0.0.1:7000; may be repeated")
        ->required()
        ->expected(1)
        ->take_all()
        ->option_text("URL");
    echo->add_option("--threads", options.threads, "threads that serve; with several, TCP listeners share their port")
        ->check(number(1, 1024))
        ->option_text("N (1)");
    add_mode(*echo, options.mode);
    echo->add_option("--pin", options.pin, "pin thread i to the i-th of these CPUs")->delimiter(',')->check(number(0, 4095))->option_text("CPU,...");
    echo->add_option("--drain", options.drain_s, "at the end, let peers finish for up to so many seconds")->check(number(0, 86400))->option_text("SECONDS (0)");
    echo->callback([&options, &status] { status = run_echo(options); });
}

void add_perf(CLI::App& app, PerfOptions& options, int& status) {
    CLI::App* perf = app.add_subcommand("perf", "Measure against `evpl echo`, or all transports of this machine");
    CLI::Option* all = perf->add_flag("--all", options.all, "measure every present transport against a server in this process");
    CLI::Option* connect = perf->add_option("--connect", options.url, "server to measure against")->option_text("URL")->excludes(all);
    const auto add = [&](const char* name, auto& value, const char* text, const char* shown) {
        return perf->add_option(name, value, text)->option_text(shown)->needs(connect);
    };
    add("--test", options.test, "latency, rate, stream or connect; without it: latency, then rate", "TEST")
        ->check(CLI::IsMember({"latency", "rate", "stream", "connect"}).description("latency|rate|stream|connect"));
    add("--size", options.size, "bytes of a message (64; stream 64k, datagrams 1400)", "BYTES")->transform(size(16u << 20));
    add("--depth", options.depth, "messages in flight per connection (latency 1, rate 64, stream 16)", "N")->check(number(1, 65536));
    add("--connections", options.connections, "connections", "N (1)")->check(number(1, 1000000));
    add("--threads", options.threads, "threads of this client", "N (1)")->check(number(1, 1024));
    perf->add_option("--time", options.seconds, "seconds to measure")->check(number(0.01, 86400))->option_text("SECONDS (1)");
    perf->add_option("--warmup", options.warmup_s, "seconds before that, not counted")->check(number(0, 3600))->option_text("SECONDS (0.2)");
    add("--count", options.count, "measure so many messages instead of a time", "N")->check(number(1, 1e15))->excludes("--time");
    add("--rate", options.rate, "send so many per second whatever comes back; times count from when a message was due", "N")->check(number(0.01, 1e9));
    add_mode(*perf, options.mode);
    perf->add_option("--json", options.json, "write results as JSON; - is standard output, instead of the table")->option_text("FILE");
    perf->add_option("--seed", options.seed, "of the bytes that are sent")->option_text("N (1)");
    perf->add_flag("--progress", options.progress, "show progress each second although standard error is no terminal");
    perf->callback([&options, &status, connect] {
        if (!options.all && connect->count() == 0) throw CLI::RequiredError("--connect URL or --all");
        options.progress = options.progress || isatty(STDERR_FILENO) != 0;
        status = run_perf(options);
    });
}

void add_selftest(CLI::App& app, SelftestOptions& options, int& status) {
    CLI::App* selftest = app.add_subcommand("selftest", "Ask a vendor's library whether it behaves as we believe");
    selftest->add_option("--xlio", options.xlio, "libxlio, by a connection to this echo server (IPv4; `evpl echo` on another host will do)")
        ->required()
        ->option_text("HOST:PORT");
    selftest->add_flag("--json", options.json, "print JSON");
    selftest->callback([&options, &status] { status = run_selftest(options); });
}

void add_help(CLI::App& app, std::string& topic) {
    CLI::App* help = app.add_subcommand("help", "Explain a command");
    help->add_option("command", topic, "info, doctor, echo, perf or selftest");
    help->callback([&app, &topic] {
        const auto found = app.get_subcommands([&topic](const CLI::App* one) { return one->get_name() == topic; });
        const CLI::App* about = topic.empty() ? &app : found.empty() ? nullptr : found.front();
        if (about == nullptr) throw CLI::ValidationError("help", "there is no command " + topic);
        const std::string name = topic.empty() ? app.get_name() : app.get_name() + " " + topic;
        fmt::print("{}", app.get_formatter()->make_help(about, name, CLI::AppFormatMode::Normal));
    });
}

/// CLI11's message as one line that begins like all of ours.
int refuse(const CLI::Error& error) {
    std::string text = error.what();
    std::replace(text.begin(), text.end(), '\n', ' ');
    fail(text.empty() ? "bad arguments" : text);
    return exit_usage;
}

int run(int argc, char** argv) {
    CLI::App app("evpl: what this machine's networks can do", "evpl");
    app.set_version_flag("--version", fmt::format("evpl {}", evpl::version()), "print the version");
    app.set_help_flag("-h,--help", "print this help");
    app.get_formatter()->column_width(32);
    app.footer("evpl help COMMAND tells more. A first look: evpl perf --all");
    int status = 0;
    EchoOptions echo;
    PerfOptions perf;
    std::string topic;
    InfoOptions info;
    DoctorOptions doctor;
    SelftestOptions selftest;
    add_info(app, info, status);
    add_doctor(app, doctor, status);
    add_echo(app, echo, status);
    add_perf(app, perf, status);
    add_selftest(app, selftest, status);
    add_help(app, topic);
    app.require_subcommand(0, 1);  // none is for us to refuse: CLI11 would rather complain of that than of what it did not understand
    try {
        app.parse(argc, argv);
        if (app.get_subcommands().empty()) throw CLI::RequiredError("a command (info, doctor, echo, perf, selftest or help)");
    } catch (const CLI::Error& error) {
        return error.get_exit_code() == 0 ? app.exit(error) : refuse(error);
    }
    return status;
}

}  // namespace
}  // namespace tool

int main(int argc, char** argv) {
    try {
        return tool::run(argc, argv);
    } catch (const std::exception& error) {
        return tool::fail(error.what());
    }
}
