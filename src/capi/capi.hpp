#pragma once

// What the files of the C interface share: how C values and C++ objects are the same bytes.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <string_view>

#include "evpl/evpl.h"
#include "evpl/evpl.hpp"

namespace evpl::capi {

inline constexpr evpl_error success{0, 0, 0, 0};
inline constexpr evpl_error misuse{EVPL_MISUSE, 0, EVPL_LOCAL, 0};
inline constexpr evpl_error no_memory{EVPL_OUT_OF_MEMORY, 0, EVPL_SYSTEM, 0};

inline evpl_error to_c(Error error) noexcept { return {std::uint16_t(error.code()), std::uint8_t(error.step()), std::uint8_t(error.who()), error.os()}; }
/// Numbers that no enumerator has become io_error and unknown: a C program can pass anything.
inline Error from_c(evpl_error error) noexcept {
    const auto code = error.code < std::uint16_t(Errc::count_) ? Errc(error.code) : Errc::io_error;
    const auto step = error.step < std::uint8_t(Step::count_) ? Step(error.step) : Step::none;
    const auto who = error.who < std::uint8_t(Who::count_) ? Who(error.who) : Who::unknown;
    return Error(code, step, who, error.os);
}
template <class T>
evpl_error status(const Result<T>& result) noexcept {
    return result.ok() ? success : to_c(result.error());
}
inline evpl_text to_c(std::string_view text) noexcept { return {text.data(), text.size()}; }

inline constexpr evpl_flow flow_misuse{EVPL_NOT_SENT, EVPL_MISUSE};
inline evpl_flow to_c(Flow flow) noexcept {
    if (flow) return {EVPL_GO, EVPL_OK};
    return {std::uint16_t(flow.paused() ? EVPL_PAUSE : EVPL_NOT_SENT), std::uint16_t(flow.error())};
}

// -- handles: a C pointer is the C++ object's address ------------------------------------------------------------
#define EVPL_CAPI_HANDLE(c_name, Cpp)                                                                                                                          \
    inline Cpp& cpp(c_name* handle) noexcept { return *reinterpret_cast<Cpp*>(handle); }                                                                       \
    inline const Cpp& cpp(const c_name* handle) noexcept { return *reinterpret_cast<const Cpp*>(handle); }
EVPL_CAPI_HANDLE(evpl_loop, Loop)
EVPL_CAPI_HANDLE(evpl_connection, Connection)
EVPL_CAPI_HANDLE(evpl_datagram, Datagram)
EVPL_CAPI_HANDLE(evpl_completion, Completion)
EVPL_CAPI_HANDLE(evpl_endpoint, Endpoint)
// -- values: all bits zero is the empty object, and moving the bytes is moving the object -------------------------
EVPL_CAPI_HANDLE(evpl_buffer, Buffer)
EVPL_CAPI_HANDLE(evpl_parcel, Parcel)
EVPL_CAPI_HANDLE(evpl_timer, Timer)
EVPL_CAPI_HANDLE(evpl_watch, Watch)
EVPL_CAPI_HANDLE(evpl_loop_ref, LoopRef)
EVPL_CAPI_HANDLE(evpl_connection_ref, ConnectionRef)
EVPL_CAPI_HANDLE(evpl_datagram_ref, DatagramRef)
EVPL_CAPI_HANDLE(evpl_address, Address)
#undef EVPL_CAPI_HANDLE
static_assert(sizeof(Buffer) <= sizeof(evpl_buffer) && sizeof(Parcel) <= sizeof(evpl_parcel));
static_assert(sizeof(Timer) <= sizeof(evpl_timer) && sizeof(Watch) <= sizeof(evpl_watch));
static_assert(sizeof(LoopRef) == sizeof(evpl_loop_ref) && sizeof(ConnectionRef) == sizeof(evpl_connection_ref));
static_assert(sizeof(DatagramRef) == sizeof(evpl_datagram_ref) && sizeof(Address) == sizeof(evpl_address));

/// A chain points into itself, so it is built where it lies: the first word is its own address once it is.
struct ChainRoom {
    std::uintptr_t self;
    alignas(Chain) std::byte room[sizeof(Chain)];

    Chain* chain() noexcept { return std::launder(reinterpret_cast<Chain*>(room)); }
};
static_assert(sizeof(ChainRoom) <= sizeof(evpl_chain) && alignof(ChainRoom) <= alignof(evpl_chain));

/// The chain in there, null when there is none: empty, or copied from elsewhere.
inline Chain* chain_in(const evpl_chain* c) noexcept {
    auto* room = reinterpret_cast<ChainRoom*>(const_cast<evpl_chain*>(c));
    return c != nullptr && room->self == reinterpret_cast<std::uintptr_t>(c) ? room->chain() : nullptr;
}
/// Copied from elsewhere: its slices belong to the original.
inline bool is_copied(const evpl_chain* c) noexcept { return reinterpret_cast<const ChainRoom*>(c)->self != 0 && chain_in(c) == nullptr; }
inline void clear(evpl_chain* c) noexcept {
    Chain* const chain = chain_in(c);
    if (chain == nullptr) return;
    chain->~Chain();
    reinterpret_cast<ChainRoom*>(c)->self = 0;
}
/// Puts the chain there instead of what was; an empty one leaves all zeros, so that nobody has to clear it.
inline void put(evpl_chain* c, Chain&& value) noexcept {
    clear(c);
    auto* room = reinterpret_cast<ChainRoom*>(c);
    if (value.slices().empty()) {
        room->self = 0;
        return;
    }
    new (room->room) Chain(std::move(value));
    room->self = reinterpret_cast<std::uintptr_t>(c);
}
inline Chain take(evpl_chain* c) noexcept {
    Chain* const chain = chain_in(c);
    if (chain == nullptr) return {};
    Chain taken = std::move(*chain);
    clear(c);
    return taken;
}

// -- the handler table is the C++ one ------------------------------------------------------------------------------
static_assert(sizeof(evpl_handler) == sizeof(HandlerTable) && offsetof(evpl_handler, on_open) == offsetof(HandlerTable, on_open) &&
              offsetof(evpl_handler, on_completed) == offsetof(HandlerTable, on_completed) && offsetof(evpl_handler, frame) == offsetof(HandlerTable, frame) &&
              offsetof(evpl_handler, on_written) == offsetof(HandlerTable, on_written));
static_assert(sizeof(evpl_datagram_handler) == sizeof(DatagramTable) && offsetof(evpl_datagram_handler, on_close) == offsetof(DatagramTable, on_close));
static_assert(sizeof(evpl_error) == sizeof(Error) && sizeof(evpl_frame) == sizeof(Frame) && offsetof(evpl_frame, bad) == offsetof(Frame, bad));
static_assert(sizeof(evpl_bytes) == sizeof(std::span<const std::byte>) && std::is_trivially_copyable_v<std::span<const std::byte>>);
static_assert(std::is_trivially_copyable_v<Error> && std::is_trivially_copyable_v<Frame>);

/// Reads a size-first struct of the caller: what it does not have is zero, what we do not know is not read.
template <class C>
C read(const C* given) noexcept {
    C known{};
    if (given == nullptr || given->size_bytes < sizeof given->size_bytes) return known;
    std::memcpy(static_cast<void*>(&known), given, given->size_bytes < sizeof known ? given->size_bytes : sizeof known);
    return known;
}
/// Writes one: as much as the caller's holds; beyond what we know it gets zeros.
template <class C>
evpl_error write(C* target, C value) noexcept {
    const std::uint32_t room = target->size_bytes;
    if (room < 8) return misuse;
    value.size_bytes = room;
    std::memcpy(static_cast<void*>(target), &value, room < sizeof value ? room : sizeof value);
    if (room > sizeof value) std::memset(reinterpret_cast<char*>(target) + sizeof value, 0, room - sizeof value);
    return success;
}

inline Limit limit_of(std::int64_t ns) noexcept { return ns <= 0 ? Limit{} : within(Duration::of_ns(ns)); }

/// A text of the caller's, kept: cut to fit.
template <std::size_t room>
const char* keep(char (&into)[room], const char* text, const char* otherwise) noexcept {
    if (text == nullptr) return otherwise;
    std::strncpy(into, text, room - 1);
    return into;
}

/// The caller's loop options with defaults, and the texts they name.
struct KeptLoopOptions {
    LoopOptions options;
    char name[32] = {};
    char dns_servers[256] = {};
    /// False: a mode that does not exist.
    bool read_from(const evpl_loop_options* given) noexcept;
};

/// Runs a factory's drop once, when the last of several copies goes, on whatever thread.
struct SharedDrop {
    std::atomic<std::uint32_t> refs{1};
    void (*drop)(void*) = nullptr;
    void* context = nullptr;
    void unref() noexcept;
};

/// Handlers of a listener or connection made from C: the table and the state's factory live as long as anything uses them.
struct Source {
    evpl_handler table = {};
    evpl_factory factory = {};
    void* self = nullptr;
    SharedDrop* shared = nullptr;  ///< a pool's: the last copy of many drops the factory's context
};
detail::ConnectionFactory factory_of(const Source& source) noexcept;
/// False: misuse.
bool make_source(const evpl_handler* handler, const evpl_factory* factory, void* self, Source& source) noexcept;

evpl_queue_limits limits_to_c(const QueueLimits& limits) noexcept;
QueueLimits limits_over(QueueLimits limits, const evpl_queue_limits& wanted) noexcept;  ///< zeros change nothing
evpl_caps caps_to_c(const Caps& caps) noexcept;

// -- what this interface allocated -----------------------------------------------------------------------------------
/// All objects that a C program owns, so that a wrong or second free is answered. Set-up paths only.
class Owned {
public:
    Owned() noexcept = default;
    Owned(const Owned&) = delete;
    Owned& operator=(const Owned&) = delete;
    /// From now on `handle` names it.
    void enlist(const void* handle) noexcept;
    /// The object of that handle, not listed any more; null: there is none.
    template <class T>
    static T* take(const void* handle) noexcept {
        return static_cast<T*>(take_any(handle));
    }
    static bool has(const void* handle) noexcept;

private:
    static Owned* take_any(const void* handle) noexcept;
    const void* handle_ = nullptr;
    Owned* next_ = nullptr;
};

/// Loops that run on this thread now, the innermost first: such a loop is not freed.
class Running {
public:
    explicit Running(const evpl_loop* loop) noexcept;
    ~Running();
    static bool has(const evpl_loop* loop) noexcept;

private:
    const evpl_loop* loop_;
    Running* outer_;
};

}  // namespace evpl::capi
