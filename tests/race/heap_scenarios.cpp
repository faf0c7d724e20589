// Blocks that travel between loops, come home, and outlive the loops they belong to.
#include <cstring>
#include <utility>

#include "evpl/parcel.hpp"
#include "scenarios.hpp"

namespace evpl::race {
namespace {

using memory::Heap;

constexpr std::uint32_t whole_slab = memory::block_bytes_max;  // one block for each slab: who allocates again gets the same one

void must(bool condition) { require(condition, "there is memory"); }

/// A heap, entered as its loop would.
Heap* enter_new_heap() {
    Heap* heap = Heap::create(memory::slab_bytes);
    must(heap != nullptr);
    Heap::set_current(heap);
    return heap;
}
void end(Heap* heap) {
    Heap::set_current(heap);
    heap->flush_departures();
    Heap::set_current(nullptr);
    heap->retire();
}

Buffer fresh(Heap& heap, std::uint32_t size) {
    auto made = heap.allocate(size);
    must(made.ok());
    return *std::move(made);
}
Parcel packed(Buffer&& buffer) {
    Parcel parcel = std::move(buffer).pack();
    must(bool(parcel));
    return parcel;
}
Buffer opened(Parcel&& parcel) {
    // As Parcel::open does, which wants a loop.
    struct Shape {
        std::byte* data;
        detail::Block* block;
        std::uint32_t size;
    };
    static_assert(sizeof(Shape) == sizeof(Parcel));
    Shape shape;
    std::memcpy(static_cast<void*>(&shape), static_cast<void*>(&parcel), sizeof shape);
    new (&parcel) Parcel;
    return BufferAccess::adopt(shape.block, shape.data, shape.size);
}
void write(Buffer& buffer, int value) { std::memset(buffer.data(), value, 16); }
void read(const Buffer& buffer, int value) {
    require(buffer.data()[0] == std::byte(value) && buffer.data()[15] == std::byte(value), "the bytes are those that were packed");
}

/// A block read on another thread comes home and is written anew: after the reader has let go, not before.
void comes_home(bool through_a_loop) {
    Heap* const heap = enter_new_heap();
    Buffer buffer = fresh(*heap, whole_slab);
    write(buffer, 1);
    Parcel parcel = packed(std::move(buffer));
    Heap::set_current(nullptr);
    run({[&] {
             Heap* const own = through_a_loop ? enter_new_heap() : nullptr;
             {
                 const Buffer here = opened(std::move(parcel));
                 read(here, 1);
             }
             if (own != nullptr) end(own);
         },
         [&] {
             Heap::set_current(heap);
             auto again = heap->allocate(whole_slab);
             while (!again) {
                 require(again.error() == Errc::out_of_buffers, "only the one block is missing");
                 yield();
                 again = heap->allocate(whole_slab);
             }
             write(*again, 2);
         }});
    Heap::set_current(heap);
    heap->drain_returns();
    require(heap->blocks_out() == 0, "every block is home");
    end(heap);
}
void comes_home_at_once() { comes_home(false); }
void comes_home_in_a_batch() { comes_home(true); }

/// Two readers let go of the same block, each of its own parcel, while the loop they belong to ends.
void loop_ends_meanwhile() {
    Heap* const heap = enter_new_heap();
    Buffer buffer = fresh(*heap, 4096);
    write(buffer, 1);
    Parcel first = packed(buffer.share(0, 64)), second = packed(std::move(buffer));
    Heap::set_current(nullptr);
    const auto reader = [&](Parcel& parcel) {
        const Buffer here = opened(std::move(parcel));
        read(here, 1);
    };
    run({[&] { reader(first); }, [&] { reader(second); }, [&] { end(heap); }});
}

/// The program keeps a Buffer longer than its loop, while a parcel of the same block comes back.
void kept_longer_than_the_loop() {
    Heap* const heap = enter_new_heap();
    Buffer kept = fresh(*heap, 4096);
    write(kept, 1);
    Parcel parcel = packed(kept.share(0, 64));
    Heap::set_current(nullptr);
    run({[&] {
             const Buffer here = opened(std::move(parcel));
             read(here, 1);
         },
         [&] {
             end(heap);
             read(kept, 1);
             kept.reset();
         }});
}

/// From loop to loop to loop: the one in the middle ends first, or last.
void passed_on() {
    Heap* const heap = enter_new_heap();
    Buffer buffer = fresh(*heap, 4096);
    write(buffer, 1);
    Parcel parcel = packed(std::move(buffer));
    Heap* const middle = enter_new_heap();
    Buffer there = opened(std::move(parcel));
    Parcel onward = packed(there.share(0, 32));
    Heap::set_current(nullptr);
    run({[&] { end(heap); },
         [&] {
             Heap::set_current(middle);
             read(there, 1);
             there.reset();
             end(middle);
         },
         [&] {
             const Buffer last = opened(std::move(onward));
             read(last, 1);
         }});
}

/// Many small blocks go home one after the other while the owner takes them in.
void list_of_returns() {
    Heap* const heap = enter_new_heap();
    Parcel parcels[3];
    for (Parcel& parcel : parcels) {
        Buffer buffer = fresh(*heap, 2048);
        write(buffer, 1);
        parcel = packed(std::move(buffer));
    }
    Heap::set_current(nullptr);
    run({[&] { parcels[0] = Parcel(); },
         [&] {
             parcels[1] = Parcel();
             parcels[2] = Parcel();
         },
         [&] {
             Heap::set_current(heap);
             heap->drain_returns();
             Buffer another = fresh(*heap, 2048);
             write(another, 2);
             Parcel more = packed(std::move(another));
             heap->drain_returns();
         }});
    Heap::set_current(heap);
    heap->drain_returns();
    require(heap->blocks_out() == 0, "every block is home");
    end(heap);
}

}  // namespace

std::initializer_list<Scenario> heap_scenarios() {
    static const std::initializer_list<Scenario> all = {
        {"comes_home_at_once", &comes_home_at_once, {2, 1}},
        {"comes_home_in_a_batch", &comes_home_in_a_batch, {2, 1}},
        {"loop_ends_meanwhile", &loop_ends_meanwhile, {3, 1}},
        {"kept_longer_than_the_loop", &kept_longer_than_the_loop, {3, 1}},
        {"passed_on", &passed_on, {2, 1}},
        {"list_of_returns", &list_of_returns, {3, 1}},
    };
    return all;
}

}  // namespace evpl::race
