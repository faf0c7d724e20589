#pragma once

// Every test runs under a watchdog: when a test takes too long, all threads write their stacks and the program fails.

#include <dirent.h>
#include <execinfo.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>
#include <thread>

#include "support/patience.hpp"

namespace evpl::test {

class Watchdog final : public testing::EmptyTestEventListener {
public:
    /// Seconds one test may take before sanitizers' patience; tests called Slow get ten times as much. EVPL_WATCHDOG_S: instead.
    static constexpr int test_limit_s = 60;

private:
    void OnTestProgramStart(const testing::UnitTest&) override {
        thread_ = std::thread([this] { watch(); });
    }
    void OnTestStart(const testing::TestInfo& info) override {
        const bool slow = std::string(info.name()).rfind("Slow", 0) == 0;
        std::lock_guard lock(mutex_);
        name_ = std::string(info.test_suite_name()) + "." + info.name();
        limit_ = std::chrono::steady_clock::now() + std::chrono::seconds(limit_s() * patience * (slow ? 10 : 1));
        armed_ = true;
        changed_.notify_all();
    }
    void OnTestEnd(const testing::TestInfo&) override {
        std::lock_guard lock(mutex_);
        armed_ = false;
        changed_.notify_all();
    }
    void OnTestProgramEnd(const testing::UnitTest&) override {
        {
            std::lock_guard lock(mutex_);
            over_ = true;
            changed_.notify_all();
        }
        thread_.join();
    }

    static int limit_s() {
        const char* text = std::getenv("EVPL_WATCHDOG_S");
        return text != nullptr ? std::atoi(text) : test_limit_s;
    }

    void watch() {
        sigset_t all;
        sigfillset(&all);
        pthread_sigmask(SIG_BLOCK, &all, nullptr);
        std::unique_lock lock(mutex_);
        while (!over_) {
            if (!armed_) {
                changed_.wait(lock);
            } else if (changed_.wait_until(lock, limit_) == std::cv_status::timeout && armed_ && std::chrono::steady_clock::now() >= limit_) {
                bark();
            }
        }
    }

    static void write_stack(int) {
        void* frames[64];
        const int count = backtrace(frames, 64);
        backtrace_symbols_fd(frames, count, STDERR_FILENO);
        const char line[] = "--\n";
        if (write(STDERR_FILENO, line, sizeof line - 1) < 0) return;
    }

    [[noreturn]] void bark() {
        std::fprintf(stderr, "\nWATCHDOG: %s takes too long; the stacks of all threads:\n", name_.c_str());
        struct sigaction action {};
        action.sa_handler = &write_stack;
        sigaction(SIGUSR2, &action, nullptr);
        if (DIR* tasks = opendir("/proc/self/task")) {
            const long self = syscall(SYS_gettid);
            while (const dirent* entry = readdir(tasks)) {
                const long thread = std::atol(entry->d_name);
                if (thread <= 0 || thread == self) continue;
                syscall(SYS_tgkill, getpid(), thread, SIGUSR2);
                const timespec nap{0, 200'000'000};
                nanosleep(&nap, nullptr);  // one stack after the other
            }
            closedir(tasks);
        }
        std::fprintf(stderr, "[  FAILED  ] %s (watchdog)\n", name_.c_str());
        std::fflush(nullptr);
        _exit(1);
    }

    std::mutex mutex_;
    std::condition_variable changed_;
    std::string name_;
    std::chrono::steady_clock::time_point limit_;
    bool armed_ = false;
    bool over_ = false;
    std::thread thread_;
};

/// Called by main() of a test program.
inline void keep_watch() { testing::UnitTest::GetInstance()->listeners().Append(new Watchdog); }

}  // namespace evpl::test
