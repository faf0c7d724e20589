// Passes bytes both ways, a coroutine each way, only as fast as its reader takes them: co_proxy LISTEN TARGET
#include <evpl/co.hpp>

namespace co = evpl::co;
using namespace evpl::literals;

co::Task<> pass(co::Stream& from, co::Stream& to) {
    for (;;) {
        auto bytes = co_await from.recv();  // what is not received stops the sender
        if (!bytes) co_return bytes.error() == evpl::Errc::end ? to.shutdown() : to.close();
        if (!co_await to.send(*std::move(bytes))) co_return from.close();
    }
}
co::Task<> session(evpl::Loop& loop, const char* url, co::Stream client) {
    auto target = co_await co::connect(loop, url, co::within(3_s));
    if (target) co_await co::when_all(pass(client, *target), pass(*target, client));
}
int main(int argc, char** argv) {
    const char* target = argc > 2 ? argv[2] : "tcp://127.0.0.1:7001";
    evpl::Loop loop;
    const auto serve = [&](co::Stream peer) { return session(loop, target, std::move(peer)); };
    auto listener = co::serve(loop, argc > 1 ? argv[1] : "tcp://127.0.0.1:7000", serve);
    return listener ? loop.run_until_signal() : evpl::complain(loop, listener.error());
}
