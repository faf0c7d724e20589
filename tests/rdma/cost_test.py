#!/usr/bin/env python3
"""What a message costs our RDMA loop, counted on the verbs double in memory-only mode: no allocation, no locked instruction, one doorbell per batch,
and no more instructions of our own than it takes now.

Locked instructions are counted where they are executed: callgrind says how often each instruction ran, objdump which of them lock. Two runs of different
length are compared, so that what happens once does not count. `cost_test.py --report` also prints instructions per pair of both loops. EVPL_BUILD names another build, such as build/release."""
import json
import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../bench"))
import callgrind  # noqa: E402

BUILD = os.environ.get("EVPL_BUILD", "build/dev")
PROGRAM = os.path.join(BUILD, "bin/bench/rdma_double")
SHORT, LONG = 20_000, 60_000
# What was measured, and a tenth: compilers differ. Debug is -O1 with the checks of the library and of the standard library's containers.
INSTRUCTIONS_MOST = {"Release": 690, "Debug": 900}


def skip(why):
    print(f"SKIP: {why}")
    sys.exit(77)


def optimised():
    with open(os.path.join(BUILD, "CMakeCache.txt"), encoding="utf-8") as cache:
        return "CMAKE_BUILD_TYPE:STRING=Release\n" in cache.read()


def per_pair(only):
    """(instructions, {place: locked instructions}) of a pair."""
    few, many = (callgrind.profile([PROGRAM, "--pairs", str(pairs), "--rounds", "1", "--only", only], function="*counted*") for pairs in (SHORT, LONG))
    return callgrind.per_unit(few, many, LONG - SHORT)


def main():
    if os.environ.get("EVPL_SANITIZE"):
        skip("a sanitizer's own instructions would be counted")
    if not os.path.exists(PROGRAM):
        skip("this build has no RDMA")
    failed = False

    def expect(good, what):
        nonlocal failed
        print(("ok      " if good else "FAILED  ") + what)
        failed = failed or not good

    lines = subprocess.run([PROGRAM, "--pairs", "400000", "--rounds", "3"], check=True, capture_output=True, text=True, timeout=120).stdout.splitlines()
    for line in lines:
        print(line)
    counts = next(one for one in map(json.loads, lines) if one.get("loop") == "evpl")
    expect(counts["allocations_per_pair"] == 0, "a message allocates nothing")
    notes = counts["sends_per_pair"] - 1  # sends without payload, each with a doorbell of its own
    expect(counts["doorbells_per_batch"] <= 1.01, "a batch of sends is one doorbell")
    expect(notes <= 0.001, "credits travel with the payload")
    for tool in callgrind.WANTS:
        if shutil.which(tool) is None:
            if failed:
                sys.exit(1)
            skip(f"locked instructions are counted with {tool}")
    instructions, locked = per_pair("evpl")
    expect(callgrind.profile([PROGRAM, "--pairs", "1000", "--rounds", "1", "--only", "evpl"])[1], "locked instructions are seen where there are some, while connecting")
    # A polling loop asks the kernel every so many turns, and libc locks on the way in and out of a call that may be cancelled (pthreads(7)).
    by_libc = sum(times for place, times in locked.items() if "_asynccancel " in place)
    ours = {place: times for place, times in locked.items() if "_asynccancel " not in place}
    expect(not ours, "a message executes no locked instruction" + "".join(f"\n          {times:.3f} {place}" for place, times in ours.items()))
    expect(by_libc <= 0.1, f"system calls are for many messages: libc locks {by_libc:.3f} times per pair for them")
    by_hand, _ = per_pair("hand")
    most = INSTRUCTIONS_MOST["Release" if optimised() else "Debug"]
    expect(instructions - by_hand <= most, f"a pair takes {instructions - by_hand:.0f} instructions of our own, at most {most}")
    if "--report" in sys.argv:
        print(f"instructions per pair: {instructions:.1f}, by hand {by_hand:.1f}, ours {instructions - by_hand:.1f}")
    sys.exit(1 if failed else 0)


main()
