#pragma once

// What two ports share: a pipe of two rings, one per direction. Each ring has one writing and one reading thread; an entry costs the
// reader the cache lines of the entry and nothing else, because the entry itself says that it is there.

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "evpl/parcel.hpp"
#include "evpl/remote.hpp"
#include "evpl/transport_info.hpp"
#include "memory/block.hpp"
#include "transport/bell.hpp"

namespace evpl::transport::inproc {

class InprocLink;
class InprocPort;

enum class What : std::uint8_t {
    bytes,       ///< payload, copied into the entry
    last_bytes,  ///< the same, and a message ends with it
    block,       ///< payload by reference
    last_block,
    credit,  ///< the receiver lets the sender go on
    end,     ///< no more will be sent
    finish,  ///< no more will be sent, nor taken
    reset,   ///< the link is gone
    connect,
    accept,
    refuse,
    request,  ///< read or write memory exposed on the link
    reply,    ///< a request is through
    notice,   ///< the sender waits for room: ring its bell
    goodbye   ///< the sending port is gone
};

/// A mark in one word: the lap it belongs to, what the entry is, its payload bytes and the generation of the link it is for.
struct Mark {
    std::uint64_t word = 0;

    static constexpr Mark make(std::uint8_t lap, What what, std::uint32_t size, std::uint32_t generation) noexcept {
        return {lap | std::uint64_t(what) << 8 | std::uint64_t(size) << 16 | std::uint64_t(generation) << 32};
    }
    explicit operator bool() const noexcept { return word != 0; }
    What what() const noexcept { return What(std::uint8_t(word >> 8)); }
    std::uint32_t size() const noexcept { return std::uint16_t(word >> 16); }
    std::uint32_t generation() const noexcept { return std::uint32_t(word >> 32); }
};

// Bodies of entries. Pointers to links are only ever followed by the thread that owns them.
struct ConnectBody {
    InprocLink* from;
    std::uint64_t listening;
    std::uint32_t generation;
    std::uint32_t serial;
};
struct AcceptBody {
    InprocLink* from;
    std::uint32_t generation;
};
struct BlockBody {
    detail::Block* block;  ///< one reference: a proxy between loops, the block itself within one
    std::byte* data;
    std::uint32_t size;
};
struct CreditBody {
    std::uint64_t limit;
};
enum class Does : std::uint8_t { read, write, write_telling, add, swap };
struct RequestBody {
    std::uint64_t key;
    std::uint64_t address;
    std::byte* memory;  ///< the asking side's, kept alive until the reply
    std::uint32_t size;
    std::uint16_t operation;
    Does does;
    std::uint32_t word;              ///< write_telling
    std::uint64_t operand, desired;  ///< add, swap
};
struct ReplyBody {
    std::uint16_t operation;
    Errc error;
};
struct NoBody {};

/// One direction. 256 units of two cache lines: the 32 KiB are walked round and round and stay in the second-level cache.
/// A unit's mark carries the lap in which it was written, and every unit is written anew in every lap: the reader needs no tail.
class Ring {
public:
    static constexpr unsigned units = 256;
    static constexpr unsigned kept = 2;           ///< for one notice and one goodbye, so that both can always be said
    static constexpr unsigned first_bytes = 112;  ///< payload of an entry's first unit
    static constexpr unsigned next_bytes = 120;   ///< and of each further one
    static constexpr unsigned entry_units_most = 3;
    static constexpr unsigned inline_bytes_most = first_bytes + (entry_units_most - 1) * next_bytes;

    static constexpr unsigned units_for(unsigned bytes) noexcept { return bytes <= first_bytes ? 1 : 1 + (bytes - first_bytes + next_bytes - 1) / next_bytes; }

    // -- the writing side
    bool has_room(unsigned count) noexcept {
        if (tail_ + count + kept - head_seen_ <= units) [[likely]]
            return true;
        head_seen_ = head_.load(std::memory_order_acquire);
        return tail_ + count + kept - head_seen_ <= units;
    }
    /// Payload at `offset` of the entry being written.
    void put(unsigned offset, const std::byte* from, unsigned n) noexcept {
        if (offset + n <= first_bytes) [[likely]] {
            if (n > 0) std::memcpy(unit(tail_).bytes + head_bytes + offset, from, n);
            return;
        }
        for (Span to; n > 0; offset += to.size, from += to.size, n -= to.size) {
            to = spot(tail_, offset, n);
            std::memcpy(to.at, from, to.size);
        }
    }
    /// The entry is there for the reader.
    void publish(What what, unsigned size, InprocLink* to, std::uint32_t generation) noexcept {
        const unsigned count = units_for(size);
        for (unsigned i = 1; i < count; ++i) unit(tail_ + i).mark.store(std::uint8_t(lap(tail_ + i) ^ 0x80u), std::memory_order_relaxed);
        Unit& first = unit(tail_);
        std::memcpy(first.bytes, &to, sizeof to);
        first.mark.store(Mark::make(lap(tail_), what, size, generation).word, std::memory_order_release);
        tail_ += count;
    }
    template <class Body>
    void write(What what, InprocLink* to, std::uint32_t generation, const Body& body) noexcept {
        static_assert(std::is_trivially_copyable_v<Body> && sizeof(Body) <= first_bytes);
        if constexpr (!std::is_empty_v<Body>) std::memcpy(unit(tail_).bytes + head_bytes, &body, sizeof body);
        publish(what, 0, to, generation);
    }
    /// has_room() was false: asks the reader to ring once it has come this far. False: it was asked already.
    bool ask_notice() noexcept {
        if (head_seen_ < notice_until_) return false;
        write(What::notice, nullptr, 0, NoBody{});
        notice_until_ = tail_;
        return true;
    }
    /// Worth another try: a good part is free, or the reader has come to the notice and will not ring again.
    bool may_go_on() noexcept { return has_room(units / 4) || head_seen_ >= notice_until_; }

    // -- the reading side
    /// The next entry, or nothing.
    Mark peek() const noexcept {
        const std::uint64_t word = unit(at_).mark.load(std::memory_order_acquire);
        return {std::uint8_t(word) == lap(at_) ? word : 0};
    }
    InprocLink* link() const noexcept {
        InprocLink* to;
        std::memcpy(&to, unit(at_).bytes, sizeof to);
        return to;
    }
    template <class Body>
    Body body() const noexcept {
        Body body;
        std::memcpy(&body, unit(at_).bytes + head_bytes, sizeof body);
        return body;
    }
    void copy_out(std::byte* to, unsigned n) noexcept {
        if (n <= first_bytes) [[likely]] {
            std::memcpy(to, unit(at_).bytes + head_bytes, n);
            return;
        }
        unsigned offset = 0;
        for (Span from; offset < n; offset += from.size, to += from.size) {
            from = spot(at_, offset, n - offset);
            std::memcpy(to, from.at, from.size);
        }
    }
    void pass(unsigned count) noexcept { at_ += count; }
    /// The writer may use again what was passed.
    void free_passed() noexcept { head_.store(at_, std::memory_order_release); }
    unsigned passed() const noexcept { return unsigned(at_ - head_.load(std::memory_order_relaxed)); }

private:
    static constexpr unsigned head_bytes = sizeof(InprocLink*);
    struct alignas(128) Unit {
        std::atomic<std::uint64_t> mark{0};
        std::byte bytes[next_bytes];  // of the first unit: the link it is for, then the payload
    };
    static_assert(sizeof(Unit) == 128);
    struct Span {
        std::byte* at;
        unsigned size;
    };

    // Never 0 in the first lap, and 0x80 apart from what further units of an entry carry.
    static constexpr std::uint8_t lap(std::uint64_t position) noexcept { return std::uint8_t(position / units + 1); }
    Unit& unit(std::uint64_t position) noexcept { return units_[position % units]; }
    const Unit& unit(std::uint64_t position) const noexcept { return units_[position % units]; }
    Span spot(std::uint64_t position, unsigned offset, unsigned n) noexcept {
        if (offset < first_bytes) return {unit(position).bytes + head_bytes + offset, n < first_bytes - offset ? n : first_bytes - offset};
        const unsigned index = 1 + (offset - first_bytes) / next_bytes, within = (offset - first_bytes) % next_bytes;
        return {unit(position + index).bytes + within, n < next_bytes - within ? n : next_bytes - within};
    }

    alignas(128) std::uint64_t tail_ = 0;  // the writer's
    std::uint64_t head_seen_ = 0;
    std::uint64_t notice_until_ = 0;
    alignas(128) std::uint64_t at_ = 0;  // the reader's
    alignas(128) std::atomic<std::uint64_t> head_{0};
    Unit units_[units];
};
static_assert(std::uint8_t(255 + 1) != std::uint8_t(255 ^ 0x80));

/// Remote operations of one port that the other may have in hand at a time; more wait on their links.
inline constexpr unsigned operations_most = 64;

/// A remote operation that the peer has in hand. Lives in the pipe, because the peer's thread uses its memory.
struct Operation {
    InprocLink* link = nullptr;  ///< who wants to hear of it; null: nobody any more
    OperationId id;
    Buffer buffer;
    Parcel parked;  ///< the buffer, once the port it belonged to is gone
    std::uint16_t next_free = 0;
    bool in_flight = false;
};

struct Pipe;

/// One port's end of a pipe. Only its own port's thread touches it, but for what the registry does under its mutex.
struct alignas(128) End {
    Pipe* pipe = nullptr;
    Ring* out = nullptr;
    Ring* in = nullptr;
    Bell* peer_bell = nullptr;          ///< null: the same loop
    std::uint64_t peer_port = 0;        ///< number of the port at the other end
    End* next = nullptr;                ///< in the port's circle
    InprocLink* stuck_first = nullptr;  ///< links that wait for room, in order
    std::uint32_t replies_count = 0;
    std::uint32_t replies_first = 0;
    bool touched = false;              ///< something was written since the bell rang
    bool full = false;                 ///< the ring had no room
    bool retry = false;                ///< an operation slot is free again
    bool gone = false;                 ///< the other port said goodbye
    std::uint16_t free_operation = 0;  ///< operations_most: none
    unsigned index = 0;
    InprocLink* stuck_last = nullptr;
    End* next_new = nullptr;  ///< not yet seen by its port
    End* next_touched = nullptr;
    ReplyBody replies[operations_most];  ///< that found no room; the peer has no more than these in hand
    Operation operations[operations_most];

    bool waits() const noexcept { return stuck_first != nullptr || replies_count > 0; }
};

struct Pipe {
    Ring rings[2];
    End ends[2];
    unsigned attached = 2;  ///< ends whose port is there; under the registry's mutex

    Pipe() noexcept {
        for (unsigned i = 0; i < 2; ++i) {
            ends[i].pipe = this;
            ends[i].index = i;
            ends[i].out = &rings[i];
            ends[i].in = &rings[1 - i];
            for (unsigned k = 0; k < operations_most; ++k) ends[i].operations[k].next_free = std::uint16_t(k + 1);
        }
    }
    /// Both ports are gone: what nobody read is let go.
    ~Pipe() {
        for (Ring& ring : rings) {
            while (const Mark mark = ring.peek()) {
                if (mark.what() == What::block || mark.what() == What::last_block) drop(ring.body<BlockBody>());
                ring.pass(Ring::units_for(mark.size()));
            }
        }
    }
    static void drop(const BlockBody& body) noexcept { Buffer gone = BufferAccess::adopt(body.block, body.data, body.size); }
};

}  // namespace evpl::transport::inproc
