// Ports, listeners, connecting and closing.

#include <cstdio>
#include <cstring>
#include <new>

#include "evpl/check.hpp"
#include "transport/inproc/port.hpp"
#include "transport/options.hpp"

namespace evpl::transport::inproc {
namespace {

constexpr Caps caps_base(Kind kind) noexcept {
    Caps caps;
    caps.kind = kind;
    caps.half_close = true;
    caps.receive_pause = true;
    caps.rma = true;
    caps.zero_copy_send = true;
    caps.zero_copy_receive = true;
    caps.remote_tells = true;
    caps.remote_atomics = true;
    caps.message_bytes_max = kind == Kind::message ? message_bytes_most : 0;
    caps.inline_bytes_max = Ring::inline_bytes_most;
    caps.copy_bytes_max = Ring::inline_bytes_most;
    return caps;
}
constexpr Caps stream_caps = caps_base(Kind::stream);
constexpr Caps message_caps = caps_base(Kind::message);

/// "inproc://name" as Endpoint::parse reads it back.
void write_url(std::string_view name, Kind kind, std::span<char> text) noexcept {
    std::size_t at = std::size_t(std::snprintf(text.data(), text.size(), "inproc://"));
    for (const char c : name) {
        if (at + 4 > text.size()) break;
        const bool plain = c > ' ' && c < 0x7f && c != '%' && c != '?' && c != '#';
        if (plain) text[at++] = c;
        else at += std::size_t(std::snprintf(text.data() + at, 4, "%%%02X", unsigned(static_cast<unsigned char>(c))));
    }
    std::snprintf(text.data() + at, text.size() - at, "%s", kind == Kind::message ? "?mode=msg" : "");
}

}  // namespace

const Caps& caps_of(Kind kind) noexcept { return kind == Kind::message ? message_caps : stream_caps; }

Result<Kind> kind_of(const Endpoint& endpoint, Diagnostic& why) noexcept {
    std::string_view mode;
    const OptionSpec specs[] = {OptionSpec::choice("mode", mode, "stream|msg", "bytes or messages")};
    if (const auto read = read_options(endpoint, specs, why); !read) return read.error();
    return mode == "msg" ? Kind::message : Kind::stream;
}

// -- the port --------------------------------------------------------------------------------------------------

InprocPort::InprocPort(Host& on) noexcept
    : host(on), number(Registry::instance().new_port_number()), batch_bytes_(on.batch_bytes() > 0 ? on.batch_bytes() : 1), block_(on.heap()) {}

// No upcalls. The peers read "goodbye" behind everything else and reset their links; whoever detaches last frees the pipe.
InprocPort::~InprocPort() {
    while (listenings_ != nullptr) {
        InprocListening* gone = listenings_;
        listenings_ = gone->next;
        Registry::instance().remove(*gone);
        delete gone;
    }
    take_new_ends();  // nobody finds this port any more
    End* end = last_polled_;
    for (unsigned n = end_count_; n > 0; --n) {
        end = end->next;
        park_operations(*end);
        if (end->peer_bell == nullptr || end->gone) continue;
        end->out->write(What::goodbye, nullptr, 0, NoBody{});
        end->peer_bell->ring();
    }
    while (LinkChunk* chunk = link_chunks_) {
        link_chunks_ = chunk->next;
        delete chunk;
    }
    drop_exposure_chunks();
    for (; end_count_ > 0; --end_count_) {
        End* gone = last_polled_->next;
        last_polled_->next = gone->next;
        Registry::instance().detach(*gone);
    }
}

void InprocPort::add_end(End& end) noexcept {
    if (last_polled_ == nullptr) last_polled_ = end.next = &end;
    else end.next = std::exchange(last_polled_->next, &end);
    ++end_count_;
}

void InprocPort::announce(End& end) noexcept {
    end.next_new = new_ends_.load(std::memory_order_relaxed);
    while (!new_ends_.compare_exchange_weak(end.next_new, &end, std::memory_order_release, std::memory_order_relaxed)) {}
}

void InprocPort::take_new_ends() noexcept {
    End* list = new_ends_.exchange(nullptr, std::memory_order_acquire);
    while (list != nullptr) {
        End& end = *list;
        list = end.next_new;
        add_end(end);
    }
}

End* InprocPort::find_end(std::uint64_t peer_port) noexcept {
    End* end = last_polled_;
    for (unsigned n = end_count_; n > 0; --n) {
        end = end->next;
        // Within one port the connecting side uses the first end, the accepting side the second.
        if (end->peer_port == peer_port && !end->gone && (end->peer_bell != nullptr || end->index == 0)) return end;
    }
    return nullptr;
}

// -- links -----------------------------------------------------------------------------------------------------

InprocLink* InprocPort::take_link(Kind kind) noexcept {
    if (free_links_ == nullptr) {
        auto* chunk = new (std::nothrow) LinkChunk;
        if (chunk == nullptr) return nullptr;
        chunk->next = std::exchange(link_chunks_, chunk);
        for (InprocLink& link : chunk->links) link.next_free = std::exchange(free_links_, &link);
    }
    InprocLink* link = free_links_;
    free_links_ = link->next_free;
    link->port = this;
    link->state = InprocLink::State::connecting;
    link->hindered = true;
    link->is_message = kind == Kind::message;
    link->caps = &caps_of(kind);
    link->serial = ++last_serial_;
    return link;
}

void InprocPort::release(InprocLink& link) noexcept {
    const std::uint32_t generation = link.generation + 1;  // entries under way find that they are late
    while (link.exposures != nullptr) drop_exposure(*link.exposures);
    link.~InprocLink();
    new (&link) InprocLink;
    link.generation = generation;
    link.next_free = std::exchange(free_links_, &link);
}

std::size_t InprocPort::remote_name(const Link& base, std::span<char> room) const {
    const auto& link = static_cast<const InprocLink&>(base);
    return std::string_view(link.name).copy(room.data(), room.size());
}

Result<Link*> InprocPort::connect(const Endpoint& to, const Address&, Sink& sink, SendQueue& outbox, Diagnostic& why) {
    const auto kind = kind_of(to, why);
    if (!kind) return kind.error();
    InprocLink* link = take_link(*kind);
    if (link == nullptr) return Error(Errc::out_of_memory, Step::connect);
    link->sink = &sink;
    link->outbox = &outbox;
    std::snprintf(link->name, sizeof link->name, "%.*s", int(to.host().size()), to.host().data());
    const auto end = Registry::instance().reach(*this, to.host(), *kind, link->listening);
    if (end) {
        link->end = *end;
        link->says = InprocLink::say_connect;
        speak(*link);
        if (!in_poll_) ring_bells();
    } else if (end.error().code() == Errc::refused) {
        end_link(*link, end.error(), false);  // nobody listens there: told by closed(), as over any network
    } else {
        release(*link);
        return end.error();
    }
    return static_cast<Link*>(link);
}

void InprocPort::close(Link& base, How how) {
    auto& link = static_cast<InprocLink&>(base);
    if (link.state == InprocLink::State::over) return;
    if (how == How::abort) {
        end_link(link, Error(Errc::closed, Step::close, Who::local), true);
        if (!in_poll_) ring_bells();
        return;
    }
    (how == How::drain ? link.draining : link.finishing) = true;
    if (link.state == InprocLink::State::open) owe(link);
}

// -- listening -------------------------------------------------------------------------------------------------

Result<Listening*> InprocPort::listen(const Endpoint& at, bool shared, Acceptor& acceptor, Diagnostic& why) {
    const auto kind = kind_of(at, why);
    if (!kind) return kind.error();
    auto* made = new (std::nothrow) InprocListening;
    if (made == nullptr) return Error(Errc::out_of_memory, Step::listen);
    made->port = this;
    made->owner = this;
    made->acceptor = &acceptor;
    made->kind = *kind;
    made->shared = shared;
    std::snprintf(made->name, sizeof made->name, "%.*s", int(at.host().size()), at.host().data());
    write_url(at.host(), *kind, made->url_text);
    if (!Registry::instance().add(*made)) {
        std::snprintf(why.text, sizeof why.text, "somebody in this process listens at %.*s already", 180, made->url_text);
        delete made;
        return Error(Errc::address_in_use, Step::listen);
    }
    made->next = std::exchange(listenings_, made);
    return static_cast<Listening*>(made);
}

void InprocListening::close() noexcept { owner->drop_listening(*this); }

void InprocListening::resume() noexcept {
    paused = false;
    if (!backlog.empty()) owner->look_at_backlogs();
}

void InprocListening::forget(const End& end) noexcept {
    for (std::uint32_t n = backlog.size(); n > 0; --n) {
        Caller caller = backlog.front();
        backlog.pop();
        if (caller.end != &end) static_cast<void>(backlog.push(std::move(caller)));  // there is room: one was just taken out
    }
}

void InprocPort::look_at_backlogs() noexcept {
    backlogs_ = true;
    if (!in_poll_) host.poll_again();
}

void InprocPort::drop_listening(InprocListening& listening) noexcept {
    Registry::instance().remove(listening);
    for (InprocListening** at = &listenings_; *at != nullptr; at = &(*at)->next) {
        if (*at != &listening) continue;
        *at = listening.next;
        break;
    }
    for (; !listening.backlog.empty(); listening.backlog.pop()) refuse(listening.backlog.front());
    delete &listening;
    if (!in_poll_) ring_bells();
}

void InprocPort::called(End& end, const ConnectBody& body) {
    const InprocListening::Caller caller{&end, body.from, body.generation, body.serial};
    InprocListening* listening = listenings_;
    while (listening != nullptr && listening->id != body.listening) listening = listening->next;
    if (listening == nullptr) return refuse(caller);
    if (!listening->paused && listening->backlog.empty()) return accept(*listening, caller);
    InprocListening::Caller waits = caller;
    if (listening->backlog.size() >= backlog_most || !listening->backlog.push(std::move(waits))) refuse(caller);
}

/// Listeners that were resumed: one caller of each at a time, because accepting may close any of them.
void InprocPort::serve_backlogs() {
    for (unsigned n = 0; n < 64; ++n) {
        InprocListening* one = listenings_;
        while (one != nullptr && (one->paused || one->backlog.empty())) one = one->next;
        if (one == nullptr) {
            backlogs_ = false;
            return;
        }
        const InprocListening::Caller caller = one->backlog.front();
        one->backlog.pop();
        accept(*one, caller);
    }
    host.poll_again();
}

void InprocPort::accept(InprocListening& listening, const InprocListening::Caller& caller) {
    InprocLink* link = take_link(listening.kind);
    if (link == nullptr) return refuse(caller);
    link->end = caller.end;
    link->peer = caller.from;
    link->peer_generation = caller.generation;
    std::snprintf(link->name, sizeof link->name, "inproc-%llu.%u", static_cast<unsigned long long>(caller.end->peer_port), caller.serial);
    if (!listening.acceptor->accepted(*link)) {
        release(*link);
        return refuse(caller);
    }
    EVPL_CHECK(link->sink != nullptr && link->outbox != nullptr, "an accepted link has no sink", link->serial, 0);
    link->state = InprocLink::State::open;
    link->says = InprocLink::say_accept;
    link->hindered = !speak(*link);
    link->sink->opened();
}

/// Without room for the answer a link of its own waits with it.
void InprocPort::refuse(const InprocListening::Caller& caller) noexcept {
    if (say_replies(*caller.end) && say(*caller.end, What::refuse, caller.from, caller.generation, NoBody{})) return;
    InprocLink* link = take_link(Kind::stream);
    if (link == nullptr) return;  // no memory at all: the caller's own time limit ends its wait
    link->end = caller.end;
    link->peer = caller.from;
    link->peer_generation = caller.generation;
    link->state = InprocLink::State::over;
    link->closed_told = true;
    link->says = InprocLink::say_refuse;
    wait_for_room(*link, true);
}

/// The answer to a connect. No body: refused.
void InprocPort::accepted(InprocLink* link, std::uint32_t generation, const AcceptBody& body) {
    if (link->generation != generation) return;
    if (link->state == InprocLink::State::over && link->awaits_answer) {  // it was closed meanwhile
        link->awaits_answer = false;
        link->peer = body.from;
        link->peer_generation = body.generation;
        if (body.from != nullptr) link->says = InprocLink::say_reset;
        speak(*link);
        return owe(*link);
    }
    if (link->state != InprocLink::State::connecting) return;
    if (body.from == nullptr) return end_link(*link, Error(Errc::refused, Step::connect, Who::peer), false);
    link->peer = body.from;
    link->peer_generation = body.generation;
    link->state = InprocLink::State::open;
    link->hindered = false;
    link->sink->opened();
    if (link->state != InprocLink::State::open) return;
    if (std::exchange(link->blocked, false)) link->sink->writable();
    if (link->draining || link->finishing) owe(*link);
}

}  // namespace evpl::transport::inproc
