"""Starts the echo server EVPL_ECHO, sends through it, ends it."""
import os
import signal
import socket
import subprocess
import sys
import time

with socket.create_server(("127.0.0.1", 0)) as probe:
    port = probe.getsockname()[1]
server = subprocess.Popen([os.environ["EVPL_ECHO"], f"tcp://127.0.0.1:{port}"])
try:
    deadline = time.monotonic() + 20
    while True:
        try:
            peer = socket.create_connection(("127.0.0.1", port), timeout=20)
            break
        except ConnectionRefusedError:
            if time.monotonic() > deadline or server.poll() is not None:
                sys.exit("the server does not listen")
            time.sleep(0.02)  # it does not say when it is ready
    with peer:
        peer.sendall(b"hello")
        answer = b""
        while len(answer) < 5:
            part = peer.recv(5)
            if not part:
                break
            answer += part
    assert answer == b"hello", answer
    server.send_signal(signal.SIGTERM)
    assert server.wait(20) == 0
finally:
    server.kill()
    server.wait()
