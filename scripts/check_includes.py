#!/usr/bin/env python3
"""Who may include what: reads every #include below include/, src/, tools/ and examples/ and names the broken rules. Public headers
also have to open their namespace for export: one that forgets it links statically and fails as a shared library.

usage: check_includes.py [ROOT]      check a tree (default: the one this script is in)
       check_includes.py --self-test plant one violation per rule in a temporary tree and see that it is named
"""
import pathlib
import re
import sys
import tempfile

# Room -> rooms whose headers it may include, besides its own. Arrows point down only:
# application -> protocol -> connection -> transport -> device.
MAY_INCLUDE = {
    "include": set(),
    "base": {"include"},  # what every room needs: log, checks, clock
    "core": {"include", "base", "memory", "contract"},
    "memory": {"include", "base"},
    "contract": {"include", "base", "memory"},
    "registry": {"include", "base", "memory", "contract", "common", "device"},  # the one list of all devices
    "common": {"include", "base", "memory", "contract"},
    "device": {"include", "base", "memory", "contract", "common"},
    "tls": {"include", "base", "memory", "contract"},
    "thread": {"include", "base", "core"},
    "co": {"include"},
    "http": {"include"},
    "rpc2": {"include"},
    "zmtp": {"include"},
    "capi": {"include"},
    "tools": {"include"},
    "probe": {"include", "device"},  # a device's own program: knows its library as the device does
    "examples": {"include"},
}
ROOM_NAMES = {
    "include": "include/evpl/",
    "contract": "the contract src/transport/*.hpp",
    "registry": "src/transport/registry.cpp",
    "common": "src/transport/common/",
    "device": "src/transport/<device>/",
    "tools": "tools/",
    "probe": "tools/<device>_probe/",
    "examples": "examples/",
}
SOURCES = {".cpp", ".hpp", ".c", ".h"}

# An example has to compile in under a second, so the core headers stay light.
HEAVY = set(
    "algorithm any array bitset chrono deque filesystem forward_list fstream functional future iomanip ios iostream "
    "istream list locale map memory numeric optional ostream queue random ranges regex set sstream stack stdexcept "
    "streambuf string strstream thread unordered_map unordered_set variant vector".split()
)
# These are modules of their own on top of the core headers.
MAY_BE_HEAVY = {"co_join.hpp", "http.hpp", "rpc2.hpp", "zmtp.hpp"}
# What only a device's folder may know.
DEVICE_HEADER = re.compile(r"(infiniband|rdma|mellanox)/|linux/io_uring\.h|liburing|rte_|vppinfra/|vnet/|svm/|vcl/")
SYSTEM_HEADER = re.compile(r"[a-z_0-9]+|std(def|int|bool)\.h|(sys|netinet|arpa)/[a-z_0-9]+\.h")

HIDDEN_NAMESPACE = re.compile(r"^namespace evpl\b(?!::detail)")

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def room_of(path):
    """(room, folder that is 'its own') of a path relative to the root."""
    parts = path.parts
    if parts[0] == "include":
        return "include", parts[:2]
    if parts[0] == "tools" and len(parts) > 1 and parts[1].endswith("_probe"):
        return "probe", parts[:2]
    if parts[0] in ("tools", "examples"):
        return parts[0], parts[: 2 if parts[0] == "tools" else 1]
    if parts[0] == "src" and len(parts) > 2:
        if parts[1] != "transport":
            return parts[1], parts[:2]
        if len(parts) == 3:
            return ("registry" if parts[2] == "registry.cpp" else "contract"), parts[:2]
        return ("common" if parts[2] == "common" else "device"), parts[:3]
    return None, parts[:1]


def name_of(room, own):
    if room == "device":
        return "/".join(own) + "/"
    return ROOM_NAMES.get(room, "/".join(own) + "/")


def resolve(root, file, quoted, target):
    """The file of this tree an #include means, relative to the root; None for anything else."""
    folders = [root / "include", root / "src"]
    if quoted:
        folders.insert(0, file.parent)
    for folder in folders:
        found = (folder / target).resolve()
        if found.is_file() and root in found.parents:
            return found.relative_to(root)
    return None


def check_line(root, file, quoted, target):
    """What is wrong with this #include, or None."""
    here = file.relative_to(root)
    room, own = room_of(here)
    found = resolve(root, file, quoted, target)
    if found is None:
        if quoted:
            return f'"{target}" is not a file of this tree (write <> for what is outside)'
        if room == "include" and here.name not in MAY_BE_HEAVY and target in HEAVY:
            return f"<{target}> is heavy: public core headers include little"
        if room == "include" and not SYSTEM_HEADER.fullmatch(target):
            return f"<{target}>: public headers include only themselves and the standard library"
        if room not in ("device", "common", "tools", "probe", "examples") and DEVICE_HEADER.match(target):
            return f"<{target}> belongs to a device; {name_of(room, own)} never names one"
        return None
    other, other_own = room_of(found)
    if other is None:
        return f"{found} is in no room: extend MAY_INCLUDE"
    if room == other and own == other_own:
        return None
    if room == "probe" and other == "device" and other_own[-1] != own[1].removesuffix("_probe"):
        return f"{'/'.join(own)}/ may not include {name_of(other, other_own)}: it is another device's"
    if other in MAY_INCLUDE[room]:
        return None
    if room == other == "device":
        return f"{name_of(room, own)} may not include its sibling {name_of(other, other_own)}"
    allowed = ", ".join(sorted(ROOM_NAMES.get(each, f"src/{each}/") for each in MAY_INCLUDE[room])) or "nothing else"
    return f"{name_of(room, own)} may not include {name_of(other, other_own)} (allowed: itself, {allowed})"


def violations(root):
    root = root.resolve()
    seen = 0
    for top in ("include", "src", "tools", "examples"):
        for file in sorted((root / top).rglob("*")):
            if file.suffix not in SOURCES or not file.is_file():
                continue
            seen += 1
            here = file.relative_to(root)
            if room_of(here)[0] not in MAY_INCLUDE:
                yield f"{here}:1: is in no room: extend MAY_INCLUDE in scripts/check_includes.py"
                continue
            shown = False
            for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
                if here.parts[0] == "include" and HIDDEN_NAMESPACE.match(line) and not shown:
                    yield f"{here}:{number}: hidden from users: write #pragma GCC visibility push(default) above it"
                shown = line == "#pragma GCC visibility push(default)"
                match = INCLUDE.match(line)
                if not match:
                    continue
                wrong = check_line(root, file, match[1] == '"', match[2])
                if wrong:
                    yield f"{here}:{number}: {wrong}"
    if seen == 0:
        yield f"{root}: there are no sources here"


ALLOWED = {
    "include/evpl/buffer.hpp": "#include <cstdint>\n#include <span>\n"
    "#pragma GCC visibility push(default)\nnamespace evpl {\nnamespace detail {}\n}  // namespace evpl\n"
    "#pragma GCC visibility pop\n",
    "include/evpl/loop.hpp": '#include "evpl/buffer.hpp"\n',
    "include/evpl/co_join.hpp": "#include <coroutine>\n#include <memory>\n",
    "src/memory/heap.hpp": '#include "evpl/buffer.hpp"\n',
    "src/core/loop_core.hpp": '#include <vector>\n#include "memory/heap.hpp"\n#include "transport/transport.hpp"\n',
    "src/core/loop_core.cpp": '#include "core/loop_core.hpp"\n#include "loop_core.hpp"\n',
    "src/transport/transport.hpp": '#include "memory/heap.hpp"\n',
    "src/transport/registry.cpp": '#include "transport/socket/socket.hpp"\n',
    "src/transport/common/descriptor.hpp": '#include "transport/transport.hpp"\n',
    "src/transport/socket/socket.hpp": '#include "transport/common/descriptor.hpp"\n#include "memory/heap.hpp"\n',
    "src/transport/rdma/queue.hpp": "#include <infiniband/verbs.h>\n",
    "src/thread/pool.cpp": '#include "core/loop_core.hpp"\n',
    "src/capi/capi.cpp": '#include "evpl/loop.hpp"\n',
    "tools/evpl/main.cpp": '#include <CLI/CLI.hpp>\n#include "options.hpp"\n',
    "tools/evpl/options.hpp": "#include <string>\n",
    "tools/socket_probe/main.cpp": '#include "transport/socket/socket.hpp"\n',
    "examples/echo.cpp": "#include <evpl/loop.hpp>\n",
}
PLANTED = {
    "include/evpl/bad_heavy.hpp": "#include <functional>",
    "include/evpl/bad_inside.hpp": '#include "core/loop_core.hpp"',
    "include/evpl/bad_foreign.hpp": "#include <fmt/format.h>",
    "include/evpl/bad_hidden.hpp": "namespace evpl {}",
    "src/memory/bad.cpp": '#include "core/loop_core.hpp"',
    "src/core/bad_device.cpp": '#include "transport/socket/socket.hpp"',
    "src/core/bad_common.cpp": '#include "transport/common/descriptor.hpp"',
    "src/core/bad_vendor.cpp": "#include <infiniband/verbs.h>",
    "src/core/bad_upwards.cpp": '#include "../thread/pool.hpp"',
    "src/transport/bad.hpp": '#include "core/loop_core.hpp"',
    "src/transport/common/bad.cpp": '#include "transport/socket/socket.hpp"',
    "src/transport/rdma/bad_sibling.cpp": '#include "transport/socket/socket.hpp"',
    "src/transport/rdma/bad_core.cpp": '#include "core/loop_core.hpp"',
    "src/thread/bad.cpp": '#include "transport/transport.hpp"',
    "src/capi/bad.cpp": '#include "core/loop_core.hpp"',
    "src/nowhere/bad.cpp": "",
    "src/bad.cpp": "",
    "tools/evpl/bad.cpp": "#include <core/loop_core.hpp>",
    "tools/rdma_probe/bad.cpp": '#include "transport/socket/socket.hpp"',
    "tools/socket_probe/bad.cpp": '#include "core/loop_core.hpp"',
    "examples/bad.cpp": '#include "memory/heap.hpp"',
    "examples/bad_missing.cpp": '#include "evpl/no_such.hpp"',
}


def self_test():
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)

        def plant(files):
            for name, text in files.items():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_text(text)

        assert list(violations(root)), "an empty tree must not pass"
        plant(ALLOWED)
        found = list(violations(root))
        assert not found, found
        plant({"src/thread/pool.hpp": ""})
        for name, bad_line in PLANTED.items():
            plant({name: f"#pragma once\n\n{bad_line}\n"})
            found = list(violations(root))
            line = 3 if bad_line else 1
            assert len(found) == 1 and found[0].startswith(f"{name}:{line}: "), (name, found)
            print(found[0])
            (root / name).unlink()
    print(f"{len(PLANTED)} planted violations, each was named")


def main():
    if sys.argv[1:] == ["--self-test"]:
        self_test()
        return 0
    root = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parent.parent
    found = list(violations(root))
    for each in found:
        print(each)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
