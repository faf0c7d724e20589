// Threads and pools.
#include <deque>

#include "capi.hpp"

using namespace evpl;
using namespace evpl::capi;

namespace {

/// The evpl_thread or evpl_pool whose thread this is: who waits for its own end would wait for ever.
thread_local const void* home = nullptr;

struct OwnedThread : Owned {
    KeptLoopOptions kept;
    char name[32] = {};
    Thread thread;
};
OwnedThread& cpp(evpl_thread* handle) noexcept { return *reinterpret_cast<OwnedThread*>(handle); }
const OwnedThread& cpp(const evpl_thread* handle) noexcept { return *reinterpret_cast<const OwnedThread*>(handle); }

/// One object of a thread, destroyed on it.
struct Held {
    void* object = nullptr;
    void (*destroy)(void*) = nullptr;

    Held(void* made, void (*how)(void*)) noexcept : object(made), destroy(how) {}
    Held(const Held&) = delete;
    Held& operator=(const Held&) = delete;
    ~Held() {
        if (destroy != nullptr && object != nullptr) destroy(object);
    }
};

/// A pool's listener, in the list of its pool, which frees what the program did not.
struct OwnedPoolListener : Owned {
    struct OwnedPool* pool = nullptr;
    OwnedPoolListener* next = nullptr;
    PoolListener listener;
};

struct OwnedPool : Owned {
    OwnedPool(const KeptLoopOptions& texts, const PoolOptions& options) noexcept : kept(texts), pool(with(kept, options)) {}

    static PoolOptions with(const KeptLoopOptions& kept, PoolOptions options) noexcept {
        options.loop.dns_servers = kept.dns_servers[0] != '\0' ? kept.dns_servers : nullptr;
        return options;
    }

    bool owns(const Loop* loop) const noexcept {
        for (std::uint32_t i = 0; i < pool.size(); ++i) {
            if (&pool.loop(i) == loop) return true;
        }
        return false;
    }

    KeptLoopOptions kept;
    struct Objects {
        const OwnedPool* pool;
        Local<Held> of_thread;
    };
    std::deque<Objects> locals;  // each stays where it is
    OwnedPoolListener* listeners = nullptr;
    bool stopped = false;
    ThreadPool pool;  // first to go: its threads use the rest
};
OwnedPool& cpp(evpl_pool* handle) noexcept { return *reinterpret_cast<OwnedPool*>(handle); }
const OwnedPool& cpp(const evpl_pool* handle) noexcept { return *reinterpret_cast<const OwnedPool*>(handle); }
using evpl::capi::cpp;

bool usable(const OwnedPool& owned) noexcept { return !owned.stopped && home != &owned; }

const Local<Held>& cpp(const evpl_local* handle) noexcept { return reinterpret_cast<const OwnedPool::Objects*>(handle)->of_thread; }
PoolListener& cpp(evpl_pool_listener* handle) noexcept { return reinterpret_cast<OwnedPoolListener*>(handle)->listener; }
const PoolListener& cpp(const evpl_pool_listener* handle) noexcept { return reinterpret_cast<const OwnedPoolListener*>(handle)->listener; }

detail::ConnectionFactory copy_for_thread(void* source) { return factory_of(*static_cast<const Source*>(source)); }

bool make_pool_options(const evpl_pool_options* given, KeptLoopOptions& kept, char (&name)[32], PoolOptions& options) noexcept {
    const evpl_pool_options c = read(given);
    if (!kept.read_from(c.loop) || (c.cpus == nullptr && c.cpu_count != 0)) return false;
    options.threads = c.threads;
    options.pin = c.pin;
    options.cpus = {c.cpus, c.cpu_count};
    options.loop = kept.options;
    options.name = keep(name, c.name, options.name);
    return true;
}

}  // namespace

static_assert(EVPL_SHARE_PORT == int(Spread::share_port) && EVPL_HAND_OUT == int(Spread::hand_out));

extern "C" {

evpl_error evpl_thread_start(const evpl_thread_options* options, evpl_thread** thread) {
    if (thread == nullptr) return misuse;
    *thread = nullptr;
    const evpl_thread_options c = read(options);
    auto* made = new (std::nothrow) OwnedThread;
    if (made == nullptr) return no_memory;
    ThreadOptions wanted;
    const bool fit = made->kept.read_from(c.loop) && c.cpu_plus_one <= INT32_MAX;
    wanted.loop = made->kept.options;
    wanted.cpu = int(c.cpu_plus_one) - 1;
    wanted.name = keep(made->name, c.name, wanted.name);
    auto started = fit ? Thread::start(wanted) : Result<Thread>(from_c(misuse));
    if (!started) {
        delete made;
        return to_c(started.error());
    }
    made->thread = *std::move(started);
    made->thread.post([made] { home = made; });
    *thread = reinterpret_cast<evpl_thread*>(made);
    made->enlist(made);
    return success;
}
evpl_loop* evpl_thread_loop(const evpl_thread* thread) { return thread == nullptr ? nullptr : reinterpret_cast<evpl_loop*>(&cpp(thread).thread.loop()); }
evpl_error evpl_thread_run(evpl_thread* thread, void (*run)(void*), void* context) {
    if (thread == nullptr || run == nullptr || home == thread) return misuse;
    return cpp(thread).thread.run([run, context] { run(context); }) ? success : to_c(Errc::loop_ended);
}
evpl_error evpl_thread_stop(evpl_thread* thread, int64_t drain_ns) {
    if (thread == nullptr) return misuse;
    if (drain_ns > 0) cpp(thread).thread.stop(within(Duration::of_ns(drain_ns)));
    else cpp(thread).thread.stop();
    return success;
}
evpl_error evpl_thread_join(evpl_thread* thread) {
    if (thread == nullptr || home == thread) return misuse;
    cpp(thread).thread.join();
    return success;
}
evpl_error evpl_thread_free(evpl_thread* thread) {
    if (thread == nullptr || home == thread) return misuse;
    auto* const found = Owned::take<OwnedThread>(thread);
    if (found == nullptr) return misuse;
    delete found;
    return success;
}

evpl_error evpl_pool_start(const evpl_pool_options* options, evpl_pool** pool) {
    if (pool == nullptr) return misuse;
    *pool = nullptr;
    KeptLoopOptions kept;
    char name[32] = {};
    PoolOptions wanted;
    if (!make_pool_options(options, kept, name, wanted)) return misuse;
    auto* made = new (std::nothrow) OwnedPool(kept, wanted);
    if (made == nullptr) return no_memory;
    if (!made->pool.error().ok()) {
        const evpl_error error = to_c(made->pool.error());
        delete made;
        return error;
    }
    for (std::uint32_t i = 0; i < made->pool.size(); ++i) made->pool.loop(i).ref().post([made] { home = made; });
    *pool = reinterpret_cast<evpl_pool*>(made);
    made->enlist(made);
    return success;
}
uint32_t evpl_pool_size(const evpl_pool* pool) { return pool == nullptr ? 0 : cpp(pool).pool.size(); }
evpl_loop* evpl_pool_loop(const evpl_pool* pool, uint32_t i) {
    return i >= evpl_pool_size(pool) ? nullptr : reinterpret_cast<evpl_loop*>(&cpp(pool).pool.loop(i));
}
evpl_error evpl_pool_local(evpl_pool* pool, void* (*make)(void*, evpl_loop*), void* context, void (*destroy)(void*), evpl_local** local) {
    if (local == nullptr) return misuse;
    *local = nullptr;
    if (pool == nullptr || make == nullptr || !usable(cpp(pool))) return misuse;
    OwnedPool& owned = cpp(pool);
    try {
        const auto build = [=](Loop& loop) { return Held(make(context, reinterpret_cast<evpl_loop*>(&loop)), destroy); };
        owned.locals.push_back({&owned, owned.pool.local<Held>(build)});
    } catch (...) {
        return no_memory;
    }
    *local = reinterpret_cast<evpl_local*>(&owned.locals.back());
    return success;
}
void* evpl_local_of(const evpl_local* local, const evpl_loop* loop) {
    if (local == nullptr || loop == nullptr) return nullptr;
    if (!reinterpret_cast<const OwnedPool::Objects*>(local)->pool->owns(&cpp(loop))) return nullptr;
    return cpp(local).of(cpp(loop)).object;
}

evpl_error evpl_pool_listen(evpl_pool* pool, const char* url, const evpl_handler* handler, const evpl_factory* factory, void* self, uint32_t spread,
                            evpl_pool_listener** listener) {
    if (listener == nullptr) return misuse;
    *listener = nullptr;
    Source source;
    if (pool == nullptr || url == nullptr || spread > EVPL_HAND_OUT || !usable(cpp(pool))) return misuse;
    if (!make_source(handler, factory, self, source)) return misuse;
    auto* made = new (std::nothrow) OwnedPoolListener;
    source.shared = new (std::nothrow) SharedDrop;
    if (made == nullptr || source.shared == nullptr) {
        delete made;
        delete source.shared;
        if (source.factory.drop != nullptr) source.factory.drop(source.factory.context);
        return no_memory;
    }
    source.shared->drop = source.factory.drop;
    source.shared->context = source.factory.context;
    OwnedPool& owned = cpp(pool);
    auto opened = owned.pool.listen_copies(url, &source, &copy_for_thread, Spread(spread));
    source.shared->unref();
    if (!opened) {
        delete made;
        return to_c(opened.error());
    }
    made->listener = *std::move(opened);
    made->pool = &owned;
    made->next = owned.listeners;
    owned.listeners = made;
    *listener = reinterpret_cast<evpl_pool_listener*>(made);
    made->enlist(made);
    return success;
}
evpl_text evpl_pool_listener_url(const evpl_pool_listener* listener) { return listener == nullptr ? evpl_text{} : to_c(cpp(listener).url()); }
uint16_t evpl_pool_listener_port(const evpl_pool_listener* listener) { return listener == nullptr ? uint16_t(0) : cpp(listener).port(); }
int evpl_pool_listener_hand_over(evpl_pool_listener* listener) { return listener == nullptr ? -1 : cpp(listener).hand_over(); }
evpl_error evpl_pool_listener_free(evpl_pool_listener* listener) {
    if (listener == nullptr) return misuse;
    auto* const found = Owned::take<OwnedPoolListener>(listener);
    if (found == nullptr) return misuse;
    if (home == found->pool) {  // it would wait for itself
        found->enlist(found);
        return misuse;
    }
    for (OwnedPoolListener** at = &found->pool->listeners; *at != nullptr; at = &(*at)->next) {
        if (*at != found) continue;
        *at = found->next;
        break;
    }
    delete found;
    return success;
}
evpl_text evpl_pool_last_failure(const evpl_pool* pool) { return pool == nullptr ? evpl_text{} : to_c(cpp(pool).pool.last_failure()); }
evpl_error evpl_pool_stop(evpl_pool* pool, int64_t drain_ns) {
    if (pool == nullptr || home == pool) return misuse;
    cpp(pool).pool.stop(within(Duration::of_ns(drain_ns)));
    cpp(pool).stopped = true;
    return success;
}
evpl_error evpl_pool_free(evpl_pool* pool) {
    if (pool == nullptr || home == pool) return misuse;
    auto* const found = Owned::take<OwnedPool>(pool);
    if (found == nullptr) return misuse;
    while (found->listeners != nullptr) evpl_pool_listener_free(reinterpret_cast<evpl_pool_listener*>(found->listeners));
    delete found;
    return success;
}

}  // extern "C"
