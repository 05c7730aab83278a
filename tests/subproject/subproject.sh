#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# subproject.sh SOURCE WORK CMAKE CC: SOURCE configures as a user does it, with nothing but a folder, with Makefiles and
# with CUDA where it is; and as a part of another project, where the library alone is built and nothing is installed.
set -eu
source=$1 work=$2 cmake=$3 cc=$4
rm -rf "$work"
mkdir -p "$work"
unset CMAKE_GENERATOR CUDAARCHS

quiet() {
  "$@" >"$work/log" 2>&1 || { cat "$work/log"; echo "failed: $*"; exit 1; }
}

quiet "$cmake" -S "$source" -B "$work/alone" -G "Unix Makefiles" -DCMAKE_C_COMPILER="$cc"
quiet grep -q '^TARE_WERROR:BOOL=OFF$' "$work/alone/CMakeCache.txt"
quiet "$cmake" -S "$source/tests/subproject" -B "$work/with_cuda" -G "Unix Makefiles" -DTARE_SOURCE="$source" \
  -DCMAKE_C_COMPILER="$cc"
echo "configured with Makefiles, alone and as a part"

# What is built is run once: a fast build will do.
printf '#!/bin/sh\nexec "$@" -O0\n' >"$work/quickly"
chmod +x "$work/quickly"
quiet "$cmake" -S "$source/tests/subproject" -B "$work/part" -G "Unix Makefiles" -DTARE_SOURCE="$source" \
  -DTARE_CUDA=OFF -DCMAKE_C_COMPILER="$cc" -DCMAKE_C_COMPILER_LAUNCHER="$work/quickly"
"$cmake" --build "$work/part" --target help >"$work/targets"
for target in tare_tool test_errors example_imbalance; do
  ! grep -q "\b$target\b" "$work/targets" || {
    echo "a part of another project has the target $target"
    exit 1
  }
done
quiet "$cmake" --build "$work/part" --parallel 2
"$work/part/uses_tare"
"$work/part/uses_tare_static"
quiet "$cmake" --install "$work/part" --prefix "$work/prefix"
installed=$(cd "$work/prefix" && find . -type f)
[ "$installed" = ./bin/uses_tare ] || {
  echo "a part of another project installs $installed"
  exit 1
}
