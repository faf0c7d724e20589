// Slabs in huge pages. They are the machine's: the test that adds some has it for itself.
#include <gtest/gtest.h>

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "memory/slab.hpp"

namespace evpl::memory {
namespace {

/// The system's number of 2 MiB pages, put back at the end.
class HugePages {
public:
    explicit HugePages(long wanted) : before_(read("nr_hugepages")) {
        if (before_ >= 0) write(before_ + wanted);
    }
    ~HugePages() {
        if (before_ >= 0) write(before_);
    }
    static long free_now() { return read("free_hugepages"); }
    static long all() { return read("nr_hugepages"); }

private:
    static FILE* open(const char* name, const char* how) { return std::fopen((std::string("/sys/kernel/mm/hugepages/hugepages-2048kB/") + name).c_str(), how); }
    static long read(const char* name) {
        long pages = -1;
        if (FILE* file = open(name, "r")) {
            if (std::fscanf(file, "%ld", &pages) != 1) pages = -1;
            std::fclose(file);
        }
        return pages;
    }
    static void write(long pages) {
        if (FILE* file = open("nr_hugepages", "w")) {
            std::fprintf(file, "%ld", pages);
            std::fclose(file);
        }
    }
    const long before_;
};

/// What the slab hook tells of huge ones.
struct HugeSlabs {
    std::size_t count = 0;

    static void told(void* context, const SlabEvent& event) {
        if (event.huge_pages) static_cast<HugeSlabs*>(context)->count += event.appeared ? 1 : std::size_t(-1);
    }
    HugeSlabs() { set_slab_hook(&told, this); }
    ~HugeSlabs() { set_slab_hook(nullptr, nullptr); }
};

/// Of this process alone: other tests use the machine's pages meanwhile.
long own_huge_kb() {
    long kb = 0;
    char line[200];
    FILE* const file = std::fopen("/proc/self/smaps_rollup", "r");
    while (file != nullptr && std::fgets(line, sizeof line, file) != nullptr) (void)std::sscanf(line, "Private_Hugetlb: %ld kB", &kb);
    if (file != nullptr) std::fclose(file);
    return kb;
}

Slab* take() {
    const auto taken = SlabStore::instance().take();
    EXPECT_TRUE(taken.ok());
    return taken ? *taken : nullptr;
}

TEST(HugePagesTest, UsesNormalPagesWithoutFreeHugeOnes) {
    if (HugePages::free_now() > 0) GTEST_SKIP() << "this machine has free huge pages";
    const MemoryUse before = memory_use();
    Slab* slab = take();
    EXPECT_FALSE(slab->huge);
    EXPECT_EQ(memory_use().huge_bytes, before.huge_bytes);
    SlabStore::instance().give_back(slab);
}

TEST(HugePagesTest, UsesHugePagesWhileThereAreAny) {
    const HugePages pages(2);
    const long all = HugePages::all();
    if (HugePages::free_now() < 1 || all < 1) GTEST_SKIP() << "no huge page could be had (needs root and 2 MiB of unbroken memory)";
    const MemoryUse before = memory_use();
    const long kb_before = own_huge_kb();
    HugeSlabs slabs;
    Slab* huge = take();
    if (!huge->huge) {
        SlabStore::instance().give_back(huge);
        GTEST_SKIP() << "huge pages are free, but not for this control group";
    }
    EXPECT_EQ(memory_use().huge_bytes, before.huge_bytes + slab_bytes);
    EXPECT_EQ(slabs.count * slab_bytes, memory_use().huge_bytes);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(huge->base) % slab_bytes, 0u);
    huge->base[slab_bytes - 1] = std::byte{1};
    EXPECT_EQ(own_huge_kb(), kb_before + long(slab_bytes >> 10));
    std::vector<Slab*> more;
    for (long i = 0; i < all; ++i) more.push_back(take());  // one more than there are
    EXPECT_FALSE(more.back()->huge) << "falls back to normal pages";
    more.back()->base[slab_bytes - 1] = std::byte{1};
    for (Slab* slab : more) SlabStore::instance().give_back(slab);
    SlabStore::instance().give_back(huge);
    EXPECT_EQ(own_huge_kb(), kb_before);
    EXPECT_EQ(memory_use().huge_bytes, before.huge_bytes);
    EXPECT_EQ(slabs.count * slab_bytes, before.huge_bytes);
}

}  // namespace
}  // namespace evpl::memory
