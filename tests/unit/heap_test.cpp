#include "memory/heap.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "evpl/chain.hpp"
#include "evpl/loop.hpp"
#include "evpl/memory.hpp"
#include "evpl/parcel.hpp"
#include "memory/array_pool.hpp"
#include "memory/ring_queue.hpp"
#include "support/leave.hpp"
#include "unit/property.hpp"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define EVPL_TEST_SANITIZED 1
#endif

namespace evpl::memory {
namespace {

struct Retire {
    void operator()(Heap* heap) const noexcept { heap->retire(); }
};
using OwnHeap = std::unique_ptr<Heap, Retire>;

OwnHeap heap_of(std::size_t slabs = 64) { return OwnHeap(Heap::create(slabs * slab_bytes)); }

void flush_current() {
    if (Heap* here = Heap::current()) here->flush_departures();
}

/// As if `heap`'s loop ran on this thread.
class Running {
public:
    explicit Running(Heap& heap) noexcept : before_(Heap::current()) { Heap::set_current(&heap); }
    ~Running() {
        flush_current();
        Heap::set_current(before_);
    }

private:
    Heap* before_;
};

Buffer must(Result<Buffer> made) {
    EXPECT_TRUE(made.ok()) << name_of(made.error().code());
    return made ? *std::move(made) : Buffer();
}

Parcel pack(Buffer buffer) { return std::move(buffer).pack(); }

/// The loop only says on whose thread we are.
Buffer open(Parcel parcel) {
    Loop loop;
    return std::move(parcel).open(loop);
}

void fill(const Buffer& buffer, unsigned value) { std::memset(buffer.data(), int(value), buffer.size()); }
bool is_filled(const Buffer& buffer, unsigned value) {
    for (const std::byte b : buffer.bytes()) {
        if (b != std::byte(value)) return false;
    }
    return true;
}

/// The process's slabs are as they were, whatever the test did.
class HeapTest : public testing::Test {
protected:
    ~HeapTest() override {
        EXPECT_EQ(memory_use().slab_bytes, before_);
        Heap::set_current(nullptr);
    }
    std::size_t slabs() const { return (memory_use().slab_bytes - before_) / slab_bytes; }

private:
    const std::size_t before_ = memory_use().slab_bytes;
};

struct Released {
    int times = 0;
    std::thread::id thread;
    static void call(void* context) {
        auto& self = *static_cast<Released*>(context);
        ++self.times;
        self.thread = std::this_thread::get_id();
    }
};

// -- taking ------------------------------------------------------------------------------------------------------------------

TEST_F(HeapTest, AClassIsTheSmallestThatFits) {
    for (unsigned c = 0; c < size_classes; ++c) {
        EXPECT_EQ(size_class_of(class_bytes(c)), c);
        EXPECT_EQ(size_class_of(class_bytes(c) / 2 + 1), c == 0 ? 0u : c);
        EXPECT_EQ(size_class_of(class_bytes(c) + 1), c + 1);
    }
    EXPECT_EQ(size_class_of(0), 0u);
    EXPECT_EQ(class_bytes(size_classes - 1), block_bytes_max);
    for_all([] {
        const auto bytes = *rc::gen::inRange<std::uint32_t>(1, block_bytes_max + 1);
        const unsigned c = size_class_of(bytes);
        RC_ASSERT(class_bytes(c) >= bytes);
        RC_ASSERT((c == 0 || class_bytes(c - 1) < bytes));
    });
}

TEST_F(HeapTest, GivesWhatWasAskedFromTheFittingClass) {
    const auto heap = heap_of();
    for (const std::uint32_t bytes : {1u, 2048u, 2049u, 5000u, 1u << 20, block_bytes_max}) {
        const Buffer buffer = must(heap->allocate(bytes));
        EXPECT_EQ(buffer.size(), bytes);
        EXPECT_EQ(block_bytes(buffer), class_bytes(size_class_of(bytes)));
        fill(buffer, 7);
    }
    EXPECT_EQ(heap->blocks_out(), 0u);
}

TEST_F(HeapTest, RefusesMoreThanTheLargestBlock) {
    const auto heap = heap_of();
    EXPECT_EQ(heap->allocate(block_bytes_max + 1).error(), Errc::too_large);
    EXPECT_EQ(heap->allocate(UINT32_MAX).error(), Errc::too_large);
    EXPECT_EQ(heap->slab_bytes_held(), 0u);
}

TEST_F(HeapTest, TheLastGivenBackIsTheNextTaken) {
    const auto heap = heap_of();
    Buffer first = must(heap->allocate(100)), second = must(heap->allocate(100));
    const std::byte* const was_first = first.data();
    const std::byte* const was_second = second.data();
    EXPECT_EQ(was_second, was_first + block_bytes_min) << "a fresh slab is cut from the lowest address";
    second.reset();
    first.reset();
    EXPECT_EQ(must(heap->allocate(2000)).data(), was_first);
    Buffer again = must(heap->allocate(1)), after = must(heap->allocate(1));
    EXPECT_EQ(again.data(), was_first);
    EXPECT_EQ(after.data(), was_second);
}

TEST_F(HeapTest, BlocksDoNotOverlap) {
    const auto heap = heap_of(8);
    std::vector<Buffer> out;
    for (unsigned i = 0; i < 1100; ++i) fill(out.emplace_back(must(heap->allocate(2048))), i & 255);  // more than a slab
    for (unsigned i = 0; i < 20; ++i) fill(out.emplace_back(must(heap->allocate(100'000))), (i + 1100) & 255);
    for (unsigned i = 0; i < out.size(); ++i) EXPECT_TRUE(is_filled(out[i], i & 255)) << i;
    EXPECT_EQ(heap->blocks_out(), out.size());
}

TEST_F(HeapTest, CopiesWhatItIsGiven) {
    const auto heap = heap_of();
    std::vector<std::byte> bytes(5000, std::byte{42});
    EXPECT_TRUE(is_filled(must(heap->copy(bytes.data(), 5000)), 42));
    EXPECT_EQ(must(heap->copy(nullptr, 0)).size(), 0u);
}

// -- limits ------------------------------------------------------------------------------------------------------------------

TEST_F(HeapTest, AnswersOutOfBuffersAtTheLoopsLimit) {
    const auto heap = heap_of(2);
    Buffer first = must(heap->allocate(block_bytes_max));
    const Buffer second = must(heap->allocate(block_bytes_max));
    EXPECT_EQ(heap->allocate(1).error(), Errc::out_of_buffers);
    EXPECT_EQ(heap->slab_bytes_held(), 2 * slab_bytes);
    first.reset();
    EXPECT_TRUE(must(heap->allocate(block_bytes_max))) << "usable again";
}

TEST_F(HeapTest, AtTheLimitFreeSlabsOfOtherClassesMakeRoom) {
    const auto heap = heap_of(1);
    must(heap->allocate(block_bytes_max)).reset();
    EXPECT_TRUE(must(heap->allocate(1)));
    EXPECT_TRUE(must(heap->allocate(block_bytes_max)));
}

TEST_F(HeapTest, ALimitBelowASlabAllowsOne) {
    const OwnHeap heap(Heap::create(0));
    const Buffer only = must(heap->allocate(block_bytes_max));
    EXPECT_EQ(heap->allocate(1).error(), Errc::out_of_buffers);
}

TEST_F(HeapTest, AnswersOutOfBuffersAtTheProcessesLimit) {
    const MemoryUse use = memory_use();
    limit_process_memory(use.slab_bytes + slab_bytes);
    const auto one = heap_of(), other = heap_of();
    Buffer held = must(one->allocate(1));
    EXPECT_EQ(other->allocate(1).error(), Errc::out_of_buffers);
    EXPECT_EQ(one->allocate(block_bytes_max).error(), Errc::out_of_buffers);
    held.reset();
    while (one->trim()) {}
    EXPECT_TRUE(must(other->allocate(1)));
    limit_process_memory(use.limit_bytes);
    EXPECT_TRUE(must(one->allocate(1)));
}

// -- shrinking ---------------------------------------------------------------------------------------------------------------

TEST_F(HeapTest, TwoTrimsGiveFreeSlabsBack) {
    const auto heap = heap_of();
    must(heap->allocate(1)).reset();
    must(heap->allocate(block_bytes_max)).reset();
    EXPECT_EQ(slabs(), 2u);
    EXPECT_TRUE(heap->trim());
    EXPECT_EQ(slabs(), 2u) << "one look is no proof of idleness";
    EXPECT_FALSE(heap->trim());
    EXPECT_EQ(slabs(), 0u);
    EXPECT_EQ(heap->slab_bytes_held(), 0u);
}

TEST_F(HeapTest, ASlabWithOneBlockOutStays) {
    const auto heap = heap_of();
    std::vector<Buffer> out;
    for (int i = 0; i < 1025; ++i) out.push_back(must(heap->allocate(2048)));  // two slabs
    Buffer kept = std::move(out[500]);
    fill(kept, 3);
    out.clear();
    while (heap->trim()) {}
    EXPECT_EQ(slabs(), 1u);
    EXPECT_TRUE(is_filled(kept, 3));
    for (int i = 0; i < 1023; ++i) out.push_back(must(heap->allocate(2048)));
    EXPECT_EQ(slabs(), 1u) << "the other blocks of the slab that stayed are all usable";
    for (const Buffer& buffer : out) fill(buffer, 9);
    EXPECT_TRUE(is_filled(kept, 3));
    kept.reset();
    out.clear();
    while (heap->trim()) {}
    EXPECT_EQ(slabs(), 0u);
}

TEST_F(HeapTest, ABlockUsedAtTheTrimKeepsItsSlabForTwoMore) {
    const auto heap = heap_of();
    must(heap->allocate(1)).reset();
    EXPECT_TRUE(heap->trim());
    {
        const Buffer used = must(heap->allocate(1));
        EXPECT_FALSE(heap->trim());
    }
    EXPECT_TRUE(heap->trim());
    EXPECT_EQ(slabs(), 1u);
    EXPECT_FALSE(heap->trim());
    EXPECT_EQ(slabs(), 0u);
}

// Goal: trimming walks each free list once, not once per slab: 160 slabs took 160 walks over 160'000 blocks.
// Method: only the result is asserted; with the quadratic walk the test takes a second instead of some milliseconds.
TEST_F(HeapTest, ABurstOfSmallBlocksIsTrimmedInOneWalk) {
    const auto heap = heap_of(200);
    std::vector<Buffer> out;
    for (unsigned i = 0; i < 160 * 1024; ++i) out.push_back(must(heap->allocate(1)));
    EXPECT_EQ(slabs(), 160u);
    for (unsigned i = 0; i < out.size(); i += 7) out[i].reset();  // the free list visits the slabs out of order
    Buffer kept = std::move(out[77'778]);
    out.clear();
    while (heap->trim()) {}
    EXPECT_EQ(slabs(), 1u);
}

TEST_F(HeapTest, ASteadyStateAllocatesNothing) {
    const auto heap = heap_of();
    const Running running(*heap);
    const auto round = [&] {
        std::vector<Buffer> out;
        for (std::uint32_t bytes = 1; bytes <= block_bytes_max; bytes *= 2) out.push_back(must(heap->allocate(bytes)));
        std::byte mine[10];
        out.push_back(must(heap->wrap(mine, 10, nullptr, nullptr)));
        for (Buffer& buffer : out) Parcel(pack(buffer.share()));
        out.clear();
        heap->drain_returns();
    };
    round();
    const std::uint64_t before = heap->allocations();
    EXPECT_GT(before, 0u);
    for (int i = 0; i < 100; ++i) round();
    EXPECT_EQ(heap->allocations(), before);
}

// -- wrapped memory ----------------------------------------------------------------------------------------------------------

TEST_F(HeapTest, WrappedMemoryIsReleasedOnceWithTheLastReference) {
    const auto heap = heap_of();
    Released released;
    std::byte mine[100] = {};
    Buffer whole = must(heap->wrap(mine, 100, &Released::call, &released));
    EXPECT_EQ(whole.data(), mine);
    EXPECT_EQ(block_bytes(whole), 100u);
    Buffer part = whole.share(10, 20);
    whole.reset();
    EXPECT_EQ(released.times, 0);
    part.reset();
    EXPECT_EQ(released.times, 1);
    part.reset();
    EXPECT_EQ(released.times, 1);
    EXPECT_EQ(slabs(), 0u) << "wrapping needs no slab";
}

TEST_F(HeapTest, WrappedMemoryThatTravelledIsReleasedAtHome) {
    const auto heap = heap_of();
    Released released;
    std::byte mine[100] = {};
    Parcel parcel = pack(must(heap->wrap(mine, 100, &Released::call, &released)));
    std::thread([&parcel] { Parcel(std::move(parcel)); }).join();
    EXPECT_EQ(released.times, 0);
    heap->drain_returns();
    EXPECT_EQ(released.times, 1);
    EXPECT_EQ(released.thread, std::this_thread::get_id());
}

TEST_F(HeapTest, AReleaseMayUseItsHeap) {
    auto heap = heap_of();
    struct Context {
        Heap& heap;
        Buffer other;
        Buffer made;
        static void call(void* context) {
            auto& self = *static_cast<Context*>(context);
            self.other.reset();
            self.made = must(self.heap.allocate(10));
        }
    } context{*heap, must(heap->allocate(10)), {}};
    std::byte mine[1];
    must(heap->wrap(mine, 1, &Context::call, &context)).reset();
    EXPECT_TRUE(context.made);
    EXPECT_EQ(heap->blocks_out(), 1u);
    context.made.reset();
}

// -- proxies -----------------------------------------------------------------------------------------------------------------

TEST_F(HeapTest, AParcelsBlockComesHome) {
    const auto home = heap_of(), away = heap_of();
    Buffer sent = must(home->allocate(100));
    const std::byte* const data = sent.data();
    fill(sent, 5);
    {
        const Running running(*away);
        Buffer there = open(pack(std::move(sent)));
        EXPECT_EQ(there.data(), data);
        EXPECT_TRUE(is_filled(there, 5));
        EXPECT_EQ(block_bytes(there), block_bytes_min);
        const Buffer part = there.share(50, 50);
        there.reset();
        home->drain_returns();
        EXPECT_EQ(home->blocks_out(), 1u) << "a part is still in use";
    }
    EXPECT_EQ(home->blocks_out(), 1u);
    home->drain_returns();
    EXPECT_EQ(home->blocks_out(), 0u);
}

TEST_F(HeapTest, ASoleProxyTravelsOnWithoutAnother) {
    const auto home = heap_of(), second = heap_of(), third = heap_of();
    Buffer there;
    {
        const Running running(*second);
        there = open(pack(must(home->allocate(100))));
        there.drop_front(40);
    }
    {
        const Running running(*third);
        const Buffer further = open(pack(std::move(there)));
        EXPECT_EQ(further.size(), 60u);
    }
    EXPECT_EQ(second->allocations(), 0u);
    home->drain_returns();
    EXPECT_EQ(home->blocks_out(), 0u);
}

TEST_F(HeapTest, AProxyOfAProxyFindsItsWayBack) {
    const auto home = heap_of(), second = heap_of(), third = heap_of();
    Buffer kept, further;
    {
        const Running running(*second);
        kept = open(pack(must(home->allocate(100))));
        further = open(pack(kept.share(0, 10)));  // the block is in use on `second` as well
        EXPECT_NE(BufferAccess::block(further), BufferAccess::block(kept));
        EXPECT_EQ(block_bytes(further), block_bytes_min);
    }
    {
        const Running running(*third);
        further.reset();
    }
    second->drain_returns();
    home->drain_returns();
    EXPECT_EQ(home->blocks_out(), 1u) << "`second` still has it";
    kept.reset();
    home->drain_returns();
    EXPECT_EQ(home->blocks_out(), 0u);
}

TEST_F(HeapTest, ABlockLetGoAtHomeIsUsableAtOnce) {
    const auto heap = heap_of(1);
    const Running running(*heap);
    Parcel parcel = pack(must(heap->allocate(block_bytes_max)));
    parcel = {};
    EXPECT_TRUE(must(heap->allocate(block_bytes_max)));
    Buffer home_again = open(pack(must(heap->allocate(block_bytes_max))));
    Parcel second = pack(home_again.share());  // a proxy of a proxy, all of one heap
    home_again.reset();
    second = {};
    EXPECT_TRUE(must(heap->allocate(block_bytes_max)));
}

TEST_F(HeapTest, DeparturesToManyHomesAllArrive) {
    std::vector<OwnHeap> homes;
    std::vector<Parcel> parcels;
    for (int i = 0; i < 30; ++i) homes.push_back(heap_of());
    for (int i = 0; i < 300; ++i) parcels.push_back(pack(must(homes[unsigned(i) % 30]->allocate(10))));
    {
        const auto here = heap_of();
        const Running running(*here);
        parcels.clear();
    }
    for (const auto& home : homes) {
        home->drain_returns();
        EXPECT_EQ(home->blocks_out(), 0u);
    }
}

TEST_F(HeapTest, AnEmptyBufferMakesAnEmptyParcel) {
    EXPECT_FALSE(pack(Buffer()));
    EXPECT_FALSE(open(Parcel()));
}

// -- after the loop ----------------------------------------------------------------------------------------------------------

TEST_F(HeapTest, ARetiredHeapStaysForItsBlocks) {
    auto heap = heap_of();
    Released released;
    std::byte mine[10];
    Buffer block = must(heap->allocate(100)), wrapped = must(heap->wrap(mine, 10, &Released::call, &released));
    Buffer part = block.share(10, 10);
    heap.reset();
    EXPECT_EQ(slabs(), 1u);
    fill(block, 1);
    block.reset();
    EXPECT_TRUE(is_filled(part, 1));
    part.reset();
    EXPECT_EQ(slabs(), 1u);
    wrapped.reset();
    EXPECT_EQ(released.times, 1);
    EXPECT_EQ(slabs(), 0u);
}

TEST_F(HeapTest, ARetiredHeapsParcelsMayBeLetGoOnAnyThread) {
    auto heap = heap_of();
    std::vector<Parcel> parcels;
    for (int i = 0; i < 200; ++i) parcels.push_back(pack(must(heap->allocate(100))));
    heap.reset();
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < 4; ++t) {
        threads.emplace_back([&parcels, t] {
            for (unsigned i = t; i < parcels.size(); i += 4) Parcel(std::move(parcels[i]));
        });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(slabs(), 0u);
}

// Goal: a Buffer that outlives its loop is counted on its thread while parcels of the same block end on others.
TEST_F(HeapTest, ARetiredHeapCountsBuffersHereAndParcelsThere) {
    for (int round = 0; round < 50; ++round) {
        auto heap = heap_of();
        Buffer kept = must(heap->allocate(1000));
        std::vector<Parcel> parcels;
        for (int i = 0; i < 20; ++i) parcels.push_back(pack(kept.share()));
        heap.reset();
        std::thread other([&parcels] { parcels.clear(); });
        for (int i = 0; i < 100; ++i) (void)kept.share();
        Parcel late = pack(kept.share());
        if (round % 2 == 0) kept.reset();
        other.join();
        EXPECT_EQ(slabs(), 1u);
        kept.reset();
        EXPECT_EQ(slabs(), 1u);
        std::thread([&late] { Parcel(std::move(late)); }).join();
        EXPECT_EQ(slabs(), 0u);
    }
}

TEST_F(HeapTest, ARetiredGuestCountsItsProxiesApartToo) {
    for (int round = 0; round < 50; ++round) {
        const auto home = heap_of();
        auto guest = heap_of();
        Buffer kept;
        std::vector<Parcel> parcels;
        {
            const Running running(*guest);
            kept = open(pack(must(home->allocate(100))));
            for (int i = 0; i < 20; ++i) parcels.push_back(pack(kept.share()));
        }
        guest.reset();
        std::thread other([&parcels] { parcels.clear(); });
        for (int i = 0; i < 100; ++i) (void)kept.share();
        kept.reset();
        other.join();
        home->drain_returns();
        EXPECT_EQ(home->blocks_out(), 0u);
    }
}

// Goal: what going home to a retired heap sets free departs in its turn, also when that home was served already.
TEST_F(HeapTest, ADepartureCausedByADepartureIsNotLost) {
    const auto first = heap_of();
    auto retired = heap_of();
    Buffer via;
    Parcel direct = pack(must(first->allocate(10)));
    Parcel twice;
    {
        const Running running(*retired);
        via = open(pack(must(first->allocate(10))));
        twice = pack(via.share());
        via.reset();
    }
    retired.reset();  // stays for `twice`, whose end is the end of a proxy of `first`
    {
        const auto here = heap_of();
        const Running running(*here);
        direct = {};
        twice = {};
        flush_current();
    }
    first->drain_returns();
    EXPECT_EQ(first->blocks_out(), 0u);
}

TEST_F(HeapTest, ADepartureSetOffByAReleaseIsNotLost) {
    auto retired = heap_of();
    const auto first = heap_of();
    struct Context {
        std::vector<Parcel> more;
        static void call(void* context) { static_cast<Context*>(context)->more.clear(); }
    } context;
    std::vector<OwnHeap> others;
    for (int i = 0; i < 20; ++i) context.more.push_back(pack(must(others.emplace_back(heap_of())->allocate(10))));
    context.more.push_back(pack(must(first->allocate(10))));
    std::byte mine[1];
    Parcel wrapped = pack(must(retired->wrap(mine, 1, &Context::call, &context)));
    Parcel direct = pack(must(first->allocate(10)));
    retired.reset();
    {
        const auto here = heap_of();
        const Running running(*here);
        direct = {};
        wrapped = {};
    }
    first->drain_returns();
    EXPECT_EQ(first->blocks_out(), 0u);
    for (const auto& other : others) {
        other->drain_returns();
        EXPECT_EQ(other->blocks_out(), 0u);
    }
}

// Goal: a heap is freed once when the last thing that comes home to it sets off another return to itself.
TEST_F(HeapTest, ARetiredHeapIsFreedOnceWhenItsProxiesStackUp) {
    for (const bool return_first : {true, false}) {
        auto heap = heap_of();
        Buffer home_again = open(pack(must(heap->allocate(10))));
        Parcel second;
        {
            const Running running(*heap);
            second = pack(home_again.share());
            home_again.reset();
        }
        if (return_first) second = {};
        heap.reset();
        second = {};
        EXPECT_EQ(slabs(), 0u);
    }
}

TEST_F(HeapTest, TwoRetiredHeapsEndEachOther) {
    auto one = heap_of(), two = heap_of();
    Buffer on_two, on_one;
    Parcel last;
    {
        const Running running(*two);
        on_two = open(pack(must(one->allocate(10))));
        Parcel back = pack(on_two.share());
        on_two.reset();
        const Running nested(*one);
        on_one = open(std::move(back));
        last = pack(on_one.share());
        on_one.reset();
    }
    one.reset();
    two.reset();
    EXPECT_EQ(slabs(), 1u);
    last = {};
    EXPECT_EQ(slabs(), 0u);
}

// -- threads -----------------------------------------------------------------------------------------------------------------

TEST_F(HeapTest, ManyThreadsLetGoWhileTheOwnerAllocates) {
    constexpr unsigned threads = 4, per_thread = 300;
    const auto heap = heap_of();
    std::vector<std::thread> others;
    std::vector<std::vector<Parcel>> parcels(threads);
    Released released;
    std::byte mine[100] = {};
    for (auto& list : parcels) {
        for (unsigned i = 0; i < per_thread; ++i) {
            Buffer made = i % 10 == 0 ? must(heap->wrap(mine, 100, &Released::call, &released)) : must(heap->allocate(100));
            if (i % 10 != 0) fill(made, i & 255);
            list.push_back(pack(std::move(made)));
        }
    }
    for (unsigned t = 0; t < threads; ++t) {
        others.emplace_back([&list = parcels[t], t] {
            const OwnHeap mine_too = t % 2 == 0 ? heap_of() : OwnHeap();
            Heap::set_current(mine_too.get());
            for (unsigned i = 0; i < per_thread; ++i) {
                Buffer there = open(std::move(list[i]));
                EXPECT_TRUE(i % 10 == 0 || is_filled(there, i & 255));
                const Buffer shared = there.share(0, 50);
                if (i % 50 == 0) flush_current();
            }
            flush_current();
            Heap::set_current(nullptr);
        });
    }
    for (int i = 0; i < 2000; ++i) {
        const Buffer used = must(heap->allocate(100));
        heap->drain_returns();
    }
    for (std::thread& other : others) other.join();
    heap->drain_returns();
    EXPECT_EQ(heap->blocks_out(), 0u);
    EXPECT_EQ(released.times, int(threads * per_thread / 10));
}

TEST_F(HeapTest, ReturnsRaceWithTheEnd) {
    for (int round = 0; round < 100; ++round) {
        auto heap = heap_of();
        std::vector<Parcel> parcels;
        for (int i = 0; i < 50; ++i) parcels.push_back(pack(must(heap->allocate(100))));
        std::atomic<bool> go = false;
        std::thread other([&] {
            while (!go) {}
            parcels.clear();
        });
        go = true;
        heap.reset();
        other.join();
        ASSERT_EQ(slabs(), 0u) << round;
    }
}

// -- a model -----------------------------------------------------------------------------------------------------------------

// Goal: whatever three loops do to each other's blocks and in whatever order they end, contents stay and nothing is left over.
// Method: random operations on one thread that plays all three loops; every buffer carries a number in its bytes.
TEST_F(HeapTest, NothingIsLostOrMixedUpAmongThreeLoops) {
    struct Held {
        Buffer buffer;
        unsigned value;
        unsigned on;
    };
    struct Sent {
        Parcel parcel;
        unsigned value;
    };
    const std::size_t before = memory_use().slab_bytes;
    for_all(
        [before] {
            OwnHeap heaps[3] = {heap_of(), heap_of(), heap_of()};
            std::vector<Held> held;
            std::vector<Sent> sent;
            unsigned next_value = 0;
            int wraps = 0, releases = 0;
            std::vector<std::byte> mine(64 * 128);
            const auto steps = *rc::gen::container<std::vector<std::tuple<unsigned, unsigned, unsigned>>>(
                rc::gen::tuple(rc::gen::inRange(0u, 24u), rc::gen::inRange(0u, 3u), rc::gen::arbitrary<unsigned>()));
            for (const auto& [what, on, pick] : steps) {
                Heap* const heap = heaps[on].get();
                Heap::set_current(heap);
                const auto on_this = [&held, on = on, pick = pick]() -> Held* {
                    std::vector<Held*> here;
                    for (Held& h : held) {
                        if (h.on == on) here.push_back(&h);
                    }
                    return here.empty() ? nullptr : here[pick % here.size()];
                };
                const auto forget = [&held](Held* one) { held.erase(held.begin() + (one - held.data())); };
                switch (what) {
                case 0:
                case 1:
                case 2:
                case 3:
                case 4:
                    if (heap != nullptr) {
                        Held one{must(heap->allocate(1 + pick % 9000)), next_value++ & 255, on};
                        fill(one.buffer, one.value);
                        held.push_back(std::move(one));
                    }
                    break;
                case 5:
                    if (heap != nullptr && wraps < 64) {
                        Held one{must(heap->wrap(
                                     mine.data() + wraps++ * 128, 128, [](void* n) { ++*static_cast<int*>(n); }, &releases)),
                                 next_value++ & 255, on};
                        fill(one.buffer, one.value);
                        held.push_back(std::move(one));
                    }
                    break;
                case 6:
                case 7:
                case 8:
                case 9:
                    if (Held* one = on_this()) {
                        const std::uint32_t at = pick % (one->buffer.size() + 1);
                        held.push_back({one->buffer.share(at, (one->buffer.size() - at) / 2), one->value, on});
                    }
                    break;
                case 10:
                case 11:
                case 12:
                case 13:
                    if (Held* one = on_this()) {
                        Sent parcel{std::move(one->buffer).pack(), one->value};
                        if (parcel.parcel) {
                            RC_ASSERT((!one->buffer && one->buffer.empty()));
                            forget(one);
                            sent.push_back(std::move(parcel));
                        } else {
                            RC_ASSERT((heap == nullptr && one->buffer));  // shared, from elsewhere, and its loop has ended
                        }
                    }
                    break;
                case 14:
                case 15:
                case 16:
                    if (!sent.empty()) {
                        const auto one = sent.begin() + pick % sent.size();
                        held.push_back({open(std::move(one->parcel)), one->value, on});
                        sent.erase(one);
                    }
                    break;
                case 17:
                case 18:
                    if (Held* one = on_this()) forget(one);
                    break;
                case 19:
                    if (!sent.empty()) sent.erase(sent.begin() + pick % sent.size());
                    break;
                case 20: flush_current(); break;
                case 21:
                    if (heap != nullptr) heap->drain_returns();
                    break;
                case 22:
                    if (heap != nullptr) heap->trim();
                    break;
                case 23:
                    if (pick % 8 == 0) {
                        flush_current();
                        Heap::set_current(nullptr);
                        heaps[on].reset();
                    }
                    break;
                }
                for (const Held& one : held) RC_ASSERT(is_filled(one.buffer, one.value));
            }
            held.clear();
            sent.clear();
            flush_current();
            Heap::set_current(nullptr);
            for (OwnHeap& heap : heaps) heap.reset();
            RC_ASSERT(releases == wraps);
            RC_ASSERT(memory_use().slab_bytes == before);
        },
        300);
}

// -- no memory ---------------------------------------------------------------------------------------------------------------

#ifndef EVPL_TEST_SANITIZED
/// Takes all memory that the address space still allows.
class Famine {
public:
    Famine() {
        trim_arrays();
        long pages = 0;
        if (FILE* statm = std::fopen("/proc/self/statm", "r")) {
            if (std::fscanf(statm, "%ld", &pages) != 1) pages = 0;
            std::fclose(statm);
        }
        getrlimit(RLIMIT_AS, &before_);
        const rlimit now{rlim_t(pages) * rlim_t(sysconf(_SC_PAGESIZE)), before_.rlim_max};
        setrlimit(RLIMIT_AS, &now);
        for (std::size_t bytes = 64u << 20; bytes >= 16; bytes /= 2) {
            while (void* more = std::malloc(bytes)) hoard_ = new (more) void*(hoard_);
        }
    }
    ~Famine() {
        while (hoard_ != nullptr) std::free(std::exchange(hoard_, static_cast<void**>(*hoard_)));
        setrlimit(RLIMIT_AS, &before_);
    }

private:
    rlimit before_{};
    void** hoard_ = nullptr;
};

#define EVPL_MUST(condition)                                                                                                                                   \
    if (!(condition)) _exit(10 + __COUNTER__)

[[noreturn]] void starve() {
    Heap* heap = Heap::create(1u << 30);
    Buffer source = must(heap->allocate(100));
    Chain five;
    for (std::uint32_t i = 0; i < 5; ++i) EVPL_MUST(five.append(source.share(i * 10, 10)));
    Chain four;
    for (std::uint32_t i = 0; i < 4; ++i) EVPL_MUST(four.append(source.share(i * 10, 10)));
    RingQueue<Buffer, 2> queue;
    EVPL_MUST(queue.push(source.share()) && queue.push(source.share()));
    {
        const Famine famine;
        Buffer more = source.share(50, 7);
        EVPL_MUST(!four.append(std::move(more)) && more.size() == 7 && four.size() == 40 && four.slices().size() == 4);
        EVPL_MUST(!four.append(std::move(five)) && five.size() == 50 && four.size() == 40);
        EVPL_MUST(five.share().empty() && five.size() == 50);
        const Chain front = five.take_front(45);
        EVPL_MUST(front.size() == 40 && five.size() == 10);
        EVPL_MUST(!queue.push(std::move(more)) && more.size() == 7 && queue.size() == 2 && !queue.reserve(1));
        EVPL_MUST(heap->allocate(block_bytes_max).error() == Errc::out_of_memory);
        std::byte mine[1];
        EVPL_MUST(heap->wrap(mine, 1, nullptr, nullptr).error() == Errc::out_of_memory);
        const Parcel parcel = std::move(more).pack();
        EVPL_MUST(!parcel && more.size() == 7);
    }
    EVPL_MUST(four.append(std::move(five)) && four.size() == 50);
    EVPL_MUST(queue.push(source.share()) && heap->allocate(block_bytes_max));
    test::leave(0);
}
#endif

TEST_F(HeapTest, WithoutMemoryNothingChanges) {
#ifdef EVPL_TEST_SANITIZED
    GTEST_SKIP() << "a sanitizer's allocator does not fail";
#else
    EXPECT_EXIT(starve(), testing::ExitedWithCode(0), "");
#endif
}

}  // namespace
}  // namespace evpl::memory
