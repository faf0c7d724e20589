#!/usr/bin/env bash
# rdma.sh ADDRESS [BUILD_DIR [ROUNDS]]: our `evpl perf` over rdma:// and perftest over the same device, in alternation; a table of medians.
# Both ends run on this machine. ADDRESS is that of one of its RDMA devices; RDMA_DEVICE and RDMA_GID_INDEX name the device to perftest (-d, -x).
# Without a device, a build or perftest it says so and ends with 77.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
skip() { echo "SKIP: $1"; exit 77; }

address=${1:-}
build=${2:-$here/../build/release}
rounds=${3:-5}
evpl=$build/bin/evpl
sysfs=${RDMA_SYSFS:-/sys/class/infiniband}
[[ -d $sysfs && -n $(ls -A "$sysfs") ]] || skip "there is no RDMA device"
[[ -n $address ]] || skip "say the address of an RDMA device: rdma.sh 10.0.0.1"
[[ -x $evpl ]] || skip "there is no $evpl: make release"
for tool in ib_send_lat ib_send_bw; do command -v "$tool" >/dev/null || skip "perftest is not installed"; done

results=$(mktemp -d)
server=
stop_server() {
    [[ -z $server ]] || { kill "$server" 2>/dev/null && wait "$server" 2>/dev/null; } || true
    server=
}
trap 'stop_server; rm -rf "$results"' EXIT

# What perftest prints last, column N of its line of numbers.
perftest() {
    local tool=$1 column=$2
    shift 2
    local options=("$@" ${RDMA_DEVICE:+-d "$RDMA_DEVICE"} ${RDMA_GID_INDEX:+-x "$RDMA_GID_INDEX"} -R -p 18599)
    timeout 60 "$tool" "${options[@]}" >/dev/null 2>&1 &
    server=$!
    for _ in $(seq 50); do
        if timeout 60 "$tool" "${options[@]}" "$address" >"$results/out" 2>/dev/null; then break; fi
        sleep 0.1  # the server may not listen yet
    done
    stop_server
    awk -v column="$column" '/^ *[0-9]+ +[0-9]+/ { value = $column } END { print value }' "$results/out"
}

# One value of a result of ours.
ours() {
    local key=$1
    shift
    "$evpl" perf --connect "rdma://$address:18600?mode=msg" --json - "$@" | python3 -c '
import json, sys
def find(tree, key):
    if isinstance(tree, dict):
        if key in tree: return tree[key]
        tree = list(tree.values())
    for each in tree if isinstance(tree, list) else []:
        if (found := find(each, key)) is not None: return found
print(find(json.load(sys.stdin), sys.argv[1]))' "$key"
}
with_echo() {
    "$evpl" echo --mode poll --listen "rdma://$address:18600?mode=msg" >/dev/null 2>&1 &
    server=$!
    for _ in $(seq 50); do
        if "$evpl" perf --connect "rdma://$address:18600?mode=msg" --test latency --count 1 >/dev/null 2>&1; then break; fi
        sleep 0.1
    done
    "$@"
    stop_server
}

for ((round = 0; round < rounds; ++round)); do
    with_echo ours p50 --test latency --size 64 --mode poll >>"$results/evpl_latency"
    perftest ib_send_lat 5 -s 64 -n 10000 >>"$results/perftest_latency"
    with_echo ours messages_per_second --test rate --size 64 --depth 64 --mode poll >>"$results/evpl_rate"
    perftest ib_send_bw 5 -s 64 -n 100000 >>"$results/perftest_rate"
done
python3 - "$results" <<'EOF'
import statistics, sys
def median(name):
    with open(f"{sys.argv[1]}/{name}") as file:
        values = [float(line) for line in file if line.strip() not in ("", "None")]
    return statistics.median(values) if values else float("nan")
print(f"{'64-byte messages':34}{'evpl perf':>14}{'perftest':>14}")
# perftest tells half a round trip, and millions of messages one way; ours are round trips.
print(f"{'round trip, us':34}{median('evpl_latency') / 1000:14.2f}{2 * median('perftest_latency'):14.2f}")
print(f"{'million messages/s (ours: echoed)':34}{median('evpl_rate') / 1e6:14.3f}{median('perftest_rate'):14.3f}")
EOF
