#include "core/compact.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <utility>
#include <vector>

#include "unit/property.hpp"

namespace evpl::core {
namespace {

using memory::block_bytes;
using transport::SliceQueue;

class CompactTest : public testing::Test {
protected:
    ~CompactTest() override {
        queue_.clear();
        EXPECT_EQ(heap_->blocks_out(), 0u);
        heap_->retire();
    }
    /// A slice of `size` bytes of a fresh block of `of` bytes.
    Buffer slice(std::uint32_t size, std::uint32_t of, int value = 1, std::uint32_t flags = 0) {
        auto block = heap_->allocate(of);
        EXPECT_TRUE(block.ok());
        Buffer made = block->share(of - size, size);
        std::memset(made.data(), value, size);
        BufferAccess::set_flags(made, flags);
        return made;
    }
    void push(Buffer made) { ASSERT_TRUE(queue_.push(std::move(made))); }

public:
    void push_small() { push(slice(10, 2048, 9)); }

protected:
    std::size_t compact(std::uint32_t fresh = UINT32_MAX) { return compact_tail(*heap_, queue_, fresh); }
    bool holds(std::uint32_t i, int value) const {
        const auto bytes = queue_[i].bytes();
        return std::all_of(bytes.begin(), bytes.end(), [&](std::byte b) { return b == std::byte(value); });
    }

    memory::Heap* heap_ = memory::Heap::create(64u << 20);
    SliceQueue queue_;
};

TEST_F(CompactTest, CopiesWasteOnly) {
    push(slice(8192, 65536));     // an eighth: not waste
    push(slice(8191, 65536, 2));  // waste
    push(slice(2048, 2048));      // all of it
    push(slice(1, 2048));         // the smallest block cannot get smaller
    push(slice(1, 4096, 5));
    EXPECT_EQ(compact(), 8191u + 1u);
    EXPECT_EQ(block_bytes(queue_[0]), 65536u);
    EXPECT_EQ(block_bytes(queue_[1]), 8192u);
    EXPECT_EQ(block_bytes(queue_[3]), 2048u);
    EXPECT_EQ(block_bytes(queue_[4]), 2048u);
    EXPECT_TRUE(holds(1, 2) && holds(4, 5));
    EXPECT_EQ(queue_.bytes(), 8192u + 8191u + 2048u + 1u + 1u);
    EXPECT_EQ(compact(), 0u) << "nothing is left to gain";
}

TEST_F(CompactTest, LooksAtTheFreshOnesOnly) {
    push(slice(10, 65536));
    push(slice(20, 65536));
    push(slice(30, 65536));
    EXPECT_EQ(compact(0), 0u);
    EXPECT_EQ(compact(1), 30u);
    EXPECT_EQ(compact(2), 20u);
    EXPECT_EQ(compact(1000), 10u) << "more fresh ones than there are";
    EXPECT_EQ(compact_tail(*heap_, queue_, 1000), 0u);
}

TEST_F(CompactTest, ARunSharesOneBlock) {
    for (int i = 0; i < 50; ++i) push(slice(100, 65536, i));
    EXPECT_EQ(compact(), 5000u);
    EXPECT_EQ(heap_->blocks_out(), 1u);
    for (std::uint32_t i = 0; i < 50; ++i) {
        EXPECT_EQ(BufferAccess::block(queue_[i]), BufferAccess::block(queue_[0]));
        EXPECT_TRUE(holds(i, int(i)));
    }
    EXPECT_EQ(block_bytes(queue_[0]), 8192u);
}

TEST_F(CompactTest, ARunIsCutAtAQuarterMegabyte) {
    for (int i = 0; i < 20; ++i) push(slice(200'000, 2u << 20, i));
    EXPECT_EQ(compact(), 20u * 200'000u);
    for (std::uint32_t i = 0; i < 20; ++i) {
        EXPECT_EQ(block_bytes(queue_[i]), 256u << 10);
        EXPECT_TRUE(holds(i, int(i)));
    }
}

TEST_F(CompactTest, MarksStay) {
    push(slice(10, 65536, 1, BufferAccess::has_descriptor));
    push(slice(0, 65536, 1, BufferAccess::end_of_message));
    push(slice(10, 65536, 1, BufferAccess::end_of_message | BufferAccess::has_descriptor));
    EXPECT_EQ(compact(), 20u);
    EXPECT_EQ(BufferAccess::flags(queue_[0]), BufferAccess::has_descriptor);
    EXPECT_EQ(BufferAccess::flags(queue_[1]), BufferAccess::end_of_message);
    EXPECT_EQ(queue_[1].size(), 0u);
    EXPECT_EQ(BufferAccess::flags(queue_[2]), BufferAccess::end_of_message | BufferAccess::has_descriptor);
    EXPECT_EQ(heap_->blocks_out(), 1u) << "an empty message does not pin a block of its own";
}

TEST_F(CompactTest, AMessageWithoutABlockStays) {
    Buffer empty;
    BufferAccess::set_flags(empty, BufferAccess::end_of_message);
    push(std::move(empty));
    EXPECT_EQ(compact(), 0u);
    EXPECT_EQ(BufferAccess::flags(queue_[0]), BufferAccess::end_of_message);
    EXPECT_FALSE(queue_[0]);
}

TEST_F(CompactTest, ALargePieceOfHugeWrappedMemoryStays) {
    static std::byte mine[9u << 20];
    auto wrapped = heap_->wrap(mine, sizeof mine, nullptr, nullptr);
    push(wrapped->share(0, 1u << 20));  // under an eighth, but more than is copied at once
    push(wrapped->share(0, 1000));
    wrapped->reset();
    EXPECT_EQ(compact(), 1000u);
    EXPECT_EQ(queue_[0].data(), mine);
    EXPECT_EQ(block_bytes(queue_[1]), 2048u);
}

TEST_F(CompactTest, WithoutBuffersEverythingStaysWhereItIs) {
    memory::Heap* const small = memory::Heap::create(memory::slab_bytes);
    {
        auto all = small->allocate(memory::block_bytes_max);
        ASSERT_TRUE(all.ok());
        push(slice(10, 65536, 4, BufferAccess::end_of_message));
        EXPECT_EQ(compact_tail(*small, queue_, 1), 0u);
        EXPECT_EQ(block_bytes(queue_[0]), 65536u);
        EXPECT_EQ(BufferAccess::flags(queue_[0]), BufferAccess::end_of_message);
        EXPECT_TRUE(holds(0, 4));
    }
    small->retire();
}

// Goal: the program's release of wrapped memory may use the connection, whose queue then grows.
TEST_F(CompactTest, AReleaseMayPushIntoTheQueue) {
    struct Context {
        CompactTest& test;
        int calls = 0;
        static void call(void* context) {
            auto& self = *static_cast<Context*>(context);
            ++self.calls;
            for (int i = 0; i < 40; ++i) self.test.push_small();
        }
    } context{*this};
    static std::byte mine[65536];
    std::memset(mine, 3, sizeof mine);
    for (int i = 0; i < 2; ++i) {
        auto wrapped = heap_->wrap(mine, sizeof mine, &Context::call, &context);
        push(wrapped->share(std::uint32_t(i), 100));
    }
    push(slice(100, 65536, 4));
    EXPECT_EQ(compact(), 300u);
    EXPECT_EQ(context.calls, 2);
    ASSERT_EQ(queue_.count(), 83u);
    EXPECT_TRUE(holds(0, 3) && holds(1, 3) && holds(2, 4));
    for (std::uint32_t i = 3; i < 83; ++i) EXPECT_TRUE(holds(i, 9));
}

// Goal: contents, sizes and marks stay; afterwards no fresh slice wastes its block by itself.
TEST_F(CompactTest, KeepsEverythingAndBoundsWhatIsPinned) {
    struct Model {
        std::uint32_t size;
        int value;
        std::uint32_t flags;
    };
    for_all([this] {
        std::vector<Model> model;
        const auto slices = *rc::gen::arbitrary<std::vector<std::tuple<std::uint8_t, std::uint8_t, std::uint16_t>>>();
        for (const auto& [shift, flags, n] : slices) {
            const std::uint32_t of = 2048u << shift % 8;
            const std::uint32_t size = n % 5 == 0 ? 0 : n % 3 == 0 ? n % of : n % 200u;
            model.push_back({size, int(model.size() & 255), flags % 4u});
            push(slice(size, of, model.back().value, model.back().flags));
        }
        const std::size_t before = queue_.bytes();
        const auto fresh = *rc::gen::inRange<std::uint32_t>(0, std::uint32_t(model.size()) + 2);
        const std::size_t copied = compact(fresh);
        RC_ASSERT(queue_.bytes() == before);
        RC_ASSERT(queue_.count() == model.size());
        RC_ASSERT(copied <= before);
        std::set<const detail::Block*> blocks;
        std::size_t pinned = 0, used = 0;
        for (std::uint32_t i = 0; i < model.size(); ++i) {
            RC_ASSERT(queue_[i].size() == model[i].size);
            RC_ASSERT(holds(i, model[i].value));
            RC_ASSERT(BufferAccess::flags(queue_[i]) == model[i].flags);
            if (model.size() - i > fresh) continue;
            used += queue_[i].size();
            if (blocks.insert(BufferAccess::block(queue_[i])).second) pinned += block_bytes(queue_[i]);
        }
        RC_ASSERT(pinned <= used * 8 + blocks.size() * memory::block_bytes_min);
        queue_.clear();
        RC_ASSERT(heap_->blocks_out() == 0u);
    });
}

}  // namespace
}  // namespace evpl::core
