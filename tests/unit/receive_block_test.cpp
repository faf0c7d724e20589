#include "transport/common/receive_block.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "unit/property.hpp"

namespace evpl::transport {
namespace {

class ReceiveBlockTest : public testing::Test {
protected:
    ~ReceiveBlockTest() override {
        block_.drop();
        EXPECT_EQ(heap_->blocks_out(), 0u);
        heap_->retire();
    }
    memory::Heap* heap_ = memory::Heap::create(memory::slab_bytes);  // eight blocks
    ReceiveBlock block_{*heap_};
};

TEST_F(ReceiveBlockTest, HoldsNoMemoryUntilItIsUsed) {
    EXPECT_EQ(heap_->slab_bytes_held(), 0u);
    EXPECT_EQ(block_.room(1).size(), ReceiveBlock::size_bytes);
    EXPECT_EQ(heap_->blocks_out(), 1u);
    block_.drop();
    EXPECT_EQ(heap_->blocks_out(), 0u);
    block_.drop();
    EXPECT_EQ(block_.room(ReceiveBlock::size_bytes).size(), ReceiveBlock::size_bytes);
}

TEST_F(ReceiveBlockTest, CutsOneSliceAfterTheOther) {
    const auto first_room = block_.room(100);
    first_room[0] = std::byte{1};
    const Buffer first = block_.cut(10);
    EXPECT_EQ(first.data(), first_room.data());
    EXPECT_EQ(first.size(), 10u);
    const auto second_room = block_.room(100);
    EXPECT_EQ(second_room.data(), first.data() + 64) << "the next cache line";
    EXPECT_EQ(second_room.size(), ReceiveBlock::size_bytes - 64);
    second_room[0] = std::byte{2};
    const Buffer second = block_.cut(64);
    EXPECT_EQ(block_.room(1).data(), second.data() + 64);
    EXPECT_EQ(first.data()[0], std::byte{1});
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(first.data()) % 64, 0u);
}

TEST_F(ReceiveBlockTest, StartsAgainWhenAllSlicesAreGone) {
    std::byte* const start = block_.room(1).data();
    Buffer first = block_.cut(1000), second = block_.cut(1000);
    first.reset();
    EXPECT_NE(block_.room(1).data(), start) << "one slice is still held";
    second.reset();
    EXPECT_EQ(block_.room(1).data(), start);
    EXPECT_EQ(block_.room(1).size(), ReceiveBlock::size_bytes);
    EXPECT_EQ(heap_->blocks_out(), 1u);
}

TEST_F(ReceiveBlockTest, TakesAnotherBlockWhenTooLittleIsLeft) {
    std::byte* const start = block_.room(1).data();
    const Buffer most = block_.cut(ReceiveBlock::size_bytes - 100);
    EXPECT_EQ(block_.room(64).size(), 64u) << "just enough, of what is left beyond the cache line";
    EXPECT_EQ(heap_->blocks_out(), 1u);
    EXPECT_EQ(block_.room(65).size(), ReceiveBlock::size_bytes);
    EXPECT_NE(block_.room(65).data(), start);
    EXPECT_EQ(heap_->blocks_out(), 2u) << "the first one lives with its slice";
}

TEST_F(ReceiveBlockTest, ItsVeryLastByteIsUsable) {
    block_.room(1);
    const Buffer whole = block_.cut(ReceiveBlock::size_bytes);
    whole.data()[ReceiveBlock::size_bytes - 1] = std::byte{1};
    const auto next = block_.room(1);
    ASSERT_EQ(next.size(), ReceiveBlock::size_bytes);
    EXPECT_NE(next.data(), whole.data());
    const Buffer nearly = block_.cut(ReceiveBlock::size_bytes - 1);
    EXPECT_EQ(block_.room(1).size(), ReceiveBlock::size_bytes) << "the odd byte is left out";
}

TEST_F(ReceiveBlockTest, AnEmptySliceKeepsItsPlace) {
    std::byte* const start = block_.room(1).data();
    const Buffer nothing = block_.cut(0);
    EXPECT_TRUE(nothing);
    EXPECT_EQ(nothing.size(), 0u);
    EXPECT_EQ(block_.room(1).data(), start);
}

TEST_F(ReceiveBlockTest, HasNoRoomWithoutBuffersAndRecovers) {
    std::vector<Buffer> held;
    for (int i = 0; i < 8; ++i) {
        ASSERT_FALSE(block_.room(ReceiveBlock::size_bytes).empty());
        held.push_back(block_.cut(1));
    }
    EXPECT_TRUE(block_.room(ReceiveBlock::size_bytes).empty());
    EXPECT_TRUE(block_.room(1).empty()) << "the block in hand was given up for a larger one";
    const std::byte from[64] = {};
    EXPECT_FALSE(block_.copy(from, 64));
    held.pop_back();
    EXPECT_EQ(block_.room(1).size(), ReceiveBlock::size_bytes);
}

TEST_F(ReceiveBlockTest, CopiesAnyNumberOfBytesAndNoMore) {
    std::byte from[600];
    for (std::size_t i = 0; i < sizeof from; ++i) from[i] = std::byte(i * 7 + 1);
    for (std::uint32_t n = 1; n <= 520; ++n) {
        const auto room = block_.room(n + 1);
        std::memset(room.data(), 0xee, n + 1);
        const Buffer copy = block_.copy(from + n % 3, n);
        ASSERT_EQ(copy.data(), room.data());
        ASSERT_EQ(copy.size(), n);
        EXPECT_EQ(std::memcmp(copy.data(), from + n % 3, n), 0) << n;
        EXPECT_EQ(copy.data()[n], std::byte(0xee)) << n;
    }
}

TEST_F(ReceiveBlockTest, CopiesBehindWhatIsHeld) {
    const std::byte from[65] = {};
    const Buffer first = block_.copy(from, 65), second = block_.copy(from, 1);
    EXPECT_EQ(second.data(), first.data() + 128) << "the next cache line";
}

// Goal: a slice's bytes stay what was received, however long it is held.
TEST_F(ReceiveBlockTest, NeverWritesOverASliceThatIsHeld) {
    struct Held {
        Buffer slice;
        int value;
    };
    for_all([this] {
        std::vector<Held> held;
        int value = 0;
        for (const auto& [what, n] : *rc::gen::arbitrary<std::vector<std::pair<std::uint8_t, std::uint16_t>>>()) {
            if (what % 4 != 0) {
                const std::uint32_t least = 1 + n % 5000u;
                const auto room = block_.room(least);
                if (room.empty()) continue;
                RC_ASSERT(room.size() >= least);
                ++value;
                const std::uint32_t size = std::min<std::uint32_t>(std::uint32_t(room.size()), n * 4u);
                std::memset(room.data(), value, size);
                held.push_back({block_.cut(size), value & 255});
            } else if (!held.empty()) {
                held.erase(held.begin() + n % std::ptrdiff_t(held.size()));
                if (n % 50 == 0) held.clear();
                if (n % 60 == 0) block_.drop();
            }
        }
        for (const Held& one : held) {
            RC_ASSERT(std::all_of(one.slice.data(), one.slice.data() + one.slice.size(), [&](std::byte b) { return b == std::byte(one.value); }));
        }
    });
}

}  // namespace
}  // namespace evpl::transport
