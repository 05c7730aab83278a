#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# symbols.sh NM HEADER LIBRARY: the shared library exports exactly what the header declares TARE_API.
set -eu
nm=$1 header=$2 library=$3
declared=$(sed -n 's/^TARE_API .*[ *]\(tare_[a-z0-9_]*\)(.*/\1/p' "$header" | sort)
exported=$("$nm" -D --defined-only "$library" | awk '{ print $NF }' | sort)
count=$(echo "$declared" | grep -c .)
if [ "$count" -ne "$(grep -c '^TARE_API ' "$header")" ]; then
  echo "cannot read every TARE_API declaration of $header"
  exit 1
fi
if [ "$declared" != "$exported" ]; then
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  echo "$declared" >"$scratch/declared"
  echo "$exported" >"$scratch/exported"
  echo "declared in the header (-) and exported by the library (+) differ:"
  diff -u "$scratch/declared" "$scratch/exported" || true
  exit 1
fi
echo "$count symbols declared, the same $count exported"
