#pragma once

#include <sys/epoll.h>
#include <sys/uio.h>

#include <array>
#include <cerrno>
#include <memory>

#include "memory/heap.hpp"
#include "memory/ring_queue.hpp"
#include "transport/common/receive_block.hpp"
#include "transport/common/sockets/address_bytes.hpp"
#include "transport/common/sockets/options.hpp"
#include "transport/transport.hpp"

namespace evpl::transport::socket {

class SocketPort;
class SocketListening;
struct Driven;

/// Closes it so that a TCP peer sees a reset: what it has got is not all there is.
void close_with_reset(int fd) noexcept;

/// Whether a call failed only because the socket was not ready. EWOULDBLOCK is the same on Linux.
inline bool would_block(int error) noexcept { return error == EAGAIN; }

struct ZeroCopy;
struct DatagramExtra;
struct DatagramBatch;
struct DatagramBatchDeleter {
    void operator()(DatagramBatch* batch) const noexcept;
};

/// What a stream's or message socket's link waits for in an epoll set.
inline constexpr std::uint32_t stream_events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;

/// One socket. From the port's type-stable pool; what a message touches fills two cache lines.
class alignas(64) SocketLink final : public Link, public Watcher {
public:
    enum class State : std::uint8_t { idle, connecting, open, closed };
    /// What the port still owes the link, done in its next poll.
    enum Owed : std::uint8_t {
        owe_open = 1,    ///< opened() of a connect that succeeded at once, or of an accepted or bound socket
        owe_read = 2,    ///< the kernel may still have bytes: its edge is used up
        owe_close = 4,   ///< closed()
        owe_retire = 8,  ///< retired()
        owe_retry = 16   ///< a connect or send that the kernel had no memory or backlog for
    };

    std::uint32_t ready(std::uint32_t events) override;

    State state = State::idle;
    Flavor flavor = Flavor::tcp;
    std::uint8_t owed = 0;
    bool queued = false;       ///< in the port's list of links that it owes something
    bool blocked = false;      ///< the socket buffer is full: EPOLLOUT will tell
    bool read_ended = false;   ///< the peer's end of stream was seen
    bool write_ended = false;  ///< shutdown(SHUT_WR) done
    bool draining = false;     ///< How::drain asked
    bool finishing = false;    ///< How::finish asked
    bool hung_up = false;      ///< EPOLLRDHUP, HUP or ERR seen: read until the end, a short read proves nothing
    ZeroCopy* zero_copy = nullptr;
    DatagramExtra* datagram = nullptr;
    Driven* driven = nullptr;  ///< what a port that drives its links by completions keeps for this one
    Error end;                 ///< what closed() will say
    Address peer;
    SocketAddress* unix_target = nullptr;  ///< while connecting: where to
    SocketLink* next = nullptr;
};

/// The kernel sockets of one loop: sockets, options, connecting, listening, ends and datagrams. By itself it is driven by readiness,
/// through an epoll set; a port that is driven by completions derives from it and takes over what tells when a socket is to be looked at.
class SocketPort : public Port {
public:
    explicit SocketPort(Host& host, Sleeper& sleeper) noexcept;
    ~SocketPort() override;

    Result<Listening*> listen(const Endpoint& at, bool shared, Acceptor& acceptor, Diagnostic& why) override;
    Result<Link*> connect(const Endpoint& to, const Address& address, Sink& sink, SendQueue& outbox, Diagnostic& why) override;
    Result<Link*> bind(const Endpoint& at, const Address* remote, Sink& sink, SendQueue& outbox, Diagnostic& why) override;
    Result<Link*> adopt(const Endpoint& options, int descriptor, const Address& peer, Sink& sink, SendQueue& outbox) override;
    unsigned poll(unsigned budget) override;
    Flushed flush(Link& link) override;
    void pause(Link& link) override;
    void resume(Link& link) override;
    void close(Link& link, How how) override;
    void alarm() override;
    Address remote_address(const Link& link) const override;
    Address local_address(const Link& link) const override;
    std::size_t remote_name(const Link& link, std::span<char> room) const override;
    int native_fd(const Link& link) const noexcept override;
    Result<void> credentials(const Link& link, std::int32_t& pid, std::uint32_t& uid, std::uint32_t& gid) const override;
    Result<void> join(Link& link, const Address& group, const Address& interface, bool leave) override;

    // -- the data path (datapath.cpp), called by links
    std::uint32_t stream_ready(SocketLink& link, std::uint32_t events);
    std::uint32_t datagram_ready(SocketLink& link, std::uint32_t events);

    // -- listeners (listening.cpp)
    SocketLink* take_link() noexcept;
    Result<SocketLink*> wrap_accepted(int fd, Flavor flavor, const Address& peer) noexcept;
    void start_accepted(SocketLink& link);
    void drop_accepted(SocketLink& link) noexcept;
    /// Runs retry() of paused listeners; a descriptor of ours has become free, or time has passed.
    void retry_listeners() noexcept;
    /// A fresh one, or null; a closed one goes back with put_away().
    SocketListening* take_listening(Flavor flavor, const Options& options) noexcept;
    void put_away(SocketListening& listening) noexcept;
    /// alarm() comes after `delay_ns`, or earlier when that was asked for already.
    void retry_after(std::int64_t delay_ns) noexcept;

    // -- who tells when there is something to do; links call the first two with state connecting (EPOLLOUT) or open
    virtual Result<void> watch(SocketLink& link, std::uint32_t events) noexcept;
    virtual Result<void> watch(SocketListening& listening) noexcept;
    virtual void unwatch(SocketListening& listening, bool closing) noexcept;
    /// Others listen there, too: the kernel may no longer take peers on its own account.
    virtual void handed_over(SocketListening&) noexcept {}

    Host& host;
    Sleeper& sleeper;
    ReceiveBlock block;

protected:
    friend class SocketListening;

    virtual void close_descriptor(SocketLink& link, bool reset) noexcept;
    /// What resume() and a retry ask for: bytes may wait in the kernel.
    virtual void read_again(SocketLink& link);
    /// The socket is full: writable() has to be told when it is not.
    virtual void ask_for_room(SocketLink& link, bool wanted);
    /// The kernel still uses memory that was taken from the outbox.
    virtual bool holds(const SocketLink& link) const noexcept;
    /// The kernel still has operations of a closed link.
    virtual bool busy(const SocketLink& link) const noexcept {
        (void)link;
        return false;
    }
    virtual void free_driven(SocketLink& link) noexcept { (void)link; }

    // -- for those who derive
    void owe(SocketLink& link, std::uint8_t what) noexcept;
    /// A descriptor was closed: listeners that wait for one try again soon.
    void retry_after_close() noexcept;
    void finish_connect(SocketLink& link);
    void fail(SocketLink& link, Error error) noexcept;
    void outbox_empty(SocketLink& link) noexcept;
    void end_of_stream(SocketLink& link);
    void broken_after_end(SocketLink& link) noexcept;
    Flushed send_failed(SocketLink& link, int error) noexcept;
    bool wants_zero_copy(const SocketLink& link, std::size_t bytes) const noexcept;
    /// A datagram as recvmsg(2) tells of it; `from` counts where the socket is not connected.
    void deliver_datagram(SocketLink& link, msghdr& header, const SocketAddress& from, Buffer&& bytes);
    /// Small ones out of the large block they came in; an empty Buffer when they are better left there.
    Buffer copy_small(std::span<const std::byte> bytes) noexcept;
    /// Some calls by reference may be done: lets go, and tells of it.
    void zero_copy_released(SocketLink& link);

private:
    // set-up
    void settle(SocketLink& link);
    Error start_connect(SocketLink& link) noexcept;
    void release(SocketLink& link) noexcept;
    void close_links() noexcept;
    void free_listenings() noexcept;

    // data path
    std::uint32_t read_stream(SocketLink& link);
    std::uint32_t read_messages(SocketLink& link);
    ssize_t receive(SocketLink& link, std::span<std::byte> room, std::span<int>& descriptors, int& flags) noexcept;
    Flushed flush_stream(SocketLink& link);
    Flushed flush_messages(SocketLink& link);
    bool gather_message(SendQueue& out) noexcept;

    // zero copy (zero_copy.cpp)
    void zero_copy_done(SocketLink& link);

    // datagrams (datagram.cpp)
    std::uint32_t read_datagrams(SocketLink& link);
    std::uint32_t deliver_datagrams(SocketLink& link, unsigned count);
    Flushed flush_datagrams(SocketLink& link);
    void datagrams_gone(SocketLink& link, unsigned count);
    bool datagram_refused(SocketLink& link, int error);
    void drop_datagram(SocketLink& link, int error);
    void blame_segmentation(SocketLink& link) noexcept;
    void retry_datagrams(SocketLink& link) noexcept;
    Error open_datagram(SocketLink& link, const Endpoint& at, const Address* remote, const Options& options, Diagnostic& why) noexcept;
    void close_datagram(SocketLink& link) noexcept;

    memory::RingQueue<SocketLink*, 16> owing_;
    SocketLink* free_ = nullptr;
    struct Chunk;
    Chunk* chunks_ = nullptr;
    SocketListening* paused_listeners_ = nullptr;
    SocketListening* closed_listeners_ = nullptr;
    std::int64_t retry_at_ns_ = INT64_MAX;
    memory::RingQueue<SocketLink*, 16> retrying_;
    std::unique_ptr<DatagramBatch, DatagramBatchDeleter> datagrams_;  ///< made with the first datagram link
};

/// The flavor of a stream or message endpoint, by its scheme and options.
Flavor flavor_of(const Endpoint& endpoint, const Options& options) noexcept;
/// Its scheme's family of options.
Flavor family_of(const Endpoint& endpoint) noexcept;

/// A bound, not yet listening socket and its real address; the sentence in `why` names the endpoint.
Result<int> open_bound_socket(const Endpoint& at, Flavor flavor, bool shared, const Options& options, SocketAddress& bound, Diagnostic& why) noexcept;
/// "tcp://127.0.0.1:43211" with the port as bound.
void describe_bound(const Endpoint& at, std::uint16_t number, std::span<char> text) noexcept;

Flavor family_of(const Scheme& scheme) noexcept;
/// What Transport::caps answers for these schemes.
Result<Caps> planned_caps(const Scheme& scheme, const Endpoint& endpoint, Diagnostic& why) noexcept;
const Caps& caps_of(Flavor flavor, bool zero_copy) noexcept;
/// The largest message of unix seqpacket sockets: fits the kernel's default send buffer (net.core.wmem_default, 208 KiB) and our block.
inline constexpr std::uint32_t unix_message_bytes_max = 128u << 10;

}  // namespace evpl::transport::socket
