#!/usr/bin/env bash
# consume.sh WAY BUILD CXX VERSION: a stranger's program uses the library in one of the ways we promise, and prints
# its version. WAY: find_package, pkg_config, pkg_config_static, add_subdirectory. BUILD is a finished build tree.
set -euo pipefail

way=$1 build=$2 cxx=$3 version=$4
here=$(cd "$(dirname "$0")" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
prefix=$scratch/prefix

install_library() { cmake --install "$build" --prefix "$prefix" >/dev/null; }

# says PROGRAM: it runs and prints the version.
says() {
    local said
    said=$("$@")
    [[ $said == "evpl $version" ]] || { echo "expected 'evpl $version', got '$said'" >&2; exit 1; }
    echo "$way: $said"
}

case $way in
find_package)
    install_library
    cmake -S "$here" -B "$scratch/build" -DCMAKE_CXX_COMPILER="$cxx" -DCMAKE_PREFIX_PATH="$prefix"
    cmake --build "$scratch/build"
    says "$scratch/build/consumer"
    says "$scratch/build/consumer_static"
    ;;
pkg_config)
    install_library
    pc=$(dirname "$(find "$prefix" -name evpl.pc)")
    export PKG_CONFIG_PATH=$pc
    read -ra flags <<<"$(pkg-config --cflags --libs evpl)"
    "$cxx" -std=c++20 "$here/consumer.cpp" -o "$scratch/consumer" "${flags[@]}"
    says env LD_LIBRARY_PATH="$(pkg-config --variable=libdir evpl)" "$scratch/consumer"
    [[ -f $prefix/share/man/man7/evpl.7 ]] || { echo "the manual of the library was not installed" >&2; exit 1; }
    # The command brings all it needs.
    if [[ -x $prefix/bin/evpl ]]; then
        [[ -f $prefix/share/man/man1/evpl.1 ]] || { echo "the manual of the command was not installed" >&2; exit 1; }
        "$prefix/bin/evpl" --help >/dev/null
        ! ldd "$prefix/bin/evpl" | grep -E 'not found|libevpl|libfmt'
    fi
    ;;
pkg_config_static)
    install_library
    pc=$(dirname "$(find "$prefix" -name evpl.pc)")
    export PKG_CONFIG_PATH=$pc
    read -ra flags <<<"$(pkg-config --static --cflags --libs evpl)"
    "$cxx" -std=c++20 -static -flto "$here/consumer.cpp" -o "$scratch/consumer" "${flags[@]}"
    says "$scratch/consumer"
    ;;
add_subdirectory)
    cmake -S "$here" -B "$scratch/build" -DCMAKE_CXX_COMPILER="$cxx" -DCMAKE_BUILD_TYPE=Debug \
        -DEVPL_SOURCE="$(cd "$here/../.." && pwd)"
    cmake --build "$scratch/build" --parallel 2
    says "$scratch/build/consumer"
    says "$scratch/build/consumer_static"
    ;;
*)
    echo "no way '$way'" >&2
    exit 2
    ;;
esac
