"""The guest's kernel: fetched as a Debian package, unpacked, never installed; kept in the user's cache.

A kernel in the cache is a folder of its complete version with
  vmlinux      the kernel as an ELF file, which the emulator enters without decompressing it under emulation
  modules/     a tree for modprobe -d
  initramfs-*  what mounts the host's files; its name carries a digest of what it was made from
"""
import fcntl
import hashlib
import lzma
import os
import pathlib
import re
import shutil
import struct
import subprocess
import tempfile
import zlib


class Absent(Exception):
    """Something that the lab needs is not on this machine: a reason to skip, not a failure."""


# What the first process loads, in this order, besides what these need. Built into some kernels: then there is nothing to load.
INITRAMFS_MODULES = ["virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay"]
# Unpacked once on the host, since unpacking under emulation takes seconds.
USUAL_MODULES = ["rdma_rxe", "rdma_ucm", "ib_umad", "veth", "dummy", "sch_netem", "tls", "crc32_generic", "crc32c_generic"]


def cache_root():
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return pathlib.Path(base) / "evpl-lab"


def run(command, **options):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, **options)
    if done.returncode != 0:
        raise Absent(f"{command[0]} failed: {done.stdout.decode(errors='replace').strip()[-300:]}")
    return done.stdout.decode(errors="replace")


def version_key(version):
    return [int(number) for number in re.findall(r"\d+", version)]


def cached(wanted):
    """The newest kernel in the cache that is `wanted`, a version or its first numbers; None if there is none."""
    pattern = re.compile(re.escape(wanted) + r"(?!\d)")
    found = [entry for entry in cache_root().glob("*/vmlinux") if pattern.match(entry.parent.name)]
    return max((entry.parent for entry in found), key=lambda folder: version_key(folder.name), default=None)


def package_of(wanted):
    """The kernel package whose version begins with `wanted`, the newest of those that apt knows."""
    if shutil.which("apt-cache") is None:
        raise Absent("no kernel in the cache, and there is no apt-cache here to find one with")
    suffix = "-amd64"
    names = run(["apt-cache", "--names-only", "search", "^linux-image-" + re.escape(wanted)]).splitlines()
    names = [name.split()[0] for name in names]
    real = re.compile(r"linux-image-" + re.escape(wanted) + r"(?!\d)[0-9.+a-z~-]*" + suffix + "$")
    names = [name for name in names if real.match(name) and not re.search(r"-(cloud|rt)-|-unsigned", name)]
    names = [name for name in names if name != f"linux-image-{wanted}{suffix}"]  # an alias of the newest
    if not names:
        raise Absent(f"apt knows no kernel {wanted}: no package linux-image-{wanted}*{suffix}")
    return max(names, key=version_key)


def payload(image):
    """What a bzImage carries, an ELF file, unpacked. Offsets as in the kernel's x86 boot protocol."""
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    begin = (setup_sectors + 1) * 512 + offset
    packed = image[begin : begin + length]
    if packed.startswith(b"\x28\xb5\x2f\xfd"):  # zstd; the last four bytes are the size and no part of the frame
        unpacked = subprocess.run(["zstd", "-dc"], input=packed[:-4], stdout=subprocess.PIPE, check=True).stdout
    elif packed.startswith(b"\xfd7zXZ"):
        unpacked = lzma.LZMADecompressor().decompress(packed)
    elif packed.startswith(b"\x1f\x8b"):
        unpacked = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(packed)
    else:
        raise Absent(f"the kernel is packed in an unknown way: it begins with {packed[:6].hex()}")
    if not unpacked.startswith(b"\x7fELF"):
        raise Absent("what the kernel image carries is not an ELF file")
    return unpacked


def dependencies(folder, module):
    """Files of a module and of what it needs, in the order of loading; none if it is built in."""
    listed = subprocess.run(["modprobe", "-d", folder / "modules", "-S", folder.name, "--show-depends", module],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return [pathlib.Path(line.split()[1]) for line in listed.stdout.splitlines() if line.startswith("insmod ")]


def unpack_modules(folder):
    """Modules that nearly every guest loads are left unpacked in the tree."""
    for module in USUAL_MODULES:
        for file in dependencies(folder, module):
            if file.suffix == ".xz" and file.exists():
                file.with_suffix("").write_bytes(lzma.decompress(file.read_bytes()))
                file.unlink()
    run(["depmod", "-b", folder / "modules", folder.name])


def fetch(wanted, say):
    """Downloads the package and makes its folder in the cache."""
    package = package_of(wanted)
    version = package.removeprefix("linux-image-")
    say(f"fetching {package}, once; it is kept in {cache_root()}")
    with tempfile.TemporaryDirectory(dir=cache_root(), prefix="new-") as scratch:
        scratch = pathlib.Path(scratch)
        run(["apt-get", "-q", "download", package], cwd=scratch)
        tree = scratch / "tree"
        run(["dpkg", "-x", *scratch.glob("*.deb"), tree])
        folder = scratch / version
        lib = folder / "modules/lib/modules"
        lib.mkdir(parents=True)
        (folder / "vmlinux").write_bytes(payload((tree / "boot" / f"vmlinuz-{version}").read_bytes()))
        (tree / "boot" / f"config-{version}").rename(folder / "config")
        (tree / "lib/modules" / version).rename(lib / version)
        run(["depmod", "-b", folder / "modules", version])
        unpack_modules(folder)
        folder.rename(cache_root() / version)
    return cache_root() / version


def make_initramfs(folder, init):
    """A few megabytes: a shell, the modules that reach the host's files, and `init`."""
    busybox = shutil.which("busybox")
    if busybox is None:
        raise Absent("there is no busybox here (package busybox-static)")
    files = []
    for module in INITRAMFS_MODULES:
        files += [file for file in dependencies(folder, module) if file not in files]
    digest = hashlib.sha256()
    for file in [pathlib.Path(busybox), init, *files]:
        digest.update(file.name.encode() + file.read_bytes())
    image = folder / f"initramfs-{digest.hexdigest()[:16]}"
    if image.exists():
        return image
    with tempfile.TemporaryDirectory(dir=cache_root(), prefix="new-") as scratch:
        root = pathlib.Path(scratch) / "root"
        for name in ["bin", "modules", "proc", "sys", "dev", "lower", "upper", "whole"]:
            (root / name).mkdir(parents=True)
        shutil.copy(busybox, root / "bin/busybox")
        shutil.copy(init, root / "init")
        (root / "init").chmod(0o755)
        order = []
        for file in files:
            bytes_ = file.read_bytes()
            order.append(file.name.removesuffix(".xz"))
            (root / "modules" / order[-1]).write_bytes(lzma.decompress(bytes_) if file.suffix == ".xz" else bytes_)
        (root / "modules/order").write_text("".join(name + "\n" for name in order))
        made = pathlib.Path(scratch) / "image"
        with open(made, "wb") as out:
            names = b"\0".join(str(path.relative_to(root)).encode() for path in sorted(root.rglob("*")))
            subprocess.run(["cpio", "--quiet", "-0", "-o", "-H", "newc", "-R", "0:0"], cwd=root, input=names, stdout=out, check=True)
        made.rename(image)
    return image


def provide(wanted, init, say):
    """Folder and initramfs of a kernel whose version begins with `wanted`; raises Absent."""
    for tool, package in [("modprobe", "kmod"), ("depmod", "kmod"), ("cpio", "cpio"), ("zstd", "zstd"), ("dpkg", "dpkg")]:
        if shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") is None:
            raise Absent(f"there is no {tool} here (package {package})")
    cache_root().mkdir(parents=True, exist_ok=True)
    with open(cache_root() / "lock", "w") as lock:  # two labs that start together fetch once
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = cached(wanted)
        if folder is None:
            if os.environ.get("DEPS") == "skip":
                raise Absent(f"no kernel {wanted} in {cache_root()}, and DEPS=skip forbids to fetch one")
            folder = fetch(wanted, say)
        return folder, make_initramfs(folder, init)
