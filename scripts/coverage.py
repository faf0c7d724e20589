#!/usr/bin/env python3
"""Judges a coverage report by docs/coverage.toml: each group has to have its least share of executed lines. Names the files of a group
that are below it, so that what is missing is seen.

usage: coverage.py SUMMARY.json     gcovr's --json-summary
"""
import json
import pathlib
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[1]


def lies_in(file, path):
    return file.startswith(path) if path.endswith("/") else file == path


def main():
    rules = tomllib.loads((ROOT / "docs/coverage.toml").read_text(encoding="utf-8"))
    files = {each["filename"]: each for each in json.loads(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8"))["files"]}
    left_out = [one["path"] for one in rules.get("except", [])]
    failures = []
    for path in left_out:
        if not (ROOT / path).exists():
            failures.append(f"{path} is left out, and does not exist")
    for group in rules["group"]:
        chosen = [each for name, each in files.items()
                  if any(lies_in(name, path) for path in group["paths"]) and not any(lies_in(name, path) for path in left_out)]
        for path in group["paths"]:
            if not any(lies_in(name, path) for name in files):
                failures.append(f"{group['name']}: nothing is known of {path}")
        total = sum(each["line_total"] for each in chosen)
        share = 100 * sum(each["line_covered"] for each in chosen) / max(total, 1)
        print(f"{group['name']:12} {share:5.1f} % of {total} lines, at least {group['least']}")
        if share < group["least"]:
            failures.append(f"{group['name']}: {share:.1f} % is less than {group['least']} %")
        for each in sorted(chosen, key=lambda one: one["line_percent"]):
            if each["line_percent"] < group["least"]:
                print(f"  {each['line_percent']:5.1f} % {each['filename']}, {each['line_total'] - each['line_covered']} lines are missing")
    for failure in failures:
        print("FAILED", failure)
    return 1 if failures else 0


sys.exit(main())
