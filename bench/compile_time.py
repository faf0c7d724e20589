#!/usr/bin/env python3
"""CPU time to compile the echo examples without optimisation: what a user of the headers waits for.

Medians of some runs of `g++ -O0 -c`, against the bars. Exit status: 0 all are cleared, 1 one is missed.
"""
import argparse
import os
import pathlib
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
BARS_S = {"echo.cpp": 0.6, "co_echo.cpp": 0.8}


def cpu_seconds(command):
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"compile_time: {' '.join(command)} failed")
    return usage.ru_utime + usage.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compiler", default="g++")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    version = subprocess.run([options.compiler, "-dumpfullversion"], capture_output=True, text=True, check=True).stdout.strip()
    print(f"CPU time to compile with {options.compiler} {version} -O0, median (least..most) in s")
    missed = False
    for name, bar in BARS_S.items():
        command = [options.compiler, "-std=c++20", "-O0", "-I", str(ROOT / "include"), "-c", str(ROOT / "examples" / name), "-o", os.devnull]
        spent = [cpu_seconds(command) for _ in range(options.rounds)]
        median = statistics.median(spent)
        missed |= median > bar
        print(f"{name:12} {median:.2f} ({min(spent):.2f}..{max(spent):.2f}), bar {bar}: {'missed' if median > bar else 'cleared'}")
    sys.exit(missed)


if __name__ == "__main__":
    main()
