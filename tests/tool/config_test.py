#!/usr/bin/env python3
"""Settings as users of the command see them: what is in force, where it comes from, and what is said when one is wrong.

usage: config_test.py [PATH-OF-EVPL] [unittest arguments]
"""
import json
import os
import pathlib
import subprocess
import tempfile
import time
import unittest

import support
from support import PATIENCE, Server


def evpl(*arguments, **variables):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("EVPL_")}
    return subprocess.run([support.command(), *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=PATIENCE, env={**clean, **variables})


def settings(**variables):
    return {one["name"]: one for one in json.loads(evpl("info", "--config", "--json", **variables).stdout)["settings"]}


class Config(unittest.TestCase):
    def test_json_has_every_promised_field(self):
        answer = evpl("info", "--config", "--json")
        self.assertEqual((answer.returncode, answer.stderr), (0, ""))
        document = json.loads(answer.stdout)
        self.assertEqual((list(document), document["faults"]), (["settings", "faults"], []))
        for one in document["settings"]:
            self.assertEqual(list(one), ["name", "variable", "value", "origin", "where", "help", "range"])
            self.assertEqual((one["origin"], one["where"]), ("default", ""), one["name"])
            self.assertTrue(one["help"] and one["range"], one["name"])
            self.assertEqual(one["variable"], "EVPL_" + one["name"].upper().replace(".", "_").replace("-", "_"))
        self.assertLessEqual({"loop.spin", "loop.mode", "tcp.keepalive_idle", "limits.send_high", "pool.threads", "unix.mode"}, set(settings()))

    def test_every_default_can_be_written_as_it_is_shown(self):
        before = settings()
        again = settings(**{one["variable"]: one["value"] for one in before.values() if one["value"]})
        for name, one in before.items():
            expected = (one["value"], "environment", one["variable"]) if one["value"] else ("", "default", "")
            self.assertEqual((again[name]["value"], again[name]["origin"], again[name]["where"]), expected, name)

    def test_text_tells_value_and_origin(self):
        with tempfile.NamedTemporaryFile("w") as file:
            file.write("# mine\nloop.batch = 7\nloop.spin = 1us\n")
            file.flush()
            answer = evpl("info", "--config", EVPL_CONFIG=file.name, EVPL_LOOP_SPIN="20us")
            self.assertEqual((answer.returncode, answer.stderr), (0, ""))
            self.assertRegex(answer.stdout, rf"(?m)^loop.batch +7 +file +{file.name}:2$")
            self.assertRegex(answer.stdout, r"(?m)^loop.spin +20us +environment EVPL_LOOP_SPIN$")
            self.assertRegex(answer.stdout, r"(?m)^loop.stall +100ms +default ")

    def test_everything_wrong_is_listed_a_line_each(self):
        answer = evpl("info", "--config", EVPL_LOOP_SPIN="soon", EVPL_TCP_NODELAI="1", EVPL_TCP_BACKLOG="many")
        self.assertEqual(answer.returncode, 1)
        self.assertEqual(len(answer.stderr.splitlines()), 3, answer.stderr)
        for part in ('EVPL_LOOP_SPIN: bad value "soon"', "did you mean EVPL_TCP_NODELAY?", 'EVPL_TCP_BACKLOG: bad value "many"'):
            self.assertIn(part, answer.stderr)
        document = json.loads(evpl("info", "--config", "--json", EVPL_LOOP_SPIN="soon").stdout)
        self.assertEqual([f["code"] for f in document["faults"]], ["bad_option"])

    def test_commands_that_would_use_a_wrong_value_say_so_in_one_line(self):
        for arguments in (["echo", "--listen", "tcp://127.0.0.1:0"], ["echo", "--threads", "2", "--listen", "tcp://127.0.0.1:0"],
                          ["perf", "--connect", "tcp://127.0.0.1:1"]):
            for name, value in (("EVPL_LOOP_SPIN", "soon"), ("EVPL_CONFIG", "/nowhere/evpl.conf"), ("EVPL_LIMITS_RECEIVE", "0")):
                with self.subTest(arguments=arguments, name=name):
                    answer = evpl(*arguments, **{name: value})
                    self.assertEqual(answer.returncode, 1)
                    self.assertEqual(len(answer.stderr.splitlines()), 1, answer.stderr)
                    self.assertIn(name, answer.stderr)
        self.assertEqual(evpl("info", EVPL_LOOP_SPIN="soon").returncode, 0, "what needs no loop does not care")

    def test_an_option_of_the_command_wins(self):
        with tempfile.TemporaryDirectory() as place:
            url = f"unix://{place}/s"
            with Server([support.command(), "echo", "--listen", url, "--mode", "event"], env={**os.environ, "EVPL_LOOP_MODE": "poll"}) as server:
                def used_ticks():
                    return sum(map(int, pathlib.Path(f"/proc/{server.process.pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]))
                began = used_ticks()
                time.sleep(0.5)
                self.assertLess(used_ticks() - began, 20, "a loop in mode event does not spin")


if __name__ == "__main__":
    support.take_binary_from_arguments()
    support.main()
