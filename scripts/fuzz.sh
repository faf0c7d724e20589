#!/usr/bin/env bash
# fuzz.sh SECONDS: runs every fuzz target that long, from tests/fuzz/corpus/<name>/. New inputs collect in
# build/fuzz/corpus/<name>/; one that breaks something is left in build/fuzz/found/ and its replay is named.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/sanitizers.sh

seconds=$1
ran=0
failed=()
mkdir -p build/fuzz/found
for program in build/fuzz/fuzz/*_fuzz; do
    [[ -x $program ]] || continue
    ran=$((ran + 1))
    name=$(basename "$program" _fuzz)
    corpora=("build/fuzz/corpus/$name")
    mkdir -p "${corpora[0]}"
    [[ ! -d tests/fuzz/corpus/$name ]] || corpora+=("tests/fuzz/corpus/$name")
    dictionary=()
    [[ ! -f tests/fuzz/$name.dict ]] || dictionary=("-dict=tests/fuzz/$name.dict")
    echo "== $name, $seconds s"
    "$program" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 -verbosity=0 \
        "${dictionary[@]}" -artifact_prefix="build/fuzz/found/$name-" "${corpora[@]}" </dev/null || failed+=("$name")
done
[[ $ran -gt 0 ]] || { echo "fuzz: there is no fuzz target" >&2; exit 1; }
if [[ ${#failed[@]} -gt 0 ]]; then
    echo "fuzz: failed: ${failed[*]}"
    for name in "${failed[@]}"; do
        for input in build/fuzz/found/"$name"-*; do
            [[ ! -f $input ]] || echo "  build/fuzz/fuzz/${name}_fuzz $input"
        done
    done
    exit 1
fi
echo "fuzz: $ran targets, nothing found"
