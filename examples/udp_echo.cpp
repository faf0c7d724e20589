// Sends each datagram back to whoever sent it: udp_echo [URL]
#include <evpl/evpl.hpp>

struct Echo {
    void on_recv(evpl::Datagram& socket) {
        while (socket.has_packet()) {
            evpl::Packet packet = socket.recv();
            socket.send_to(packet.from, std::move(packet.bytes));  // no room: dropped, as datagrams are
        }
    }
};

int main(int argc, char** argv) {
    evpl::Loop loop;
    auto socket = evpl::bind(loop, argc > 1 ? argv[1] : "udp://127.0.0.1:7000", Echo{});
    if (!socket) return evpl::complain(loop, socket.error());
    return loop.run_until_signal();
}
