#!/usr/bin/env bash
# Runs the tests of build/coverage and reports the executed lines of the library.
set -euo pipefail
cd "$(dirname "$0")/.."

find build/coverage -name '*.gcda' -delete
# Unoptimised code takes longer than the watchdog thinks.
export EVPL_WATCHDOG_S=300
scripts/test.sh coverage && code=0 || code=$?
mkdir -p build/coverage/report
# Of the library's own objects: the fuzz targets' mistakes and the explorer's small copies are not it.
gcovr --root . --filter 'src/' --filter 'include/' --exclude-throw-branches --print-summary \
    --html-details build/coverage/report/index.html --json-summary build/coverage/report/summary.json \
    --txt build/coverage/report/lines.txt build/coverage/CMakeFiles/evpl_objects.dir
echo "coverage: build/coverage/report/index.html"
scripts/coverage.py build/coverage/report/summary.json || code=1
exit "$code"
