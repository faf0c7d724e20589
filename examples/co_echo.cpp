// Sends back what comes, as a coroutine per connection: co_echo [URL]
#include <evpl/co.hpp>

namespace co = evpl::co;
using namespace evpl::literals;

co::Task<> echo(co::Stream peer) {
    while (auto bytes = co_await peer.recv(co::within(30_s)))
        if (!co_await peer.send(*std::move(bytes))) break;
}

int main(int argc, char** argv) {
    evpl::Loop loop;
    auto listener = co::serve(loop, argc > 1 ? argv[1] : "tcp://127.0.0.1:7000", echo);
    if (!listener) return evpl::complain(loop, listener.error());
    return loop.run_until_signal();
}
