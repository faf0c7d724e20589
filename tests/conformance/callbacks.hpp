#pragma once

#include "support/world.hpp"

namespace evpl::test {

/// The callback of a server in which a test acts.
enum class From { open, recv, writable, sent, end };
inline constexpr const char* from_names[] = {"on_open", "on_recv", "on_writable", "on_sent", "on_end"};

/// `act` runs in that callback of `server`, and each of the two does what leads there. `to_client` outlives both.
template <class F>
void act_in(From from, Peer& server, PlainPeer& client, Pump& to_client, F act) {
    if (from == From::open) server.when_open = act;
    if (from == From::recv) server.when_recv = act;
    if (from == From::writable) server.when_writable = act;
    if (from == From::sent) server.when_sent = [act](Connection& c, std::size_t) { act(c); };
    if (from == From::end) server.when_end = act;
    if (from == From::writable || from == From::sent) server.when_open = std::ref(to_client);
    client.when_open = [from](Connection& c) {
        if (from == From::recv) c.send("x");
        if (from == From::end) c.shutdown();
    };
}

}  // namespace evpl::test
