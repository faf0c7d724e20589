#!/usr/bin/env bash
# Plays EVPL_SEEDS random programs on the simulated network, on all processors. A seed that fails is named, and its program is
# printed as small as it still fails.
set -euo pipefail
cd "$(dirname "$0")/.."

shards=$(nproc)
code=0
running=()
for ((shard = 0; shard < shards; shard++)); do
    GTEST_TOTAL_SHARDS=$shards GTEST_SHARD_INDEX=$shard build/dev/tests/sim_tests --gtest_filter='*/RandomProgram.*' \
        --gtest_brief=1 </dev/null &
    running+=("$!")
done
for one in "${running[@]}"; do wait "$one" || code=1; done
[[ $code -eq 0 ]] && echo "sim: ${EVPL_SEEDS:-the usual number of} seeds, nothing found"
exit "$code"
