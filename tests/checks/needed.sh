#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# needed.sh READELF LIBRARY: the shared library needs C's own libraries. No driver, no CUDA runtime (it is inside),
# no C++: what a program in C on a machine without a GPU has.
set -eu
readelf=$1 library=$2
needed=$("$readelf" -d "$library" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
[ -n "$needed" ] || {
  echo "cannot read what $library needs"
  exit 1
}
for name in $needed; do
  case $name in
    libc.so.* | libm.so.* | ld-linux* | libpthread.so.* | libdl.so.* | librt.so.*) ;;
    *)
      echo "it needs $name"
      exit 1
      ;;
  esac
done
echo "$needed" | tr '\n' ' '
