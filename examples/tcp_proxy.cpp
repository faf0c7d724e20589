// Passes bytes both ways, each way only as fast as its reader takes them: tcp_proxy LISTEN TARGET
#include <evpl/evpl.hpp>
struct Side {
    evpl::ConnectionRef other;
    void on_recv(evpl::Connection& from) {
        if (evpl::Connection* to = other.get()) to->send(from.recv(to->send_room()));  // unread bytes stop the sender
    }
    void on_writable(evpl::Connection& to) { if (evpl::Connection* from = other.get()) to.send(from->recv(to.send_room())); }
    void on_end(evpl::Connection&) {  // all of one direction has passed
        if (evpl::Connection* to = other.get()) to->shutdown();
    }
    void on_close(evpl::Connection&, evpl::Error why) {
        if (evpl::Connection* to = other.get(); to && !(why == evpl::Errc::end)) to->close(why);
    }
};
int main(int argc, char** argv) {
    evpl::Loop loop;
    const auto proxy = [&](evpl::Connection& peer) -> evpl::Result<Side> {
        auto target = evpl::connect(loop, argc > 2 ? argv[2] : "tcp://127.0.0.1:7001", Side{peer.ref()}, evpl::within(evpl::Duration::of_ns(3'000'000'000)));
        return target ? evpl::Result<Side>(Side{*target}) : target.error();
    };
    auto listener = evpl::listen(loop, argc > 1 ? argv[1] : "tcp://127.0.0.1:7000", proxy);
    return listener ? loop.run_until_signal() : evpl::complain(loop, listener.error());
}
