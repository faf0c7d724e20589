#pragma once

#include <evpl/connection.hpp>

#include "perf_client.hpp"

namespace tool {

inline constexpr evpl::Limit connect_limit = evpl::within(evpl::Duration::of_ns(5'000'000'000));

/// Checks that bytes come back as they were sent, in order, whatever pieces they come in.
class Checker {
public:
    Checker(Worker& worker, std::uint64_t start) : worker_(worker), start_(start) {}

    /// False: they differ; the worker knows.
    bool take(const evpl::Chain& bytes);
    std::uint64_t received() const { return received_; }

private:
    Worker& worker_;
    const std::uint64_t start_;  ///< where in the pattern the connection begins
    std::uint64_t received_ = 0;
};

/// Each connection begins elsewhere in the pattern, so that bytes of another connection are noticed.
constexpr std::uint64_t start_of(std::uint64_t connection) { return connection * 7919; }

/// Sends one message that begins at `at` in the pattern.
evpl::Flow send_message(const Worker& worker, evpl::Connection& peer, std::uint64_t at);

/// What is there to read: a whole message where the transport has them, else anything. False: nothing is left.
bool receive(evpl::Connection& peer, evpl::Chain& into);

}  // namespace tool
