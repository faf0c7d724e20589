#include "evpl/thread_pool.hpp"

#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

#include "base/settings.hpp"
#include "core/listener_state.hpp"
#include "core/loop_core.hpp"
#include "thread/thread_state.hpp"

namespace evpl {

namespace {

/// An object of Local<T> on each thread.
struct LocalObjects {
    std::vector<void*> of_thread;
    void (*destroy)(void*);
};

struct Member {
    Thread thread;
    ThreadPool* pool = nullptr;
    std::uint32_t index = 0;
    char name[16] = {};
};

std::vector<int> usable_cpus() {
    cpu_set_t set;
    CPU_ZERO(&set);
    std::vector<int> cpus;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return {0};
    for (int i = 0; i < CPU_SETSIZE; ++i) {
        if (CPU_ISSET(unsigned(i), &set)) cpus.push_back(i);
    }
    return cpus;
}

}  // namespace

struct ThreadPool::State {
    std::vector<std::unique_ptr<Member>> members;
    std::vector<LocalObjects> locals;
    PoolListener::State* listeners = nullptr;
    Error error;
    char failure[320] = {};
    bool stopped = false;

    /// On each thread after its last connection: its local objects go, the newest first.
    static void thread_ended(void* context, Loop&) {
        auto& member = *static_cast<Member*>(context);
        auto& locals = member.pool->state_->locals;
        for (std::size_t i = locals.size(); i-- > 0;) {
            void*& object = locals[i].of_thread[member.index];
            if (object != nullptr) locals[i].destroy(std::exchange(object, nullptr));
        }
    }
};

// A peer on its way to another thread: closed when the thread has ended before it came.
struct Handed {
    core::ListenerState* listener;
    int descriptor;
    Address peer;

    Handed(core::ListenerState* to, int fd, const Address& from) noexcept : listener(to), descriptor(fd), peer(from) {}
    Handed(Handed&& other) noexcept : listener(other.listener), descriptor(std::exchange(other.descriptor, -1)), peer(other.peer) {}
    ~Handed() {
        if (descriptor >= 0) ::close(descriptor);
    }
    void operator()() { listener->adopt(std::exchange(descriptor, -1), peer); }
};

/// The listeners of one URL. `of_thread` entries are made, used and dropped on their threads.
struct PoolListener::State {
    ThreadPool* pool = nullptr;
    std::vector<Listener> of_thread;
    std::vector<core::ListenerState*> raw;  // the same, for handing out
    std::vector<LoopRef> loops;
    std::uint32_t next_thread = 0;
    char url[200] = {};
    std::uint16_t port = 0;
    State* next = nullptr;

    /// On the accepting thread: the next thread in turn gets the peer.
    static bool hand_out(void* context, int descriptor, const Address& peer) {
        auto& state = *static_cast<State*>(context);
        const std::uint32_t target = state.next_thread;
        state.next_thread = (target + 1) % std::uint32_t(state.raw.size());
        if (target == 0) return false;  // the accepting thread's own turn
        core::ListenerState* listener = state.raw[target];
        state.loops[target].post(Handed(listener, descriptor, peer));
        return true;
    }
};

ThreadPool::ThreadPool(const PoolOptions& options) noexcept {
    state_ = new (std::nothrow) State;
    if (state_ == nullptr) return;
    if (const base::Fault* fault = base::settings().fault_of("pool")) {
        state_->error = fault->error;
        std::snprintf(state_->failure, sizeof state_->failure, "%s", fault->sentence.c_str());
        return;
    }
    try {
        const std::vector<int> cpus = options.cpus.empty() ? usable_cpus() : std::vector<int>(options.cpus.begin(), options.cpus.end());
        const bool pin = options.pin || !options.cpus.empty();
        const std::size_t count = options.threads != 0 ? options.threads : cpus.size();
        for (std::size_t i = 0; i < count && state_->error.ok(); ++i) {
            auto member = std::make_unique<Member>();
            member->pool = this;
            member->index = std::uint32_t(i);
            std::snprintf(member->name, sizeof member->name, "%.10s-%u", options.name, unsigned(i % 10000));
            ThreadOptions thread_options;
            thread_options.loop = options.loop;
            thread_options.loop.name = member->name;
            thread_options.name = member->name;
            thread_options.cpu = pin ? cpus[i % cpus.size()] : -1;
            auto started = Thread::start(thread_options);
            if (!started) {
                state_->error = started.error();
                if (const base::Fault* fault = base::settings().fault_of("loop"))
                    std::snprintf(state_->failure, sizeof state_->failure, "%s", fault->sentence.c_str());
                break;
            }
            member->thread = *std::move(started);
            member->thread.set_ended(&State::thread_ended, member.get());
            state_->members.push_back(std::move(member));
        }
    } catch (...) {
        state_->error = Error(Errc::out_of_memory, Step::loop);
    }
    if (!state_->error.ok()) stop();
}

ThreadPool::~ThreadPool() {
    stop();
    delete state_;
}

Error ThreadPool::error() const noexcept { return state_ != nullptr ? state_->error : Error(Errc::out_of_memory, Step::loop); }
std::uint32_t ThreadPool::size() const noexcept { return state_ != nullptr && state_->error.ok() ? std::uint32_t(state_->members.size()) : 0; }

Loop& ThreadPool::loop(std::uint32_t i) const noexcept {
    EVPL_CHECK(i < size(), "a pool has no such thread", i, size());
    return state_->members[i]->thread.loop();
}

std::string_view ThreadPool::last_failure() const noexcept {
    return state_ != nullptr ? std::string_view(state_->failure) : std::string_view("no memory for a thread pool");
}

// -- per-thread objects ----------------------------------------------------------------------------------------

std::uint32_t ThreadPool::add_local(void* context, void* (*make)(void*, Loop&), void (*destroy)(void*)) {
    EVPL_CHECK(size() > 0 && !state_->stopped, "local() of a pool that has not started or has stopped", size(), 0);
    const auto index = std::uint32_t(state_->locals.size());
    state_->locals.push_back({std::vector<void*>(size(), nullptr), destroy});
    LocalObjects& objects = state_->locals.back();
    for (std::uint32_t i = 0; i < size(); ++i) {
        Loop& on = loop(i);
        state_->members[i]->thread.run([&objects, &on, context, make, i] { objects.of_thread[i] = make(context, on); });
        EVPL_CHECK(objects.of_thread[i] != nullptr, "a per-thread object could not be built", i, index);
    }
    return index;
}

void* ThreadPool::local_of(std::uint32_t index, const Loop& loop) const {
    for (const auto& member : state_->members) {
        if (&member->thread.loop() == &loop) return state_->locals[index].of_thread[member->index];
    }
    EVPL_CHECK(false, "Local::of() with a loop of another pool", index, 0);
    return nullptr;
}

// -- listeners -------------------------------------------------------------------------------------------------

namespace {

/// The URL with the port that was really bound.
void url_with_port(std::string_view url, std::uint16_t port, char* out, std::size_t room) noexcept {
    const auto parsed = Endpoint::parse(url);
    const bool bracket = parsed->host().find(':') != std::string_view::npos;
    std::snprintf(out, room, "%.*s://%s%.*s%s:%u%s%.*s", int(parsed->scheme().size()), parsed->scheme().data(), bracket ? "[" : "", int(parsed->host().size()),
                  parsed->host().data(), bracket ? "]" : "", port, parsed->query().empty() ? "" : "?", int(parsed->query().size()), parsed->query().data());
}

/// It names one socket, which is there already.
bool takes_over(std::string_view url) noexcept {
    const auto parsed = Endpoint::parse(url);
    return parsed && parsed->option("fd").data() != nullptr;
}

enum class Plan { share, hand_out, first_only };

Plan plan_of(std::string_view url, Spread spread, std::uint32_t threads) noexcept {
    const auto parsed = Endpoint::parse(url);
    Diagnostic why;
    const auto choice = parsed ? transport::choose(*parsed, why) : Result<transport::Choice>(Errc::bad_endpoint);
    if (!choice || threads == 1) return Plan::first_only;
    const std::string_view wire = choice->scheme->wire;
    if (spread == Spread::share_port) return Plan::share;
    if (spread == Spread::hand_out || takes_over(url)) return Plan::hand_out;
    return wire == "tcp" ? Plan::share : wire == "unix" ? Plan::hand_out : Plan::first_only;
}

}  // namespace

Result<PoolListener> ThreadPool::listen_source(std::string_view url, Source source, Spread spread) noexcept {
    if (size() == 0 || state_->stopped) return Error(Errc::misuse, Step::listen);
    const auto no_memory = [this] {
        std::snprintf(state_->failure, sizeof state_->failure, "no memory for a listener");
        return Error(Errc::out_of_memory, Step::listen);
    };
    auto* made = new (std::nothrow) PoolListener::State;
    if (made == nullptr) return no_memory();
    PoolListener listener;
    listener.state_ = made;
    made->pool = this;
    const Plan plan = plan_of(url, spread, size());
    if (plan == Plan::share && takes_over(url)) {
        std::snprintf(state_->failure, sizeof state_->failure, "%.*s: fd= is one socket, which threads do not share by its port: Spread::hand_out",
                      int(url.size()), url.data());
        return Error(Errc::not_supported, Step::listen);
    }
    const std::uint32_t count = plan == Plan::first_only ? 1 : size();
    try {
        made->of_thread.resize(size());
        made->raw.resize(count, nullptr);
        for (std::uint32_t i = 0; i < count; ++i) made->loops.push_back(loop(i).ref());
    } catch (...) {
        return no_memory();
    }
    made->next = state_->listeners;
    state_->listeners = made;
    char shared_url[Endpoint::text_bytes_max + 1];
    std::snprintf(shared_url, sizeof shared_url, "%.*s", int(url.size()), url.data());
    Error error;
    const auto open_on = [&](std::uint32_t i, bool shared, bool silent) {
        struct Job {
            PoolListener::State& made;
            Source& source;
            const char* url;
            Error& error;
            char* failure;
            std::uint32_t i;
            bool shared, silent;
        } job{*made, source, shared_url, error, state_->failure, i, shared, silent};
        Loop& on = loop(i);
        state_->members[i]->thread.run([&job, &on] {
            core::LoopCore& core = *CoreAccess::core(on);
            const auto factory = job.source.copy(job.source.context);
            auto opened = job.silent ? core::open_adopter(core, job.url, factory) : core::open_listener(core, job.url, factory, job.shared);
            if (!opened) {
                job.error = opened.error();
                std::snprintf(job.failure, 320, "%s", core.last_failure);
                return;
            }
            job.made.raw[job.i] = *opened;
            job.made.of_thread[job.i] = CoreAccess::handle<Listener>(*opened);
        });
    };
    // The first listener does not share: a second server at the same address is an error, and port 0 becomes a real one.
    open_on(0, false, false);
    if (error.ok()) {
        made->port = made->of_thread[0].port();
        std::snprintf(made->url, sizeof made->url, "%.*s", int(made->of_thread[0].url().size()), made->of_thread[0].url().data());
    }
    if (error.ok() && plan == Plan::share) {
        state_->members[0]->thread.run([made] { made->of_thread[0].close(); });
        url_with_port(url, made->port, shared_url, sizeof shared_url);
        for (std::uint32_t i = 0; i < count && error.ok(); ++i) open_on(i, true, false);
    } else if (error.ok() && plan == Plan::hand_out) {
        for (std::uint32_t i = 1; i < count && error.ok(); ++i) open_on(i, false, true);
        if (error.ok()) {
            state_->members[0]->thread.run([made] { made->raw[0]->hand_out = {&PoolListener::State::hand_out, made}; });
        }
    }
    if (!error.ok()) return error;  // ~PoolListener closes what was opened
    return listener;
}

std::string_view PoolListener::url() const noexcept { return state_ != nullptr ? std::string_view(state_->url) : std::string_view(); }
std::uint16_t PoolListener::port() const noexcept { return state_ != nullptr ? state_->port : std::uint16_t(0); }

int PoolListener::hand_over() noexcept {
    if (state_ == nullptr || state_->pool->state_->stopped) return -1;
    int descriptor = -1;
    state_->pool->state_->members[0]->thread.run([&descriptor, state = state_] {
        const bool is_only_one = state->raw.size() == 1 || state->raw[0]->hand_out.take != nullptr;
        if (is_only_one) descriptor = state->of_thread[0].hand_over();
    });
    return descriptor;
}

void PoolListener::close() noexcept {
    State* state = std::exchange(state_, nullptr);
    if (state != nullptr) state->pool->drop(state);
}

void ThreadPool::drop(PoolListener::State* listener) noexcept {
    // The accepting thread first: nothing is handed out any more. What it posted before runs before the close that is posted now.
    for (std::size_t i = 0; i < listener->of_thread.size() && !state_->stopped; ++i) {
        state_->members[i]->thread.run([listener, i] { listener->of_thread[i].close(); });
    }
    for (PoolListener::State** at = &state_->listeners; *at != nullptr; at = &(*at)->next) {
        if (*at != listener) continue;
        *at = listener->next;
        break;
    }
    if (state_->stopped) {
        for (Listener& one : listener->of_thread) one.forget();
    }
    delete listener;
}

void ThreadPool::stop(Limit drain) noexcept {
    if (state_ == nullptr || state_->stopped) return;
    for (PoolListener::State* one = state_->listeners; one != nullptr; one = one->next) {
        for (std::size_t i = 0; i < one->of_thread.size(); ++i) {
            state_->members[i]->thread.run([one, i] { one->of_thread[i].close(); });
        }
    }
    for (auto& member : state_->members) member->thread.stop(drain);
    for (auto& member : state_->members) member->thread.join();
    state_->stopped = true;
}

}  // namespace evpl
