"""The tests of the lab: its own, then those that build/dev/lab-tests.txt lists, one boot for each kernel."""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree

import guest
import promises

BUILD = guest.ROOT / "build/dev"
RESULTS = BUILD / "lab-results"
SKIPPED = 77


class Test:
    def __init__(self, kernel, devices, seconds, when, name, command):
        self.kernel, self.devices, self.seconds, self.when, self.name, self.command = kernel, devices, int(seconds), when, name, command
        self.code = None  # None: it did not end
        self.output = ""
        self.ending = "Failed"


def read_list(text, night):
    """Lines of six fields parted by tabs: kernel, devices, seconds, always or night, name, command."""
    tests = [Test(*line.split("\t")) for line in text.splitlines() if line.strip()]
    for test in tests:
        if not re.fullmatch(r"[\w.-]+", test.name) or test.when not in ("always", "night"):
            raise ValueError(f"lab-tests.txt: {test.name!r}, {test.when!r}")
    return [test for test in tests if night or test.when == "always"]


def boot(kernel, tests, seconds_left):
    """Runs `tests`, all of one kernel, in one guest and fills in how they ended. True: the guest lived until the end."""
    exchange = RESULTS / f"guest-{kernel}"
    settings = guest.Settings()
    settings.kernel, settings.devices, settings.time_s = kernel, tests[0].devices, seconds_left
    listed = "".join(f"{test.devices}\t{test.seconds}\t{test.name}\t{test.command}\n" for test in tests)
    status = guest.run("bash tests/lab/run_list.sh", exchange, settings, files={"list": listed})
    for test in tests:
        read_result(exchange / "results", test)
    return status


def read_result(folder, test):
    log, code, report = (folder / f"{test.name}.{kind}" for kind in ["log", "code", "xml"])
    test.output = log.read_text(errors="replace") if log.exists() else ""
    if code.exists() and code.read_text().strip():
        test.code = int(code.read_text())
    if test.code == guest.TIMED_OUT:
        test.ending = f"Timeout after {test.seconds} s"
    if report.exists():
        shutil.copy(report, RESULTS)
        if test.code == 0 and next(ElementTree.parse(report).getroot().iter("testcase"), None) is None:
            test.code, test.ending = 1, "no test of that name"


def run_kernel(kernel, tests, end):
    """All tests of one kernel. A test under which the guest dies has failed, and the next boot goes on behind it."""
    while tests:
        left_s = end - time.monotonic()
        status = boot(kernel, tests, left_s) if left_s > 0 else guest.TIMED_OUT
        waiting = [test for test in tests if test.code is None]
        if not waiting:
            return
        if status == guest.DIED:
            waiting[0].code, waiting[0].ending = guest.DIED, "the guest died"
            tests = waiting[1:]
            continue
        for test in waiting:
            test.code, test.ending = status or 1, "the time of the lab was over" if status == guest.TIMED_OUT else "not reached"
        return


def printable(text):
    return "".join(c for c in text if c in "\n\t" or c >= " " and c not in "\x7f\ufffe\uffff")


def write_results(tests):
    """As ctest would have left them, for the same summary."""
    root = ElementTree.Element("testsuite")
    log = ""
    for number, test in enumerate(tests, 1):
        case = ElementTree.SubElement(root, "testcase", name=test.name, status="run")
        ElementTree.SubElement(case, "system-out").text = printable(test.output)
        if test.code == SKIPPED:
            case.set("status", "notrun")
            ElementTree.SubElement(case, "skipped", message=f"SKIP_RETURN_CODE={SKIPPED}")
        elif test.code != 0:
            case.set("status", "fail")
            log += f"\t{number} - {test.name} ({test.ending})\n"
    ElementTree.ElementTree(root).write(RESULTS / "ctest.xml", encoding="utf-8", xml_declaration=True)
    (RESULTS / "ctest.log").write_text(log)


def summarise():
    script = guest.ROOT / "scripts/summarise_tests.py"
    return subprocess.run([sys.executable, script, RESULTS], stdin=subprocess.DEVNULL).returncode


def skip_all(why):
    absent = Test("", "", 0, "always", "lab", "")
    absent.code, absent.output = SKIPPED, f"SKIP: {why}\n"
    write_results([absent])
    (RESULTS / "absent").write_text(f"{why}\n")
    summarise()
    return SKIPPED


def main():
    night = os.environ.get("LAB_TESTS") == "night"
    end = time.monotonic() + float(os.environ.get("LAB_TIME") or (7200 if night else 660))
    shutil.rmtree(RESULTS, ignore_errors=True)
    RESULTS.mkdir(parents=True)
    tests = read_list((BUILD / "lab-tests.txt").read_text(), night)
    if only := os.environ.get("LAB_KERNEL"):
        tests = [test for test in tests if test.kernel == only]
    kernels = sorted({test.kernel for test in tests})
    try:
        for kernel in kernels:
            guest.provide(kernel)
    except guest.Absent as why:
        return skip_all(why)
    own = promises.run_all(RESULTS)
    for kernel in kernels:
        of_kernel = [test for test in tests if test.kernel == kernel]
        print(f"== Linux {kernel}: {len(of_kernel)} tests", flush=True)
        run_kernel(kernel, of_kernel, end)
    write_results(own + tests)
    return summarise()
