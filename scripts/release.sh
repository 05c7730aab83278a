# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh disable=SC2154 # dev sets build
# ./dev release: the part of docs/releasing.md that a program can do. It commits, and it never tags or publishes.

release() {
  case "${1:-}" in
    --next) release_next "${2:-}" ;;
    *) release_commit "${1:-}" ;;
  esac
}

stop() {
  echo "dev: $*" >&2
  exit 1
}

# release_begin VERSION: sets minor, or says why that version cannot be made here.
release_begin() {
  echo "$1" | grep -qxE '[0-9]+\.[0-9]+\.[0-9]+' || stop "release takes a version such as 0.1.0, not '$1'"
  in_git || stop "a release is made in a git checkout"
  [ -z "$(git status --porcelain)" ] || stop "there are changes that are not committed"
  [ -z "$(git tag --list "v$1")" ] || stop "v$1 is tagged"
  minor=${1%.*}
}

set_version() { # set_version VERSION: in the header, which all but the Python mirror reads
  old_ifs=$IFS
  IFS=.
  # shellcheck disable=SC2086
  set -- $1
  IFS=$old_ifs
  sed -i -e "s/^\(#define TARE_VERSION_MAJOR\) .*/\1 $1/" -e "s/^\(#define TARE_VERSION_MINOR\) .*/\1 $2/" \
    -e "s/^\(#define TARE_VERSION_PATCH\) .*/\1 $3/" include/tare.h
  sed -i "s/^VERSION = ([0-9]*, [0-9]*)/VERSION = ($1, $2)/" python/tare/_c.py
  # find_package takes a version of the same minor number only.
  grep -rl 'find_package(tare [0-9.]* ' README.md docs/guide tests/install | xargs sed -i "s/find_package(tare [0-9.]* /find_package(tare $1.$2 /"
}

# The newest section of the changelog must be that of this version, open, and with something in it.
check_changelog() {
  section=$(sed -n '/^## \[/{s/^## //p;q}' CHANGELOG.md)
  [ "$section" = "[$1] - unreleased" ] || stop "CHANGELOG.md begins with '$section', not with '[$1] - unreleased'"
  awk '/^## \[/ { n++ } n == 1 && /^(- |\|)/ { found = 1 } END { exit !found }' CHANGELOG.md ||
    stop "the section of $1 in CHANGELOG.md is empty"
}

release_commit() {
  release_begin "$1"
  check_changelog "$1"
  # A file may be there from an earlier release with the same soname: the interface must still be that one's.
  if [ -f "packaging/abi/libtare.$minor.abi" ]; then
    tests/checks/abi.sh cc . "$build/abi" || stop "the binary interface changed"
  fi
  set_version "$1"
  date=$(date -u +%Y-%m-%d)
  sed -i "s/^## \[$1\] - unreleased/## [$1] - $date/" CHANGELOG.md
  sed -i -e '/^version: /d' -e '/^date-released: /d' CITATION.cff
  printf 'version: %s\ndate-released: %s\n' "$1" "$date" >>CITATION.cff
  tests/checks/abi.sh cc . "$build/abi" --record || stop "the binary interface could not be recorded"
  git add -u
  git add packaging/abi
  git commit --quiet -m "Tare $1" -m "The version, the date in the changelog, and the recorded binary interface."
  package_source
  git log -1 --format='%h %s'
  git show --stat --format= HEAD
  grep -q '^\[project.urls\]' pyproject.toml || echo "dev: pyproject.toml names no address of the project ([project.urls])" >&2
  echo "Next: docs/releasing.md, from \"Check everything\" on"
}

release_next() { # the version after a release
  release_begin "$1"
  set_version "$1"
  section=$(grep -n -m 1 '^## \[' CHANGELOG.md | cut -d : -f 1)
  sed -i "${section}i ## [$1] - unreleased\n" CHANGELOG.md
  [ -f "packaging/abi/libtare.$minor.abi" ] || tests/checks/abi.sh cc . "$build/abi" --record
  git add -u
  git add packaging/abi
  git commit --quiet -m "Version $1 begins" -m "An empty section in the changelog, and the number in the header."
  git log -1 --format='%h %s'
}
