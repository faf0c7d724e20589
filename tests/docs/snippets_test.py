#!/usr/bin/env python3
"""Every C++ or C block of the README and docs/ that begins with an #include compiles, with the flags a user would take."""
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```(cpp|c)\n(#include.*?)^```", re.M | re.S)
COMPILERS = {"cpp": ("g++", "-std=c++20"), "c": ("gcc", "-std=c11", "-Wpedantic")}


def blocks():
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        text = page.read_text(encoding="utf-8")
        for match in BLOCK.finditer(text):
            yield f"{page.relative_to(ROOT)}:{text[:match.start()].count(chr(10)) + 1}", match[1], match[2]


def main():
    passed = failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for where, language, code in blocks():
            source = pathlib.Path(folder) / f"snippet.{language}"
            source.write_text(code, encoding="utf-8")
            run = subprocess.run([*COMPILERS[language], "-Wall", "-Wextra", "-Werror", "-fsyntax-only", f"-I{ROOT}/include", source],
                                 capture_output=True, text=True, check=False)
            passed += run.returncode == 0
            failed += run.returncode != 0
            print(f"{'ok' if run.returncode == 0 else 'FAILED'} {where}\n{run.stderr}", end="" if run.returncode else "\n")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or passed == 0 else 0


sys.exit(main())
