#pragma once

#include "core/loop_core.hpp"
#include "core/member.hpp"
#include "core/origin.hpp"
#include "transport/transport.hpp"

namespace evpl::core {

class ConnectionState;

/// A listener behind its handle.
class ListenerState final : public Member, public transport::Acceptor {
public:
    /// Instead of accepting here: `take` may carry a peer away to another loop.
    struct HandOut {
        bool (*take)(void* context, int descriptor, const Address& peer) = nullptr;
        void* context = nullptr;
    };

    ListenerState(LoopCore& core, Origin& origin, const transport::Choice& choice) noexcept;

    // -- Acceptor
    bool accepted(transport::Link& link) override;
    bool taken(int descriptor, const Address& peer) override;
    void paused(Error why) override;
    void failed(Error error) override;

    // -- Member
    void dispatch() override {}
    void flush_outbox() override {}
    void settle() override {}
    void stop(bool drain, Error reason) override;
    bool is_alive() const noexcept override { return !closed_; }
    bool is_connection() const noexcept override { return false; }
    bool left_to_handle() noexcept override { return orphaned = !handle_dropped; }
    void destroy() noexcept override;

    void close_now() noexcept;
    void connection_closed() noexcept;
    void update_pause() noexcept;
    int hand_over() noexcept;  ///< it listens
    /// A peer accepted by another loop becomes a connection of this one. Closes the descriptor on failure.
    void adopt(int descriptor, const Address& peer) noexcept;

    Origin* origin;
    transport::Choice choice;
    Endpoint endpoint;
    transport::Listening* listening = nullptr;
    transport::Listening* beside = nullptr;  ///< of the transport that stands in where `listening` does not reach; may be the only one
    const transport::Scheme* beside_scheme = nullptr;
    const transport::Listening* shown() const noexcept { return listening != nullptr ? listening : beside; }
    HandOut hand_out;
    std::uint64_t accept_pauses = 0;
    bool handle_dropped = false;
    bool orphaned = false;  ///< its loop has ended; only the handle is left
    bool paused_by_user = false;
    bool paused_by_limit = false;

private:
    ~ListenerState() = default;
    ConnectionState* make_connection() noexcept;
    std::int64_t told_ns_ = 0;  ///< when the log last had a line about a pause
    bool closed_ = false;
};

/// As evpl::listen; `shared`: the port is shared with listeners of other loops.
Result<ListenerState*> open_listener(LoopCore& core, std::string_view url, const detail::ConnectionFactory& factory, bool shared) noexcept;

/// Accepts nothing itself: gets its peers by adopt(), from a listener of another loop.
Result<ListenerState*> open_adopter(LoopCore& core, std::string_view url, const detail::ConnectionFactory& factory) noexcept;

}  // namespace evpl::core
