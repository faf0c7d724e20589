#include "evpl/chain.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "memory/array_pool.hpp"
#include "memory/heap.hpp"
#include "unit/property.hpp"

namespace evpl {
namespace {

using memory::Heap;

class ChainTest : public testing::Test {
protected:
    ~ChainTest() override {
        source_.reset();
        EXPECT_EQ(heap_->blocks_out(), 0u);
        heap_->retire();
    }
    Buffer bytes(std::uint32_t first, std::uint32_t size) const { return source_.share(first, size); }
    Chain chain(std::uint32_t slices, std::uint32_t size = 10) const {
        Chain made;
        for (std::uint32_t i = 0; i < slices; ++i) EXPECT_TRUE(made.append(bytes(i * size, size)));
        return made;
    }
    /// References on the source besides its own.
    std::uint32_t shares() const { return BufferAccess::block(source_)->refs - 1; }

    Heap* heap_ = Heap::create(64u << 20);
    Buffer source_ = [this] {
        auto made = heap_->allocate(10'000);
        for (std::uint32_t i = 0; i < 10'000; ++i) made->data()[i] = std::byte(i * 7 >> 2);
        return *std::move(made);
    }();
};

std::vector<std::byte> contents(const Chain& chain) {
    std::vector<std::byte> all;
    for (const Buffer& slice : chain) all.insert(all.end(), slice.data(), slice.data() + slice.size());
    return all;
}

TEST_F(ChainTest, KeepsOrderBeyondItsInlineRoom) {
    for (const std::uint32_t slices : {0u, 1u, 4u, 5u, 8u, 9u, 100u}) {
        const Chain made = chain(slices);
        EXPECT_EQ(made.size(), slices * 10);
        EXPECT_EQ(made.empty(), slices == 0);
        EXPECT_EQ(made.slices().size(), slices);
        const auto all = contents(made);
        EXPECT_TRUE(std::equal(all.begin(), all.end(), source_.data()));
        EXPECT_EQ(shares(), slices);
    }
    EXPECT_EQ(shares(), 0u);
}

TEST_F(ChainTest, DropsEmptySlices) {
    Chain made(bytes(0, 0));
    EXPECT_TRUE(made.slices().empty());
    EXPECT_TRUE(made.append(Buffer()));
    EXPECT_TRUE(made.append(bytes(5, 0)));
    EXPECT_TRUE(made.slices().empty());
    Chain one(bytes(0, 1));
    EXPECT_EQ(one.slices().size(), 1u);
}

TEST_F(ChainTest, MovesInlineAndInAnArray) {
    for (const std::uint32_t slices : {3u, 30u}) {
        Chain first = chain(slices);
        Chain second(std::move(first));
        EXPECT_TRUE(first.empty());
        EXPECT_TRUE(first.slices().empty());
        EXPECT_EQ(second.size(), slices * 10);
        Chain third = chain(20);
        third = std::move(second);
        EXPECT_EQ(shares(), slices);
        Chain& itself = third;
        third = std::move(itself);
        EXPECT_EQ(third.size(), slices * 10);
        EXPECT_TRUE(first.append(bytes(0, 10))) << "usable after being moved from";
        EXPECT_EQ(first.size(), 10u);
    }
    EXPECT_EQ(shares(), 0u);
}

TEST_F(ChainTest, TakeFrontNeverComesBackEmpty) {
    Chain made = chain(3);
    EXPECT_TRUE(made.take_front(0).empty());
    EXPECT_EQ(made.take_front(1).size(), 1u);
    EXPECT_EQ(made.take_front(9).size(), 9u);
    EXPECT_EQ(made.slices().size(), 2u);
    EXPECT_EQ(made.take_front(1000).size(), 20u);
    EXPECT_TRUE(made.empty());
    EXPECT_TRUE(made.take_front(1).empty());
}

TEST_F(ChainTest, CopiesFromAnOffset) {
    const Chain made = chain(6);
    std::byte room[100];
    EXPECT_EQ(made.copy_to(room), 60u);
    EXPECT_EQ(made.copy_to(std::span(room, 25), 17), 25u);
    EXPECT_TRUE(std::equal(room, room + 25, source_.data() + 17));
    EXPECT_EQ(made.copy_to(room, 60), 0u);
    EXPECT_EQ(made.copy_to(room, 1000), 0u);
    EXPECT_EQ(made.copy_to({}, 0), 0u);
}

// Goal: a chain is a sequence of bytes, however it is cut and joined.
// Method: random operations on three chains against three deques of bytes.
TEST_F(ChainTest, BehavesLikeASequenceOfBytes) {
    for_all([this] {
        Chain chains[3];
        std::deque<std::byte> models[3];
        const auto move_model = [](std::deque<std::byte>& from, std::size_t n) {
            std::deque<std::byte> front(from.begin(), from.begin() + std::ptrdiff_t(n));
            from.erase(from.begin(), from.begin() + std::ptrdiff_t(n));
            return front;
        };
        const auto steps = *rc::gen::container<std::vector<std::tuple<unsigned, unsigned, unsigned, unsigned>>>(
            rc::gen::tuple(rc::gen::inRange(0u, 12u), rc::gen::inRange(0u, 3u), rc::gen::inRange(0u, 3u), rc::gen::arbitrary<unsigned>()));
        for (const auto& [what, a, b, pick] : steps) {
            Chain& one = chains[a];
            auto& model = models[a];
            const std::size_t n = pick % (model.size() + 5), n_model = std::min(n, model.size());
            switch (what) {
            case 0:
            case 1:
            case 2:
            case 3: {
                const std::uint32_t size = pick % 100, first = pick % 9000;
                RC_ASSERT(one.append(bytes(first, size)));
                model.insert(model.end(), source_.data() + first, source_.data() + first + size);
                break;
            }
            case 4:
            case 5: {
                Chain front = one.take_front(n);
                const auto front_model = move_model(model, n_model);
                RC_ASSERT(front.size() == front_model.size());
                RC_ASSERT(chains[b].append(std::move(front)));
                RC_ASSERT(front.empty());
                models[b].insert(models[b].end(), front_model.begin(), front_model.end());
                break;
            }
            case 6:
                one.drop_front(n);
                move_model(model, n_model);
                break;
            case 7: {
                Chain other = one.share();
                auto copy = model;
                RC_ASSERT(chains[b].append(std::move(other)));
                if (models[b].size() < 20'000) models[b].insert(models[b].end(), copy.begin(), copy.end());
                else {
                    chains[b].clear();
                    models[b].clear();
                }
                break;
            }
            case 8:
                if (a != b) {
                    chains[b] = std::move(one);
                    models[b] = std::exchange(model, {});
                }
                break;
            case 9: {
                std::vector<std::byte> room(pick % 300), expected;
                const std::size_t copied = one.copy_to(room, n);
                RC_ASSERT(copied == std::min(room.size(), model.size() - n_model));
                RC_ASSERT(std::equal(room.begin(), room.begin() + std::ptrdiff_t(copied), model.begin() + std::ptrdiff_t(n_model)));
                break;
            }
            case 10:
                if (a != b) {
                    RC_ASSERT(chains[b].append(std::move(one)));
                    models[b].insert(models[b].end(), model.begin(), model.end());
                    model.clear();
                }
                break;
            case 11: {
                Chain moved(std::move(one));
                RC_ASSERT(one.empty());
                one = std::move(moved);
                break;
            }
            }
            for (unsigned i = 0; i < 3; ++i) {
                RC_ASSERT(chains[i].size() == models[i].size());
                const auto all = contents(chains[i]);
                RC_ASSERT(std::equal(all.begin(), all.end(), models[i].begin(), models[i].end()));
                for (const Buffer& slice : chains[i]) RC_ASSERT(!slice.empty());
            }
        }
        for (Chain& one : chains) one.clear();
        RC_ASSERT(shares() == 0u);
    });
}

TEST_F(ChainTest, AGrownChainMayOutliveItsThreadsStoreOfArrays) {
    Heap* heap = heap_;  // this thread only waits meanwhile
    std::thread([heap] {
        thread_local Chain last;  // made before the store of arrays, so it ends after it
        for (int i = 0; i < 20; ++i) {
            auto made = heap->allocate(10);
            ASSERT_TRUE(made.ok() && last.append(*std::move(made)));
        }
        memory::give_array(memory::take_array(1000), 1000);  // the store has something to free
    }).join();
    EXPECT_EQ(heap_->blocks_out(), 1u);
}

using ChainDeathTest = ChainTest;

// A slice may be taken out of a chain that is then let go; a chain that is used on after that is not a sequence any more.
TEST_F(ChainDeathTest, CuttingAChainWhoseSlicesWereTakenStopsTheProgram) {
    Chain made = chain(3);
    for (Buffer& slice : made.slices()) slice.reset();
    EXPECT_DEATH(made.take_front(5), "a slice of the chain was changed");
    EXPECT_DEATH(made.drop_front(5), "a slice of the chain was changed");
}

}  // namespace
}  // namespace evpl
