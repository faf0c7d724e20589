#pragma once

#include <cstdint>

#include "evpl/handler.hpp"

namespace evpl::core {

class ListenerState;

/// Where connections come from: the factory of their handlers, and what is counted about them. Shared by a listener and its connections,
/// so that both may end first. One thread.
struct Origin {
    detail::ConnectionFactory factory;
    std::uint32_t refs = 1;
    ListenerState* listener = nullptr;  ///< null once it is closed, and for connect()
    std::uint64_t accepted = 0;
    std::uint64_t refused = 0;
    std::uint64_t open = 0;
    std::uint32_t open_max = 0;  ///< 0: no limit

    static Origin* create(const detail::ConnectionFactory& factory) noexcept;  ///< null: out of memory; the factory is dropped
    void ref() noexcept { ++refs; }
    void unref() noexcept;
};

}  // namespace evpl::core
