// Runs every file of the folders (and every file) named on the command line through the fuzz target, and an empty input.
// --without-memory: and again for each allocation, which fails; preloaded is tests/failonce/shim.c. --inputs N: of the first N files only.
// --mutate SECONDS SEED FOLDER: plays mutations of the files for that long; FOLDER is for an input that breaks something (mutate.hpp).

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <new>
#include <random>
#include <vector>

#include "fuzz/mutate.hpp"
#include "fuzz/require.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

using evpl::fuzz::Input;

constexpr long allocations_max = 100'000;  // of one input

Input read(const std::filesystem::path& file) {
    std::ifstream stream(file, std::ios::binary);
    const std::vector<char> bytes(std::istreambuf_iterator<char>(stream), {});
    // On the heap and of exactly this size: reading past the end is noticed.
    return {bytes.begin(), bytes.end()};
}

void play(const Input& input) {
    try {
        LLVMFuzzerTestOneInput(input.data(), input.size());
    } catch (const evpl::fuzz::Excused&) {
    } catch (const std::bad_alloc&) {  // an allocation of the target itself
    }
}

/// Each allocation fails in turn. Returns how many there are, or -1: blocks were left.
long play_without_memory(const Input& input) {
    for (long nth = 1; nth <= allocations_max; ++nth) {
        failonce_fail_memory(nth);
        const long before = failonce_live_blocks();
        failonce_arm();
        play(input);
        failonce_disarm();
        const long left = failonce_live_blocks() - before;
        if (failonce_injected() == 0) return nth - 1;
        if (left <= 0) continue;
        // What is made once stays: then a second run leaves nothing.
        const long again = failonce_live_blocks();
        play(input);
        failonce_fail_memory(nth);
        failonce_arm();
        play(input);
        failonce_disarm();
        if (failonce_live_blocks() <= again) continue;
        std::printf("FAILED: %ld blocks are left when allocation %ld fails\n", failonce_live_blocks() - again, nth);
        return -1;
    }
    std::printf("FAILED: more than %ld allocations\n", allocations_max);
    return -1;
}

/// The words are seconds, a seed, of which 0 is another one each time, and a folder.
int play_mutations(const std::vector<Input>& inputs, char** words) {
    const std::uint64_t seed = std::strtoull(words[1], nullptr, 10);
    evpl::fuzz::Mutations mutations(inputs, seed != 0 ? seed : std::random_device{}());
    return mutations.run(std::chrono::seconds(std::strtoul(words[0], nullptr, 10)), words[2], play);
}

std::vector<std::filesystem::path> files_of(char** from, char** end) {
    std::vector<std::filesystem::path> files;
    for (; from != end; ++from) {
        if (std::filesystem::is_regular_file(*from)) files.emplace_back(*from);
        if (!std::filesystem::is_directory(*from)) continue;
        for (const auto& entry : std::filesystem::recursive_directory_iterator(*from)) {
            if (entry.is_regular_file()) files.push_back(entry.path());
        }
    }
    std::sort(files.begin(), files.end());
    return files;
}

}  // namespace

int main(int argc, char** argv) {
    int at = 1;
    // The `values` words after an option that stands next; null where another one stands.
    const auto option = [&](const char* name, int values) -> char** {
        if (at + values >= argc || std::strcmp(argv[at], name) != 0) return nullptr;
        at += 1 + values;
        return argv + at - values;
    };
    const bool without_memory = option("--without-memory", 0) != nullptr;
    std::size_t most = SIZE_MAX;
    if (char** const words = option("--inputs", 1)) most = std::strtoul(words[0], nullptr, 10);
    char** const mutate = option("--mutate", 3);
    if (without_memory && (failonce_fail_memory == nullptr || (failonce_fail_memory(1), failonce_live_blocks() == 0))) {
        std::printf("SKIP: allocations do not fail here: a sanitizer brings its own\n");
        return 77;
    }
    std::vector<Input> inputs(1);
    for (const auto& file : files_of(argv + at, argv + argc)) {
        if (inputs.size() <= most) inputs.push_back(read(file));
    }
    if (mutate != nullptr) return play_mutations(inputs, mutate);
    long failures = 0;
    for (const Input& input : inputs) {
        play(input);
        if (!without_memory) continue;
        const long allocations = play_without_memory(input);
        if (allocations < 0) return 1;
        failures += allocations;
    }
    std::printf("%zu inputs replayed, %ld allocations failed\n", inputs.size() - 1, failures);
    return without_memory && failures == 0 ? 1 : 0;
}
