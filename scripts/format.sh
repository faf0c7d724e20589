#!/usr/bin/env bash
# Formats every C and C++ source; with CHECK=1 it only names the files that are not formatted, and fails.
set -euo pipefail
cd "$(dirname "$0")/.."

folders=()
for folder in include src tests tools examples bench; do
    [[ ! -d $folder ]] || folders+=("$folder")
done
[[ ${#folders[@]} -gt 0 ]] || exit 0
mode=(-i)
[[ -z ${CHECK:-} ]] || mode=(--dry-run --Werror)
find "${folders[@]}" -type f \( -name '*.cpp' -o -name '*.hpp' -o -name '*.c' -o -name '*.h' \) -print0 |
    xargs -0 -r clang-format "${mode[@]}"
