// Echoes whole messages on a byte stream; four bytes in front of each tell its size: framed_echo [URL]
#include <evpl/evpl.hpp>

struct Echo {
    static evpl::Frame frame(std::span<const std::byte> head) {  // asked with what is there of the next message
        std::uint32_t size = 0;
        if (head.size() < 4) return {};
        for (const std::byte b : head.first(4)) size = size << 8 | std::uint32_t(b);
        if (size > 1u << 20) return {.bad = true};  // ends the connection with bad_frame
        return {.size_bytes = 4 + size};
    }
    void on_recv(evpl::Connection& peer) {
        while (peer.send_room() > 0) {
            auto message = peer.recv_message();
            if (!message || message->empty()) break;
            peer.send(*std::move(message));
        }
    }
    void on_writable(evpl::Connection& peer) { on_recv(peer); }
};
int main(int argc, char** argv) {
    evpl::Loop loop;
    auto listener = evpl::listen<Echo>(loop, argc > 1 ? argv[1] : "tcp://127.0.0.1:7000");
    return !listener ? evpl::complain(loop, listener.error()) : loop.run_until_signal();
}
