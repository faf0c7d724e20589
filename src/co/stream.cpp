// The waiting of coroutines: what a connection's events resume, and what ends a wait early.
#include <new>

#include "evpl/co.hpp"

namespace evpl::co {
namespace detail {
namespace {
constexpr Limit farewell = within(10_s);  // for a peer that does not end its side
}

void destroy_from_root(Promise* leaf) noexcept {
    while (leaf->parent != nullptr) leaf = leaf->parent;
    leaf->self.destroy();
}

// -- one wait --------------------------------------------------------------------------------------------------

bool Wait::begin(Promise& promise, Loop& loop, Wait** slot, Until until) noexcept {
    if (until.token != nullptr && until.token->cancelled()) error = Error(Errc::cancelled);
    else if (*slot != nullptr) error = Error(Errc::misuse);
    else if (ready()) return false;
    if (ended()) return false;
    if (until.limit.duration != Duration::forever()) {
        auto timer = loop.after(until.limit.duration, [this] { fail(Error(Errc::timed_out)); });
        if (!timer) {
            error = timer.error();
            return false;
        }
        timer_ = *std::move(timer);
    }
    promise_ = &promise;
    slot_ = slot;
    *slot = this;
    if (until.token != nullptr) {
        token_ = until.token;
        next_ = std::exchange(token_->first_, this);
        link_ = &token_->first_;
        if (next_ != nullptr) next_->link_ = &next_;
    }
    return true;
}

void Wait::unhook() noexcept {
    if (slot_ != nullptr) *std::exchange(slot_, nullptr) = nullptr;
    if (link_ != nullptr) {
        *link_ = next_;
        if (next_ != nullptr) next_->link_ = link_;
        link_ = nullptr;
    }
    timer_.cancel();
}

void Wait::resume() noexcept {
    unhook();
    promise_->self.resume();
}

void Wait::fail(Error reason) noexcept {
    error = reason;
    resume();
}

// -- the connection's events -----------------------------------------------------------------------------------

StreamState* StreamState::create(Loop& loop) { return new StreamState(loop); }

void StreamState::unref() noexcept {
    if (--refs_ == 0) delete this;
}

void StreamState::look(Wait* waiting) noexcept {
    if (waiting != nullptr && waiting->ready()) waiting->resume();
}

void StreamState::on_open(Connection& opened) noexcept {
    connection = &opened;
    open = true;
    look(opener);
}

void StreamState::on_recv(Connection& from) noexcept {
    if (streams == 0) return from.consume(from.available());
    look(reader);
}

void StreamState::on_end(Connection& ended) noexcept {
    peer_ended = true;
    if (streams == 0) ended.shutdown(farewell);
    look(reader);
}

void StreamState::on_close(Connection&, Error why) noexcept {
    ref();  // what is resumed may drop the others
    connection = nullptr;
    reason = why;
    look(opener);
    look(reader);
    look(writer);
    look(drainer);
    unref();
}

void StreamState::orphan() noexcept {
    if (connection == nullptr) return;
    if (!open) return connection->close();
    connection->consume(connection->available());
    connection->shutdown(farewell);
}

void close_threw(StreamState& state) noexcept {
    if (state.connection != nullptr) state.connection->close(Error(Errc::handler_threw));
}

// -- sleep and connect -----------------------------------------------------------------------------------------

/// Rings once. Dropped unrung while its coroutine sleeps, the loop has ended: so does the coroutine.
struct Sleep::Ring {
    explicit Ring(Sleep& sleeping) noexcept : sleep(&sleeping) {}
    Ring(Ring&& other) noexcept : sleep(std::exchange(other.sleep, nullptr)) {}
    ~Ring() {
        if (sleep == nullptr || sleep->promise_ == nullptr) return;
        destroy_from_root(std::exchange(sleep->promise_, nullptr));
    }
    void operator()() noexcept { std::exchange(std::exchange(sleep, nullptr)->promise_, nullptr)->self.resume(); }
    Sleep* sleep;
};

bool Sleep::begin(Promise& promise) noexcept {
    auto timer = loop_.after(delay_, Ring(*this));
    if (!timer) {
        error_ = timer.error();
        return false;
    }
    timer_ = *std::move(timer);
    promise_ = &promise;
    return true;
}

Connecting::Connecting(Loop& loop, std::string_view url, Until until)
    : state_(StreamState::create(loop)), stream_(*state_), until_{Limit{}} {
    until_.token = until.token;
    const auto made = evpl::connect(loop, url, Handler(*state_), until.limit);
    if (!made) error = made.error();
    else state_->connection = made->get();
}

Connecting::~Connecting() {
    unhook();
    state_->unref();
}

bool Connecting::ready() noexcept { return state_->open || state_->connection == nullptr; }

Result<Stream> Connecting::await_resume() noexcept {
    if (ended()) return error;  // the Stream ends the attempt
    if (state_->connection == nullptr) return state_->reason;
    return std::move(stream_);
}

}  // namespace detail

void Cancel::cancel() noexcept {
    cancelled_ = true;
    while (first_ != nullptr) first_->fail(Error(Errc::cancelled));
}

// -- operations ------------------------------------------------------------------------------------------------

bool Stream::Recv::ready() noexcept {
    Connection* const c = state_.connection;
    if (c == nullptr) {
        error = state_.reason;
        return true;
    }
    if (what_ == What::message && !c->has_message() && !state_.peer_ended) {
        if (c->caps().kind == Kind::message) return false;
        error = Error(Errc::not_supported, Step::recv);
        return true;
    }
    if (what_ == What::some) {
        got_ = c->recv(bytes_);
        if (!got_.empty() || bytes_ == 0) return true;
        if (state_.peer_ended) error = Error(Errc::end, Step::recv, Who::peer);
        return state_.peer_ended;
    }
    auto taken = what_ == What::exactly ? c->recv_exactly(std::uint32_t(bytes_)) : c->recv_message();
    if (!taken) {
        error = taken.error();
        return true;
    }
    got_ = *std::move(taken);
    return what_ == What::message || !got_.empty() || bytes_ == 0;
}

bool Stream::Room::ready() noexcept {
    if (state_.connection == nullptr) {
        error = state_.reason;
        return true;
    }
    return all_ ? state_.connection->queued() == 0 : state_.connection->send_room() > 0;
}

Stream::Room Stream::send(Chain bytes, Until until) noexcept {
    if (state_->connection == nullptr) return {*state_, false, false, state_->reason.code(), until};
    const Flow flow = state_->connection->send(std::move(bytes));
    return {*state_, false, flow.paused(), flow.error(), until};
}

Stream::Room Stream::send(std::string_view text, Until until) noexcept {
    if (state_->connection == nullptr) return {*state_, false, false, state_->reason.code(), until};
    const Flow flow = state_->connection->send(text);
    return {*state_, false, flow.paused(), flow.error(), until};
}

void Stream::shutdown() noexcept {
    if (state_->connection != nullptr) state_->connection->shutdown();
}
void Stream::close() noexcept {
    if (state_->connection != nullptr) state_->connection->close();
}

}  // namespace evpl::co
