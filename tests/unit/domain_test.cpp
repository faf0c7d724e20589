#include "memory/domain.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "evpl/loop.hpp"
#include "evpl/memory.hpp"
#include "evpl/region.hpp"
#include "memory/heap.hpp"

namespace evpl::memory {
namespace {

template <class Condition>
bool eventually(Condition condition) {
    for (int i = 0; i < 10'000; ++i) {
        if (condition()) return true;
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return false;
}

/// A device that notes what is registered, and can be made to refuse or to take its time.
class TestDomain : public Domain {
public:
    explicit TestDomain(std::uint64_t first_key = 100) : next_key_(first_key) {}
    ~TestDomain() override {
        retire();
        EXPECT_EQ(registered(), 0u) << "keys are left";
    }
    Result<std::uint64_t> register_memory(std::byte* base, std::size_t size_bytes) noexcept override {
        std::unique_lock lock(mutex_);
        EXPECT_EQ(size_bytes, base == foreign.data() ? foreign.size() : slab_bytes);
        EXPECT_NE(std::this_thread::get_id(), caller_) << "registration takes time: not on the caller's thread";
        ++asked_;
        open_.wait(lock, [&] { return !held_; });
        if (refuse_) return Error(Errc::device_error, Step::none, Who::system);
        base[0] = std::byte{1};  // mapped
        EXPECT_TRUE(keys_.emplace(base, next_key_).second) << "registered twice";
        return next_key_++;
    }
    void deregister_memory(std::byte* base, std::size_t, std::uint64_t key) noexcept override {
        const std::lock_guard lock(mutex_);
        base[0] = std::byte{2};  // still mapped
        const auto at = keys_.find(base);
        ASSERT_NE(at, keys_.end());
        EXPECT_EQ(at->second, key);
        keys_.erase(at);
    }
    std::size_t registered() const {
        const std::lock_guard lock(mutex_);
        return keys_.size();
    }
    int asked() const {
        const std::lock_guard lock(mutex_);
        return asked_;
    }
    void hold(bool on) {
        const std::lock_guard lock(mutex_);
        held_ = on;
        open_.notify_all();
    }
    void refuse(bool on) {
        const std::lock_guard lock(mutex_);
        refuse_ = on;
    }
    KeyState state_of(const Slab& slab) const { return slab.keys[number()].state.load(); }
    /// Zero: none.
    std::uint64_t key(const Slab& slab) const {
        std::uint64_t room = 0;
        const std::uint64_t* const found = key_of(slab, room);
        return found != nullptr ? *found : 0;
    }
    bool obtain(Slab& slab) {
        request(slab, nullptr, nullptr);
        return eventually([&] { return state_of(slab) != KeyState::pending; }) && state_of(slab) == KeyState::ready;
    }

    std::span<std::byte> foreign;  ///< what is not a slab of the library's

private:
    mutable std::mutex mutex_;
    std::condition_variable open_;
    const std::thread::id caller_ = std::this_thread::get_id();
    std::map<std::byte*, std::uint64_t> keys_;
    std::uint64_t next_key_;
    int asked_ = 0;
    bool held_ = false;
    bool refuse_ = false;
};

class DomainTest : public testing::Test {
protected:
    ~DomainTest() override {
        if (heap_ != nullptr) heap_->retire();
        EXPECT_TRUE(eventually([this] { return memory_use().slab_bytes == before_; })) << "slabs are left";
    }
    Buffer made(std::uint32_t bytes = 100) {
        auto buffer = heap_->allocate(bytes);
        EXPECT_TRUE(buffer.ok());
        return *std::move(buffer);
    }
    void retire() { std::exchange(heap_, nullptr)->retire(); }

    const std::size_t before_ = memory_use().slab_bytes;
    Heap* heap_ = Heap::create(64 * slab_bytes);
};

TEST_F(DomainTest, RegistersOnlyWhatIsAskedForAndOnAnotherThread) {
    TestDomain domain;
    ASSERT_TRUE(domain.enrolled());
    const Buffer asked = made(), other = made(block_bytes_max);
    Slab& slab = *slab_of(asked);
    EXPECT_EQ(domain.key(slab), 0u);
    std::atomic<int> done = 0;
    std::atomic<bool> on_caller = false;
    struct Context {
        std::atomic<int>& done;
        std::atomic<bool>& on_caller;
        std::thread::id caller;
    } context{done, on_caller, std::this_thread::get_id()};
    domain.request(
        slab,
        [](void* c) {
            auto& self = *static_cast<Context*>(c);
            self.on_caller = std::this_thread::get_id() == self.caller;
            ++self.done;
        },
        &context);
    EXPECT_TRUE(eventually([&] { return done == 1; }));
    EXPECT_FALSE(on_caller);
    EXPECT_EQ(domain.key(slab), 100u);
    EXPECT_EQ(domain.key(*slab_of(other)), 0u);
    EXPECT_EQ(domain.asked(), 1);
}

TEST_F(DomainTest, AsksTheDeviceOncePerSlab) {
    TestDomain domain;
    const Buffer buffer = made(), same = made();
    domain.hold(true);
    for (int i = 0; i < 10; ++i) domain.request(*slab_of(buffer), nullptr, nullptr);
    EXPECT_EQ(domain.key(*slab_of(buffer)), 0u);
    domain.hold(false);
    EXPECT_TRUE(domain.obtain(*slab_of(same)));
    domain.request(*slab_of(buffer), nullptr, nullptr);
    EXPECT_EQ(domain.asked(), 1);
}

TEST_F(DomainTest, ARefusedSlabStaysWithoutAKeyAndIsUsableOtherwise) {
    TestDomain domain;
    domain.refuse(true);
    {
        const Buffer buffer = made();
        Slab& slab = *slab_of(buffer);
        std::atomic<bool> done = false;
        domain.request(
            slab, [](void* flag) { *static_cast<std::atomic<bool>*>(flag) = true; }, &done);
        EXPECT_TRUE(eventually([&] { return done.load(); })) << "the answer is told, also a bad one";
        EXPECT_EQ(domain.state_of(slab), KeyState::failed);
        EXPECT_EQ(domain.key(slab), 0u);
        domain.refuse(false);
        domain.request(slab, nullptr, nullptr);
        EXPECT_EQ(domain.state_of(slab), KeyState::failed);
        EXPECT_EQ(domain.asked(), 1);
    }
    while (heap_->trim()) {}
    EXPECT_EQ(memory_use().slab_bytes, before_);
}

TEST_F(DomainTest, ASlabIsDeregisteredBeforeItIsUnmapped) {
    TestDomain one, two(1000);
    {
        const Buffer buffer = made();
        EXPECT_TRUE(one.obtain(*slab_of(buffer)));
        EXPECT_TRUE(two.obtain(*slab_of(buffer)));
    }
    while (heap_->trim()) {}
    EXPECT_TRUE(eventually([&] { return memory_use().slab_bytes == before_; }));
    EXPECT_EQ(one.registered() + two.registered(), 0u);
}

TEST_F(DomainTest, ASlabWithAPendingKeyIsNotGivenBack) {
    TestDomain domain;
    domain.hold(true);
    domain.request(*slab_of(made()), nullptr, nullptr);
    EXPECT_TRUE(eventually([&] { return domain.asked() == 1; }));
    for (int i = 0; i < 5; ++i) EXPECT_TRUE(heap_->trim()) << "more may go when the key is there";
    EXPECT_EQ(memory_use().slab_bytes, before_ + slab_bytes);
    domain.hold(false);
    EXPECT_TRUE(eventually([&] { return !heap_->trim(); }));
    EXPECT_TRUE(eventually([&] { return memory_use().slab_bytes == before_; }));
    EXPECT_EQ(domain.registered(), 0u);
}

// Goal: a loop that ends while the registrar works on its slab leaves the slab to the registrar.
TEST_F(DomainTest, AHeapMayEndWhileAKeyIsPending) {
    TestDomain domain;
    domain.hold(true);
    {
        const Buffer running = made(), queued = made(block_bytes_max);
        domain.request(*slab_of(running), nullptr, nullptr);
        EXPECT_TRUE(eventually([&] { return domain.asked() == 1; }));
        domain.request(*slab_of(queued), nullptr, nullptr);
    }
    retire();
    EXPECT_EQ(memory_use().slab_bytes, before_ + 2 * slab_bytes);
    domain.hold(false);
    EXPECT_TRUE(eventually([&] { return memory_use().slab_bytes == before_; }));
    EXPECT_EQ(domain.asked(), 2);
    EXPECT_EQ(domain.registered(), 0u);
}

TEST_F(DomainTest, TheEndOfADomainDeregistersEverything) {
    const Buffer one = made(), two = made(block_bytes_max), refused = made(1u << 20);
    auto domain = std::make_unique<TestDomain>();
    const unsigned number = domain->number();
    EXPECT_TRUE(domain->obtain(*slab_of(one)));
    EXPECT_TRUE(domain->obtain(*slab_of(two)));
    domain->refuse(true);
    EXPECT_FALSE(domain->obtain(*slab_of(refused)));
    domain.reset();  // checks for itself that nothing is left
    for (const Buffer* buffer : {&one, &two, &refused}) EXPECT_EQ(slab_of(*buffer)->keys[number].state.load(), KeyState::absent);
    TestDomain next(5000);
    EXPECT_EQ(next.number(), number) << "the number is free again";
    EXPECT_TRUE(next.obtain(*slab_of(refused)));
    EXPECT_EQ(next.key(*slab_of(refused)), 5000u);
}

TEST_F(DomainTest, TheEndOfADomainWaitsForWhatIsUnderWay) {
    const Buffer one = made(), two = made(block_bytes_max);
    auto domain = std::make_unique<TestDomain>();
    domain->hold(true);
    domain->request(*slab_of(one), nullptr, nullptr);
    domain->request(*slab_of(two), nullptr, nullptr);
    std::thread later([&] {
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        domain->hold(false);
    });
    later.join();
    domain.reset();
    EXPECT_NE(slab_of(one)->keys[0].state.load(), KeyState::pending);
    EXPECT_NE(slab_of(two)->keys[0].state.load(), KeyState::pending);
}

TEST_F(DomainTest, DomainsDoNotShareKeys) {
    TestDomain one(100), two(200);
    const Buffer buffer = made();
    Slab& slab = *slab_of(buffer);
    EXPECT_NE(one.number(), two.number());
    EXPECT_TRUE(one.obtain(slab));
    EXPECT_EQ(two.key(slab), 0u);
    two.refuse(true);
    EXPECT_FALSE(two.obtain(slab));
    EXPECT_EQ(one.key(slab), 100u);
    {
        TestDomain three(300);
        EXPECT_TRUE(three.obtain(slab));
        EXPECT_EQ(three.key(slab), 300u);
    }
    EXPECT_EQ(one.key(slab), 100u);
}

TEST_F(DomainTest, ADomainBeyondTheMostRegistersNothing) {
    std::vector<std::unique_ptr<TestDomain>> domains;
    for (unsigned i = 0; i < domains_max + 1; ++i) domains.push_back(std::make_unique<TestDomain>());
    while (domains.size() > 2 && !domains[domains.size() - 2]->enrolled()) domains.pop_back();
    TestDomain& last = *domains.back();
    EXPECT_FALSE(last.enrolled());
    const Buffer buffer = made();
    last.request(*slab_of(buffer), nullptr, nullptr);
    std::uint64_t room;
    EXPECT_EQ(last.key_of(*slab_of(buffer), room), nullptr);
    EXPECT_EQ(last.asked(), 0);
    EXPECT_TRUE(domains[domains.size() - 2]->obtain(*slab_of(buffer))) << "the last number works";
    domains.erase(domains.begin());
    EXPECT_TRUE(TestDomain().enrolled()) << "a number has become free";
}

TEST_F(DomainTest, WrappedMemoryHasNoSlabAndATravellersSlabIsItsHomes) {
    std::byte mine[10];
    auto wrapped = heap_->wrap(mine, 10, nullptr, nullptr);
    EXPECT_EQ(slab_of(*wrapped), nullptr);
    EXPECT_EQ(slab_of(Buffer()), nullptr);
    Buffer buffer = made();
    Slab* const slab = slab_of(buffer);
    Loop loop;
    const Buffer travelled = std::move(buffer).pack().open(loop);
    EXPECT_EQ(slab_of(travelled), slab);
}

/// Memory of the program's own, and how often it was given back.
struct Foreign {
    std::vector<std::byte> bytes = std::vector<std::byte>(100'000);
    std::atomic<int> released = 0;
    Region region() {
        auto made = Region::make(
            bytes, [](void* self) { ++static_cast<Foreign*>(self)->released; }, this);
        EXPECT_TRUE(made.ok());
        return *std::move(made);
    }
};

// Goal: a region is registered once per device, whole, off the caller's thread; its slices share the key, also on other loops and in parcels.
TEST_F(DomainTest, ARegionIsRegisteredOnceForAllItsSlices) {
    Foreign mine;
    TestDomain domain;
    domain.foreign = mine.bytes;
    {
        Region region = mine.region();
        Loop loop, other;
        auto first = loop.slice(region, 0, 100), second = other.slice(region, 50'000, 50'000);
        ASSERT_TRUE(first.ok() && second.ok());
        EXPECT_EQ(first->data(), mine.bytes.data());
        EXPECT_EQ(second->data(), mine.bytes.data() + 50'000);
        ASSERT_NE(slab_of(*first), nullptr);
        EXPECT_EQ(slab_of(*first), slab_of(*second));
        EXPECT_TRUE(domain.obtain(*slab_of(*first)));
        EXPECT_EQ(domain.key(*slab_of(*second)), 100u);
        const Buffer travelled = first->share(10, 10).pack().open(other);
        EXPECT_EQ(slab_of(travelled), slab_of(*second));
        EXPECT_EQ(domain.asked(), 1);
        const std::size_t before = memory_use().slab_bytes;
        region = {};
        EXPECT_EQ(domain.registered(), 1u) << "slices are left";
        EXPECT_EQ(memory_use().slab_bytes, before) << "it is none of the library's memory";
        EXPECT_EQ(mine.released, 0);
    }
    EXPECT_TRUE(eventually([&] { return mine.released == 1; }));
    EXPECT_EQ(domain.registered(), 0u) << "given back while a device knows it";
}

// Goal: a region that no device has met goes at once; one whose registration is under way goes after it.
TEST_F(DomainTest, ARegionGoesWhenNoDeviceKnowsIt) {
    Foreign idle, busy;
    idle.region();
    EXPECT_EQ(idle.released, 1);
    TestDomain domain;
    domain.foreign = busy.bytes;
    domain.hold(true);
    {
        Loop loop;
        const Region region = busy.region();
        domain.request(*slab_of(*loop.slice(region, 0, 10)), nullptr, nullptr);
    }
    EXPECT_EQ(busy.released, 0);
    domain.hold(false);
    EXPECT_TRUE(eventually([&] { return busy.released == 1; }));
    EXPECT_EQ(domain.registered(), 0u);
}

// Goal: a device that ends forgets regions like slabs; slices may outlive their loop; what is out of bounds is misuse.
TEST_F(DomainTest, ARegionOutlivesDevicesAndLoops) {
    Foreign mine;
    {
        const Region region = mine.region();
        Buffer kept;
        {
            TestDomain domain;
            domain.foreign = mine.bytes;
            Loop loop;
            kept = *loop.slice(region, 0, 10);
            EXPECT_TRUE(domain.obtain(*slab_of(kept)));
            EXPECT_EQ(loop.slice(region, 0, 100'001).error(), Errc::misuse);
            EXPECT_EQ(loop.slice(region, 100'000, 1).error(), Errc::misuse);
            EXPECT_EQ(loop.slice(region, SIZE_MAX, 2).error(), Errc::misuse);
            EXPECT_EQ(loop.slice(region, 0, 0).error(), Errc::misuse);
            EXPECT_EQ(loop.slice({}, 0, 1).error(), Errc::misuse);
        }
        EXPECT_EQ(slab_of(kept)->keys[0].state.load(), KeyState::absent);
        EXPECT_EQ(kept.size(), 10u);
        EXPECT_EQ(mine.released, 0);
    }
    EXPECT_TRUE(eventually([&] { return mine.released == 1; }));
    EXPECT_EQ(Region::make({}).error(), Errc::misuse);
}

// Goal: loops come and go, with keys asked for from several threads, and nothing is unmapped under the registrar.
TEST_F(DomainTest, SurvivesLoopsThatComeAndGo) {
    TestDomain one, two(1u << 20);
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < 3; ++t) {
        threads.emplace_back([&one, &two, t] {
            for (unsigned i = 0; i < 60; ++i) {
                Heap* heap = Heap::create(8 * slab_bytes);
                for (unsigned n = 0; n < 3; ++n) {
                    auto buffer = heap->allocate(1u << (10 + n * 4));
                    ASSERT_TRUE(buffer.ok());
                    one.request(*slab_of(*buffer), nullptr, nullptr);
                    if ((i + n + t) % 2 == 0) two.request(*slab_of(*buffer), nullptr, nullptr);
                }
                if (i % 3 == 0) heap->trim(), heap->trim();
                heap->retire();
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_TRUE(eventually([&] { return memory_use().slab_bytes == before_; }));
}

}  // namespace
}  // namespace evpl::memory
