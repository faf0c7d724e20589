#pragma once

#include <cstddef>
#include <cstdint>

#pragma GCC visibility push(default)
namespace evpl {

/// What went wrong, or how something ended. Names are stable; `name_of()` gives the text.
enum class Errc : std::uint16_t {
    none = 0,
    end,                  ///< orderly end: both sides have finished
    closed,               ///< closed by a local close()
    cancelled,            ///< ended before it completed because somebody asked for that
    stopped,              ///< the loop was stopped
    timed_out,            ///< a deadline passed
    peer_silent,          ///< no sign of life from the peer (keepalive, user timeout)
    refused,              ///< nobody listens there, or the listener refused us
    reset,                ///< the peer, or something between, cut the connection
    unreachable,          ///< no route to the host or network
    name_not_found,       ///< the name does not resolve
    name_failed,          ///< the resolver failed (no server, garbage, refused)
    address_in_use,       ///< another socket is bound there
    address_unavailable,  ///< not an address of this machine, or no port is left
    bad_endpoint,         ///< the URL cannot be parsed
    unknown_scheme,       ///< no transport of that name
    unknown_option,       ///< the URL names an option that the transport does not have
    bad_option,           ///< an option's value is wrong
    transport_absent,     ///< the transport is not present on this machine
    not_supported,        ///< this transport, device or kernel cannot do that
    permission_denied,    ///< the system forbids it
    too_many_files,       ///< out of descriptors
    out_of_memory,        ///< the system has no memory
    out_of_buffers,       ///< a buffer limit of the loop or the process is reached
    send_limit,           ///< the outbox passed its hard limit
    receive_limit,        ///< unread bytes passed what a transport without receive pause may hold; by the peer: it had no receive ready
    too_large,            ///< a message, frame or request is larger than allowed
    truncated,            ///< a message was cut
    bad_frame,            ///< the framing callback found nonsense
    protocol_error,       ///< the peer broke a protocol
    refused_by_handler,   ///< the accept factory returned an error
    handler_threw,        ///< a callback threw
    misuse,               ///< the caller broke a rule that can be answered
    loop_ended,           ///< the target loop has ended
    remote_access,        ///< remote memory: bounds, key or rights are wrong, or it was revoked
    device_lost,          ///< the device went away or its port went down
    device_error,         ///< the device reported a failure
    io_error,             ///< any other failure of the system; see os()
    count_
};

/// In which step it happened.
enum class Step : std::uint8_t { none, parse, resolve, open, bind, listen, accept, connect, tls, send, recv, remote, close, loop, count_ };

/// Who caused it.
enum class Who : std::uint8_t { unknown, local, peer, system, count_ };

/// An error: 8 bytes, trivially copyable. Default-constructed it means success.
class Error {
public:
    constexpr Error() noexcept = default;
    /// Made by the library, and by programs that end a connection with a reason of their own.
    constexpr Error(Errc code, Step step = Step::none, Who who = Who::local, std::int32_t os = 0) noexcept : code_(code), step_(step), who_(who), os_(os) {}

    /// From an errno value: the code that fits it, and who usually causes it.
    static Error from_errno(int os, Step step) noexcept;

    /// What went wrong.
    constexpr Errc code() const noexcept { return code_; }
    /// In which step.
    constexpr Step step() const noexcept { return step_; }
    /// Who caused it, as far as that can be known.
    constexpr Who who() const noexcept { return who_; }
    /// The system's own code (errno on sockets), 0 when there is none.
    constexpr std::int32_t os() const noexcept { return os_; }
    /// Nothing went wrong.
    constexpr bool ok() const noexcept { return code_ == Errc::none; }

    friend constexpr bool operator==(const Error& a, const Error& b) noexcept = default;
    friend constexpr bool operator==(const Error& a, Errc b) noexcept { return a.code_ == b; }

    /// "connect: refused (peer, ECONNREFUSED: Connection refused)" into `text`, always terminated when room_bytes > 0.
    /// Returns the length without the terminator. Thread: any.
    std::size_t describe(char* text, std::size_t room_bytes) const noexcept;

private:
    Errc code_ = Errc::none;
    Step step_ = Step::none;
    Who who_ = Who::unknown;
    std::int32_t os_ = 0;
};
static_assert(sizeof(Error) == 8);

/// "connection refused" style names: the enumerator's own name, e.g. "refused".
const char* name_of(Errc code) noexcept;
const char* name_of(Step step) noexcept;
const char* name_of(Who who) noexcept;

}  // namespace evpl
#pragma GCC visibility pop
