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
import sys
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
        sources = [each for each in (ROOT / "examples").iterdir() if each.suffix in (".cpp", ".c", ".py")]
        self.assertTrue(sources)
        for source in sources:
            self.assertLessEqual(len(source.read_text().splitlines()), LINES_MAX, source.name)
            program = {".cpp": source.stem, ".c": source.stem + "_c", ".py": source.name}[source.suffix]
            self.assertTrue(source.suffix == ".py" or (folder() / program).is_file(), f"{source.name} was not built")
            self.assertIn(f'"{program}"', pathlib.Path(__file__).read_text(), f"{source.name} has no test here")

    def test_echo(self, program="echo"):
        port = free_port()
        server = self.serve(program, f"tcp://127.0.0.1:{port}")
        with connect(("127.0.0.1", port)) as peer:
            self.assertEqual(exchange(peer, pattern(1 << 20)), pattern(1 << 20))
        again = run(program, f"tcp://127.0.0.1:{port}")
        self.assertEqual(again.returncode, 1)
        self.assertIn(str(port), again.stderr)
        self.end(server)

    def test_co_echo(self):
        port = free_port()
        server = self.serve("co_echo", f"tcp://127.0.0.1:{port}")
        with connect(("127.0.0.1", port)) as peer:
            self.assertEqual(exchange(peer, pattern(1 << 20)), pattern(1 << 20))
        self.end(server)

    def test_echo_in_c(self):
        self.test_echo("echo_c")

    @unittest.skipIf(os.environ.get("EVPL_SANITIZE"), "Python itself is not built with the sanitizer")
    def test_echo_in_python(self):
        port = free_port()
        source, library = ROOT / "examples" / "echo.py", folder().parent / "libevpl.so"
        server = Server([sys.executable, source, library, f"tcp://127.0.0.1:{port}"], lines=0)
        self.addCleanup(server.__exit__)
        with connect(("127.0.0.1", port)) as peer:
            self.assertEqual(exchange(peer, pattern(1 << 20)), pattern(1 << 20))
        self.end(server)

    def test_echo_client(self, program="echo_client"):
        port = free_port()
        url = f"tcp://127.0.0.1:{port}"
        refused = run(program, url)
        self.assertEqual(refused.returncode, 1)
        self.assertRegex(refused.stderr, "refused")
        server = self.serve("echo", url)
        connect(("127.0.0.1", port)).close()
        answer = run(program, url, "good morning")
        self.assertEqual((answer.returncode, answer.stdout, answer.stderr), (0, "good morning\n", ""))
        self.end(server)

    def test_echo_client_in_c(self):
        self.test_echo_client("echo_client_c")

    def test_co_client(self):
        self.test_echo_client("co_client")

    def test_co_client_does_not_wait_for_ever(self):
        self.test_echo_client_does_not_wait_for_ever("co_client")

    def test_echo_client_does_not_wait_for_ever(self, program="echo_client"):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            began = time.monotonic()
            answer = run(program, f"tcp://127.0.0.1:{listener.getsockname()[1]}")
            self.assertEqual(answer.returncode, 1)
            self.assertRegex(answer.stderr, "timed_out|timed out")
            self.assertGreater(time.monotonic() - began, 2.5)

    def test_co_udp_echo(self):
        self.test_udp_echo("co_udp_echo")

    def test_udp_echo_in_c(self):
        self.test_udp_echo("udp_echo_c")

    def test_udp_echo(self, program="udp_echo"):
        port = free_port(socket.SOCK_DGRAM)
        server = self.serve(program, f"udp://127.0.0.1:{port}")
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

    def test_timer_in_c(self):
        self.test_timer("timer_c")

    def test_timer(self, program="timer"):
        answer = run(program)
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

    def test_request_client(self):
        port = free_port()
        url = f"tcp://127.0.0.1:{port}"
        server = self.serve("echo", url)
        connect(("127.0.0.1", port)).close()
        answer = run("request_client", url, "one", "two", "three")
        self.assertEqual((answer.returncode, answer.stdout, answer.stderr), (0, "one\ntwo\nthree\n", ""))
        self.end(server)

    def test_request_client_waits_half_a_second_for_an_answer(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            began = time.monotonic()
            answer = run("request_client", f"tcp://127.0.0.1:{listener.getsockname()[1]}", "is anybody there?")
            self.assertEqual((answer.returncode, answer.stdout), (1, ""))
            self.assertIn("timed_out", answer.stderr)
            self.assertGreaterEqual(time.monotonic() - began, 0.5)

    def test_multicast(self):
        group, port = "239.255.7.2", free_port(socket.SOCK_DGRAM)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            peer.bind(("0.0.0.0", port))
            peer.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group) + socket.inet_aton("127.0.0.1"))
            peer.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
            peer.settimeout(PATIENCE)
            server = self.serve("multicast", group, str(port))
            self.assertEqual(peer.recv(100), b"hello")
            peer.sendto(b"hello yourself", (group, port))
            # The answer can overtake the server's own copy of its greeting: the kernel hands a group's datagram to one socket after the other.
            self.assertCountEqual([server.process.stdout.readline() for _ in range(2)], ["hello\n", "hello yourself\n"])
            self.end(server)
        wrong = run("multicast", "239.255.7.2", str(port), "203.0.113.7")
        self.assertEqual(wrong.returncode, 1)
        self.assertIn("203.0.113.7", wrong.stderr)

    def test_unix_descriptor(self):
        with tempfile.TemporaryDirectory() as place:
            secret = pathlib.Path(place, "secret")
            secret.write_text("the contents")
            server = self.serve("unix_descriptor", f"unix://{place}/socket", secret)
            with connect(f"{place}/socket", socket.AF_UNIX) as peer:
                text, descriptors, _, _ = socket.recv_fds(peer, 100, 1)
                self.assertEqual((text, len(descriptors)), (b"here it is", 1))
                with open(descriptors[0]) as file:
                    self.assertEqual(file.read(), "the contents")
                self.assertEqual(peer.recv(1), b"")
            secret.unlink()
            with connect(f"{place}/socket", socket.AF_UNIX) as peer:
                self.assertEqual(socket.recv_fds(peer, 100, 1)[:2], (b"not today", []))
            self.end(server)

    def test_inproc_pipeline(self):
        answer = run("inproc_pipeline", "small", "words")
        self.assertEqual((answer.returncode, answer.stdout, answer.stderr), (0, "SMALL\nWORDS\n", ""))

    def test_remote_memory(self):
        answer = run("remote_memory")
        self.assertEqual((answer.returncode, answer.stdout, answer.stderr), (0, "written by the owner\nguest\nwritten by the guest\n", ""))

    def test_nested_loop(self):
        port = free_port()
        host = subprocess.Popen([folder() / "nested_loop", f"tcp://127.0.0.1:{port}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            with connect(("127.0.0.1", port)) as peer:
                self.assertEqual(exchange(peer, pattern(1 << 20)), pattern(1 << 20))
                host.stdin.write("typed\n")
                host.stdin.flush()
                self.assertEqual(host.stdout.readline(), "the host read 6 bytes\n")
                self.assertEqual(exchange(peer, b"still there"), b"still there")
                host.stdin.close()
                self.assertEqual(host.wait(PATIENCE), 0)
        finally:
            host.kill()
            host.wait()
            host.stdout.close()

    def test_watch_descriptor(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.bind(("127.0.0.1", 0))
            peer.settimeout(PATIENCE)
            process = subprocess.Popen([folder() / "watch_descriptor", f"udp://127.0.0.1:{peer.getsockname()[1]}"], stdin=subprocess.PIPE)
            for line in (b"first\n", b"second\n"):
                process.stdin.write(line)
                process.stdin.flush()
                self.assertEqual(peer.recv(100), line)
            process.stdin.close()
            self.assertEqual(process.wait(PATIENCE), 0)
        unwatchable = run("watch_descriptor")  # /dev/null cannot be waited for
        self.assertEqual(unwatchable.returncode, 1)
        self.assertIn("cannot be watched", unwatchable.stderr)

    def test_chat_does_not_wait_for_a_slow_member(self):
        port = free_port()
        server = self.serve("chat", f"tcp://127.0.0.1:{port}?sndbuf=65536")
        speaker, listener, slow = (connect(("127.0.0.1", port)) for _ in range(3))
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        total = 8 << 20  # more than all buffers on the way to one member
        for member in (slow, listener):  # both are known to the room once they have heard something
            speaker.sendall(b"x")
            self.assertEqual(member.recv(1), b"x")
        slow.recv(1), listener.recv(1)
        for _ in range(total >> 16):
            speaker.sendall(bytes(1 << 16))
            got = 0
            while got < 1 << 16:
                got += len(listener.recv((1 << 16) - got))
        text = b""
        while b"[you missed " not in text:
            piece = slow.recv(1 << 16)
            self.assertTrue(piece, "the slow member is still a member")
            text = text[-50:] + piece
        for peer in (speaker, listener, slow):
            peer.close()
        self.end(server)

    def test_co_proxy(self):
        self.test_tcp_proxy("co_proxy")

    def test_co_proxy_takes_no_more_than_the_target_reads(self):
        self.test_tcp_proxy_takes_no_more_than_the_target_reads("co_proxy")

    def test_tcp_proxy(self, program="tcp_proxy"):
        ports = free_port(), free_port()
        target = self.serve("echo", f"tcp://127.0.0.1:{ports[1]}")
        proxy = self.serve(program, f"tcp://127.0.0.1:{ports[0]}", f"tcp://127.0.0.1:{ports[1]}")
        connect(("127.0.0.1", ports[1])).close()
        with connect(("127.0.0.1", ports[0])) as peer:
            self.assertEqual(exchange(peer, pattern(4 << 20)), pattern(4 << 20))
            peer.shutdown(socket.SHUT_WR)
            self.assertEqual(peer.recv(1), b"", "the end passes both ways")
        self.end(target)
        with connect(("127.0.0.1", ports[0])) as peer:
            try:
                self.assertEqual(peer.recv(1), b"", "without a target the client is let go")
            except ConnectionError:
                pass
        self.end(proxy)

    def test_tcp_proxy_takes_no_more_than_the_target_reads(self, program="tcp_proxy"):
        with socket.create_server(("127.0.0.1", 0)) as target:
            port = free_port()
            proxy = self.serve(program, f"tcp://127.0.0.1:{port}?rcvbuf=65536", f"tcp://127.0.0.1:{target.getsockname()[1]}?sndbuf=65536")
            with connect(("127.0.0.1", port)) as peer:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
                silent, _ = target.accept()
                with silent:
                    peer.settimeout(1)
                    sent = 0
                    try:
                        while sent < 64 << 20:
                            sent += peer.send(bytes(1 << 16))
                    except TimeoutError:
                        pass
                    self.assertLess(sent, 32 << 20, "who is not read from stops reading")
                    resident = int(pathlib.Path(f"/proc/{proxy.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
                    if not os.environ.get("EVPL_SANITIZE"):
                        self.assertLess(resident, 64 << 20)
                    received = 0
                    silent.settimeout(PATIENCE)
                    while received < sent:
                        received += len(silent.recv(1 << 20))
                    self.assertEqual(received, sent)
            self.end(proxy)

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
