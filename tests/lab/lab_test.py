#!/usr/bin/env python3
"""How the lab adds up what happens in its guests, with guests that are only played: no emulator, no kernel."""
import os
import pathlib
import sys
import tempfile
import unittest
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import guest  # noqa: E402
import kernel
import promises
import suite

LIST = ("6.1\tnone\t10\talways\told.one\ttrue\n"
        "6.12\tdummy\t10\talways\tnew.one\ttrue\n"
        "6.12\tveth\t10\talways\tnew.two\ttrue\n"
        "6.12\tveth\t10\tnight\tnew.slow\ttrue\n")
GTEST = '<testsuites><testsuite><testcase name="A" classname="S" status="run" result="completed"/></testsuite></testsuites>'


class Played:
    """Stands for guest.run: a guest dies, or runs out of time, under the tests that are named for it."""

    def __init__(self, codes=None, dies=(), late=(), reports=None):
        self.codes, self.dies, self.late, self.reports, self.boots = codes or {}, dies, late, reports or {}, []

    def __call__(self, command, exchange, settings, files={}, sink=None):
        names = [line.split("\t")[2] for line in files["list"].splitlines()]
        self.boots.append((settings.kernel, names))
        results = exchange / "results"
        results.mkdir(parents=True, exist_ok=True)
        for name in names:
            if name in self.dies:
                return guest.DIED
            if name in self.late:
                return guest.TIMED_OUT
            (results / f"{name}.log").write_text("SKIP: not here\n" if self.codes.get(name) == 77 else "said\x00\x1b\n")
            (results / f"{name}.code").write_text(f"{self.codes.get(name, 0)}\n")
            if name in self.reports:
                (results / f"{name}.xml").write_text(self.reports[name])
        return 0


class Suite(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        build = pathlib.Path(scratch.name)
        (build / "lab-tests.txt").write_text(LIST)
        for name, value in [("BUILD", build), ("RESULTS", build / "lab-results")]:
            patch = mock.patch.object(suite, name, value)
            patch.start()
            self.addCleanup(patch.stop)

    def run_suite(self, played, own=(), absent=None, **variables):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LAB_")}
        provide = mock.Mock(side_effect=guest.Absent(absent) if absent else None)
        with mock.patch.object(guest, "run", played), mock.patch.object(guest, "provide", provide), \
                mock.patch.object(promises, "run_all", lambda _: list(own)), mock.patch.dict(os.environ, {**environment, **variables}, clear=True), \
                mock.patch("sys.stdout"):
            code = suite.main()
        return code, tuple(int(n) for n in (suite.RESULTS / "summary").read_text().split())

    def test_one_boot_for_each_kernel(self):
        played = Played(reports={"new.two": GTEST})
        self.assertEqual(self.run_suite(played), (0, (3, 0, 0)))
        self.assertEqual(played.boots, [("6.1", ["old.one"]), ("6.12", ["new.one", "new.two"])])

    def test_failures_and_skips_are_counted(self):
        self.assertEqual(self.run_suite(Played({"old.one": 77, "new.one": 1})), (1, (1, 1, 1)))

    def test_a_test_that_times_out_has_failed(self):
        self.assertEqual(self.run_suite(Played({"new.one": 124})), (1, (2, 1, 0)))

    def test_a_filter_that_chooses_nothing_has_failed(self):
        self.assertEqual(self.run_suite(Played(reports={"new.one": "<testsuites/>"})), (1, (2, 1, 0)))

    def test_goes_on_behind_the_test_that_the_guest_died_under(self):
        played = Played(dies=["new.one"])
        self.assertEqual(self.run_suite(played), (1, (2, 1, 0)))
        self.assertEqual(played.boots[1:], [("6.12", ["new.one", "new.two"]), ("6.12", ["new.two"])])

    def test_what_was_not_reached_in_time_has_failed(self):
        self.assertEqual(self.run_suite(Played(late=["new.one"])), (1, (1, 2, 0)))

    def test_a_broken_promise_of_the_lab_is_a_failure(self):
        broken = promises.Result("lab.broken")
        broken.code = 1
        self.assertEqual(self.run_suite(Played(), own=[broken]), (1, (3, 1, 0)))

    def test_without_an_emulator_it_is_skipped_and_never_passed(self):
        self.assertEqual(self.run_suite(Played(), absent="no emulator"), (77, (0, 0, 1)))
        self.assertEqual((suite.RESULTS / "absent").read_text(), "no emulator\n")

    def test_night_has_more_and_a_kernel_can_be_chosen(self):
        self.assertEqual(self.run_suite(Played(), LAB_TESTS="night"), (0, (4, 0, 0)))
        self.assertEqual(self.run_suite(Played(), LAB_KERNEL="6.12"), (0, (2, 0, 0)))

    def test_a_bad_line_is_an_error(self):
        with self.assertRaises(ValueError):
            suite.read_list("6.1\tnone\t10\tsometimes\tname\ttrue\n", False)


class Kernels(unittest.TestCase):
    def test_the_newest_of_the_wanted_version_is_taken(self):
        with tempfile.TemporaryDirectory() as cache, mock.patch.dict(os.environ, {"XDG_CACHE_HOME": cache}):
            for version in ["6.1.0-9-amd64", "6.1.0-56-amd64", "6.12.9+deb12-amd64"]:
                (kernel.cache_root() / version).mkdir(parents=True)
                (kernel.cache_root() / version / "vmlinux").touch()
            self.assertEqual(kernel.cached("6.1").name, "6.1.0-56-amd64")
            self.assertEqual(kernel.cached("6.12").name, "6.12.9+deb12-amd64")
            self.assertEqual(kernel.cached("6.1.0-9").name, "6.1.0-9-amd64")
            self.assertIsNone(kernel.cached("6.2"))

    def test_an_image_that_carries_no_kernel_is_refused(self):
        image = bytearray(2048)
        image[0x1F1] = 1
        with self.assertRaises(guest.Absent):
            kernel.payload(bytes(image))


if __name__ == "__main__":
    unittest.main(verbosity=2)
