#!/usr/bin/env python3
"""Every public symbol of include/evpl has a docstring: Doxygen, with docs/Doxyfile, has nothing to say. And it would say it: a symbol
planted without one is named.

Without doxygen this is skipped: scripts/deps.sh docs installs it.
"""
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
PLANTED = "#pragma once\nnamespace evpl {\n/// A class.\nclass Planted {\npublic:\n    void forgotten();\n};\n}\n"


def complaints(folder, more_input=""):
    settings = (ROOT / "docs/Doxyfile").read_text(encoding="utf-8")
    settings += f"\nOUTPUT_DIRECTORY = {folder}\nGENERATE_HTML = NO\nGENERATE_XML = NO\nINPUT = include/evpl {more_input}\n"
    run = subprocess.run(["doxygen", "-"], input=settings, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = [line for line in run.stderr.splitlines() if "No output formats selected" not in line]
    return run.returncode, lines


def main():
    if shutil.which("doxygen") is None:
        print("SKIP: no doxygen here: scripts/deps.sh docs")
        return 77
    with tempfile.TemporaryDirectory() as folder:
        _, lines = complaints(folder)
        for line in lines:
            print(line)
        planted = pathlib.Path(folder, "planted.hpp")
        planted.write_text(PLANTED, encoding="utf-8")
        status, said = complaints(folder, str(planted))
        noticed = status != 0 and any("forgotten" in line for line in said)
        if not noticed:
            print(f"a symbol without a docstring was not noticed: status {status}, {said}")
    passed = (not lines) + noticed
    print(f"{passed} passed, {2 - passed} failed")
    return 0 if passed == 2 else 1


sys.exit(main())
