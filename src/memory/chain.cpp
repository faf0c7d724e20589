#include "evpl/chain.hpp"

#include <algorithm>
#include <cstring>

#include "memory/array_pool.hpp"

namespace evpl {

bool Chain::grow(std::uint32_t wanted) noexcept {
    std::uint32_t capacity = capacity_;
    while (capacity < wanted) capacity *= 2;
    auto* bigger = static_cast<Buffer*>(memory::take_array(capacity * sizeof(Buffer)));
    if (bigger == nullptr) return false;
    for (std::uint32_t i = 0; i < count_; ++i) new (bigger + i) Buffer(std::move(slices_[i]));
    free_array();
    slices_ = bigger;
    capacity_ = capacity;
    return true;
}

void Chain::free_array() noexcept {
    if (!is_inline()) memory::give_array(slices_, capacity_ * sizeof(Buffer));
}

void Chain::take_array(Chain& other) noexcept {
    slices_ = std::exchange(other.slices_, other.inline_array());
    capacity_ = std::exchange(other.capacity_, inline_slices);
    count_ = std::exchange(other.count_, 0);
    size_bytes_ = std::exchange(other.size_bytes_, 0);
}

void Chain::clear() noexcept {
    for (std::uint32_t i = 0; i < count_; ++i) slices_[i].~Buffer();
    free_array();
    slices_ = inline_array();
    capacity_ = inline_slices;
    count_ = 0;
    size_bytes_ = 0;
}

bool Chain::append(Chain&& other) noexcept {
    if (count_ + other.count_ > capacity_ && !grow(count_ + other.count_)) return false;
    for (Buffer& slice : other.slices()) append_unchecked(std::move(slice));
    other.clear();
    return true;
}

Chain Chain::take_front(std::size_t n) noexcept {
    if (n >= size_bytes_) return std::move(*this);
    Chain front;
    std::uint32_t used = 0;
    while (n > 0) {
        EVPL_CHECK(used < count_, "a slice of the chain was changed", size_bytes_, count_);
        Buffer& slice = slices_[used];
        if (slice.size() > n) {
            Buffer part = slice.share(0, std::uint32_t(n));
            if (!front.append(std::move(part))) break;
            slice.drop_front(std::uint32_t(n));
            break;
        }
        n -= slice.size();
        if (!front.append(std::move(slice))) break;
        ++used;
    }
    for (std::uint32_t i = used; i < count_; ++i) slices_[i - used] = std::move(slices_[i]);
    count_ -= used;
    size_bytes_ -= front.size_bytes_;
    return front;
}

void Chain::drop_front(std::size_t n) noexcept {
    if (n >= size_bytes_) return clear();
    size_bytes_ -= n;
    std::uint32_t used = 0;
    for (;;) {
        EVPL_CHECK(used < count_, "a slice of the chain was changed", size_bytes_, count_);
        if (n < slices_[used].size()) break;
        n -= slices_[used].size();
        slices_[used++].reset();
    }
    slices_[used].drop_front(std::uint32_t(n));
    for (std::uint32_t i = used; used > 0 && i < count_; ++i) slices_[i - used] = std::move(slices_[i]);
    count_ -= used;
}

Chain Chain::share() const noexcept {
    Chain shared;
    if (count_ > shared.capacity_ && !shared.grow(count_)) return shared;
    for (const Buffer& slice : slices()) shared.append_unchecked(slice.share());
    return shared;
}

std::size_t Chain::copy_to(std::span<std::byte> target, std::size_t offset) const noexcept {
    std::size_t copied = 0;
    for (const Buffer& slice : slices()) {
        if (offset >= slice.size()) {
            offset -= slice.size();
            continue;
        }
        const std::size_t n = std::min<std::size_t>(slice.size() - offset, target.size() - copied);
        if (n == 0) break;
        std::memcpy(target.data() + copied, slice.data() + offset, n);
        copied += n;
        offset = 0;
    }
    return copied;
}

}  // namespace evpl
