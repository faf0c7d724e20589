"""Starts servers and load, in a network namespace of our own where TCP uses cubic."""
import ctypes
import itertools
import json
import os
import re
import select
import signal
import subprocess
import tempfile
import time

SERVER_CPU, LOAD_CPU = 0, 1
STEAL_PERCENT_MAX = 2
RUNS_MAX = 3
_ports = itertools.cycle(range(20000, 30000))  # below the ephemeral range


class RunFailed(Exception):
    pass


def enter_namespace():
    """A private loopback: nothing else on it, and cubic by route, so that even a server which does
    not choose its congestion control gets it on accepted sockets. Returns None or what went wrong."""
    CLONE_NEWNET = 0x40000000
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        return "no network namespace: " + os.strerror(ctypes.get_errno())
    for command in ("ip link set lo up",
                    "ip route replace local 127.0.0.0/8 dev lo table local congctl cubic",
                    "ip route replace local 127.0.0.1 dev lo table local congctl cubic"):
        done = subprocess.run(command.split(), capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"compare: {command}: {done.stderr.strip()}")
    return None


class ServerProcess:
    """A running echo server: .port and .pid. Use as a context manager."""

    def __init__(self, command, wait_s=5):
        self._errors = tempfile.TemporaryFile(mode="w+")
        self._command = command
        self._process = subprocess.Popen(["taskset", "-c", str(SERVER_CPU), *command], stdin=subprocess.DEVNULL,
                                         stdout=subprocess.PIPE, stderr=self._errors, text=True)
        self.pid = self._process.pid  # taskset becomes the server
        ready, _, _ = select.select([self._process.stdout], [], [], wait_s)
        line = self._process.stdout.readline() if ready else ""
        found = re.search(r"listening on \S+:(\d+)", line)
        if not found:
            self.stop()
            raise RunFailed(f"{' '.join(command)} did not say 'listening on': {line.strip()} {self.errors()}".strip())
        self.port = int(found.group(1))

    def errors(self):
        self._errors.seek(0)
        return self._errors.read().strip()[-500:]

    def stop(self):
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(2)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def server_command(server, cell_udp, paths):
    port = next(_ports)
    if server.program != "evpl":
        return [str(paths["bin"] / server.program), "--port", str(port), *server.arguments]
    scheme = server.scheme or (paths["udp_scheme"] if cell_udp else paths["tcp_scheme"])
    options = "?" + paths["url_options"] if paths["url_options"] else ""
    return [str(paths["evpl"]), "echo", "--listen", f"{scheme}://127.0.0.1:{port}{options}", "--threads", "1", *server.arguments]


def jiffies():
    """(steal, total) of all CPUs."""
    with open("/proc/stat") as stat:
        fields = [int(word) for word in stat.readline().split()[1:9]]
    return fields[7], sum(fields)


def run_load(server_process, load_arguments, seconds, warmup_s, paths):
    command = [str(paths["bin"] / "load"), *map(str, load_arguments), "--target", f"127.0.0.1:{server_process.port}",
               "--server-pid", str(server_process.pid), "--pin", str(LOAD_CPU), "--spin", "--json",
               "--seconds", str(seconds), "--warmup", str(warmup_s)]
    steal, total = jiffies()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + warmup_s + 30)
    except subprocess.TimeoutExpired:
        raise RunFailed("the load generator hangs")
    if done.returncode != 0:
        raise RunFailed(f"load: {done.stderr.strip()} {server_process.errors()}".strip())
    result = json.loads(done.stdout)
    steal_after, total_after = jiffies()
    result["steal_percent"] = 100 * (steal_after - steal) / max(total_after - total, 1)
    for kind in ("private", "rss"):
        grown = result.pop(f"server_{kind}_kib_after") - result.pop(f"server_{kind}_kib_before")
        result[f"{kind}_bytes_per_connection"] = 1024 * grown / result["connections"]
    return result


def run_once(server, cell, seconds, warmup_s, paths):
    """One server, one load, both ended afterwards, in a fresh namespace: sockets in TIME_WAIT that
    earlier runs left behind would slow later ones."""
    if paths["namespace"]:
        enter_namespace()
    with ServerProcess(server_command(server, cell.udp, paths)) as process:
        time.sleep(0.1)  # let start-up, and the end of the run before, pass
        return run_load(process, cell.load, max(seconds, cell.seconds), warmup_s, paths)


def run_undisturbed(server, cell, seconds, warmup_s, paths):
    """Repeats a run from which the hypervisor stole too much, and keeps the least disturbed; tries a
    failed one once more."""
    best, failure = None, None
    for _ in range(RUNS_MAX):
        try:
            result = run_once(server, cell, seconds, warmup_s, paths)
        except RunFailed as error:
            if failure:
                raise RunFailed(f"{cell.name} {server.name}: {error}") from None
            failure = error
            continue
        if best is None or result["steal_percent"] < best["steal_percent"]:
            best = result
        if best["steal_percent"] <= STEAL_PERCENT_MAX:
            break
    return best


def congestion_of(server, cell, paths):
    """The congestion control of a connection the server accepted, as ss shows it."""
    import socket
    with ServerProcess(server_command(server, cell.udp, paths)) as process:
        with socket.create_connection(("127.0.0.1", process.port)) as peer:
            peer.sendall(b"x")
            peer.recv(1)
            shown = subprocess.run(["ss", "-tinH", f"sport = :{process.port}"], capture_output=True, text=True).stdout
    found = re.search(r"\b(cubic|reno|bbr\w*|dctcp|vegas)\b", shown)
    return found.group(1) if found else "unknown"
