#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>

#include "evpl/listener.hpp"
#include "evpl/loop.hpp"
#include "evpl/thread.hpp"

#pragma GCC visibility push(default)
namespace evpl {

class ThreadPool;

/// How a pool's listener spreads connections over the threads.
enum class Spread : std::uint8_t {
    automatic,   ///< share_port where the transport can (tcp, udp; not with `?fd=`), else hand_out
    share_port,  ///< one listener per thread on the same port (SO_REUSEPORT): the kernel spreads by connection hash
    hand_out     ///< one listener; connections go to the threads in turn, before their link opens
};

/// How a pool works. `threads` and `pin`, when not given, take the process's settings `pool.threads` and `pool.pin` (config.hpp).
struct PoolOptions {
    /// 0, which is built in: one per CPU this process may use
    std::uint32_t threads = std::uint32_t(detail::configured(detail::Known::pool_threads));
    /// pin thread i to the i-th CPU this process may use; built in: no
    bool pin = detail::configured(detail::Known::pool_pin) != 0;
    std::span<const int> cpus = {};  ///< or to these, in turn
    LoopOptions loop = {};           ///< of each thread; its name is the thread's
    const char* name = "evpl";       ///< threads are called "name-0", ...
};

/// One object per thread of a pool, built and destroyed on that thread.
template <class T>
class Local {
public:
    /// The object of the thread that runs `loop`. A loop of another pool is misuse and stops the program.
    T& of(const Loop& loop) const;

private:
    friend class ThreadPool;
    Local(ThreadPool* pool, std::uint32_t index) noexcept : pool_(pool), index_(index) {}
    ThreadPool* pool_;
    std::uint32_t index_;
};

/// Listeners of a pool; dropping it stops accepting on all threads. Must not outlive the pool.
class PoolListener {
public:
    PoolListener() noexcept = default;
    /// Moving leaves the other empty. Errors: none.
    PoolListener(PoolListener&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
    /// Ends what this one holds, then takes over what the other does.
    PoolListener& operator=(PoolListener&& other) noexcept {
        if (this != &other) {
            close();
            state_ = std::exchange(other.state_, nullptr);
        }
        return *this;
    }
    ~PoolListener() { close(); }
    /// As really bound. Valid while it lives.
    std::string_view url() const noexcept;
    /// The port really bound, 0 where there is none.
    std::uint16_t port() const noexcept;
    /// As Listener::hand_over; -1 also where each thread has a socket of its own (Spread::share_port).
    int hand_over() noexcept;
    /// Stops accepting on all threads; connections stay. A second call does nothing.
    void close() noexcept;

private:
    friend class ThreadPool;
    struct State;
    State* state_ = nullptr;
};

/// Threads that run loops, with per-thread state and listeners over all of them. Owned and called by one thread.
class ThreadPool {
public:
    /// Starts the threads. A pool that could not start answers everything with error() and has no threads.
    explicit ThreadPool(const PoolOptions& options = {}) noexcept;
    /// stop() with no drain.
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    /// Why it did not start: bad_option, out_of_memory, too_many_files; ok when it runs.
    Error error() const noexcept;
    /// How many threads it has; 0 when it did not start.
    std::uint32_t size() const noexcept;
    /// Loop i; only post(), stop() and ref() from other threads.
    Loop& loop(std::uint32_t i) const noexcept;

    /// Builds `make(loop)` on every thread and returns when all are there. They are destroyed on their threads, in reverse order of
    /// making, when the pool stops, after the last connection's on_close.
    template <class T, class F>
    Local<T> local(F make) {
        struct Maker {
            F make;
        } maker{std::move(make)};
        const std::uint32_t index = add_local(
            &maker, [](void* context, Loop& loop) -> void* { return new T(static_cast<Maker*>(context)->make(loop)); },
            [](void* object) { delete static_cast<T*>(object); });
        return Local<T>(this, index);
    }

    /// Listens on every thread (see Spread). `factory(Connection&)` runs on the accepting threads, concurrently.
    /// Errors: as evpl::listen(), not_supported (Spread::share_port with `?fd=`, which is one socket).
    template <class F>
    Result<PoolListener> listen(std::string_view url, F factory, Spread spread = Spread::automatic) {
        Source source{&factory, [](void* f) { return detail::factory_of<HandlerTable, Connection>(F(*static_cast<F*>(f))); }};
        return listen_source(url, source, spread);
    }

    /// The same for handlers that are no C++ type (other languages): `copy(context)` makes the factory of one thread, on that thread.
    Result<PoolListener> listen_copies(std::string_view url, void* context, detail::ConnectionFactory (*copy)(void* context),
                                       Spread spread = Spread::automatic) noexcept {
        return listen_source(url, Source{context, copy}, spread);
    }

    /// One sentence about the last listen that failed.
    std::string_view last_failure() const noexcept;

    /// Stops accepting, drains up to the limit, closes what is left, joins. Idempotent.
    void stop(Limit drain = within(Duration{})) noexcept;

private:
    template <class T>
    friend class Local;
    friend class PoolListener;
    struct Source {
        void* context;
        detail::ConnectionFactory (*copy)(void* context);  // one per thread
    };
    std::uint32_t add_local(void* context, void* (*make)(void*, Loop&), void (*destroy)(void*));
    void* local_of(std::uint32_t index, const Loop& loop) const;
    Result<PoolListener> listen_source(std::string_view url, Source source, Spread spread) noexcept;
    void drop(PoolListener::State* listener) noexcept;

    struct State;
    State* state_ = nullptr;
};

template <class T>
T& Local<T>::of(const Loop& loop) const {
    return *static_cast<T*>(pool_->local_of(index_, loop));
}

}  // namespace evpl
#pragma GCC visibility pop
