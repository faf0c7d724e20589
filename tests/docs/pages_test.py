#!/usr/bin/env python3
"""Pages that list something list all of it: error codes, commands and options, settings of the tuning page; man pages are well formed.

usage: pages_test.py [PATH-OF-EVPL] [unittest arguments]
"""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tool"))
import support  # noqa: E402
from support import PATIENCE, ROOT


def text(path):
    return (ROOT / path).read_text(encoding="utf-8")


def prose(path):
    return re.sub(r"(?ms)^```.*?^```", "", text(path))


def evpl(*arguments):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("EVPL_")}
    return subprocess.run([support.command(), *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=True,
                          env=clean).stdout


def plain(roff):
    return roff.replace("\\-", "-")


def error_codes():
    body = text("include/evpl/error.hpp").split("enum class Errc")[1].split("};")[0]
    return set(re.findall(r"(?m)^    ([a-z_]+)\b", body)) - {"count_"}


class Errors(unittest.TestCase):
    def test_the_catalogue_has_every_code_with_cause_and_remedy(self):
        rows = re.findall(r"(?m)^\| `([a-z_]+)` \| (.+) \| (.+) \|$", text("docs/errors.md"))
        self.assertEqual(sorted(name for name, _, _ in rows), sorted(error_codes()))
        for name, cause, remedy in rows:
            self.assertTrue(cause.strip() and remedy.strip(), name)

    def test_the_manual_has_every_code(self):
        listed = set(re.findall(r"(?m)^\.TP\n\.B ([a-z_]+)$", text("docs/man/evpl.7").split(".SH ERRORS")[1]))
        self.assertEqual(listed, error_codes() - {"none"})


class Manual(unittest.TestCase):
    def commands(self):
        return re.findall(r"(?m)^  ([a-z]+)  +\S", evpl("help").split("Subcommands:")[1])

    def test_every_command_and_no_other_has_a_section(self):
        self.assertEqual(re.findall(r"(?m)^\.SS (\S+)$", text("docs/man/evpl.1")), self.commands())

    def test_every_option_and_no_other_is_explained(self):
        page = plain(text("docs/man/evpl.1"))
        sections = dict(re.findall(r"(?ms)^\.SS (\S+)\n(.*?)(?=^\.S[SH] )", page))
        for command in self.commands():
            offered = set(re.findall(r"(?m)^  (?:-h,)?(--[a-z]+)", evpl("help", command))) - {"--help"}
            explained = set(re.findall(r"(?m)^\.BI? (--[a-z]+)", sections[command]))
            self.assertEqual(explained, offered, command)

    def test_the_commands_own_options_are_explained(self):
        page = plain(text("docs/man/evpl.1")).split(".SH COMMANDS")[0]
        for option in re.findall(r"(?m)^  (?:-h,)?(--[a-z]+)", evpl("help")):
            self.assertIn(option, page)

    def test_pages_are_well_formed(self):
        if shutil.which("groff") is None:
            self.skipTest("no groff here")
        for page in ("evpl.1", "evpl.7"):
            run = subprocess.run(["groff", "-man", "-Tutf8", "-ww", "-z", ROOT / "docs/man" / page], capture_output=True, text=True, check=False)
            self.assertEqual((run.returncode, run.stderr), (0, ""), page)


class Settings(unittest.TestCase):
    def test_pages_name_settings_that_exist(self):
        known = {one["name"] for one in json.loads(evpl("info", "--config", "--json"))["settings"]}
        groups = "|".join(sorted({name.split(".")[0] for name in known}, key=len, reverse=True))
        for page in ("docs/tuning.md", "docs/errors.md", "docs/man/evpl.7"):
            for name in re.findall(rf"(?<![\w./:])((?:{groups})\.(?!md\b)[a-z_]+)(?![\w.(/<])", prose(page)):
                self.assertIn(name, known, page)


if __name__ == "__main__":
    support.take_binary_from_arguments()
    support.main()
