#!/usr/bin/env bash
# profile.sh: builds the library so that it notes which way it runs, and runs echo traffic over every transport: sockets and
# io_uring where the machine has it, RDMA and XLIO on the stand-ins that the tests use, since few machines have such devices.
# The notes (gcc(1), -fprofile-generate) are left in build/profile/recorded; a minute or two.
set -euo pipefail
cd "$(dirname "$0")/.."

recorded=build/profile/recorded
evpl=build/profile/bin/evpl
bench=build/profile/bin/bench
rm -rf "$recorded"
scripts/build.sh profile
out=$(mktemp -d)
server=''
trap '[[ -z $server ]] || kill "$server" 2>/dev/null; rm -rf "$out"' EXIT

# run URL MODE TEST...: a server, and each test against it for a moment. A transport that is absent here is left out.
run() {
    local url=$1 mode=$2 options
    shift 2
    "$evpl" echo --listen "$url" --mode "$mode" >"$out/said" 2>"$out/errors" &
    server=$!
    for _ in $(seq 100); do
        [[ ! -s $out/said ]] || break
        kill -0 "$server" 2>/dev/null || break
        sleep 0.05
    done
    if url=$(sed -n 's/^listening on //p' "$out/said") && [[ -n $url ]]; then
        for options in "$@"; do
            # shellcheck disable=SC2086 # several words each
            "$evpl" perf --connect "$url" --time 0.3 $options >/dev/null 2>"$out/errors" || { cat "$out/errors" >&2; exit 1; }
        done
        kill "$server"
        wait "$server" || true
    else
        echo "profile: without $1: $(head -1 "$out/errors")"
        wait "$server" || true
    fi
    server=''
}

echo "profile: echo traffic, about half a minute"
streams=("--test latency" "--test latency --connections 64" "--test rate --connections 64 --depth 16" "--test latency --connections 300"
    "--test rate --connections 64 --size 4096" "--test stream --connections 8 --size 262144" "--test connect")
for scheme in tcp uring; do
    for mode in event hybrid; do run "$scheme://127.0.0.1:0" "$mode" "${streams[@]}"; done
done
for scheme in udp uring-udp; do run "$scheme://127.0.0.1:0" hybrid "--test latency" "--test rate --size 1400"; done
run "unix://$out/socket" hybrid "--test latency" "--test rate"

# one NAME COMMAND...: traffic with both ends in one process. What fails here costs speed, not the build.
one() {
    local name=$1
    shift
    "$@" >/dev/null 2>"$out/errors" || echo "profile: without $name: $(head -1 "$out/errors")"
}
one inproc "$evpl" perf --all --time 0.2 --warmup 0.05
[[ ! -x $bench/rdma_double ]] || one rdma "$bench/rdma_double" --pairs 1000000 --rounds 1 --only evpl
export EVPL_XLIO_LIBRARY=$PWD/build/profile/tests/libxlio_double.so EVPL_XLIO_CHECK=off EVPL_XLIO_PROBE=off XLIO_DOUBLE=memory
for depth in 1 8; do one xlio "$bench/pair" --pairs 500000 --depth "$depth" --only evpl; done
ls "$recorded"/*.gcda >/dev/null
touch "$recorded/complete"
