#include "transport/queue.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <tuple>
#include <utility>
#include <vector>

#include "memory/heap.hpp"
#include "unit/property.hpp"

namespace evpl::transport {
namespace {

class SliceQueueTest : public testing::Test {
protected:
    ~SliceQueueTest() override {
        source_.reset();
        EXPECT_EQ(heap_->blocks_out(), 0u);
        heap_->retire();
    }
    Buffer slice(std::uint32_t first, std::uint32_t size, std::uint32_t flags = 0) const {
        Buffer made = source_.share(first, size);
        BufferAccess::set_flags(made, flags);
        return made;
    }
    std::uint32_t shares() const { return BufferAccess::block(source_)->refs - 1; }

    memory::Heap* heap_ = memory::Heap::create(64u << 20);
    Buffer source_ = [this] {
        auto made = heap_->allocate(1000);
        for (std::uint32_t i = 0; i < 1000; ++i) made->data()[i] = std::byte(i * 5 >> 1);
        return *std::move(made);
    }();
};

TEST_F(SliceQueueTest, PopsSlicesWholeWithTheirMarks) {
    SliceQueue queue;
    ASSERT_TRUE(queue.push(slice(0, 100)));
    ASSERT_TRUE(queue.push(slice(0, 0, BufferAccess::end_of_message)));
    ASSERT_TRUE(queue.push(slice(100, 50, BufferAccess::end_of_message | BufferAccess::has_descriptor)));
    EXPECT_EQ(queue.bytes(), 150u);
    EXPECT_EQ(queue.count(), 3u);
    EXPECT_EQ(BufferAccess::flags(queue.pop()), 0u);
    const Buffer empty = queue.pop();
    EXPECT_EQ(empty.size(), 0u);
    EXPECT_EQ(BufferAccess::flags(empty), BufferAccess::end_of_message);
    EXPECT_EQ(queue.bytes(), 50u);
    const Buffer taken = std::move(queue[0]);
    EXPECT_EQ(BufferAccess::flags(taken), BufferAccess::end_of_message | BufferAccess::has_descriptor);
    queue.pop_moved(taken.size());
    EXPECT_TRUE(queue.empty());
    EXPECT_EQ(queue.bytes(), 0u);
}

TEST_F(SliceQueueTest, ADroppedMarkIsTheSlicesOwn) {
    SliceQueue queue;
    ASSERT_TRUE(queue.push(slice(0, 100, BufferAccess::end_of_message)));
    queue.drop_front(99);
    EXPECT_EQ(BufferAccess::flags(queue[0]), BufferAccess::end_of_message) << "the message is not over";
    queue.drop_front(1);
    EXPECT_TRUE(queue.empty());
}

TEST_F(SliceQueueTest, DropFrontLeavesAnEmptyMessageBehindIt) {
    SliceQueue queue;
    ASSERT_TRUE(queue.push(slice(0, 10, BufferAccess::end_of_message)));
    ASSERT_TRUE(queue.push(slice(0, 0, BufferAccess::end_of_message)));
    ASSERT_TRUE(queue.push(slice(0, 20, BufferAccess::end_of_message)));
    queue.drop_front(10);
    EXPECT_EQ(queue.count(), 2u) << "an empty message was not sent yet";
    queue.drop_front(5);
    EXPECT_EQ(queue.count(), 1u);
    EXPECT_EQ(queue.bytes(), 15u);
}

TEST_F(SliceQueueTest, ClearGivesEverythingBack) {
    SliceQueue queue;
    for (std::uint32_t i = 0; i < 50; ++i) ASSERT_TRUE(queue.push(slice(i, 1)));
    EXPECT_EQ(shares(), 50u);
    queue.clear();
    queue.shrink();
    EXPECT_EQ(shares(), 0u);
    EXPECT_EQ(queue.bytes(), 0u);
}

// Method: random pushes, pops and drops against the slices' bytes and marks.
TEST_F(SliceQueueTest, BehavesLikeASequenceOfSlices) {
    struct Model {
        std::deque<std::byte> bytes;
        std::uint32_t flags;
    };
    for_all([this] {
        SliceQueue queue;
        std::deque<Model> model;
        for (const auto& [what, a, b] : *rc::gen::arbitrary<std::vector<std::tuple<std::uint8_t, std::uint8_t, std::uint8_t>>>()) {
            std::size_t total = 0;
            for (const Model& one : model) total += one.bytes.size();
            switch (what % 8) {
            case 0:
            case 1:
            case 2:
            case 3: {
                const std::uint32_t size = b % 60 == 0 ? 0 : b, flags = a % 4;
                RC_ASSERT(queue.push(slice(a, size, flags)));
                model.push_back({{source_.data() + a, source_.data() + a + size}, flags});
                break;
            }
            case 4:
                if (!model.empty()) {
                    const Buffer first = queue.pop();
                    RC_ASSERT(first.size() == model.front().bytes.size());
                    RC_ASSERT(BufferAccess::flags(first) == model.front().flags);
                    model.pop_front();
                }
                break;
            case 5:
            case 6: {
                std::size_t n = std::min<std::size_t>(a * 2u, total);
                queue.drop_front(n);
                while (n > 0 && n >= model.front().bytes.size()) {
                    n -= model.front().bytes.size();
                    model.pop_front();
                }
                if (n > 0) model.front().bytes.erase(model.front().bytes.begin(), model.front().bytes.begin() + std::ptrdiff_t(n));
                break;
            }
            case 7:
                if (a < 20) queue.clear(), model.clear();
                queue.shrink();
                break;
            }
            RC_ASSERT(queue.count() == model.size());
            RC_ASSERT(queue.empty() == model.empty());
            total = 0;
            for (std::uint32_t i = 0; i < model.size(); ++i) {
                const auto bytes = std::as_const(queue)[i].bytes();
                RC_ASSERT(std::equal(bytes.begin(), bytes.end(), model[i].bytes.begin(), model[i].bytes.end()));
                RC_ASSERT(BufferAccess::flags(queue[i]) == model[i].flags);
                total += bytes.size();
            }
            RC_ASSERT(queue.bytes() == total);
            RC_ASSERT(shares() == model.size());
        }
    });
    EXPECT_EQ(shares(), 0u);
}

}  // namespace
}  // namespace evpl::transport
