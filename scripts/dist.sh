#!/usr/bin/env bash
# Packs what is committed into build/dist/libevpl-VERSION.tar.gz and prints that path: the same commit, the same bytes. What is not
# committed is left out, and said.
set -euo pipefail
cd "$(dirname "$0")/.."

git rev-parse --git-dir >/dev/null 2>&1 || { echo "dist: this is no git checkout, so there is no commit to pack" >&2; exit 1; }
[[ -z $(git status --porcelain) ]] || echo "dist: changes that are not committed are left out" >&2
version=$(git show HEAD:CMakeLists.txt | sed -n 's/^project(evpl VERSION \([0-9.]*\).*/\1/p')
name=libevpl-$version
mkdir -p build/dist
# Owners, times and order are the commit's; an unnamed, undated gzip adds nothing of its own.
git -c tar.umask=0022 archive --format=tar --prefix="$name/" HEAD | gzip -9 -n >"build/dist/$name.tar.gz"
echo "build/dist/$name.tar.gz"
