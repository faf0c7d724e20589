#!/usr/bin/env bash
# Where there is no RDMA device, bench/rdma.sh says so and is a skip, not a failure; it never gets as far as to measure.
set -u
cd "$(dirname "$0")/../.."
empty=$(mktemp -d)
trap 'rm -rf "$empty"' EXIT
failures=0
expect() {
    local reason=$1 said code=0
    shift
    said=$(env "$@" 2>&1) || code=$?
    if [[ $code -ne 77 || $said != "SKIP: $reason"* ]]; then
        echo "expected a skip with '$reason', got $code: $said"
        failures=1
    fi
}
expect "there is no RDMA device" RDMA_SYSFS="$empty" bench/rdma.sh 10.0.0.1
expect "there is no RDMA device" RDMA_SYSFS="$empty/nothing" bench/rdma.sh 10.0.0.1
touch "$empty/device"
expect "say the address" RDMA_SYSFS="$empty" bench/rdma.sh
expect "there is no $empty/bin/evpl" RDMA_SYSFS="$empty" bench/rdma.sh 10.0.0.1 "$empty"
bash -n bench/rdma.sh || failures=1
exit "$failures"
