#!/usr/bin/env python3
"""CPU time to compile the echo examples without optimisation, as somebody who edits one waits for it. See README.md.

Exit status: 0 every bar is cleared, 1 a bar is missed or something does not compile.
"""
import argparse
import os
import pathlib
import resource
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
BARS_S = {"echo": 0.6, "co_echo": 0.8}


def compile_s(compiler, source):
    """User and system time of the compiler and all it starts, in seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    # A compiler's cache would give back what it has seen.
    subprocess.run([compiler, "-std=c++20", "-O0", "-I", ROOT / "include", "-c", source, "-o", os.devnull], check=True,
                   env={**os.environ, "CCACHE_DISABLE": "1"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compiler", default="g++")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    missed = False
    for example, bar_s in BARS_S.items():
        taken = sorted(compile_s(options.compiler, ROOT / "examples" / f"{example}.cpp") for _ in range(options.rounds))
        middle_s = statistics.median(taken)
        missed |= middle_s > bar_s
        print(f"{example:10} {middle_s:.2f} s CPU ({taken[0]:.2f} to {taken[-1]:.2f}), bar {bar_s} s{'' if middle_s <= bar_s else ': MISSED'}")
    return 1 if missed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as failed:
        sys.exit(f"compile: {' '.join(map(str, failed.cmd))}: exit {failed.returncode}")
