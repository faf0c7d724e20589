// Loading NVIDIA's library: late, once, without its symbols taking anything over, and never again after a failure.
#include "transport/xlio/library.hpp"

#include <fcntl.h>
#include <spawn.h>
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
#include "transport/xlio/table.hpp"

extern char** environ;

namespace evpl::transport::xlio {
namespace {

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
        if (!is_linked_in && !survives(path)) return;
        const char* name = "";
        if (const Obstacle obstacle = open_library(path, calls_, name)) return fail(obstacle.reason.c_str(), obstacle.remedy.c_str());
        if (is_linked_in) std::snprintf(found_, sizeof found_, "libxlio is linked in");
        else std::snprintf(found_, sizeof found_, "%.120s, function table %s", path, name);
        reason_ = found_;
        stage_ = Stage::loaded;
    }

    /// Lets another program try it first: the library may end the process that loads it. True: it lives, or there is no such program.
    bool survives(const char* path) noexcept {
        const char* const probe = setting("probe", EVPL_XLIO_PROBE);
        if (std::strcmp(probe, "off") == 0 || ::access(probe, X_OK) != 0) return true;
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
        const int said = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
        if (said == 0) return true;
        if (said > probe_errno_base && said < probe_errno_base + probe_errno_most) return no_device(said - probe_errno_base), false;
        char why[200];
        if (WIFSIGNALED(status)) std::snprintf(why, sizeof why, "%.120s crashed when it was tried (signal %d)", path, WTERMSIG(status));
        else std::snprintf(why, sizeof why, "%.120s failed when it was tried (status %d)", path, said);
        fail(why, "see what it says itself: XLIO_TRACELEVEL=4");
        return false;
    }

    void initialise() noexcept {
        const abi::InitAttr attr = init_attributes(&registered);
        if (calls_.init(&attr) == 0) {
            stage_ = Stage::running;
            return;
        }
        const int os = errno;
        if (os == EEXIST) return fail("somebody else has initialised libxlio in this process", "leave it to evpl");
        no_device(os);
    }

    void no_device(int os) noexcept {
        os_ = os;
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

Support support() noexcept { return library().support(); }
Result<const abi::Calls*> start() noexcept { return library().start(); }

}  // namespace evpl::transport::xlio
