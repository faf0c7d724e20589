// A descriptor of somebody else in our loop: sends each line of standard input as a datagram, until its end: watch_descriptor URL
#include <unistd.h>
#include <evpl/evpl.hpp>

struct Input {
    evpl::Loop& loop;
    evpl::DatagramRef socket;
    void ready() {
        char text[1024];
        const ssize_t size = read(STDIN_FILENO, text, sizeof text);  // level-triggered: what is left brings us here again
        if (size <= 0) return loop.stop();
        if (evpl::Datagram* to = socket.get()) to->send(std::string_view(text, std::size_t(size))), to->flush();
    }
};

int main(int argc, char** argv) {
    evpl::Loop loop;
    struct Quiet {};
    auto socket = evpl::connect_datagram(loop, argc > 1 ? argv[1] : "udp://127.0.0.1:7000", Quiet{});
    if (!socket) return evpl::complain(loop, socket.error());
    Input input{loop, *socket};
    auto watch = loop.watch(STDIN_FILENO, evpl::Ready::read, [](void* self, evpl::Ready) { static_cast<Input*>(self)->ready(); }, &input);
    return watch ? loop.run() : evpl::complain(loop, watch.error());
}
