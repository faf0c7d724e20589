#pragma once

#include <cstdint>

namespace evpl::base {

/// How often this process has been forked off since the first call of the whole line: a number that differs from an earlier one means that
/// we are a child of whoever asked then, and share its kernel objects. Thread: any. Cost: a load.
std::uint32_t forks() noexcept;

}  // namespace evpl::base
