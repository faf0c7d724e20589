#!/usr/bin/env bash
# lab.sh [COMMAND]: runs COMMAND, or what LAB_CMD holds, in the emulated guest and passes its exit status on.
# Without either: the tests that build/dev/lab-tests.txt lists. Options are variables: docs/lab.md.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/deps.sh lab >&2 || true  # what is missing then is a reason to skip
exec python3 tests/lab/lab.py "$@"
