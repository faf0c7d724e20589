// One direction of an inproc pipe: entries of all sizes around a small ring, with the bells of both sides.
#include <cstring>

#include "scenarios.hpp"
#include "transport/inproc/channel.hpp"

namespace evpl::race {
namespace {

using transport::inproc::Mark;
using transport::inproc::NoBody;
using transport::inproc::Ring;
using transport::inproc::What;

constexpr unsigned sizes[] = {40, 352, 112, 113, 232, 0, 300};

struct World {
    Ring ring;
    Bedside writer_bed, reader_bed;

    /// As a port does: bytes, then the mark, then the peer's bell; without room a notice, and sleep.
    void write(int first, int last) {
        std::byte payload[Ring::inline_bytes_most];
        for (int i = first; i < last; ++i) {
            const unsigned size = sizes[unsigned(i) % std::size(sizes)];
            while (!ring.has_room(Ring::entry_units_most)) {
                if (ring.ask_notice()) reader_bed.bell.ring();
                writer_bed.sleep_while([&] { return !ring.may_go_on(); });
            }
            std::memset(payload, i + 1, sizeof payload);
            ring.put(0, payload, size);
            ring.publish(What::bytes, size, nullptr, std::uint32_t(i));
            reader_bed.bell.ring();
        }
    }
    void read(int first, int last) {
        std::byte payload[Ring::inline_bytes_most];
        for (int i = first; i < last;) {
            const Mark mark = ring.peek();
            if (!mark) {
                ring.free_passed();
                reader_bed.sleep_while([&] { return !ring.peek(); });
                continue;
            }
            if (mark.what() == What::notice) {
                ring.pass(1);
                ring.free_passed();
                writer_bed.bell.ring();
                continue;
            }
            require(mark.what() == What::bytes && mark.generation() == std::uint32_t(i), "entries come in order, each once");
            require(mark.size() == sizes[unsigned(i) % std::size(sizes)], "with the size they were written with");
            ring.copy_out(payload, mark.size());
            for (unsigned k = 0; k < mark.size(); ++k) require(payload[k] == std::byte(i + 1), "with the bytes they were written with");
            ring.pass(Ring::units_for(mark.size()));
            if (ring.passed() >= Ring::units / 4) ring.free_passed();
            ++i;
        }
        ring.free_passed();
    }
};

void fits() {
    World world;
    run({[&] { world.write(0, 2); }, [&] { world.read(0, 2); }});
}
void goes_round() {
    World world;
    run({[&] { world.write(0, 12); }, [&] { world.read(0, 12); }});
}

}  // namespace

std::initializer_list<Scenario> ring_scenarios() {
    static const std::initializer_list<Scenario> all = {
        {"ring_fits", &fits, {3, 2}},
        {"ring_goes_round", &goes_round, {2, 1}},
    };
    return all;
}

}  // namespace evpl::race
