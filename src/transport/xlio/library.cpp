// Loading NVIDIA's library: late, once, without its symbols taking anything over, and never again after a failure.
#include "transport/xlio/library.hpp"

#include <dlfcn.h>
#include <fcntl.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <mutex>
#include <new>
#include <string>

#include "base/log_line.hpp"
#include "base/option.hpp"
#include "base/settings.hpp"
#include "transport/xlio/environment.hpp"

extern char** environ;

namespace evpl::transport::xlio {
namespace {

using GetSockOpt = int(int, int, int, void*, socklen_t*);

/// A function pointer that lies in the same library as `anchor`.
bool is_beside(const void* function, const Dl_info& anchor) noexcept {
    Dl_info found{};
    return function != nullptr && dladdr(function, &found) != 0 && found.dli_fbase == anchor.dli_fbase;
}

bool all_beside(const void* const* slots, const void* exit) noexcept {
    Dl_info anchor{};
    if (exit == nullptr || dladdr(exit, &anchor) == 0 || slots[abi::slot_exit] != exit) return false;
    for (unsigned i = 0; i < abi::slot_count; ++i)
        if (!is_beside(slots[i], anchor)) return false;
    return true;
}

const void* const* slots_at(const abi::TableHead* table, std::size_t offset) noexcept {
    return reinterpret_cast<const void* const*>(reinterpret_cast<const std::byte*>(table) + offset);
}

const char* setting(const char* name, const char* usual) noexcept {
    const base::Setting* set = base::settings().find("xlio", name);
    return set != nullptr && !set->value.empty() ? set->value.c_str() : usual;
}

bool is_off(const char* name) noexcept {
    bool on = true;
    const auto spec = base::OptionSpec::flag(name, on, "");
    if (const base::Setting* set = base::settings().find("xlio", name)) base::read_value(spec, set->value);
    return !on;
}

/// The library's constructor reads this: quiet, unless somebody wants to hear it. setenv is for processes with one thread.
void keep_quiet() noexcept {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);)
        if (line.starts_with("Threads:") && std::atoi(line.c_str() + 8) == 1) ::setenv("XLIO_TRACELEVEL", "1", 0);
}

// What the library keeps its buffers in. It asks once, for all of them; we give it ordinary memory that may become huge pages.
void* allocate(std::size_t bytes) noexcept {
    constexpr std::size_t huge = 2u << 20;
    const std::size_t rounded = (bytes + huge - 1) & ~(huge - 1);
    void* at = ::mmap(nullptr, rounded, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) return nullptr;
    ::madvise(at, rounded, MADV_HUGEPAGE);
    return at;
}
void keep(void*) noexcept {}  // with the process: rings of other threads may still point into it
void registered(void*, std::size_t bytes, std::size_t) noexcept {
    base::log_format(LogLevel::debug, "xlio: %zu MiB are registered with the card", bytes >> 20);
}

class Library {
public:
    Support support() noexcept {
        const std::lock_guard lock(mutex_);
        if (stage_ == Stage::unknown) look();
        return {stage_ != Stage::failed, reason_, remedy_};
    }

    Result<const abi::Calls*> start() noexcept {
        const std::lock_guard lock(mutex_);
        if (stage_ == Stage::unknown) look();
        if (stage_ == Stage::loaded) initialise();
        if (stage_ != Stage::running) return Error(Errc::transport_absent, Step::open, Who::system, os_);
        return &calls_;
    }

private:
    enum class Stage { unknown, loaded, running, failed };

    void look() noexcept {
        try {
            const Surroundings here;
            Obstacle obstacle = dangerous_setting(here);
            if (!obstacle && !is_off("check")) obstacle = missing_device(here);
            if (obstacle) return fail(obstacle.reason.c_str(), obstacle.remedy.c_str());
            load();
        } catch (const std::bad_alloc&) {
            fail("there was no memory to look for it", "");
        }
    }

    void load() {
        const char* const path = setting("library", "libxlio.so.3");
        keep_quiet();
        if (!survives(path)) return;
        void* const handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);  // stays: it leaves a thread behind
        if (handle == nullptr) {
            const char* const said = dlerror();
            return fail((std::string(path) + " cannot be loaded: " + (said != nullptr ? said : "?")).c_str(),
                        "install libxlio 3.60.4 or later, or name it with EVPL_XLIO_LIBRARY");
        }
        auto* const ask = reinterpret_cast<GetSockOpt*>(dlsym(handle, "getsockopt"));
        void* const exit = dlsym(handle, "xlio_exit");
        const abi::TableHead* table = nullptr;
        socklen_t size = sizeof table;
        if (ask == nullptr || exit == nullptr || ask(abi::api_descriptor, SOL_SOCKET, abi::get_api, &table, &size) != 0 || table == nullptr)
            return fail("this libxlio has no Ultra API", upgrade);
        const char* name = "";
        char why[200];
        const void* const* slots = find_slots(table, exit, name, why);
        if (slots == nullptr) return fail(why, upgrade);
        static_assert(sizeof(abi::Calls) == (abi::slot_count + 2) * sizeof(void*));
        std::memcpy(static_cast<void*>(&calls_), slots, abi::slot_count * sizeof(void*));
        if (!load_verbs(handle)) return fail("libibverbs.so.1 cannot be loaded", "install libibverbs1");
        std::snprintf(found_, sizeof found_, "%.120s, function table %s", path, name);
        reason_ = found_;
        stage_ = Stage::loaded;
    }

    /// libibverbs comes with the library; a library that brings the calls itself is asked first.
    bool load_verbs(void* handle) noexcept {
        void* source = handle;
        if (dlsym(handle, "ibv_reg_mr") == nullptr) source = dlopen("libibverbs.so.1", RTLD_NOW | RTLD_LOCAL);
        if (source == nullptr) return false;
        calls_.reg_mr = reinterpret_cast<decltype(calls_.reg_mr)>(dlsym(source, "ibv_reg_mr"));
        calls_.dereg_mr = reinterpret_cast<decltype(calls_.dereg_mr)>(dlsym(source, "ibv_dereg_mr"));
        return calls_.reg_mr != nullptr && calls_.dereg_mr != nullptr;
    }

    /// Lets another program try it first: the library may end the process that loads it. True: it lives, or there is no such program.
    bool survives(const char* path) noexcept {
        const char* const probe = setting("probe", EVPL_XLIO_PROBE);
        if (*probe == '\0' || ::access(probe, X_OK) != 0) return true;
        char* arguments[] = {const_cast<char*>(probe), const_cast<char*>(path), nullptr};
        posix_spawn_file_actions_t actions;
        posix_spawn_file_actions_init(&actions);
        for (const int fd : {0, 1, 2}) posix_spawn_file_actions_addopen(&actions, fd, "/dev/null", O_RDWR, 0);
        pid_t child = -1;
        const int failed = posix_spawn(&child, probe, &actions, nullptr, arguments, environ);
        posix_spawn_file_actions_destroy(&actions);
        int status = 0;
        if (failed != 0) return true;
        while (::waitpid(child, &status, 0) < 0) {
            if (errno != EINTR) return true;  // the program reaps its children itself: nothing is known
        }
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return true;
        char why[200];
        if (WIFSIGNALED(status)) std::snprintf(why, sizeof why, "%.120s crashed when it was tried (signal %d)", path, WTERMSIG(status));
        else std::snprintf(why, sizeof why, "%.120s failed when it was tried (status %d)", path, WEXITSTATUS(status));
        fail(why, "see what it says itself: XLIO_TRACELEVEL=4");
        return false;
    }

    void initialise() noexcept {
        const abi::InitAttr attr{0, &registered, &allocate, &keep};
        if (calls_.init(&attr) == 0) {
            stage_ = Stage::running;
            return;
        }
        os_ = errno;
        if (os_ == EEXIST) return fail("somebody else has initialised libxlio in this process", "leave it to evpl");
        char why[160];
        std::snprintf(why, sizeof why, "libxlio found no device it can use (%s)", strerrorname_np(os_) != nullptr ? strerrorname_np(os_) : "?");
        fail(why, "a ConnectX-6 Dx or later whose interface is up and has an address");
    }

    /// Once: in look(), or in initialise() after it went well.
    void fail(const char* reason, const char* remedy) noexcept {
        std::snprintf(why_not_, sizeof why_not_, "%s", reason);
        std::snprintf(remedy_text_, sizeof remedy_text_, "%s", remedy);
        reason_ = why_not_;
        remedy_ = remedy_text_;
        stage_ = Stage::failed;
    }

    static constexpr const char* upgrade = "install libxlio 3.60.4 to 3.70.2";
    std::mutex mutex_;
    Stage stage_ = Stage::unknown;
    int os_ = 0;
    std::string_view reason_, remedy_;
    char found_[200] = {};
    char why_not_[200] = {};
    char remedy_text_[160] = {};
    abi::Calls calls_;
};

Library& library() noexcept {
    alignas(Library) static std::byte room[sizeof(Library)];  // never destroyed: threads may outlive main()
    static Library* const made = new (room) Library;
    return *made;
}

}  // namespace

const void* const* find_slots(const abi::TableHead* table, const void* exit, const char*& name, char (&why)[200]) noexcept {
    if (table->magic != abi::magic) {
        std::snprintf(why, sizeof why, "this is no libxlio: its function table begins with %#llx", static_cast<unsigned long long>(table->magic));
        return nullptr;
    }
    for (const abi::Layout& layout : abi::layouts) {
        if (layout.cap_mask != table->cap_mask) continue;
        const void* const* slots = slots_at(table, layout.first_slot);
        name = layout.name;
        if (all_beside(slots, exit)) return slots;
        std::snprintf(why, sizeof why, "the function table says layout %s, but its functions lie elsewhere", layout.name);
        return nullptr;
    }
    std::snprintf(why, sizeof why, "this libxlio's function table (%#llx) is neither layout A (3.60.0 to 3.60.4) nor B (3.61.0 to 3.70.2)",
                  static_cast<unsigned long long>(table->cap_mask));
    return nullptr;
}

Support support() noexcept { return library().support(); }
Result<const abi::Calls*> start() noexcept { return library().start(); }

}  // namespace evpl::transport::xlio
