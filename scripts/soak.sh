#!/usr/bin/env bash
# soak.sh: SOAK_S seconds (3600) of echo over SOAK_CONNECTIONS connections (200), in twelve parts, while IDLE_CONNECTIONS others (4000) are
# only held. Fails when memory or descriptors of the server grow after the first part, when a message is lost, and, from half an hour on,
# when the 99th percentile of the last part is more than a tenth above that of the first. Needs a build: PRESET=release.
set -euo pipefail
cd "$(dirname "$0")/.."

parts=12
part_s=$(((${SOAK_S:-3600} + parts - 1) / parts))
connections=${SOAK_CONNECTIONS:-200} idle=${IDLE_CONNECTIONS:-4000}
evpl=build/${PRESET:-release}/bin/evpl
url=${1:-tcp://127.0.0.1:7392}
out=$(mktemp) held=$(mktemp)
ulimit -n "$(ulimit -Hn)"
descriptors() { find "/proc/$1/fd" -mindepth 1 | wc -l; }
resident_kb() { awk '/^VmRSS/ { print $2 }' "/proc/$1/status"; }

"$evpl" echo --listen "$url" >/dev/null &
server=$!
holder=
trap 'kill "$server" $holder 2>/dev/null || true; rm -f "$out" "$held"' EXIT
measure() { # SECONDS: the 99th percentile in microseconds
    "$evpl" perf --connect "$url" --test latency --connections "$connections" --time "$1" --mode event --json "$out" >/dev/null
    python3 -c 'import json, sys
result = json.load(open(sys.argv[1]))["results"][0]
assert result["messages"] > 0 and not result["error"] and not result["lost"], result
print(result["time_ns"]["p99"] / 1000)' "$out"
}
for _ in $(seq 50); do measure 1 >/dev/null 2>&1 && break; sleep 0.1; done
empty=$(resident_kb "$server")
scripts/hold.py "${url##*/}" "$idle" >"$held" &
holder=$!
for _ in $(seq 600); do [[ ! -s $held ]] || break; sleep 0.1; done
[[ -s $held ]] || { echo "soak: the idle connections do not open" >&2; exit 1; }
echo "soak: $idle idle connections cost $(((($(resident_kb "$server") - empty) * 1024) / idle)) bytes each"
first_p99='' first_kb=0 first_fds=0
for part in $(seq "$parts"); do
    p99=$(measure "$part_s")
    kb=$(resident_kb "$server") fds=$(descriptors "$server")
    echo "soak: part $part of $parts, $part_s s: p99 $p99 us, $kb KiB, $fds descriptors"
    if [[ $part -eq 1 ]]; then first_p99=$p99 first_kb=$kb first_fds=$fds; fi
done
code=0
kill -0 "$holder" || { echo "soak: the idle connections did not last"; code=1; }
[[ $kb -le $((first_kb + 1024)) ]] || { echo "soak: memory has grown by $((kb - first_kb)) KiB"; code=1; }
[[ $fds -le $((first_fds + 2)) ]] || { echo "soak: $((fds - first_fds)) descriptors more"; code=1; }
if [[ $((part_s * parts)) -ge 1800 ]]; then
    python3 -c 'import sys; sys.exit(float(sys.argv[2]) > 1.1 * float(sys.argv[1]))' "$first_p99" "$p99" || { echo "soak: slower in the end"; code=1; }
fi
exit "$code"
