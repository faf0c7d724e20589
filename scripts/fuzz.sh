#!/usr/bin/env bash
# fuzz.sh SECONDS: runs every fuzz target that long, one per processor at a time, from tests/fuzz/corpus/<name>/. New inputs collect in
# build/fuzz/corpus/<name>/; one that breaks something is left in build/fuzz/found/ and its replay is named. FUZZ_TARGETS="dns config": only those.
# The last line is "N passed, N failed, N skipped"; the numbers are also left in build/fuzz/test-results/summary.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/sanitizers.sh

seconds=$1
results=build/fuzz/test-results
rm -rf "$results"
mkdir -p build/fuzz/found "$results"
programs=()
for program in build/fuzz/fuzz/*_fuzz; do
    name=$(basename "$program" _fuzz)
    [[ -x $program && (-z ${FUZZ_TARGETS:-} || " $FUZZ_TARGETS " == *" $name "*) ]] && programs+=("$program")
done
[[ ${#programs[@]} -gt 0 ]] || { echo "fuzz: there is no fuzz target" >&2; exit 1; }

# fuzz PROGRAM: leaves its log, and a file `failed` beside it when it found something.
fuzz() {
    local program=$1 name corpora dictionary=()
    name=$(basename "$program" _fuzz)
    corpora=("build/fuzz/corpus/$name")
    mkdir -p "${corpora[0]}"
    [[ ! -d tests/fuzz/corpus/$name ]] || corpora+=("tests/fuzz/corpus/$name")
    [[ ! -f tests/fuzz/$name.dict ]] || dictionary=("-dict=tests/fuzz/$name.dict")
    "$program" -max_total_time="$seconds" -timeout=30 -rss_limit_mb=2048 -print_final_stats=1 -verbosity=0 \
        "${dictionary[@]}" -artifact_prefix="build/fuzz/found/$name-" "${corpora[@]}" </dev/null >"$results/$name.log" 2>&1 || touch "$results/$name.failed"
    local runs
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$results/$name.log")
    [[ ${runs:-0} -gt 0 ]] || touch "$results/$name.failed"  # a target that ran nothing has shown nothing
    echo "$name: ${runs:-0} inputs in $seconds s$([[ ! -e $results/$name.failed ]] || echo ", FAILED")"
}
running=0
for program in "${programs[@]}"; do
    if [[ $running -ge $(nproc) ]]; then
        wait -n
        running=$((running - 1))
    fi
    fuzz "$program" &
    running=$((running + 1))
done
wait
failed=0
for mark in "$results"/*.failed; do
    [[ -e $mark ]] || continue
    failed=$((failed + 1))
    name=$(basename "$mark" .failed)
    tail -n 40 "$results/$name.log"
    for input in build/fuzz/found/"$name"-*; do
        [[ ! -f $input ]] || echo "  build/fuzz/fuzz/${name}_fuzz $input"
    done
done
numbers="$((${#programs[@]} - failed)) $failed 0"
echo "$numbers" >"$results/summary"
read -r passed failed skipped <<<"$numbers"
echo "$passed passed, $failed failed, $skipped skipped"
[[ $failed -eq 0 ]]
