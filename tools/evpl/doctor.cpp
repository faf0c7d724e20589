#include "doctor.hpp"

#include <sys/syscall.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <vector>

#include <fmt/format.h>
#include <evpl/transport_info.hpp>
#include <nlohmann/json.hpp>

#include "text.hpp"

namespace tool {
namespace {

namespace fs = std::filesystem;

/// `unknown` does not count: the machine lacks the file, or the thing.
enum class Rating { unknown, ok, better, problem };

const char* name_of(Rating rating) {
    switch (rating) {
    case Rating::unknown: return "not known";
    case Rating::ok: return "ok";
    case Rating::better: return "could be better";
    case Rating::problem: return "problem";
    }
    return "";
}

struct Finding {
    std::string topic, item, value;
    Rating rating = Rating::unknown;
    std::string why;      ///< what the value means; may be empty when it is ok
    std::string command;  ///< what mends it; empty unless it could be better
};

/// The files of a machine, below its root. What is missing is empty; nothing throws.
class Machine {
public:
    explicit Machine(const std::string& root) : root_(root), real_(fs::path(root).lexically_normal() == "/") {}

    std::optional<std::string> line(const std::string& path) const {
        std::ifstream file(root_ / path);
        std::string text;
        if (!std::getline(file, text)) return std::nullopt;
        return text;
    }
    std::optional<std::int64_t> number(const std::string& path) const {
        const auto text = line(path);
        return text ? number_in(*text) : std::nullopt;
    }
    std::vector<std::string> lines(const std::string& path) const {
        std::ifstream file(root_ / path);
        std::vector<std::string> all;
        for (std::string text; all.size() < 100'000 && std::getline(file, text);) all.push_back(text);
        return all;
    }
    std::vector<std::string> names(const std::string& folder) const {
        std::vector<std::string> found;
        std::error_code ignored;
        for (fs::directory_iterator at(root_ / folder, ignored), end; !ignored && at != end; at.increment(ignored))
            found.push_back(at->path().filename().string());
        std::sort(found.begin(), found.end());
        return found;
    }
    bool has(const std::string& path) const {
        std::error_code ignored;
        return fs::exists(root_ / path, ignored);
    }
    bool is_real() const { return real_; }

    static std::optional<std::int64_t> number_in(const std::string& text) {
        try {
            return std::stoll(text);
        } catch (const std::exception&) {
            return std::nullopt;
        }
    }

private:
    fs::path root_;
    bool real_;
};

using Findings = std::vector<Finding>;

Finding unknown(std::string topic, std::string item, std::string why) { return {std::move(topic), std::move(item), "-", Rating::unknown, std::move(why), ""}; }

// -- limits of a process -------------------------------------------------------------------------------------------

struct Limit {
    std::int64_t soft = -1, hard = -1;  ///< INT64_MAX: unlimited
};

std::optional<Limit> limit_of(const Machine& machine, const std::string& name) {
    const auto value = [](const std::string& word) { return word == "unlimited" ? INT64_MAX : Machine::number_in(word).value_or(-1); };
    for (const std::string& line : machine.lines("proc/self/limits")) {
        if (!line.starts_with(name)) continue;
        std::istringstream rest(line.substr(name.size()));
        std::string soft, hard;
        if (!(rest >> soft >> hard) || value(soft) < 0 || value(hard) < 0) return std::nullopt;
        return Limit{value(soft), value(hard)};
    }
    return std::nullopt;
}

std::string amount(std::int64_t n) { return n == INT64_MAX ? "unlimited" : std::to_string(n); }

void look_at_descriptors(const Machine& machine, Findings& found) {
    const auto limit = limit_of(machine, "Max open files");
    if (!limit) return found.push_back(unknown("limits", "descriptors", "/proc/self/limits does not tell"));
    constexpr std::int64_t wanted = 16384;
    Finding one{"limits", "descriptors", fmt::format("{} (at most {})", amount(limit->soft), amount(limit->hard)), Rating::ok, "", ""};
    if (limit->soft < wanted) {
        one.rating = limit->soft < 1024 ? Rating::problem : Rating::better;
        one.why = "each connection takes one; at the limit listeners wait and connect answers too_many_files";
        one.command = limit->hard >= wanted ? fmt::format("ulimit -n {}", std::min<std::int64_t>(limit->hard, 65536))
                                            : "echo '* - nofile 65536' > /etc/security/limits.d/evpl.conf   # then log in anew; "
                                              "LimitNOFILE=65536 in a systemd unit";
    }
    found.push_back(one);
}

void look_at_memlock(const Machine& machine, Findings& found) {
    const auto limit = limit_of(machine, "Max locked memory");
    if (!limit) return found.push_back(unknown("limits", "memlock", "/proc/self/limits does not tell"));
    constexpr std::int64_t wanted = 64 << 20;
    const bool rdma = !machine.names("sys/class/infiniband").empty();
    Finding one{"limits", "memlock", limit->soft == INT64_MAX ? "unlimited" : size_text(std::uint64_t(limit->soft)), Rating::ok, "", ""};
    if (limit->soft < wanted) {
        one.rating = rdma ? Rating::problem : Rating::better;
        one.why = "memory registered with a device (RDMA, io_uring) is locked and counts against it";
        one.command =
            "echo '* - memlock unlimited' > /etc/security/limits.d/evpl-memlock.conf   # then log in anew; "
            "LimitMEMLOCK=infinity in a systemd unit";
    }
    found.push_back(one);
}

// -- sysctls -------------------------------------------------------------------------------------------------------

struct Sysctl {
    const char* name;       ///< net.core.somaxconn
    std::size_t field;      ///< of several numbers in the file
    std::int64_t good;      ///< from here: ok
    std::int64_t bearable;  ///< below: a problem
    const char* why;
    const char* set;  ///< the value that mends it
};
constexpr Sysctl sysctls[] = {
    {"net.core.somaxconn", 0, 4096, 128, "connections that wait to be accepted; beyond it the kernel drops them", "4096"},
    {"net.core.rmem_max", 0, 4 << 20, 0, "a udp socket asks for a receive buffer of 4 MiB and is given no more than this", "4194304"},
    {"net.core.wmem_max", 0, 212992, 0, "what ?sndbuf= may ask for; this is less than the kernel's own default", "212992"},
    {"net.ipv4.tcp_rmem", 2, 4 << 20, 0, "the largest window of a tcp connection: a long, fast path stays empty", "'4096 131072 6291456'"},
    {"net.ipv4.tcp_wmem", 2, 4 << 20, 0, "the largest send buffer of a tcp connection: a long, fast path stays empty", "'4096 16384 4194304'"},
};

std::string path_of(std::string name) {
    std::replace(name.begin(), name.end(), '.', '/');
    return "proc/sys/" + name;
}

void look_at_sysctl(const Machine& machine, const Sysctl& of, Findings& found) {
    const std::string text = machine.line(path_of(of.name)).value_or("");
    std::istringstream words(text);
    std::string word;
    for (std::size_t i = 0; i <= of.field; ++i)
        if (!(words >> word)) return found.push_back(unknown("sysctl", of.name, "this kernel or container does not show it"));
    const auto value = Machine::number_in(word);
    if (!value) return found.push_back(unknown("sysctl", of.name, "this is no number: " + word));
    Finding one{"sysctl", of.name, std::to_string(*value), Rating::ok, "", ""};
    if (*value < of.good) {
        one.rating = *value < of.bearable ? Rating::problem : Rating::better;
        one.why = of.why;
        one.command = fmt::format("sysctl -w {}={}", of.name, of.set);
    }
    found.push_back(one);
}

/// Cards, not the virtual devices of the kernel.
std::vector<std::string> cards(const Machine& machine) {
    std::vector<std::string> found;
    for (const std::string& name : machine.names("sys/class/net"))
        if (machine.has("sys/class/net/" + name + "/device")) found.push_back(name);
    return found;
}

void look_at_busy_poll(const Machine& machine, Findings& found) {
    const auto value = machine.number("proc/sys/net/core/busy_poll");
    if (!value) return found.push_back(unknown("sysctl", "net.core.busy_poll", "this kernel or container does not show it"));
    Finding one{"sysctl", "net.core.busy_poll", fmt::format("{} us", *value), Rating::ok, "", ""};
    if (*value <= 0 && !cards(machine).empty()) {
        one.rating = Rating::better;
        one.why = "a loop that waits in the kernel could poll the card instead of waiting for its interrupt";
        one.command = "sysctl -w net.core.busy_poll=50 net.core.busy_read=50";
    }
    found.push_back(one);
}

void look_at_congestion(const Machine& machine, Findings& found) {
    const auto name = machine.line("proc/sys/net/ipv4/tcp_congestion_control");
    if (!name) return found.push_back(unknown("sysctl", "net.ipv4.tcp_congestion_control", "this kernel or container does not show it"));
    Finding one{"sysctl", "net.ipv4.tcp_congestion_control", *name, Rating::ok, "", ""};
    if (name->starts_with("bbr")) {
        one.rating = Rating::better;
        one.why = "its pacing timers make local networks slower and figures unsteady; ?congestion=cubic changes one endpoint";
        one.command = "sysctl -w net.ipv4.tcp_congestion_control=cubic";
    }
    found.push_back(one);
}

// -- memory and processors -----------------------------------------------------------------------------------------

void look_at_huge_pages(const Machine& machine, Findings& found) {
    std::int64_t free = -1;
    for (const std::string& line : machine.lines("proc/meminfo"))
        if (line.starts_with("HugePages_Free:")) free = Machine::number_in(line.substr(15)).value_or(-1);
    const auto transparent = machine.line("sys/kernel/mm/transparent_hugepage/enabled");
    if (free < 0 && !transparent) return found.push_back(unknown("memory", "huge pages", "this kernel does not tell"));
    const bool reserved = free > 0;
    const bool by_itself = transparent && transparent->find("[always]") != std::string::npos;  // slabs ask for reserved ones only
    Finding one{"memory",   "huge pages", fmt::format("{} free, transparent: {}", std::max<std::int64_t>(free, 0), transparent.value_or("absent")),
                Rating::ok, "",           ""};
    if (!reserved && !by_itself) {
        one.rating = Rating::better;
        one.why = "slabs then lie in small pages, and large transfers miss the TLB more often";
        one.command = "sysctl -w vm.nr_hugepages=64";
    }
    found.push_back(one);
}

void look_at_numa(const Machine& machine, Findings& found) {
    std::size_t nodes = 0;
    for (const std::string& name : machine.names("sys/devices/system/node")) nodes += name.starts_with("node") && Machine::number_in(name.substr(4)) ? 1 : 0;
    if (nodes == 0) return found.push_back(unknown("cpu", "NUMA", "this kernel does not tell"));
    const bool balancing = machine.number("proc/sys/kernel/numa_balancing").value_or(0) != 0;
    Finding one{"cpu", "NUMA", counted(nodes, "node") + (nodes > 1 ? balancing ? ", balancing on" : ", balancing off" : ""), Rating::ok, "", ""};
    if (nodes > 1 && balancing) {
        one.rating = Rating::better;
        one.why = "the kernel moves pages behind pinned threads, and each move is a fault";
        one.command = "sysctl -w kernel.numa_balancing=0";
    }
    found.push_back(one);
}

std::vector<std::string> processors(const Machine& machine) {
    std::vector<std::string> all;
    for (const std::string& name : machine.names("sys/devices/system/cpu"))
        if (name.starts_with("cpu") && name.size() > 3 && name.find_first_not_of("0123456789", 3) == std::string::npos) all.push_back(name);
    return all;
}

void look_at_governor(const Machine& machine, Findings& found) {
    std::size_t known = 0, slow = 0;
    std::string example;
    for (const std::string& cpu : processors(machine)) {
        const auto governor = machine.line("sys/devices/system/cpu/" + cpu + "/cpufreq/scaling_governor");
        if (!governor) continue;
        ++known;
        if (*governor != "performance" || example.empty()) example = *governor;
        slow += *governor != "performance" ? 1 : 0;
    }
    if (known == 0) return found.push_back(unknown("cpu", "governor", "no frequency control here, as in most virtual machines"));
    Finding one{"cpu", "governor", slow == 0 ? example : fmt::format("{} on {} of {} CPUs", example, slow, known), Rating::ok, "", ""};
    if (slow > 0) {
        one.rating = Rating::better;
        one.why = "a CPU that has slept wakes slowly, and latency with it";
        one.command = "echo performance | tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor";
    }
    found.push_back(one);
}

// -- cards ---------------------------------------------------------------------------------------------------------

void look_at_queues(const Machine& machine, const std::string& card, Findings& found) {
    std::size_t queues = 0;
    for (const std::string& name : machine.names("sys/class/net/" + card + "/queues")) queues += name.starts_with("rx-") ? 1 : 0;
    const std::size_t cpus = processors(machine).size();
    if (queues == 0 || cpus == 0) return found.push_back(unknown("network", card + " queues", "the driver does not tell"));
    Finding one{"network", card + " queues", fmt::format("{} for {}", counted(queues, "receive queue"), counted(cpus, "CPU")), Rating::ok, "", ""};
    if (queues < cpus) {
        one.rating = Rating::better;
        one.why = "fewer queues than CPUs: several threads wait for one interrupt (the card may have no more: ethtool -l)";
        one.command = fmt::format("ethtool -L {} combined {}", card, cpus);
    }
    found.push_back(one);
}

/// Interrupts whose line in /proc/interrupts ends in the card's name, or in the name and a queue: "eth0-rx-1".
std::vector<std::string> interrupts_of(const Machine& machine, const std::string& card) {
    std::vector<std::string> numbers;
    for (const std::string& line : machine.lines("proc/interrupts")) {
        const std::size_t colon = line.find(':');
        const std::size_t last = line.find_last_of(' ');
        if (colon == std::string::npos || last == std::string::npos || last < colon) continue;
        const std::string name = line.substr(last + 1);
        if (name != card && !name.starts_with(card + "-")) continue;
        const std::size_t first = line.find_first_not_of(' ');
        if (Machine::number_in(line.substr(first, colon - first))) numbers.push_back(line.substr(first, colon - first));
    }
    return numbers;
}

void look_at_affinity(const Machine& machine, const std::string& card, Findings& found) {
    std::vector<std::string> places;
    std::string command;
    const std::size_t cpus = processors(machine).size();
    for (const std::string& number : interrupts_of(machine, card)) {
        const auto place = machine.line("proc/irq/" + number + "/smp_affinity_list");
        if (!place) continue;
        command += fmt::format("{}echo {} > /proc/irq/{}/smp_affinity_list", command.empty() ? "" : "; ", cpus > 0 ? places.size() % cpus : 0, number);
        places.push_back(*place);
    }
    if (places.empty()) return found.push_back(unknown("network", card + " interrupts", "none that carries its name"));
    const bool one_place = std::all_of(places.begin(), places.end(), [&](const std::string& p) { return p == places.front(); });
    const bool one_cpu = one_place && places.front().find_first_not_of("0123456789") == std::string::npos;
    Finding one{"network", card + " interrupts", counted(places.size(), "interrupt") + (one_cpu ? " on CPU " + places.front() : ""), Rating::ok, "", ""};
    if (one_cpu && places.size() > 1 && cpus > 1) {
        one.rating = Rating::better;
        one.why = "all queues interrupt the same CPU";
        one.command = command;
    }
    found.push_back(one);
}

// -- devices -------------------------------------------------------------------------------------------------------

/// 0: the kernel looked at the arguments; else the errno it refused with. No ring is made: the arguments are wrong on purpose.
std::optional<int> ask_for_io_uring(const Machine& machine) {
    if (!machine.is_real()) {
        const auto told = machine.number("io_uring_setup");
        return told ? std::optional<int>(int(*told)) : std::nullopt;
    }
#ifdef SYS_io_uring_setup
    const long made = syscall(SYS_io_uring_setup, 0, nullptr);
    return made < 0 && errno != EFAULT && errno != EINVAL ? errno : 0;
#else
    return std::nullopt;
#endif
}

void look_at_io_uring(const Machine& machine, Findings& found) {
    const auto answer = ask_for_io_uring(machine);
    if (!answer) return found.push_back(unknown("device", "io_uring", "not asked"));
    if (*answer == 0) return found.push_back({"device", "io_uring", "allowed", Rating::ok, "", ""});
    const std::int64_t disabled = machine.number("proc/sys/kernel/io_uring_disabled").value_or(0);
    Finding one{"device", "io_uring", std::strerror(*answer), Rating::better, "io_uring is not to be had, the kernel's sockets are used", ""};
    if (*answer == ENOSYS) one.command = "uname -r   # a kernel of 6.1 or later has it; some containers hide it";
    else if (disabled != 0) one.command = "sysctl -w kernel.io_uring_disabled=0";
    else one.command = "docker run --security-opt seccomp=FILE ...   # a profile that allows io_uring_setup, io_uring_enter and io_uring_register";
    found.push_back(one);
}

void look_at_rdma(const Machine& machine, Findings& found) {
    const auto devices = machine.names("sys/class/infiniband");
    if (devices.empty()) return found.push_back({"device", "RDMA", "none", Rating::ok, "", ""});
    for (const std::string& device : devices) {
        const std::string ports = "sys/class/infiniband/" + device + "/ports";
        for (const std::string& port : machine.names(ports)) {
            const std::string state = machine.line(ports + "/" + port + "/state").value_or("?");
            Finding one{"device", fmt::format("RDMA {} port {}", device, port), state, Rating::ok, "", ""};
            if (state.find("ACTIVE") == std::string::npos) {
                const auto nets = machine.names("sys/class/infiniband/" + device + "/device/net");
                one.rating = Rating::better;
                one.why = "this port carries nothing";
                one.command = fmt::format("ip link set {} up", nets.empty() ? "DEVICE" : nets.front());
            }
            found.push_back(one);
        }
    }
    if (machine.has("dev/infiniband/rdma_cm")) return;
    found.push_back({"device", "RDMA connections", "no /dev/infiniband/rdma_cm", Rating::problem,
                     "the devices are there, but programs cannot connect through them", "modprobe rdma_ucm"});
}

/// What the library itself says of XLIO here, which `evpl info` shows too. Loads NVIDIA's library.
Finding ask_for_xlio() {
    Finding one{"device", "XLIO", "absent", Rating::better, "", ""};
    for (const evpl::TransportInfo& info : evpl::transports()) {
        if (info.scheme != "xlio") continue;
        if (info.present) return {"device", "XLIO", std::string(info.reason), Rating::ok, "", ""};
        one.why = info.reason;
        one.command = info.remedy;
    }
    return one;
}

void look_at_xlio(const Machine& machine, Findings& found) {
    bool card = false, library = false;
    for (const std::string& name : cards(machine)) card = card || machine.line("sys/class/net/" + name + "/device/vendor") == "0x15b3";
    if (machine.is_real() && (card || std::getenv("EVPL_XLIO_LIBRARY") != nullptr)) return found.push_back(ask_for_xlio());
    for (const char* folder : {"usr/lib", "usr/lib64", "usr/local/lib", "usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu"})
        for (const std::string& name : machine.names(folder)) library = library || name.starts_with("libxlio.so");
    Finding one{"device", "XLIO", !card ? "no NVIDIA card" : library ? "card and library" : "card, no library", Rating::ok, "", ""};
    if (card && !library) {
        one.rating = Rating::better;
        one.why = "this card could serve TCP without the kernel";
        one.command = "apt-get install libxlio   # from NVIDIA's DOCA repository";
    }
    found.push_back(one);
}

Findings examine(const Machine& machine) {
    Findings found;
    look_at_descriptors(machine, found);
    look_at_memlock(machine, found);
    for (const Sysctl& one : sysctls) look_at_sysctl(machine, one, found);
    look_at_busy_poll(machine, found);
    look_at_congestion(machine, found);
    look_at_huge_pages(machine, found);
    look_at_numa(machine, found);
    look_at_governor(machine, found);
    for (const std::string& card : cards(machine)) look_at_queues(machine, card, found), look_at_affinity(machine, card, found);
    look_at_io_uring(machine, found);
    look_at_rdma(machine, found);
    look_at_xlio(machine, found);
    return found;
}

Rating overall(const Findings& found) {
    Rating worst = Rating::ok;
    for (const Finding& one : found) worst = std::max(worst, one.rating);
    return worst;
}

void print_json(const Findings& found) {
    nlohmann::ordered_json items = nlohmann::ordered_json::array();
    for (const Finding& one : found)
        items.push_back(
            {{"topic", one.topic}, {"item", one.item}, {"value", one.value}, {"rating", name_of(one.rating)}, {"why", one.why}, {"command", one.command}});
    const nlohmann::ordered_json document{{"overall", name_of(overall(found))}, {"items", items}};
    fmt::print("{}\n", document.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
}

void print_text(const Findings& found) {
    for (const Finding& one : found) {
        fmt::print("{:15}  {:8} {:32} {}\n", name_of(one.rating), one.topic, one.item, one.value);
        if (!one.why.empty()) fmt::print("{:17}why:  {}\n", "", one.why);
        if (!one.command.empty()) fmt::print("{:17}mend: {}\n", "", one.command);
    }
    const auto count = [&found](Rating rating) { return std::count_if(found.begin(), found.end(), [rating](const Finding& f) { return f.rating == rating; }); };
    fmt::print("\noverall: {} ({} ok, {} could be better, {} a problem, {} not known)\n", name_of(overall(found)), count(Rating::ok), count(Rating::better),
               count(Rating::problem), count(Rating::unknown));
}

}  // namespace

int run_doctor(const DoctorOptions& options) {
    const Findings found = examine(Machine(options.root));
    if (options.json) print_json(found);
    else print_text(found);
    return overall(found) == Rating::problem ? exit_failure : 0;
}

}  // namespace tool
