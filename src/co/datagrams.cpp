#include "evpl/co_datagrams.hpp"

#include <new>
#include <span>

namespace evpl::co {
namespace detail {
namespace {

/// The socket's handler: one reference on the state.
class DatagramsHandler {
public:
    explicit DatagramsHandler(DatagramsState& state) noexcept : state_(&state) { state.ref(); }
    DatagramsHandler(DatagramsHandler&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
    ~DatagramsHandler() {
        if (state_ != nullptr) state_->unref();
    }
    void on_recv(Datagram& d) { state_->on_recv(d); }
    void on_writable(Datagram& d) { state_->on_writable(d); }
    void on_close(Datagram& d, Error e) { state_->on_close(d, e); }

private:
    DatagramsState* state_;
};

}  // namespace

DatagramsState* DatagramsState::create(Loop& loop) noexcept { return new (std::nothrow) DatagramsState(loop); }

void DatagramsState::unref() noexcept {
    if (--refs_ == 0) delete this;
}

void DatagramsState::look(Wait* waiting) noexcept {
    if (waiting != nullptr && waiting->ready()) waiting->resume();
}

void DatagramsState::on_close(Datagram&, Error why) noexcept {
    ref();  // what is resumed may drop the others
    socket = nullptr;
    reason = why;
    look(reader);
    look(writer);
    unref();
}

}  // namespace detail

Result<Datagrams> bind(Loop& loop, std::string_view url) noexcept {
    detail::DatagramsState* const state = detail::DatagramsState::create(loop);
    if (state == nullptr) return Error(Errc::out_of_memory, Step::open);
    Result<Datagrams> made = Error(Errc::out_of_memory, Step::open);
    const auto bound = evpl::bind(loop, url, detail::DatagramsHandler(*state));
    if (bound) {
        state->socket = bound->get();
        made = Datagrams(*state);
    } else {
        made = bound.error();
    }
    state->unref();
    return made;
}

Datagrams::~Datagrams() {
    if (state_ == nullptr) return;
    if (state_->socket != nullptr) {
        state_->socket->flush();
        if (state_->socket != nullptr) state_->socket->close();
    }
    state_->unref();
}

bool Datagrams::RecvFrom::ready() noexcept {
    if (state_.socket == nullptr) {
        error = state_.reason;
        return true;
    }
    if (!state_.socket->has_packet()) return false;
    got_ = state_.socket->recv();
    return true;
}

bool Datagrams::SendTo::ready() noexcept {
    if (state_.socket == nullptr) {
        error = state_.reason;
        return true;
    }
    return state_.socket->queued() < state_.socket->limits().send_high;
}

Datagrams::SendTo Datagrams::send_to(const Address& to, Buffer bytes, Until until) noexcept {
    if (state_->socket == nullptr) return {*state_, Flow(Flow::State::refused, state_->reason.code()), until};
    return {*state_, state_->socket->send_to(to, std::move(bytes)), until};
}

Datagrams::SendTo Datagrams::send_to(const Address& to, std::string_view text, Until until) noexcept {
    if (state_->socket == nullptr) return {*state_, Flow(Flow::State::refused, state_->reason.code()), until};
    return {*state_, state_->socket->send_to(to, std::as_bytes(std::span(text.data(), text.size()))), until};
}

void Datagrams::close() noexcept {
    if (state_->socket != nullptr) state_->socket->close();
}

}  // namespace evpl::co
