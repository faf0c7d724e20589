#!/usr/bin/env bash
# Goal: `make format` changes nothing: the sources are laid out as .clang-format says.
set -euo pipefail
cd "$(dirname "$0")/../.."

version=$(clang-format --version 2>/dev/null | grep -o 'version [0-9]*' || true)
if [[ $version != "version 14" ]]; then  # each lays things out in its own way
    echo "SKIP: no clang-format 14 here${version:+, but $version} (scripts/deps.sh format)"
    exit 77
fi
CHECK=1 scripts/format.sh
