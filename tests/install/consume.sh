#!/usr/bin/env bash
# consume.sh WAY BUILD CXX VERSION: a stranger's program uses the library in one of the ways we promise, and prints
# its version. WAY: find_package, pkg_config, pkg_config_static, add_subdirectory, fetch_content. BUILD is a finished build tree.
set -euo pipefail

way=$1 build=$2 cxx=$3 version=$4
here=$(cd "$(dirname "$0")" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
prefix=$scratch/prefix

install_library() { cmake --install "$build" --prefix "$prefix" >/dev/null; }

# lacks WHAT FILE: fails when a line of FILE matches. (`! grep` would not stop a script under `set -e`.)
lacks() {
    if grep -E "$1" "$2"; then
        echo "$way: the lines above should not be there" >&2
        exit 1
    fi
}

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
    for program in consumer consumer_static consumer_c consumer_c_static consumer_co; do says "$scratch/build/$program"; done
    ;;
pkg_config)
    install_library
    pc=$(dirname "$(find "$prefix" -name evpl.pc)")
    export PKG_CONFIG_PATH=$pc
    read -ra flags <<<"$(pkg-config --cflags --libs evpl)"
    "$cxx" -std=c++20 "$here/consumer.cpp" -o "$scratch/consumer" "${flags[@]}"
    says env LD_LIBRARY_PATH="$(pkg-config --variable=libdir evpl)" "$scratch/consumer"
    # What only a static program has to link is asked for by `--static` alone.
    [[ $(pkg-config --libs-only-l evpl | xargs) == -levpl ]] || { echo "shared programs would link more than -levpl" >&2; exit 1; }
    [[ $(pkg-config --print-requires-private evpl | xargs) == libcares ]] || { echo "Requires.private is wrong" >&2; exit 1; }
    [[ -f $prefix/share/man/man7/evpl.7 ]] || { echo "the manual of the library was not installed" >&2; exit 1; }
    gcc -std=c11 "$here/consumer_c.c" -o "$scratch/consumer_c" "${flags[@]}"
    says env LD_LIBRARY_PATH="$(pkg-config --variable=libdir evpl)" "$scratch/consumer_c"
    # Vendor libraries are loaded when they are wanted, never linked: these are all that may be needed.
    libdir=$(pkg-config --variable=libdir evpl)
    readelf -d "$libdir/libevpl.so" "$prefix/bin/evpl" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' |
        sed -E '/^(libc|libm|libstdc\+\+|libgcc_s|libcares|libpthread|libdl|ld-linux-x86-64)\.so/d' >"$scratch/needed"
    lacks . "$scratch/needed"
    # The command brings all it needs.
    if [[ -x $prefix/bin/evpl ]]; then
        [[ -f $prefix/share/man/man1/evpl.1 ]] || { echo "the manual of the command was not installed" >&2; exit 1; }
        "$prefix/bin/evpl" --help >/dev/null
        ldd "$prefix/bin/evpl" >"$scratch/ldd"
        lacks 'not found|libevpl|libfmt' "$scratch/ldd"
    fi
    ;;
pkg_config_static)
    install_library
    pc=$(dirname "$(find "$prefix" -name evpl.pc)")
    export PKG_CONFIG_PATH=$pc
    read -ra flags <<<"$(pkg-config --static --cflags --libs evpl)"
    "$cxx" -std=c++20 -static -flto "$here/consumer.cpp" -o "$scratch/consumer" "${flags[@]}"
    says "$scratch/consumer"
    # A whole server without a shared library; what glibc says about getaddrinfo and dlopen there is known.
    gcc -std=c11 -c "$here/../../examples/echo.c" -o "$scratch/echo.o" "-I$prefix/include"
    "$cxx" -static "$scratch/echo.o" -o "$scratch/echo" "${flags[@]}" 2>"$scratch/said" || { cat "$scratch/said" >&2; exit 1; }
    lacks 'undefined|error' "$scratch/said"
    readelf -d "$scratch/echo" >"$scratch/dynamic"
    lacks NEEDED "$scratch/dynamic"
    EVPL_ECHO="$scratch/echo" python3 "$here/try_echo.py"
    ;;
add_subdirectory | fetch_content)
    # Fetched, as a stranger builds it, each source by itself; added, some together (evpl_compile_together), which is quicker.
    choices=(-DEVPL_FETCH=ON)
    [[ $way == fetch_content ]] || choices=(-DEVPL_FETCH=OFF -DEVPL_CHECK_FLAGS=-O0)
    cmake -S "$here" -B "$scratch/build" -DCMAKE_CXX_COMPILER="$cxx" -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS_DEBUG="-O0 -g0" \
        "${choices[@]}" \
        -DEVPL_SOURCE="$(cd "$here/../.." && pwd)"
    cmake --build "$scratch/build" --parallel 2
    for program in consumer consumer_static consumer_c consumer_c_static consumer_co; do says "$scratch/build/$program"; done
    ;;
*)
    echo "no way '$way'" >&2
    exit 2
    ;;
esac
