#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <evpl/duration.hpp>
#include <evpl/error.hpp>
#include <evpl/loop.hpp>

namespace tool {

/// Exit codes of the command.
inline constexpr int exit_failure = 1;
inline constexpr int exit_usage = 2;

/// "evpl: <sentence>" on standard error, in one line. Returns exit_failure.
int fail(std::string_view sentence);

/// The error's own text, e.g. "connect: refused (peer, ECONNREFUSED: Connection refused)".
std::string text_of(evpl::Error error);
/// What the loop said about its last failed call, else the error's own text.
std::string reason_of(const evpl::Loop& loop, evpl::Error error);

/// "1,234,567"
std::string grouped(std::uint64_t number);
/// "812 ns", "12.3 us", "4.56 ms", "1.20 s"
std::string time_text(double ns);
/// Exact, in the largest unit that divides it: "64 B", "64 KiB", "1 MiB", "65,507 B"
std::string size_text(std::uint64_t bytes);
/// "1 message", "2 messages"
std::string counted(std::uint64_t n, std::string_view noun);

/// What a command line gives as a number of seconds.
constexpr evpl::Duration duration_of(double seconds) noexcept { return evpl::Duration::of_ns(std::int64_t(seconds * 1e9)); }

const char* name_of(evpl::Mode mode) noexcept;

/// True when `url` names a transport that carries datagrams (bind and connect_datagram instead of listen and connect).
bool is_datagram(std::string_view url);

/// Raises this process's soft limit of descriptors to its hard one: a server of many connections needs no ulimit.
void raise_descriptor_limit() noexcept;

}  // namespace tool
