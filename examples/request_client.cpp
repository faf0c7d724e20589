// Asks one question per argument, and waits half a second for the line that answers it: request_client URL TEXT...
#include <cstdio>
#include <string>
#include <evpl/evpl.hpp>
using namespace evpl::literals;
struct Client {
    char** question;
    std::string answer = {};
    int status = 0;
    void on_open(evpl::Connection& server) {
        if (*question == nullptr) return server.shutdown();
        server.send(std::string(*question++) + '\n'), server.deadline_recv(500_ms);
    }
    void on_recv(evpl::Connection& server) {
        for (const evpl::Buffer& slice : server.recv()) answer.append(reinterpret_cast<const char*>(slice.data()), slice.size());
        if (answer.ends_with('\n')) std::fputs(answer.c_str(), stdout), answer.clear(), on_open(server);
    }
    void on_close(evpl::Connection& server, evpl::Error why) { status = why == evpl::Errc::end ? 0 : evpl::complain(server.loop(), why); }
};
int main(int argc, char** argv) {
    Client client{argv + (argc > 1 ? 2 : 1)};
    evpl::Loop loop;
    auto server = evpl::connect(loop, argc > 1 ? argv[1] : "tcp://127.0.0.1:7000", client, evpl::within(3_s));
    return !server ? evpl::complain(loop, server.error()) : loop.run_until_idle() != 0 || client.status != 0;
}
