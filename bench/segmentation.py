#!/usr/bin/env python3
"""CPU per datagram with and without UDP segmentation (GSO, GRO), the library at both ends, both ends summed.

An echo server and `evpl perf --test rate` exchange datagrams of equal size; ?segmentation=no is the same without. Rounds are
interleaved, figures are medians. Exit status: 0 both bars are cleared, 1 one is missed.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

import processes

ROOT = pathlib.Path(__file__).resolve().parent.parent
BARS = {64: 10, 1400: 4}  # times less CPU


def cpu_seconds(pid):
    """User and system time of a process that lives."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run_client(command):
    """CPU seconds of the client, and how many datagrams came back."""
    with tempfile.NamedTemporaryFile(mode="r", suffix=".json") as report:
        process = subprocess.Popen([*command, "--json", report.name], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status != 0:
            raise SystemExit(f"segmentation: {' '.join(command)} ended with status {status}")
        return usage.ru_utime + usage.ru_stime, messages_of(json.loads(report.read()))


def messages_of(report):
    return sum(run["messages"] for run in report["results"])


def us_per_datagram(size, segmentation, options):
    processes.enter_namespace()
    url = f"udp://127.0.0.1:{{}}?segmentation={segmentation}"
    command = [str(options.evpl), "echo", "--listen", url.format(0), "--mode", "event"]
    with processes.ServerProcess(command) as server:
        before = cpu_seconds(server.pid)
        client_s, messages = run_client(["taskset", "-c", str(processes.LOAD_CPU), str(options.evpl), "perf", "--connect", url.format(server.port),
                                         "--test", "rate", "--size", str(size), "--depth", str(options.depth), "--time", str(options.seconds),
                                         "--warmup", "0", "--mode", "event"])
        return 1e6 * (cpu_seconds(server.pid) - before + client_s) / messages


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evpl", type=pathlib.Path, default=ROOT / "build/release/bin/evpl")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--depth", type=int, default=256, help="datagrams in flight")
    options = parser.parse_args()
    missed = False
    print("CPU per datagram, both ends summed, median (least..most) in us")
    for size, bar in BARS.items():
        spent = {"yes": [], "no": []}
        for _ in range(options.rounds):
            for segmentation, values in spent.items():
                values.append(us_per_datagram(size, segmentation, options))
        gain = statistics.median(no / yes for yes, no in zip(spent["yes"], spent["no"]))
        missed |= gain < bar
        shown = "   ".join(f"{name} {statistics.median(v):.3f} ({min(v):.3f}..{max(v):.3f})"
                           for name, v in (("segmented", spent["yes"]), ("one by one", spent["no"])))
        print(f"{size:5} B   {shown}   {gain:.1f} times less (bar {bar}): {'missed' if gain < bar else 'cleared'}", flush=True)
    sys.exit(missed)


if __name__ == "__main__":
    main()
