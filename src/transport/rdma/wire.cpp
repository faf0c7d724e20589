#include "transport/rdma/wire.hpp"

namespace evpl::transport::rdma {
namespace {

constexpr std::uint8_t magic[4] = {'e', 'v', 'p', 'l'};
constexpr std::uint8_t version = 1;
constexpr std::uint8_t message_flag = 1;

// Offsets of the fields; numbers are big-endian.
enum : std::size_t { at_version = 4, at_size = 5, at_flags = 6, at_block = 8, at_message = 12, at_credits = 16 };

void put(std::uint8_t* at, std::uint32_t value, unsigned bytes) noexcept {
    for (unsigned i = bytes; i-- > 0; value >>= 8) at[i] = std::uint8_t(value);
}
std::uint32_t get(const std::uint8_t* at, unsigned bytes) noexcept {
    std::uint32_t value = 0;
    for (unsigned i = 0; i < bytes; ++i) value = value << 8 | at[i];
    return value;
}

}  // namespace

void Hello::write(std::span<std::uint8_t, size_bytes> out) const noexcept {
    for (std::uint8_t& byte : out) byte = 0;
    for (unsigned i = 0; i < sizeof magic; ++i) out[i] = magic[i];
    out[at_version] = version;
    out[at_size] = size_bytes;
    out[at_flags] = is_message ? message_flag : 0;
    put(&out[at_block], block_bytes, 4);
    put(&out[at_message], message_bytes, 4);
    put(&out[at_credits], credits, 2);
}

std::optional<Hello> Hello::read(std::span<const std::uint8_t> in) noexcept {
    if (in.size() < size_bytes) return std::nullopt;
    for (unsigned i = 0; i < sizeof magic; ++i) {
        if (in[i] != magic[i]) return std::nullopt;
    }
    if (in[at_version] != version || in[at_size] < size_bytes || in[at_size] > in.size()) return std::nullopt;
    Hello hello;
    hello.is_message = (in[at_flags] & message_flag) != 0;
    hello.block_bytes = get(&in[at_block], 4);
    hello.message_bytes = get(&in[at_message], 4);
    hello.credits = std::uint16_t(get(&in[at_credits], 2));
    constexpr std::uint32_t block_least = 256, block_most = 1u << 30;
    if (hello.block_bytes < block_least || hello.block_bytes > block_most || hello.credits == 0) return std::nullopt;
    if (hello.is_message != (hello.message_bytes != 0)) return std::nullopt;
    return hello;
}

}  // namespace evpl::transport::rdma
