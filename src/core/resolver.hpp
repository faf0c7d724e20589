#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "core/member.hpp"
#include "core/timer_wheel.hpp"
#include "evpl/address.hpp"
#include "evpl/endpoint.hpp"
#include "evpl/error.hpp"

struct ares_channeldata;
struct ares_addrinfo;

namespace evpl::core {

/// The families, as indices of what is kept for each.
enum : unsigned { ipv4, ipv6 };

/// Names to addresses for one loop, by c-ares: /etc/hosts first, then the name servers, for A and AAAA at once. Nothing blocks but the
/// reading of those small files. The channel and its sockets exist only while they are needed, and an idle resolver watches nothing.
/// Equal names asked for at the same time are asked once. A member only to be marked: its work is done in dispatch().
class Resolver final : public Member {
public:
    /// Addresses kept per family; what a server sends beyond that is not looked at. Racing more would take eight seconds.
    static constexpr unsigned family_max = 16;
    /// Names asked for at the same time; others wait. Twice as many questions fit the default socket buffer (net.core.rmem_default,
    /// 208 KiB, at about 768 bytes each) of a name server nearby, so that a burst is not lost to overflow and late by a timeout.
    static constexpr unsigned asked_max = 128;

    /// What is known. `last`: nothing follows. Before that an answer with the addresses of one family may come, when the other family
    /// takes its time (RFC 8305 section 3); the last one then has only what is new.
    struct Answer {
        std::span<const Address> addresses;  ///< without port; borrowed until the call returns
        Error error;                         ///< with last, when the name has no address at all; step resolve
        bool last;
    };

    struct Lookup;
    /// One question, embedded in whoever asks. It must be over, or cancelled, before it goes away.
    struct Query {
        /// Called from the loop's turn, never from inside start(): once with last, and at most once before. The query may be started
        /// again or destroyed in it.
        void (*answered)(Query& query, const Answer& answer) = nullptr;

        bool is_asking() const noexcept { return lookup != nullptr; }
        /// Nothing is told any more. Harmless when it is not asking.
        void cancel() noexcept;

        // The resolver's own.
        Lookup* lookup = nullptr;
        Query* next = nullptr;
        Query** at = nullptr;   ///< what points to this query
        std::uint8_t told = 0;  ///< families that an early answer had
    };

    explicit Resolver(LoopCore& core) noexcept;
    ~Resolver();

    /// Asks for the addresses of `name`, which is neither a literal nor localhost. Errors, with a sentence in `why`: name_failed (built
    /// without c-ares), name_not_found (cannot be a name), bad_option (LoopOptions::dns_servers), out_of_memory, too_many_files.
    Error start(Query& query, std::string_view name, Diagnostic& why) noexcept;

    /// The addresses that need no asking: a literal has one, localhost (RFC 6761 section 6.3) has two. Zero: a name.
    static unsigned known(std::string_view host, std::span<Address, 2> found) noexcept;
    /// Whether this machine would rather use IPv6 to get to `to`: there is a route, and no private source address for a public target
    /// (RFC 6724 rules 1 and 5). Cost: four system calls; nothing is sent.
    static bool prefers_ipv6(const Address& to) noexcept;

    /// Names that somebody waits for, names that nobody waits for any more but c-ares still asks, and sockets: for tests.
    unsigned asking() const noexcept { return asked_ + queued_; }
    unsigned orphaned() const noexcept { return orphaned_; }
    unsigned sockets() const noexcept { return open_sockets_; }

    // -- Member
    void dispatch() override;
    void flush_outbox() override {}
    void settle() override {}
    void stop(bool, Error) override {}
    bool is_alive() const noexcept override { return false; }
    bool is_connection() const noexcept override { return false; }
    void destroy() noexcept override {}

private:
    struct Socket;
    static constexpr unsigned buckets = 256;  // short chains with 10 000 names waiting

    Error open_channel(Diagnostic& why) noexcept;
    void close_channel() noexcept;
    Lookup* find(std::string_view name, std::uint32_t hash) noexcept;
    Lookup* make(std::string_view name, std::uint32_t hash) noexcept;
    void ask(Lookup& lookup) noexcept;
    bool read_hosts(Lookup& lookup) noexcept;
    void family_done(Lookup& lookup, unsigned family, int status, const ares_addrinfo* found) noexcept;
    void review(Lookup& lookup) noexcept;
    void make_ready(Lookup& lookup) noexcept;
    void tell(Lookup& lookup) noexcept;
    void log(const Lookup& lookup) noexcept;
    static void join(Query& query, Query*& list) noexcept;
    static void leave(Query& query) noexcept;
    void retire(Lookup& lookup) noexcept;
    static void release(Lookup& lookup) noexcept;
    void process() noexcept;
    void arm() noexcept;
    void socket_state(int fd, bool read, bool write) noexcept;

    ares_channeldata* channel_ = nullptr;
    std::int64_t opened_ns_ = 0;
    std::array<Lookup*, buckets> table_{};  // those that a new query may join
    Lookup* first_queued_ = nullptr;
    Lookup* last_queued_ = nullptr;
    Lookup* ready_ = nullptr;  // with something to tell
    unsigned queued_ = 0, asked_ = 0, orphaned_ = 0;
    Socket* sockets_ = nullptr;  // never freed before the resolver: watchers are type-stable
    unsigned open_sockets_ = 0;
    struct Timeout : Alarm {
        Resolver* owner;
    } timeout_;
    bool timed_out_ = false;
};

}  // namespace evpl::core
