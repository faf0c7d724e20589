#pragma once

#include "core/loop_core.hpp"
#include "core/member.hpp"
#include "evpl/datagram.hpp"
#include "transport/transport.hpp"

namespace evpl::core {

class DatagramConnector;

/// A datagram socket behind its facade. The handler lives right behind it in the same allocation.
class DatagramState final : public Datagram, public Member, public transport::Sink {
public:
    /// Null: out of memory; the factory stays the caller's then, else it is dropped with this object.
    static DatagramState* create(LoopCore& core, const detail::DatagramFactory& factory) noexcept;

    // -- Sink
    void opened() override;
    void delivered(Buffer&& bytes, const transport::Arrival& arrival) override;
    void landed(std::uint32_t) override {}
    void ended() override {}
    void sent(std::size_t bytes) override;
    void send_failed(Error error) override;
    void writable() override;
    void completed(OperationId, Error, Buffer&&) override {}
    void closed(Error error) override;
    void retired() override;

    // -- Member
    void dispatch() override;
    void flush_outbox() override;
    void settle() override;
    void stop(bool drain, Error reason) override;
    bool is_alive() const noexcept override { return phase != Phase::closed; }
    bool is_connection() const noexcept override { return false; }
    void destroy() noexcept override;

    bool build() noexcept;
    void discard() noexcept;
    void begin_close(Error reason) noexcept;
    Flow push(const Address* to, Buffer&& bytes) noexcept;
    Packet take() noexcept;
    const Caps& caps_now() const noexcept { return link != nullptr ? *link->caps : planned_caps; }
    void describe_url() noexcept;
    /// Binds, or connects to `remote` when it is not null. A failure changes nothing.
    Error open_link(const Address* remote, Diagnostic& why) noexcept;

    enum class Phase : std::uint8_t { opening, open, closing, closed };
    enum Event : std::uint32_t { ev_open = 1, ev_recv = 2, ev_writable = 4, ev_error = 8, ev_close = 16 };

    /// Received bytes with what they came with: one datagram, or several of segment_bytes each.
    struct Received {
        Buffer bytes;
        Address from;
        Address to;
        std::uint32_t segment_bytes;
        bool truncated;
    };

    detail::DatagramFactory factory;
    void* self = nullptr;
    transport::Link* link = nullptr;
    transport::Port* port = nullptr;
    DatagramConnector* connector = nullptr;  ///< while a name is resolved
    std::uint32_t slot = 0, generation = 0;
    memory::RingQueue<Received, 1> inbox;
    transport::SendQueue outbox;
    QueueLimits limits;
    std::size_t unread_bytes = 0;
    std::size_t queued_bytes = 0;
    std::uint32_t fresh_in = 0, fresh_out = 0, unkeyed_out = 0;
    std::uint32_t events = 0;
    Phase phase = Phase::opening;
    bool connected = false;  ///< to one peer: destinations are not queued
    bool send_paused = false;
    bool receive_paused = false;
    bool link_closed = false;
    Error close_reason;
    Error send_error;
    Caps planned_caps;
    const transport::Scheme* scheme = nullptr;
    Endpoint endpoint;
    DatagramMetrics counted;
    char url_text[200] = {};

private:
    DatagramState(LoopCore& core, const detail::DatagramFactory& factory) noexcept;
    ~DatagramState() = default;
    void* handler_room() noexcept;
    void finish_close() noexcept;
    void note(std::uint32_t event) noexcept {
        events |= event;
        core.mark(*this);
    }
    template <class Call>
    void guard(Call call) noexcept;
};

inline DatagramState& state_of(Datagram& datagram) noexcept { return static_cast<DatagramState&>(datagram); }
inline const DatagramState& state_of(const Datagram& datagram) noexcept { return static_cast<const DatagramState&>(datagram); }

}  // namespace evpl::core
