#!/usr/bin/env python3
"""What a received and a sent message of 64 bytes cost over XLIO beyond a loop written by hand, on the stand-in of the library without kernel
sockets: time, allocations, locks, and with valgrind instructions and locked instructions. Bars: 100 ns, nothing, nothing, nothing.

Exit status: 0 every bar is cleared, 1 one is missed.
"""
import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys

import callgrind

ROOT = pathlib.Path(__file__).resolve().parent.parent
NS_BAR = 100.0


def environment(build, knobs="memory"):
    return {**os.environ, "EVPL_XLIO_LIBRARY": str(build / "tests/libxlio_double.so"), "EVPL_XLIO_CHECK": "off", "EVPL_XLIO_PROBE": "off", "XLIO_DOUBLE": knobs}


def run(build, *arguments):
    command = [build / "bin/bench/pair", *map(str, arguments)]
    return json.loads(subprocess.run(command, env=environment(build), check=True, stdout=subprocess.PIPE, text=True, timeout=300).stdout)


def per_pair(build, only, depth, few=2000, many=12000):
    """(instructions, {place: locked instructions}) of a pair."""
    def profile(pairs):
        command = [build / "bin/bench/pair", "--pairs", str(pairs), "--depth", str(depth), "--only", only]
        return callgrind.profile(command, environment(build), f"(anonymous namespace)::exchange_by_{only}*")
    return callgrind.per_unit(profile(few), profile(many), many - few)


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
        if not all(map(shutil.which, callgrind.WANTS)):
            print("SKIP: instructions are not counted: valgrind or objdump is not installed")
            continue
        by_hand, by_evpl = per_pair(options.build, "hand", depth), per_pair(options.build, "evpl", depth)
        print(f"depth {depth}: instructions by hand {by_hand[0]:.1f}, evpl {by_evpl[0]:.1f}; locked by hand {sum(by_hand[1].values()):.3f}, evpl {sum(by_evpl[1].values()):.3f} (bar 0)")
        for place, times in by_evpl[1].items():
            print(f"depth {depth}: {times:.3f} {place}")
        if by_evpl[1]:
            missed.append(f"locked instructions at depth {depth}")
    if missed:
        print("MISSED: " + ", ".join(missed))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
