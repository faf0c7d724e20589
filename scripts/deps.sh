#!/usr/bin/env bash
# Installs what is missing from the named groups: build test docs bench format fuzz coverage package lab.
# Names what it installs, asks for nothing that is there. DEPS=skip: do nothing.
set -euo pipefail

declare -A packages=(
    [build]="make g++ cmake ninja-build pkg-config libc-ares-dev libfmt-dev libcli11-dev nlohmann-json3-dev libibverbs-dev librdmacm-dev"
    [test]="libgtest-dev libgmock-dev librapidcheck-dev libseccomp-dev python3 strace socat ncat iperf3 iproute2 nftables valgrind abigail-tools"
    [docs]="doxygen"
    [bench]="libbenchmark-dev libuv1-dev libasio-dev liburing-dev"
    [format]="clang-format"
    [fuzz]="clang llvm libclang-rt-dev"
    [coverage]="gcovr"
    [package]="debhelper dpkg-dev git lintian mmdebstrap iproute2"
    [lab]="qemu-system-x86 busybox-static kmod cpio zstd xz-utils python3 rdma-core rdmacm-utils ibverbs-utils perftest iproute2 procps"
)

[[ ${DEPS:-} != skip ]] || exit 0
[[ $# -gt 0 ]] || { echo "usage: deps.sh GROUP...   (groups: ${!packages[*]})" >&2; exit 2; }

wanted=()
for group in "$@"; do
    [[ -n ${packages[$group]:-} ]] || { echo "deps: no group '$group' (groups: ${!packages[*]})" >&2; exit 2; }
    read -ra more <<<"${packages[$group]}"
    wanted+=("${more[@]}")
done

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
    echo "deps: there is no apt-get here. Install the equivalents of: ${wanted[*]}" >&2
    echo "deps: then run make again with DEPS=skip" >&2
    exit 1
fi

# Virtual packages count through the package that provides them.
installed=$(dpkg-query -W -f='${db:Status-Status} ${Package} ${Provides}\n' 2>/dev/null |
    sed -n 's/^installed //p' | sed 's/([^)]*)//g; s/,/ /g' | tr -s ' ' '\n' | sort -u)
missing=()
for package in "${wanted[@]}"; do
    grep -qxF "$package" <<<"$installed" || missing+=("$package")
done
[[ ${#missing[@]} -gt 0 ]] || exit 0

install="apt-get install -y --no-install-recommends ${missing[*]}"
if [[ $EUID -eq 0 ]]; then
    sudo=()
elif command -v sudo >/dev/null && { [[ -t 0 ]] || sudo -n true 2>/dev/null; }; then
    sudo=(sudo)
else
    echo "deps: missing: ${missing[*]}" >&2
    echo "deps: root has to run:" >&2
    echo "    apt-get update && $install" >&2
    exit 1
fi

echo "deps: installing ${missing[*]}"
apt=("${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300)
"${apt[@]}" update >/dev/null || echo "deps: apt-get update failed, trying with the lists at hand" >&2
if ! log=$("${apt[@]}" install -y --no-install-recommends "${missing[@]}" 2>&1); then
    printf '%s\n' "$log" >&2
    echo "deps: this failed: $install" >&2
    exit 1
fi
