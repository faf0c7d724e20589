#!/usr/bin/env python3
"""A fuzz target with a mistake in the library it tests (cmake/EvplFuzz.cmake) has to find it, twice: when its corpus is replayed, the program
ends by the trap of a demand that is not met; and mutations of those inputs that do not show the mistake come to one that does, which is kept and
shows it again.

usage: must_find.py PROGRAM CORPUS
"""
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

FINDS = (-signal.SIGILL, -signal.SIGTRAP)  # what __builtin_trap() is
SEED = 1

program, corpus = sys.argv[1], pathlib.Path(sys.argv[2])


def run(*words):
    return subprocess.run([program, *map(str, words)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=50)


def finds(*words):
    return run(*words).returncode in FINDS


replay = run(corpus)
if replay.returncode not in FINDS:
    sys.exit(f"FAILED: the mistake is not found, the replay ended with {replay.returncode}\n{replay.stdout}{replay.stderr}")
with tempfile.TemporaryDirectory() as name:
    harmless, found = pathlib.Path(name, "harmless"), pathlib.Path(name, "found")
    harmless.mkdir()
    for file in corpus.iterdir():
        if not finds(file):
            shutil.copy(file, harmless)
    if finds(harmless):
        sys.exit("FAILED: inputs that do not show the mistake one by one show it together")
    mutations = run("--mutate", 20, SEED, found, harmless)
    kept = list(found.iterdir()) if found.exists() else []
    if mutations.returncode != 1 or len(kept) != 1 or not finds(kept[0]):
        sys.exit(f"FAILED: mutations do not find the mistake, or what they keep does not show it: {kept}\n{mutations.stdout}{mutations.stderr}")
print("the mistake is found")
print(mutations.stdout, end="")
