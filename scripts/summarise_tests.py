#!/usr/bin/env python3
"""Adds up one test run: what ctest says of each entry, and what GoogleTest says inside it.

Prints failed tests, skipped tests with their reasons, and as the last line "N passed, N failed, N skipped".
Exit code 0 only if something passed and nothing failed. The three numbers are also left in RESULTS/summary.
"""
import argparse
import collections
import pathlib
import re
import sys
import tempfile
import xml.etree.ElementTree as ElementTree


class Totals:
    def __init__(self):
        self.passed = 0
        self.failed = []  # (test, detail)
        self.skipped = []  # (test, reason)

    def line(self):
        return f"{self.passed} passed, {len(self.failed)} failed, {len(self.skipped)} skipped"

    def good(self):
        return self.passed > 0 and not self.failed


def reason_of(text):
    """What a message says, on one line; GoogleTest puts file:line before it."""
    lines = [line.strip() for line in (text or "").splitlines()]
    lines = [line for line in lines if line and not re.fullmatch(r"\S+:\d+", line) and line != "Skipped"]
    said = " ".join(lines) or "no reason given"
    return said if len(said) <= 200 else said[:197] + "..."


def sanitizer_report(output):
    """The first report of a sanitizer and the test it interrupted, or None."""
    match = re.search(r"(ThreadSanitizer|AddressSanitizer|LeakSanitizer|runtime error): .*", output)
    if not match:
        return None
    begun = re.findall(r"^\[ RUN      \] (\S+)", output[: match.start()], re.M)
    return match[0] + (f" (in or after {begun[-1]})" if begun else "")


def read_cases(path):
    """The test cases of a report; None if it is absent or was cut short."""
    try:
        return list(ElementTree.parse(path).getroot().iter("testcase"))
    except (FileNotFoundError, ElementTree.ParseError):
        return None


def add_gtest_report(cases, totals):
    """A program that ended normally left a report with every test case."""
    failures_before = len(totals.failed)
    for case in cases:
        name = f"{case.get('classname')}.{case.get('name')}"
        failure, skip = case.find("failure"), case.find("skipped")
        if failure is not None:
            totals.failed.append((name, reason_of(failure.get("message"))))
        elif skip is not None or case.get("result") == "skipped":
            message = skip.get("message") if skip is not None else ""
            totals.skipped.append((name, reason_of(message)))
        elif case.get("result") == "suppressed" or case.get("status") == "notrun":
            totals.skipped.append((name, "disabled in the source"))
        else:
            totals.passed += 1
    return len(totals.failed) - failures_before


def add_gtest_output(entry, output, why, totals):
    """The program died before it could report: what it printed shows how far it came."""
    results = dict(re.findall(r"^\[ RUN      \] (\S+)()", output, re.M))
    reasons = dict(reversed(pair) for pair in re.findall(r": Skipped\n(.*)\n+\[  SKIPPED \] (\S+)", output))
    for verdict, name in re.findall(r"^\[ *(OK|FAILED|SKIPPED) *\] (\S+?),?(?: .*)?$", output, re.M):
        if name in results:
            results[name] = verdict
    for name, verdict in results.items():
        if verdict == "OK":
            totals.passed += 1
        elif verdict == "FAILED":
            totals.failed.append((name, "see above"))
        elif verdict == "SKIPPED":
            totals.skipped.append((name, reasons.get(name, "no reason given")))
        else:
            totals.failed.append((name, f"{entry} ended here: {why}"))
    if "" not in results.values():
        totals.failed.append((entry, why))


def add_entry(case, results, endings, totals):
    name, status = case.get("name"), case.get("status")
    output = case.findtext("system-out") or ""
    found = sanitizer_report(output)
    why = found or endings.get(name, "failed")
    skip_line = re.search(r"^SKIP: *(.+)$", output, re.M)
    cases = read_cases(results / f"{name}.xml")
    if cases is not None:
        failed = add_gtest_report(cases, totals)
        if status == "fail" and (failed == 0 or found):
            totals.failed.append((name, why if found else f"its tests passed, but the program did not end well: {why}"))
    elif re.search(r"^\[ RUN ", output, re.M):
        add_gtest_output(name, output, why, totals)
    elif status == "run":
        totals.passed += 1
    elif status == "disabled":
        totals.skipped.append((name, "disabled"))
    elif status == "notrun" and skip_line:
        totals.skipped.append((name, skip_line.group(1)))
    elif status == "notrun" and "SKIP_RETURN_CODE" in (case.find("skipped").get("message") or ""):
        totals.skipped.append((name, reason_of(output)))
    elif status == "notrun":
        totals.failed.append((name, "could not be run"))
    else:
        totals.failed.append((name, why))


def summarise(results, ctest_exit):
    totals = Totals()
    log = results / "ctest.log"  # how each failed entry ended: "3 - name (Timeout)"
    endings = dict(re.findall(r"^\s*\d+ - (\S+) \((.+)\)", log.read_text(errors="replace"), re.M)) if log.exists() else {}
    for case in read_cases(results / "ctest.xml") or []:
        add_entry(case, results, endings, totals)
    if ctest_exit != 0 and not totals.failed:
        totals.failed.append(("ctest", f"ended with code {ctest_exit}"))
    return totals


def show(totals):
    print()
    if totals.failed:
        print("Failed:")
        for name, detail in totals.failed:
            print(f"  {name}: {detail}")
    if totals.skipped:
        by_reason = collections.defaultdict(list)
        for name, reason in totals.skipped:
            by_reason[reason].append(name)
        print("Skipped:")
        for reason, names in by_reason.items():
            print(f"  {reason}")
            for name in names:
                print(f"    {name}")
    if totals.passed == 0 and not totals.failed:
        print("No test ran.")
    print(totals.line(), flush=True)


def self_test():
    """Planted results, one of each kind, against the numbers they must give."""
    gtest = """<testsuites><testsuite>
      <testcase name="A" status="run" result="completed" classname="Suite" />
      <testcase name="B" status="run" result="completed" classname="Suite"><failure message="a.cpp:3&#x0A;Expected 1"/></testcase>
      <testcase name="C" status="run" result="skipped" classname="Suite"><skipped message="a.cpp:9&#x0A;no device"/></testcase>
      <testcase name="D" status="notrun" result="suppressed" classname="Suite" />
    </testsuite></testsuites>"""
    clean = """<testsuites><testsuite><testcase name="E" status="run" result="completed" classname="Suite"/></testsuite></testsuites>"""
    race = "[ RUN      ] Suite.E\nWARNING: ThreadSanitizer: data race\n"
    died = "[ RUN      ] Suite.F\n[       OK ] Suite.F (0 ms)\n[ RUN      ] Suite.G\n"
    exploded = "[ RUN      ] Suite.H\n[       OK ] Suite.H (0 ms)\n"
    ctest = f"""<testsuite>
      <testcase name="unit.0" status="fail"><failure message=""/><system-out>x</system-out></testcase>
      <testcase name="unit.1" status="fail"><failure message=""/><system-out>{race}</system-out></testcase>
      <testcase name="unit.2" status="fail"><failure message=""/><system-out>{died}</system-out></testcase>
      <testcase name="unit.3" status="fail"><failure message=""/><system-out>{exploded}</system-out></testcase>
      <testcase name="script" status="run"><system-out/></testcase>
      <testcase name="absent" status="notrun"><skipped message="SKIP_RETURN_CODE=77"/><system-out>SKIP: no network</system-out></testcase>
      <testcase name="broken" status="notrun"><skipped message=""/><system-out/></testcase>
    </testsuite>"""
    with tempfile.TemporaryDirectory() as folder:
        results = pathlib.Path(folder)
        assert not summarise(results, 0).good(), "no test at all must not count as success"
        (results / "ctest.xml").write_text(ctest)
        (results / "unit.0.xml").write_text(gtest)
        (results / "unit.1.xml").write_text(clean)
        (results / "ctest.log").write_text("\t  3 - unit.2 (SEGFAULT)\n\t  4 - unit.3 (Timeout)\n")
        totals = summarise(results, 8)
        show(totals)
        assert totals.line() == "5 passed, 5 failed, 3 skipped", totals.line()
        assert ("Suite.C", "no device") in totals.skipped
        assert ("absent", "no network") in totals.skipped
        assert {name for name, _ in totals.failed} == {"Suite.B", "unit.1", "Suite.G", "unit.3", "broken"}, totals.failed
        assert ("unit.1", "ThreadSanitizer: data race (in or after Suite.E)") in totals.failed
        assert ("Suite.G", "unit.2 ended here: SEGFAULT") in totals.failed
        assert ("unit.3", "Timeout") in totals.failed
        assert not totals.good()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", nargs="?", type=pathlib.Path)
    parser.add_argument("--ctest-exit", type=int, default=0)
    parser.add_argument("--self-test", action="store_true")
    arguments = parser.parse_args()
    if arguments.self_test:
        self_test()
        return 0
    totals = summarise(arguments.results, arguments.ctest_exit)
    (arguments.results / "summary").write_text(f"{totals.passed} {len(totals.failed)} {len(totals.skipped)}\n")
    (arguments.results / "failed").write_text("".join(f"{name}\n" for name, _ in totals.failed))
    show(totals)
    return 0 if totals.good() else 1


if __name__ == "__main__":
    sys.exit(main())
