#pragma once

#include "base/settings.hpp"
#include "evpl/endpoint.hpp"

namespace evpl::transport {

/// What is wrong with a setting, with a sentence: unknown_option, bad_option; ok when nothing is. Knows the options of every scheme.
/// Throws std::bad_alloc. Thread: any. Cost: some microseconds.
Error check_setting(const base::Setting& setting, Diagnostic& why);

/// The fault of the process's configuration that every set-up call of a loop has to tell: a file that cannot be read, a name that
/// nobody knows, a wrong value of loop.* or limits.*. Null: none. Thread: any. Cost after the first call: one load.
const base::Fault* configuration_fault() noexcept;

}  // namespace evpl::transport
