#!/usr/bin/env bash
# xlio.sh HOST:PORT: XLIO next to the kernel's TCP on the same link, against `evpl echo --listen xlio://*:PORT --mode poll` on another host, which
# serves both. Prints a table: p50, p99, p99.9 and maximum of one 64-byte message at a time, round trips per second at depth 8, connections per
# second, bytes per second of a stream, and the time of start-up, which is in none of them. Medians over ROUNDS (3) of TIME (5) seconds each.
# EVPL names the command (build/release/bin/evpl), XLIO_RESULTS a folder for the JSON.
set -euo pipefail
cd "$(dirname "$0")/.."

[[ $# -eq 1 && $1 == *:* ]] || { echo "usage: bench/xlio.sh HOST:PORT" >&2; exit 2; }
peer=$1
evpl=${EVPL:-build/release/bin/evpl}
time_s=${TIME:-5}
rounds=${ROUNDS:-3}
results=${XLIO_RESULTS:-$(mktemp -d)}
mkdir -p "$results"
[[ -n ${XLIO_RESULTS:-} ]] || trap 'rm -rf "$results"' EXIT
export EVPL_XLIO_FALLBACK=off  # a kernel socket in disguise would be measured otherwise

# measure NAME SCHEME ARGUMENT...
measure() {
    local name=$1 scheme=$2
    shift 2
    "$evpl" perf --connect "$scheme://$peer" --mode poll "$@" --json "$results/$name" >/dev/null
}

for scheme in xlio tcp; do
    for round in $(seq "$rounds"); do
        began=$(date +%s%N)
        measure "start-$scheme-$round.json" "$scheme" --test latency --count 1 --warmup 0
        echo $(($(date +%s%N) - began)) >"$results/start-$scheme-$round.ns"
    done
done
for round in $(seq "$rounds"); do
    for scheme in xlio tcp; do
        measure "latency-$scheme-$round.json" "$scheme" --test latency --time "$time_s"
        measure "rate-$scheme-$round.json" "$scheme" --test rate --depth 8 --time "$time_s"
        measure "connect-$scheme-$round.json" "$scheme" --test connect --connections 16 --time "$time_s"
        measure "stream-$scheme-$round.json" "$scheme" --test stream --time "$time_s"
    done
done
python3 - "$results" "$rounds" <<'PYTHON'
import json, pathlib, statistics, sys

folder, rounds = pathlib.Path(sys.argv[1]), range(1, int(sys.argv[2]) + 1)


def median(test, scheme, value):
    found = [json.loads((folder / f"{test}-{scheme}-{r}.json").read_text())["results"][0] for r in rounds]
    for one in found:
        if one["error"]:
            sys.exit(f"xlio.sh: {test} over {scheme}: {one['error']}")
    return statistics.median(value(one) for one in found)


def micro(percentile):
    return lambda scheme: f"{median('latency', scheme, lambda one: one['time_ns'][percentile]) / 1000:.2f} us"


def per_second(test):
    return lambda scheme: f"{median(test, scheme, lambda one: one['messages_per_second']):,.0f}/s"


rows = [("64 B one at a time, p50", micro("p50")), ("p99", micro("p99")), ("p99.9", micro("p99.9")), ("maximum", micro("max")),
        ("64 B at depth 8, round trips", per_second("rate")), ("connect, 64 B, close; 16 at once", per_second("connect")),
        ("stream, each way", lambda scheme: f"{median('stream', scheme, lambda one: one['bytes_per_second']) * 8 / 1e9:.2f} Gb/s"),
        ("start-up to the first echo", lambda scheme: f"{statistics.median(int((folder / f'start-{scheme}-{r}.ns').read_text()) for r in rounds) / 1e6:.0f} ms")]
print("| | xlio | tcp |\n|---|---|---|")
for name, value in rows:
    print(f"| {name} | {value('xlio')} | {value('tcp')} |")
PYTHON
