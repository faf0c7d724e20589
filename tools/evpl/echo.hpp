#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <evpl/connection.hpp>
#include <evpl/datagram.hpp>
#include <evpl/listener.hpp>
#include <evpl/loop.hpp>

namespace tool {

/// Sends back what comes, and takes no more than it can pass on: a peer that does not read is not read from.
struct Echo {
    void on_recv(evpl::Connection& peer) {
        if (peer.caps().kind == evpl::Kind::message) return on_messages(peer);
        peer.send(peer.recv(peer.send_room()));
    }
    void on_writable(evpl::Connection& peer) { on_recv(peer); }

    /// A message goes back whole, so the last one may pass the high-water mark.
    void on_messages(evpl::Connection& peer) {
        while (peer.send_room() > 0) {
            auto message = peer.recv_message();
            if (!message || message->empty()) return;
            peer.send(*std::move(message));
        }
    }
};

/// The same for datagrams: what finds no room is dropped, as datagrams are.
struct EchoPackets {
    void on_recv(evpl::Datagram& socket) {
        while (socket.has_packet()) {
            evpl::Packet packet = socket.recv();
            socket.send_to(packet.from, std::move(packet.bytes));
        }
    }
};

/// One echo endpoint on one loop, of whatever kind its URL asks for. Opened and closed on the loop's thread.
class EchoService {
public:
    /// Errors: those of evpl::listen() and evpl::bind().
    evpl::Result<void> open(evpl::Loop& loop, const std::string& url);
    void close();
    /// As really bound.
    const std::string& url() const { return url_; }

private:
    evpl::Listener listener_;
    evpl::DatagramRef socket_;
    std::string url_;
};

struct EchoOptions {
    std::vector<std::string> listen;
    unsigned threads = 1;
    evpl::Mode mode = evpl::LoopOptions{}.mode;
    std::vector<int> pin;
    double drain_s = 0;
};

/// `evpl echo`: serves until SIGTERM or SIGINT.
int run_echo(const EchoOptions& options);

}  // namespace tool
