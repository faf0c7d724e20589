#!/usr/bin/env bash
# Runs the whole comparison and the system call count: run.sh [BUILD_DIR [RESULTS_DIR [options of compare.py]]]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
build=${1:-$here/../build/release}
results=${2:-$build/bench-results}
shift $(($# < 2 ? $# : 2))
mkdir -p "$results"
for floor in shm_ring eventfd_pingpong; do
    "$build/bin/bench/$floor" | tee "$results/$floor.json"
done
if command -v strace >/dev/null; then
    python3 "$here/syscalls.py" --bin "$build/bin/bench" --evpl "$build/bin/evpl" | tee "$results/syscalls.txt"
fi
python3 "$here/compile.py" | tee "$results/compile.txt" || true
python3 "$here/segmentation.py" --evpl "$build/bin/evpl" | tee "$results/segmentation.txt" || true  # a bar missed is shown, the rest still runs
# Building and the lines above have raised the load average: let it sink first.
exec python3 "$here/compare.py" --wait 300 --bin "$build/bin/bench" --evpl "$build/bin/evpl" \
    --json "$results/compare.json" --markdown "$results/compare.md" "$@"
