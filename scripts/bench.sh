#!/usr/bin/env bash
# Runs the benchmarks of build/release; each leaves JSON in build/release/bench-results.
set -euo pipefail
cd "$(dirname "$0")/.."

results=build/release/bench-results
mkdir -p "$results"
ran=0
for program in build/release/bin/bench/*_bench; do
    [[ -x $program ]] || continue
    name=$(basename "$program")
    echo "== $name"
    "$program" --benchmark_out="$results/$name.json" --benchmark_out_format=json --benchmark_repetitions=5 \
        --benchmark_report_aggregates_only=true </dev/null
    ran=$((ran + 1))
done
if [[ -x bench/run.sh ]]; then
    bench/run.sh "$PWD/build/release" "$PWD/$results" </dev/null
    ran=$((ran + 1))
fi
[[ $ran -gt 0 ]] || { echo "bench: there is no benchmark" >&2; exit 1; }
