#!/usr/bin/env bash
# release.sh [CMAKE-ARGUMENT...]: the optimised build, laid out by a profile of the library's own traffic (docs/decisions/0009).
# The profile is recorded once: `rm -r build/profile` for a new one. PROFILE=off: without.
set -euo pipefail
cd "$(dirname "$0")/.."

use=''
if [[ ${PROFILE:-on} != off ]] && "${CXX:-c++}" --version | grep -q 'Free Software Foundation'; then
    if [[ ! -e build/profile/recorded/complete ]]; then
        scripts/profile.sh
        rm -rf build/release/CMakeFiles/evpl_objects.dir  # compiled by the notes before these, which ninja does not know of
    fi
    use=use
fi
scripts/build.sh release -DEVPL_PROFILE="$use" "$@"
