#!/usr/bin/env python3
"""Compares evpl with a hand-written floor, with libuv and with Asio. See README.md.

Exit status: 0 every judged bar is cleared, 1 a bar is missed or a run failed, 2 refused to start,
3 nothing missed but something was too unsteady to count.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

import cells as matrix
import processes
import report

ROOT = pathlib.Path(__file__).resolve().parent.parent
LOAD_AVERAGE_MAX = 0.3


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", default="all", help="comma separated names or beginnings of names, NAME/sleep or NAME/spin; default all")
    parser.add_argument("--list", action="store_true", help="print the cells and stop")
    parser.add_argument("--servers", default="all", help="comma separated: floor-A,evpl,evpl-hybrid,floor-B,libuv,asio,...")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--max-rounds", type=int, default=15, help="when floor A and B disagree by more than 4 %%")
    parser.add_argument("--seconds", type=float, default=1, help="measured per run")
    parser.add_argument("--warmup", type=float, default=0.2)
    parser.add_argument("--bin", type=pathlib.Path, default=ROOT / "build/release/bin/bench", help="floors, peers, load")
    parser.add_argument("--evpl", type=pathlib.Path, default=ROOT / "build/release/bin/evpl")
    parser.add_argument("--tcp-scheme", default="tcp", help="e.g. uring")
    parser.add_argument("--udp-scheme", default="udp", help="e.g. uring-udp")
    parser.add_argument("--url-options", default="", help="appended to evpl's URL after '?'")
    parser.add_argument("--json", type=pathlib.Path, help="write all figures here")
    parser.add_argument("--markdown", type=pathlib.Path, help="write the tables here")
    parser.add_argument("--wait", type=float, default=0, metavar="S", help="wait up to S seconds for a quiet machine")
    parser.add_argument("--force", action="store_true", help="measure although the machine is busy")
    parser.add_argument("--no-namespace", action="store_true", help="use the network of the machine")
    return parser.parse_args()


def select_cells(wanted):
    every = matrix.all_cells()
    if wanted == "all":
        return every
    chosen = []
    for name in wanted.split(","):
        name, _, wait = name.partition("/")
        fitting = [c for c in every if c.name == name] or [c for c in every if c.name.startswith(name)]
        fitting = [c for c in fitting if not wait or c.wait == wait]
        if not fitting:
            sys.exit(f"compare: no cell {name}; --list shows them")
        chosen += [c for c in fitting if c not in chosen]
    return chosen


def servers_of(cell, options):
    wanted = None if options.servers == "all" else options.servers.split(",")
    present = [s for s in cell.servers if program_of(s, options).exists()]
    return [s for s in present if wanted is None or s.name in wanted]


def program_of(server, options):
    return options.evpl if server.program == "evpl" else options.bin / server.program


def insist_on_quiet(options):
    until = time.monotonic() + options.wait
    while (average := os.getloadavg()[0]) > LOAD_AVERAGE_MAX and time.monotonic() < until:
        print(f"waiting for a quiet machine, load average {average:.2f}", flush=True)
        time.sleep(5)
    if average <= LOAD_AVERAGE_MAX or options.force:
        return average
    print(f"compare: the load average is {average:.2f}, above {LOAD_AVERAGE_MAX}: figures would mislead. "
          "Stop other work, or --wait 120, or --force.", file=sys.stderr)
    sys.exit(2)


def output_of(*command):
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    return done.stdout.strip() if done.returncode == 0 else ""


def describe_machine(load_average):
    cpu = dict(line.split(":", 1) for line in output_of("lscpu").splitlines() if ":" in line)
    commit = output_of("git", "rev-parse", "--short=12", "HEAD") or "unknown"
    return {
        "cpu": f"{cpu.get('Model name', 'unknown').strip()}, {os.cpu_count()} cores",
        "kernel": os.uname().release,
        "commit": commit + (" with local changes" if output_of("git", "status", "--porcelain") else ""),
        "time": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "load average at start": round(load_average, 2),
    }


def check_congestion(cells, options, paths):
    """What each program's accepted sockets really use. bbr makes every comparison worthless."""
    seen = {}
    for cell in cells:
        for server in servers_of(cell, options):
            if not cell.udp and server.program not in seen:
                try:
                    seen[server.program] = processes.congestion_of(server, cell, paths)
                except (processes.RunFailed, OSError) as failure:
                    seen[server.program] = "unknown"
                    print(f"compare: {failure}", file=sys.stderr)
    for program, control in seen.items():
        if control not in ("cubic", "reno"):
            print(f"compare: warning: {program} runs with {control}", file=sys.stderr)
    return ", ".join(f"{program} {control}" for program, control in seen.items()) or "not used"


def run_round(number, cell, servers, runs, options, paths):
    shift = number % len(servers)
    for server in servers[shift:] + servers[:shift]:
        result = processes.run_undisturbed(server, cell, options.seconds, options.warmup, paths)
        runs[server.name].append(result)
        figures = "  ".join(f"{report.TITLES[m]} {report.number(result[m])}" for m in cell.shown)
        print(f"  round {number + 1:2} {server.name:12} {figures}", flush=True)


def measure(cell, options, paths):
    servers = servers_of(cell, options)
    runs = {server.name: [] for server in servers}
    failures, rounds, number = [], cell.rounds or options.rounds, 0
    rounds = min(rounds, options.rounds)
    print(f"{cell.name}/{cell.wait}", flush=True)
    while servers and number < rounds:
        try:
            run_round(number, cell, servers, runs, options, paths)
        except processes.RunFailed as failure:
            failures.append(str(failure))
            print(f"  FAILED {failure}", flush=True)
            # Each failure names its server: the others go on without it, from the last whole round.
            dead = [s for s in servers if len(runs[s.name]) <= number and f" {s.name}:" in str(failure)]
            servers = [s for s in servers if s not in dead] if dead else []
            for name in runs:
                del runs[name][number:]
            continue
        number += 1
        both_floors = {"floor-A", "floor-B"} <= {s.name for s in servers}
        if number == rounds and both_floors and (cell.bars or cell.claims) and not report.steady(cell, runs) and rounds < options.max_rounds:
            rounds += 1
    result = {"name": cell.name, "wait": cell.wait, "rounds": number, "runs": runs, "failures": failures}
    result["verdicts"] = report.judge(cell, runs)
    print(report.markdown_cell(result, cell), flush=True)
    return result


def exit_status(results):
    verdicts = [v["verdict"] for result in results for v in result["verdicts"]]
    if "FAIL" in verdicts or any(result["failures"] for result in results):
        return 1
    return 3 if "UNSTEADY" in verdicts else 0


def main():
    options = parse_arguments()
    cells = select_cells(options.cells)
    if options.list:
        print("\n".join(f"{c.name}/{c.wait}" for c in cells))
        return 0
    if not (options.bin / "load").exists():
        sys.exit(f"compare: {options.bin}/load is missing; build first, or give --bin")
    if not options.evpl.exists():
        print(f"compare: {options.evpl} is missing; measuring the others", file=sys.stderr)
    load_average = insist_on_quiet(options)
    problem = "the machine's own network" if options.no_namespace else processes.enter_namespace()
    paths = {"bin": options.bin, "evpl": options.evpl, "tcp_scheme": options.tcp_scheme, "udp_scheme": options.udp_scheme,
             "url_options": options.url_options, "namespace": problem is None}
    document = {
        "machine": describe_machine(load_average),
        "parameters": {
            "rounds": options.rounds, "max rounds": options.max_rounds, "seconds": options.seconds, "warm-up": options.warmup,
            "evpl schemes": f"{options.tcp_scheme}, {options.udp_scheme} {options.url_options}".strip(),
            "network": problem or "own namespace",
            "congestion control": check_congestion(cells, options, paths),
        },
        "cells": [],
    }
    for cell in cells:
        document["cells"].append(measure(cell, options, paths))
        if options.json:  # after each cell, so that an interrupted run is not lost
            options.json.write_text(json.dumps(document, indent=1) + "\n")
        if options.markdown:
            options.markdown.write_text(report.markdown(document, cells))
    verdicts = [v["verdict"] for result in document["cells"] for v in result["verdicts"]]
    print(f"{verdicts.count('PASS')} passed, {verdicts.count('FAIL')} failed, {verdicts.count('UNSTEADY')} unsteady")
    return exit_status(document["cells"])


if __name__ == "__main__":
    sys.exit(main())
