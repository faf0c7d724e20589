#include "evpl/parcel.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "evpl/loop.hpp"
#include "evpl/memory.hpp"

namespace evpl {
namespace {

/// A loop on a thread of its own.
class Elsewhere {
public:
    Elsewhere() {
        std::atomic<bool> ready = false;
        thread_ = std::thread([this, &ready] {
            Loop loop;
            ref_ = loop.ref();
            ready = true;
            loop.run();
        });
        while (!ready) std::this_thread::yield();
    }
    ~Elsewhere() { end(); }
    /// Runs `work` there and waits for it.
    template <class Work>
    void run(Work work) {
        std::atomic<bool> done = false;
        ASSERT_TRUE(ref_.post([&work, &done] {
            work();
            done = true;
        }));
        while (!done) std::this_thread::yield();
    }
    LoopRef ref() const { return ref_; }
    void end() {
        ref_.stop();
        if (thread_.joinable()) thread_.join();
    }

private:
    LoopRef ref_;
    std::thread thread_;
};

Buffer filled(Loop& loop, std::uint32_t bytes, int value) {
    auto made = loop.allocate(bytes);
    EXPECT_TRUE(made.ok());
    std::memset(made->data(), value, bytes);
    return *std::move(made);
}

bool all(const Buffer& buffer, int value) {
    for (const std::byte b : buffer.bytes()) {
        if (b != std::byte(value)) return false;
    }
    return !buffer.empty();
}

Parcel pack(Buffer buffer) { return std::move(buffer).pack(); }

class ParcelTest : public testing::Test {
protected:
    ~ParcelTest() override { EXPECT_EQ(memory_use().slab_bytes, before_); }
    const std::size_t before_ = memory_use().slab_bytes;
};

TEST_F(ParcelTest, MovesAndIsEmptyAfterwards) {
    Loop loop;
    Parcel first = pack(filled(loop, 100, 1));
    EXPECT_TRUE(first);
    EXPECT_EQ(first.size(), 100u);
    Parcel second(std::move(first));
    EXPECT_FALSE(first);
    EXPECT_EQ(first.size(), 0u);
    Parcel third = pack(filled(loop, 10, 2));
    third = std::move(second);
    Parcel& itself = third;
    third = std::move(itself);
    EXPECT_EQ(third.size(), 100u);
    EXPECT_TRUE(all(std::move(third).open(loop), 1));
    EXPECT_FALSE(third);
    EXPECT_FALSE(std::move(third).open(loop));
}

TEST_F(ParcelTest, OpensAtHomeAgain) {
    Loop loop;
    Buffer buffer = filled(loop, 100, 4);
    const std::byte* const data = buffer.data();
    buffer.drop_front(10);
    Buffer again = pack(std::move(buffer)).open(loop);
    EXPECT_EQ(again.data(), data + 10);
    EXPECT_EQ(again.size(), 90u);
    EXPECT_TRUE(all(again, 4));
    again.reset();
    loop.run_once();
    EXPECT_EQ(loop.metrics().buffers_out, 0u);
}

TEST_F(ParcelTest, GoesHomeWhenDroppedOnAThreadWithoutALoop) {
    Loop loop;
    Parcel parcel = pack(filled(loop, 100, 1));
    std::thread([&parcel] { parcel = {}; }).join();
    EXPECT_EQ(loop.metrics().buffers_out, 1u);
    loop.run_once();
    EXPECT_EQ(loop.metrics().buffers_out, 0u);
}

TEST_F(ParcelTest, IsOpenedOnAnotherLoopWithoutACopy) {
    Loop loop;
    Elsewhere there;
    Buffer kept = filled(loop, 100'000, 6);
    for (int i = 0; i < 10; ++i) {
        Parcel parcel = pack(kept.share());
        there.run([parcel = std::move(parcel), &kept]() mutable {
            Loop fake;
            const Buffer here = std::move(parcel).open(fake);
            EXPECT_EQ(here.data(), kept.data());
            EXPECT_TRUE(all(here, 6));
        });
    }
    kept.reset();
    there.end();
    loop.run_once();
    EXPECT_EQ(loop.metrics().buffers_out, 0u);
}

// Goal: a block that visits three loops, and is in use on two of them, goes home when all are done.
TEST_F(ParcelTest, IsPackedAgainOnAThirdLoop) {
    Loop loop;
    Elsewhere second, third;
    for (int i = 0; i < 50; ++i) {
        Parcel parcel = pack(filled(loop, 3000, i));
        Parcel onward;
        second.run([&parcel, &onward] {
            Loop fake;
            Buffer here = std::move(parcel).open(fake);
            onward = pack(here.share(100, 200));
            EXPECT_TRUE(onward);
        });
        third.run([&onward, i] {
            Loop fake;
            const Buffer here = std::move(onward).open(fake);
            EXPECT_EQ(here.size(), 200u);
            EXPECT_TRUE(all(here, i));
        });
    }
    third.end();
    second.end();
    loop.run_once();
    EXPECT_EQ(loop.metrics().buffers_out, 0u);
}

TEST_F(ParcelTest, OutlivesItsLoop) {
    auto loop = std::make_unique<Loop>();
    Parcel parcel = pack(filled(*loop, 100, 3)), dropped = pack(filled(*loop, 100, 3));
    loop.reset();
    EXPECT_GT(memory_use().slab_bytes, before_);
    Loop other;
    Buffer here = std::move(parcel).open(other);
    EXPECT_TRUE(all(here, 3));
    std::thread([&dropped] { dropped = {}; }).join();
    here.reset();
    EXPECT_EQ(memory_use().slab_bytes, before_);
}

TEST_F(ParcelTest, IsDroppedWithAPostThatNeverRuns) {
    Loop loop;
    auto target = std::make_unique<Loop>();
    EXPECT_TRUE(target->post([parcel = pack(filled(loop, 100, 1))] { FAIL(); }));
    target.reset();
    loop.run_once();
    EXPECT_EQ(loop.metrics().buffers_out, 0u);
}

// Goal: a stream of parcels between running loops needs no memory of its own.
TEST_F(ParcelTest, AStreamOfParcelsReusesItsBlocks) {
    Elsewhere source, target;
    std::atomic<int> arrived = 0;
    std::size_t slabs = 0;
    source.run([&] {
        Loop loop({.memory_bytes_max = 2u << 20});  // one slab: 1024 blocks for 20'000 parcels
        for (int i = 0; i < 20'000; ++i) {
            auto made = loop.allocate(100);
            while (!made) {
                EXPECT_EQ(made.error(), Errc::out_of_buffers);
                std::this_thread::yield();
                made = loop.allocate(100);
            }
            std::memset(made->data(), i, 100);
            EXPECT_TRUE(target.ref().post([parcel = pack(*std::move(made)), &arrived, i]() mutable {
                Loop fake;
                EXPECT_TRUE(all(std::move(parcel).open(fake), i & 255));
                ++arrived;
            }));
        }
        slabs = loop.metrics().slab_bytes;
    });
    while (arrived < 20'000) std::this_thread::yield();
    EXPECT_EQ(slabs, 2u << 20);
    target.end();
}

}  // namespace
}  // namespace evpl
