// Joins a group on the interface with an address, greets it, and prints what its members say: multicast [GROUP [PORT [INTERFACE]]]
#include <cstdio>
#include <cstdlib>
#include <string>
#include <evpl/evpl.hpp>
struct Member {
    void on_recv(evpl::Datagram& socket) {
        while (socket.has_packet()) {
            const evpl::Packet packet = socket.recv();
            std::printf("%.*s\n", int(packet.bytes.size()), reinterpret_cast<const char*>(packet.bytes.data()));
            std::fflush(stdout);
        }
    }
};
int main(int argc, char** argv) {
    const std::string port = argc > 2 ? argv[2] : "7001", interface = argc > 3 ? argv[3] : "127.0.0.1";
    const auto group = evpl::Address::parse(argc > 1 ? argv[1] : "239.255.7.1", std::uint16_t(std::atoi(port.c_str())));
    const auto here = evpl::Address::parse(interface, 0);
    evpl::Loop loop;
    auto socket = evpl::bind(loop, "udp://0.0.0.0:" + port + "?reuseport&interface=" + interface, Member{});
    if (!socket || !group || !here) return evpl::complain(loop, socket ? evpl::Errc::bad_endpoint : socket.error());
    if (const auto joined = socket->get()->join(*group, *here); !joined) return evpl::complain(loop, joined.error());
    const std::string_view hello = "hello";
    return socket->get()->send_to(*group, std::as_bytes(std::span(hello))) ? loop.run_until_signal() : 1;
}
