// Goal: whatever private data a peer sends, a greeting is read from it only when it is one, and then says what its bytes say.
// Method: what is accepted is written again; the fields' bytes are the same.
#include <array>
#include <cstdint>
#include <cstring>

#include "transport/rdma/wire.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using evpl::transport::rdma::Hello;
    const auto hello = Hello::read({data, size});
    if (!hello) return 0;
    if (hello->credits == 0 || hello->block_bytes == 0) __builtin_trap();
    std::array<std::uint8_t, Hello::size_bytes> again;
    hello->write(again);
    constexpr std::size_t magic_and_version = 5, numbers = 8;
    if (std::memcmp(again.data(), data, magic_and_version) != 0) __builtin_trap();
    if (std::memcmp(again.data() + numbers, data + numbers, 10) != 0) __builtin_trap();
    const auto twice = Hello::read(again);
    if (!twice || twice->is_message != hello->is_message) __builtin_trap();
    return 0;
}
