// Connections for coroutines: what their events resume.
#include <algorithm>
#include <new>

#include "evpl/co_run.hpp"
#include "evpl/co_stream.hpp"

namespace evpl::co {
namespace detail {
// -- the connection's events -----------------------------------------------------------------------------------

StreamState* StreamState::create(Loop& loop) noexcept { return new (std::nothrow) StreamState(loop); }

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

void close_for(StreamState& state, Errc reason) noexcept {
    if (state.connection != nullptr) state.connection->close(Error(reason));
}

void StreamState::on_completed(Connection&, Completion& done) noexcept {
    RemoteWait* waiting = remotes;
    while (waiting != nullptr && waiting->id_ != done.id) waiting = waiting->next_;
    if (waiting == nullptr) return;  // it was ended early
    waiting->done_ = true;
    waiting->error = done.error;
    waiting->block_ = std::move(done.buffer);
    waiting->value_ = done.value;
    if (waiting->waits()) waiting->resume();
}

// -- connect ---------------------------------------------------------------------------------------------------

Connecting::Connecting(Loop& loop, std::string_view url, Until until, std::span<const std::byte> private_data) noexcept
    : loop_(loop), state_(StreamState::create(loop)) {
    until_.token = until.token;
    if (state_ == nullptr) {
        error = Error(Errc::out_of_memory, Step::connect);
        return;
    }
    ++state_->streams;
    Result<void> said = {};
    const auto made = evpl::connect(
        loop, url,
        [&](Connection& fresh) -> Result<Handler> {
            if (!private_data.empty()) said = fresh.set_private_data(private_data);
            if (!said) return said.error();
            return Handler(*state_);
        },
        until.limit);
    if (!said || !made) error = said ? made.error() : said.error();
    else state_->connection = made->get();
}

Connecting::~Connecting() {
    unhook();
    if (state_ == nullptr) return;
    if (--state_->streams == 0) state_->orphan();
    state_->unref();
}

bool Connecting::ready() noexcept { return state_->open || state_->connection == nullptr; }

Result<Stream> Connecting::await_resume() noexcept {
    if (ended()) return error;  // the attempt ends with us
    if (state_->connection == nullptr) return state_->reason;
    return Stream(*state_);
}

// -- remote operations -----------------------------------------------------------------------------------------

RemoteWait::RemoteWait(StreamState& state, Result<OperationId> started, Until until) noexcept : state_(state), until_(until) {
    if (!started) {
        error = started.error();
        return;
    }
    id_ = *started;
    next_ = std::exchange(state.remotes, this);
}

RemoteWait::~RemoteWait() {
    for (RemoteWait** at = &state_.remotes; *at != nullptr; at = &(*at)->next_) {
        if (*at != this) continue;
        *at = next_;
        return;
    }
}

bool RemoteWait::start(Promise& promise) noexcept { return begin(promise, *state_.loop, nullptr, until_); }

}  // namespace detail

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
    if (what_ == What::until) return take_until(*c);
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

bool Stream::Recv::take_until(Connection& connection) noexcept {
    if (delimiter_.empty()) {
        error = Error(Errc::misuse, Step::recv);
        return true;
    }
    const std::size_t at = connection.find(delimiter_, looked_);
    if (at != SIZE_MAX && at + delimiter_.size() <= bytes_) {
        got_ = connection.recv(at + delimiter_.size());
        return true;
    }
    const std::size_t there = connection.available();
    if (at != SIZE_MAX || there >= bytes_) {
        error = Error(Errc::too_large, Step::recv, Who::peer);
        return true;
    }
    looked_ = there >= delimiter_.size() ? there - delimiter_.size() + 1 : 0;
    // One byte more than there is: asks to be told of it, and of the peer's end before it.
    if (const auto more = connection.recv_exactly(std::uint32_t(there + 1)); !more) error = more.error();
    return ended();
}

bool Stream::RecvInto::ready() noexcept {
    Connection* const c = state_.connection;
    if (c == nullptr) {
        error = state_.reason;
        return true;
    }
    if (!landing_) {
        if (const auto began = c->recv_into(std::move(block_)); !began) {
            error = began.error();
            return true;
        }
        landing_ = true;
    }
    block_ = c->landed();
    if (!block_) return false;
    landing_ = false;
    if (block_.empty()) error = Error(Errc::end, Step::recv, Who::peer);
    return true;
}

Stream::RecvInto::~RecvInto() {
    if (landing_ && state_.connection != nullptr) (void)state_.connection->cancel_recv_into();
}

Stream::Remote Stream::read(const RemoteRegion& region, std::uint64_t offset, Buffer into, Until until) noexcept {
    if (state_->connection == nullptr) return {*state_, state_->reason, until};
    return {*state_, state_->connection->read(region, offset, std::move(into)), until};
}

Stream::Remote Stream::write(const RemoteRegion& region, std::uint64_t offset, Buffer from, Until until) noexcept {
    if (state_->connection == nullptr) return {*state_, state_->reason, until};
    return {*state_, state_->connection->write(region, offset, std::move(from)), until};
}

Stream::Remote Stream::write_telling(const RemoteRegion& region, std::uint64_t offset, Buffer from, std::uint32_t word, Until until) noexcept {
    if (state_->connection == nullptr) return {*state_, state_->reason, until};
    return {*state_, state_->connection->write_telling(region, offset, std::move(from), word), until};
}

Stream::Atomic Stream::fetch_add(const RemoteRegion& region, std::uint64_t offset, std::uint64_t add, Until until) noexcept {
    if (state_->connection == nullptr) return {*state_, state_->reason, until};
    return {*state_, state_->connection->fetch_add(region, offset, add), until};
}

Stream::Atomic Stream::compare_swap(const RemoteRegion& region, std::uint64_t offset, std::uint64_t expected, std::uint64_t desired, Until until) noexcept {
    if (state_->connection == nullptr) return {*state_, state_->reason, until};
    return {*state_, state_->connection->compare_swap(region, offset, expected, desired), until};
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
