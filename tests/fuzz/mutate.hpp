#pragma once

// Fuzzing where there is no libFuzzer: mutations of a corpus, without knowing which lines they reach. A child process plays them; its parent sees
// it break, stand still or grow, and keeps the input that did it. An input follows from the corpus, the seed and its number alone.

#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <new>
#include <span>
#include <string>
#include <vector>

#include "transport/sim/random.hpp"

namespace evpl::fuzz {

using Input = std::vector<std::uint8_t>;
using Random = transport::sim::Random;

constexpr std::size_t mutated_bytes_max = 4096;  // longer inputs are not lengthened

/// Some bytes of `input` that lie together; none of an empty one.
inline std::span<const std::uint8_t> some_of(const Input& input, Random& random) {
    if (input.empty()) return {};
    const std::size_t first = random.below(input.size());
    return {input.data() + first, 1 + random.below(std::min<std::size_t>(input.size() - first, 64))};
}

inline void insert(Input& input, std::size_t at, std::span<const std::uint8_t> bytes) {
    const Input copy(bytes.begin(), bytes.end());  // they may be the input's own
    if (input.size() + copy.size() <= mutated_bytes_max) input.insert(input.begin() + std::ptrdiff_t(at), copy.begin(), copy.end());
}

/// A number of one to eight bytes at the border of something, in either order of bytes.
inline void put_border(Input& input, std::size_t at, Random& random) {
    const std::size_t bytes = std::min(std::size_t(1) << random.below(4), input.size() - at);
    const std::uint64_t value = (std::uint64_t(1) << random.below(8 * bytes)) - random.below(3) + 1;  // a power of two, or beside one
    const bool big_endian = random.below(2) == 0;
    for (std::size_t i = 0; i < bytes; ++i) input[at + i] = std::uint8_t(value >> 8 * (big_endian ? bytes - 1 - i : i));
}

inline void mutate_once(Input& input, const Input& other, Random& random) {
    const std::size_t at = random.below(input.size() + 1);
    const bool is_inside = at < input.size();
    switch (random.below(8)) {
    case 0:
        if (is_inside) input[at] ^= std::uint8_t(1u << random.below(8));
        break;
    case 1:
        if (is_inside) input[at] = std::uint8_t(random.next());
        break;
    case 2:
        if (is_inside) put_border(input, at, random);
        break;
    case 3: {
        const std::uint64_t bytes = random.next();
        insert(input, at, {reinterpret_cast<const std::uint8_t*>(&bytes), 1 + random.below(sizeof bytes)});
        break;
    }
    case 4:
        if (is_inside)
            input.erase(input.begin() + std::ptrdiff_t(at),
                        input.begin() + std::ptrdiff_t(at + 1 + random.below(std::min<std::size_t>(input.size() - at, 64))));
        break;
    case 5: insert(input, at, some_of(input, random)); break;
    case 6: insert(input, at, some_of(other, random)); break;
    case 7:  // ends as another one does
        input.resize(at);
        if (at < other.size()) input.insert(input.end(), other.begin() + std::ptrdiff_t(at), other.end());
        break;
    }
}

/// The n-th input of a seed.
inline Input mutated(const std::vector<Input>& corpus, std::uint64_t seed, std::uint64_t n) {
    Random random(seed ^ n * 0x9e3779b97f4a7c15u);
    Input input = corpus[random.below(corpus.size())];
    for (std::uint64_t left = 1 + random.below(8); left > 0; --left) mutate_once(input, corpus[random.below(corpus.size())], random);
    input.shrink_to_fit();  // reading past the end is noticed
    return input;
}

/// Plays mutations in a child process, and watches it.
class Mutations {
public:
    Mutations(const std::vector<Input>& corpus, std::uint64_t seed) : corpus_(corpus), seed_(seed) {
        void* const shared = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (shared != MAP_FAILED) shared_ = new (shared) Shared;
    }
    Mutations(const Mutations&) = delete;
    Mutations& operator=(const Mutations&) = delete;
    ~Mutations() {
        if (shared_ != nullptr) munmap(shared_, sizeof(Shared));
    }

    /// For so long; says what came of it, and leaves in the folder the input that broke something. 0: none did.
    template <class Play>
    int run(std::chrono::seconds time, const std::filesystem::path& folder, Play play) {
        std::fflush(nullptr);
        const pid_t child = shared_ != nullptr ? fork() : -1;
        if (child < 0) return say("FAILED: there is no child process to play in");
        if (child == 0) {
            const auto end = std::chrono::steady_clock::now() + time;
            for (std::uint64_t n = 0; std::chrono::steady_clock::now() < end; shared_->played.store(++n)) play(mutated(corpus_, seed_, n));
            shared_->all_played.store(true);
            std::exit(0);  // a sanitizer looks for leaks now
        }
        const std::string why = watch(child);
        const std::uint64_t played = shared_->played.load();
        if (why.empty() && played == 0) return say("FAILED: no input was played");
        std::printf("%llu mutations played in %lld s, seed %llu\n", ull(played), static_cast<long long>(time.count()), ull(seed_));
        if (why.empty()) return 0;
        if (shared_->all_played.load()) return say("FAILED: after the last one the program " + why);
        return say("FAILED: the next one " + why + ": " + keep(mutated(corpus_, seed_, played), folder));
    }

private:
    struct Shared {
        std::atomic<std::uint64_t> played = 0;
        std::atomic<bool> all_played = false;
    };
    static constexpr auto still_max = std::chrono::seconds(30);
    static constexpr std::size_t resident_bytes_max = std::size_t(2) << 30;

    static unsigned long long ull(std::uint64_t n) { return n; }
    static int say(const std::string& text) {
        std::printf("%s\n", text.c_str());
        return 1;
    }
    static std::size_t resident_bytes(pid_t process) {
        std::size_t all = 0, resident = 0;
        std::ifstream("/proc/" + std::to_string(process) + "/statm") >> all >> resident;
        return resident * std::size_t(sysconf(_SC_PAGESIZE));
    }
    static std::string end_of(int status) {
        if (WIFSIGNALED(status)) return std::string("was ended by a signal: ") + strsignal(WTERMSIG(status));
        return WEXITSTATUS(status) == 0 ? "" : "ended with code " + std::to_string(WEXITSTATUS(status));
    }

    /// Until the child has ended: why that is a failure, or nothing.
    std::string watch(pid_t child) const {
        const int descriptor = int(syscall(SYS_pidfd_open, child, 0));
        pollfd ended{descriptor, POLLIN, 0};  // without a descriptor, time passes
        const std::string why = watch(child, ended);
        if (descriptor >= 0) ::close(descriptor);
        return why;
    }
    std::string watch(pid_t child, pollfd& ended) const {
        std::string why;
        std::uint64_t last = 0;
        auto moved = std::chrono::steady_clock::now();
        for (;;) {
            int status = 0;
            if (waitpid(child, &status, WNOHANG) != 0) return why.empty() ? end_of(status) : why;
            const auto now = std::chrono::steady_clock::now();
            if (const std::uint64_t played = shared_->played.load(); played != last) {
                last = played;
                moved = now;
            }
            if (now - moved > still_max) why = "did not end";
            if (resident_bytes(child) > resident_bytes_max) why = "took more than 2 GiB of memory";
            if (!why.empty()) kill(child, SIGKILL);
            ::poll(&ended, 1, 100);
        }
    }

    /// Where the input is now.
    std::string keep(const Input& input, const std::filesystem::path& folder) const {
        std::error_code failure;
        std::filesystem::create_directories(folder, failure);
        const auto file = folder / (std::string(program_invocation_short_name) + "-" + std::to_string(seed_) + "-" + std::to_string(shared_->played.load()));
        std::ofstream(file, std::ios::binary).write(reinterpret_cast<const char*>(input.data()), std::streamsize(input.size()));
        return file.string();
    }

    const std::vector<Input>& corpus_;
    const std::uint64_t seed_;
    Shared* shared_ = nullptr;
};

}  // namespace evpl::fuzz
