#include "memory/slab.hpp"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <set>
#include <string>
#include <vector>

namespace evpl::memory {
namespace {

/// What the hook was told.
struct Watcher {
    std::set<std::byte*> there;
    std::size_t huge = 0;
    int surprises = 0;

    static void told(void* context, const SlabEvent& event) {
        auto& self = *static_cast<Watcher*>(context);
        self.surprises += event.size_bytes != slab_bytes;
        const bool fresh = event.appeared ? self.there.insert(event.base).second : self.there.erase(event.base) == 1;
        self.surprises += !fresh;
        self.huge += event.huge_pages && event.appeared;
        self.huge -= event.huge_pages && !event.appeared;
        if (!event.appeared) event.base[0] = std::byte{1};  // still mapped
    }
    Watcher() { set_slab_hook(&told, this); }
    ~Watcher() { set_slab_hook(nullptr, nullptr); }
};

Slab* take() {
    const auto taken = SlabStore::instance().take();
    EXPECT_TRUE(taken.ok());
    return taken ? *taken : nullptr;
}

bool is_mapped(void* page) {
    unsigned char resident;
    return mincore(page, 1, &resident) == 0 || errno != ENOMEM;
}

TEST(SlabTest, IsAlignedToItsSizeAndZero) {
    for (int i = 0; i < 5; ++i) {
        Slab* slab = take();
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(slab->base) % slab_bytes, 0u);
        EXPECT_TRUE(std::all_of(slab->base, slab->base + slab_bytes, [](std::byte b) { return b == std::byte{0}; }));
        slab->base[0] = slab->base[slab_bytes - 1] = std::byte{1};
        SlabStore::instance().give_back(slab);
    }
}

TEST(SlabTest, IsUnmappedWhenGivenBack) {
    Slab* slab = take();
    std::byte* const base = slab->base;
    base[0] = std::byte{1};
    EXPECT_TRUE(is_mapped(base));
    SlabStore::instance().give_back(slab);
    EXPECT_FALSE(is_mapped(base));
}

TEST(SlabTest, MemoryUseCountsTheSlabs) {
    const MemoryUse before = memory_use();
    EXPECT_GT(before.limit_bytes, slab_bytes);
    std::vector<Slab*> slabs;
    for (int i = 0; i < 3; ++i) slabs.push_back(take());
    EXPECT_EQ(memory_use().slab_bytes, before.slab_bytes + 3 * slab_bytes);
    std::swap(slabs[0], slabs[1]);  // the middle, an end, the rest
    for (Slab* slab : slabs) SlabStore::instance().give_back(slab);
    EXPECT_EQ(memory_use().slab_bytes, before.slab_bytes);
    EXPECT_EQ(memory_use().huge_bytes, before.huge_bytes);
}

TEST(SlabTest, TheLimitIsAnsweredAsOutOfBuffers) {
    const MemoryUse before = memory_use();
    limit_process_memory(before.slab_bytes);
    EXPECT_EQ(SlabStore::instance().take().error(), Errc::out_of_buffers);
    limit_process_memory(before.slab_bytes + slab_bytes - 1);
    EXPECT_EQ(SlabStore::instance().take().error(), Errc::out_of_buffers);
    EXPECT_EQ(memory_use().limit_bytes, before.slab_bytes + slab_bytes - 1);
    limit_process_memory(before.slab_bytes + slab_bytes);
    SlabStore::instance().give_back(take());
    limit_process_memory(0);  // below what is in use: nothing is taken away
    EXPECT_EQ(memory_use().slab_bytes, before.slab_bytes);
    limit_process_memory(before.limit_bytes);
}

TEST(SlabTest, TheHookIsToldOfSlabsComingAndGoing) {
    Watcher watcher;
    const std::size_t before = watcher.there.size();
    Slab* one = take();
    Slab* two = take();
    EXPECT_EQ(watcher.there.size(), before + 2);
    EXPECT_TRUE(watcher.there.contains(one->base) && watcher.there.contains(two->base));
    EXPECT_EQ(watcher.huge * slab_bytes, memory_use().huge_bytes);
    std::byte* const base = one->base;
    SlabStore::instance().give_back(one);
    EXPECT_FALSE(watcher.there.contains(base));
    SlabStore::instance().give_back(two);
    EXPECT_EQ(watcher.there.size(), before);
    EXPECT_EQ(watcher.surprises, 0);
}

TEST(SlabTest, ANewHookIsToldOfTheSlabsThatExist) {
    Slab* slab = take();
    {
        Watcher watcher;
        EXPECT_TRUE(watcher.there.contains(slab->base));
        EXPECT_EQ(watcher.there.size() * slab_bytes, memory_use().slab_bytes);
        SlabStore::instance().give_back(slab);
        EXPECT_EQ(watcher.there.size() * slab_bytes, memory_use().slab_bytes);
        EXPECT_EQ(watcher.surprises, 0);
    }
    SlabStore::instance().give_back(take());  // nobody is told any more
}

}  // namespace
}  // namespace evpl::memory
