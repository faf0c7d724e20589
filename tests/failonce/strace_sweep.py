#!/usr/bin/env python3
"""System calls fail once, made to by strace: what the preloaded shim of sweep_test.py does not see, because the kernel itself answers.
The scenarios of failonce_program judge themselves; the examples that end by themselves must end, and not by a signal. Each injection is
looked for in strace's own log: one that did not happen is a failure, where the call is sure to come. Takes minutes: part of make night.

usage: strace_sweep.py [PROGRAM...]     EVPL_BUILD names the build tree; TURNS=8: the first so many calls of each kind
"""
import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("EVPL_BUILD", ROOT / "build/dev"))
TURNS = int(os.environ.get("TURNS", "8"))
TIME_S = 60

ERRORS = {
    "socket": ["EMFILE", "ENOBUFS"], "bind": ["EADDRINUSE"], "listen": ["EADDRINUSE"], "accept4": ["EMFILE", "ECONNABORTED", "ENOBUFS"],
    "connect": ["ECONNREFUSED", "ENETUNREACH", "EADDRNOTAVAIL"], "epoll_create1": ["EMFILE"], "epoll_ctl": ["ENOSPC", "ENOMEM"],
    "epoll_pwait2": ["EINTR", "ENOSYS"], "eventfd2": ["EMFILE"], "timerfd_create": ["EMFILE"], "recvfrom": ["ECONNRESET", "EINTR", "ENOMEM"],
    "recvmsg": ["ECONNRESET", "EINTR"], "sendto": ["ECONNRESET", "EPIPE", "ENOBUFS", "EINTR"], "sendmsg": ["ECONNRESET", "ENOBUFS", "EINTR"],
    "sendmmsg": ["ENOBUFS", "EPERM", "EINTR"], "recvmmsg": ["ENOMEM", "EINTR"], "setsockopt": ["ENOPROTOOPT"], "getsockopt": ["ENOBUFS"],
    "getsockname": ["ENOBUFS"], "shutdown": ["ENOTCONN"], "madvise": ["EINVAL"], "io_uring_setup": ["EPERM", "ENOMEM"],
}
SCENARIOS = ["tcp", "udp", "unix_descriptor", "pool", "coroutines"]
EXAMPLES = ["timer", "inproc_pair", "inproc_pipeline", "remote_memory", "nested_loop"]
# How often these come depends on the kernel and on threads: only the first turn is sure.
TIMED = {"accept4", "epoll_pwait2", "recvfrom", "recvmsg", "recvmmsg", "sendto", "sendmsg", "sendmmsg", "connect"}
THREADS = {"pool", "coroutines"} | set(EXAMPLES)


def command_of(program):
    return [str(BUILD / "tests/failonce_program"), program, "--once"] if program in SCENARIOS else [str(BUILD / "examples" / program)]


def trace(program, *options):
    """strace's log, and the exit code (None: it did not end)."""
    with tempfile.NamedTemporaryFile("r") as log:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("EVPL_")}
        try:
            run = subprocess.run(["strace", "-f", "--seccomp-bpf", "-o", log.name, *options, *command_of(program)], stdin=subprocess.DEVNULL,
                                 capture_output=True, text=True, timeout=TIME_S, check=False, env=environment)
            return log.read(), run.returncode, run.stdout + run.stderr
        except subprocess.TimeoutExpired:
            return log.read(), None, ""


def inject(plan):
    program, call, error, turn = plan
    # Without trace= of the same call strace injects nothing, and does not say so.
    log, code, said = trace(program, "-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={turn}")
    name = f"{program}: {call} {turn} {error}"
    if code is None:
        return f"{name}: does not end", False
    happened = "(INJECTED)" in log
    # strace counts each thread's calls by themselves: where several threads were hit, more may be hurt than the scenario allows for.
    judges_itself = program in SCENARIOS and log.count("(INJECTED)") <= 1
    if code < 0 or code >= 128 or (judges_itself and code != 0):
        return f"{name}: exit code {code}: {said.strip()[-500:]}", True
    if not happened and (turn == 1 or not (call in TIMED or program in THREADS)):
        return f"{name}: did not happen", False
    return None, happened


def main():
    if shutil.which("strace") is None:
        print("SKIP: strace is not installed")
        return 77
    plans = []
    for program in sys.argv[1:] or SCENARIOS + EXAMPLES:
        log, code, said = trace(program, "-e", "trace=" + ",".join(ERRORS))
        if code != 0:
            print(f"SKIP: {program} under strace: exit code {code}: {said.strip()[-300:]}")
            return 77
        for call, errors in ERRORS.items():
            turns = min(TURNS, len(re.findall(rf"^\d+ +{call}\(", log, re.M)))
            plans += [(program, call, error, turn) for turn in range(1, turns + 1) for error in errors]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as executor:
        results = list(executor.map(inject, plans))
    failures = [wrong for wrong, _ in results if wrong is not None]
    for failure in failures[:40]:
        print("FAILED", failure)
    print(f"{sum(happened for _, happened in results)} of {len(plans)} injections happened")
    print(f"{len(plans) - len(failures)} passed, {len(failures)} failed, 0 skipped")
    return 1 if failures or not plans else 0


sys.exit(main())
