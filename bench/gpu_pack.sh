#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# gpu_pack.sh [--sources]: gathers in .gpu what a GPU machine without a network lacks, so that nothing is built there:
#   bin, lib       tests, tool and library, built here for NVIDIA's sm_90 (in build-pack; other generations:
#                  TARE_PACK_ARCHITECTURES), with the shared libraries that they need beyond the C library
#   sources        checksums of the sources they were built from; with other sources ./dev gpu-check builds again
#   include        headers of Criterion, MPFR, GMP, jansson and libcsv, to build with there; --sources: these, no bin
#   bccd, commit   the real data; the commit's name
# Real files, no links: a link does not travel. .gpu is ignored by git.
set -eu
cd "$(dirname "$0")/.."
out=.gpu data=${TARE_DATA:-../shared/data/bccd} build=build-pack
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
needed_by() { # needed_by FILE...: copies the libraries that it needs beyond the C library
  ldd "$@" | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | sort -u |
    grep -vE '/(libc|libm|libdl|librt|libpthread|libresolv|libtare|ld-linux[^/]*)\.so' |
    while read -r needed; do cp -L "$needed" "$out/lib/"; done
}
library() { # library NAME: with what it needs
  path=$(cc -print-file-name="lib$1.so")
  [ -e "$path" ] || path=$(/sbin/ldconfig -p | awk -v name="lib$1.so" 'index($1, name) == 1 { print $NF; exit }')
  real=$(readlink -f "$path")
  soname=$(readelf -d "$real" | sed -n 's/.*(SONAME).*\[\(.*\)\]/\1/p')
  cp "$real" "$out/lib/lib$1.so"
  cp "$real" "$out/lib/$soname"
  needed_by "$real"
}
programs() {
  # Before building: what is changed meanwhile is of other sources.
  git ls-files -z --cached --others --exclude-standard include losses core cpu cuda emulator tool bench tests cmake CMakeLists.txt |
    grep -zE '\.([ch]|cpp|cu|cuh|cmake|txt)$' | grep -zv '^bench/results/' | xargs -0 sha256sum >"$out/sources"
  generator=
  if [ ! -f "$build/CMakeCache.txt" ] && command -v ninja >/dev/null; then generator="-G Ninja"; fi
  mkdir -p "$build"
  # shellcheck disable=SC2016,SC2086
  cmake -S . -B "$build" $generator -DCMAKE_CUDA_ARCHITECTURES="${TARE_PACK_ARCHITECTURES:-90-real}" -DTARE_CUDA=ON \
    -DTARE_TESTS=ON -DTARE_TOOL=ON -DCMAKE_BUILD_RPATH='$ORIGIN/../lib;$ORIGIN' ${TARE_CMAKE_ARGS:-} >"$build/build.log"
  cmake --build "$build" --parallel "$(nproc)" --target gpu_tests tare_tool test_tool device_probe tare >>"$build/build.log"
  mkdir "$out/bin"
  cp "$build/tests/gpu_tests" "$build/tests/test_tool" "$build/tests/device_probe" "$build/bin/tare" "$out/bin/"
  cp -L "$build/libtare.so" "$out/lib/libtare.so"
  cp "$out/lib/libtare.so" "$out/lib/$(readelf -d "$out/lib/libtare.so" | sed -n 's/.*(SONAME).*\[\(.*\)\]/\1/p')"
  strip "$out"/bin/* "$out"/lib/libtare.so*
  needed_by "$build/tests/gpu_tests" "$build/tests/test_tool" "$build/bin/tare"
}

cp -r "$(dirname "$(header criterion/criterion.h)")" "$out/include/"
for name in mpfr.h gmp.h jansson.h jansson_config.h csv.h; do cp "$(header $name)" "$out/include/"; done
for name in criterion mpfr gmp jansson csv; do library $name; done
if [ -d "$data" ]; then
  mkdir "$out/bccd"
  cp "$data"/*.npy "$out/bccd/"
fi
git rev-parse HEAD >"$out/commit"
[ "${1:-}" = --sources ] || programs
du -sh "$out"
