#!/usr/bin/env python3
"""In a strict container the library works as everywhere, and says once what it has to do without: a seccomp filter that knows neither io_uring
nor epoll_pwait2 (EPERM, as filters of container engines answer) and refuses huge pages, 64 KiB of locked memory, a read-only file system,
no root and no capability.
"""
import collections
import ctypes
import errno
import os
import pathlib
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/tool"))
import support  # noqa: E402

BUILD = pathlib.Path(os.environ.get("EVPL_BUILD", ROOT / "build/dev"))
SANITIZE = os.environ.get("EVPL_SANITIZE", "")
MMAP = {"x86_64": 9, "aarch64": 222}.get(os.uname().machine)
# From 424 on numbers are the same on all architectures.
UNKNOWN = {"io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "epoll_pwait2": 441}
MAP_HUGETLB = 0x40000
NOBODY = 65534


def filter_program():
    """BPF for seccomp(2): unknown calls and huge pages get EPERM, all else goes through."""
    load, equal, any_bit, answer = 0x20, 0x15, 0x45, 0x06
    allow, refuse = 0x7FFF0000, 0x00050000 | errno.EPERM
    lines = [(load, 0, 0, 0)]  # the number
    numbers = list(UNKNOWN.values())
    for i, number in enumerate(numbers):
        lines.append((equal, len(numbers) - i + 3, 0, number))
    lines += [(equal, 0, 3, MMAP), (load, 0, 0, 16 + 3 * 8), (any_bit, 1, 0, MAP_HUGETLB), (answer, 0, 0, allow), (answer, 0, 0, refuse)]
    # Not mmap: past the refusal.
    lines[len(numbers) + 1] = (equal, 0, 2, MMAP)
    return b"".join(struct.pack("HBBI", *line) for line in lines)


def enter(command):
    """In a mount namespace of its own already: becomes nobody behind the filter, and then `command`."""
    libc = ctypes.CDLL(None, use_errno=True)

    def need(truth, what):
        if not truth:
            print(f"SKIP: {what}: {os.strerror(ctypes.get_errno())}")
            sys.exit(77)
    rec, private, bind, remount, read_only = 0x4000, 1 << 18, 4096, 32, 1
    need(libc.mount(None, b"/", None, rec | private, None) == 0, "mounts of one's own")
    need(libc.mount(None, b"/", None, bind | remount | read_only, None) == 0, "a read-only file system")
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))
    no_new_privileges, set_seccomp, by_filter, drop_bounding = 38, 22, 2, 24
    for capability in range(64):
        libc.prctl(drop_bounding, capability, 0, 0, 0)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    need(libc.prctl(no_new_privileges, 1, 0, 0, 0) == 0, "no new privileges")
    code = ctypes.create_string_buffer(filter_program())
    program = struct.pack("HxxxxxxP", len(code.raw) // 8, ctypes.addressof(code))
    need(libc.prctl(set_seccomp, by_filter, program, 0, 0) == 0, "a seccomp filter")
    os.execv(command[0], command)


class Container(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if os.geteuid() != 0:
            raise unittest.SkipTest("only root can put a read-only file system before a process and then become nobody")
        if MMAP is None:
            raise unittest.SkipTest(f"the filter is not written for {os.uname().machine}")
        # Where nobody can read it, wherever the build tree is.
        cls.folder = tempfile.TemporaryDirectory(prefix="evpl-container-")
        cls.addClassCleanup(cls.folder.cleanup)
        os.chmod(cls.folder.name, 0o755)
        cls.evpl = shutil.copy(support.command(), cls.folder.name)
        cls.program = shutil.copy(BUILD / "tests/logged_echo", cls.folder.name)

    def inside(self, *command):
        run = subprocess.run(["unshare", "--mount", sys.executable, __file__, "--enter", *command], stdin=subprocess.DEVNULL, capture_output=True,
                             text=True, check=False, timeout=120, cwd="/")
        if run.returncode == 77 or "unshare failed" in run.stderr:
            self.skipTest((run.stdout or run.stderr).strip())
        # A build that counts lines cannot leave its counts there, and says so.
        run.stderr = "".join(line for line in run.stderr.splitlines(keepends=True) if not line.startswith("profiling:"))
        return run

    def test_the_container_is_as_strict_as_it_says(self):
        probe = """
import ctypes, mmap, os, resource
print(os.geteuid(), resource.getrlimit(resource.RLIMIT_MEMLOCK)[0])
try: open("/evpl-container-probe", "w")
except OSError as why: print(why.errno)
print(sum(int(line.split()[1], 16) for line in open("/proc/self/status") if line.startswith(("CapEff", "CapPrm", "CapBnd"))))
libc = ctypes.CDLL(None, use_errno=True)
for number in (425, 441): print(libc.syscall(number, 0, 0, 0, 0, 0, 0), ctypes.get_errno())
try: mmap.mmap(-1, 2 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000)
except OSError as why: print(why.errno)
"""
        python = shutil.which("python3", path="/usr/bin:/bin")
        if python is None:
            self.skipTest("no python3 that everybody may run")
        run = self.inside(python, "-c", probe)
        self.assertEqual((run.stdout.split("\n"), run.stderr),
                         ([f"{NOBODY} 65536", str(errno.EROFS), "0", f"-1 {errno.EPERM}", f"-1 {errno.EPERM}", str(errno.EPERM), ""], ""))

    def test_it_works_and_says_once_what_it_does_without(self):
        urls = ["tcp://127.0.0.1:0", "unix://@evpl-container", "stream://127.0.0.1:0", "inproc://container"]
        run = self.inside(self.program, *urls)
        self.assertEqual((run.returncode, run.stderr), (0, ""), run.stdout)
        lines = run.stdout.splitlines()
        self.assertEqual([line for line in lines if line.startswith("echoed ")], [f"echoed {url}" for url in urls])
        told = collections.Counter(line for line in lines if line.startswith("log ") and "listening at" not in line)
        for words in ("normal pages", "epoll_pwait2"):
            self.assertEqual(sum(count for line, count in told.items() if words in line), 1, f"{words}: {told}")
        self.assertEqual(max(told.values()), 1, told)

    def test_the_command_measures_each_transport(self):
        run = self.inside(self.evpl, "perf", "--all", "--time", "0.05", "--warmup", "0.02")
        self.assertEqual(run.returncode, 0, run.stderr)
        for transport in ("tcp", "udp", "unix", "inproc"):
            self.assertRegex(run.stdout, rf"(?m)^{transport} +\d")

    def test_the_doctor_tells_what_the_container_forbids(self):
        run = self.inside(self.evpl, "doctor")
        self.assertIn(run.returncode, (0, 1), run.stderr)
        self.assertRegex(run.stdout, r"(?s)memlock.*64 KiB")
        self.assertRegex(run.stdout, r"io_uring.*(forbid|refus|permi|EPERM)")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--enter"]:
        enter(sys.argv[2:])
    support.take_binary_from_arguments()
    support.main()
