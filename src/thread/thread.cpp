#include "evpl/thread.hpp"

#include <sched.h>
#include <signal.h>

#include <cstdio>
#include <new>

#include "base/settings.hpp"
#include "thread/thread_state.hpp"

namespace evpl {

void* Thread::State::run(void* context) noexcept {
    auto& state = *static_cast<State*>(context);
    pthread_setname_np(pthread_self(), state.name);
    const Error pinned = state.pin();
    auto* loop = new (state.room) Loop(state.options.loop);
    const Error ready = pinned.ok() && loop->ref() == LoopRef() ? Error(Errc::out_of_memory, Step::loop) : pinned;
    {
        const std::lock_guard lock(state.mutex);
        state.ref = loop->ref();
        state.error = ready;
        state.started = true;
    }
    state.changed.notify_all();
    if (ready.ok()) loop->run();
    if (state.ended != nullptr) state.ended(state.ended_context, *loop);
    loop->~Loop();
    return nullptr;
}

Error Thread::State::pin() const noexcept {
    if (options.cpu < 0) return {};
    cpu_set_t set;
    CPU_ZERO(&set);
    if (options.cpu < CPU_SETSIZE) CPU_SET(unsigned(options.cpu), &set);
    const int failed = pthread_setaffinity_np(pthread_self(), sizeof set, &set);
    return failed == 0 ? Error() : Error(Errc::bad_option, Step::loop, Who::local, failed);
}

Result<Thread> Thread::start(const ThreadOptions& options) noexcept {
    if (const base::Fault* fault = base::settings().fault_of("loop")) return fault->error;
    auto* state = new (std::nothrow) State;
    if (state == nullptr) return Errc::out_of_memory;
    state->options = options;
    std::snprintf(state->name, sizeof state->name, "%s", options.name);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);  // the program's signals are its own threads' business
    const int error = pthread_create(&state->thread, nullptr, &State::run, state);
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    if (error != 0) {
        delete state;
        return Error::from_errno(error == EAGAIN ? ENOMEM : error, Step::loop);
    }
    Thread made;
    made.state_ = state;
    std::unique_lock lock(state->mutex);
    state->changed.wait(lock, [state] { return state->started; });
    if (!state->error.ok()) {
        const Error failure = state->error;
        lock.unlock();
        return failure;  // ~Thread joins
    }
    lock.unlock();
    return made;
}

Thread& Thread::operator=(Thread&& other) noexcept {
    if (this != &other) {
        this->~Thread();
        state_ = std::exchange(other.state_, nullptr);
    }
    return *this;
}

Thread::~Thread() {
    if (state_ == nullptr) return;
    stop();
    join();
    delete std::exchange(state_, nullptr);
}

Loop& Thread::loop() const noexcept {
    EVPL_CHECK(state_ != nullptr, "loop() of an empty Thread", 0, 0);
    return state_->loop();
}

bool Thread::post(Task task) const noexcept { return state_ != nullptr && state_->ref.post(std::move(task)); }

namespace {

// Somebody waits until a task has run, or was destroyed unrun because the loop ended.
struct Waiting {
    Task task;
    std::mutex mutex;
    std::condition_variable changed;
    bool over = false;
    bool ran = false;

    void finish(bool did_run) noexcept {
        const std::lock_guard lock(mutex);
        over = true;
        ran = did_run;
        changed.notify_all();
    }
};

class Errand {
public:
    explicit Errand(Waiting& waiting) noexcept : waiting_(&waiting) {}
    Errand(Errand&& other) noexcept : waiting_(std::exchange(other.waiting_, nullptr)) {}
    ~Errand() {
        if (waiting_ != nullptr) waiting_->finish(false);
    }
    void operator()() {
        Waiting* waiting = std::exchange(waiting_, nullptr);
        struct Finish {
            Waiting& waiting;
            ~Finish() { waiting.finish(true); }  // also when the task throws
        } finish{*waiting};
        waiting->task();
    }

private:
    Waiting* waiting_;
};

}  // namespace

bool Thread::run(Task task) const noexcept {
    if (state_ == nullptr || pthread_equal(pthread_self(), state_->thread) != 0) return false;
    Waiting waiting;
    waiting.task = std::move(task);
    if (!post(Task(Errand(waiting)))) return false;
    std::unique_lock lock(waiting.mutex);
    waiting.changed.wait(lock, [&] { return waiting.over; });
    return waiting.ran;
}

void Thread::set_ended(void (*ended)(void*, Loop&), void* context) noexcept {
    state_->ended_context = context;
    state_->ended = ended;
}

void Thread::stop() noexcept {
    if (state_ != nullptr) state_->ref.stop();
}

void Thread::stop(Limit drain) noexcept {
    if (state_ != nullptr) state_->ref.stop(drain);
}

void Thread::join() noexcept {
    if (state_ == nullptr || std::exchange(state_->joined, true)) return;
    pthread_join(state_->thread, nullptr);
}

}  // namespace evpl
