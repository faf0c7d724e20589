#!/usr/bin/env python3
"""Opens connections and holds them, and tells how one ends that should not. Says "held" when all are open, and nothing more while they last.

usage: hold.py HOST:PORT COUNT
"""
import collections
import select
import socket
import sys
import time


def counters():
    """What the kernel has counted so far of what ends or loses connections."""
    found = {}
    with open("/proc/net/netstat", encoding="ascii") as file:
        for names, values in zip(file, file):
            found |= dict(zip(names.split(), values.split()))
    with open("/proc/net/softnet_stat", encoding="ascii") as file:
        found["dropped in the backlog"] = sum(int(line.split()[1], 16) for line in file)
    wanted = ("TCPKeepAlive", "TCPAbortOnTimeout", "TCPAbortOnMemory", "dropped in the backlog")
    return collections.Counter({name: int(found.get(name, 0)) for name in wanted})


def how_it_ended(one):
    try:
        got = one.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        return "got bytes nobody asked for" if got else "end of stream"
    except BlockingIOError:
        return "lasts"
    except OSError as error:
        return error.strerror


def main():
    host, port = sys.argv[1].rsplit(":", 1)
    began, before = time.monotonic(), counters()
    held = [socket.create_connection((host, int(port))) for _ in range(int(sys.argv[2]))]
    print("held", flush=True)
    poll = select.poll()
    for each in held:
        poll.register(each, select.POLLIN)
    poll.poll()
    after = time.monotonic() - began
    time.sleep(1)  # what ends together is told together
    ends = collections.Counter(how_it_ended(each) for each in held)
    counted = ", ".join(f"{name} {count}" for name, count in (counters() - before).items())
    sys.exit(f"hold: after {after:.1f} s: " + ", ".join(f"{count} {how}" for how, count in ends.most_common()) + f"; meanwhile {counted or 'no losses'}")


main()
