#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# ptxas12.sh NVCC WORK [ARCHITECTURE]...: whether the assemblers of CUDA 12.1 and 12.9 accept our kernels, without a
# CUDA 12 toolkit: they come from PyPI, into WORK. The PTX is that of NVCC, of CUDA 13, with its version lowered. This
# tries the limits of the assembler (kernel parameters above all) and the instructions, not what nvcc 12 makes of the
# source. ARCHITECTURE: 75 80 90 unless given. Status 77: the assemblers cannot be had here.
set -eu
nvcc=$1 work=$2
shift 2
[ $# -gt 0 ] || set -- 75 80 90
source=$(cd "$(dirname "$0")/../.." && pwd)
mkdir -p "$work"

# The assemblers, and the highest PTX that each knows.
assemblers='12.1:8.1 12.9:8.8'
for one in $assemblers; do
  release=${one%%:*}
  python=$work/cuda-$release
  [ -x "$python/bin/python" ] || python3 -m venv "$python"
  "$python/bin/pip" install --quiet "nvidia-cuda-nvcc-cu12==$release.*" >"$work/pip.log" 2>&1 || {
    tail -n 1 "$work/pip.log"
    echo "no ptxas of CUDA $release from PyPI"
    exit 77
  }
done

for architecture in "$@"; do
  # shellcheck disable=SC2016 # the inner shell expands
  find "$source/cuda" -name '*.cu' | sort | xargs -P "$(nproc)" -I{} sh -euc '
    ptx=$3/$(basename "$5" .cu)-$4.ptx
    defines=-DNDEBUG
    case $5 in *sort.cu) defines="$defines -D_GLIBCXX_IOSTREAM=1" ;; esac
    "$1" -std=c++17 -arch="compute_$4" -O3 -fmad=false $defines -ptx -I"$2" -I"$2/include" "$5" -o "$ptx" || exit 255
  ' sh "$nvcc" "$source" "$work" "$architecture" {}
done

failures=0 assembled=0
for one in $assemblers; do
  release=${one%%:*} version=${one##*:}
  ptxas=$(echo "$work/cuda-$release"/lib/python3*/site-packages/nvidia/cuda_nvcc/bin/ptxas)
  for architecture in "$@"; do
    for ptx in "$work"/*-"$architecture".ptx; do
      sed "s/^\.version .*/.version $version/" "$ptx" >"$work/lowered.ptx"
      if "$ptxas" -arch="sm_$architecture" "$work/lowered.ptx" -o "$work/lowered.cubin" >"$work/ptxas.log" 2>&1; then
        assembled=$((assembled + 1))
      else
        failures=$((failures + 1))
        echo "CUDA $release, sm_$architecture: $(basename "$ptx"):"
        head -n 5 "$work/ptxas.log"
      fi
    done
  done
done
echo "$assembled files assembled, $failures not, by ptxas of CUDA 12.1 and 12.9 for sm_$(echo "$*" | sed 's/ /, sm_/g')"
[ "$failures" -eq 0 ]
