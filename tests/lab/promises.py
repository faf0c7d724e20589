"""What the lab promises its users, tried through its front door: each a boot of its own, or none where none should come to be."""
import os
import pathlib
import subprocess
import sys
import time

import guest

LAB = [sys.executable, str(guest.HERE / "lab.py")]


class Result:
    def __init__(self, name):
        self.name, self.code, self.output, self.ending = name, 0, "", "Failed"


def lab(command, stdout=subprocess.PIPE, argv=None, **variables):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LAB_")}
    environment.update({"LAB_DEVICES": "none", "LAB_TIME": "60", **variables})
    return subprocess.run(argv or [*LAB, command], env=environment, cwd="/", stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE)


def expect(truth, *shown):
    if not truth:
        raise AssertionError(" ".join(str(value) for value in shown))


def passes_on_status_and_bytes(scratch):
    """A megabyte of all byte values comes out as it went in, and the status is the command's."""
    data = scratch / "megabyte"
    data.write_bytes(os.urandom(1 << 20))
    done = lab(f"cat {data}; exit 7")
    expect(done.returncode == 7, done.returncode, done.stderr)
    expect(done.stdout == data.read_bytes(), "bytes were changed:", len(done.stdout), "instead of", 1 << 20)


def takes_a_command_unexpanded_through_make(scratch):
    """What make would expand or split reaches the shell of the guest: dollars, quotes, hashes, newlines. It runs in the project's root."""
    text = "dollar $HOME $(MAKE) ${x} 'single' \"double\" `back` \\ # hash\nsecond line; | & *"
    quoted = "'" + text.replace("'", "'\\''") + "'"
    done = lab(None, argv=["make", "-s", "-C", str(guest.ROOT), "lab", f"CMD=x=inner; printf '%s|%s|' {quoted} \"$x\"; pwd; exit 9"], DEPS="skip")
    expect(done.stdout.decode() == f"{text}|inner|{guest.ROOT}\n", repr(done.stdout))
    expect(done.returncode == 2 and b"Error 9" in done.stderr, done.returncode, done.stderr)


def ends_at_the_time_limit(scratch):
    """What was written before is there; the answer is 124, soon after the limit, although something keeps the output open."""
    began = time.monotonic()
    done = lab("echo before; sleep 1000 & sleep 1000", LAB_TIME="2")
    expect(done.returncode == guest.TIMED_OUT, done.returncode, done.stderr)
    expect(done.stdout == b"before\n", repr(done.stdout))
    expect(b"time limit of 2 s" in done.stderr, done.stderr)
    expect(time.monotonic() - began < guest.BOOT_LIMIT_S, "took", time.monotonic() - began)


def says_that_the_guest_died(scratch):
    """A panic is told from a failing command, and the end of the console is shown. What is written right before it may be lost on its way."""
    done = lab("echo before; sleep 2; echo c >/proc/sysrq-trigger; sleep 50")
    expect(done.returncode == guest.DIED, done.returncode, done.stderr)
    expect(b"before" in done.stdout, repr(done.stdout))
    expect(b"the guest died" in done.stderr and b"Kernel panic" in done.stderr, done.stderr.decode(errors="replace"))


def ends_with_its_command(scratch):
    """What a command leaves running does not hold the guest; files of the host are readable, and writing changes none of them."""
    (scratch / "file").write_text("host\n")
    done = lab(f"sleep 1000 & cd {scratch} && cat file && echo guest >file && cat file && echo kept >$LAB_RESULTS/result")
    expect(done.returncode == 0, done.returncode, done.stderr)
    expect(done.stdout == b"host\nguest\n", repr(done.stdout))
    expect((scratch / "file").read_text() == "host\n", "a file of the host was changed")


def skips_without_an_emulator(scratch):
    done = lab("true", PATH=str(scratch))
    expect(done.returncode == 77 and done.stdout.startswith(b"SKIP: there is no emulator"), done.returncode, done.stdout)


def skips_without_a_kernel(scratch):
    done = lab("true", XDG_CACHE_HOME=str(scratch), DEPS="skip")
    expect(done.returncode == 77 and b"SKIP: no kernel" in done.stdout, done.returncode, done.stdout)


TESTS = [passes_on_status_and_bytes, takes_a_command_unexpanded_through_make, ends_at_the_time_limit, says_that_the_guest_died,
         ends_with_its_command, skips_without_an_emulator, skips_without_a_kernel]


def run_all(folder):
    print("== the lab itself", flush=True)
    results = []
    for test in TESTS:
        scratch = pathlib.Path(folder) / "self" / test.__name__
        scratch.mkdir(parents=True)
        result = Result("lab." + test.__name__)
        began = time.monotonic()
        try:
            test(scratch)
        except (AssertionError, OSError) as why:
            result.code, result.output, result.ending = 1, f"{why}\n", str(why)[:200]
        print(f"{result.name:47} {time.monotonic() - began:4.0f} s  {'passed' if result.code == 0 else 'FAILED ' + result.output}", flush=True)
        results.append(result)
    return results
