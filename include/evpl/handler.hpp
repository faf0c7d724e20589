#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <span>
#include <type_traits>
#include <utility>

#include "evpl/duration.hpp"
#include "evpl/result.hpp"

#pragma GCC visibility push(default)
namespace evpl {

class Connection;
class Datagram;
struct Completion;

/// What a framing callback says about the bytes at the front of a stream.
struct Frame {
    std::uint32_t size_bytes = 0;  ///< of the whole message, header included; 0: not known yet, more bytes are needed
    bool bad = false;              ///< nonsense: the connection ends with bad_frame
};

/// The events of a connection, as plain functions. Size first: the same table is the C interface.
/// `self` is the handler object. Absent events are null and cost nothing.
struct HandlerTable {
    std::uint32_t size_bytes;                                         ///< of the table as the caller knows it: later versions add events at the end
    void (*on_open)(void* self, Connection&);                         ///< the connection can be used
    void (*on_recv)(void* self, Connection&);                         ///< new bytes or messages are queued, or a recv_into is full
    void (*on_writable)(void* self, Connection&);                     ///< after a pause: the outbox has drained to the low-water mark
    void (*on_sent)(void* self, Connection&, std::size_t bytes);      ///< so many bytes are the system's no more; not: the peer has them
    void (*on_end)(void* self, Connection&);                          ///< the peer has finished and everything was read; null: shutdown()
    void (*on_completed)(void* self, Connection&, Completion&);       ///< a remote read or write has ended
    void (*on_close)(void* self, Connection&, Error);                 ///< once, always last
    Frame (*frame)(void* self, std::span<const std::byte> head);      ///< how long the message at the front is; null: no framing
    void (*on_written)(void* self, Connection&, std::uint32_t word);  ///< the peer has written to exposed memory, and says so
};

/// The events of a datagram socket.
struct DatagramTable {
    std::uint32_t size_bytes;                        ///< as HandlerTable::size_bytes
    void (*on_open)(void* self, Datagram&);          ///< the name of a connected socket is resolved
    void (*on_recv)(void* self, Datagram&);          ///< datagrams are queued
    void (*on_writable)(void* self, Datagram&);      ///< after a pause: the outbox has drained to the low-water mark
    void (*on_error)(void* self, Datagram&, Error);  ///< a send failed; the socket stays open
    void (*on_close)(void* self, Datagram&, Error);  ///< once, always last
};

namespace detail {

// A class has a member of some name exactly when inheriting it together with a probe makes the name ambiguous.
struct NameProbe {
    int on_open, on_recv, on_writable, on_sent, on_end, on_completed, on_close, on_error, on_written, frame;
};
template <class H>
struct Probed : H, NameProbe {};

#define EVPL_DETAIL_EVENT(name)                                                                                                                                \
    template <class H>                                                                                                                                         \
    inline constexpr bool names_##name = !requires {                                                                                                           \
        &Probed<H>::name;                                                                                                                                      \
    };
EVPL_DETAIL_EVENT(on_open)
EVPL_DETAIL_EVENT(on_recv)
EVPL_DETAIL_EVENT(on_writable)
EVPL_DETAIL_EVENT(on_sent)
EVPL_DETAIL_EVENT(on_end)
EVPL_DETAIL_EVENT(on_completed)
EVPL_DETAIL_EVENT(on_close)
EVPL_DETAIL_EVENT(on_error)
EVPL_DETAIL_EVENT(on_written)
EVPL_DETAIL_EVENT(frame)
#undef EVPL_DETAIL_EVENT

template <class H, class On>
concept HandlesOpen = requires(H h, On& c) {
    h.on_open(c);
};
template <class H, class On>
concept HandlesRecv = requires(H h, On& c) {
    h.on_recv(c);
};
template <class H, class On>
concept HandlesWritable = requires(H h, On& c) {
    h.on_writable(c);
};
template <class H, class On>
concept HandlesClose = requires(H h, On& c, Error e) {
    h.on_close(c, e);
};
template <class H>
concept HandlesSent = requires(H h, Connection& c, std::size_t n) {
    h.on_sent(c, n);
};
template <class H>
concept HandlesEnd = requires(H h, Connection& c) {
    h.on_end(c);
};
template <class H>
concept HandlesCompleted = requires(H h, Connection& c, Completion& done) {
    h.on_completed(c, done);
};
template <class H>
concept HandlesWritten = requires(H h, Connection& c, std::uint32_t word) {
    h.on_written(c, word);
};
template <class H>
concept HandlesError = requires(H h, Datagram& d, Error e) {
    h.on_error(d, e);
};
template <class H>
concept HandlesFrame = requires(H h, std::span<const std::byte> s) {
    Frame(h.frame(s));
};

/// A connection handler: no member named like an event has another signature.
template <class H>
constexpr bool well_formed_handler() {
    if constexpr (!std::is_class_v<H> || std::is_final_v<H>) {
        return std::is_class_v<H>;
    } else {
        static_assert(!names_on_open<H> || HandlesOpen<H, Connection>, "on_open must be callable as on_open(Connection&)");
        static_assert(!names_on_recv<H> || HandlesRecv<H, Connection>, "on_recv must be callable as on_recv(Connection&)");
        static_assert(!names_on_writable<H> || HandlesWritable<H, Connection>, "on_writable must be callable as on_writable(Connection&)");
        static_assert(!names_on_sent<H> || HandlesSent<H>, "on_sent must be callable as on_sent(Connection&, size_t bytes)");
        static_assert(!names_on_end<H> || HandlesEnd<H>, "on_end must be callable as on_end(Connection&)");
        static_assert(!names_on_completed<H> || HandlesCompleted<H>, "on_completed must be callable as on_completed(Connection&, Completion&)");
        static_assert(!names_on_close<H> || HandlesClose<H, Connection>, "on_close must be callable as on_close(Connection&, Error)");
        static_assert(!names_on_written<H> || HandlesWritten<H>, "on_written must be callable as on_written(Connection&, uint32_t word)");
        static_assert(!names_frame<H> || HandlesFrame<H>, "frame must be callable as frame(std::span<const std::byte>) -> Frame");
        return true;
    }
}

template <class H>
constexpr bool well_formed_datagram_handler() {
    if constexpr (!std::is_class_v<H> || std::is_final_v<H>) {
        return std::is_class_v<H>;
    } else {
        static_assert(!names_on_open<H> || HandlesOpen<H, Datagram>, "on_open must be callable as on_open(Datagram&)");
        static_assert(!names_on_recv<H> || HandlesRecv<H, Datagram>, "on_recv must be callable as on_recv(Datagram&)");
        static_assert(!names_on_writable<H> || HandlesWritable<H, Datagram>, "on_writable must be callable as on_writable(Datagram&)");
        static_assert(!names_on_error<H> || HandlesError<H>, "on_error must be callable as on_error(Datagram&, Error)");
        static_assert(!names_on_close<H> || HandlesClose<H, Datagram>, "on_close must be callable as on_close(Datagram&, Error)");
        return true;
    }
}

template <class H>
H& as(void* self) noexcept {
    return *static_cast<H*>(self);
}

template <class H>
constexpr HandlerTable make_handler_table() {
    HandlerTable t{sizeof(HandlerTable), nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr};
    if constexpr (HandlesOpen<H, Connection>) t.on_open = [](void* h, Connection& c) { as<H>(h).on_open(c); };
    if constexpr (HandlesRecv<H, Connection>) t.on_recv = [](void* h, Connection& c) { as<H>(h).on_recv(c); };
    if constexpr (HandlesWritable<H, Connection>) t.on_writable = [](void* h, Connection& c) { as<H>(h).on_writable(c); };
    if constexpr (HandlesSent<H>) t.on_sent = [](void* h, Connection& c, std::size_t n) { as<H>(h).on_sent(c, n); };
    if constexpr (HandlesEnd<H>) t.on_end = [](void* h, Connection& c) { as<H>(h).on_end(c); };
    if constexpr (HandlesCompleted<H>) t.on_completed = [](void* h, Connection& c, Completion& done) { as<H>(h).on_completed(c, done); };
    if constexpr (HandlesClose<H, Connection>) t.on_close = [](void* h, Connection& c, Error e) { as<H>(h).on_close(c, e); };
    if constexpr (HandlesWritten<H>) t.on_written = [](void* h, Connection& c, std::uint32_t word) { as<H>(h).on_written(c, word); };
    if constexpr (HandlesFrame<H>) t.frame = [](void* h, std::span<const std::byte> s) { return Frame(as<H>(h).frame(s)); };
    return t;
}

template <class H>
constexpr DatagramTable make_datagram_table() {
    DatagramTable t{sizeof(DatagramTable), nullptr, nullptr, nullptr, nullptr, nullptr};
    if constexpr (HandlesOpen<H, Datagram>) t.on_open = [](void* h, Datagram& d) { as<H>(h).on_open(d); };
    if constexpr (HandlesRecv<H, Datagram>) t.on_recv = [](void* h, Datagram& d) { as<H>(h).on_recv(d); };
    if constexpr (HandlesWritable<H, Datagram>) t.on_writable = [](void* h, Datagram& d) { as<H>(h).on_writable(d); };
    if constexpr (HandlesError<H>) t.on_error = [](void* h, Datagram& d, Error e) { as<H>(h).on_error(d, e); };
    if constexpr (HandlesClose<H, Datagram>) t.on_close = [](void* h, Datagram& d, Error e) { as<H>(h).on_close(d, e); };
    return t;
}

template <class H>
inline constexpr HandlerTable handler_table = make_handler_table<H>();
template <class H>
inline constexpr DatagramTable datagram_table = make_datagram_table<H>();

/// How to build the handler of one connection: type-erased, owned by the library once given to it.
/// Table is HandlerTable or DatagramTable, On is Connection or Datagram.
template <class Table, class On>
struct Factory {
    const Table* table = nullptr;
    std::uint32_t handler_bytes = 0;  ///< room the handler needs in the connection's own allocation
    std::uint32_t handler_align = 1;
    void* context = nullptr;                                              ///< the caller's factory object, on the heap
    Result<void*> (*build)(void* context, On& on, void* room) = nullptr;  ///< gives `self`
    void (*destroy)(void* self) = nullptr;                                ///< null: shared, not ours
    void (*drop)(void* context) = nullptr;                                ///< frees `context`
};
using ConnectionFactory = Factory<HandlerTable, Connection>;
using DatagramFactory = Factory<DatagramTable, Datagram>;

template <class T>
struct unwrap_result {
    using type = T;
};
template <class T>
struct unwrap_result<Result<T>> {
    using type = T;
};

template <class H, class Table>
constexpr const Table* table_for() {
    if constexpr (std::is_same_v<Table, HandlerTable>) {
        static_assert(well_formed_handler<H>());
        return &handler_table<H>;
    } else {
        static_assert(well_formed_datagram_handler<H>());
        return &datagram_table<H>;
    }
}

/// From a callable `F(On&)` that gives a handler, a Result of one, or a reference to a shared one.
template <class Table, class On, class F>
Factory<Table, On> make_factory(F&& callable) {
    using Callable = std::decay_t<F>;
    using Made = decltype(std::declval<Callable&>()(std::declval<On&>()));
    Factory<Table, On> made;
    auto* context = new (std::nothrow) Callable(std::forward<F>(callable));
    made.context = context;  // null: the library answers out_of_memory
    made.drop = [](void* c) { delete static_cast<Callable*>(c); };
    if constexpr (std::is_lvalue_reference_v<Made>) {
        using H = std::remove_reference_t<Made>;
        made.table = table_for<H, Table>();
        made.build = [](void* c, On& on, void*) -> Result<void*> { return static_cast<void*>(&(*static_cast<Callable*>(c))(on)); };
    } else {
        using H = typename unwrap_result<Made>::type;
        made.table = table_for<H, Table>();
        made.handler_bytes = sizeof(H);
        made.handler_align = alignof(H);
        made.destroy = [](void* self) { static_cast<H*>(self)->~H(); };
        made.build = [](void* c, On& on, void* room) -> Result<void*> {
            auto& call = *static_cast<Callable*>(c);
            if constexpr (std::is_same_v<Made, H>) {
                return static_cast<void*>(new (room) H(call(on)));  // built in place: need not be movable
            } else {
                Made result = call(on);
                if (!result) return result.error();
                return static_cast<void*>(new (room) H(*std::move(result)));
            }
        };
    }
    return made;
}

/// From whatever the caller gave: a factory, a handler to move in, or an lvalue handler to share.
template <class Table, class On, class F>
Factory<Table, On> factory_of(F&& given) {
    using Given = std::remove_reference_t<F>;
    if constexpr (requires(std::decay_t<F> & f, On & on) { f(on); }) {
        return make_factory<Table, On>(std::forward<F>(given));
    } else if constexpr (std::is_lvalue_reference_v<F>) {
        return make_factory<Table, On>([shared = &given](On&) -> Given& { return *shared; });
    } else {
        return make_factory<Table, On>([held = std::forward<F>(given)](On&) mutable -> Given { return std::move(held); });
    }
}

/// From a handler type and the arguments of its braces.
template <class Table, class On, class H, class... Args>
Factory<Table, On> factory_for(Args&&... args) {
    if constexpr (requires(On & on) { H{std::forward<Args>(args)..., on}; } && sizeof...(Args) > 0) {
        return make_factory<Table, On>([... args = std::forward<Args>(args)](On& on) mutable { return H{args..., on}; });
    } else {
        return make_factory<Table, On>([... args = std::forward<Args>(args)](On&) mutable { return H{args...}; });
    }
}

}  // namespace detail

/// A class that may handle the events of a connection: some of on_open, on_recv, on_writable, on_sent, on_end,
/// on_completed, on_close, frame. A member named like an event with another signature is a compile error.
template <class H>
concept Handler = detail::well_formed_handler<H>();

}  // namespace evpl
#pragma GCC visibility pop
