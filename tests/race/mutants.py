#!/usr/bin/env python3
"""Copies of single sources for the explorer, below OUT: in `true/` what is made small, so that few steps go round a ring, and for each
mutant one source with a mistake in it, which the named scenario has to find. A text that is to be replaced and is not there is an error.

usage: mutants.py SOURCE OUT     writes the copies that have changed, and OUT/mutants.cmake
       mutants.py --scenarios    name and scenario of each mutant
"""
import pathlib
import sys

SMALL = {
    "core/mailbox.hpp": [("cells_max = 1024", "cells_max = 4"), ("tasks_max = 63", "tasks_max = 2")],
    "transport/inproc/channel.hpp": [("units = 256;", "units = 16;")],
}
MAILBOX = ["core/mailbox.cpp"]
BELL = ["mailbox_scenarios.cpp"]
HEAP = ["memory/heap.cpp"]
RING = ["ring_scenarios.cpp"]
# name: (scenario, file, what is compiled anew, text, what stands there instead)
MUTANTS = {
    "bell_rings_without_fence": ("two_posters", "transport/bell.hpp", BELL,
        "std::atomic_thread_fence(std::memory_order_seq_cst);  // pairs with the one in prepare_sleep", ""),
    "bell_sleeps_without_fence": ("two_posters", "transport/bell.hpp", BELL,
        "// the descriptor comes with it\n        std::atomic_thread_fence(std::memory_order_seq_cst);", ""),
    "bell_closes_under_the_ringer": ("bell_goes", "transport/bell.cpp", ["transport/bell.cpp"], "written < rings_;", "false;"),
    "mailbox_publishes_too_early": ("two_posters", "core/mailbox.cpp", MAILBOX,
        "cell.task = std::move(task);\n            cell.sequence.store(position + 1, std::memory_order_release);",
        "cell.sequence.store(position + 1, std::memory_order_release);\n            cell.task = std::move(task);"),
    "mailbox_publishes_relaxed": ("two_posters", "core/mailbox.cpp", MAILBOX,
        "cell.sequence.store(position + 1, std::memory_order_release)", "cell.sequence.store(position + 1, std::memory_order_relaxed)"),
    "mailbox_takes_relaxed": ("two_posters", "core/mailbox.cpp", MAILBOX,
        "if (cell.sequence.load(std::memory_order_acquire) != head_ + 1)", "if (cell.sequence.load(std::memory_order_relaxed) != head_ + 1)"),
    "mailbox_frees_cells_relaxed": ("overflow", "core/mailbox.cpp", MAILBOX,
        "cell.sequence.store(head_ + cells_max, std::memory_order_release)", "cell.sequence.store(head_ + cells_max, std::memory_order_relaxed)"),
    "mailbox_list_overtakes_cells": ("overflow", "core/mailbox.cpp", MAILBOX,
        "if (position_of(tail_.load(std::memory_order_relaxed)) != head_) return false;", ""),
    "mailbox_cells_overtake_list": ("overflow", "core/mailbox.cpp", MAILBOX,
        "if (!overflowing_.load(std::memory_order_acquire)) {\n        const Pushed", "{\n        const Pushed"),
    "mailbox_closes_without_mutex": ("close_meanwhile_full", "core/mailbox.cpp", MAILBOX,
        "const std::lock_guard lock(mutex_);\n    tail_.fetch_or", "tail_.fetch_or"),
    "heap_returns_relaxed": ("comes_home_at_once", "memory/heap.cpp", HEAP,
        "first, std::memory_order_release, std::memory_order_relaxed", "first, std::memory_order_relaxed, std::memory_order_relaxed"),
    "heap_accepts_relaxed": ("comes_home_at_once", "memory/heap.cpp", HEAP,
        "returns_.exchange(nullptr, std::memory_order_acquire)", "returns_.exchange(nullptr, std::memory_order_relaxed)"),
    "heap_retires_without_mutex": ("loop_ends_meanwhile", "memory/heap.cpp", HEAP,
        "flush_departures();\n    const std::lock_guard lock(orphans_mutex());", "flush_departures();"),
    "ring_publishes_relaxed": ("ring_fits", "transport/inproc/channel.hpp", RING,
        "size, generation).word, std::memory_order_release)", "size, generation).word, std::memory_order_relaxed)"),
    "ring_peeks_relaxed": ("ring_fits", "transport/inproc/channel.hpp", RING,
        "unit(at_).mark.load(std::memory_order_acquire)", "unit(at_).mark.load(std::memory_order_relaxed)"),
    "ring_frees_relaxed": ("ring_goes_round", "transport/inproc/channel.hpp", RING,
        "head_.store(at_, std::memory_order_release)", "head_.store(at_, std::memory_order_relaxed)"),
    "port_sleeps_over_new_ends": ("link_drains", "transport/inproc/datapath.cpp", ["transport/inproc/datapath.cpp"],
        "armed.work_waiting = new_ends_.load(std::memory_order_acquire) != nullptr || owed_first_", "armed.work_waiting = owed_first_"),
}


def replaced(text, old, new, file):
    if text.count(old) != 1:
        sys.exit(f"mutants.py: {file} has {text.count(old)} times the text: {old}")
    return text.replace(old, new)


def made_small(source, file):
    text = (source / "src" / file).read_text()
    for old, new in SMALL.get(file, []):
        text = replaced(text, old, new, file)
    return text


def write(path, text):
    if path.exists() and path.read_text() == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def main():
    if sys.argv[1] == "--scenarios":
        for name, (scenario, *_) in MUTANTS.items():
            print(name, scenario)
        return
    source, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    for file in SMALL:
        write(out / "true/src" / file, made_small(source, file))
    lines = [f"set(race_mutants {' '.join(MUTANTS)})"]
    originals = set(SMALL)
    for name, (_, file, units, old, new) in MUTANTS.items():
        copy = out / name / "src" / file
        write(copy, replaced(made_small(source, file), old, new, file))
        originals.add(file)
        paths = [copy if unit == file else source / ("tests/race" if unit.endswith("_scenarios.cpp") else "src") / unit for unit in units]
        lines.append(f"set(race_units_{name} {' '.join(map(str, paths))})")
    lines.append(f"set(race_originals {' '.join(str(source / 'src' / file) for file in sorted(originals))})")
    write(out / "mutants.cmake", "\n".join(lines) + "\n")


main()
