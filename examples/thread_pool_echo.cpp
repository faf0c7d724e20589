// Echo on several threads; each counts its connections without a lock: thread_pool_echo [URL [THREADS]]
#include <cstdio>
#include <cstdlib>
#include <evpl/evpl.hpp>
using namespace evpl::literals;

struct Count {
    int connections = 0;
    ~Count() { std::printf("a thread served %d connections\n", connections); }
};
struct Echo {
    void on_recv(evpl::Connection& peer) { peer.send(peer.recv(peer.send_room())); }
    void on_writable(evpl::Connection& peer) { on_recv(peer); }
};

int main(int argc, char** argv) {
    evpl::ThreadPool pool{{.threads = argc > 2 ? std::uint32_t(std::atoi(argv[2])) : 2}};
    auto count = pool.local<Count>([](evpl::Loop&) { return Count{}; });  // built and destroyed on its thread
    auto listener = pool.listen(argc > 1 ? argv[1] : "tcp://127.0.0.1:7000",
                                [=](evpl::Connection& peer) { return ++count.of(peer.loop()).connections, Echo{}; });
    if (!listener) return std::fprintf(stderr, "%s\n", pool.last_failure().data()), 1;
    evpl::Loop().run_until_signal();
    pool.stop(evpl::within(5_s));
}
