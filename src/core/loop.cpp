// The public face of a loop.
#include "evpl/loop.hpp"

#include <pthread.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "base/clock.hpp"
#include "core/loop_core.hpp"
#include "evpl/parcel.hpp"
#include "memory/region.hpp"

namespace evpl {

using core::LoopCore;

Loop::Loop(const LoopOptions& options) noexcept : core_(LoopCore::create(*this, options)) {}
Loop::~Loop() { delete core_; }

int Loop::run() noexcept { return core_ != nullptr ? core_->run(false) : 1; }
int Loop::run_until_idle() noexcept { return core_ != nullptr ? core_->run(true) : 1; }
bool Loop::run_once(Duration wait) noexcept { return core_ != nullptr && core_->run_once(wait.ns); }

int Loop::run_until_signal() noexcept {
    if (core_ == nullptr) return 1;
    sigset_t wanted, before;
    sigemptyset(&wanted);
    sigaddset(&wanted, SIGINT);
    sigaddset(&wanted, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &wanted, &before);
    const int fd = signalfd(-1, &wanted, SFD_NONBLOCK | SFD_CLOEXEC);
    if (fd < 0) {
        core_->fail(Error::from_errno(errno, Step::loop), "out of descriptors: waiting for signals needs one (ulimit -n)");
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
        return 1;
    }
    int status = 1;
    {
        struct Context {
            Loop* loop;
            int fd;
        } context{this, fd};
        const auto watching = watch(
            fd, Ready::read,
            [](void* c, Ready) {
                signalfd_siginfo info;
                while (::read(static_cast<Context*>(c)->fd, &info, sizeof info) == sizeof info) static_cast<Context*>(c)->loop->stop();
            },
            &context);
        if (watching) status = run();
    }
    ::close(fd);
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return status;
}

Result<int> Loop::native_fd() noexcept {
    if (core_ == nullptr) return Errc::out_of_memory;
    return core_->native_fd();
}

void Loop::stop() noexcept { ref().stop(); }

void Loop::stop(Limit drain) noexcept {
    if (core_ != nullptr) core_->control->request_stop(core_->control->epoch(), drain.duration.ns);
}

bool Loop::stopping() const noexcept { return core_ == nullptr || core_->control->stop_requested(); }

Duration Loop::now() const noexcept { return Duration::of_ns(core_ != nullptr ? core_->now_ns() : base::clock_ns()); }
Duration Loop::now_precise() const noexcept { return Duration::of_ns(base::clock_ns()); }

Result<Timer> Loop::after(Duration delay, Task task) noexcept {
    if (core_ == nullptr) return Errc::out_of_memory;
    // Counted from the clock, not from the turn's start: a long turn must not make a timer early.
    const auto handle = core_->timers.add(core_->clock.ceiling_ns(), delay.ns, std::move(task));
    if (handle.chunk == nullptr) [[unlikely]]
        return core_->fail(Errc::out_of_memory, "no memory for a timer");
    return CoreAccess::timer(handle);
}

Result<Timer> Loop::every(Duration period, Task task) noexcept {
    if (core_ == nullptr) return Errc::out_of_memory;
    if (period.ns <= 0) return core_->fail(Errc::bad_option, "every() needs a period above zero");
    const auto handle = core_->timers.add(core_->clock.ceiling_ns(), period.ns, std::move(task), period.ns);
    if (handle.chunk == nullptr) [[unlikely]]
        return core_->fail(Errc::out_of_memory, "no memory for a timer");
    return CoreAccess::timer(handle);
}

bool Loop::defer(Task task) noexcept { return core_ != nullptr && core_->defer(std::move(task)); }
bool Loop::post(Task task) noexcept { return ref().post(std::move(task)); }

LoopRef Loop::ref() const noexcept { return core_ != nullptr ? CoreAccess::loop_ref(core_->control, core_->control->epoch()) : LoopRef(); }

bool LoopRef::post(Task task) const noexcept {
    if (control_ == nullptr || !control_->mailbox.post(std::move(task), std::uint32_t(generation_))) return false;
    control_->bell.ring();
    return true;
}

void LoopRef::stop() const noexcept {
    if (control_ != nullptr) control_->request_stop(std::uint32_t(generation_), 0);
}

void LoopRef::stop(Limit drain) const noexcept {
    if (control_ != nullptr) control_->request_stop(std::uint32_t(generation_), drain.duration.ns);
}

Result<Watch> Loop::watch(int fd, Ready wanted, void (*ready)(void* context, Ready what), void* context) noexcept {
    if (core_ == nullptr) return Errc::out_of_memory;
    const auto state = core_->watch(fd, wanted, ready, context);
    if (!state) return state.error();
    return CoreAccess::watch(*state);
}

void Watch::cancel() noexcept {
    if (state_ != nullptr) state_->core->unwatch(*state_);
    state_ = nullptr;
}

void Loop::on_before_wait(Hook hook, void* context) noexcept {
    if (core_ == nullptr) return;
    core_->before_wait = hook;
    core_->before_wait_context = context;
}
void Loop::on_after_wait(Hook hook, void* context) noexcept {
    if (core_ == nullptr) return;
    core_->after_wait = hook;
    core_->after_wait_context = context;
}
void Loop::on_turn_end(Hook hook, void* context) noexcept {
    if (core_ == nullptr) return;
    core_->turn_end = hook;
    core_->turn_end_context = context;
}

Result<Buffer> Loop::allocate(std::uint32_t size_bytes) noexcept {
    if (core_ == nullptr) return Errc::out_of_memory;
    auto made = core_->heap().allocate(size_bytes);
    if (!made) return core_->fail(made.error(), "no buffer of %u bytes: %s", size_bytes, name_of(made.error().code()));
    return made;
}

Result<Buffer> Loop::copy(std::span<const std::byte> bytes) noexcept {
    if (core_ == nullptr) return Errc::out_of_memory;
    if (bytes.size() > memory::block_bytes_max) return core_->fail(Errc::too_large, "a buffer holds at most 2 MiB, not %zu bytes", bytes.size());
    return core_->heap().copy(bytes.data(), std::uint32_t(bytes.size()));
}

Result<Buffer> Loop::wrap(std::span<std::byte> bytes, void (*release)(void* context), void* context) noexcept {
    if (core_ == nullptr) return Errc::out_of_memory;
    if (bytes.size() > UINT32_MAX) return core_->fail(Errc::too_large, "a buffer holds at most 4 GiB - 1 byte, not %zu bytes", bytes.size());
    return core_->heap().wrap(bytes.data(), std::uint32_t(bytes.size()), release, context);
}

Result<Buffer> Loop::slice(const Region& region, std::size_t offset, std::uint32_t size_bytes) noexcept {
    if (core_ == nullptr) return Errc::out_of_memory;
    const std::span<std::byte> all = region.bytes();
    if (size_bytes == 0 || offset > all.size() || size_bytes > all.size() - offset) {
        return core_->fail(Errc::misuse, "%zu bytes from %zu on are not within a region of %zu", std::size_t(size_bytes), offset, all.size());
    }
    memory::RegionSlab* const slab = region.slab_;
    auto made = core_->heap().wrap(
        all.data() + offset, size_bytes, [](void* of) { static_cast<memory::RegionSlab*>(of)->unref(); }, slab, slab);
    if (made) slab->ref();
    return made;
}

Buffer Parcel::open(Loop&) && {
    if (block_ == nullptr) return {};
    return BufferAccess::adopt(std::exchange(block_, nullptr), data_, std::exchange(size_, 0));
}

const LoopOptions& Loop::options() const noexcept {
    static const LoopOptions none{};
    return core_ != nullptr ? core_->options : none;
}
void Loop::set_mode(Mode mode) noexcept {
    if (core_ != nullptr) core_->options.mode = mode;
}

LoopMetrics Loop::metrics() const noexcept {
    if (core_ == nullptr) return {};
    LoopMetrics now = core_->metrics;
    now.busy_ns = std::uint64_t(core_->cycle_scale.ns(core_->busy_cycles));
    now.longest_turn_ns = std::uint64_t(core_->cycle_scale.ns(core_->longest_turn_cycles));
    now.buffers_out = core_->heap().blocks_out();
    now.slab_bytes = core_->heap().slab_bytes_held();
    return now;
}

std::string_view Loop::last_failure() const noexcept {
    return core_ != nullptr ? std::string_view(core_->last_failure) : std::string_view("no memory for a loop");
}

int complain(const Loop& loop, Error error) noexcept {
    char text[160];
    error.describe(text, sizeof text);
    const auto sentence = loop.last_failure();
    if (sentence.empty()) std::fprintf(stderr, "%s\n", text);
    else std::fprintf(stderr, "%.*s\n", int(sentence.size()), sentence.data());
    return 1;
}

}  // namespace evpl
