#!/usr/bin/env python3
"""A fuzz target with a mistake in the library it tests (cmake/EvplFuzz.cmake) is replayed with its corpus, and has to find it: the program
ends by the trap of a demand that is not met. That it ends in any other way, or well, is a failure.

usage: must_find.py PROGRAM CORPUS
"""
import signal
import subprocess
import sys

FINDS = (signal.SIGILL, signal.SIGTRAP)  # what __builtin_trap() is

code = subprocess.run(sys.argv[1:], stdin=subprocess.DEVNULL, timeout=50).returncode
if code not in [-each for each in FINDS]:
    sys.exit(f"FAILED: the mistake is not found, the replay ended with {code}")
print("the mistake is found")
