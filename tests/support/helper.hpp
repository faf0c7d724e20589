#pragma once

// Peers in other processes: the test program runs itself again as `<program> --helper <name> arguments...`. A helper
// uses plain system calls; it tells its progress in lines on its standard output and obeys lines on its standard input.

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "support/patience.hpp"
#include "support/sockets.hpp"

extern char** environ;

namespace evpl::test {

using HelperMain = int (*)(const std::vector<std::string>& arguments);

inline std::map<std::string, HelperMain>& helpers() {
    static std::map<std::string, HelperMain> all;
    return all;
}

/// At namespace scope: `const RegisterHelper hold("hold", &hold_main);`
struct RegisterHelper {
    RegisterHelper(const char* name, HelperMain run) { helpers()[name] = run; }
};

/// Called by main(): the exit code of the helper this process is meant to be.
inline std::optional<int> run_as_helper(int argc, char** argv) {
    if (argc < 3 || std::string_view(argv[1]) != "--helper") return std::nullopt;
    const auto found = helpers().find(argv[2]);
    if (found == helpers().end()) return 127;
    setvbuf(stdout, nullptr, _IOLBF, 0);
    return found->second({argv + 3, argv + argc});
}

inline std::string own_path() {
    char room[1000];
    const ssize_t n = readlink("/proc/self/exe", room, sizeof room);
    return std::string(room, n < 0 ? 0 : std::size_t(n));
}

/// A running program with pipes at its standard input and output.
class Child {
public:
    Child() = default;
    Child(const Child&) = delete;
    Child& operator=(const Child&) = delete;
    ~Child() {
        if (pid_ > 0) {
            ::kill(pid_, SIGKILL);
            reap();
        }
    }

    bool start_helper(const std::string& name, std::vector<std::string> arguments) {
        arguments.insert(arguments.begin(), {own_path(), "--helper", name});
        return start(std::move(arguments));
    }

    /// `input_file` and `output_file` replace the pipes.
    bool start(const std::vector<std::string>& command, const char* input_file = nullptr, const char* output_file = nullptr) {
        int in[2] = {-1, -1}, out[2] = {-1, -1};
        if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0) return false;
        std::vector<char*> argv;
        for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
        argv.push_back(nullptr);
        posix_spawn_file_actions_t actions;
        posix_spawn_file_actions_init(&actions);
        if (input_file != nullptr) posix_spawn_file_actions_addopen(&actions, 0, input_file, O_RDONLY, 0);
        else posix_spawn_file_actions_adddup2(&actions, in[0], 0);
        if (output_file != nullptr) posix_spawn_file_actions_addopen(&actions, 1, output_file, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        else posix_spawn_file_actions_adddup2(&actions, out[1], 1);
        const int failed = posix_spawnp(&pid_, command[0].c_str(), &actions, nullptr, argv.data(), environ);
        posix_spawn_file_actions_destroy(&actions);
        ::close(in[0]);
        ::close(out[1]);
        to_.reset(in[1]);
        from_.reset(out[0]);
        fcntl(from_.get(), F_SETFL, O_NONBLOCK);
        if (failed != 0) pid_ = -1;
        return failed == 0;
    }

    void tell(std::string_view line) const {
        const std::string text = std::string(line) + "\n";
        if (::write(to_.get(), text.data(), text.size()) < 0) std::perror("helper");
    }
    void close_input() { to_.reset(); }

    /// All it said so far.
    const std::string& said() {
        char room[4096];
        while (true) {
            const ssize_t n = from_ ? ::read(from_.get(), room, sizeof room) : 0;
            if (n <= 0) break;
            said_.append(room, std::size_t(n));
        }
        return said_;
    }
    bool has_said(std::string_view words) { return said().find(words) != std::string::npos; }

    pid_t pid() const { return pid_; }
    void kill(int signal) const { ::kill(pid_, signal); }
    /// The exit code once it has ended; 128 + signal when it was killed.
    std::optional<int> ended() {
        if (pid_ <= 0) return code_;
        int status = 0;
        if (waitpid(pid_, &status, WNOHANG) != pid_) return std::nullopt;
        take(status);
        return code_;
    }

private:
    void reap() {
        int status = 0;
        while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {}
        take(status);
    }
    void take(int status) {
        code_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        pid_ = -1;
    }

    pid_t pid_ = -1;
    Fd to_, from_;
    std::string said_;
    std::optional<int> code_;
};

/// Where `program` is, when it is installed.
inline std::optional<std::string> find_program(std::string_view program) {
    const char* path = std::getenv("PATH");
    std::string_view rest = path != nullptr ? path : "/usr/bin:/bin";
    for (const std::string_view more : {rest, std::string_view("/usr/sbin:/sbin")}) {
        rest = more;
        while (!rest.empty()) {
            const std::size_t colon = rest.find(':');
            const std::string candidate = std::string(rest.substr(0, colon)) + "/" + std::string(program);
            if (::access(candidate.c_str(), X_OK) == 0) return candidate;
            rest = colon == rest.npos ? std::string_view() : rest.substr(colon + 1);
        }
    }
    return std::nullopt;
}

}  // namespace evpl::test
