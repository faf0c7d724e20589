#include "echo.hpp"

#include <sched.h>
#include <sys/signalfd.h>
#include <unistd.h>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <future>

#include <fmt/format.h>
#include <evpl/thread_pool.hpp>

#include "text.hpp"

namespace tool {

evpl::Result<void> EchoService::open(evpl::Loop& loop, const std::string& url) {
    if (is_datagram(url)) {
        auto socket = evpl::bind(loop, url, EchoPackets{});
        if (!socket) return socket.error();
        socket_ = *socket;
        url_ = socket_.get()->url();
    } else {
        auto listener = evpl::listen<Echo>(loop, url);
        if (!listener) return listener.error();
        listener_ = *std::move(listener);
        url_ = listener_.url();
    }
    return {};
}

void EchoService::close() {
    listener_.close();
    if (evpl::Datagram* socket = socket_.get()) socket->close();
}

namespace {

void announce(std::string_view url) {
    fmt::print("listening on {}\n", url);
    std::fflush(stdout);  // a script that waits for the line may read from a pipe
}

int cannot_listen(const std::string& url, const std::string& why) {
    if (why.starts_with("cannot listen at ")) return fail(why);  // says it all
    return fail(fmt::format("cannot listen on {}: {}", url.empty() ? "\"\"" : url, why));
}

sigset_t ending_signals() {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    return set;
}

/// Ends a loop politely at the first signal, at once at the second.
struct Ending {
    evpl::Loop& loop;
    evpl::Duration drain;
    int fd;
    bool asked = false;

    static void ready(void* self, evpl::Ready) {
        auto& ending = *static_cast<Ending*>(self);
        signalfd_siginfo which;
        if (read(ending.fd, &which, sizeof which) != sizeof which) return;
        if (std::exchange(ending.asked, true)) return ending.loop.stop();
        ending.loop.stop(evpl::within(ending.drain));
    }
};

int run_draining(evpl::Loop& loop, evpl::Duration drain) {
    const sigset_t signals = ending_signals();
    Ending ending{loop, drain, signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC)};
    auto watch = loop.watch(ending.fd, evpl::Ready::read, Ending::ready, &ending);
    if (!watch) return fail("cannot watch for signals: " + text_of(watch.error()));
    const int status = loop.run();
    watch->cancel();
    close(ending.fd);
    return status;
}

int pin_to(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    errno = EINVAL;
    if (cpu < CPU_SETSIZE) CPU_SET(std::size_t(cpu), &set);
    if (sched_setaffinity(0, sizeof set, &set) == 0) return 0;
    return fail(fmt::format("cannot pin to CPU {}: {}", cpu, std::strerror(errno)));
}

/// The loop on this thread: the echo example, plus options.
int serve_here(const EchoOptions& options) {
    if (!options.pin.empty() && pin_to(options.pin.front()) != 0) return exit_failure;
    evpl::LoopOptions loop_options;
    loop_options.mode = options.mode;
    evpl::Loop loop(loop_options);
    std::vector<EchoService> services(options.listen.size());
    for (std::size_t i = 0; i < services.size(); ++i) {
        const auto opened = services[i].open(loop, options.listen[i]);
        if (!opened) return cannot_listen(options.listen[i], reason_of(loop, opened.error()));
    }
    for (const EchoService& service : services) announce(service.url());
    return options.drain_s > 0 ? run_draining(loop, duration_of(options.drain_s)) : loop.run_until_signal();
}

/// Runs `task` on a loop of the pool and waits for it.
template <class F>
void run_on(evpl::Loop& loop, F task) {
    std::promise<void> done;
    if (loop.post([&] { task(loop), done.set_value(); })) done.get_future().wait();
}

/// Connections spread over a pool of threads; each datagram socket has one of them.
int serve_with_pool(const EchoOptions& options) {
    evpl::PoolOptions pool_options;
    pool_options.threads = options.threads;
    pool_options.cpus = options.pin;
    pool_options.loop.mode = options.mode;
    pool_options.name = "evpl-echo";
    evpl::ThreadPool pool(pool_options);
    if (!pool.error().ok()) {
        const std::string pinned = options.pin.empty() ? "" : fmt::format(" pinned to CPU {}", fmt::join(options.pin, ","));
        return fail(fmt::format("cannot start {} threads{}: {}", options.threads, pinned,
                                pool.last_failure().empty() ? text_of(pool.error()) : std::string(pool.last_failure())));
    }

    std::vector<evpl::PoolListener> listeners;
    std::vector<EchoService> sockets(options.listen.size());
    std::vector<std::string> urls;
    for (std::size_t i = 0; i < options.listen.size(); ++i) {
        const std::string& url = options.listen[i];
        std::string failure;
        if (is_datagram(url)) {
            run_on(pool.loop(std::uint32_t(i) % pool.size()), [&](evpl::Loop& loop) {
                const auto opened = sockets[i].open(loop, url);
                if (!opened) failure = reason_of(loop, opened.error());
            });
            urls.push_back(sockets[i].url());
        } else if (auto listener = pool.listen(url, [](evpl::Connection&) { return Echo{}; })) {
            urls.emplace_back(listener->url());
            listeners.push_back(*std::move(listener));
        } else {
            failure = pool.last_failure().empty() ? text_of(listener.error()) : std::string(pool.last_failure());
        }
        if (!failure.empty()) return cannot_listen(url, failure);
    }
    for (const std::string& url : urls) announce(url);
    const sigset_t signals = ending_signals();
    int which = 0;
    sigwait(&signals, &which);
    pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);  // a second signal ends a long drain the hard way
    listeners.clear();
    pool.stop(evpl::within(duration_of(options.drain_s)));
    return 0;
}

}  // namespace

int run_echo(const EchoOptions& options) {
    raise_descriptor_limit();
    // From the start: the threads inherit the mask, and a signal right after "listening on" waits for whoever takes it.
    const sigset_t signals = ending_signals();
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    return options.threads == 1 ? serve_here(options) : serve_with_pool(options);
}

}  // namespace tool
