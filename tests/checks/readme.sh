#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# readme.sh SOURCE: the first C block of README.md is examples/two_levels.c from its first #include on.
set -eu
cd "$1"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
awk '/^```/ { if (inside) exit; inside = ($0 == "```c"); next } inside' README.md >"$scratch/readme"
sed -n '/^#include/,$p' examples/two_levels.c >"$scratch/example"
if ! [ -s "$scratch/readme" ] || ! diff -u "$scratch/example" "$scratch/readme"; then
  echo "README.md shows another program than examples/two_levels.c"
  exit 1
fi
echo "README.md shows examples/two_levels.c, $(grep -c . "$scratch/readme") lines"
