#!/usr/bin/env python3
"""The tarball of `make dist` has the same bytes for the same commit and all that a build reads; the Debian packages take each installed
file exactly once and agree with the library about its version, its soname and its symbol versions.

Building and trying the packages takes minutes: `make night` does it.
"""
import fnmatch
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("EVPL_BUILD", ROOT / "build/dev"))
TRIPLET = "x86_64-linux-gnu"  # any one will do: the packages say *


def run(*command, **more):
    return subprocess.run(command, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL, **more).stdout


def text(path):
    return (ROOT / path).read_text(encoding="utf-8")


def version():
    return re.search(r"^project\(evpl VERSION (\S+)", text("CMakeLists.txt"), re.M)[1]


def has_commits():
    return shutil.which("git") and subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, check=False).returncode == 0


@unittest.skipUnless(has_commits(), "not a git checkout: there is no commit to pack")
class Tarball(unittest.TestCase):
    def setUp(self):
        self.scratch = tempfile.TemporaryDirectory()
        self.addCleanup(self.scratch.cleanup)

    def pack(self, name, **environment):
        """A tarball from a checkout of its own, so that nothing here is disturbed."""
        clone = pathlib.Path(self.scratch.name, name)
        run("git", "clone", "--quiet", "--shared", ROOT, clone)
        return clone / run("bash", "scripts/dist.sh", cwd=clone, env={**os.environ, **environment}).strip()

    def test_the_same_commit_gives_the_same_bytes(self):
        one = self.pack("one", TZ="UTC", LC_ALL="C")
        self.addCleanup(os.umask, os.umask(0o077))
        other = self.pack("other", TZ="Asia/Tokyo", LC_ALL="C.UTF-8")
        self.assertEqual(hashlib.sha256(one.read_bytes()).hexdigest(), hashlib.sha256(other.read_bytes()).hexdigest())

    def test_it_has_what_a_build_reads_and_nothing_of_a_build(self):
        tarball = self.pack("one")
        with tarfile.open(tarball) as packed:
            self.assertEqual({name.split("/")[0] for name in packed.getnames()}, {f"libevpl-{version()}"})
            packed.extractall(self.scratch.name)
        tree = pathlib.Path(self.scratch.name, f"libevpl-{version()}")
        for path in ("LICENSE", "README.md", "CHANGELOG.md", "debian/control", ".ci/run"):
            self.assertTrue((tree / path).is_file(), path)
        self.assertFalse((tree / "build").exists() or (tree / ".git").exists())
        build = tree / "build/dev"
        run("cmake", "--preset", "dev", cwd=tree)
        # A source that is missing has no rule to make it.
        run("ninja", "-C", build, "-n", "all")


class Packages(unittest.TestCase):
    def test_the_versions_agree(self):
        self.assertEqual(re.match(r"libevpl \((\S+)\)", text("debian/changelog"))[1], version())

    def test_each_installed_file_is_in_exactly_one_package(self):
        with tempfile.TemporaryDirectory() as folder:
            run("cmake", "--install", BUILD, "--prefix", pathlib.Path(folder, "usr"))
            installed = [str(path.relative_to(folder)) for path in pathlib.Path(folder).rglob("*") if not path.is_dir()]
        installed = [re.sub(r"^usr/lib/(?!.*-linux-gnu)", f"usr/lib/{TRIPLET}/", path) for path in installed]
        wanted = {name: text(f"debian/{name}.install").split() for name in ("libevpl0", "libevpl-dev", "evpl-tools")}
        for path in installed:
            takers = [name for name, patterns in wanted.items() for one in patterns
                      if fnmatch.fnmatch(path, one) or fnmatch.fnmatch(path, one + "/*")]
            self.assertEqual(len(takers), 1, f"{path} is in {takers}")
        for name, patterns in wanted.items():
            for one in patterns:
                self.assertTrue(any(fnmatch.fnmatch(path, one) or fnmatch.fnmatch(path, one + "/*") for path in installed), f"{name}: {one}")

    def test_the_symbols_file_has_each_symbol_version_and_the_soname(self):
        symbols = text("debian/libevpl0.symbols")
        nodes = set(re.findall(r"^(EVPL\w*[\d.]+) \{", text("cmake/evpl.map"), re.M))
        self.assertTrue(nodes)
        self.assertEqual(set(re.findall(r"\(symver\)(\S+)", symbols)), nodes)
        soname = re.search(r"SONAME.*\[(.*)\]", run("readelf", "-d", BUILD / "libevpl.so"))[1]
        self.assertEqual(symbols.split()[:2], [soname, soname.replace(".so.", "")])

    def test_programs_in_cxx_may_not_meet_the_next_minor_version(self):
        # The C++ interface holds within a minor version only: what dpkg-shlibdeps notes for such programs ends there.
        major, minor, _ = version().split(".")
        symbols = text("debian/libevpl0.symbols")
        self.assertIn(f"| libevpl0 #MINVER#, libevpl0 (<< {major}.{int(minor) + 1}~)\n", symbols)
        self.assertIn(f" (symver)EVPL_CXX_{major}.{minor} {version()} 1\n", symbols)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "tests/tool"))
    import support
    support.main()
