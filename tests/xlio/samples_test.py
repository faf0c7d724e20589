#!/usr/bin/env python3
"""NVIDIA's own sample programs, written for the real library, run on the stand-in as they are. They are no part of this tree:
EVPL_XLIO_SAMPLES names a folder with them, a checkout of libxlio for instance. Samples that use the table run with the stand-in preloaded,
as the real one is; those that link libxlio.a link its stand-in."""
import functools
import os
import pathlib
import pty
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/tool"))
import support  # noqa: E402

BUILD = pathlib.Path(os.environ.get("EVPL_BUILD", ROOT / "build/dev"))
SAMPLES = os.environ.get("EVPL_XLIO_SAMPLES", "")
FOLDER = tempfile.TemporaryDirectory()
LAYOUT_OF = """#include <pthread.h>
#include <stdio.h>
#include <sys/uio.h>
#include <mellanox/xlio_extra.h>
int main(void) { printf("%zu\\n", __builtin_offsetof(struct xlio_api_t, xlio_init_ex)); return 0; }
"""


def find(name):
    found = sorted(pathlib.Path(SAMPLES).rglob(name))
    return found[0] if found else None


@functools.cache
def include_folder():
    """Where <mellanox/...> is: in a checkout the headers lie in src/core."""
    header = find("xlio_extra.h")
    if header is None:
        raise unittest.SkipTest(f"{SAMPLES} has no xlio_extra.h")
    folder = pathlib.Path(FOLDER.name) / "include"
    folder.mkdir()
    (folder / "mellanox").symlink_to(header.parent.resolve())
    return folder


def compiled(source, *libraries):
    program = pathlib.Path(FOLDER.name) / (source.stem if isinstance(source, pathlib.Path) else "layout")
    before = ["-x", "c", "-"] if isinstance(source, str) else [source]
    command = ["cc", "-w", "-g", "-D_GNU_SOURCE", "-I", include_folder(), *before, "-x", "none", *libraries, "-o", program]
    answer = subprocess.run([str(word) for word in command], input=source if isinstance(source, str) else None, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            text=True, timeout=100)
    if answer.returncode != 0:
        raise AssertionError(answer.stdout)
    return program


@functools.cache
def layout():
    """The one that the samples' header declares."""
    return {"48": "A", "40": "B"}[subprocess.check_output([compiled(LAYOUT_OF)], text=True).strip()]


class Sample:
    """A sample that runs, on a terminal, so that it shows its lines at once."""

    def __init__(self, program, *arguments, preload):
        knobs = {"XLIO_DOUBLE": f"layout={layout()}"}
        if preload:
            knobs["LD_PRELOAD"] = str(BUILD / "tests/libxlio_double.so")
        self.screen, terminal = pty.openpty()
        self.process = subprocess.Popen([str(program), *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal, env={**os.environ, **knobs})
        os.close(terminal)
        self.text = ""
        self.seen = 0  # of the text, by wait_for

    def read(self, deadline):
        """False: the program has ended, or the time is up."""
        if not select.select([self.screen], [], [], max(0, deadline - time.monotonic()))[0]:
            return False
        try:
            piece = os.read(self.screen, 4096)
        except OSError:  # the other end of the terminal is closed
            return False
        self.text += piece.decode(errors="replace").replace("\r", "")
        return bool(piece)

    def wait_for(self, words):
        deadline = time.monotonic() + support.PATIENCE
        while self.text.find(words, self.seen) < 0 and self.read(deadline):
            pass
        at = self.text.find(words, self.seen)
        if at < 0:
            raise AssertionError(f"no {words!r} in:\n{self.text[self.seen:]}")
        self.seen = at + len(words)

    def end(self):
        """Its status, when it has ended by itself."""
        deadline = time.monotonic() + support.PATIENCE
        while self.read(deadline):
            pass
        try:
            return self.process.wait(max(0, deadline - time.monotonic()) + 1)
        except subprocess.TimeoutExpired:
            return f"it does not end:\n{self.text}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        os.close(self.screen)


class Peer:
    """The other side of a sample, which its authors play with nc."""

    def __init__(self, connection):
        connection.settimeout(support.PATIENCE)
        self.connection = connection

    def say(self, text):
        self.connection.sendall(text.encode())

    def hear(self, text):
        got = b""
        while len(got) < len(text):
            piece = self.connection.recv(len(text) - len(got))
            if not piece:
                break
            got += piece
        if got != text.encode():
            raise AssertionError(f"{got!r} instead of {text!r}")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def absent():
    """Why none of them can run here, or nothing."""
    if not SAMPLES:
        return "EVPL_XLIO_SAMPLES names no folder with NVIDIA's samples"
    if os.environ.get("EVPL_SANITIZE"):
        return "the stand-in of this build wants a sanitizer's program around it"
    if not shutil.which("cc") or not pathlib.Path("/usr/include/infiniband/verbs.h").is_file():
        return "no C compiler, or no headers of libibverbs"
    return None


class Samples(unittest.TestCase):
    def sample(self, name, *libraries):
        """The compiled sample, and whether it wants the library preloaded."""
        source = find(name)
        if source is None:
            self.skipTest(f"{SAMPLES} has no {name}")
        by_table = "xlio_get_api" in source.read_text(encoding="utf-8")
        linked = [] if by_table else [BUILD / "tests/libxlio_double_linked.a", "-lstdc++"]
        return compiled(source, *linked, "-libverbs", "-lpthread"), by_table

    def peer_of(self, port):
        peer = socket.create_connection(("127.0.0.1", port))
        self.addCleanup(peer.close)
        return Peer(peer)

    def test_ping_pong(self):
        program, preload = self.sample("xlio_ultra_api_ping_pong.c")
        port = free_port()
        with Sample(program, "-s", "-i", "127.0.0.1", "-p", port, preload=preload) as server:
            server.wait_for("Server listening")
            with Sample(program, "-c", "-i", "127.0.0.1", "-p", port, "-n", 5, preload=preload) as client:
                self.assertEqual(client.end(), 0, client.text)
                self.assertIn("Received pong #5", client.text)
                self.assertEqual(client.text.count("Zero-copy send completed"), 6, client.text)
                self.assertIn("Socket terminated", client.text)
            self.assertEqual(server.end(), 0, server.text)
            self.assertEqual(server.text.count("Zero-copy send completed"), 5, server.text)
            self.assertIn("Resources cleaned up", server.text)

    def test_echo_server(self):
        program, preload = self.sample("xlio_ultra_api_server.c")
        port = free_port()
        with Sample(program, "127.0.0.1", port, preload=preload) as server:
            server.wait_for("Starting polling loop")
            peers = [self.peer_of(port) for _ in range(3)]
            for round_trip in range(5):
                for peer in peers:
                    peer.say(f"hello {round_trip}\n")
                    peer.hear(f"hello {round_trip}\ncompleted\n")
            peers[0].say("quit\n")
            peers[0].hear("quit\n")
            for peer in peers:
                peer.connection.close()
            self.assertEqual(server.end(), 0, server.text)
            self.assertIn("Zerocopy completion events: 16", server.text)

    def test_client_with_several_groups(self):
        program, preload = self.sample("xlio_ultra_api.c")
        try:
            listener = socket.create_server(("127.0.0.77", 8080))  # a port that the sample has chosen
        except OSError as busy:
            self.skipTest(f"127.0.0.77:8080: {busy}")
        self.addCleanup(listener.close)
        listener.settimeout(support.PATIENCE)
        with Sample(program, "127.0.0.77", preload=preload) as client:
            connection, _ = listener.accept()
            self.addCleanup(connection.close)
            client.wait_for("Multi group test done")
            peer = Peer(connection)
            for round_trip in range(5):
                peer.say(f"hello {round_trip}\n")
                peer.hear(f"hello {round_trip}\ncompleted\ninline\n")
            peer.say("quit\n")
            peer.hear("quit\n")
            connection.close()
            self.assertEqual(client.end(), 0, client.text)
            self.assertEqual(client.text.count("Test event callback: event=4 value=111"), 4, client.text)  # ECONNREFUSED
            self.assertIn("Zerocopy completion events: 6", client.text)

    def test_migration_between_groups(self):
        program, preload = self.sample("xlio_ultra_api_migrate.c")
        port = free_port()
        with Sample(program, "127.0.0.1", port, preload=preload) as server:
            server.wait_for("Starting polling loop")
            peer = self.peer_of(port)
            for group in (2, 1, 2):  # it ends in the group of a thread that has ended before
                peer.say("hello\n")
                peer.hear("> hello\n")
                peer.say("mg\n")
                server.wait_for(f"Attaching to group{group} ")
            peer.say("hello\n")
            peer.hear("> hello\n")
            peer.say("quit\n")
            peer.connection.close()
            self.assertEqual(server.end(), 0, server.text)
            self.assertIn("All the sockets are destroyed", server.text)
            self.assertRegex(server.text, r"Group1 received bytes: [1-9]")
            self.assertRegex(server.text, r"Group2 received bytes: [1-9]")


if __name__ == "__main__":
    if absent():
        print(f"SKIP: {absent()}")
        sys.exit(77)
    support.take_binary_from_arguments()
    support.main()
