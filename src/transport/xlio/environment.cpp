#include "transport/xlio/environment.hpp"

#include <ifaddrs.h>
#include <net/if.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <vector>

namespace evpl::transport::xlio {
namespace {

namespace fs = std::filesystem;

/// What the library takes for its buffers unless told otherwise: XLIO_MEMORY_LIMIT's default.
constexpr std::uint64_t library_memory_bytes = 2ull << 30;
constexpr unsigned cap_net_raw = 13, cap_ipc_lock = 14;  // linux/capability.h

std::string first_line(const fs::path& file) {
    std::ifstream in(file);
    std::string text;
    std::getline(in, text);
    return text;
}

std::vector<std::string> names_in(const fs::path& folder) {
    std::vector<std::string> names;
    std::error_code failed;
    for (fs::directory_iterator at(folder, failed), end; !failed && at != end; at.increment(failed)) names.push_back(at->path().filename().string());
    return names;
}

bool is_mlx5(const fs::path& device) {
    std::error_code failed;
    const fs::path driver = fs::read_symlink(device / "driver", failed);
    return first_line(device / "vendor") == "0x15b3" && !failed && driver.filename() == "mlx5_core";
}

/// The file through which libibverbs drives `device`; empty: none that this user may open.
bool has_device_file(const fs::path& root, const std::string& device) {
    for (const std::string& name : names_in(root / "sys/class/infiniband_verbs")) {
        if (first_line(root / "sys/class/infiniband_verbs" / name / "ibdev") != device) continue;
        return ::access((root / "dev/infiniband" / name).c_str(), R_OK | W_OK) == 0;
    }
    return false;
}

std::uint64_t capabilities(const fs::path& root) {
    std::ifstream in(root / "proc/self/status");
    for (std::string line; std::getline(in, line);)
        if (line.starts_with("CapEff:")) return std::strtoull(line.c_str() + 7, nullptr, 16);
    return 0;
}

std::uint64_t bytes_of(const char* text) {
    char* end = nullptr;
    std::uint64_t bytes = std::strtoull(text, &end, 10);
    if (*end == 'k' || *end == 'K') bytes <<= 10;
    else if (*end == 'm' || *end == 'M') bytes <<= 20;
    else if (*end == 'g' || *end == 'G') bytes <<= 30;
    return bytes;
}

bool is_set(const Surroundings& here, const char* name) {
    const char* value = here.variable(name);
    return value != nullptr && *value != '\0';
}

}  // namespace

const char* Surroundings::variable(const char* name) const { return std::getenv(name); }

bool Surroundings::has_address(const std::string& interface) const {
    ifaddrs* list = nullptr;
    if (getifaddrs(&list) != 0) return false;
    bool found = false;
    for (const ifaddrs* one = list; one != nullptr; one = one->ifa_next) {
        if (one->ifa_addr == nullptr || interface != one->ifa_name || (one->ifa_flags & IFF_UP) == 0) continue;
        found |= one->ifa_addr->sa_family == AF_INET || one->ifa_addr->sa_family == AF_INET6;
    }
    freeifaddrs(list);
    return found;
}

unsigned long long Surroundings::memlock_bytes() const {
    rlimit limit{};
    if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0) return 0;
    return limit.rlim_cur == RLIM_INFINITY ? UINT64_MAX : limit.rlim_cur;
}

Obstacle dangerous_setting(const Surroundings& here) {
    const char* handling = here.variable("XLIO_EXCEPTION_HANDLING");
    if (handling != nullptr && std::strcmp(handling, "-2") == 0)
        return {"XLIO_EXCEPTION_HANDLING=-2 lets the library end the process", "unset XLIO_EXCEPTION_HANDLING"};
    const char* modern = here.variable("XLIO_USE_NEW_CONFIG");
    if (modern == nullptr || std::strcmp(modern, "1") != 0 || is_set(here, "XLIO_INLINE_CONFIG")) return {};
    const char* file = here.variable("XLIO_CUSTOM_CONFIG_FILE");
    const std::string path = file != nullptr && *file != '\0' ? file : here.root() + "etc/libxlio_config.json";
    if (::access(path.c_str(), R_OK) == 0) return {};
    return {"XLIO_USE_NEW_CONFIG=1, but " + path + " cannot be read: the library would end the process", "unset XLIO_USE_NEW_CONFIG, or write the file"};
}

Obstacle missing_device(const Surroundings& here) {
    const fs::path root = here.root();
    std::string device;
    std::vector<std::string> interfaces;
    for (const std::string& name : names_in(root / "sys/class/infiniband")) {
        if (!is_mlx5(root / "sys/class/infiniband" / name / "device")) continue;
        if (device.empty() || has_device_file(root, name)) device = name;
        for (const std::string& one : names_in(root / "sys/class/infiniband" / name / "device/net")) interfaces.push_back(one);
    }
    if (device.empty()) return {"there is no NVIDIA card with the mlx5 driver", "a ConnectX-6 Dx or later with its driver (modprobe mlx5_ib)"};
    if (!has_device_file(root, device))
        return {"the device file of " + device + " cannot be opened (/dev/infiniband/uverbs*)", "modprobe ib_uverbs, and allow this user to read and write it"};
    bool addressed = false;
    for (const std::string& one : interfaces) addressed |= here.has_address(one);
    if (!addressed) return {"no interface of " + device + " is up with an IP address", "ip address add ADDRESS dev INTERFACE; ip link set INTERFACE up"};
    const std::uint64_t allowed = capabilities(root);
    if ((allowed >> cap_net_raw & 1) == 0) return {"CAP_NET_RAW is missing: the card's flow rules need it", "setcap cap_net_raw+ep PROGRAM, or run it as root"};
    const char* limit = here.variable("XLIO_MEMORY_LIMIT");
    const std::uint64_t needed = limit != nullptr && *limit != '\0' ? bytes_of(limit) : library_memory_bytes;
    if ((allowed >> cap_ipc_lock & 1) == 0 && here.memlock_bytes() < needed)
        return {"too little memory may be locked (" + std::to_string(here.memlock_bytes() >> 20) + " MiB of " + std::to_string(needed >> 20) + ")",
                "ulimit -l unlimited, or XLIO_MEMORY_LIMIT=256MB"};
    return {};
}

}  // namespace evpl::transport::xlio
