#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "evpl/buffer.hpp"
#include "evpl/result.hpp"

#pragma GCC visibility push(default)
namespace evpl {

class Loop;

/// A Buffer in transit between threads. Any thread may carry or drop it; open() on a loop's thread makes a Buffer again.
/// The block goes home to the loop that allocated it, whichever thread lets it go last, and also after that loop has ended.
class Parcel {
public:
    Parcel() noexcept = default;
    /// Moving leaves the other empty. Errors: none.
    Parcel(Parcel&& other) noexcept : data_(other.data_), block_(std::exchange(other.block_, nullptr)), size_(std::exchange(other.size_, 0)) {}
    /// Ends what this one holds, then takes over what the other does.
    Parcel& operator=(Parcel&& other) noexcept {
        if (this != &other) {
            drop();
            data_ = other.data_;
            block_ = std::exchange(other.block_, nullptr);
            size_ = std::exchange(other.size_, 0);
        }
        return *this;
    }
    ~Parcel() { drop(); }

    /// In bytes.
    std::uint32_t size() const noexcept { return size_; }
    /// Holds something.
    explicit operator bool() const noexcept { return block_ != nullptr; }

    /// The same bytes as a Buffer of `loop`; this Parcel is empty afterwards. No copy.
    /// Errors: none; an empty Parcel gives an empty Buffer. Thread: `loop`'s. Cost: some ns.
    [[nodiscard]] Buffer open(Loop& loop) &&;

private:
    friend struct BufferAccess;
    Parcel(detail::Block* block, std::byte* data, std::uint32_t size) noexcept : data_(data), block_(block), size_(size) {}
    void drop() noexcept;

    std::byte* data_ = nullptr;
    detail::Block* block_ = nullptr;
    std::uint32_t size_ = 0;
};

}  // namespace evpl
#pragma GCC visibility pop
