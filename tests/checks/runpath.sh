#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# runpath.sh READELF FOLDER FILE...: no program or library in FOLDER, nor any FILE, looks for libraries in the current
# folder: every entry of its RUNPATH is an absolute folder or begins with $ORIGIN. An empty entry is the current folder.
set -eu
readelf=$1 folder=$2
shift 2
read_run_path() { "$readelf" -d "$1" 2>/dev/null | sed -n 's/.*(R\(UN\)\{0,1\}PATH).*\[\(.*\)\]/\2/p'; }

checked=0
failed=0
list=$(mktemp)
trap 'rm -f "$list"' EXIT
{
  find "$folder" -type f \( -perm -100 -o -name '*.so*' \) ! -name '*.sh' ! -path '*/CMakeFiles/*' ! -path '*/disassembler/*' ! -path "$folder/*-test/*"
  for file in "$@"; do echo "$file"; done
} | sort -u >"$list"
while read -r file; do
  [ "$(head -c 4 "$file" | tail -c 3)" = ELF ] || continue
  checked=$((checked + 1))
  path=$(read_run_path "$file")
  [ -n "$path" ] || continue
  case :$path: in
    *::*)
      echo "$file: an empty entry in $path"
      failed=1
      ;;
  esac
  old_ifs=$IFS
  IFS=:
  for entry in $path; do
    # shellcheck disable=SC2016
    case $entry in
      /* | '$ORIGIN' | '$ORIGIN'/*) ;;
      *)
        echo "$file: '$entry' in $path"
        failed=1
        ;;
    esac
  done
  IFS=$old_ifs
done <"$list"
[ "$checked" -gt 0 ] || {
  echo "$folder has no program and no library"
  exit 1
}
echo "$checked files look in no folder but their own"
exit "$failed"
