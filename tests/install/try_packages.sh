#!/usr/bin/env bash
# try_packages.sh FOLDER: the Debian packages in FOLDER, in a root that has nothing but Debian's essentials: they install, the command
# runs and measures over loopback, strangers' programs in C and C++ run against the library, and after a purge nothing is left.
# What has to be compiled is compiled outside, against the unpacked packages: a compiler would be most of a clean root.
# Exit code 77 and a line "SKIP: reason" where no such root can be made.
set -euo pipefail

packages=$(cd "$1" && pwd)
source=$(cd "$(dirname "$0")/../.." && pwd)
version=$(dpkg-deb -f "$packages"/libevpl0_*.deb Version)

skip() { echo "SKIP: $*"; exit 77; }
fail() { echo "$*" >&2; exit 1; }

[[ $EUID -eq 0 ]] || skip "only root can enter a clean root"
command -v mmdebstrap >/dev/null || skip "mmdebstrap is absent (scripts/deps.sh package installs it)"
unshare --mount --net --pid --fork true 2>/dev/null || skip "namespaces are not permitted here"
codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
# The archive this machine installs from.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Codename: $codename" 'Component: main' 2>/dev/null | head -n 1)
[[ -n $mirror ]] || skip "apt has no list of this release ($codename): run apt-get update"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
root=$scratch/root
mkdir "$root"

# What the packages may need, and no more: dpkg refuses to install them if they want anything else. Kept, as it takes half a minute.
needs=libc-ares2,libc-ares-dev,libstdc++6
kept=$source/build/clean-root/$codename-$(cksum <<<"$needs $mirror" | cut -d ' ' -f 1).tar
if [[ ! -f $kept ]]; then
    mkdir -p "$(dirname "$kept")"
    if ! mmdebstrap --quiet --format=tar --variant=essential --include="$needs" "$codename" "$kept.new" "$mirror" 2>"$scratch/log" </dev/null; then
        rm -f "$kept.new"
        skip "mmdebstrap made no root from $mirror: $(tail -n 1 "$scratch/log")"
    fi
    mv "$kept.new" "$kept"
fi
tar -xpf "$kept" -C "$root"

# in_root COMMAND...: in the clean root, with its own processes and a network of loopback only.
in_root() {
    unshare --mount --net --pid --fork --kill-child sh -c '
        root=$1; shift
        ip link set lo up
        mount -t proc proc "$root/proc"
        exec chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"' sh "$root" "$@"
}

# What dpkg and ldconfig keep about packages is theirs.
files() { (cd "$root" && find . -xdev ! -path './var/lib/dpkg/*' ! -path './var/log/*' ! -path './var/cache/ldconfig/*' | sort); }

files >"$scratch/before"
cp "$packages"/libevpl0_*.deb "$packages"/libevpl-dev_*.deb "$packages"/evpl-tools_*.deb "$scratch"
mkdir "$root/packages"
cp "$scratch"/*.deb "$root/packages"
in_root sh -c 'dpkg -i /packages/*.deb' >"$scratch/log" 2>&1 || { cat "$scratch/log" >&2; fail "the packages do not install"; }
rm -r "$root/packages"
echo "installed: $(in_root dpkg-query -W -f '${Package} ' libevpl0 libevpl-dev evpl-tools)"
for page in man1/evpl.1.gz man7/evpl.7.gz; do [[ -f $root/usr/share/man/$page ]] || fail "there is no $page"; done

# As the first page says: a stranger's compiler and pkg-config, and the packages.
unpacked=$scratch/unpacked
for package in libevpl0 libevpl-dev; do dpkg-deb -x "$packages"/${package}_*.deb "$unpacked"; done
export PKG_CONFIG_PATH=$(dirname "$(find "$unpacked" -name evpl.pc)")
read -ra flags <<<"$(pkg-config --cflags --libs evpl)"
g++ -std=c++20 "$source/examples/echo.cpp" -o "$root/echo" "${flags[@]}"
gcc -std=c11 "$source/examples/echo_client.c" -o "$root/echo_client_c" "${flags[@]}"
cmake -S "$source/tests/install" -B "$scratch/cmake" -DCMAKE_PREFIX_PATH="$unpacked/usr" -DCMAKE_LIBRARY_ARCHITECTURE="$(gcc -print-multiarch)" >/dev/null
cmake --build "$scratch/cmake" >/dev/null
cp "$scratch/cmake/consumer" "$scratch/cmake/consumer_static" "$root"

cat >"$root/try" <<'TRY'
set -euo pipefail
echo "$(evpl --version)"
evpl info | grep -q '^tcp' || { evpl info; exit 1; }
/consumer; /consumer_static
coproc served { exec evpl echo --listen tcp://127.0.0.1:0; }
read -r _ _ url <&"${served[0]}"
evpl perf --connect "$url" --time 0.3
kill "$served_PID"; wait "$served_PID"
/echo tcp://127.0.0.1:7000 & server=$!
# The example does not say when it is ready.
for _ in $(seq 200); do answer=$(/echo_client_c tcp://127.0.0.1:7000 "over the packages" 2>/dev/null) && break; sleep 0.05; done
kill "$server"; wait "$server"
echo "echoed: $answer"
TRY
said=$(in_root bash /try 2>&1) || { echo "$said" >&2; fail "the try in the clean root failed"; }
echo "$said"
[[ $(grep -c "^evpl $version\$" <<<"$said") -eq 3 ]] || fail "command and consumers do not all say 'evpl $version'"
grep -q '^echoed: over the packages$' <<<"$said" || fail "the text did not come back"
grep -q 'messages/s\|p99' <<<"$said" || fail "perf has no result"

rm "$root/echo" "$root/echo_client_c" "$root/consumer" "$root/consumer_static" "$root/try"
in_root dpkg --purge libevpl-dev evpl-tools libevpl0 >/dev/null
files >"$scratch/after"
diff "$scratch/before" "$scratch/after" || fail "the lines above are left or missing after the purge"
echo "packages: version $version installed, tried and removed in a clean root of $codename"
