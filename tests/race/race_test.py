#!/usr/bin/env python3
"""The explorer finds nothing in the library, and finds each of the mistakes that mutants.py puts into copies of it.

usage: race_test.py     EVPL_BUILD names the build tree
"""
import concurrent.futures
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
PROGRAMS = pathlib.Path(os.environ.get("EVPL_BUILD", HERE.parents[1] / "build/dev")) / "race"


def play(program, scenario, *more):
    run = subprocess.run([PROGRAMS / program, scenario, *more], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    return run.returncode, run.stdout + run.stderr


def choices_of(text):
    return next((line.split(" ", 1)[1] for line in text.splitlines() if line.startswith("choices ") and " " in line.strip()), "")


def true_one(scenario):
    code, text = play("race_program", scenario)
    return None if code == 0 and " executions of " in text else f"{scenario}: {text}"


def mutant(name, scenario):
    code, text = play(f"race_{name}", scenario)
    if code != 1 or "FAILED in thread" not in text:
        return f"{name} is not found by {scenario}: {text}"
    why = next(line for line in text.splitlines() if "FAILED in thread" in line)
    print(f"{name}: {why.partition('FAILED in ')[2]}")
    return None


def replays(name, scenario):
    """What was found is found again by its choices alone."""
    code, text = play(f"race_{name}", scenario)
    again, repeated = play(f"race_{name}", scenario, "2", "1", "--replay", choices_of(text))
    same = code == again == 1 and choices_of(text) == choices_of(repeated)
    return None if same else f"{name} does not repeat itself:\n{text}\n{repeated}"


def main():
    if not (PROGRAMS / "race_program").exists():
        print("SKIP: the explorer takes the place of a sanitizer: it is built with GCC and without others")
        return 77
    scenarios = play("race_program", "--list")[1].split()
    mutants = [line.split() for line in subprocess.check_output([sys.executable, HERE / "mutants.py", "--scenarios"], text=True).splitlines()]
    executor = concurrent.futures.ThreadPoolExecutor(os.cpu_count())
    jobs = [executor.submit(true_one, scenario) for scenario in scenarios]
    jobs += [executor.submit(mutant, *each) for each in mutants]
    jobs.append(executor.submit(replays, *mutants[0]))
    failures = [job.result() for job in jobs if job.result() is not None]
    for failure in failures:
        print("FAILED", failure)
    print(f"{len(jobs) - len(failures)} passed, {len(failures)} failed, 0 skipped")
    return 1 if failures or not scenarios else 0


sys.exit(main())
