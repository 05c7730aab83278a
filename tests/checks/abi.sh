#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# abi.sh CC SOURCE FOLDER [--record]: the binary interface that the header declares against the recorded one, by Debian's
# abigail-tools. --record writes the recording. Before the first release of a soname a difference is shown; after it, one
# that breaks programs fails. Structs with a struct_size may grow at their end; functions and enumerators may come.
# The header has all of the interface, and tests/checks/symbols.sh holds the library to it. So what is compiled here is
# the header alone, with an empty body for each function, and one more function for each enum.
set -eu
cc=$1 source=$2 folder=$3 mode=${4:-}
header=$source/include/tare.h
if ! command -v abidiff >/dev/null || ! command -v abidw >/dev/null; then
  echo "abidiff is missing (apt-get install abigail-tools)"
  exit 77
fi
version=$(sed -n 's/^#define TARE_VERSION_\(MAJOR\|MINOR\) \([0-9]*\)$/\2/p' "$header" | paste -sd . -)
case $version in 0.*) ;; *) version=${version%%.*} ;; esac # as the soname: cmake/library.cmake
recorded=$source/packaging/abi/libtare.$version.abi
mkdir -p "$folder"

{
  echo '#include "tare.h"'
  awk '/^TARE_API / { inside = 1 } inside { print } inside && /;/ { inside = 0 }' "$header" | sed 's/;/ { __builtin_trap(); }/'
  sed -n 's/^typedef enum \([a-z_]*\) {.*/TARE_API void enum_\1(\1 value); void enum_\1(\1 value) { (void)value; }/p' "$header"
} >"$folder/abi.c"
"$cc" -std=c11 -g -O0 -w -fPIC -shared -fvisibility=hidden -I"$source/include" "-Wl,-soname,libtare.so.$version" \
  "$folder/abi.c" -o "$folder/abi.so"

if [ "$mode" = --record ]; then
  abidw --no-corpus-path --no-comp-dir-path --no-show-locs "$folder/abi.so" |
    sed 's| path=.[^ ]*abi\.c.||' >"$recorded"
  echo "$recorded"
  exit
fi
[ -f "$recorded" ] || {
  echo "no interface $version is recorded; $0 ... --record writes $recorded"
  exit 1
}

# A struct that knows its size may grow, and tare_level, whose size is in tare_batch.
{
  sed -n '/^typedef struct .* {$/{N;s/^typedef struct \([a-z_]*\) {\n.*struct_size;.*/\1/p}' "$header"
  echo tare_level
} | while read -r name; do
  printf '[suppress_type]\n  type_kind = struct\n  name = %s\n  has_data_member_inserted_at = end\n\n' "$name"
done >"$folder/may_grow"
grep -q tare_output "$folder/may_grow" || {
  echo "no struct of $header has a struct_size: cannot read it"
  exit 1
}
status=0
abidiff --no-architecture --no-added-syms --suppressions "$folder/may_grow" "$recorded" "$folder/abi.so" >"$folder/difference" ||
  status=$?
functions=$(grep -c '^TARE_API ' "$header")
if [ "$status" -eq 0 ]; then
  echo "programs linked with the recorded libtare.so.$version run with this one: $functions functions"
  exit
fi
cat "$folder/difference"
if [ $((status & 3)) -ne 0 ]; then exit 1; fi # abidiff itself failed
if grep -q "^## \[$version\.[0-9]*\] - [0-9]" "$source/CHANGELOG.md"; then
  echo "this breaks programs that are linked with libtare.so.$version: a new minor number, or another way"
  exit 1
fi
echo "not fatal, because no $version is released (CHANGELOG.md); the release records it anew"
