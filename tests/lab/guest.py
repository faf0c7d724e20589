"""One run of the guest: an emulated machine that sees the host's files, runs one command and switches itself off."""
import ctypes
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time

import kernel
from kernel import Absent

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent

TIMED_OUT = 124
DIED = 125

# From the start of the emulator to the start of the command: 7 to 11 s where nothing else runs.
BOOT_LIMIT_S = 180

KERNEL_COMMAND_LINE = ("console=ttyS0 loglevel=4 panic=-1 mitigations=off nokaslr apparmor=0 audit=0 tsc=reliable no_timer_check "
                       "cryptomgr.notests random.trust_cpu=on kfence.sample_interval=0 8250.nr_uarts=1")


class Settings:
    """What a run can be told, from the environment: LAB_KERNEL, LAB_CPUS, LAB_MEMORY (MiB), LAB_TIME (s), LAB_DEVICES, LAB_QEMU."""

    def __init__(self, environment=os.environ):
        self.kernel = environment.get("LAB_KERNEL") or "6.12"
        self.cpus = int(environment.get("LAB_CPUS") or 2)
        self.memory_mib = int(environment.get("LAB_MEMORY") or 1024)
        self.time_s = float(environment.get("LAB_TIME") or 600)
        self.devices = environment.get("LAB_DEVICES") or "dummy"
        self.qemu = shlex.split(environment.get("LAB_QEMU") or "")


def say(text):
    print(f"lab: {text}", file=sys.stderr, flush=True)


def emulator():
    found = shutil.which("qemu-system-x86_64")
    if found is None:
        raise Absent("there is no emulator here: qemu-system-x86_64 (package qemu-system-x86)")
    return found


def share(path, tag, options):
    escaped = str(path).replace(",", ",,")
    return ["-virtfs", f"local,path={escaped},mount_tag={tag},security_model=none,multidevs=remap{options}"]


def command_line(settings, folder, image, exchange, output_fd):
    return [
        emulator(), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-machine", "q35", "-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max",
        "-smp", str(settings.cpus), "-m", f"{settings.memory_mib}M",
        "-kernel", str(folder / "vmlinux"), "-initrd", str(image), "-append", KERNEL_COMMAND_LINE,
        "-serial", "file:" + str(exchange / "console.log"),
        *share("/", "host", ",readonly=on"), *share(exchange, "exchange", ""),
        "-device", "virtio-serial-pci",
        "-chardev", f"file,id=output,path=/dev/fd/{output_fd}", "-device", "virtserialport,chardev=output,name=lab.output",
        "-device", "virtio-rng-pci", *settings.qemu,
    ]


def provide(version):
    """Kernel and initramfs, from the cache or fetched; raises Absent."""
    emulator()
    return kernel.provide(version, HERE / "init", say)


def prepare(exchange, command, settings, folder, files):
    """The folder that both sides see: what to run goes in, status, console and results come out."""
    shutil.rmtree(exchange, ignore_errors=True)
    (exchange / "results").mkdir(parents=True)
    (exchange / "command").write_bytes(os.fsencode(command))
    (exchange / "modules").write_text(f"{folder / 'modules'}\n")
    (exchange / "start").write_text(f"{HERE / 'guest.sh'}\n")
    for name, text in files.items():
        (exchange / name).write_text(text)
    exports = {"LAB_ROOT": ROOT, "LAB_DEVICES": settings.devices, "LAB_RESULTS": "/run/lab/results", "EVPL_LAB": folder.name, "EVPL_TEST_SLOWNESS": 5}
    (exchange / "settings").write_text("".join(f"export {name}={shlex.quote(str(value))}\n" for name, value in exports.items()))


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: however the driver ends, no emulator stays behind


def copy_out(source, sink):
    """Passes on what the guest writes, as it comes; reads on when nobody listens any more, so that the guest can end."""
    while chunk := os.read(source, 65536):
        try:
            sink.write(chunk)
            sink.flush()
        except BrokenPipeError:
            sink = open(os.devnull, "wb")
    os.close(source)


def wait_for(machine, exchange, time_s):
    """Until the machine is off. False: it did not come up, or the command took longer than it may."""
    end, begun = time.monotonic() + BOOT_LIMIT_S, False
    while time.monotonic() < end:
        if not begun and (exchange / "begun").exists():
            end, begun = time.monotonic() + time_s, True
        try:
            machine.wait(0.1)
            return True
        except subprocess.TimeoutExpired:
            pass
    return False


def run(command, exchange, settings, files={}, sink=None):
    """Boots, runs `command` with bash from the project's root, and returns its exit status, TIMED_OUT or DIED.

    Output goes to `sink` (binary; standard output when None) while it comes; `files`, name to text, are put into /run/lab. Raises Absent
    when there is no emulator or kernel.
    """
    folder, image = provide(settings.kernel)
    prepare(exchange, command, settings, folder, files)
    source, output_fd = os.pipe()
    machine = subprocess.Popen(command_line(settings, folder, image, exchange, output_fd), stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=open(exchange / "emulator.log", "wb"), pass_fds=[output_fd],
                               preexec_fn=die_with_parent)
    os.close(output_fd)
    reader = threading.Thread(target=copy_out, args=(source, sink or sys.stdout.buffer))
    reader.start()
    try:
        went_off = wait_for(machine, exchange, settings.time_s)
    finally:
        machine.kill()
        machine.wait()
        reader.join()
    return verdict(exchange, settings, went_off)


def tail(file, lines=60):
    text = file.read_text(errors="replace") if file.exists() else ""
    return "".join(f"    {line}\n" for line in text.splitlines()[-lines:])


def verdict(exchange, settings, went_off):
    status = exchange / "status"
    if status.exists() and status.read_text().strip().isdigit():
        return int(status.read_text())
    if not went_off and (exchange / "begun").exists():
        say(f"the time limit of {settings.time_s:g} s is over (LAB_TIME)")
        return TIMED_OUT
    what = "died" if went_off else f"did not come up within {BOOT_LIMIT_S} s"
    say(f"the guest {what}; the end of its console:\n" + tail(exchange / "console.log") + tail(exchange / "emulator.log"))
    return DIED
