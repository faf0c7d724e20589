// The waiting of coroutines: what resumes them, and what ends a wait early.
#include "evpl/co_task.hpp"

namespace evpl::co {
namespace detail {

void destroy_from_root(Promise* leaf) noexcept {
    while (leaf->parent != nullptr) leaf = leaf->parent;
    leaf->self.destroy();
}

// -- one wait --------------------------------------------------------------------------------------------------

bool Wait::begin(Promise& promise, Loop& loop, Wait** slot, Until until) noexcept {
    if (until.token != nullptr && until.token->cancelled()) error = Error(Errc::cancelled);
    else if (slot != nullptr && *slot != nullptr) error = Error(Errc::misuse);
    else if (ready()) return false;
    if (ended()) return false;
    if (until.limit.duration != Duration::forever()) {
        auto timer = loop.after(until.limit.duration, [this] { end(Error(Errc::timed_out)); });
        if (!timer) {
            error = timer.error();
            return false;
        }
        timer_ = *std::move(timer);
    }
    promise_ = &promise;
    slot_ = slot;
    if (slot != nullptr) *slot = this;
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
    std::exchange(promise_, nullptr)->self.resume();
    depart();
}

void Wait::end(Error outcome) noexcept {
    error = outcome;
    resume();
}

// -- what only the loop ends -----------------------------------------------------------------------------------

/// Rings once. Dropped unrung while its coroutine waits, the loop has ended: so does the coroutine.
class Ring {
public:
    explicit Ring(Parked& parked) noexcept : parked_(&parked) { parked.ring_ = this; }
    Ring(Ring&& other) noexcept : parked_(std::exchange(other.parked_, nullptr)) {
        if (parked_ != nullptr) parked_->ring_ = this;
    }
    ~Ring() {
        Parked* const parked = let_go();
        if (parked != nullptr && parked->waits()) destroy_from_root(parked->promise_);
    }
    void operator()() noexcept {
        if (Parked* const parked = let_go()) parked->end(parked->outcome);
    }

private:
    friend class Parked;
    Parked* let_go() noexcept {
        if (parked_ != nullptr) parked_->ring_ = nullptr;
        return std::exchange(parked_, nullptr);
    }
    Parked* parked_;
};

void Parked::detach() noexcept {
    if (ring_ != nullptr) std::exchange(ring_, nullptr)->parked_ = nullptr;
}

bool Sleep::begin(Promise& promise) noexcept {
    auto timer = loop_.after(delay_, Ring(*this));
    if (!timer) {
        error = timer.error();
        return false;
    }
    timer_ = *std::move(timer);
    Until until;
    until.token = token_;
    if (Wait::begin(promise, loop_, nullptr, until)) return true;
    detach();
    return false;
}

bool Yield::begin(Promise& promise) noexcept {
    if (!loop_.defer(Ring(*this))) {
        error = Error(Errc::out_of_memory);
        return false;
    }
    return Wait::begin(promise, loop_, nullptr, {});
}

// -- to another thread -----------------------------------------------------------------------------------------

namespace {
constinit thread_local Hop* leaving = nullptr;  // its stack is still unwinding
constinit thread_local bool posting = false;    // an arrival dropped now was refused
}  // namespace

/// What travels. Dropped on the way, the other loop has ended: so do the coroutines, on the thread where that happens.
class Hop::Arrival {
public:
    explicit Arrival(Hop& hop) noexcept : hop_(&hop) {}
    Arrival(Arrival&& other) noexcept : hop_(std::exchange(other.hop_, nullptr)) {}
    ~Arrival() {
        if (hop_ != nullptr && !posting) destroy_from_root(hop_->promise_);
    }
    void operator()() noexcept {
        std::exchange(hop_, nullptr)->promise_->self.resume();
        depart();
    }

private:
    Hop* hop_;
};

// The coroutines leave when nothing of their stack runs on this thread any more: the other thread may resume and end them at once.
bool Hop::begin(Promise& promise) noexcept {
    for (const Promise* outer = &promise; outer != nullptr; outer = outer->parent) {
        if (!outer->beside) continue;
        error_ = Error(Errc::misuse);
        return false;
    }
    promise_ = &promise;
    leaving = this;
    return true;
}

void Hop::go() noexcept {
    const LoopRef to = to_;
    posting = true;
    const bool left = to.post(Arrival(*this));  // while it runs we may be gone already
    posting = false;
    if (left) return;
    error_ = Error(Errc::stopped);
    promise_->self.resume();
}

void depart() noexcept {
    while (leaving != nullptr) std::exchange(leaving, nullptr)->go();
}

}  // namespace detail

void Cancel::cancel() noexcept {
    cancelled_ = true;
    while (first_ != nullptr) first_->end(Error(Errc::cancelled));
}

}  // namespace evpl::co
