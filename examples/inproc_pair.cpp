// Two ends in one process, without the kernel in between: one asks, the other answers.
#include <cstdio>
#include <evpl/evpl.hpp>

void print(const char* who, const evpl::Chain& bytes) {
    for (const evpl::Buffer& slice : bytes)
        std::printf("%s got \"%.*s\"\n", who, int(slice.size()), reinterpret_cast<const char*>(slice.data()));
}
struct Server {
    void on_recv(evpl::Connection& peer) { print("server", peer.recv()), peer.send("fine, thanks"); }
};
struct Client {
    void on_open(evpl::Connection& peer) { peer.send("how are you?"); }
    void on_recv(evpl::Connection& peer) { print("client", peer.recv()), peer.close(); }
    void on_close(evpl::Connection& peer, evpl::Error) { peer.loop().stop(); }
};

int main() {
    evpl::Loop loop;
    auto listener = evpl::listen<Server>(loop, "inproc://pair");
    if (!listener) return evpl::complain(loop, listener.error());
    auto client = evpl::connect<Client>(loop, "inproc://pair");
    return client ? loop.run() : evpl::complain(loop, client.error());
}
