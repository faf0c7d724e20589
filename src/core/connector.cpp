// From an endpoint to an open link: which addresses there are, in which order they are tried, and which attempt wins.
#include "core/connector.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <new>

#include "base/clock.hpp"
#include "base/log_line.hpp"

namespace evpl::core {
namespace {

unsigned family_of(const Address& address) noexcept { return address.family == Address::Family::ipv4 ? ipv4 : ipv6; }

/// Which of several failures tells most about why nothing opened: an answer of the peer, what forbids or hinders us, no way, no answer.
int rank_of(Errc code) noexcept {
    switch (code) {
    case Errc::none: return 0;
    case Errc::refused: return 7;
    case Errc::reset: return 6;
    case Errc::permission_denied: return 5;
    case Errc::too_many_files:
    case Errc::out_of_memory:
    case Errc::out_of_buffers: return 4;
    case Errc::unreachable: return 3;
    case Errc::timed_out: return 2;
    default: return 1;  // address_unavailable and not_supported: a family this machine does not have
    }
}

Error no_any(const Endpoint& to, Diagnostic& why) noexcept {
    std::snprintf(why.text, sizeof why.text, "%.*s://*:%u cannot be connected to: \"*\" is for listening, a peer has a name or an address",
                  int(to.scheme().size()), to.scheme().data(), unsigned(to.port()));
    return Error(Errc::bad_endpoint, Step::resolve);
}

/// A sentence for a failure that brought none.
Error explain(Error error, const Endpoint& to, Diagnostic& why) noexcept {
    if (error.ok() || why.text[0] != '\0') return error;
    char text[128];
    error.describe(text, sizeof text);
    std::snprintf(why.text, sizeof why.text, "%.*s://%.*s:%u: %s", int(to.scheme().size()), to.scheme().data(),
                  int(std::min<std::size_t>(to.host().size(), 80)), to.host().data(), unsigned(to.port()), text);
    return error;
}

/// Opens a link to `address`; where the device cannot, by the transport that stands in for it, and `choice` says so then.
Result<transport::Link*> open_link(LoopCore& core, transport::Port* port, transport::Choice& choice, const Endpoint& to, const Address& address,
                                   transport::Sink& sink, transport::SendQueue& outbox, Diagnostic& why) noexcept {
    Error error(Errc::transport_absent, Step::open);
    if (port != nullptr) {
        const auto link = port->connect(to, address, sink, outbox, why);
        if (link) return *link;
        error = link.error();
    }
    transport::Choice other;
    Endpoint instead;
    if (error.code() != Errc::transport_absent || !transport::fall_back(choice, to, other, instead)) return error;
    const auto second = core.port_of(*other.transport);
    if (!second) return second.error();
    core.note_fallback(*choice.scheme, *other.scheme, to, why.view());
    why = {};
    choice = other;
    return (*second)->connect(instead, address, sink, outbox, why);
}

}  // namespace

// -- attempts --------------------------------------------------------------------------------------------------

/// One address being tried. Once decided it stays only until the device is done with its link.
class Connector::Attempt final : public Member, public transport::Sink {
public:
    Attempt(Connector& connector, const Address& to) noexcept : Member(connector.core), owner(&connector), address(to) {}

    void opened() override {
        if (owner != nullptr) owner->opened(*this);
    }
    void delivered(Buffer&&, const transport::Arrival& arrival) override {  // after it was aborted
        for (const int fd : arrival.descriptors) ::close(fd);
    }
    void landed(std::uint32_t) override {}
    void ended() override {}
    void sent(std::size_t) override {}
    void send_failed(Error) override {}
    void writable() override {}
    void completed(OperationId, Error, Buffer&&) override {}
    void closed(Error error) override {
        if (owner != nullptr) owner->failed(*this, error);
    }
    void retired() override { core.bury(*this); }

    void dispatch() override {}
    void flush_outbox() override {}
    void settle() override {}
    void stop(bool, Error) override {}
    bool is_alive() const noexcept override { return false; }
    bool is_connection() const noexcept override { return false; }
    void destroy() noexcept override { delete this; }

    Connector* owner;
    Attempt* next = nullptr;  // of the same connector
    transport::Link* link = nullptr;
    transport::SendQueue outbox;  // stays empty; the connection's own takes its place
    Address address;
    const transport::Scheme* scheme = nullptr;
};

bool Connector::try_address(const Address& address) noexcept {
    auto* attempt = new (std::nothrow) Attempt(*this, address);
    if (attempt == nullptr) {
        note_failure(Error(Errc::out_of_memory, Step::connect));
        return false;
    }
    Diagnostic why;
    transport::Choice by = choice_;
    const auto link = open_link(core, port_, by, endpoint_, address, *attempt, attempt->outbox, why);
    if (!link) {
        note_failure(link.error());
        delete attempt;
        return false;
    }
    attempt->link = *link;
    attempt->scheme = by.scheme;
    connection_->give_private_data(**link);
    attempt->next = std::exchange(attempts_, attempt);
    core.enroll(*attempt);
    core.passed_away(*attempt);  // nobody's callbacks depend on it
    if (base::log_enabled(LogLevel::debug)) {
        char text[64];
        address.describe(text, sizeof text);
        base::log_format(LogLevel::debug, "%s: trying %s for %.*s", core.options.name, text, int(endpoint_.host().size()), endpoint_.host().data());
    }
    return true;
}

void Connector::forget(Attempt& attempt) noexcept {
    Attempt** at = &attempts_;
    while (*at != &attempt) at = &(*at)->next;
    *at = attempt.next;
    attempt.owner = nullptr;
}

// An upcall. What follows on this link is the connection's from here on; the other attempts end in dispatch().
void Connector::opened(Attempt& attempt) noexcept {
    forget(attempt);
    ConnectionState& winner = *std::exchange(connection_, nullptr);
    winner.connector = nullptr;
    winner.scheme = attempt.scheme;
    winner.attach(*attempt.link);
    winner.opened();
    core.bury(attempt);
    core.mark(*this);
}

// An upcall, too.
void Connector::failed(Attempt& attempt, Error error) noexcept {
    forget(attempt);
    note_failure(error);
    if (connection_ != nullptr) connection_->keep_private_data(attempt.link->port->private_data(*attempt.link));
    may_try_ = true;
    core.mark(*this);
    if (!base::log_enabled(LogLevel::debug)) return;
    char text[64], what[128];
    attempt.address.describe(text, sizeof text);
    error.describe(what, sizeof what);
    base::log_format(LogLevel::debug, "%s: %s: %s", core.options.name, text, what);
}

void Connector::note_failure(Error error) noexcept {
    if (rank_of(error.code()) > rank_of(failure_.code())) failure_ = error;
}

// -- the race --------------------------------------------------------------------------------------------------

Connector::Connector(ConnectionState& connection, transport::Port* port, const transport::Choice& choice, const Endpoint& to) noexcept
    : Member(connection.core), connection_(&connection), port_(port), choice_(choice), endpoint_(to) {
    question_.owner = this;
    question_.answered = [](Resolver::Query& query, const Resolver::Answer& answer) { static_cast<Question&>(query).owner->answered(answer); };
    delay_.owner = this;
    delay_.due_fn = [](Alarm& alarm) {
        Connector& due = *static_cast<Delay&>(alarm).owner;
        due.may_try_ = true;
        due.core.mark(due);
    };
}

Error Connector::start(ConnectionState& connection, const transport::Choice& choice, const Endpoint& to, Diagnostic& why) noexcept {
    LoopCore& core = connection.core;
    const auto opened = core.port_of(*choice.transport);
    // Who has a stand-in need not be there.
    if (!opened && (opened.error().code() != Errc::transport_absent || choice.scheme->fallback.empty())) return explain(opened.error(), to, why);
    transport::Port* const port = opened ? *opened : nullptr;
    Address known[2];
    const bool named = choice.scheme->has_address;
    if (named && to.host() == "*") return no_any(to, why);
    const unsigned count = named ? Resolver::known(to.host(), known) : 0;
    if (!named || count == 1) {
        if (named) known[0].port = to.port();
        transport::Choice by = choice;
        const auto link = open_link(core, port, by, to, known[0], connection, connection.outbox, why);
        if (!link) return explain(link.error(), to, why);
        connection.scheme = by.scheme;
        connection.attach(**link);
        connection.give_private_data(**link);
        return {};
    }
    auto* made = new (std::nothrow) Connector(connection, port, choice, to);
    if (made == nullptr) return explain(Error(Errc::out_of_memory, Step::connect), to, why);
    Error error;
    if (count > 0) {
        made->add(std::span(known).first(count));
        if (made->advance()) error = made->failure_;
    } else {
        Resolver* const resolver = core.resolver();
        error = resolver != nullptr ? resolver->start(made->question_, to.host(), why) : Error(Errc::out_of_memory, Step::resolve);
    }
    if (!error.ok()) {
        delete made;
        return explain(error, to, why);
    }
    core.enroll(*made);
    core.passed_away(*made);
    connection.connector = made;
    return {};
}

void Connector::answered(const Resolver::Answer& answer) noexcept {
    if (connection_ == nullptr) return;
    if (answer.last) note_failure(answer.error);
    add(answer.addresses);
    core.mark(*this);
}

void Connector::add(std::span<const Address> addresses) noexcept {
    if (candidates_[ipv4].count + candidates_[ipv6].count == 0 && !addresses.empty()) family_ = family_of(addresses[0]);
    for (Address address : addresses) {
        address.port = endpoint_.port();
        Candidates& family = candidates_[family_of(address)];
        const auto end = family.list.begin() + family.count;
        if (family.count < family.list.size() && std::find(family.list.begin(), end, address) == end) family.list[family.count++] = address;
    }
}

/// The families take turns; null when all have been tried.
const Address* Connector::choose() noexcept {
    for (unsigned turns = 0; turns < 2; ++turns) {
        Candidates& family = candidates_[family_];
        family_ ^= 1u;
        if (family.tried < family.count) return &family.list[family.tried++];
    }
    return nullptr;
}

/// Starts what may start now. True: nothing is under way, and nothing is left to try.
bool Connector::advance() noexcept {
    while (may_try_) {
        const Address* address = choose();
        if (address == nullptr) break;
        if (!try_address(*address)) continue;
        may_try_ = false;
        core.timers.set_alarm(delay_, core.now_ns(), AlarmWheel::due_after(base::clock_ns(), attempt_delay_ns));
    }
    return attempts_ == nullptr && may_try_ && !question_.is_asking();
}

void Connector::dispatch() {
    if (connection_ == nullptr) return wind_up();
    if (!advance()) return;
    ConnectionState& loser = *std::exchange(connection_, nullptr);
    loser.connector = nullptr;
    loser.connect_failed(failure_);
    wind_up();
}

void Connector::wind_up() noexcept {
    core.timers.cancel_alarm(delay_);
    question_.cancel();
    while (Attempt* attempt = attempts_) {
        forget(*attempt);
        attempt->link->port->close(*attempt->link, transport::How::abort);
    }
    core.bury(*this);
}

void Connector::abandon(ConnectionState& connection) noexcept {
    if (connection.connector == nullptr) return;
    Connector& left = *std::exchange(connection.connector, nullptr);
    left.connection_ = nullptr;
    left.wind_up();
}

Step Connector::step_of(const ConnectionState& connection) noexcept {
    const Connector* connector = connection.connector;
    const bool nothing = connector != nullptr && connector->candidates_[ipv4].count + connector->candidates_[ipv6].count == 0;
    return nothing ? Step::resolve : Step::connect;
}

// With the loop, the ports and their links may be gone already.
void Connector::destroy() noexcept {
    core.timers.cancel_alarm(delay_);
    question_.cancel();
    delete this;
}

// -- datagrams -------------------------------------------------------------------------------------------------

DatagramConnector::DatagramConnector(DatagramState& state) noexcept : state_(state) {
    question_.owner = this;
    question_.answered = [](Resolver::Query& query, const Resolver::Answer& answer) { static_cast<Question&>(query).owner->answered(answer); };
    deadline_.owner = this;
    deadline_.due_fn = [](Alarm& alarm) { static_cast<Deadline&>(alarm).owner->end(Error(Errc::timed_out, Step::resolve, Who::system)); };
}

Error DatagramConnector::start(DatagramState& state, Limit limit, Diagnostic& why) noexcept {
    LoopCore& core = state.core;
    const Endpoint& to = state.endpoint;
    if (state.scheme->has_address && to.host() == "*") return no_any(to, why);
    Address known[2];
    if (!state.scheme->has_address) return explain(state.open_link(&known[0], why), to, why);
    if (const unsigned count = Resolver::known(to.host(), known); count > 0) {
        // Datagram sockets cannot be raced: nobody answers a connect. localhost means 127.0.0.1, where more servers are bound.
        Address& remote = known[count - 1];
        remote.port = to.port();
        return explain(state.open_link(&remote, why), to, why);
    }
    Resolver* const resolver = core.resolver();
    auto* made = resolver != nullptr ? new (std::nothrow) DatagramConnector(state) : nullptr;
    if (made == nullptr) return explain(Error(Errc::out_of_memory, Step::resolve), to, why);
    if (const Error error = resolver->start(made->question_, to.host(), why); !error.ok()) {
        delete made;
        return explain(error, to, why);
    }
    const std::int64_t limit_ns = limit.duration == Duration::forever() ? connect_limit_ns : limit.duration.ns;
    core.timers.set_alarm(made->deadline_, core.now_ns(), AlarmWheel::due_after(base::clock_ns(), limit_ns));
    state.connector = made;
    state.describe_url();
    return {};
}

void DatagramConnector::answered(const Resolver::Answer& answer) noexcept {
    if (state_.phase != DatagramState::Phase::opening) return end({});
    for (Address remote : answer.addresses) {
        remote.port = state_.endpoint.port();
        Diagnostic why;
        const Error error = state_.open_link(&remote, why);
        if (error.ok()) return end({});
        if (rank_of(error.code()) > rank_of(failure_.code())) failure_ = error;
    }
    if (answer.last) end(failure_.ok() ? answer.error : failure_);
}

/// It is open, or closes. Nothing of this object is touched afterwards.
void DatagramConnector::end(Error error) noexcept {
    DatagramState& state = state_;
    abandon(state);
    if (!error.ok()) state.begin_close(error);
}

void DatagramConnector::abandon(DatagramState& state) noexcept {
    DatagramConnector* const left = std::exchange(state.connector, nullptr);
    if (left == nullptr) return;
    state.core.timers.cancel_alarm(left->deadline_);
    left->question_.cancel();
    delete left;
}

}  // namespace evpl::core
