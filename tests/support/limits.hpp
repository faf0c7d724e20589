#pragma once

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstddef>
#include <vector>

namespace evpl::test {

/// Raises this process's limit of open files as far as it goes; returns it.
inline std::size_t raise_file_limit() {
    rlimit limit{};
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    getrlimit(RLIMIT_NOFILE, &limit);
    return limit.rlim_cur;
}

/// Sets the soft limit while it lives.
class FileLimit {
public:
    explicit FileLimit(std::size_t most) {
        getrlimit(RLIMIT_NOFILE, &before_);
        const rlimit lower{most, before_.rlim_max};
        setrlimit(RLIMIT_NOFILE, &lower);
    }
    ~FileLimit() { lift(); }
    void lift() { setrlimit(RLIMIT_NOFILE, &before_); }

private:
    rlimit before_{};
};

/// The limit that lets this process open just `room` more descriptors.
inline std::size_t limit_with_room(std::size_t room) {
    std::vector<int> taken;
    for (std::size_t i = 0; i <= room; ++i) taken.push_back(fcntl(0, F_DUPFD_CLOEXEC, 0));
    for (const int fd : taken) ::close(fd);
    return std::size_t(taken.back());
}

/// CPU time of this process so far, in seconds.
inline double cpu_seconds() {
    rusage use{};
    getrusage(RUSAGE_SELF, &use);
    const auto seconds = [](const timeval& t) { return double(t.tv_sec) + double(t.tv_usec) * 1e-6; };
    return seconds(use.ru_utime) + seconds(use.ru_stime);
}

}  // namespace evpl::test
