// Sends back each datagram, as a coroutine: co_udp_echo [URL]
#include <evpl/co.hpp>

namespace co = evpl::co;

co::Task<> echo(co::Datagrams& socket) {
    while (auto packet = co_await socket.recv_from())
        (void)co_await socket.send_to(packet->from, std::move(packet->bytes));  // what cannot be sent is lost, as datagrams are
}

int main(int argc, char** argv) {
    evpl::Loop loop;
    auto socket = co::bind(loop, argc > 1 ? argv[1] : "udp://127.0.0.1:7000");
    if (!socket) return evpl::complain(loop, socket.error());
    co::spawn(echo(*socket), [](auto) {});
    return loop.run_until_signal();
}
