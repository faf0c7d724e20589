#!/usr/bin/env python3
"""System calls per 64-byte echo on one connection, floor and evpl sleeping.

Counts with strace around two runs of different length; the difference removes start-up and end.
Counting changes timing, so this says how many calls there are, not how long they take.
"""
import argparse
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
FEW, MANY = 500, 2500


def count(command, load, echoes):
    """System calls by name of the server during its whole life."""
    with tempfile.NamedTemporaryFile(mode="r") as table:
        tracer = subprocess.Popen(["strace", "-f", "-c", "-o", table.name, *map(str, command)], stdout=subprocess.PIPE, text=True)
        line = tracer.stdout.readline()
        port = re.search(r":(\d+)\b", line.rsplit("//", 1)[-1])
        if not port:
            sys.exit(f"syscalls: {command[0]} did not say where it listens: {line}")
        subprocess.run([str(load), "closed", "--target", f"127.0.0.1:{port.group(1)}", "--requests", str(echoes)],
                       check=True, stdout=subprocess.DEVNULL, timeout=60)
        time.sleep(0.1)
        children = pathlib.Path(f"/proc/{tracer.pid}/task/{tracer.pid}/children").read_text().split()
        subprocess.run(["kill", "-TERM", *children])
        tracer.wait(10)
        return parse(table.read())


def parse(table):
    """Lines are: % time, seconds, usecs/call, calls, [errors], name."""
    calls = {}
    for line in table.splitlines():
        words = line.split()
        if len(words) >= 5 and words[3].isdigit() and words[-1] != "total":
            calls[words[-1]] = int(words[3])
    return calls


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=pathlib.Path, default=ROOT / "build/release/bin/bench")
    parser.add_argument("--evpl", type=pathlib.Path, default=ROOT / "build/release/bin/evpl")
    parser.add_argument("--mode", default="event")
    parser.add_argument("--scheme", default="tcp")
    parser.add_argument("server", nargs="*", help="another server's command line, instead of these two")
    options = parser.parse_args()
    commands = {"floor": [options.bin / "epoll_echo"]}
    if options.evpl.exists():
        commands["evpl"] = [options.evpl, "echo", "--listen", f"{options.scheme}://127.0.0.1:20999", "--mode", options.mode]
    if options.server:
        commands = {options.server[0]: options.server}
    for name, command in commands.items():
        few, many = count(command, options.bin / "load", FEW), count(command, options.bin / "load", MANY)
        each = {call: (many[call] - few.get(call, 0)) / (MANY - FEW) for call in many}
        shown = ", ".join(f"{call} {value:.2f}" for call, value in sorted(each.items(), key=lambda one: -one[1]) if value >= 0.005)
        print(f"{name}: {sum(each.values()):.2f} system calls per echo ({shown})")


if __name__ == "__main__":
    main()
