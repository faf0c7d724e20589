#!/usr/bin/env bash
# build.sh PRESET [CMAKE-ARGUMENT...]: configures and builds one preset in build/PRESET.
set -euo pipefail
cd "$(dirname "$0")/.."

preset=$1
shift
# With ccache a checkout elsewhere on the machine finds what this one has compiled.
export CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1 CCACHE_MAXSIZE=${CCACHE_MAXSIZE:-5G}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! cmake --preset "$preset" "$@" >"$log" 2>&1; then
    cat "$log" >&2
    exit 1
fi
grep -A3 'CMake Warning' "$log" >&2 || true
# A compiler at a time on each processor: more of them only take each other's cache (measured: 15 % longer with two more).
nice cmake --build --preset "$preset" --parallel "$(nproc)"
