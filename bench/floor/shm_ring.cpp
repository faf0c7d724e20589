// 64-byte messages there and back through two rings in shared memory between two pinned threads
// that only poll: what inproc may cost at best. The clock read (about 30 ns) is included.
//   shm_ring [--seconds S]
#include <sys/mman.h>

#include <new>
#include <thread>

#include "pingpong.hpp"

struct Rings {
    Ring there, back;
};

int main(int argc, char** argv) {
    void* memory = mmap(nullptr, sizeof(Rings), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return perror("mmap"), 1;
    Rings& rings = *new (memory) Rings;
    std::thread echo([&] {
        pin_to(0);
        for (Message message;;) {
            while (!rings.there.pop(message)) {}
            rings.back.push(message);
            if (message.words[0] == 0) return;
        }
    });
    pin_to(1);
    Message message{{1}};
    const auto round_trip = [&] {
        rings.there.push(message);
        while (!rings.back.pop(message)) {}
    };
    measure("shm_ring", seconds_from(argc, argv), round_trip);
    message.words[0] = 0;
    round_trip();
    echo.join();
}
