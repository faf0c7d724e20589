#pragma once

// The library at work, and a record of all it calls back with.

#include <netinet/in.h>

#include <cstdint>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "transport/xlio/table.hpp"

namespace probe {

namespace abi = evpl::transport::xlio::abi;

/// One callback.
struct Call {
    enum What { event, completion, received, accepted };
    What what;
    abi::Socket socket;
    std::uintptr_t userdata;
    std::uintptr_t value;  ///< the event's number; the operation; the number of bytes; the listener
    int error = 0;         ///< an event's value
    bool in_poll = false;
};

class Field {
public:
    /// Where the library asked for memory, and what it said of it.
    struct Block {
        std::byte* base = nullptr;
        std::size_t bytes = 0;
        unsigned asked = 0;
    };

    Field(const abi::Calls& its, const sockaddr_in& echo_server) : calls(its), peer(echo_server) { here = this; }

    /// 0, or errno.
    int start();
    abi::Group make_group(bool accepts = true);
    void forget(abi::Socket socket);
    abi::Socket make_socket(abi::Group of, std::uintptr_t userdata);
    int connect(abi::Socket socket, const sockaddr_in& to);

    /// Polls until `done()` or for `limit_ms`.
    template <class Done>
    bool poll_until(abi::Group of, Done done, int limit_ms = 2000) {
        for (const std::int64_t until = now_ms() + limit_ms; !done();) {
            if (now_ms() > until) return false;
            poll(of);
        }
        return true;
    }
    void poll(abi::Group of);
    unsigned count(Call::What what, abi::Socket socket, std::uintptr_t value) const;
    bool has_event(abi::Socket socket, int event) const { return count(Call::event, socket, std::uintptr_t(event)) > 0; }
    const Call* find_event(abi::Socket socket, int event) const;
    std::string bytes_of(abi::Socket socket) const;

    static std::int64_t now_ms();

    const abi::Calls& calls;
    const sockaddr_in peer;
    Block block, registered;
    abi::Group group = 0;
    abi::Socket link = 0;  ///< to the echo server, while it is open
    std::uintptr_t next_userdata = 1;
    std::deque<Call> record;  ///< grows while what was found in it is looked at
    std::vector<std::pair<abi::Socket, std::string>> received_bytes;
    abi::Buf* held = nullptr;  ///< the buffer that is not given back at once
    bool hold_next = false;
    bool outside_block = false;  ///< bytes came from elsewhere
    bool polling = false;
    static Field* here;
};

}  // namespace probe
