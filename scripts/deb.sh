#!/usr/bin/env bash
# Builds the Debian packages of what is committed, from the tarball of scripts/dist.sh, into build/deb; fails on what lintian calls
# an error or a warning.
set -euo pipefail
cd "$(dirname "$0")/.."

tarball=$(scripts/dist.sh)
name=$(basename "$tarball" .tar.gz)
rm -rf build/deb
mkdir -p build/deb
tar -xzf "$tarball" -C build/deb
# debhelper gives a build a home of its own; the compiler's cache is elsewhere.
export CCACHE_DIR=${CCACHE_DIR:-$HOME/.cache/ccache}
if ! (cd "build/deb/$name" && dpkg-buildpackage -us -uc -j"$(nproc)") >build/deb/log 2>&1 </dev/null; then
    tail -n 60 build/deb/log >&2
    exit 1
fi
rm -rf "build/deb/$name"
lintian --fail-on error,warning --suppress-tags bad-distribution-in-changes-file build/deb/*.changes
ls build/deb/*.deb
