"""Instructions of a program, and those among them that lock the bus, counted where they are executed: callgrind says how often each ran, objdump
which of them lock. Wants valgrind and objdump."""
import collections
import pathlib
import re
import subprocess
import tempfile

WANTS = ("valgrind", "objdump")


def locked_addresses(file):
    """Where in an object file instructions lock: the prefix, and an exchange with memory, which locks without saying so."""
    text = subprocess.run(["objdump", "-d", "--no-show-raw-insn", file], check=True, stdout=subprocess.PIPE, text=True).stdout
    return {int(m[1], 16) for m in re.finditer(r"(?m)^\s*([0-9a-f]+):\s+(?:lock\b|xchg\s+[^#\n]*\()", text)}


def profile(command, variables=None, function=None):
    """(instructions, {place: locked instructions}) of a program, or of what it does while it is in `function`."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "out"
        tool = ["valgrind", "-q", "--tool=callgrind", "--fair-sched=yes", "--dump-instr=yes", "--compress-strings=no", "--compress-pos=no",
                f"--callgrind-out-file={out}"]
        collect = [f"--toggle-collect={function}"] if function else []
        subprocess.run([*tool, *collect, *command], env=variables, check=True, stdout=subprocess.DEVNULL, timeout=600)
        return count(out.read_text(encoding="utf-8", errors="replace"))


def count(dump, known={}):
    """Sums a dump of callgrind: lines `address line cost`, under `ob=` and `fn=`; the line after `calls=` is what the callee took."""
    file, function, skip, total, locked = "", "", False, 0, collections.Counter()
    for line in dump.splitlines():
        if line.startswith("ob="):
            file = line[3:].strip()
        elif line.startswith("fn="):
            function = line[3:].strip()
        elif line.startswith("calls="):
            skip = True
        elif line.startswith("0x"):
            words = line.split()
            if skip or len(words) < 3:
                skip = False
                continue
            total += int(words[2])
            if file not in known:
                known[file] = locked_addresses(file) if pathlib.Path(file).is_file() else set()
            if int(words[0], 16) in known[file]:
                locked[f"{pathlib.Path(file).name} {function} {words[0]}"] += int(words[2])
    return total, locked


def per_unit(few, many, units):
    """What `units` more of something took: the difference of two profiles, so that what is done once goes away."""
    grown = {place: (n - few[1][place]) / units for place, n in many[1].items()}
    return (many[0] - few[0]) / units, {place: n for place, n in grown.items() if n > 0.001}
