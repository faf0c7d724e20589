#!/usr/bin/env python3
"""What a message costs our RDMA loop, counted on the verbs double in memory-only mode: no allocation, no locked instruction, one doorbell per batch.

Locked instructions are counted where they are executed: callgrind says how often each instruction ran, objdump which of them lock. Two runs of different
length are compared, so that what happens once does not count. `cost_test.py --report` also prints instructions per pair of both loops."""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

BUILD = os.environ.get("EVPL_BUILD", "build/dev")
PROGRAM = os.path.join(BUILD, "bin/bench/rdma_double")
SHORT, LONG = 20_000, 60_000
# Asked in every turn until the slabs of a new connection are registered, before its first message: how often is the registering thread's affair.
BEFORE_THE_FIRST_MESSAGE = "evpl::memory::Domain::request("


def skip(why):
    print(f"SKIP: {why}")
    sys.exit(77)


def locked_in(path, known={}):
    """Addresses of locked instructions: `lock ...`, and xchg with memory, which locks without saying so."""
    if path not in known:
        listing = subprocess.run(["objdump", "-d", "--no-show-raw-insn", path], capture_output=True, text=True).stdout
        pattern = re.compile(r"^\s*([0-9a-f]+):\s+(?:lock\b|xchg\s+[^#]*\()", re.M)
        known[path] = {int(m.group(1), 16): None for m in pattern.finditer(listing)}
    return known[path]


def run_counted(pairs, only):
    """(instructions, locked instructions by place) of a whole run."""
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "out")
        subprocess.run(["valgrind", "--tool=callgrind", "--fair-sched=yes", "--dump-instr=yes", "--compress-strings=no", "--compress-pos=no", f"--callgrind-out-file={out}",
                        PROGRAM, "--pairs", str(pairs), "--only", only], check=True, capture_output=True, timeout=300)
        total, locked, place, function, calls = 0, {}, "", "", False
        for line in open(out, encoding="utf-8", errors="replace"):
            if line.startswith("ob="):
                place = line[3:].strip()
            elif line.startswith("fn="):
                function = line[3:].strip()
            elif line.startswith("calls="):
                calls = True
            elif line.startswith("0x"):
                if calls:
                    calls = False
                    continue
                fields = line.split()
                cost = int(fields[-1])
                total += cost
                if os.path.exists(place) and int(fields[0], 16) in locked_in(place):
                    key = f"{os.path.basename(place)} {function} {fields[0]}"
                    locked[key] = locked.get(key, 0) + cost
        return total, locked


def per_pair(only):
    (few, few_locked), (many, many_locked) = run_counted(SHORT, only), run_counted(LONG, only)
    grown = {key: (count - few_locked.get(key, 0)) / (LONG - SHORT) for key, count in many_locked.items()}
    return (many - few) / (LONG - SHORT), {key: value for key, value in grown.items() if value > 0.001 and BEFORE_THE_FIRST_MESSAGE not in key}, sum(many_locked.values())


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

    lines = subprocess.run([PROGRAM, "--pairs", "400000"], check=True, capture_output=True, text=True, timeout=120).stdout.splitlines()
    for line in lines:
        print(line)
    ours = next(one for one in map(json.loads, lines) if one.get("loop") == "evpl")
    expect(ours["allocations_per_pair"] == 0, "a message allocates nothing")
    notes = ours["sends_per_pair"] - 1  # sends without payload, each with a doorbell of its own
    expect(ours["doorbells_per_batch"] - 16 * notes <= 1.01, "a batch of sends is one doorbell")
    expect(notes <= 0.02, "credits travel with the payload")
    for tool in "valgrind", "objdump":
        if shutil.which(tool) is None:
            if failed:
                sys.exit(1)
            skip(f"locked instructions are counted with {tool}")
    instructions, locked, ever = per_pair("evpl")
    expect(ever > 0, "locked instructions are seen where there are some, while connecting")
    expect(not locked, "a message executes no locked instruction" + "".join(f"\n          {count:.3f} {key}" for key, count in locked.items()))
    if "--report" in sys.argv:
        by_hand, _, _ = per_pair("hand")
        print(f"instructions per pair: {instructions:.1f}, by hand {by_hand:.1f}, ours {instructions - by_hand:.1f}")
    sys.exit(1 if failed else 0)


main()
