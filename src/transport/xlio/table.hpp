#pragma once

#include "transport/xlio/abi.hpp"
#include "transport/xlio/environment.hpp"

namespace evpl::transport::xlio {

/// The first slot's address in a table that a library gave, or null with a sentence in `why`. `exit` is the library's exported xlio_exit:
/// the one pointer whose place proves the layout. Reads no more than the largest table that fits what the mask says.
const void* const* find_slots(const abi::TableHead* table, const void* exit, const char*& name, char (&why)[200]) noexcept;

/// The library is part of the program (EVPL_XLIO_STATIC of the build): there is nothing to load, and no table.
extern const bool is_linked_in;

/// Loads the library at `path` for good, without its symbols taking anything over, and fills in `calls`, those of libibverbs too. `layout`
/// gets the name of its table. An obstacle: `calls` is not to be used. Throws std::bad_alloc.
Obstacle open_library(const char* path, abi::Calls& calls, const char*& layout);

/// What `init` is given: an allocator of ordinary memory, and who hears of the memory that was registered (null: nobody).
abi::InitAttr init_attributes(void (*registered)(void* at, std::size_t bytes, std::size_t hugepage_bytes)) noexcept;

/// The exit status of evpl-xlio-probe when `init` failed: this, and its errno below the second. 0: go on.
inline constexpr int probe_errno_base = 100, probe_errno_most = 140;

}  // namespace evpl::transport::xlio
