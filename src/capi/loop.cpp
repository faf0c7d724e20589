// Loops: running, posting, timers, watches, hooks.
#include "capi.hpp"

using namespace evpl;
using namespace evpl::capi;

namespace evpl::capi {

bool KeptLoopOptions::read_from(const evpl_loop_options* given) noexcept {
    const evpl_loop_options c = read(given);
    if (c.mode > EVPL_EVENT || c.spin_ns < 0 || c.stall_ns < 0) return false;
    options.mode = Mode(c.mode);
    if (c.spin_ns != 0) options.spin = Duration::of_ns(c.spin_ns);
    if (c.memory_bytes_max != 0) options.memory_bytes_max = c.memory_bytes_max;
    if (c.batch != 0) options.batch = c.batch;
    if (c.batch_bytes != 0) options.batch_bytes = c.batch_bytes;
    if (c.stall_ns != 0) options.stall = Duration::of_ns(c.stall_ns);
    options.name = keep(name, c.name, options.name);
    options.dns_servers = keep(dns_servers, c.dns_servers, nullptr);
    return true;
}

namespace {

struct OwnedLoop : Owned {
    KeptLoopOptions kept;
    alignas(Loop) std::byte room[sizeof(Loop)];
};

/// A C callback to run once somewhere else; what never runs is dropped.
class Errand {
public:
    Errand(void (*run)(void*), void* context, void (*drop)(void*)) noexcept : run_(run), drop_(drop), context_(context) {}
    Errand(Errand&& other) noexcept : run_(other.run_), drop_(std::exchange(other.drop_, nullptr)), context_(other.context_) {}
    ~Errand() {
        if (drop_ != nullptr) drop_(context_);
    }
    void operator()() {
        drop_ = nullptr;
        run_(context_);
    }

private:
    void (*run_)(void*);
    void (*drop_)(void*);
    void* context_;
};

// A reference is passed as a pointer. By way of void(*)(), which tells the compiler that we mean it.
Loop::Hook to_cpp(evpl_hook hook) noexcept { return reinterpret_cast<Loop::Hook>(reinterpret_cast<void (*)()>(hook)); }

template <class Start>
evpl_error start_timer(evpl_loop* loop, void (*run)(void*), evpl_timer* timer, Start start) noexcept {
    if (loop == nullptr || run == nullptr) return misuse;
    Result<Timer> started = start(cpp(loop));
    if (!started) return to_c(started.error());
    if (timer != nullptr) cpp(timer) = *std::move(started);
    else started->release();
    return success;
}

}  // namespace
}  // namespace evpl::capi

static_assert(EVPL_HYBRID == int(Mode::hybrid) && EVPL_POLL == int(Mode::poll) && EVPL_EVENT == int(Mode::event));
static_assert(EVPL_READ == int(Ready::read) && EVPL_WRITE == int(Ready::write) && EVPL_FAULT == int(Ready::error));

extern "C" {

evpl_error evpl_loop_new(const evpl_loop_options* options, evpl_loop** loop) {
    if (loop == nullptr) return misuse;
    *loop = nullptr;
    auto* made = new (std::nothrow) OwnedLoop;
    if (made == nullptr) return no_memory;
    const bool fit = made->kept.read_from(options);
    auto* inner = fit ? new (made->room) Loop(made->kept.options) : nullptr;
    if (inner == nullptr || inner->ref() == LoopRef()) {
        if (inner != nullptr) inner->~Loop();
        delete made;
        return fit ? no_memory : misuse;
    }
    *loop = reinterpret_cast<evpl_loop*>(inner);
    made->enlist(inner);
    return success;
}

evpl_error evpl_loop_free(evpl_loop* loop) {
    if (loop == nullptr || Running::has(loop)) return misuse;
    auto* const found = Owned::take<OwnedLoop>(loop);
    if (found == nullptr) return misuse;
    {
        const Running closing(loop);  // its last callbacks may not free it either
        cpp(loop).~Loop();
    }
    delete found;
    return success;
}

int evpl_loop_run(evpl_loop* loop) {
    if (loop == nullptr) return EVPL_MISUSE;
    const Running running(loop);
    return cpp(loop).run();
}
int evpl_loop_run_until_signal(evpl_loop* loop) {
    if (loop == nullptr) return EVPL_MISUSE;
    const Running running(loop);
    return cpp(loop).run_until_signal();
}
int evpl_loop_run_until_idle(evpl_loop* loop) {
    if (loop == nullptr) return EVPL_MISUSE;
    const Running running(loop);
    return cpp(loop).run_until_idle();
}
bool evpl_loop_run_once(evpl_loop* loop, int64_t wait_ns) {
    if (loop == nullptr) return false;
    const Running running(loop);
    return cpp(loop).run_once(Duration::of_ns(wait_ns));
}
evpl_error evpl_loop_native_fd(evpl_loop* loop, int* fd) {
    if (loop == nullptr || fd == nullptr) return misuse;
    const auto opened = cpp(loop).native_fd();
    *fd = opened ? *opened : -1;
    return status(opened);
}
evpl_error evpl_loop_stop(evpl_loop* loop, int64_t drain_ns) {
    if (loop == nullptr) return misuse;
    if (drain_ns > 0) cpp(loop).stop(within(Duration::of_ns(drain_ns)));
    else cpp(loop).stop();
    return success;
}
bool evpl_loop_stopping(const evpl_loop* loop) { return loop != nullptr && cpp(loop).stopping(); }
int64_t evpl_loop_now(const evpl_loop* loop) { return loop == nullptr ? 0 : cpp(loop).now().ns; }
int64_t evpl_loop_now_precise(const evpl_loop* loop) { return loop == nullptr ? 0 : cpp(loop).now_precise().ns; }
evpl_error evpl_loop_set_mode(evpl_loop* loop, uint32_t mode) {
    if (loop == nullptr || mode > EVPL_EVENT) return misuse;
    cpp(loop).set_mode(Mode(mode));
    return success;
}
evpl_text evpl_loop_last_failure(const evpl_loop* loop) { return loop == nullptr ? evpl_text{} : to_c(cpp(loop).last_failure()); }
int evpl_complain(const evpl_loop* loop, evpl_error error) {
    if (loop == nullptr) return 1;
    return complain(cpp(loop), from_c(error));
}

evpl_loop_ref evpl_loop_get_ref(const evpl_loop* loop) {
    evpl_loop_ref ref{};
    if (loop != nullptr) cpp(&ref) = cpp(loop).ref();
    return ref;
}
evpl_error evpl_post(evpl_loop_ref loop, void (*run)(void*), void* context, void (*drop)(void*)) {
    if (run == nullptr || cpp(&loop) == LoopRef()) return misuse;
    return cpp(&loop).post(Errand(run, context, drop)) ? success : to_c(Errc::loop_ended);
}
evpl_error evpl_stop(evpl_loop_ref loop, int64_t drain_ns) {
    if (cpp(&loop) == LoopRef()) return misuse;
    if (drain_ns > 0) cpp(&loop).stop(within(Duration::of_ns(drain_ns)));
    else cpp(&loop).stop();
    return success;
}
evpl_error evpl_defer(evpl_loop* loop, void (*run)(void*), void* context) {
    if (loop == nullptr || run == nullptr) return misuse;
    return cpp(loop).defer([run, context] { run(context); }) ? success : no_memory;
}

evpl_error evpl_after(evpl_loop* loop, int64_t delay_ns, void (*run)(void*), void* context, evpl_timer* timer) {
    return start_timer(loop, run, timer, [=](Loop& on) { return on.after(Duration::of_ns(delay_ns), [run, context] { run(context); }); });
}
evpl_error evpl_every(evpl_loop* loop, int64_t period_ns, void (*run)(void*), void* context, evpl_timer* timer) {
    if (period_ns <= 0) return misuse;
    return start_timer(loop, run, timer, [=](Loop& on) { return on.every(Duration::of_ns(period_ns), [run, context] { run(context); }); });
}
void evpl_timer_cancel(evpl_timer* timer) {
    if (timer != nullptr) cpp(timer) = Timer();
}
bool evpl_timer_pending(const evpl_timer* timer) { return timer != nullptr && cpp(timer).pending(); }

evpl_error evpl_watch_fd(evpl_loop* loop, int fd, uint8_t wanted, void (*ready)(void*, uint8_t), void* context, evpl_watch* watch) {
    if (loop == nullptr || ready == nullptr || watch == nullptr || fd < 0 || wanted == 0 || wanted > 3) return misuse;
    using ReadyFunction = void (*)(void*, Ready);  // the enumeration is the same byte
    auto watched = cpp(loop).watch(fd, Ready(wanted), reinterpret_cast<ReadyFunction>(ready), context);
    if (watched) cpp(watch) = *std::move(watched);
    return status(watched);
}
void evpl_watch_cancel(evpl_watch* watch) {
    if (watch != nullptr) cpp(watch).cancel();
}

evpl_error evpl_loop_on_before_wait(evpl_loop* loop, evpl_hook hook, void* context) {
    if (loop == nullptr) return misuse;
    cpp(loop).on_before_wait(to_cpp(hook), context);
    return success;
}
evpl_error evpl_loop_on_after_wait(evpl_loop* loop, evpl_hook hook, void* context) {
    if (loop == nullptr) return misuse;
    cpp(loop).on_after_wait(to_cpp(hook), context);
    return success;
}
evpl_error evpl_loop_on_turn_end(evpl_loop* loop, evpl_hook hook, void* context) {
    if (loop == nullptr) return misuse;
    cpp(loop).on_turn_end(to_cpp(hook), context);
    return success;
}

}  // extern "C"
