#!/usr/bin/env python3
"""Judges a coverage report by docs/coverage.toml: each group has to have its least share of executed lines, and each of its files that has
less a reason there. Leaves the figures in docs/coverage.md.

usage: coverage.py SUMMARY.json     gcovr's --json-summary
       coverage.py --show           the figures of docs/coverage.md, and how many sources are no longer as they were measured
"""
import hashlib
import json
import pathlib
import re
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/coverage.md"
HEAD = """# Which lines the tests execute

Made by `make coverage` (`scripts/coverage.py`, bars and reasons: `docs/coverage.toml`); do not edit. A run takes too long for every change: `.ci/run` shows these
figures, and how many sources have changed since. Measured at -O0, without the lab's emulated devices.

"""


def lies_in(file, path):
    return file.startswith(path) if path.endswith("/") else file == path


def mark_of(name):
    return hashlib.sha256((ROOT / name).read_bytes()).hexdigest()[:10]


class Group:
    def __init__(self, rule, files):
        self.name, self.least, self.paths = rule["name"], rule["least"], rule["paths"]
        self.files = [each for name, each in sorted(files.items()) if any(lies_in(name, path) for path in self.paths)]
        self.total = sum(each["line_total"] for each in self.files)
        self.covered = sum(each["line_covered"] for each in self.files)

    def share(self):
        return 100 * self.covered / max(self.total, 1)

    def below(self):
        return [each for each in self.files if each["line_total"] > 0 and 100 * each["line_covered"] / each["line_total"] < self.least]


def complaints(groups, files, reasons):
    for group in groups:
        for path in group.paths:
            if not any(lies_in(name, path) for name in files):
                yield f"{group.name}: nothing is known of {path}"
        if group.share() < group.least:
            yield f"{group.name}: {group.share():.1f} % is less than {group.least} %"
        for each in group.below():
            if each["filename"] not in reasons:
                yield f"{group.name}: {each['filename']} has {each['line_percent']:.1f} %, and docs/coverage.toml no reason why"
    for path in reasons:
        if not (ROOT / path).exists():
            yield f"{path} has a reason, and does not exist"


def page_of(groups, reasons):
    lines = ["| Part | Lines | Executed | At least |", "|---|---|---|---|"]
    lines += [f"| {g.name} | {g.total} | {g.share():.1f} % | {g.least} % |" for g in groups]
    lines += ["", "Below their part's bar, and why:", "", "| Source | Executed | Reason |", "|---|---|---|"]
    below = {each["filename"]: each for group in groups for each in group.below()}
    lines += [f"| `{name}` | {each['line_percent']:.1f} % | {reasons.get(name, '–')} |" for name, each in sorted(below.items())]
    lines += ["", "Each source, the lines that were not executed, and the beginning of its SHA-256:", "", "```"]
    every = {each["filename"]: each for group in groups for each in group.files}
    lines += [f"{mark_of(name)} {each['line_total'] - each['line_covered']:4} of {each['line_total']:4} {name}" for name, each in sorted(every.items())]
    return HEAD + "\n".join(lines) + "\n```\n"


def show():
    text = PAGE.read_text(encoding="utf-8")
    measured = re.findall(r"^([0-9a-f]{10}) +\d+ of +\d+ (\S+)$", text, re.M)
    changed = [name for mark, name in measured if not (ROOT / name).exists() or mark_of(name) != mark]
    for name, lines, share, least in re.findall(r"^\| (\w+) \| (\d+) \| ([\d.]+ %) \| (\d+ %) \|$", text, re.M):
        print(f"{name:12} {share:>7} of {lines:>5} lines, at least {least}")
    print(f"by the last make coverage; of {len(measured)} sources {len(changed)} have changed since")
    return 0 if measured else 1


def main():
    if sys.argv[1:] == ["--show"]:
        return show()
    rules = tomllib.loads((ROOT / "docs/coverage.toml").read_text(encoding="utf-8"))
    files = {each["filename"]: each for each in json.loads(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8"))["files"]}
    reasons = {path: rule["reason"] for rule in rules.get("below", []) for path in rule["paths"]}
    groups = [Group(rule, files) for rule in rules["group"]]
    for group in groups:
        print(f"{group.name:12} {group.share():5.1f} % of {group.total} lines, at least {group.least}")
    faults = list(complaints(groups, files, reasons))
    for fault in faults:
        print("FAILED", fault)
    PAGE.write_text(page_of(groups, reasons), encoding="utf-8")
    return 1 if faults else 0


sys.exit(main())
