#!/usr/bin/env bash
# test.sh PRESET [CTEST-ARGUMENT...]: runs the tests of build/PRESET. The last line is "N passed, N failed, N skipped",
# after the skipped tests with their reasons. Fails if a test failed or none ran.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/sanitizers.sh

preset=$1
shift
results=$PWD/build/$preset/test-results
rm -rf "$results"
mkdir -p "$results"

run=()
[[ $preset != tsan ]] || without_wide_address_randomisation run
set +e
# Many tests wait most of the time: one more at a time than there are processors.
"${run[@]}" ctest --test-dir "build/$preset" --parallel $(($(nproc) + 1)) --output-on-failure --no-tests=error \
    --output-junit "$results/ctest.xml" --test-output-size-passed 16777216 --test-output-size-failed 16777216 \
    "$@" </dev/null 2>&1 | tee "$results/ctest.log"
code=${PIPESTATUS[0]}
set -e
exec python3 scripts/summarise_tests.py "$results" --ctest-exit "$code"
