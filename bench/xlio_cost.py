#!/usr/bin/env python3
"""What a received and a sent message of 64 bytes cost over XLIO beyond a loop written by hand, on the stand-in of the library without kernel
sockets: time, allocations, locks, and with valgrind instructions and locked instructions. Bars: 100 ns, nothing, nothing, nothing.

Exit status: 0 every bar is cleared, 1 one is missed.
"""
import argparse
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
NS_BAR = 100.0
# Asked in every turn until the slabs of a new connection are registered, before its first message: how often is the registering thread's affair.
BEFORE_THE_FIRST_MESSAGE = "evpl::memory::Domain::request("


def environment(build, knobs="memory"):
    return {**os.environ, "EVPL_XLIO_LIBRARY": str(build / "tests/libxlio_double.so"), "EVPL_XLIO_CHECK": "off", "EVPL_XLIO_PROBE": "off", "XLIO_DOUBLE": knobs}


def run(build, *arguments):
    command = [build / "bin/bench/pair", *map(str, arguments)]
    return json.loads(subprocess.run(command, env=environment(build), check=True, stdout=subprocess.PIPE, text=True, timeout=300).stdout)


def locked_addresses(file):
    """Where in an object file instructions lock the bus: the prefix, and an exchange with memory."""
    text = subprocess.run(["objdump", "-d", "--no-show-raw-insn", file], check=True, stdout=subprocess.PIPE, text=True).stdout
    return {int(m[1], 16) for m in re.finditer(r"(?m)^\s*([0-9a-f]+):\s+(?:lock |xchg .*\()", text)}


def profile(build, only, pairs, depth):
    """(instructions, locked instructions) of the exchange alone."""
    command = [build / "bin/bench/pair", "--pairs", str(pairs), "--depth", str(depth), "--only", only]
    return profile_command(command, environment(build), f"(anonymous namespace)::exchange_by_{only}*")


def profile_command(command, variables, function):
    """(instructions, locked instructions) of a program while it is in `function`, by callgrind."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "out"
        subprocess.run(["valgrind", "-q", "--tool=callgrind", "--dump-instr=yes", "--compress-strings=no", "--compress-pos=no", f"--callgrind-out-file={out}",
                        f"--toggle-collect={function}", *command], env=variables, check=True, stdout=subprocess.DEVNULL, timeout=600)
        return count(out.read_text())


def count(dump):
    """Sums a dump of callgrind: lines `address line cost`, under `ob=` and `fn=`; the line after `calls=` is what the callee took."""
    file, counted, skip, locked, total, at_locked = "", True, False, {}, 0, 0
    for line in dump.splitlines():
        if line.startswith("ob="):
            file = line[3:]
        elif line.startswith("fn="):
            counted = BEFORE_THE_FIRST_MESSAGE not in line
        elif line.startswith("calls="):
            skip = True
        elif line.startswith("0x"):
            if skip:
                skip = False
                continue
            words = line.split()
            cost = int(words[2]) if counted and len(words) > 2 else 0
            total += cost
            if file not in locked:
                locked[file] = locked_addresses(file) if pathlib.Path(file).is_file() else set()
            if int(words[0], 16) in locked[file]:
                at_locked += cost
    return total, at_locked


def per_pair(build, only, depth, few=2000, many=12000):
    """The difference of two runs of different length: what is done once goes away."""
    a, b = profile(build, only, few, depth), profile(build, only, many, depth)
    return [(y - x) / (many - few) for x, y in zip(a, b)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build/release")
    parser.add_argument("--depth", type=int, nargs="*", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--pairs", type=int, default=2_000_000)
    parser.add_argument("--counts-only", action="store_true", help="no bar on time: for builds with checks, and busy machines")
    options = parser.parse_args()
    missed = []
    for depth in options.depth:
        results = [run(options.build, "--pairs", options.pairs, "--depth", depth) for _ in range(options.rounds)]
        times = {name: statistics.median(one[name]["ns_per_pair"] for one in results) for name in ("hand", "evpl")}
        difference = statistics.median(one["evpl"]["ns_per_pair"] - one["hand"]["ns_per_pair"] for one in results)
        print(f"depth {depth}: by hand {times['hand']:.1f} ns, evpl {times['evpl']:.1f} ns, difference {difference:.1f} ns (bar {NS_BAR:.0f})")
        if difference > NS_BAR and not options.counts_only:
            missed.append(f"time at depth {depth}")
        for what in ("allocations", "locks"):
            worst = max(one["evpl"][what] for one in results)
            print(f"depth {depth}: {worst} {what} in {options.pairs} pairs (bar: less than one in 1000 pairs)")
            if worst * 1000 > options.pairs:
                missed.append(f"{what} at depth {depth}")
        if not shutil.which("valgrind") or not shutil.which("objdump"):
            print("SKIP: instructions are not counted: valgrind or objdump is not installed")
            continue
        by_hand, by_evpl = per_pair(options.build, "hand", depth), per_pair(options.build, "evpl", depth)
        print(f"depth {depth}: instructions by hand {by_hand[0]:.1f}, evpl {by_evpl[0]:.1f}; locked by hand {by_hand[1]:.3f}, evpl {by_evpl[1]:.3f} (bar 0)")
        if by_evpl[1] > 0.01:
            missed.append(f"locked instructions at depth {depth}")
    if missed:
        print("MISSED: " + ", ".join(missed))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
