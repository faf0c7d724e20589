#!/usr/bin/env bash
# night.sh EXECUTIONS: so many executions of each scenario by chance, with more preemptions and stale loads than every change has.
set -euo pipefail
cd "$(dirname "$0")/../.."

program=build/${PRESET:-dev}/race/race_program
seed=${EVPL_SEED:-$((RANDOM * 32768 + RANDOM + 1))}
echo "seed $seed"
"$program" --list | xargs -P "$(nproc)" -I{} "$program" {} 5 3 "$1" "$seed"
