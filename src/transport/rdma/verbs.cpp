#include "transport/rdma/verbs.hpp"

#include <dlfcn.h>
#include <fcntl.h>
#include <unistd.h>

#include <cstdio>

namespace evpl::transport::rdma {
namespace {

constexpr const char* install = "install rdma-core's libibverbs1, ibverbs-providers and librdmacm1";

struct Loaded {
    Verbs functions;
    Support support;
    char text[200] = {};

    Loaded() noexcept {
        void* ibverbs = open("libibverbs.so.1");
        void* rdmacm = ibverbs != nullptr ? open("librdmacm.so.1") : nullptr;
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
        if (support.reason.empty()) look_for_device();
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

    void look_for_device() noexcept {
        int count = 0;
        ibv_device** list = functions.ibv_get_device_list(&count);
        char first[64] = {};
        if (list != nullptr && count > 0) std::snprintf(first, sizeof first, "%s", functions.ibv_get_device_name(list[0]));
        if (list != nullptr) functions.ibv_free_device_list(list);
        if (count == 0) {
            support.reason = "there is no RDMA device";
            support.remedy = "load the device's driver; soft-RoCE: modprobe rdma_rxe, then rdma link add rxe0 type rxe netdev eth0";
            return;
        }
        const int manager = ::open("/dev/infiniband/rdma_cm", O_RDWR | O_CLOEXEC);
        if (manager < 0) {
            support.reason = "the RDMA connection manager cannot be opened (/dev/infiniband/rdma_cm)";
            support.remedy = "modprobe rdma_ucm, and allow this user to read and write the device file";
            return;
        }
        ::close(manager);
        std::snprintf(text, sizeof text, "%d RDMA device%s, the first is %s", count, count == 1 ? "" : "s", first);
        support.reason = text;
        support.present = true;
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
