// What one says the others hear; who reads too slowly misses messages and is told so, and nobody waits for him: chat [URL]
#include <string>
#include <vector>
#include <evpl/evpl.hpp>
struct Member {
    std::vector<Member*>& room;
    evpl::Connection& peer;
    int missed = 0;
    Member(std::vector<Member*>& all, evpl::Connection& who) : room(all), peer(who) { room.push_back(this); }
    ~Member() { std::erase(room, this); }
    void on_recv(evpl::Connection&) {
        const evpl::Chain text = peer.recv();
        for (Member* other : room) {
            evpl::Chain copy = text.share();  // of the slices, not of the bytes
            if (other != this && !other->peer.try_send(copy)) ++other->missed;
        }
    }
    void on_writable(evpl::Connection&) { peer.send("[you missed " + std::to_string(std::exchange(missed, 0)) + "]\n"); }
};
int main(int argc, char** argv) {
    std::vector<Member*> room;
    evpl::Loop loop;
    auto listener = evpl::listen<Member>(loop, argc > 1 ? argv[1] : "tcp://127.0.0.1:7000", std::ref(room));
    return listener ? loop.run_until_signal() : evpl::complain(loop, listener.error());
}
