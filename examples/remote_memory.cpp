// One end exposes memory, the other reads, writes and reads it without the owner's program being asked.
#include <cstdio>
#include <evpl/evpl.hpp>
struct Owner {
    void on_open(evpl::Connection& guest) {
        auto memory = guest.loop().copy("written by the owner");
        const auto region = memory ? guest.expose(*std::move(memory), evpl::Access::read_write) : memory.error();
        if (region) guest.send(std::as_bytes(std::span(&*region, 1)));  // plain: address, key and size
    }
};
struct Guest {
    int step = 0; evpl::RemoteRegion there = {};
    void next(evpl::Connection& owner) {
        auto buffer = step == 1 ? owner.loop().copy("guest") : owner.loop().allocate(std::uint32_t(there.size_bytes));
        if (step++ == 3 || !buffer) return owner.loop().stop();
        (void)(step == 2 ? owner.write(there, 15, *std::move(buffer)) : owner.read(there, 0, *std::move(buffer)));
    }
    void on_recv(evpl::Connection& owner) { owner.recv().copy_to(std::as_writable_bytes(std::span(&there, 1))), next(owner); }
    void on_completed(evpl::Connection& owner, evpl::Completion& done) {
        std::printf("%.*s\n", int(done.buffer.size()), reinterpret_cast<const char*>(done.buffer.data())), next(owner); } };
int main() {
    evpl::Loop loop;
    const auto listener = evpl::listen<Owner>(loop, "inproc://memory");
    return listener && evpl::connect<Guest>(loop, "inproc://memory") ? loop.run() : evpl::complain(loop, evpl::Errc::refused);
}
