#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# cuda_report.sh NVCC SOURCE WORK: compiles cuda/*.cu for sm_90 and holds what the compiler says against
# cuda/budget.txt: no spills and no local memory anywhere, registers, the number of kernels, 16-byte loads and stores,
# and instructions per element of the hot loops. Prints one line a kernel, and what is over its budget. Speed without a
# GPU: it says what a kernel asks for, not how long it takes.
set -eu
nvcc=$1 source=$2 work=$3
ptxas=$(dirname "$(readlink -f "$nvcc")")/ptxas
[ -x "$ptxas" ] || ptxas=ptxas
mkdir -p "$work"
rm -f "$work"/*.log "$work"/*.ptx

# sort.cu is CUB's own.
# shellcheck disable=SC2016 # the inner shell expands
find "$source/cuda" -name '*.cu' ! -name sort.cu | sort | xargs -P "$(nproc)" -I{} sh -euc '
  base=$4/$(basename "$5" .cu)
  "$1" -std=c++17 -arch=sm_90 -O3 -DNDEBUG -ptx -I"$3" -I"$3/include" "$5" -o "$base.ptx"
  "$2" -v -arch=sm_90 "$base.ptx" -o "$base.cubin" >"$base.log" 2>&1 || { cat "$base.log"; exit 255; }
' sh "$nvcc" "$ptxas" "$source" "$work" {}

# NAME registers stack spills, a kernel a line; names demangled, without spaces.
kernels() {
  cat "$work"/*.log | c++filt | sed 's/, /,/g; s/> >/>>/g; s/(anonymous namespace)/anonymous/g' | awk -F"'" '
    /Compiling entry function/ { name = $2; sub(/^void */, "", name); sub(/\(.*/, "", name); gsub(/ /, "", name) }
    /bytes stack frame/ { split($0, word, " "); stack = word[1]; spills = word[5] + word[9] }
    /Used [0-9]+ registers/ { match($0, /Used [0-9]+/); print name, substr($0, RSTART + 5, RLENGTH - 5), stack, spills }'
}

# NAME instructions, for each stretch from a 16-byte load to the next 16-byte store; in a kernel that stores no vectors,
# to the first branch (the one around what most vectors of a histogram need not do). Moves and changes of sign, which
# cost nothing in the machine code, are left out.
stretches() {
  cat "$work"/*.ptx | awk '
    function end_kernel() { if (!stored && branch) print name, branch; stored = branch = open = 0 }
    /\.entry/ { end_kernel(); name = $3; sub(/\(.*/, "", name) }
    /ld\.global[.a-z]*\.v4\./ && !open { open = 1; count = 0 }
    open && /^[ \t]*[@a-z][^;]*;/ && !/^[ \t]*(mov|neg|abs)\./ { count++ }
    open && !branch && /^[ \t]*@.*bra/ { branch = count }
    /st\.global[.a-z]*\.v4\./ && open { print name, count; open = 0; stored = 1 }
    END { end_kernel() }' |
    c++filt | sed 's/, /,/g; s/> >/>>/g; s/(anonymous namespace)/anonymous/g; s/^void //; s/(.*)\( [0-9]*\)$/\1/'
}

kernels >"$work/kernels"
stretches >"$work/stretches"
awk -v kernels="$work/kernels" -v stretches="$work/stretches" '
  function fail(text) { print "over budget: " text; failures++ }
  function first_match(list, count, name,   i) {
    for (i = 1; i <= count; i++) if (name ~ pattern[list, i]) return i
    return 0
  }
  /^[ \t]*(#|$)/ { next }
  $1 == "kernels" { most = $2; next }
  $1 == "vectors" { n["vectors"]++; pattern["vectors", n["vectors"]] = $2; next }
  $1 == "registers" { n[$1]++; pattern[$1, n[$1]] = $2; limit[$1, n[$1]] = $3; next }
  $1 == "instructions" { n[$1]++; pattern[$1, n[$1]] = $2; per[n[$1]] = $3; limit[$1, n[$1]] = $4; next }
  { fail("a line that is none: " $0) }
  END {
    while ((getline line < stretches) > 0) {
      split(line, w, " ")
      if (!(w[1] in stretch) || w[2] < stretch[w[1]]) stretch[w[1]] = w[2]
    }
    while ((getline line < kernels) > 0) {
      split(line, w, " ")
      seen++
      printf "%3d registers  %s", w[2], w[1]
      if (w[3] > 0 || w[4] > 0) fail(w[1] ": " w[3] " bytes of stack, " w[4] " spilled")
      i = first_match("registers", n["registers"], w[1])
      if (!i) fail(w[1] ": no registers line for it in cuda/budget.txt")
      else if (w[2] > limit["registers", i]) fail(w[1] ": " w[2] " registers, allowed " limit["registers", i])
      if (first_match("vectors", n["vectors"], w[1]) && !(w[1] in stretch)) fail(w[1] ": no 16-byte load and store")
      i = first_match("instructions", n["instructions"], w[1])
      if (i && w[1] in stretch) {
        used[i] = 1
        each = stretch[w[1]] / per[i]
        printf ", %.1f instructions an element", each
        if (each > limit["instructions", i]) fail(w[1] ": " each " instructions an element, allowed " limit["instructions", i])
      }
      print ""
    }
    for (i = 1; i <= n["instructions"]; i++) if (!used[i]) fail("no kernel matches instructions " pattern["instructions", i])
    print seen " kernels of at most " most
    if (seen + 0 == 0 || seen > most) fail(seen + 0 " kernels, allowed " most)
    exit failures > 0
  }' "$source/cuda/budget.txt"
