#pragma once

#include <cstdint>

#include "evpl/buffer.hpp"
#include "evpl/error.hpp"

#pragma GCC visibility push(default)
namespace evpl {

/// Memory that a peer exposed: plain, may be sent in a message or made from one. Valid for the connection it was made for.
struct RemoteRegion {
    std::uint64_t address = 0;     ///< as the owner sees it
    std::uint64_t key = 0;         ///< what makes it valid: the device's (RDMA: its 32-bit R_Key, as protocols write it), or ours on inproc
    std::uint64_t size_bytes = 0;  ///< length of the exposed range
};

/// What a peer may do with exposed memory; `|` joins them.
enum class Access : std::uint8_t { read = 1, write = 2, read_write = 3, atomic = 4 };
constexpr Access operator|(Access a, Access b) noexcept { return Access(std::uint8_t(a) | std::uint8_t(b)); }

/// Names one remote operation of a connection.
struct OperationId {
    std::uint64_t value = 0;  ///< unique within a connection
    friend bool operator==(OperationId, OperationId) noexcept = default;
};

/// How a remote operation ended; `error.ok()` is success. The buffer comes back: filled after a read.
struct Completion {
    OperationId id;           ///< what read() or write() answered
    Error error;              ///< ok: the bytes have been moved
    Buffer buffer;            ///< the one that was given, filled after a read
    std::uint64_t value = 0;  ///< atomics: what was there before
};

}  // namespace evpl
#pragma GCC visibility pop
