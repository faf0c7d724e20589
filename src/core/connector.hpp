#pragma once

#include <array>
#include <cstdint>

#include "core/connection_state.hpp"
#include "core/datagram_state.hpp"
#include "core/resolver.hpp"

namespace evpl::core {

/// A connect without a limit of its own ends after this.
inline constexpr std::int64_t connect_limit_ns = 30'000'000'000;

/// Opens a connection: resolves its host, then tries the addresses, both families raced (RFC 8305), until one link opens. Lives while a
/// connection with a name is opening; a literal address needs none. The time limit is the connection's own.
class Connector final : public Member {
public:
    /// The next address is tried when the one before has not answered for so long (RFC 8305 section 8, "Connection Attempt Delay").
    static constexpr std::int64_t attempt_delay_ns = 250'000'000;

    /// Starts for `connection`. Failures of the network come later, by connect_failed(); an error here means nothing was started.
    static Error start(ConnectionState& connection, const transport::Choice& choice, const Endpoint& to, Diagnostic& why) noexcept;
    /// The connection gives up: attempts are aborted, nothing is told any more.
    static void abandon(ConnectionState& connection) noexcept;
    /// What an opening connection waits for: resolve until there is an address to try, then connect.
    static Step step_of(const ConnectionState& connection) noexcept;

    // -- Member: in the loop's list only so that it is freed with it
    void dispatch() override;
    void flush_outbox() override {}
    void settle() override {}
    void stop(bool, Error) override {}
    bool is_alive() const noexcept override { return false; }
    bool is_connection() const noexcept override { return false; }
    void destroy() noexcept override;

private:
    class Attempt;
    struct Question : Resolver::Query {
        Connector* owner;
    };
    struct Delay : Alarm {
        Connector* owner;
    };
    /// The addresses of one family, in the order they came.
    struct Candidates {
        std::array<Address, Resolver::family_max> list;
        std::uint8_t count = 0;
        std::uint8_t tried = 0;
    };

    Connector(ConnectionState& connection, transport::Port* port, const transport::Choice& choice, const Endpoint& to) noexcept;
    ~Connector() = default;

    void answered(const Resolver::Answer& answer) noexcept;
    void add(std::span<const Address> addresses) noexcept;
    const Address* choose() noexcept;
    bool advance() noexcept;
    bool try_address(const Address& address) noexcept;
    void note_failure(Error error) noexcept;
    void opened(Attempt& attempt) noexcept;
    void failed(Attempt& attempt, Error error) noexcept;
    void forget(Attempt& attempt) noexcept;
    void wind_up() noexcept;

    ConnectionState* connection_;  // null once it is decided
    transport::Port* port_;        // null: only the stand-in is there
    transport::Choice choice_;
    Endpoint endpoint_;
    Question question_;
    Delay delay_;
    Attempt* attempts_ = nullptr;  // under way
    Candidates candidates_[2];
    unsigned family_ = 0;  // to be tried next, when it has any
    bool may_try_ = true;  // the last attempt has had its time, or failed
    Error failure_;        // the most telling one
};

/// Opens a datagram socket that is connected to a name: the first address that the system takes.
class DatagramConnector {
public:
    /// As Connector::start(). The state is open when this returns without an error and its `connector` is null.
    static Error start(DatagramState& state, Limit limit, Diagnostic& why) noexcept;
    /// The socket is closed; harmless when it is not opening.
    static void abandon(DatagramState& state) noexcept;

private:
    struct Question : Resolver::Query {
        DatagramConnector* owner;
    };
    struct Deadline : Alarm {
        DatagramConnector* owner;
    };
    explicit DatagramConnector(DatagramState& state) noexcept;
    void answered(const Resolver::Answer& answer) noexcept;
    void end(Error error) noexcept;

    DatagramState& state_;
    Question question_;
    Deadline deadline_;
    Error failure_;
};

}  // namespace evpl::core
