#pragma once

#pragma GCC visibility push(default)
namespace evpl {

/// The library's version, "major.minor.patch" (semantic versioning).
/// Errors: none. Thread: any. Cost: returns a literal.
const char* version() noexcept;

}  // namespace evpl
#pragma GCC visibility pop
