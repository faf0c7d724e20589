#!/usr/bin/env bash
# What is too long for every change: all tests plain, under the sanitizers and many times over, long fuzzing, coverage,
# packages, benchmarks. A failing step does not stop the others. A short form is asked for by: TIME, seconds per fuzz target; SEEDS, random
# programs; N, rounds of flake; CONNECTS, connects and closes; SOAK_S, seconds of echo; TURNS, calls of each kind that strace makes fail.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

mkdir -p build/night
rows=()
code=0
step() {
    local name=$1 began=$SECONDS verdict=passed ended=0
    shift
    echo "== $name (log: build/night/$name.log)"
    "$@" >"build/night/$name.log" 2>&1 </dev/null || ended=$?
    if [[ $ended -eq 77 ]] && grep '^SKIP: ' "build/night/$name.log"; then
        verdict=skipped
    elif [[ $ended -ne 0 ]]; then
        verdict=FAILED
        code=1
        tail -n 30 "build/night/$name.log"
    fi
    rows+=("$(printf '%-10s %-7s %5d s' "$name" "$verdict" $((SECONDS - began)))")
}
step test make test
step slow env EVPL_TEST_SLOW=1 scripts/test.sh dev --label-regex fault_tests
step strace env EVPL_BUILD="$PWD/build/dev" TURNS="${TURNS:-50}" tests/failonce/strace_sweep.py
step race tests/race/night.sh "${RACE_EXECUTIONS:-200000}"
step asan make asan
step tsan make tsan
step lab env LAB_TESTS=night scripts/lab.sh
step sim make sim SEEDS="${SEEDS:-1000000}"
step fuzz make fuzz TIME="${TIME:-600}"
step flake make flake N="${N:-100}"
step coverage make coverage
step deb make deb
step deb-try tests/install/try_packages.sh build/deb
step build make build
step connects scripts/connects.sh "${CONNECTS:-1000000}"
step soak env SOAK_S="${SOAK_S:-3600}" scripts/soak.sh
step xlio env EVPL_TEST_CONNECTS="${CONNECTS:-100000}" EVPL_WATCHDOG_S=1800 build/dev/tests/xlio_tests --gtest_filter='XlioScale.*'
step xliosample tests/xlio/samples_test.py
step bench make bench
printf '%s\n' "" "${rows[@]}"
exit "$code"
