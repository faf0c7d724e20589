"""What the tests of the command and of the examples share."""
import os
import pathlib
import random
import select
import signal
import subprocess
import sys
import threading
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
FACTOR = 10 if os.environ.get("EVPL_SANITIZE") else 3  # how much slower than promised we still tolerate: other tests run beside us
COMMAND = []  # the binary, when it was given as an argument
PATIENCE = 20  # seconds until something that should have come will not come


def command():
    """The binary under test: first argument, else what ctest says, else the usual places."""
    for candidate in [*COMMAND, os.environ.get("EVPL_COMMAND", ""), ROOT / "build/dev/bin/evpl", ROOT / "build/release/bin/evpl"]:
        if candidate and pathlib.Path(candidate).is_file():
            return str(candidate)
    sys.exit("no evpl binary: give its path as the first argument")



def take_binary_from_arguments():
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-") and pathlib.Path(sys.argv[1]).exists():
        COMMAND.append(sys.argv.pop(1))


class Server:
    """A process that prints `listening on URL` for each endpoint, or nothing."""

    def __init__(self, arguments, lines=1, **options):
        self.process = subprocess.Popen([str(a) for a in arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        text=True, bufsize=1, **options)
        self.urls = []
        killer = threading.Timer(PATIENCE, self.process.kill)  # then readline() gives ""
        killer.start()
        while len(self.urls) < lines:
            line = self.process.stdout.readline()
            if not line.startswith("listening on "):
                killer.cancel()
                self.process.kill()
                raise AssertionError(f"{arguments}: no 'listening on' line but {line!r}; stderr: {self.process.stderr.read()!r}")
            self.urls.append(line.split()[2])
        killer.cancel()

    @property
    def url(self):
        return self.urls[0]

    def address(self, i=0):
        host, _, port = self.urls[i].split("://")[1].rpartition(":")
        return host.strip("[]"), int(port)

    def end(self, which=signal.SIGTERM):
        """Sends the signal; gives (status, seconds until the process was gone)."""
        began = time.monotonic()
        self.process.send_signal(which)
        try:
            status = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"signal {which} did not end the server within {PATIENCE} s") from None
        return status, time.monotonic() - began

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()


def exchange(peer, data, chunk=1 << 16):
    """Sends data and receives as much at the same time, as a peer that does both must."""
    received, sent = bytearray(), 0
    peer.setblocking(False)
    deadline = time.monotonic() + PATIENCE
    while len(received) < len(data):
        readable, writable, _ = select.select([peer], [peer] if sent < len(data) else [], [], max(0, deadline - time.monotonic()))
        if not readable and not writable:
            raise AssertionError(f"{len(received)} of {len(data)} bytes came back in {PATIENCE} s")
        if writable:
            sent += peer.send(data[sent:sent + chunk])
        if readable:
            piece = peer.recv(chunk)
            if not piece:
                raise AssertionError(f"the server closed after {len(received)} of {len(data)} bytes")
            received += piece
    peer.setblocking(True)
    return bytes(received)


def pattern(n, seed=1):
    return random.Random(seed).randbytes(n)


def main():
    """Runs the tests of the calling script and prints one summary line."""
    program = unittest.main(module="__main__", exit=False, verbosity=1)
    result = program.result
    failed = len({getattr(test, "test_case", test).id() for test, _ in result.failures + result.errors})  # sub-tests belong to one
    for test, reason in result.skipped:
        print(f"SKIP: {test.id()}: {reason}")
    print(f"{result.testsRun - failed - len(result.skipped)} passed, {failed} failed, {len(result.skipped)} skipped")
    sys.exit(1 if failed or result.testsRun == 0 else 0)
