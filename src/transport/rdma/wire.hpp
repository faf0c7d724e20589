#pragma once

// What two evpl peers say to each other: a greeting in the connection manager's private data, and 32 bits of immediate data with each
// SEND, so that the payload arrives at the start of its block.

#include <cstdint>
#include <optional>
#include <span>

namespace evpl::transport::rdma {

/// The greeting, in both directions. Padding behind it is normal: the manager delivers 56 bytes of a request whatever was given.
struct Hello {
    std::uint32_t block_bytes = 0;    ///< of the sender's receive blocks: the largest SEND it can take
    std::uint32_t message_bytes = 0;  ///< the largest message it takes; 0 on streams
    std::uint16_t credits = 0;        ///< SENDs that it can take now
    bool is_message = false;

    static constexpr std::size_t size_bytes = 20;
    void write(std::span<std::uint8_t, size_bytes> out) const noexcept;
    /// Nothing: it is no greeting of ours, or of another version.
    static std::optional<Hello> read(std::span<const std::uint8_t> in) noexcept;
};

/// The immediate data of a SEND.
struct Note {
    static constexpr std::uint32_t end_of_message = 1u << 31;
    static constexpr std::uint32_t end_of_stream = 1u << 30;  ///< the sender will send no more payload
    static constexpr std::uint32_t credit_mask = 0xffff;      ///< further SENDs that the sender of this can take
    static constexpr std::uint32_t known = end_of_message | end_of_stream | credit_mask;
};

/// Why a listener said no: the first byte of a reject's private data.
enum class Refusal : std::uint8_t { none, not_evpl = 1, other_mode = 2, closed = 3, busy = 4 };

}  // namespace evpl::transport::rdma
