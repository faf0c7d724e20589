#pragma once

// The interface as the real library has it, declared by itself, so that a mistake of ours in src/transport/xlio/abi.hpp does not cancel out.

#include <sys/socket.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>

#include "knobs.hpp"

namespace xlio_double {

struct buf_t {
    std::uint64_t userdata;
};
struct init_attr_t {
    unsigned flags;
    void (*memory_cb)(void*, std::size_t, std::size_t);
    void* (*memory_alloc)(std::size_t);
    void (*memory_free)(void*);
};
using event_cb_t = void (*)(std::uintptr_t, std::uintptr_t, int, int);
using comp_cb_t = void (*)(std::uintptr_t, std::uintptr_t, std::uintptr_t);
using rx_cb_t = void (*)(std::uintptr_t, std::uintptr_t, void*, std::size_t, buf_t*);
using accept_cb_t = void (*)(std::uintptr_t, std::uintptr_t, std::uintptr_t);
struct group_attr_t {
    unsigned flags;
    event_cb_t event;
    comp_cb_t comp;
    rx_cb_t rx;
    accept_cb_t accept;
};
struct socket_attr_t {
    unsigned flags;
    int domain;
    std::uintptr_t group;
    std::uintptr_t userdata;
};
struct send_attr_t {
    unsigned flags;
    std::uint32_t mkey;
    std::uintptr_t userdata_op;
};
struct pd_t {  // as ibv_pd begins
    void* context;
    std::uint32_t handle;
};
struct mr_t {
    void* context;
    pd_t* pd;
    void* addr;
    std::size_t length;
    std::uint32_t handle, lkey, rkey;
};
enum { ESTABLISHED = 1, TERMINATED, CLOSED, ERROR };
enum { SEND_FLUSH = 1, SEND_INLINE = 2 };

constexpr std::size_t ultra_slots = 23;

/// Told to the user of the library who breaks its rules; ends the program unless `strict=0`.
[[gnu::format(printf, 1, 2)]] void misuse(const char* format, ...);
extern const Knobs knobs;

/// What init does, in both modes: one block from the attr's allocator. Null: no memory.
void* pool_memory(const init_attr_t* attr, std::size_t bytes);

/// The functions in the order of the real library's table, those of the mode that the knobs say.
void fill_slots(void** slots);

/// memory.cpp: the functions that take the place of those over kernel sockets when the knob `memory` is set.
void fill_memory_slots(void* (&slots)[ultra_slots], void* exit);

}  // namespace xlio_double
