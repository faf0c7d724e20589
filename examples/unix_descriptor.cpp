// Opens a file for programs that may not: each client gets a descriptor of it: unix_descriptor URL FILE
#include <fcntl.h>
#include <unistd.h>
#include <evpl/evpl.hpp>

struct Doorman {
    const char* path;
    void on_open(evpl::Connection& peer) {
        const int fd = open(path, O_RDONLY | O_CLOEXEC);
        auto note = peer.loop().copy("here it is");
        // The connection sends a duplicate, so ours can be closed at once.
        if (fd < 0 || !note || !peer.send_descriptor(fd, evpl::Chain(*std::move(note)))) peer.send("not today");
        if (fd >= 0) close(fd);
        peer.shutdown();
    }
};

int main(int argc, char** argv) {
    evpl::Loop loop;
    if (argc < 3) return 2;
    auto listener = evpl::listen<Doorman>(loop, argv[1], argv[2]);
    return listener ? loop.run_until_signal() : evpl::complain(loop, listener.error());
}
