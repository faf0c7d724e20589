#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <utility>

namespace evpl::core {

/// Rings of a wheel: 64 slots on each of nine levels.
inline constexpr unsigned wheel_heads = 9 * 64;

/// A hierarchical timing wheel: links only, nothing is allocated, nobody is called but by expire().
/// Ticks of 1024 ns; 64 slots a level, a bitmap per level. A node's level is the highest digit (base 64) in which its
/// tick differs from the wheel's, so the lowest occupied level always holds the earliest node, and each node moves at
/// most once per level. Nine levels cover every tick of a 63-bit clock: eight end after nine years.
///
/// `Nodes` says where nodes live: `Ref` names one; links(ref) are its `next` and `previous`, also those of the ring
/// heads head(0) to head(wheel_heads - 1), which slot_of() turns back and which are linked to themselves before the first
/// node comes; due_tick() and set_due_tick() keep a node's time.
/// Thread: one.
template <class Nodes>
class Wheel : protected Nodes {
public:
    using Ref = typename Nodes::Ref;
    static constexpr unsigned tick_shift = 10;
    static constexpr unsigned slot_bits = 6;
    static constexpr unsigned slots = 1u << slot_bits;
    static constexpr unsigned levels = wheel_heads / slots;
    /// Nodes that one expire() moves between levels at most, so that 100 000 equal deadlines never stall a turn.
    static constexpr unsigned moved_max = 256;

    Wheel() noexcept = default;
    Wheel(const Wheel&) = delete;
    Wheel& operator=(const Wheel&) = delete;

    std::size_t size() const noexcept { return size_; }

    /// When expire() has something to do: INT64_MAX when never; never too late; early only to move nodes between levels.
    std::int64_t next_due_ns() const noexcept {
        Place place;
        if (!next_place(place)) return INT64_MAX;
        const std::uint64_t start = start_of(place);
        return start > std::uint64_t(INT64_MAX) >> tick_shift ? INT64_MAX : std::int64_t(start << tick_shift);
    }

    /// now + delay, without overflow; a negative delay counts as none.
    static std::int64_t due_after(std::int64_t now_ns, std::int64_t delay_ns) noexcept {
        std::int64_t due_ns = 0;
        return __builtin_add_overflow(now_ns, std::max<std::int64_t>(delay_ns, 0), &due_ns) ? INT64_MAX : due_ns;
    }

protected:
    /// Links a node that is not linked: due at `due_ns` or up to a tick later, never earlier; INT64_MAX: never.
    [[gnu::always_inline]] void insert(Ref node, std::int64_t now_ns, std::int64_t due_ns) noexcept {
        // An empty wheel may jump to the present, which saves the node its way down from a high level.
        if (size_ == 0) [[unlikely]] {
            tick_ = std::max(tick_, tick_at(now_ns));
            cascading_ = {0, 0};
        }
        const std::uint64_t tick = std::max({due_tick_of(due_ns), tick_, floor_tick_});
        this->set_due_tick(node, tick);
        link(node, tick);
    }

    [[gnu::always_inline]] void remove(Ref node) noexcept {
        // Neighbours are written, not read, and both asked for at once: stores alone would queue behind each other.
        const Ref next = this->links(node).next, previous = this->links(node).previous;
        auto &after = this->links(next), &before = this->links(previous);
        __builtin_prefetch(&after, 1);
        __builtin_prefetch(&before, 1);
        after.previous = previous;
        before.next = next;
        --size_;
        if (next == previous) slot_emptied(this->slot_of(next));  // both are the head
    }

    /// Calls fire(node) for up to `budget` nodes that are due and no longer linked, in order of their ticks and, within
    /// one tick, mostly of insertion. The rest stays due; what is inserted meanwhile waits for the next call. Returns
    /// the number of calls.
    template <class Fire>
    unsigned expire(std::int64_t now_ns, unsigned budget, Fire fire) noexcept {
        const std::uint64_t now_tick = tick_at(now_ns);
        unsigned calls = 0;
        unsigned moves_left = moved_max;
        const std::uint64_t outer_floor = std::exchange(floor_tick_, std::max(floor_tick_, now_tick + 1));
        bool all_done = false;
        while (calls < budget) {
            Place place;
            if (!next_place(place) || start_of(place) > now_tick) {
                all_done = true;
                break;
            }
            tick_ = start_of(place);
            if (place.level != 0) {
                if (!cascade(place, moves_left)) break;
                continue;
            }
            const Ref node = this->links(this->head(place.slot)).next;
            remove(node);
            ++calls;
            fire(node);
        }
        if (all_done) tick_ = std::max(tick_, now_tick);
        floor_tick_ = outer_floor;
        return calls;
    }

    /// Unlinks any one node. False: there is none.
    bool remove_any(Ref& node) noexcept {
        if (occupied_ == 0) return false;
        const unsigned level = unsigned(std::countr_zero(occupied_));
        node = this->links(this->head(level * slots + unsigned(std::countr_zero(bits_[level])))).next;
        remove(node);
        return true;
    }

private:
    struct Place {
        unsigned level, slot;
    };

    /// Rounded up: a node is due when its whole tick has begun, hence never early.
    static std::uint64_t due_tick_of(std::int64_t due_ns) noexcept {
        constexpr std::uint64_t tick_ns = 1u << tick_shift;
        return (std::uint64_t(std::max<std::int64_t>(due_ns, 0)) + tick_ns - 1) >> tick_shift;
    }
    static std::uint64_t tick_at(std::int64_t now_ns) noexcept { return std::uint64_t(std::max<std::int64_t>(now_ns, 0)) >> tick_shift; }

    [[gnu::always_inline]] void link(Ref node, std::uint64_t tick) noexcept {
        // The lowest digit always counts as different: level 0 when nothing above differs.
        const std::uint64_t differing = (tick ^ tick_) | (slots - 1);
        const unsigned level = unsigned(std::bit_width(differing) - 1) / slot_bits;
        const unsigned slot = unsigned(tick >> (level * slot_bits)) % slots;
        const Ref head = this->head(level * slots + slot);
        const Ref last = std::exchange(this->links(head).previous, node);
        this->links(last).next = node;
        auto& own = this->links(node);
        own.next = head;
        own.previous = last;
        bits_[level] |= std::uint64_t(1) << slot;
        occupied_ |= 1u << level;
        ++size_;
    }

    void slot_emptied(unsigned index) noexcept {
        const unsigned level = index / slots;
        bits_[level] &= ~(std::uint64_t(1) << index % slots);
        if (bits_[level] == 0) occupied_ &= ~(1u << level);
    }

    /// The first tick of a slot: the wheel's digits above its level, its own digit, zeros below.
    std::uint64_t start_of(Place place) const noexcept {
        const unsigned shift = place.level * slot_bits;
        return ((tick_ >> shift >> slot_bits << slot_bits) | place.slot) << shift;
    }

    bool next_place(Place& place) const noexcept {
        if (occupied_ == 0) return false;
        if (cascading_.level != 0) {  // its nodes may be earlier than any on the levels below
            place = cascading_;
            return true;
        }
        place.level = unsigned(std::countr_zero(occupied_));
        place.slot = unsigned(std::countr_zero(bits_[place.level]));
        return true;
    }

    /// Moves a slot's nodes to lower levels. False: it has more than may be moved now.
    bool cascade(Place place, unsigned& moves_left) noexcept {
        const Ref head = this->head(place.level * slots + place.slot);
        for (Ref node; (node = this->links(head).next) != head; --moves_left) {
            if (moves_left == 0) {
                cascading_ = place;
                return false;
            }
            remove(node);
            link(node, this->due_tick(node));
        }
        cascading_ = {0, 0};
        return true;
    }

    std::uint64_t tick_ = 0;        // every node is due at this tick or later
    std::uint64_t floor_tick_ = 0;  // inside expire(): what is inserted is due from here on
    std::size_t size_ = 0;
    std::uint32_t occupied_ = 0;  // bit per level
    Place cascading_{0, 0};       // a slot that is only partly moved, when its level is not 0
    std::array<std::uint64_t, levels> bits_{};
};

}  // namespace evpl::core
