// Words go to a thread that writes them large, and come back to be printed: inproc_pipeline WORD...
#include <cstdio>
#include <evpl/evpl.hpp>
struct Source { void on_open(evpl::Connection& to) { for (; *++word != nullptr; to.send("\n")) to.send(*word); to.shutdown(); } char** word; };
struct Enlarge {
    evpl::ConnectionRef next;  // the bytes are changed in place and handed on: no copy
    void on_recv(evpl::Connection& from) {
        evpl::Chain bytes = from.recv();
        for (const auto& slice : bytes) for (std::byte& c : slice.bytes()) c = std::byte(int(c) >= 'a' && int(c) <= 'z' ? int(c) - 32 : int(c));
        if (evpl::Connection* to = next.get()) to->send(std::move(bytes));
    }
    void on_close(evpl::Connection&, evpl::Error) { if (evpl::Connection* to = next.get()) to->shutdown(); }
};
struct Print {
    void on_recv(evpl::Connection& from) { for (const auto& slice : from.recv()) std::fwrite(slice.data(), 1, slice.size(), stdout); }
    void on_close(evpl::Connection& from, evpl::Error) { from.loop().stop(); }
};
int main(int, char** argv) {
    evpl::Loop loop; evpl::ThreadPool pool{{.threads = 1}};
    auto print = evpl::listen<Print>(loop, "inproc://print");
    auto large = pool.listen("inproc://enlarge", [](evpl::Connection& from) {
        const auto to = evpl::connect<Enlarge>(from.loop(), "inproc://print");
        return Enlarge{to ? *to : evpl::ConnectionRef()}; });
    return print && large && evpl::connect(loop, "inproc://enlarge", Source{argv}) ? loop.run() : evpl::complain(loop, evpl::Errc::refused);
}
