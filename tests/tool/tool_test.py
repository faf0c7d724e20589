#!/usr/bin/env python3
"""The command as its users see it: real processes, real sockets, exit codes and what is printed.

usage: tool_test.py [PATH-OF-EVPL] [unittest arguments]
"""
import json
import os
import pathlib
import pty
import re
import resource
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest

import support
from support import FACTOR, PATIENCE, Server, exchange, pattern

CAPS = {"kind": str, "half_close": bool, "receive_pause": bool, "rma": bool, "descriptors": bool, "credentials": bool, "multicast": bool,
        "segmentation": bool, "zero_copy_send": bool, "zero_copy_receive": bool, "simulated_time": bool, "remote_tells": bool, "remote_atomics": bool, "remote_invalidate": bool,
        "message_bytes_max": int, "inline_bytes_max": int, "copy_bytes_max": int, "private_data_bytes_max": int, "remote_reads_max": int}
PERCENTILES = ["min", "p50", "p90", "p99", "p99.9", "p99.99", "p99.999", "max"]
PROMISED_END_S = 1.0


def evpl(*arguments, timeout=60, **options):
    return subprocess.run([support.command(), *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, timeout=timeout, **options)


def echo(*arguments, lines=1, **options):
    return Server([support.command(), "echo", *arguments], lines=lines, **options)


def present():
    return {t["scheme"]: t for t in json.loads(evpl("info", "--json").stdout)["transports"] if t["present"]}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Info(unittest.TestCase):
    def test_json_has_every_promised_field(self):
        answer = evpl("info", "--json")
        self.assertEqual((answer.returncode, answer.stderr), (0, ""))
        document = json.loads(answer.stdout)
        self.assertEqual(list(document), ["version", "transports"])
        self.assertRegex(document["version"], r"^\d+\.\d+\.\d+$")
        for one in document["transports"]:
            self.assertEqual(list(one), ["scheme", "summary", "present", "reason", "remedy", "caps"])
            self.assertEqual({k: type(v) for k, v in one["caps"].items()}, CAPS, one["scheme"])
            self.assertIn(one["caps"]["kind"], ("stream", "message", "datagram"))
            self.assertTrue(one["summary"], one["scheme"])
            if one["present"]:
                self.assertEqual(one["remedy"], "", one["scheme"])
            else:
                self.assertTrue(one["reason"], one["scheme"])
                self.assertTrue(one["remedy"], one["scheme"])
        schemes = [t["scheme"] for t in document["transports"]]
        self.assertEqual(len(schemes), len(set(schemes)))

    def test_the_kernels_sockets_are_always_present(self):
        self.assertLessEqual({"tcp", "udp", "unix", "inproc"}, set(present()))

    def test_text_names_every_transport_and_its_state(self):
        answer = evpl("info")
        self.assertEqual((answer.returncode, answer.stderr), (0, ""))
        for one in json.loads(evpl("info", "--json").stdout)["transports"]:
            state = "present" if one["present"] else "absent"
            self.assertRegex(answer.stdout, rf"(?m)^{re.escape(one['scheme'])} +{state} ")
            if not one["present"]:
                self.assertIn(one["remedy"], answer.stdout)


class CommandLine(unittest.TestCase):
    def test_version(self):
        answer = evpl("--version")
        self.assertEqual((answer.returncode, answer.stderr), (0, ""))
        self.assertRegex(answer.stdout, r"^evpl \d+\.\d+\.\d+\n$")

    def test_help_explains(self):
        for arguments, word in [(["help"], "perf"), (["--help"], "perf"), (["help", "echo"], "--drain"), (["help", "perf"], "--warmup"),
                                (["perf", "--help"], "--warmup"), (["help", "info"], "--json"), (["help", "help"], "command")]:
            answer = evpl(*arguments)
            self.assertEqual((answer.returncode, answer.stderr), (0, ""), arguments)
            self.assertIn(word, answer.stdout, arguments)

    def test_bad_arguments_are_one_line_that_names_them_and_status_2(self):
        to = ["perf", "--connect", "tcp://127.0.0.1:1"]
        for arguments, name in [
            ([], "ommand"), (["nonsense"], "nonsense"), (["--nonsense"], "--nonsense"), (["help", "nonsense"], "nonsense"),
            (["info", "extra"], "extra"), (["info", "--jason"], "--jason"), (["info", "--config", "extra"], "extra"),
            (["doctor", "extra"], "extra"), (["doctor", "--jason"], "--jason"), (["help", "info", "extra"], "extra"),
            (["echo"], "--listen"), (["echo", "--listen"], "--listen"),
            (["echo", "--listen", "tcp://127.0.0.1:0", "--threads", "0"], "--threads"),
            (["echo", "--listen", "tcp://127.0.0.1:0", "--threads", "many"], "many"),
            (["echo", "--listen", "tcp://127.0.0.1:0", "--mode", "lazy"], "lazy"),
            (["echo", "--listen", "tcp://127.0.0.1:0", "--pin", "x"], "x"),
            (["echo", "--listen", "tcp://127.0.0.1:0", "--pin", "-1"], "-1"),
            (["echo", "--listen", "tcp://127.0.0.1:0", "--drain", "-1"], "-1"),
            (["echo", "--listen", "tcp://127.0.0.1:0", "--drain", "nan"], "nan"),
            (["perf"], "--connect"), (["perf", "--all", "--connect", "tcp://127.0.0.1:1"], "--all"), (["perf", "--all", "--size", "4"], "--size"),
            ([*to, "--test", "speed"], "speed"), ([*to, "--size", "0"], "--size"), ([*to, "--size", "-1"], "-1"), ([*to, "--size", "17M"], "17M"),
            ([*to, "--size", "1kk"], "1kk"), ([*to, "--size", "99999999999999999999"], "9999"), ([*to, "--depth", "0"], "--depth"),
            ([*to, "--depth", "65537"], "65537"), ([*to, "--connections", "0"], "--connections"), ([*to, "--threads", "0"], "--threads"),
            ([*to, "--time", "0"], "--time"), ([*to, "--time", "inf"], "inf"), ([*to, "--time", "nan"], "nan"), ([*to, "--warmup", "-1"], "-1"),
            ([*to, "--count", "0"], "--count"), ([*to, "--count", "5", "--time", "1"], "--count"), ([*to, "--rate", "-5"], "-5"),
            ([*to, "--rate", "1e300"], "1e300"), ([*to, "--mode", "lazy"], "lazy"), ([*to, "--seed", "x"], "x"), ([*to, "extra"], "extra"),
            (["perf", "--connect", "udp://127.0.0.1:9", "--size", "4"], "--size"),
            (["perf", "--connect", "udp://127.0.0.1:9", "--test", "connect"], "connect"),
            (["perf", "--connect", "nonsense"], "nonsense"), (["perf", "--connect", ""], "--connect"), (["perf", "--connect", "tcp://host:port"], "port"),
        ]:
            with self.subTest(arguments=arguments):
                answer = evpl(*arguments)
                self.assertEqual(answer.returncode, 2, answer.stderr)
                self.assertEqual(answer.stdout, "")
                self.assertRegex(answer.stderr, r"\Aevpl: [^\n]+\n\Z")
                self.assertIn(name, answer.stderr)

    def test_failures_are_one_line_that_names_them_and_status_1(self):
        port = free_port()
        for arguments, names in [
            (["perf", "--connect", f"tcp://127.0.0.1:{port}", "--count", "1"], [str(port), "refused"]),
            (["perf", "--connect", f"tcp://127.0.0.1:{port}", "--count", "1", "--test", "connect"], [str(port), "refused"]),
            (["perf", "--connect", f"tcp://127.0.0.1:{port}", "--count", "9", "--threads", "3", "--connections", "3"], [str(port), "refused"]),
            (["perf", "--connect", f"udp://127.0.0.1:{port}", "--count", "1"], [str(port), "refused"]),
            (["perf", "--connect", "unix:///nonexistent/socket", "--count", "1"], ["/nonexistent/socket"]),
            (["perf", "--connect", "inproc://nobody", "--count", "1"], ["inproc://nobody"]),
            (["perf", "--connect", "tcp://no-such-host.invalid:7000", "--count", "1"], ["no-such-host.invalid"]),
            (["perf", "--connect", "nosuch://127.0.0.1:7000", "--count", "1"], ["nosuch"]),
            (["perf", "--connect", f"tcp://127.0.0.1:{port}?nosuch=1", "--count", "1"], ["nosuch"]),
            (["perf", "--connect", f"tcp://127.0.0.1:{port}", "--json", "/nonexistent/file"], ["/nonexistent/file"]),
            (["echo", "--listen", "nonsense"], ["nonsense"]),
            (["echo", "--listen", "nosuch://127.0.0.1:0"], ["nosuch"]),
            (["echo", "--listen", "tcp://192.0.2.1:0"], ["192.0.2.1"]),
            (["echo", "--listen", "udp://192.0.2.1:0"], ["192.0.2.1"]),
            (["echo", "--listen", "tcp://no-such-host.invalid:0"], ["no-such-host.invalid"]),
            (["echo", "--listen", "unix:///nonexistent/socket"], ["/nonexistent/socket"]),
            (["echo", "--listen", "tcp://127.0.0.1:0?nosuch=1"], ["nosuch"]),
            (["echo", "--listen", "tcp://127.0.0.1:0", "--pin", "4095"], ["4095"]),
            (["echo", "--listen", ""], ['""']), (["echo", "--listen", "tcp://127.0.0.1"], ["tcp://127.0.0.1", "port"]),
            (["echo", "--listen", "tcp://127.0.0.1:99999"], ["99999"]), (["echo", "--listen", "inproc://"], ["inproc://"]),
            (["echo", "--listen", "tcp://127.0.0.1:0?backlog=lots"], ["lots", "backlog"]),
            (["echo", "--listen", "tcp://127.0.0.1:0?fd=0"], ["fd=0", "not a listening socket"]),
            (["echo", "--listen", "tcp://127.0.0.1:0", "--threads", "2", "--pin", "0,4095"], ["4095"]),
            (["perf", "--connect", "tcp://127.0.0.1", "--count", "1"], ["tcp://127.0.0.1", "port"]),
            (["echo", "--listen", "tcp://192.0.2.1:0", "--threads", "2"], ["192.0.2.1"]),
            (["echo", "--listen", "udp://192.0.2.1:0", "--threads", "2"], ["192.0.2.1"]),
        ]:
            with self.subTest(arguments=arguments):
                answer = evpl(*arguments)
                self.assertEqual(answer.returncode, 1, answer.stdout + answer.stderr)
                self.assertRegex(answer.stderr, r"\Aevpl: [^\n]+\n\Z")
                for name in names:
                    self.assertIn(name, answer.stderr)


class Echo(unittest.TestCase):
    def test_tcp_sends_back_what_comes(self):
        data = pattern(5_000_000)
        with echo("--listen", "tcp://127.0.0.1:0") as server, socket.create_connection(server.address()) as peer:
            self.assertEqual(exchange(peer, b"x"), b"x")
            self.assertEqual(exchange(peer, data), data)

    def test_the_rest_still_comes_after_the_peer_has_finished_sending(self):
        data = pattern(300_000)
        with echo("--listen", "tcp://127.0.0.1:0") as server, socket.create_connection(server.address()) as peer:
            peer.settimeout(PATIENCE)
            sender = threading.Thread(target=lambda: (peer.sendall(data), peer.shutdown(socket.SHUT_WR)))
            sender.start()
            received = b"".join(iter(lambda: peer.recv(1 << 16), b""))
            sender.join()
            self.assertEqual(received, data)

    def test_a_listening_socket_of_its_parent_as_systemd_gives_it(self):
        for more in ([], ["--threads", "3"]):
            with self.subTest(more=more), socket.create_server(("127.0.0.1", 0)) as listening:
                address, fd = listening.getsockname(), listening.fileno()
                with socket.create_connection(address) as early, \
                        echo("--listen", f"tcp://127.0.0.1:{address[1]}?fd={fd}", *more, pass_fds=(fd,)) as server:
                    self.assertEqual(server.url, f"tcp://127.0.0.1:{address[1]}")
                    self.assertEqual(exchange(early, b"before there was a server"), b"before there was a server")
                    for _ in range(6):
                        with socket.create_connection(address) as peer:
                            self.assertEqual(exchange(peer, b"x"), b"x")

    def test_ipv6(self):
        if not socket.has_ipv6 or not pathlib.Path("/proc/net/if_inet6").exists():
            self.skipTest("no IPv6 here")
        with echo("--listen", "tcp://[::1]:0") as server, socket.create_connection(server.address()) as peer:
            self.assertEqual(exchange(peer, b"six"), b"six")

    def test_udp_answers_every_sender(self):
        with echo("--listen", "udp://127.0.0.1:0") as server:
            for text in (b"one", b"two", pattern(8000)):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
                    peer.settimeout(PATIENCE)
                    peer.sendto(text, server.address())
                    self.assertEqual(peer.recvfrom(65536), (text, server.address()))

    def test_udp_sends_empty_datagrams_back(self):
        with echo("--listen", "udp://127.0.0.1:0") as server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.settimeout(PATIENCE)
            peer.sendto(b"", server.address())
            self.assertEqual(peer.recvfrom(100)[0], b"")

    def test_unix_by_path_and_abstract_name(self):
        with tempfile.TemporaryDirectory() as folder:
            path, name = f"{folder}/socket", f"evpl-tool-test-{os.getpid()}"
            with echo("--listen", f"unix://{path}", "--listen", f"unix://@{name}", lines=2) as server:
                self.assertEqual(server.urls, [f"unix://{path}", f"unix://@{name}"])
                for address in (path, "\0" + name):
                    with socket.socket(socket.AF_UNIX) as peer:
                        peer.connect(address)
                        self.assertEqual(exchange(peer, b"unix"), b"unix")

    def test_unix_messages_keep_their_ends(self):
        name = f"evpl-tool-test-msg-{os.getpid()}"
        with echo("--listen", f"unix://@{name}?mode=msg"), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
            peer.connect("\0" + name)
            peer.settimeout(PATIENCE)
            messages = [pattern(n, n) for n in (1, 2, 100, 5000, 1, 60000)]
            for message in messages:
                peer.send(message)
            self.assertEqual([peer.recv(1 << 18) for _ in messages], messages)

    def test_several_endpoints_and_threads_in_one_server(self):
        for threads in (1, 3):
            with self.subTest(threads=threads), \
                    echo("--listen", "tcp://127.0.0.1:0", "--listen", "udp://127.0.0.1:0", "--threads", str(threads), lines=2) as server:
                peers = [socket.create_connection(server.address(0)) for _ in range(12)]
                for i, peer in enumerate(peers):
                    self.assertEqual(exchange(peer, pattern(20_000, i)), pattern(20_000, i))
                    peer.close()
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
                    peer.settimeout(PATIENCE)
                    peer.sendto(b"packet", server.address(1))
                    self.assertEqual(peer.recv(100), b"packet")
                status, _ = server.end()
                self.assertEqual(status, 0)

    def test_modes_and_pinning(self):
        cpu = str(min(os.sched_getaffinity(0)))
        for more in (["--mode", "event"], ["--mode", "poll"], ["--mode", "hybrid", "--pin", cpu], ["--threads", "2", "--pin", f"{cpu},{cpu}"]):
            with self.subTest(more=more), echo("--listen", "tcp://127.0.0.1:0", *more) as server:
                with socket.create_connection(server.address()) as peer:
                    self.assertEqual(exchange(peer, b"hello"), b"hello")
                if "--pin" in more:
                    allowed = [pathlib.Path(t, "status").read_text() for t in pathlib.Path(f"/proc/{server.process.pid}/task").iterdir()]
                    self.assertTrue(any(re.search(rf"Cpus_allowed_list:\s+{cpu}\n", text) for text in allowed))
                self.assertEqual(server.end()[0], 0)

    def test_a_second_server_on_the_port_is_refused(self):
        for scheme in ("tcp", "udp"):
            with self.subTest(scheme=scheme), echo("--listen", f"{scheme}://127.0.0.1:0") as first:
                second = evpl("echo", "--listen", first.url)
                self.assertEqual((second.returncode, second.stdout), (1, ""))
                self.assertRegex(second.stderr, rf"\Aevpl: [^\n]*{re.escape(first.url)}[^\n]*\n\Z")
                self.assertRegex(second.stderr, "in use|address_in_use")
                self.assertEqual(second.stderr.count(first.url), 1, "named once, not twice")

    def test_a_unix_path_is_taken_while_its_server_lives_and_free_afterwards(self):
        with tempfile.TemporaryDirectory() as folder:
            url = f"unix://{folder}/socket"
            with echo("--listen", url) as first:
                second = evpl("echo", "--listen", url)
                self.assertEqual(second.returncode, 1)
                self.assertIn(url, second.stderr)
                self.assertEqual(first.end()[0], 0)
            with echo("--listen", url):
                pass

    def test_raises_its_descriptor_limit(self):
        def lower():
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, 4096))
        with echo("--listen", "tcp://127.0.0.1:0", preexec_fn=lower) as server:
            peers = [socket.create_connection(server.address()) for _ in range(300)]
            for peer in peers:
                self.assertEqual(exchange(peer, b"x"), b"x")
            for peer in peers:
                peer.close()


class Ending(unittest.TestCase):
    """Whatever its peers do, the server is gone within a second, with status 0."""

    def check(self, server, which=signal.SIGTERM, limit=PROMISED_END_S):
        status, seconds = server.end(which)
        self.assertEqual(status, 0)
        self.assertLess(seconds, limit * FACTOR)

    def test_idle_on_both_signals(self):
        for which in (signal.SIGTERM, signal.SIGINT):
            for threads in ("1", "2"):
                with self.subTest(which=which, threads=threads), echo("--listen", "tcp://127.0.0.1:0", "--threads", threads) as server:
                    self.check(server, which)

    def test_with_silent_peers(self):
        for threads in ("1", "2"):
            with self.subTest(threads=threads), echo("--listen", "tcp://127.0.0.1:0", "--threads", threads) as server:
                peers = [socket.create_connection(server.address()) for _ in range(5)]
                self.assertEqual(exchange(peers[0], b"x"), b"x")
                self.check(server)
                self.assertEqual(peers[0].recv(1), b"")
                for peer in peers:
                    peer.close()

    def clog(self, server):
        """A peer that sends until nothing more fits, and never reads."""
        peer = socket.create_connection(server.address())
        peer.setblocking(False)
        quiet_since, sent = time.monotonic(), 0
        while time.monotonic() - quiet_since < 0.3:
            try:
                sent += peer.send(b"x" * 65536)
                quiet_since = time.monotonic()
            except BlockingIOError:
                time.sleep(0.01)
        return peer, sent

    def test_with_a_peer_that_never_reads(self):
        for more in ([], ["--threads", "2"]):
            with self.subTest(more=more), echo("--listen", "tcp://127.0.0.1:0", *more) as server:
                peer, _ = self.clog(server)
                self.check(server)
                peer.close()

    def test_a_peer_that_never_reads_stops_being_read_and_costs_little_memory(self):
        with echo("--listen", "tcp://127.0.0.1:0") as server:
            peer, sent = self.clog(server)
            self.assertLess(sent, 64 << 20)
            resident = int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{server.process.pid}/status").read_text())[1])
            if not os.environ.get("EVPL_SANITIZE"):
                self.assertLess(resident, 64 << 10)
            with socket.create_connection(server.address()) as other:  # and nobody else notices
                self.assertEqual(exchange(other, b"x"), b"x")
            peer.close()

    def test_a_peer_that_reads_late_gets_everything(self):
        for _ in range(3):
            with echo("--listen", "tcp://127.0.0.1:0") as server:
                peer, sent = self.clog(server)
                peer.setblocking(True)
                peer.settimeout(5)
                received = 0
                while received < sent:
                    received += len(peer.recv(1 << 20))
                peer.close()

    def test_drain_waits_for_peers_but_not_longer_than_told(self):
        for more in ([], ["--threads", "2"]):
            with self.subTest(more=more), echo("--listen", "tcp://127.0.0.1:0", "--drain", "1", *more) as server:
                peer, _ = self.clog(server)
                status, seconds = server.end()
                self.assertEqual(status, 0)
                self.assertGreater(seconds, 0.7)
                self.assertLess(seconds, 1 + PROMISED_END_S * FACTOR)
                peer.close()

    def test_drain_delivers_what_was_accepted(self):
        with echo("--listen", "tcp://127.0.0.1:0", "--drain", "2") as server:
            peer, _ = self.clog(server)
            server.process.send_signal(signal.SIGTERM)
            peer.settimeout(PATIENCE)
            received = sum(map(len, iter(lambda: peer.recv(1 << 16), b"")))
            peer.close()
            self.assertEqual(server.process.wait(PATIENCE), 0)
            self.assertGreater(received, 400_000)  # at least the outbox and the socket's buffer

    def test_drain_ends_when_the_last_peer_has_finished(self):
        for more in ([], ["--threads", "2"]):
            with self.subTest(more=more), echo("--listen", "tcp://127.0.0.1:0", "--drain", "30", *more) as server:
                with socket.create_connection(server.address()) as peer:
                    self.assertEqual(exchange(peer, b"x"), b"x")
                    server.process.send_signal(signal.SIGTERM)
                    peer.settimeout(PATIENCE)
                    self.assertEqual(peer.recv(1), b"")
                    time.sleep(0.2)
                    self.assertIsNone(server.process.poll())
                began = time.monotonic()
                self.assertEqual(server.process.wait(PATIENCE), 0)
                self.assertLess(time.monotonic() - began, PROMISED_END_S * FACTOR)

    def test_drain_ends_at_once_when_nobody_is_there(self):
        for more in ([], ["--threads", "2"]):
            with self.subTest(more=more), echo("--listen", "tcp://127.0.0.1:0", "--drain", "30", *more) as server:
                self.check(server)

    def test_a_second_signal_ends_a_drain(self):
        for more in ([], ["--threads", "2"]):
            with self.subTest(more=more), echo("--listen", "tcp://127.0.0.1:0", "--drain", "30", *more) as server:
                peer, _ = self.clog(server)
                server.process.send_signal(signal.SIGTERM)
                time.sleep(0.3)
                self.assertIsNone(server.process.poll())
                _, seconds = server.end()
                self.assertLess(seconds, PROMISED_END_S * FACTOR)
                peer.close()


class Perf(unittest.TestCase):
    def measure(self, url, *arguments, lost=False):
        answer = evpl("perf", "--connect", url, *arguments, "--json", "-")
        self.assertEqual((answer.returncode, answer.stderr), (0, ""), arguments)
        document = json.loads(answer.stdout)
        for result in document["results"]:
            self.assertEqual(result["error"], "")
            self.assertGreater(result["messages"], 0)
            self.assertGreater(result["seconds"], 0)
            times = [result["time_ns"][p] for p in PERCENTILES]
            self.assertEqual(times, sorted(times))
            self.assertGreater(times[0], 0)
            if not lost:
                self.assertEqual((result["lost"], result["late"]), (0, 0))
        return document

    def test_every_test_over_every_transport(self):
        name = f"evpl-tool-test-perf-{os.getpid()}"
        with echo("--listen", "tcp://127.0.0.1:0", "--listen", "udp://127.0.0.1:0", "--listen", f"unix://@{name}",
                  "--listen", f"unix://@{name}-msg?mode=msg", lines=4) as server:
            for url in server.urls:
                if url.endswith("-msg"):
                    url += "?mode=msg"
                for test in ("latency", "rate", "stream", "connect"):
                    if test == "connect" and url.startswith("udp"):
                        continue
                    with self.subTest(url=url, test=test):
                        document = self.measure(url, "--test", test, "--count", 200, lost=url.startswith("udp"))
                        (result,) = document["results"]
                        self.assertEqual(result["test"], test)
                        self.assertEqual(result["messages"] + result["lost"], 200)

    def test_without_test_it_measures_latency_then_rate(self):
        with echo("--listen", "tcp://127.0.0.1:0") as server:
            document = self.measure(server.url, "--count", 100)
            self.assertEqual([r["test"] for r in document["results"]], ["latency", "rate"])
            self.assertEqual(document["version"], evpl("--version").stdout.split()[1])
            self.assertGreater(document["machine"]["cpus"], 0)
            self.assertEqual(document["parameters"]["connect"], server.url)
            self.assertEqual(document["parameters"]["count"], 100)

    def test_sizes_that_fit_nothing_well(self):
        with echo("--listen", "tcp://127.0.0.1:0") as server:
            for size in (1, 3, 2047, 2048, 2049, 65521, 65522, "1M", "3m", 5_000_001):
                with self.subTest(size=size):
                    self.measure(server.url, "--test", "rate", "--size", size, "--count", 20, "--depth", 3)

    def test_many_connections_and_threads(self):
        with echo("--listen", "tcp://127.0.0.1:0", "--threads", "2") as server:
            for threads in (1, 3):
                document = self.measure(server.url, "--test", "rate", "--connections", 100, "--threads", threads, "--count", 5000)
                self.assertEqual(document["results"][0]["messages"], 5000)

    def test_time_and_warmup(self):
        with echo("--listen", "tcp://127.0.0.1:0") as server:
            began = time.monotonic()
            (result,) = self.measure(server.url, "--test", "latency", "--time", 0.5, "--warmup", 0.3)["results"]
            self.assertGreater(time.monotonic() - began, 0.8)
            self.assertAlmostEqual(result["seconds"], 0.5, delta=0.2 * FACTOR)

    def test_open_loop_keeps_its_rate(self):
        with echo("--listen", "tcp://127.0.0.1:0", "--listen", "udp://127.0.0.1:0", lines=2) as server:
            for url in server.urls:
                with self.subTest(url=url):
                    (result,) = self.measure(url, "--test", "latency", "--rate", 2000, "--time", 1, "--connections", 4)["results"]
                    self.assertAlmostEqual(result["messages"], 2000, delta=200)
                    self.assertEqual(result["target_per_second"], 2000)

    def test_open_loop_times_count_from_when_messages_were_due(self):
        # Goal: a server that stops for a while shows up in the percentiles, although nothing is sent while it stands still.
        with echo("--listen", "tcp://127.0.0.1:0") as server:
            def pause():
                time.sleep(0.5)
                server.process.send_signal(signal.SIGSTOP)
                time.sleep(0.5)
                server.process.send_signal(signal.SIGCONT)
            pauser = threading.Thread(target=pause)
            pauser.start()
            (result,) = self.measure(server.url, "--test", "latency", "--rate", 1000, "--time", 2, "--warmup", 0)["results"]
            pauser.join()
            self.assertGreater(result["time_ns"]["max"], 350e6)
            self.assertGreater(result["time_ns"]["p90"], 100e6)  # a quarter of all were due during the pause

    def test_table_for_people_and_json_file(self):
        with echo("--listen", "tcp://127.0.0.1:0") as server, tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "out.json")
            answer = evpl("perf", "--connect", server.url, "--count", 500, "--json", path)
            self.assertEqual((answer.returncode, answer.stderr), (0, ""))
            for word in ("latency over tcp", "rate over tcp", "p99.999", "max", "/s"):
                self.assertIn(word, answer.stdout)
            self.assertEqual(len(json.loads(path.read_text())["results"]), 2)

    def test_progress_when_asked(self):
        with echo("--listen", "tcp://127.0.0.1:0") as server:
            answer = evpl("perf", "--connect", server.url, "--test", "latency", "--time", 2.5, "--warmup", 0, "--progress")
            self.assertRegex(answer.stderr, r"(?m)^ +1 s +[\d,]+ messages/s$")
            self.assertEqual(len(answer.stderr.splitlines()), 2)

    def test_progress_on_a_terminal(self):
        with echo("--listen", "tcp://127.0.0.1:0") as server:
            ours, theirs = pty.openpty()
            subprocess.run([support.command(), "perf", "--connect", server.url, "--test", "latency", "--time", "1.3", "--warmup", "0"],
                           stdout=subprocess.DEVNULL, stderr=theirs, timeout=60, check=True)
            os.close(theirs)
            self.assertIn(b"messages/s", os.read(ours, 4096))
            os.close(ours)

    def fake_server(self, serve):
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)

        def run():
            try:
                while True:
                    peer, _ = listener.accept()
                    with peer:
                        serve(peer)
            except OSError:
                pass
        threading.Thread(target=run, daemon=True).start()
        return f"tcp://127.0.0.1:{listener.getsockname()[1]}"

    def refused(self, url, *words, arguments=()):
        answer = evpl("perf", "--connect", url, "--test", "rate", *arguments)
        self.assertEqual(answer.returncode, 1, answer.stdout)
        self.assertRegex(answer.stderr, r"\Aevpl: [^\n]+\n\Z")
        for word in words:
            self.assertIn(word, answer.stderr)

    def test_wrong_bytes_are_noticed(self):
        def flip(peer):
            while piece := bytearray(peer.recv(65536)):
                piece[-1] ^= 1
                peer.sendall(piece)
        self.refused(self.fake_server(flip), "wrong bytes")

    def test_swapped_or_repeated_bytes_are_noticed(self):
        def swap(peer):
            while piece := peer.recv(65536):
                peer.sendall(piece[64:128] + piece[:64] + piece[128:])
        self.refused(self.fake_server(swap), "wrong bytes")

    def test_a_server_that_closes_is_named(self):
        url = self.fake_server(lambda peer: peer.recv(10))
        self.refused(url, url)

    def test_a_server_that_never_answers_is_given_up(self):
        def swallow(peer):
            while peer.recv(65536):
                pass
        self.refused(self.fake_server(swallow), "no reply", arguments=("--time", "0.5"))
        self.refused(self.fake_server(swallow), "no reply", arguments=("--count", "5"))

    def udp_server(self, serve):
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind(("127.0.0.1", 0))
        self.addCleanup(server.close)

        def run():
            number = 0
            try:
                while True:
                    data, peer = server.recvfrom(65536)
                    number += 1
                    for answer in serve(number, data):
                        server.sendto(answer, peer)
            except OSError:
                pass
        threading.Thread(target=run, daemon=True).start()
        return f"udp://127.0.0.1:{server.getsockname()[1]}"

    def test_lost_datagrams_are_counted_and_do_not_stop_a_run(self):
        url = self.udp_server(lambda number, data: [] if number % 10 == 0 else [data])
        (result,) = self.measure(url, "--test", "rate", "--count", 200, "--depth", 8, lost=True)["results"]
        self.assertEqual(result["messages"] + result["lost"], 200)
        self.assertGreaterEqual(result["lost"], 15)
        answer = evpl("perf", "--connect", url, "--test", "rate", "--count", 200, "--depth", 8)
        self.assertRegex(answer.stdout, r"\d+ lost")

    def test_doubled_datagrams_are_counted(self):
        url = self.udp_server(lambda number, data: [data, data])
        (result,) = self.measure(url, "--test", "rate", "--count", 200, lost=True)["results"]
        self.assertGreater(result["late"], 0)

    def test_wrong_datagrams_are_noticed(self):
        self.refused(self.udp_server(lambda number, data: [data[:-1] + bytes([data[-1] ^ 1])]), "wrong bytes")
        self.refused(self.udp_server(lambda number, data: [data[:-1]]), "size")
        self.refused(self.udp_server(lambda number, data: [b"\xff" * len(data)]), "never sent")

    def test_all_transports_in_one_run(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "all.json")
            began = time.monotonic()
            answer = evpl("perf", "--all", "--time", 0.1, "--json", path, timeout=120)
            self.assertEqual((answer.returncode, answer.stderr), (0, ""), answer.stdout)
            self.assertLess(time.monotonic() - began, 20 * FACTOR)
            document = json.loads(path.read_text())
            transports = json.loads(evpl("info", "--json").stdout)["transports"]
            for one in transports:
                tests = [r["test"] for r in document["results"] if r["transport"] == one["scheme"]]
                if one["caps"]["simulated_time"]:
                    self.assertEqual(tests, [])
                elif not one["present"]:
                    self.assertIn(one["scheme"], [a["transport"] for a in document["absent"]])
                    self.assertRegex(answer.stdout, rf"(?m)^{re.escape(one['scheme'])} +absent: .*\S")
                else:
                    wanted = ["latency", "rate", "stream"] + ([] if one["caps"]["kind"] == "datagram" else ["connect"])
                    self.assertEqual(tests, wanted, one["scheme"])
                    self.assertRegex(answer.stdout, rf"(?m)^{re.escape(one['scheme'])} +\d")


if __name__ == "__main__":
    support.take_binary_from_arguments()
    support.main()
