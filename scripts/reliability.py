#!/usr/bin/env python3
"""Makes docs/reliability.md from docs/reliability.toml, after looking whether each test that is named there exists.

usage: reliability.py            write the page
       reliability.py --check    only compare; fails when the page is not what would be written
"""
import pathlib
import re
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[1]
ROWS = 35  # of the list of promises; a row may be open, never forgotten
HEAD = """# What may go wrong, and what proves that it does no harm

Made by `scripts/reliability.py` from `docs/reliability.toml`; do not edit. For every row holds: the process never crashes, aborts or hangs; memory is bounded
and comes back; each operation ends exactly once, with success or a named error; delivered bytes are an exact prefix of the sent ones; other connections do not
notice. All tests run plain, under AddressSanitizer and UBSan, and under ThreadSanitizer (fuzz targets, which have
one thread, not there), except where a test says why not.

"""


def known_tests():
    found = set()
    for source in (ROOT / "tests").rglob("*.cpp"):
        text = source.read_text(encoding="utf-8")
        found |= {f"{suite}.{test}" for suite, test in re.findall(r"^TEST(?:_P|_F)?\((\w+),\s*(\w+)\)", text, re.M)}
        if source.match("tests/fuzz/*_fuzz.cpp"):
            found.add("fuzz/" + source.stem.removesuffix("_fuzz"))
    lab = (ROOT / "tests/lab/tests.cmake").read_text(encoding="utf-8")
    found |= {f"lab/{name}" for name in re.findall(r"^evpl_add_lab_test\(([\w.]+) ", lab, re.M)}
    for script in (ROOT / "tests").glob("*/*_test.*"):
        if script.suffix not in (".py", ".sh"):
            continue
        name = str(script.relative_to(ROOT / "tests"))
        found.add(name)
        found |= {f"{name}::{method}" for method in re.findall(r"^    def (test_\w+)", script.read_text(encoding="utf-8"), re.M)}
    return found


def faults_of(rows, known):
    """What is wrong with the list, in words."""
    if len(rows) != ROWS:
        yield f"there are {len(rows)} rows, not {ROWS}"
    for number, row in enumerate(rows, 1):
        if not row.get("tests") and not row.get("open"):
            yield f"row {number} has neither tests nor a reason"
        for test in row.get("tests", []):
            if test not in known:
                yield f"row {number} names {test}, which does not exist"


def runs_of(runs):
    lines = ["", "## The last long runs", "", "What takes too long for every change, and what came of it when it was last run.", "",
             "| What | Command | Result | Commit | Date |", "|---|---|---|---|---|"]
    return lines + [f"| {run['what']} | `{run['command']}` | {run['result']} | {run['commit']} | {run['date']} |" for run in runs]


def page_of(rows, runs):
    lines = ["| # | Fault | Promise | Tests | Not proven |", "|---|---|---|---|---|"]
    for number, row in enumerate(rows, 1):
        tests = "<br>".join(f"`{test}`" for test in row.get("tests", [])) or "–"
        lines.append(f"| {number} | {row['fault']} | {row['promise']} | {tests} | {row.get('open', '–')} |")
    proven = sum("open" not in row for row in rows)
    partly = sum("open" in row and bool(row.get("tests")) for row in rows)
    lines += ["", f"{proven} rows are proven, {partly} in part, {len(rows) - proven - partly} wait for what does not exist yet or has no test."]
    return HEAD + "\n".join(lines + runs_of(runs)) + "\n"


def main():
    table = tomllib.loads((ROOT / "docs/reliability.toml").read_text(encoding="utf-8"))
    rows = table["row"]
    known = known_tests()
    planted = [{"tests": ["NoSuchSuite.NoSuchTest"]}] + [{}] * (ROWS - 1)
    if len(list(faults_of(planted, known))) != ROWS:
        sys.exit("reliability: a test that does not exist, or a row without a verdict, would not be noticed")
    faults = list(faults_of(rows, known))
    if faults:
        sys.exit("reliability: " + "\n".join(faults))
    page = ROOT / "docs/reliability.md"
    if sys.argv[1:] == ["--check"]:
        if not page.exists() or page.read_text(encoding="utf-8") != page_of(rows, table["run"]):
            sys.exit("reliability: docs/reliability.md is not what scripts/reliability.py makes: run it")
        print("1 passed, 0 failed, 0 skipped")
    else:
        page.write_text(page_of(rows, table["run"]), encoding="utf-8")


main()
