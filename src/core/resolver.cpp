// Names to addresses. c-ares only ever takes note here, from inside dispatch(); queries hear of it after its calls have returned.
#include "core/resolver.hpp"

#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "core/loop_core.hpp"

#ifdef EVPL_WITH_CARES
#include <ares.h>
#include <netdb.h>
#include <sys/epoll.h>

#include <cstdlib>
#include <new>

#include "base/clock.hpp"
#include "base/log_line.hpp"
#endif

namespace evpl::core {
namespace {

bool equal_but_case(std::string_view a, std::string_view b) noexcept {
    return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](char x, char y) {
               const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? char(c + ('a' - 'A')) : c; };
               return lower(x) == lower(y);
           });
}

bool is_localhost(std::string_view name) noexcept {
    if (!name.empty() && name.back() == '.') name.remove_suffix(1);
    constexpr std::string_view localhost = "localhost";
    if (equal_but_case(name, localhost)) return true;
    return name.size() > localhost.size() + 1 && name[name.size() - localhost.size() - 1] == '.' &&
           equal_but_case(name.substr(name.size() - localhost.size()), localhost);
}

/// "fe80::1%eth0": the zone by the name of its interface (RFC 4007 section 11).
bool read_named_zone(std::string_view host, Address& address) noexcept {
    const std::size_t at = host.find('%');
    if (at == std::string_view::npos) return false;
    const auto numbers = Address::parse(host.substr(0, at), 0);
    if (!numbers || numbers->family != Address::Family::ipv6) return false;
    char zone[IF_NAMESIZE] = {};
    if (host.size() - at - 1 >= sizeof zone) return false;
    host.copy(zone, sizeof zone, at + 1);
    address = *numbers;
    address.scope = if_nametoindex(zone);
    return address.scope != 0;
}

bool is_global(const std::uint8_t* bytes) noexcept { return (bytes[0] & 0xe0) == 0x20; }  // 2000::/3

}  // namespace

unsigned Resolver::known(std::string_view host, std::span<Address, 2> found) noexcept {
    if (const auto literal = Address::parse(host, 0)) {
        found[0] = *literal;
        return 1;
    }
    if (read_named_zone(host, found[0])) return 1;
    if (!is_localhost(host)) return 0;
    found[0] = Address{Address::Family::ipv6, 0, 0, {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}};
    found[1] = Address{Address::Family::ipv4, 0, 0, {127, 0, 0, 1}};
    return 2;
}

bool Resolver::prefers_ipv6(const Address& to) noexcept {
    const int fd = ::socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return false;
    sockaddr_in6 name{};
    name.sin6_family = AF_INET6;
    name.sin6_port = htons(53);  // any but 0
    name.sin6_scope_id = to.scope;
    std::memcpy(&name.sin6_addr, to.bytes, sizeof to.bytes);
    socklen_t size = sizeof name;
    bool usable = ::connect(fd, reinterpret_cast<const sockaddr*>(&name), size) == 0 && ::getsockname(fd, reinterpret_cast<sockaddr*>(&name), &size) == 0;
    ::close(fd);
    if (usable && is_global(to.bytes)) usable = is_global(name.sin6_addr.s6_addr);
    return usable;
}

#ifdef EVPL_WITH_CARES

namespace {

/// Of a question to a name server: doubled with each of `tries` rounds. The system's servers are given up after 14 s, ours, which
/// are near, after 3.5 s; the limit of whoever asks usually ends it before.
constexpr int system_timeout_ms = 2000;
constexpr int own_timeout_ms = 500;
constexpr int tries = 3;
/// With IPv4 addresses at hand, the other family is waited for so long (RFC 8305 section 3, "Resolution Delay").
constexpr std::int64_t resolution_delay_ns = 50'000'000;
/// Names are started for so long at a stretch; each reads the hosts file and sends two datagrams, about 50 us.
constexpr std::int64_t starting_ns = 1'000'000;
/// A channel that is not in use and older than this is made anew, and with it resolv.conf(5) is read again.
constexpr std::int64_t channel_age_ns = 30'000'000'000;
/// Longest answer we offer to take in a datagram, EDNS0 (RFC 6891), which is all that c-ares reads. Servers cap what they send to what
/// their path carries, and continue by TCP.
constexpr int answer_bytes_max = 4096;
/// RFC 1035 section 2.3.4, in text with a final dot.
constexpr std::size_t name_bytes_max = 254;

constexpr int kernel_family[2] = {AF_INET, AF_INET6};

/// How telling a failure of one family is, when the other one failed in another way.
int lookup_rank(Errc code) noexcept {
    switch (code) {
    case Errc::name_not_found: return 1;
    case Errc::timed_out: return 2;
    case Errc::name_failed: return 3;
    default: return 4;
    }
}

Error error_of(int status) noexcept {
    switch (status) {
    case ARES_ENOTFOUND:
    case ARES_ENODATA:
    case ARES_EBADNAME: return Error(Errc::name_not_found, Step::resolve, Who::system);
    case ARES_ETIMEOUT: return Error(Errc::timed_out, Step::resolve, Who::system);
    case ARES_ENOMEM: return Error(Errc::out_of_memory, Step::resolve, Who::system);
    default: return Error(Errc::name_failed, Step::resolve, Who::system);
    }
}

std::uint32_t hash_of(std::string_view name) noexcept {  // FNV-1a
    std::uint32_t hash = 2166136261u;
    for (const char c : name) hash = (hash ^ std::uint8_t(c)) * 16777619u;
    return hash;
}

bool can_be_a_name(std::string_view name) noexcept {
    return !name.empty() && name.size() <= name_bytes_max &&
           std::none_of(name.begin(), name.end(), [](char c) { return std::uint8_t(c) <= ' ' || c == '*' || c == ':' || c == '%' || c == '/'; });
}

}  // namespace

/// One name and who waits for it. It goes when nobody holds it: living (somebody waits), the line of queued ones, the ready list, and
/// each call of c-ares that will come back.
struct Resolver::Lookup {
    enum class State : std::uint8_t { queued, asked, over };

    explicit Lookup(Resolver& owner) noexcept : resolver(owner) {
        delay.lookup = this;
        delay.due_fn = [](Alarm& alarm) {
            Lookup& due = *static_cast<Delay&>(alarm).lookup;
            due.early = true;
            due.resolver.make_ready(due);
        };
    }
    bool all_done() const noexcept { return done[ipv4] && done[ipv6]; }
    Error failure() const noexcept;
    unsigned collect(std::uint8_t told, std::span<Address> room) noexcept;

    Resolver& resolver;
    Lookup* next_same = nullptr;  // in its bucket
    Lookup* next_queued = nullptr;
    Lookup* next_ready = nullptr;
    Query* queries = nullptr;
    std::uint32_t query_count = 0;
    std::uint32_t hash = 0;
    unsigned holds = 0;
    State state = State::queued;
    bool is_ready = false;
    bool is_orphan = false;  // over, and c-ares still asks
    bool early = false;      // what there is may be told
    bool complete = false;   // no more will be told
    bool done[2] = {false, false};
    std::uint8_t count[2] = {0, 0};
    int status[2] = {ARES_ENODATA, ARES_ENODATA};
    std::int64_t asked_ns = 0;
    struct Delay : Alarm {
        Lookup* lookup;
    } delay;
    struct Asked {  // the argument of a family's callback
        Lookup* lookup;
        unsigned family;
    } asked[2] = {{this, ipv4}, {this, ipv6}};
    Address found[2][family_max];
    char name[name_bytes_max + 1];
};

Error Resolver::Lookup::failure() const noexcept {
    const Error four = error_of(status[ipv4]), six = error_of(status[ipv6]);
    return done[ipv6] && lookup_rank(six.code()) > lookup_rank(four.code()) ? six : four;
}

/// The addresses that are known and not of `told` families, interleaved (RFC 8305 section 4).
unsigned Resolver::Lookup::collect(std::uint8_t told, std::span<Address> room) noexcept {
    unsigned left[2], next[2] = {0, 0}, filled = 0;
    for (const unsigned family : {ipv4, ipv6}) left[family] = (told & (1u << family)) == 0 ? count[family] : 0;
    unsigned family = left[ipv4] > 0 && (left[ipv6] == 0 || !prefers_ipv6(found[ipv6][0])) ? ipv4 : ipv6;
    for (; left[ipv4] + left[ipv6] > 0; family ^= 1u) {
        if (left[family] == 0) continue;
        room[filled++] = found[family][next[family]++];
        --left[family];
    }
    return filled;
}

/// One socket of c-ares, watched for what c-ares says.
struct Resolver::Socket final : transport::Watcher {
    std::uint32_t ready(std::uint32_t events) override {
        pending |= events;
        owner->core.mark(*owner);
        return 0;
    }
    Resolver* owner = nullptr;
    Socket* next = nullptr;
    int fd = -1;  // -1: free for use
    std::uint32_t wanted = 0;
    std::uint32_t pending = 0;
};

Resolver::Resolver(LoopCore& loop) noexcept : Member(loop) {
    timeout_.owner = this;
    timeout_.due_fn = [](Alarm& alarm) {
        Resolver& resolver = *static_cast<Timeout&>(alarm).owner;
        resolver.timed_out_ = true;
        resolver.core.mark(resolver);
    };
}

// Who asked has cancelled: connections and datagram sockets are gone before their loop's resolver.
Resolver::~Resolver() {
    close_channel();
    while (Lookup* lookup = first_queued_) {
        first_queued_ = lookup->next_queued;
        release(*lookup);
    }
    while (Lookup* lookup = ready_) {
        ready_ = lookup->next_ready;
        release(*lookup);
    }
    while (Socket* socket = sockets_) {
        sockets_ = socket->next;
        delete socket;
    }
}

// -- the channel -----------------------------------------------------------------------------------------------

Error Resolver::open_channel(Diagnostic& why) noexcept {
    const std::int64_t now = base::clock_ns();
    if (channel_ != nullptr) {
        if (asked_ + queued_ + orphaned_ > 0 || now - opened_ns_ < channel_age_ns) return {};
        close_channel();
    }
    static const int library = ares_library_init(ARES_LIB_INIT_ALL);  // not thread-safe in itself
    const char* servers = core.options.dns_servers;
    ares_options options{};
    options.flags = ARES_FLAG_EDNS;
    options.ednspsz = answer_bytes_max;
    options.timeout = servers != nullptr ? own_timeout_ms : system_timeout_ms;
    options.tries = tries;
    char lookups[] = "b";  // the hosts file is read once for both families, by us
    options.lookups = lookups;
    options.sock_state_cb = [](void* self, int fd, int read, int write) { static_cast<Resolver*>(self)->socket_state(fd, read != 0, write != 0); };
    options.sock_state_cb_data = this;
    int status = library;
    if (status == ARES_SUCCESS) {
        status = ares_init_options(&channel_, &options,
                                   ARES_OPT_FLAGS | ARES_OPT_EDNSPSZ | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_LOOKUPS | ARES_OPT_SOCK_STATE_CB);
    }
    if (status != ARES_SUCCESS) {
        channel_ = nullptr;
        std::snprintf(why.text, sizeof why.text, "names cannot be resolved: %s", ares_strerror(status));
        return error_of(status);
    }
    opened_ns_ = now;
    if (servers == nullptr) return {};
    status = servers[0] != '\0' ? ares_set_servers_ports_csv(channel_, servers) : ARES_EBADSTR;
    if (status == ARES_SUCCESS) return {};
    close_channel();
    std::snprintf(why.text, sizeof why.text, "LoopOptions::dns_servers \"%.100s\" is not a list like \"127.0.0.1:53,[::1]:53\": %s", servers,
                  ares_strerror(status));
    return Error(Errc::bad_option, Step::resolve);
}

void Resolver::close_channel() noexcept {
    if (channel_ == nullptr) return;
    ares_destroy(std::exchange(channel_, nullptr));  // calls back for each question; its sockets are closed
    core.timers.cancel_alarm(timeout_);
}

void Resolver::socket_state(int fd, bool read, bool write) noexcept {
    Socket* socket = sockets_;
    while (socket != nullptr && socket->fd != fd) socket = socket->next;
    const std::uint32_t wanted = (read ? std::uint32_t(EPOLLIN) : 0u) | (write ? std::uint32_t(EPOLLOUT) : 0u);
    const auto sleeper = core.sleeper();  // open since start()
    if (!sleeper) return;
    if (wanted == 0) {
        if (socket == nullptr) return;
        (*sleeper)->remove(*socket, true);
        socket->fd = -1;
        socket->pending = 0;
        --open_sockets_;
        return;
    }
    if (socket != nullptr) {
        if (socket->wanted != wanted && (*sleeper)->modify(*socket, wanted)) socket->wanted = wanted;
        return;
    }
    for (socket = sockets_; socket != nullptr && socket->fd >= 0;) socket = socket->next;
    if (socket == nullptr) {
        socket = new (std::nothrow) Socket;
        if (socket == nullptr) return;  // as if the server did not answer
        socket->owner = this;
        socket->next = sockets_;
        sockets_ = socket;
    }
    if (!(*sleeper)->add(*socket, fd, wanted)) return;
    socket->fd = fd;
    socket->wanted = wanted;
    ++open_sockets_;
}

// Whatever c-ares does meanwhile to its sockets: each look starts anew.
void Resolver::process() noexcept {
    if (std::exchange(timed_out_, false)) ares_process_fd(channel_, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    for (Socket* socket = sockets_; socket != nullptr;) {
        const std::uint32_t events = std::exchange(socket->pending, 0);
        if (events == 0 || socket->fd < 0) {
            socket = socket->next;
            continue;
        }
        const bool broken = (events & (EPOLLERR | EPOLLHUP)) != 0;
        ares_process_fd(channel_, broken || (events & EPOLLIN) != 0 ? socket->fd : ARES_SOCKET_BAD,
                        (events & EPOLLOUT) != 0 || (broken && (socket->wanted & EPOLLOUT) != 0) ? socket->fd : ARES_SOCKET_BAD);
        socket = sockets_;
    }
}

void Resolver::arm() noexcept {
    timeval left{};
    if (channel_ == nullptr || ares_timeout(channel_, nullptr, &left) == nullptr) return core.timers.cancel_alarm(timeout_);
    const std::int64_t ns = std::int64_t(left.tv_sec) * 1'000'000'000 + std::int64_t(left.tv_usec) * 1'000;
    const std::int64_t now = base::clock_ns();
    core.timers.set_alarm(timeout_, core.now_ns(), AlarmWheel::due_after(now, ns));
}

// -- asking ----------------------------------------------------------------------------------------------------

Resolver::Lookup* Resolver::find(std::string_view name, std::uint32_t hash) noexcept {
    Lookup* lookup = table_[hash % buckets];
    while (lookup != nullptr && (lookup->hash != hash || name != lookup->name)) lookup = lookup->next_same;
    return lookup;
}

Resolver::Lookup* Resolver::make(std::string_view name, std::uint32_t hash) noexcept {
    auto* lookup = new (std::nothrow) Lookup(*this);
    if (lookup == nullptr) return nullptr;
    lookup->hash = hash;
    lookup->name[name.copy(lookup->name, name_bytes_max)] = '\0';
    lookup->next_same = std::exchange(table_[hash % buckets], lookup);
    lookup->holds = 2;  // living, and in the line
    if (first_queued_ == nullptr) first_queued_ = lookup;
    else last_queued_->next_queued = lookup;
    last_queued_ = lookup;
    ++queued_;
    return lookup;
}

Error Resolver::start(Query& query, std::string_view name, Diagnostic& why) noexcept {
    if (!can_be_a_name(name)) {
        std::snprintf(why.text, sizeof why.text, "\"%.*s\" is neither an address nor the name of a host", int(std::min<std::size_t>(name.size(), 120)),
                      name.data());
        return Error(Errc::name_not_found, Step::resolve);
    }
    if (const auto sleeper = core.sleeper(); !sleeper) {
        std::snprintf(why.text, sizeof why.text, "%.200s", core.last_failure);
        return sleeper.error();
    }
    if (const Error error = open_channel(why); !error.ok()) return error;
    const std::uint32_t hash = hash_of(name);
    Lookup* lookup = find(name, hash);
    if (lookup == nullptr) lookup = make(name, hash);
    if (lookup == nullptr) {
        std::snprintf(why.text, sizeof why.text, "no memory to resolve a name");
        return Error(Errc::out_of_memory, Step::resolve);
    }
    query.told = 0;
    query.lookup = lookup;
    ++lookup->query_count;
    join(query, lookup->queries);
    if (lookup->early) make_ready(*lookup);
    else core.mark(*this);
    return {};
}

void Resolver::join(Query& query, Query*& list) noexcept {
    query.next = list;
    query.at = &list;
    if (query.next != nullptr) query.next->at = &query.next;
    list = &query;
}

void Resolver::leave(Query& query) noexcept {
    *query.at = query.next;
    if (query.next != nullptr) query.next->at = query.at;
    query.next = nullptr;
    query.at = nullptr;
}

void Resolver::Query::cancel() noexcept {
    if (lookup == nullptr) return;
    Lookup& left = *std::exchange(lookup, nullptr);
    left.resolver.leave(*this);
    if (--left.query_count == 0) left.resolver.retire(left);
}

// Nobody waits for it any more. c-ares cannot drop a single question: it stays, heard by nobody, until it ends or all can be dropped.
void Resolver::retire(Lookup& lookup) noexcept {
    if (lookup.state == Lookup::State::over) return;
    Lookup** at = &table_[lookup.hash % buckets];
    while (*at != &lookup) at = &(*at)->next_same;
    *at = lookup.next_same;
    core.timers.cancel_alarm(lookup.delay);
    if (std::exchange(lookup.state, Lookup::State::over) == Lookup::State::queued) {
        --queued_;
    } else {
        --asked_;
        lookup.is_orphan = !lookup.all_done();
        orphaned_ += lookup.is_orphan ? 1 : 0;
        if (first_queued_ != nullptr) core.mark(*this);
    }
    release(lookup);
    if (asked_ > 0 || orphaned_ == 0) return;
    ares_cancel(channel_);  // calls back for each question, and closes the sockets
    arm();
}

void Resolver::release(Lookup& lookup) noexcept {
    if (--lookup.holds == 0) delete &lookup;
}

void Resolver::ask(Lookup& lookup) noexcept {
    lookup.state = Lookup::State::asked;
    lookup.asked_ns = base::clock_ns();
    --queued_;
    ++asked_;
    if (read_hosts(lookup)) {
        lookup.done[ipv4] = lookup.done[ipv6] = true;
        return review(lookup);
    }
    lookup.holds += 2;
    for (const unsigned family : {ipv6, ipv4}) {
        ares_addrinfo_hints hints{};
        hints.ai_flags = ARES_AI_NOSORT;  // else it opens a socket per address
        hints.ai_family = kernel_family[family];
        ares_getaddrinfo(
            channel_, lookup.name, nullptr, &hints,
            [](void* argument, int status, int, ares_addrinfo* found) {
                const auto& asked = *static_cast<Lookup::Asked*>(argument);
                asked.lookup->resolver.family_done(*asked.lookup, asked.family, status, found);
                if (found != nullptr) ares_freeaddrinfo(found);
            },
            &lookup.asked[family]);
    }
}

bool Resolver::read_hosts(Lookup& lookup) noexcept {
    for (const unsigned family : {ipv4, ipv6}) {
        hostent* host = nullptr;
        if (ares_gethostbyname_file(channel_, lookup.name, kernel_family[family], &host) != ARES_SUCCESS) continue;
        for (char** bytes = host->h_addr_list; *bytes != nullptr && lookup.count[family] < family_max; ++bytes) {
            Address& address = lookup.found[family][lookup.count[family]++];
            address.family = family == ipv4 ? Address::Family::ipv4 : Address::Family::ipv6;
            std::memcpy(address.bytes, *bytes, family == ipv4 ? 4 : 16);
        }
        ares_free_hostent(host);
    }
    return lookup.count[ipv4] + lookup.count[ipv6] > 0;
}

// -- answers ---------------------------------------------------------------------------------------------------

namespace {

bool read_address(const ares_addrinfo_node& node, Address& address) noexcept {
    if (node.ai_family == AF_INET && node.ai_addrlen >= socklen_t(sizeof(sockaddr_in))) {
        sockaddr_in from;
        std::memcpy(&from, node.ai_addr, sizeof from);
        address.family = Address::Family::ipv4;
        std::memcpy(address.bytes, &from.sin_addr, 4);
        return true;
    }
    if (node.ai_family == AF_INET6 && node.ai_addrlen >= socklen_t(sizeof(sockaddr_in6))) {
        sockaddr_in6 from;
        std::memcpy(&from, node.ai_addr, sizeof from);
        address.family = Address::Family::ipv6;
        address.scope = from.sin6_scope_id;
        std::memcpy(address.bytes, &from.sin6_addr, 16);
        return true;
    }
    return false;
}

}  // namespace

// Called by c-ares, also from ares_cancel() and ares_destroy(): takes note.
void Resolver::family_done(Lookup& lookup, unsigned family, int status, const ares_addrinfo* found) noexcept {
    lookup.done[family] = true;
    lookup.status[family] = status == ARES_SUCCESS ? ARES_ENODATA : status;  // what it says when there is no address
    for (const ares_addrinfo_node* node = found != nullptr ? found->nodes : nullptr; node != nullptr; node = node->ai_next) {
        std::uint8_t& count = lookup.count[family];
        if (count < family_max && node->ai_family == kernel_family[family] && read_address(*node, lookup.found[family][count])) ++count;
    }
    if (lookup.state == Lookup::State::asked) review(lookup);
    if (lookup.is_orphan && lookup.all_done()) {
        lookup.is_orphan = false;
        --orphaned_;
    }
    release(lookup);
}

// What is known now may be enough: all of it, or a start.
void Resolver::review(Lookup& lookup) noexcept {
    // "No such name" holds for both families, but some servers say so to AAAA questions about names that have an A (RFC 4074 section 4.2).
    const bool absent = lookup.count[ipv6] == 0 && lookup.done[ipv4] && lookup.status[ipv4] == ARES_ENOTFOUND;
    lookup.complete = lookup.all_done() || absent;
    if (lookup.complete || lookup.count[ipv6] > 0) {
        lookup.early = true;
        core.timers.cancel_alarm(lookup.delay);
        make_ready(lookup);
    } else if (lookup.count[ipv4] > 0) {
        core.timers.set_alarm(lookup.delay, core.now_ns(), AlarmWheel::due_after(base::clock_ns(), resolution_delay_ns));
    }
}

void Resolver::make_ready(Lookup& lookup) noexcept {
    core.mark(*this);
    if (std::exchange(lookup.is_ready, true)) return;
    ++lookup.holds;
    lookup.next_ready = std::exchange(ready_, &lookup);
}

// Queries may be cancelled, destroyed and started while others are told.
void Resolver::tell(Lookup& lookup) noexcept {
    if (lookup.state == Lookup::State::over) return;
    const bool last = lookup.complete;
    Query* waiting = std::exchange(lookup.queries, nullptr);
    if (waiting != nullptr) waiting->at = &waiting;
    if (last) {
        log(lookup);
        retire(lookup);  // who asks for the name from now on, asks anew
    }
    while (Query* query = waiting) {
        leave(*query);
        Address room[2 * family_max];
        const unsigned count = lookup.collect(query->told, room);
        const bool something = lookup.count[ipv4] + lookup.count[ipv6] > 0;
        if (last) {
            query->lookup = nullptr;
            --lookup.query_count;
            query->answered(*query, {{room, count}, something ? Error() : lookup.failure(), true});
        } else {
            join(*query, lookup.queries);
            for (const unsigned family : {ipv4, ipv6}) query->told |= std::uint8_t(lookup.count[family] > 0 ? 1u << family : 0u);
            if (count > 0) query->answered(*query, {{room, count}, {}, false});
        }
    }
}

void Resolver::log(const Lookup& lookup) noexcept {
    if (!base::log_enabled(LogLevel::debug)) return;
    const unsigned count = lookup.count[ipv4] + lookup.count[ipv6];
    const long long us = static_cast<long long>((base::clock_ns() - lookup.asked_ns) / 1000);
    if (count > 0) {
        base::log_format(LogLevel::debug, "%s: \"%s\" has %u IPv6 and %u IPv4 addresses (%lld us)", core.options.name, lookup.name,
                         unsigned(lookup.count[ipv6]), unsigned(lookup.count[ipv4]), us);
    } else {
        base::log_format(LogLevel::debug, "%s: \"%s\" does not resolve: A: %s; AAAA: %s (%lld us)", core.options.name, lookup.name,
                         ares_strerror(lookup.status[ipv4]), lookup.done[ipv6] ? ares_strerror(lookup.status[ipv6]) : "not waited for", us);
    }
}

void Resolver::dispatch() {
    if (channel_ == nullptr) return;
    process();
    const std::int64_t began_ns = first_queued_ != nullptr ? base::clock_ns() : 0;
    while (first_queued_ != nullptr && asked_ < asked_max) {
        Lookup& lookup = *first_queued_;
        first_queued_ = lookup.next_queued;
        const bool wanted = lookup.state == Lookup::State::queued;
        if (wanted) ask(lookup);
        release(lookup);
        if (wanted && base::clock_ns() - began_ns > starting_ns) break;
    }
    while (Lookup* lookup = ready_) {
        ready_ = lookup->next_ready;
        lookup->is_ready = false;
        tell(*lookup);
        release(*lookup);
    }
    if (first_queued_ != nullptr && asked_ < asked_max) core.mark(*this);
    arm();
}

#else  // without c-ares

struct Resolver::Lookup {};
struct Resolver::Socket {};

Resolver::Resolver(LoopCore& loop) noexcept : Member(loop) {}
Resolver::~Resolver() = default;
void Resolver::dispatch() {}
void Resolver::Query::cancel() noexcept {}

Error Resolver::start(Query&, std::string_view name, Diagnostic& why) noexcept {
    std::snprintf(why.text, sizeof why.text, "\"%.*s\" cannot be resolved: this build has no c-ares; addresses and localhost work",
                  int(std::min<std::size_t>(name.size(), 120)), name.data());
    return Error(Errc::name_failed, Step::resolve);
}

#endif

}  // namespace evpl::core
