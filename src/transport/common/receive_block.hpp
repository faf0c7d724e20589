#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <span>

#include "memory/heap.hpp"

namespace evpl::transport {

/// The block that all links of a port read into: slices are cut off it, so that an idle connection holds no memory. When all slices are
/// gone it is used again from the start, and so stays in the cache.
class ReceiveBlock {
public:
    static constexpr std::uint32_t size_bytes = 256u << 10;

    explicit ReceiveBlock(memory::Heap& heap) noexcept : heap_(heap) {}

    /// At least `least` free bytes (least <= size_bytes); empty: out of buffers.
    std::span<std::byte> room(std::uint32_t least) noexcept {
        if (block_ && memory::is_sole(block_)) used_ = 0;
        if (!block_ || size_bytes - used_ < least) [[unlikely]] {
            if (!renew()) return {};
        }
        return block_.bytes().subspan(used_);
    }

    /// The first n bytes of room(), as a slice. The next one starts on a new cache line.
    Buffer cut(std::uint32_t n) noexcept {
        Buffer slice = block_.share(used_, n);
        used_ = std::min((used_ + n + 63u) & ~63u, size_bytes);
        return slice;
    }

    /// A few hundred bytes from elsewhere, as a slice; none: out of buffers.
    Buffer copy(const std::byte* from, std::uint32_t n) noexcept {
        const std::span<std::byte> to = room(n);
        if (to.empty()) [[unlikely]]
            return {};
        copy_small(to.data(), from, n);
        return cut(n);
    }

    /// Gives the block back (before a long sleep).
    void drop() noexcept {
        block_.reset();
        used_ = 0;
    }

private:
    /// memcpy of a size that is known to be small becomes `rep movs`, which takes longer to start than this takes.
    static void copy_small(std::byte* to, const std::byte* from, std::uint32_t n) noexcept {
        constexpr std::uint32_t line = 64, step = 16;
        for (; n >= line; to += line, from += line, n -= line) std::memcpy(to, from, line);
        for (; n >= step; to += step, from += step, n -= step) std::memcpy(to, from, step);
        for (; n > 0; ++to, ++from, --n) *to = *from;
    }
    [[gnu::noinline]] bool renew() noexcept {
        block_.reset();
        used_ = 0;
        auto made = heap_.allocate(size_bytes);
        if (!made) return false;
        block_ = *std::move(made);
        return true;
    }

    memory::Heap& heap_;
    Buffer block_;
    std::uint32_t used_ = 0;
};

}  // namespace evpl::transport
