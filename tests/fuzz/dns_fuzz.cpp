// Goal: whatever a name server answers, a connect by name ends once with a name, in time. Method: the input is sent back to each question
// under the question's own id; after a first byte of zero the question stays in it, and two bytes say how many records it claims.
#include <fcntl.h>
#include <sys/socket.h>

#include <cstdint>
#include <cstring>
#include <string>

#include "evpl/evpl.hpp"
#include "fuzz/require.hpp"
#include "support/sockets.hpp"

namespace {

using namespace evpl;
using namespace evpl::literals;

using fuzz::require;

struct Client {
    int closes = 0;
    Error ended;
    void on_open(Connection& peer) { peer.close(); }
    void on_close(Connection&, Error why) {
        ++closes;
        ended = why;
    }
};

/// Answers every question that waits with the input.
void answer(int server, const std::uint8_t* data, std::size_t size) {
    unsigned char question[600];
    sockaddr_in from{};
    socklen_t from_size = sizeof from;
    ssize_t n;
    while ((n = recvfrom(server, question, sizeof question, MSG_DONTWAIT, reinterpret_cast<sockaddr*>(&from), &from_size)) >= 12) {
        std::string made(question, question + 2);  // the id, or nobody would look at the rest
        if (size > 0 && data[0] == 0) {
            made.assign(question, question + n);
            made[2] = char(0x80 | made[2]);
            if (size > 2) made[7] = char(data[1]), made[9] = char(data[2]);  // claimed answers and authorities
            if (size > 3) made.append(reinterpret_cast<const char*>(data) + 3, size - 3);
        } else if (size > 1) {
            made.append(reinterpret_cast<const char*>(data) + 1, size - 1);
        }
        sendto(server, made.data(), made.size(), 0, reinterpret_cast<const sockaddr*>(&from), from_size);
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size > 1400) return 0;
    const test::Fd server(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const sockaddr_in any = test::loopback(0);
    require(server && ::bind(server.get(), reinterpret_cast<const sockaddr*>(&any), sizeof any) == 0);
    const std::string servers = "127.0.0.1:" + std::to_string(test::port_of(server.get()));
    Client client;
    {
        Loop loop({.mode = Mode::event, .dns_servers = servers.c_str()});
        // Port 9 of wherever the answer leads to; nothing waits longer than this.
        const auto started = connect(loop, "tcp://a.name.example:9", client, within(20_ms));
        require(started.ok());
        while (client.closes == 0) {
            loop.run_once(1_ms);
            answer(server.get(), data, size);
        }
    }
    require(client.closes == 1 && !client.ended.ok());
    return 0;
}
