#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# gpu_pack.sh: gathers into .gpu what the tests and the tool need on a GPU machine without a network: headers and shared
# libraries of Criterion, MPFR, GMP, jansson and libcsv, the real data, and the commit's name. ./dev gpu-check finds it.
# Real files, no links: a link does not travel. .gpu is ignored by git.
set -eu
cd "$(dirname "$0")/.."
out=.gpu data=${TARE_DATA:-../shared/data/bccd}
rm -rf "$out"
mkdir -p "$out/include" "$out/lib"

header() { # header NAME: found as the compiler finds it
  path=$(echo "#include <$1>" | cc -E - | sed -n "s|^# [0-9]* \"\(/.*/$1\)\".*|\1|p" | head -n 1)
  [ -n "$path" ] || {
    echo "gpu_pack: no header $1" >&2
    exit 1
  }
  echo "$path"
}
library() { # library NAME: with what it needs beyond the C library
  path=$(cc -print-file-name="lib$1.so")
  [ -e "$path" ] || path=$(/sbin/ldconfig -p | awk -v name="lib$1.so" 'index($1, name) == 1 { print $NF; exit }')
  real=$(readlink -f "$path")
  soname=$(readelf -d "$real" | sed -n 's/.*(SONAME).*\[\(.*\)\]/\1/p')
  cp "$real" "$out/lib/lib$1.so"
  cp "$real" "$out/lib/$soname"
  ldd "$real" | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' |
    grep -vE '/(libc|libm|libdl|librt|libpthread|libresolv|ld-linux[^/]*)\.so' |
    while read -r needed; do cp -L "$needed" "$out/lib/"; done
}

cp -r "$(dirname "$(header criterion/criterion.h)")" "$out/include/"
for name in mpfr.h gmp.h jansson.h jansson_config.h csv.h; do cp "$(header $name)" "$out/include/"; done
for name in criterion mpfr gmp jansson csv; do library $name; done
if [ -d "$data" ]; then
  mkdir "$out/bccd"
  cp "$data"/*.npy "$out/bccd/"
fi
git rev-parse HEAD >"$out/commit"
du -sh "$out"
