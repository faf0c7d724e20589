#!/usr/bin/env python3
"""Compiled examples do what their first line says, and stay short.

usage: examples_test.py [FOLDER-OF-EXAMPLES or PATH-OF-EVPL] [unittest arguments]
"""
import os
import pathlib
import signal
import socket
import struct
import subprocess
import tempfile
import time
import unittest

import support
from support import FACTOR, PATIENCE, ROOT, Server, exchange, pattern

LINES_MAX = 25


def folder():
    """ROOT/build/<preset>/examples, found from where the command is."""
    given = [pathlib.Path(c) for c in support.COMMAND if pathlib.Path(c).is_dir()]
    build = os.environ.get("EVPL_BUILD")
    return given[0] if given else pathlib.Path(build, "examples") if build else pathlib.Path(support.command()).parents[1] / "examples"


def run(name, *arguments):
    return subprocess.run([folder() / name, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=PATIENCE)


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def connect(address, family=socket.AF_INET, kind=socket.SOCK_STREAM):
    """Examples do not say when they are ready: try until they are."""
    deadline = time.monotonic() + PATIENCE
    while True:
        peer = socket.socket(family, kind)
        peer.settimeout(PATIENCE)
        try:
            peer.connect(address)
            return peer
        except OSError:
            peer.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


class Examples(unittest.TestCase):
    def serve(self, name, *arguments):
        server = Server([folder() / name, *arguments], lines=0)
        self.addCleanup(server.__exit__)
        return server

    def end(self, server):
        status, seconds = server.end(signal.SIGTERM)
        self.assertEqual(status, 0)
        self.assertLess(seconds, 1 * FACTOR)

    def test_each_is_at_most_25_lines(self):
        sources = list((ROOT / "examples").glob("*.cpp"))
        self.assertTrue(sources)
        for source in sources:
            self.assertLessEqual(len(source.read_text().splitlines()), LINES_MAX, source.name)
            self.assertTrue((folder() / source.stem).is_file(), f"{source.name} was not built")
            self.assertIn(source.stem, pathlib.Path(__file__).read_text(), f"{source.name} has no test here")

    def test_echo(self):
        port = free_port()
        server = self.serve("echo", f"tcp://127.0.0.1:{port}")
        with connect(("127.0.0.1", port)) as peer:
            self.assertEqual(exchange(peer, pattern(1 << 20)), pattern(1 << 20))
        again = run("echo", f"tcp://127.0.0.1:{port}")
        self.assertEqual(again.returncode, 1)
        self.assertIn(str(port), again.stderr)
        self.end(server)

    def test_echo_client(self):
        port = free_port()
        url = f"tcp://127.0.0.1:{port}"
        refused = run("echo_client", url)
        self.assertEqual(refused.returncode, 1)
        self.assertRegex(refused.stderr, "refused")
        server = self.serve("echo", url)
        connect(("127.0.0.1", port)).close()
        answer = run("echo_client", url, "good morning")
        self.assertEqual((answer.returncode, answer.stdout, answer.stderr), (0, "good morning\n", ""))
        self.end(server)

    def test_echo_client_does_not_wait_for_ever(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            began = time.monotonic()
            answer = run("echo_client", f"tcp://127.0.0.1:{listener.getsockname()[1]}")
            self.assertEqual(answer.returncode, 1)
            self.assertRegex(answer.stderr, "timed_out|timed out")
            self.assertGreater(time.monotonic() - began, 2.5)

    def test_udp_echo(self):
        port = free_port(socket.SOCK_DGRAM)
        server = self.serve("udp_echo", f"udp://127.0.0.1:{port}")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.settimeout(0.1)
            for _ in range(100):
                try:
                    peer.sendto(b"packet", ("127.0.0.1", port))
                    self.assertEqual(peer.recv(100), b"packet")
                    break
                except (TimeoutError, ConnectionRefusedError):
                    time.sleep(0.05)
            else:
                self.fail("no datagram came back")
        self.end(server)

    def test_timer(self):
        answer = run("timer")
        self.assertEqual((answer.returncode, answer.stderr), (0, ""))
        lines = answer.stdout.splitlines()
        self.assertEqual(lines[0], "tick 1")
        self.assertEqual(lines[-1], "done")
        self.assertNotIn("never", answer.stdout)

    def test_thread_pool_echo(self):
        port = free_port()
        server = self.serve("thread_pool_echo", f"tcp://127.0.0.1:{port}", "3")
        peers = [connect(("127.0.0.1", port)) for _ in range(10)]
        for i, peer in enumerate(peers):
            self.assertEqual(exchange(peer, pattern(10_000, i)), pattern(10_000, i))
            peer.close()
        time.sleep(0.2)
        self.end(server)
        counts = [int(line.split()[3]) for line in server.process.stdout.read().splitlines()]
        self.assertEqual((len(counts), sum(counts)), (3, 10))

    def test_framed_echo(self):
        port = free_port()
        server = self.serve("framed_echo", f"tcp://127.0.0.1:{port}")
        with connect(("127.0.0.1", port)) as peer:
            data = b"".join(struct.pack(">I", n) + pattern(n, n) for n in (1, 0, 5, 1000, 70_000, 1 << 20))
            for piece in (1, 3, 65536):
                self.assertEqual(exchange(peer, data if piece > 3 else data[:1022], piece), data if piece > 3 else data[:1022])
        with connect(("127.0.0.1", port)) as peer:
            peer.sendall(b"\xff\xff\xff\xff")
            try:
                self.assertEqual(peer.recv(10), b"", "nonsense ends the connection")
            except ConnectionError:
                pass
        self.end(server)

    def test_inproc_pair(self):
        answer = run("inproc_pair")
        self.assertEqual((answer.returncode, answer.stderr), (0, ""))
        self.assertEqual(answer.stdout, 'server got "how are you?"\nclient got "fine, thanks"\n')

    def test_unix_echo(self):
        with tempfile.TemporaryDirectory() as place:
            server = self.serve("unix_echo", f"unix://{place}/socket")
            with connect(f"{place}/socket", socket.AF_UNIX) as peer:
                self.assertEqual(exchange(peer, b"who am I"), b"who am I")
                self.assertEqual(server.process.stdout.readline(), f"process {os.getpid()} of user {os.getuid()} is here\n")
            self.end(server)


if __name__ == "__main__":
    support.take_binary_from_arguments()
    support.main()
