#!/usr/bin/env python3
"""Every call that can fail fails once: for each scenario of failonce_program, each function of the C library it calls, each of that call's
turns and each error that is plausible there, the scenario ends with success or an error by name; what has nothing to do with it works on;
afterwards the same scenario succeeds and as many blocks, descriptors and slabs are left as without a failure.

Under AddressSanitizer, whose allocator is its own, allocations do not fail, leaks are its leak checker's, and each turn gets one of the errors.

And every system call is forbidden for a whole scenario, by seccomp.

usage: sweep_test.py [SCENARIO [CALL]]     EVPL_BUILD names the build tree
"""
import concurrent.futures
import errno
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
TESTS = pathlib.Path(os.environ.get("EVPL_BUILD", ROOT / "build/dev")) / "tests"
SANITIZE = os.environ.get("EVPL_SANITIZE", "")

# What each call may plausibly answer here: the errors of its manual page that a healthy program can meet.
ERRORS = {
    "memory": ["ENOMEM"],
    "mmap": ["ENOMEM"],
    "madvise": ["EINVAL"],
    "socket": ["EMFILE", "ENFILE", "ENOBUFS", "EACCES", "EAFNOSUPPORT"],
    "bind": ["EADDRINUSE", "EACCES", "EADDRNOTAVAIL"],
    "listen": ["EADDRINUSE"],
    "accept4": ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "ECONNABORTED", "EINTR", "EPERM"],
    "connect": ["ECONNREFUSED", "ENETUNREACH", "EADDRNOTAVAIL", "EAGAIN", "EPERM", "ETIMEDOUT", "EINTR"],
    "epoll_create1": ["EMFILE", "ENOMEM"],
    "epoll_ctl": ["ENOSPC", "ENOMEM"],
    "epoll_wait": ["EINTR"],
    "epoll_pwait2": ["EINTR", "ENOSYS", "EPERM"],
    "eventfd": ["EMFILE", "ENFILE"],
    "timerfd_create": ["EMFILE"],
    "recv": ["ECONNRESET", "ETIMEDOUT", "EINTR", "ENOMEM"],
    "recvmsg": ["ECONNRESET", "ETIMEDOUT", "EINTR", "ENOMEM"],
    "recvmmsg": ["ECONNREFUSED", "EINTR", "ENOMEM", "ENOSYS"],
    "send": ["ECONNRESET", "EPIPE", "EINTR", "ENOBUFS", "ENOMEM"],
    "sendmsg": ["ECONNRESET", "EPIPE", "EINTR", "ENOBUFS", "ENOMEM", "ETOOMANYREFS"],
    "sendmmsg": ["ECONNREFUSED", "EPERM", "EINTR", "ENOBUFS", "ENOMEM", "EMSGSIZE"],
    "setsockopt": ["ENOPROTOOPT", "ENOMEM", "EPERM"],
    "getsockopt": ["ENOPROTOOPT", "ENOBUFS"],
    "getsockname": ["ENOBUFS"],
    "getpeername": ["ENOTCONN"],
    "shutdown": ["ENOTCONN"],
    "getrandom": ["ENOSYS"],
    "getifaddrs": ["ENOMEM"],
    "fopen": ["EMFILE", "ENOENT"],
    "open": ["EMFILE", "ENOENT"],
    "fcntl": ["EMFILE"],
    "pthread_create": ["EAGAIN"],
}
# What each scenario is about: were one of these not swept, the sweep would show less than it says.
ABOUT = {
    "tcp": {"memory", "socket", "bind", "listen", "accept4", "connect", "epoll_create1", "epoll_ctl", "eventfd", "send", "recv", "setsockopt"},
    "tcp_beside": {"memory", "socket", "bind", "listen", "accept4", "connect", "epoll_ctl", "send", "recv"},
    "udp": {"memory", "socket", "bind", "sendmmsg", "recvmmsg", "epoll_ctl"},
    "unix_descriptor": {"memory", "socket", "bind", "listen", "accept4", "connect", "sendmsg", "recvmsg", "fcntl"},
    "pool": {"memory", "pthread_create", "socket", "bind", "listen", "accept4", "epoll_create1"},
    "coroutines": {"memory", "mmap", "epoll_create1", "eventfd"},
}
# How often these are called depends on when the kernel has something to tell, on how long memory was idle, and on threads: their first turn comes,
# of those that come in every run.
TIMED = {"epoll_wait", "epoll_pwait2", "accept4", "recv", "recvmsg", "recvmmsg", "send", "sendmsg", "sendmmsg", "madvise"}
RACY = {"pool"}
# Forbidden for good: system calls, by the errors of a filter, an old kernel or a limit.
DENIED = {
    "epoll_pwait2": ["ENOSYS", "EPERM"], "epoll_create1": ["EMFILE"], "epoll_ctl": ["ENOSPC"], "eventfd2": ["EMFILE", "EPERM"],
    "timerfd_create": ["EMFILE"], "socket": ["EMFILE", "EACCES"], "bind": ["EADDRINUSE", "EACCES"], "listen": ["EADDRINUSE"],
    "accept4": ["EMFILE", "ENFILE", "EPERM"], "connect": ["ECONNREFUSED", "ENETUNREACH", "EPERM"], "setsockopt": ["ENOPROTOOPT", "EPERM"],
    "getsockopt": ["ENOPROTOOPT"], "getsockname": ["ENOBUFS"], "getpeername": ["EPERM"], "sendto": ["ECONNRESET", "ENOBUFS", "EPERM"],
    "sendmsg": ["ENOBUFS", "EPERM"], "sendmmsg": ["ENOSYS", "EPERM", "ENOBUFS"], "recvfrom": ["ECONNRESET", "ENOMEM"],
    "recvmsg": ["ECONNRESET", "ENOMEM"], "recvmmsg": ["ENOSYS", "ENOMEM"], "shutdown": ["ENOTCONN", "EPERM"], "fcntl": ["EMFILE", "EPERM"],
    "mmap_huge": ["ENOMEM", "EPERM"], "madvise": ["EINVAL", "EPERM"], "getrandom": ["ENOSYS"], "sched_setaffinity": ["EPERM"],
    "prctl": ["EPERM"], "openat": ["EMFILE", "EACCES"], "io_uring_setup": ["EPERM", "ENOSYS"],
}


def some_of(errors, turn):
    """All of them; where programs start slowly, one, another one each turn."""
    return errors if not SANITIZE or not errors else [errors[turn % len(errors)]]


def play(scenario, *deny, **plan):
    """The lines a run prints as {name: value}, and what is wrong with it (a text) or None."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EVPL_")}
    environment["LD_PRELOAD"] = str(TESTS / "libfailonce_shim.so")
    # The shim comes before the sanitizer's functions, and calls them.
    environment["ASAN_OPTIONS"] = environment.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"
    environment.update({f"FAILONCE_{name.upper()}": str(value) for name, value in plan.items()})
    run = subprocess.run([TESTS / "failonce_program", scenario, *deny], capture_output=True, text=True, env=environment, check=False,
                         stdin=subprocess.DEVNULL, timeout=300)
    told = dict(line.rsplit(" ", 1) if line.startswith("call ") else line.split(" ", 1) for line in run.stdout.splitlines() if " " in line)
    if run.returncode == 77 and "SKIP" in run.stdout:
        return told, "skip"
    if run.returncode != 0:
        return told, f"exit code {run.returncode}: {run.stderr.strip()[-2000:]} {run.stdout.splitlines()[:2]}"
    return told, None


def counts_of(told):
    return {name.split()[1]: int(value) for name, value in told.items() if name.startswith("call ")}


def play_failing(scenario, call, nth, error):
    """As play(). Which of its waits a program meets, with a limit or without, is up to the kernel: a failure that has to happen gets several tries."""
    for _ in range(5):
        told, wrong = play(scenario, call=call, nth=nth, errno=getattr(errno, error))
        if wrong is not None or told["injected"] == "1" or nth > 1:
            break
    return told, wrong


class Sweep:
    def __init__(self):
        self.failures, self.runs, self.verdicts = [], 0, {}
        self.executor = concurrent.futures.ThreadPoolExecutor(os.cpu_count())

    def judge(self, name, told, wrong, left):
        self.runs += 1
        if wrong is None and left is not None and told["left"] != left:
            wrong = f"left are {told['left']} (blocks, descriptors, slab bytes), without a failure {left}"
        if wrong is not None:
            self.failures.append(f"{name}: {wrong}")
        else:
            self.verdicts[told["ended"]] = self.verdicts.get(told["ended"], 0) + 1

    def fail_once(self, scenario, only):
        told, wrong = play(scenario)
        if wrong or told["ended"] != "ok":
            self.failures.append(f"{scenario}: {wrong or told['ended']} without a failure")
            return
        counts = counts_of(told)
        sure = set(counts)  # that also come in other runs: a wait that finds something already there, say, is up to the kernel
        for _ in range(2):
            sure &= set(counts_of(play(scenario)[0]))
        about = ABOUT[scenario] - ({"memory"} if SANITIZE else set())
        for call in sorted(about - set(counts)) + sorted(set(counts) - set(ERRORS)):
            self.failures.append(f"{scenario}: '{call}' is not called, or not swept")
        left = told["left"]
        plans = [(call, nth, error) for call, count in sorted(counts.items()) if only in (None, call)
                 for nth in range(1, count + 1) for error in some_of(ERRORS.get(call, []), nth)]
        runs = self.executor.map(lambda plan: play_failing(scenario, *plan), plans)
        missed = []
        for (call, nth, error), (told, wrong) in zip(plans, runs):
            name = f"{scenario}: {call} {nth} {error}"
            if wrong is None and told["injected"] != "1" and ((nth == 1 and call in sure) or not (call in TIMED or scenario in RACY)):
                missed.append(name)
            self.judge(name, told, wrong, left)
        if missed:
            self.failures.append(f"{len(missed)} of {len(plans)} failures did not happen: {missed[:5]}")

    def forbid(self, scenario):
        plans = [(call, error) for call, errors in DENIED.items() for error in some_of(errors, 0)]
        runs = self.executor.map(lambda plan: play(scenario, "--deny", plan[0], str(getattr(errno, plan[1]))), plans)
        for (call, error), (told, wrong) in zip(plans, runs):
            if wrong == "skip":
                return False
            self.judge(f"{scenario}: {call} forbidden with {error}", told, wrong, None)
        return True


def main():
    if SANITIZE == "thread":
        print("SKIP: ThreadSanitizer has to come before all that is preloaded")
        return 77
    scenarios = sys.argv[1:2] or list(ABOUT)
    only = sys.argv[2] if len(sys.argv) > 2 else None
    sweep = Sweep()
    forbidden = True
    for scenario in scenarios:
        sweep.fail_once(scenario, only)
        if only is None and scenario != "tcp_beside":  # all would be forbidden to the other connection, too
            forbidden = sweep.forbid(scenario) and forbidden
    print("ends:", ", ".join(f"{name} {count}" for name, count in sorted(sweep.verdicts.items(), key=lambda one: -one[1])))
    for failure in sweep.failures[:40]:
        print("FAILED", failure)
    if not forbidden:
        print("SKIP: seccomp filters are not possible here: only the C library's calls were made to fail")
    print(f"{sweep.runs - len(sweep.failures)} passed, {len(sweep.failures)} failed, {0 if forbidden else 1} skipped")
    return 1 if sweep.failures or sweep.runs == 0 else 0


sys.exit(main())
