#pragma once

#include <sys/stat.h>

#include "transport/common/sockets/options.hpp"
#include "transport/common/sockets/port.hpp"

namespace evpl::transport::socket {

struct AcceptShot;

/// A listening socket: takes peers, hands them out or over, and waits when the process is out of descriptors.
class SocketListening final : public Listening, public Watcher {
public:
    SocketListening(SocketPort& owner, Flavor kind, const Options& settings) noexcept : flavor(kind), options(settings) { port = &owner; }

    std::string_view url() const noexcept override { return url_text; }
    std::uint16_t port_number() const noexcept override { return number; }
    void pause() noexcept override;
    void resume() noexcept override;
    int hand_over() noexcept override;
    void close() noexcept override;
    std::uint32_t ready(std::uint32_t events) override;

    /// Something was freed, or time has passed.
    void retry() noexcept;
    bool arm() noexcept;
    /// A peer was accepted. False: no more now.
    bool take_peer(int peer_fd, const Address& peer);
    /// accept(2) failed with `error`. True: try again.
    bool accept_failed(int error);

    int fd = -1;
    Flavor flavor;
    Options options;
    char url_text[200] = {};
    std::uint16_t number = 0;
    char path[108] = {};  // unix: the file to remove
    dev_t device = 0;
    ino_t inode = 0;
    bool armed = false;
    bool handed_over = false;  ///< others listen at the same socket
    bool paused_by_owner = false;
    bool waiting = false;                     // in the port's list, for descriptors or memory
    SocketListening* next_waiting = nullptr;  // of those that wait, or of the closed ones
    AcceptShot* shot = nullptr;               ///< of a port that is driven by completions

private:
    SocketPort& socket_port() noexcept { return *static_cast<SocketPort*>(port); }
    bool accept_one();
    void wait_for_resources(Error why);
    void unlist() noexcept;
    void disarm() noexcept;
    void remove_file() noexcept;
};

}  // namespace evpl::transport::socket
