#!/usr/bin/env python3
"""The C interface of libevpl.so is what tests/abi/evpl.abi says, or more: nothing that programs rely on has gone or changed.

usage: abi_test.py                 compare, EVPL_BUILD names the build tree
       abi_test.py --renew FOLDER  write the baseline from FOLDER/libevpl.so
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BASELINE = HERE / "evpl.abi"
SYMBOLS = HERE / "evpl.symbols"
CHANGED = 4 | 8  # abidiff's bits for a change, and for one that is surely incompatible


def symbols_of(library):
    """evpl_name@@EVPL_0.1, sorted: exported C functions with their versions."""
    shown = subprocess.run(["nm", "-D", "--defined-only", "--with-symbol-versions", library], capture_output=True, text=True, check=True).stdout
    return sorted(found[1] for found in re.finditer(r" [A-Z] (evpl_\S+)", shown))


def describe(out):
    """The types of evpl.h alone, from a library of empty functions: the C++ inside may change as it likes."""
    header = (ROOT / "include/evpl/evpl.h").read_text()
    bodies = re.sub(r"^(EVPL_API [^;]*);", r"\1 { __builtin_unreachable(); }", header, flags=re.M)
    stub = pathlib.Path(out).with_suffix(".c")
    stub.write_text(bodies)
    library = pathlib.Path(out).with_suffix(".so")
    subprocess.run(["gcc", "-std=c11", "-g", "-O0", "-fPIC", "-shared", "-o", library, stub], check=True)
    subprocess.run(["abidw", "--no-corpus-path", "--no-comp-dir-path", "--no-show-locs", "--out-file", out, library], check=True)


def main():
    if sys.argv[1:2] == ["--renew"]:
        library = pathlib.Path(sys.argv[2], "libevpl.so")
        with tempfile.TemporaryDirectory() as folder:
            describe(pathlib.Path(folder, "evpl.abi"))
            shutil.copy(pathlib.Path(folder, "evpl.abi"), BASELINE)
        SYMBOLS.write_text("\n".join(symbols_of(library)) + "\n")
        return 0
    library = pathlib.Path(os.environ.get("EVPL_BUILD", ROOT / "build/dev"), "libevpl.so")
    gone = sorted(set(SYMBOLS.read_text().split()) - set(symbols_of(library)))
    declared = set(re.findall(r"^EVPL_API .*?\b(evpl_\w+)\(", (ROOT / "include/evpl/evpl.h").read_text(), re.M))
    exported = {symbol.split("@")[0] for symbol in symbols_of(library)}
    if gone or declared != exported:
        print(f"gone since the baseline: {gone}; declared and not exported, or the other way: {sorted(declared ^ exported)}")
        return 1
    if not shutil.which("abidiff"):
        print("SKIP: abidiff and abidw are absent (Debian: abigail-tools); only the names were compared")
        return 77
    with tempfile.TemporaryDirectory() as folder:
        now = pathlib.Path(folder, "now.abi")
        describe(now)
        found = subprocess.run(["abidiff", "--no-added-syms", BASELINE, now], capture_output=True, text=True, check=False)
    print(found.stdout, found.stderr, sep="", end="")
    if found.returncode & (1 | 2 | CHANGED):
        print("the C interface changed: make it compatible, or renew the baseline on purpose with `make abi-baseline`")
        return 1
    print("1 passed, 0 failed")
    return 0


sys.exit(main())
