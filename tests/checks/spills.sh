#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# spills.sh FILE: kernels in a library or object that have a stack, on which spilled registers lie, for each architecture
# that it has code for. cuda_report holds those of sm_90 to none; this is for releases, whose library has them all.
# sort.cu is CUB's own and left out. Status 77: no cuobjdump.
set -eu
extractor=${CUOBJDUMP:-$(command -v cuobjdump || true)}
[ -n "$extractor" ] || extractor=$(dirname "$(readlink -f "$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)")")/cuobjdump
[ -x "$extractor" ] || { echo "spills: no cuobjdump" && exit 77; }
"$extractor" -res-usage "$1" 2>/dev/null | c++filt | awk '
  /^arch = / { architecture = $3 }
  / Function / { name = $0; sub(/^ *Function /, "", name); sub(/\(.*/, "", name) }
  / REG:/ {
    if (name ~ /cub::/) next
    kernels[architecture]++
    split($2, stack, ":")
    if (stack[2] > 0) { spilling[architecture]++; print architecture ": " stack[2] " bytes of stack: " name }
  }
  END {
    for (one in kernels) print one ": " kernels[one] " kernels, " spilling[one] + 0 " with a stack"
  }' | sort
