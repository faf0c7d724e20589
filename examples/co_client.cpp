// Sends a text, prints what comes back, and waits no longer than three seconds, as a coroutine: co_client [URL [TEXT]]
#include <cstdio>
#include <evpl/co.hpp>

namespace co = evpl::co;
using namespace evpl::literals;

co::Task<int> ask(evpl::Loop& loop, const char* url, std::string_view text) {
    auto peer = co_await co::connect(loop, url, co::within(3_s));
    if (!peer) co_return evpl::complain(loop, peer.error());
    if (!co_await peer->send(text)) co_return 1;
    auto answer = co_await peer->recv_exactly(std::uint32_t(text.size()), co::within(3_s));
    if (!answer) co_return evpl::complain(loop, answer.error());
    for (const evpl::Buffer& slice : *answer) std::fwrite(slice.data(), 1, slice.size(), stdout);
    std::puts("");
    co_return 0;
}

int main(int argc, char** argv) {
    const char* url = argc > 1 ? argv[1] : "tcp://127.0.0.1:7000";
    return co::run([&](evpl::Loop& loop) { return ask(loop, url, argc > 2 ? argv[2] : "hello"); });
}
