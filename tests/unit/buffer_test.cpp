#include "evpl/buffer.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "memory/heap.hpp"
#include "unit/property.hpp"

namespace evpl {
namespace {

using memory::Heap;

class BufferTest : public testing::Test {
protected:
    ~BufferTest() override {
        EXPECT_EQ(heap_->blocks_out(), 0u);
        heap_->retire();
    }
    Buffer made(std::uint32_t bytes = 100) {
        auto buffer = heap_->allocate(bytes);
        EXPECT_TRUE(buffer.ok());
        for (std::uint32_t i = 0; i < bytes; ++i) buffer->data()[i] = std::byte(i);
        return *std::move(buffer);
    }
    std::uint64_t out() const { return heap_->blocks_out(); }

private:
    Heap* heap_ = Heap::create(64u << 20);
};

TEST_F(BufferTest, IsEmptyByDefault) {
    Buffer buffer;
    EXPECT_FALSE(buffer);
    EXPECT_TRUE(buffer.empty());
    EXPECT_TRUE(buffer.bytes().empty());
    buffer.reset();
    EXPECT_FALSE(buffer.share());
    EXPECT_EQ(buffer.share(0, 0).size(), 0u);
}

TEST_F(BufferTest, MovingLeavesNothingBehind) {
    Buffer first = made();
    const std::byte* const data = first.data();
    Buffer second(std::move(first));
    EXPECT_FALSE(first);
    EXPECT_EQ(first.size(), 0u);
    EXPECT_EQ(second.data(), data);
    Buffer third = made();
    third = std::move(second);
    EXPECT_EQ(out(), 1u) << "what it held went back";
    Buffer& itself = third;
    third = std::move(itself);
    EXPECT_EQ(third.size(), 100u);
    EXPECT_EQ(third.data(), data);
    third.reset();
    EXPECT_EQ(out(), 0u);
}

TEST_F(BufferTest, TheBlockGoesBackWithTheLastShare) {
    Buffer whole = made();
    Buffer part = whole.share(10, 20);
    Buffer nothing = part.share(20, 0);
    EXPECT_TRUE(nothing);
    EXPECT_EQ(nothing.size(), 0u);
    EXPECT_FALSE(memory::is_sole(whole));
    whole.reset();
    EXPECT_EQ(part.data()[0], std::byte{10});
    part.reset();
    EXPECT_EQ(out(), 1u) << "an empty slice holds its block as well";
    EXPECT_TRUE(memory::is_sole(nothing));
    nothing.reset();
    EXPECT_EQ(out(), 0u);
}

TEST_F(BufferTest, MarksMoveButAreNotShared) {
    Buffer marked = made();
    BufferAccess::set_flags(marked, BufferAccess::end_of_message);
    EXPECT_EQ(BufferAccess::flags(marked.share()), 0u);
    Buffer moved = std::move(marked);
    EXPECT_EQ(BufferAccess::flags(moved), BufferAccess::end_of_message);
    EXPECT_EQ(BufferAccess::flags(marked), 0u);
    moved.reset();
    EXPECT_EQ(BufferAccess::flags(moved), 0u);
}

TEST_F(BufferTest, PackingTakesTheMarksAway) {
    Buffer marked = made();
    BufferAccess::set_flags(marked, BufferAccess::end_of_message);
    Parcel parcel = std::move(marked).pack();
    EXPECT_EQ(parcel.size(), 100u);
    EXPECT_FALSE(marked);
    EXPECT_EQ(BufferAccess::flags(marked), 0u);
    Heap::set_current(nullptr);
    parcel = {};
    made().reset();
    Buffer last = made(2u << 20);  // growing takes what came back
}

TEST_F(BufferTest, CutsAnywhereInsideItself) {
    const Buffer whole = made(200);
    for_all([&whole] {
        Buffer part = whole.share();
        std::uint32_t first = 0, size = 200;
        for (const auto& [which, n] : *rc::gen::arbitrary<std::vector<std::pair<bool, std::uint8_t>>>()) {
            const std::uint32_t by = size == 0 ? 0 : n % (size + 1);
            if (which) {
                part.drop_front(by);
                first += by;
                size -= by;
            } else {
                part.truncate(size - by);
                size -= by;
            }
            RC_ASSERT(part.size() == size);
            RC_ASSERT(part.data() == whole.data() + first);
        }
    });
}

using BufferDeathTest = BufferTest;

TEST_F(BufferDeathTest, ARangeOutsideTheSliceStopsTheProgram) {
    Buffer whole = made();
    Buffer part = whole.share(10, 20);
    EXPECT_DEATH((void)whole.share(101, 0), "slice out of range \\(101, 0\\)");
    EXPECT_DEATH((void)whole.share(0, 101), "slice out of range");
    EXPECT_DEATH((void)part.share(1, 20), "slice out of range") << "the block goes on, the slice does not";
    EXPECT_DEATH((void)whole.share(50, UINT32_MAX - 10), "slice out of range") << "the sum wraps";
    EXPECT_DEATH((void)Buffer().share(0, 1), "slice out of range");
    EXPECT_DEATH(part.drop_front(21), "drop_front past the end of a slice");
    EXPECT_DEATH(part.truncate(21), "truncate beyond the end of a slice");
}

}  // namespace
}  // namespace evpl
