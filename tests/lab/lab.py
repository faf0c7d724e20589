#!/usr/bin/env python3
"""Runs commands and test programs in an emulated Linux guest with soft-RoCE. See docs/lab.md.

lab.py [COMMAND]   COMMAND, or what the variable LAB_CMD holds; exit status as its own, 124 time limit, 125 guest died, 77 not possible here
                   without either: the tests of the lab (suite.py); 0 only if something passed and nothing failed
"""
import fcntl
import itertools
import os
import signal
import sys

import guest
import suite


def folder_of_our_own(parent):
    """A folder that no other guest of this checkout uses, build/lab/run for the only one, and the lock that keeps it so."""
    parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        folder = parent / ("run" if number == 1 else f"run-{number}")
        lock = open(folder.with_suffix(".lock"), "w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return folder, lock
        except BlockingIOError:
            lock.close()


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    command = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("LAB_CMD", "")
    if not command:
        return suite.main()
    folder, lock = folder_of_our_own(guest.ROOT / "build/lab")
    try:
        return guest.run(command, folder, guest.Settings())
    except guest.Absent as why:
        print(f"SKIP: {why}", flush=True)
        return 77
    finally:
        lock.close()


if __name__ == "__main__":
    sys.exit(main())
