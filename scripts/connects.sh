#!/usr/bin/env bash
# connects.sh [COUNT] [SCHEME...]: COUNT connections one after another against `evpl echo`, per scheme; afterwards the server has the
# descriptors it began with, and hardly more memory. Needs a build: PRESET=release.
set -euo pipefail
cd "$(dirname "$0")/.."

count=${1:-100000}
shift || true
schemes=("${@:-tcp}")
[ $# -gt 0 ] || schemes=(tcp uring)
evpl=build/${PRESET:-release}/bin/evpl
port=${PORT:-7391}
descriptors() { find "/proc/$1/fd" -mindepth 1 | wc -l; }
resident_kb() { awk '/^VmRSS/ { print $2 }' "/proc/$1/status"; }

for scheme in "${schemes[@]}"; do
    "$evpl" echo --listen "$scheme://127.0.0.1:$port" --mode event >/dev/null &
    server=$!
    trap 'kill "$server" 2>/dev/null || true' EXIT
    url="tcp://127.0.0.1:$port"
    for _ in $(seq 50); do "$evpl" perf --connect "$url" --test connect --count 1000 >/dev/null 2>&1 && break; sleep 0.1; done
    sleep 1
    before=$(descriptors "$server") memory=$(resident_kb "$server")
    "$evpl" perf --connect "$url" --test connect --count "$count" --mode event
    sleep 2
    after=$(descriptors "$server") more=$(($(resident_kb "$server") - memory))
    kill -TERM "$server"
    wait "$server"
    echo "$scheme: $count connections, descriptors $before then $after, $more KiB more"
    [ "$after" -le "$before" ] && [ "$more" -le 2048 ]
done
