#!/usr/bin/env python3
"""header_check.cpp compares our declarations with NVIDIA's header where that is installed. Here it gets headers of the same shape: the right ones
compile, and each that differs in one place does not."""
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/tool"))
import support  # noqa: E402

TYPES = """#pragma once
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#define XLIO_MAGIC_NUMBER 0x4f494c584144564eULL
#define SO_XLIO_GET_API 2800
typedef uintptr_t xlio_poll_group_t;
typedef uintptr_t xlio_socket_t;
struct ibv_pd;
struct xlio_buf { uint64_t userdata; };
enum { XLIO_SOCKET_EVENT_ESTABLISHED = 1, XLIO_SOCKET_EVENT_TERMINATED, XLIO_SOCKET_EVENT_CLOSED, XLIO_SOCKET_EVENT_ERROR };
#define XLIO_SOCKET_SEND_FLAG_FLUSH 0x1
#define XLIO_SOCKET_SEND_FLAG_INLINE 0x2
struct xlio_init_attr { unsigned flags; void (*memory_cb)(void*, size_t, size_t); void* (*memory_alloc)(size_t); void (*memory_free)(void*); };
struct xlio_poll_group_attr {
    unsigned flags;
    void (*socket_event_cb)(xlio_socket_t, uintptr_t, int, int);
    void (*socket_comp_cb)(xlio_socket_t, uintptr_t, uintptr_t);
    void (*socket_rx_cb)(xlio_socket_t, uintptr_t, void*, size_t, struct xlio_buf*);
    void (*socket_accept_cb)(xlio_socket_t, xlio_socket_t, uintptr_t);
};
struct xlio_socket_attr { unsigned flags; int domain; xlio_poll_group_t group; uintptr_t userdata_sq; };
struct xlio_socket_send_attr { unsigned flags; uint32_t mkey; uintptr_t userdata_op; };
"""
SLOTS = [("int", "xlio_init_ex", "const struct xlio_init_attr*"), ("int", "xlio_exit", "void"),
         ("int", "xlio_poll_group_create", "const struct xlio_poll_group_attr*, xlio_poll_group_t*"), ("int", "xlio_poll_group_destroy", "xlio_poll_group_t"),
         ("void", "xlio_poll_group_poll", "xlio_poll_group_t"), ("int", "xlio_socket_create", "const struct xlio_socket_attr*, xlio_socket_t*"),
         ("int", "xlio_socket_destroy", "xlio_socket_t"), ("int", "xlio_socket_update", "xlio_socket_t, unsigned, uintptr_t"),
         ("int", "xlio_socket_setsockopt", "xlio_socket_t, int, int, const void*, socklen_t"),
         ("int", "xlio_socket_getsockname", "xlio_socket_t, struct sockaddr*, socklen_t*"), ("int", "xlio_socket_getpeername", "xlio_socket_t, struct sockaddr*, socklen_t*"),
         ("int", "xlio_socket_bind", "xlio_socket_t, const struct sockaddr*, socklen_t"), ("int", "xlio_socket_connect", "xlio_socket_t, const struct sockaddr*, socklen_t"),
         ("int", "xlio_socket_listen", "xlio_socket_t"), ("struct ibv_pd*", "xlio_socket_get_pd", "xlio_socket_t"), ("int", "xlio_socket_detach_group", "xlio_socket_t"),
         ("int", "xlio_socket_attach_group", "xlio_socket_t, xlio_poll_group_t"),
         ("int", "xlio_socket_send", "xlio_socket_t, const void*, size_t, const struct xlio_socket_send_attr*"),
         ("int", "xlio_socket_sendv", "xlio_socket_t, const struct iovec*, unsigned, const struct xlio_socket_send_attr*"),
         ("void", "xlio_poll_group_flush", "xlio_poll_group_t"), ("void", "xlio_socket_flush", "xlio_socket_t"),
         ("void", "xlio_socket_buf_free", "xlio_socket_t, struct xlio_buf*"), ("void", "xlio_poll_group_buf_free", "xlio_poll_group_t, struct xlio_buf*")]


def header(first_slot=40, slots=SLOTS, types=TYPES):
    others = "".join(f"    void* other_{i};\n" for i in range((first_slot - 16) // 8))
    members = "".join(f"    {result} (*{name})({arguments});\n" for result, name, arguments in slots)
    return f"{types}struct __attribute__((packed)) xlio_api_t {{\n    uint64_t magic;\n    uint64_t cap_mask;\n{others}{members}}};\n"


class Header(unittest.TestCase):
    def compiles(self, text):
        with tempfile.TemporaryDirectory() as folder:
            (pathlib.Path(folder) / "mellanox").mkdir()
            (pathlib.Path(folder) / "mellanox/xlio_extra.h").write_text(text)
            answer = subprocess.run([os.environ.get("CXX", "c++"), "-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-I", folder, "-I", ROOT / "src",
                                     ROOT / "src/transport/xlio/header_check.cpp"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=100)
            return answer.returncode == 0, answer.stdout

    def test_headers_of_both_layouts_agree(self):
        for first_slot in (40, 48):
            good, said = self.compiles(header(first_slot))
            self.assertTrue(good, said)

    def test_a_table_may_grow_at_its_end(self):
        good, said = self.compiles(header(slots=[*SLOTS, ("uint32_t", "xlio_socket_buf_get_mkey", "struct xlio_buf*")]))
        self.assertTrue(good, said)

    def test_each_change_is_found(self):
        swapped = [*SLOTS[:12], SLOTS[13], SLOTS[12], *SLOTS[14:]]
        other_type = [(r, n, a.replace("unsigned, uintptr_t", "unsigned long, uintptr_t")) for r, n, a in SLOTS]
        other_result = [("void" if n == "xlio_socket_listen" else r, n, a) for r, n, a in SLOTS]
        for what, text in [("layout", header(56)), ("end", header(slots=SLOTS[:-1])), ("order", header(slots=swapped)), ("argument", header(slots=other_type)), ("result", header(slots=other_result)),
                           ("callback", header(types=TYPES.replace("xlio_socket_t, uintptr_t, int, int", "xlio_socket_t, uintptr_t, int, long"))),
                           ("field", header(types=TYPES.replace("uint32_t mkey", "uint64_t mkey"))), ("event", header(types=TYPES.replace("ESTABLISHED = 1", "ESTABLISHED = 2"))),
                           ("option", header(types=TYPES.replace("2800", "2801")))]:
            good, said = self.compiles(text)
            self.assertFalse(good, what)
            self.assertRegex(said, "static.assert", what)


if __name__ == "__main__":
    support.take_binary_from_arguments()
    support.main()
