#include "transport/rdma/verbs.hpp"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "base/settings.hpp"

namespace evpl::transport::rdma {
namespace {

constexpr const char* install = "install rdma-core's libibverbs1, ibverbs-providers and librdmacm1";

struct Loaded {
    Verbs functions;
    Support support;
    char text[1200] = {};
    std::size_t text_length = 0;

    Loaded() noexcept {
        const base::Setting* const both = base::settings().find("rdma", "library");
        void* ibverbs = open(both != nullptr ? both->value.c_str() : "libibverbs.so.1");
        void* rdmacm = both != nullptr || ibverbs == nullptr ? ibverbs : open("librdmacm.so.1");
        if (rdmacm == nullptr) {
            support.remedy = install;
            return;
        }
#define EVPL_LOAD(library, name) load(library, #name, functions.name);
#define EVPL_LOAD_VERBS(name) EVPL_LOAD(ibverbs, name)
#define EVPL_LOAD_RDMACM(name) EVPL_LOAD(rdmacm, name)
        EVPL_VERBS_FUNCTIONS(EVPL_LOAD_VERBS)
        EVPL_RDMACM_FUNCTIONS(EVPL_LOAD_RDMACM)
#undef EVPL_LOAD_RDMACM
#undef EVPL_LOAD_VERBS
#undef EVPL_LOAD
        if (support.reason.empty()) look_for_device(both == nullptr);
    }

    // Stays loaded: providers leave threads and exit handlers behind.
    void* open(const char* name) noexcept {
        void* library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
        if (library == nullptr) say("%s cannot be loaded", name);
        return library;
    }
    template <class Function>
    void load(void* library, const char* name, Function& function) noexcept {
        function = reinterpret_cast<Function>(dlsym(library, name));
        if (function != nullptr || !support.reason.empty()) return;
        say("rdma-core lacks %s", name);
        support.remedy = "install a newer rdma-core (44 is known to work)";
    }
    void say(const char* format, const char* what) noexcept {
        std::snprintf(text, sizeof text, format, what);
        support.reason = text;
    }

    static bool manager_opens() noexcept {
        const int manager = ::open("/dev/infiniband/rdma_cm", O_RDWR | O_CLOEXEC);
        if (manager >= 0) ::close(manager);
        return manager >= 0;
    }

    void look_for_device(bool in_kernel) noexcept {
        int count = 0;
        ibv_device** list = functions.ibv_get_device_list(&count);
        if (list == nullptr || count == 0) {
            if (list != nullptr) functions.ibv_free_device_list(list);
            support.reason = "there is no RDMA device";
            support.remedy = "load the device's driver; soft-RoCE: modprobe rdma_rxe, then rdma link add rxe0 type rxe netdev eth0";
            return;
        }
        if (in_kernel && !manager_opens()) {
            support.reason = "the RDMA connection manager cannot be opened (/dev/infiniband/rdma_cm)";
            support.remedy = "modprobe rdma_ucm, and allow this user to read and write the device file";
        } else {
            add("%d RDMA device%s", count, count == 1 ? "" : "s");
            for (int i = 0; i < count; ++i) describe(*list[i]);
            support.reason = {text, text_length};
            support.present = true;
        }
        functions.ibv_free_device_list(list);
    }

    /// "; rxe0: port 1 up, MTU 4096, 10.0.0.1 fe80::1, 1048576 requests, 1024 connections"
    void describe(ibv_device& device) noexcept {
        ibv_context* context = functions.ibv_open_device(&device);
        add("; %s", functions.ibv_get_device_name(&device));
        if (context == nullptr) return add(" cannot be opened: %s", std::strerror(errno));
        ibv_device_attr limits{};
        if (functions.ibv_query_device(context, &limits) == 0) {
            for (unsigned port = 1; port <= limits.phys_port_cnt; ++port) describe_port(*context, std::uint8_t(port));
            add(", queues of %d requests and %d completions, %d connections", limits.max_qp_wr, limits.max_cqe, limits.max_qp);
        }
        functions.ibv_close_device(context);
    }

    void describe_port(ibv_context& context, std::uint8_t number) noexcept {
        ibv_port_attr port{};
        if (functions.ibv_query_port(&context, number, reinterpret_cast<_compat_ibv_port_attr*>(&port)) != 0) return;
        add("%s port %u %s, MTU %u", number == 1 ? "" : ",", unsigned(number), port.state == IBV_PORT_ACTIVE ? "up" : "down",
            128u << unsigned(port.active_mtu));
        constexpr int shown = 4;
        char last[INET6_ADDRSTRLEN] = {};
        for (int i = 0, done = 0; i < port.gid_tbl_len && done < shown; ++i) {
            ibv_gid gid{};
            char name[INET6_ADDRSTRLEN];
            if (functions.ibv_query_gid(&context, number, i, &gid) != 0 || gid.global.interface_id == 0) continue;
            const auto& address = reinterpret_cast<const in6_addr&>(gid);
            if (IN6_IS_ADDR_V4MAPPED(&address)) ::inet_ntop(AF_INET, gid.raw + 12, name, sizeof name);
            else ::inet_ntop(AF_INET6, gid.raw, name, sizeof name);
            if (std::strcmp(name, last) == 0) continue;  // the same, once for each version of RoCE
            add("%s %s", done++ == 0 ? ", GIDs" : "", name);
            std::memcpy(last, name, sizeof last);
        }
    }

    [[gnu::format(printf, 2, 3)]] void add(const char* format, ...) noexcept {
        va_list arguments;
        va_start(arguments, format);
        const int more = std::vsnprintf(text + text_length, sizeof text - text_length, format, arguments);
        va_end(arguments);
        if (more > 0) text_length = std::min(text_length + std::size_t(more), sizeof text - 1);
    }
};

const Loaded& loaded() noexcept {
    static const Loaded once;
    return once;
}

}  // namespace

const Support& support() noexcept { return loaded().support; }
const Verbs& verbs() noexcept { return loaded().functions; }

}  // namespace evpl::transport::rdma
