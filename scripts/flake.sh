#!/usr/bin/env bash
# flake.sh N: runs the tests of build/dev N times in random order, then names those that failed and how often.
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=$1
failures=$(mktemp)
log=$(mktemp)
trap 'rm -f "$failures" "$log"' EXIT
bad_rounds=0
export GTEST_SHUFFLE=1
for ((round = 1; round <= rounds; round++)); do
    # The order is the seed's; with it, a failure can be repeated.
    export GTEST_RANDOM_SEED=$round
    if scripts/test.sh dev --schedule-random --label-exclude 'install|style' >"$log" 2>&1; then
        verdict=
    else
        bad_rounds=$((bad_rounds + 1))
        mkdir -p build/dev/flake
        cp "$log" "build/dev/flake/round-$round.log"
        cat build/dev/test-results/failed >>"$failures" 2>/dev/null || true
        verdict=", see build/dev/flake/round-$round.log"
    fi
    echo "round $round of $rounds (seed $round): $(tail -n 1 "$log")$verdict"
done
[[ $bad_rounds -gt 0 ]] || { echo "flake: every test passed $rounds times"; exit 0; }
echo "flake: failures in $rounds rounds:"
sort "$failures" | uniq -c | sort -rn
exit 1
