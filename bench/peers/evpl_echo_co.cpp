// TCP echo on the library's coroutines, in event mode, the twin of evpl_echo.cpp: evpl_echo_co --port N
#include <evpl/co.hpp>

#include <cstdio>
#include <cstring>
#include <string>

namespace co = evpl::co;

co::Task<> echo(co::Stream peer) {
    while (auto bytes = co_await peer.recv())
        if (!co_await peer.send(*std::move(bytes))) break;
}

int main(int argc, char** argv) {
    if (argc != 3 || std::strcmp(argv[1], "--port") != 0) return 2;
    evpl::Loop loop{{.mode = evpl::Mode::event}};
    auto listener = co::serve(loop, std::string("tcp://127.0.0.1:") + argv[2], echo);
    if (!listener) return evpl::complain(loop, listener.error());
    std::printf("listening on tcp://127.0.0.1:%s\n", argv[2]), std::fflush(stdout);
    return loop.run_until_signal();
}
