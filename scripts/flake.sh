#!/usr/bin/env bash
# flake.sh N: runs unit, conformance and simulation tests of build/dev N times in random order, each with a fraction of its work
# (EVPL_TEST_REDUCED), and the others in full N / 20 times. Then names those that failed and how often. FLAKE_JOBS: how many at a time; tests
# that wait leave room for others, and a busy machine is part of the trial.
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=$1
jobs=${FLAKE_JOBS:-$((2 * $(nproc)))}
fast='^(unit|conformance|sim)_tests$'
failures=$(mktemp)
log=$(mktemp)
trap 'rm -f "$failures" "$log"' EXIT
bad_rounds=0
export GTEST_SHUFFLE=1

# repeat WHAT ROUNDS CTEST-ARGUMENT...
repeat() {
    local what=$1 times=$2 round verdict
    shift 2
    for ((round = 1; round <= times; round++)); do
        # The order is the seed's; with it, a failure can be repeated.
        export GTEST_RANDOM_SEED=$round
        verdict=
        if ! scripts/test.sh dev --schedule-random "$@" >"$log" 2>&1; then
            bad_rounds=$((bad_rounds + 1))
            mkdir -p build/dev/flake
            cp "$log" "build/dev/flake/$what-$round.log"
            cat build/dev/test-results/failed >>"$failures" 2>/dev/null || true
            verdict=", see build/dev/flake/$what-$round.log"
        fi
        echo "$what, round $round of $times (seed $round): $(tail -n 1 "$log")$verdict"
    done
}
EVPL_TEST_REDUCED=1 repeat fast "$rounds" --label-regex "$fast" --parallel "$jobs"
repeat rest $(((rounds + 19) / 20)) --label-exclude "$fast|install|style"
[[ $bad_rounds -gt 0 ]] || { echo "flake: every test passed each time"; exit 0; }
echo "flake: failures in all rounds:"
sort "$failures" | uniq -c | sort -rn
exit 1
