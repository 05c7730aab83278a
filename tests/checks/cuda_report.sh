#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# cuda_report.sh NVCC SOURCE WORK OBJECT...: holds what the compiler made of cuda/*.cu for sm_90 against
# cuda/budget.txt: no spills and no local memory anywhere, registers, the kernels of each loss and the size of their
# machine code, 16-byte loads and stores, and instructions per element of the hot loops. Prints one line a kernel, and
# what is over its budget. Speed without a GPU: it says what a kernel asks for, not how long it takes.
#
# The machine code is that of the build's OBJECTs where cuobjdump and nvdisasm are found (beside nvcc, in PATH, or where
# ./dev puts them: a Python environment in WORK/../disassembler) and the objects have code for sm_90. Otherwise the
# sources are compiled once more, and without nvdisasm the instructions are those of the PTX, with their own budget.
set -eu
nvcc=$1 source=$2 work=$3
shift 3
ptxas=$(dirname "$(readlink -f "$nvcc")")/ptxas
[ -x "$ptxas" ] || ptxas=ptxas
rm -rf "$work"
mkdir -p "$work" # before the pattern below, which leads through it

tool() { # tool NAME: where it is, or nothing
  for candidate in "$(dirname "$ptxas")/$1" "$(command -v "$1" || true)" \
    "$work"/../disassembler/lib/python3*/site-packages/nvidia/*/bin/"$1"; do
    [ ! -x "$candidate" ] || { echo "$candidate" && return; }
  done
}
disassembler=$(tool nvdisasm)
extractor=$(tool cuobjdump)

# The objects' own cubins and NAME.usage, what cuobjdump says of their registers. Fails where there are none for sm_90.
# CMake joins the objects with semicolons.
extract() {
  [ -n "$disassembler" ] && [ -n "$extractor" ] || return 1
  for object in $(echo "$*" | tr ';' ' '); do
    case $object in */sort.cu.*) continue ;; esac # CUB's own
    name=$(basename "$object" .cu.o)
    "$extractor" -lelf "$object" >"$work/elves" 2>/dev/null || return 1
    grep -q . "$work/elves" || continue # host code alone
    grep -q 'sm_90\.cubin' "$work/elves" || return 1
    (cd "$work" && "$extractor" -arch sm_90 -xelf all "$object" >/dev/null) || return 1
    "$extractor" -arch sm_90 -res-usage "$object" >"$work/$name.usage"
  done
  [ -n "$(find "$work" -name '*.cubin')" ]
}

# sort.cu is CUB's own.
compile() {
  # shellcheck disable=SC2016 # the inner shell expands
  find "$source/cuda" -name '*.cu' ! -name sort.cu | sort | xargs -P "$(nproc)" -I{} sh -euc '
    base=$4/$(basename "$5" .cu)
    "$1" -std=c++17 -arch=sm_90 -O3 -fmad=false -DNDEBUG -ptx -I"$3" -I"$3/include" "$5" -o "$base.ptx"
    "$2" -v -arch=sm_90 "$base.ptx" -o "$base.cubin" >"$base.log" 2>&1 || { cat "$base.log"; exit 255; }
  ' sh "$nvcc" "$ptxas" "$source" "$work" {}
}

# NAME registers stack, a kernel a line; names demangled, without spaces. What is spilled lies on the stack.
kernels() {
  if [ -n "$extracted" ]; then
    cat "$work"/*.usage | awk '
      / Function / { name = $2; sub(/:$/, "", name) }
      / REG:/ { split($1, registers, ":"); split($2, stack, ":"); print name, registers[2], stack[2] }' | demangled
  else
    cat "$work"/*.log | awk -F"'" '
      /Compiling entry function/ { name = $2 }
      /bytes stack frame/ { split($0, word, " "); stack = word[1] }
      /Used [0-9]+ registers/ { match($0, /Used [0-9]+/); print name, substr($0, RSTART + 5, RLENGTH - 5), stack }' |
      demangled
  fi
}

# NAME bytes of machine code, a kernel a line. readelf warns of fields that only CUDA has.
sizes() {
  for cubin in "$work"/*.cubin; do readelf -SW "$cubin" 2>/dev/null; done | sed -n 's/^ *\[ *[0-9]*\] *\.text\.//p' | awk '
    function number(hex,   i, value) {
      for (i = 1; i <= length(hex); i++) value = value * 16 + index("0123456789abcdef", substr(hex, i, 1)) - 1
      return value
    }
    { print $1, number($5) }' | demangled
}

# NAME least most turn, by tests/checks/sass_paths.awk.
machine_paths() {
  for cubin in "$work"/*.cubin; do "$disassembler" -c "$cubin" | tee "${cubin%.cubin}.sass"; done |
    awk -f "$source/tests/checks/sass_paths.awk"
}

# A few figures of cuda/slots.txt, counted again.
slots() {
  "${TARE_PYTHON:-python3}" -B "$source/bench/slots/count.py" --build "$work/.." --check "$source/cuda/slots.txt" --only quick
}

# NAME instructions - -, for the shortest stretch from a 16-byte load (also of what was copied to shared memory ahead)
# to the next 16-byte store in the text of the PTX; in a kernel that stores no vectors, to the first branch (the one
# around what most vectors of a histogram need not do). Moves and changes of sign, which cost nothing in the machine
# code, are left out.
ptx_stretches() {
  cat "$work"/*.ptx | awk '
    function end_kernel() {
      if (least || branch) print name, least ? least : branch, "-", "-"
      least = branch = open = 0
    }
    /\.entry/ { end_kernel(); name = $3; sub(/\(.*/, "", name) }
    /ld\.(global|shared)[.a-z]*\.v4\./ && !open { open = 1; count = 0 }
    open && /^[ \t]*[@a-z][^;]*;/ && !/^[ \t]*(mov|neg|abs)\./ { count++ }
    open && !branch && /^[ \t]*@.*bra/ { branch = count }
    /st\.global[.a-z]*\.v4\./ && open {
      if (!least || count < least) least = count
      open = 0
    }
    END { end_kernel() }'
}

demangled() {
  c++filt | sed 's/, /,/g; s/> >/>>/g; s/(anonymous namespace)/anonymous/g; s/^void //; s/(.*)\( [-0-9 ]*\)$/\1/'
}

extracted=
if extract "$@"; then
  extracted=yes
  echo "the machine code of the build's objects, by $extractor"
else
  rm -f "$work"/*.cubin
  compile
fi
first=$(find "$work" -name '*.cubin' | head -n 1)
if [ -n "$disassembler" ] && "$disassembler" -c "$first" >/dev/null 2>&1; then
  echo "instructions of the machine code, by $disassembler"
  machine_paths | demangled >"$work/paths"
else
  echo "instructions of the PTX: no nvdisasm that reads sm_90"
  disassembler=
  ptx_stretches | demangled >"$work/paths"
fi
has_numpy() { "${TARE_PYTHON:-python3}" -c 'import numpy' 2>/dev/null; }
if [ -z "$disassembler" ] || [ ! -x "$work/../tests/record_call" ] || ! has_numpy; then
  echo "slots are not counted: that needs nvdisasm, the emulator and NumPy"
else
  slots || exit 1
fi
kernels >"$work/kernels"
sizes >"$work/sizes"
awk -v kernels="$work/kernels" -v paths="$work/paths" -v sizes="$work/sizes" -v machine="$disassembler" '
  function fail(text) { failure[++failures] = text }
  function first_match(list, count, name,   i) {
    for (i = 1; i <= count; i++) if (name ~ pattern[list, i]) return i
    return 0
  }
  # The group of a kernel: what the first matching line of "kernels" stands for, or of "kernels-of-each", what it
  # matches.
  function group_of(name,   i) {
    i = first_match("kernels", n["kernels"], name)
    if (!i) return ""
    uses[i] = 1
    if (!each[i]) return pattern["kernels", i]
    match(name, pattern["kernels", i])
    return substr(name, RSTART, RLENGTH)
  }
  function held(name, what, instructions, per, most) {
    if (instructions == "-" || most == "-") return
    printf ", %.1f %s", instructions / per, what
    if (instructions / per > most) fail(name ": " instructions / per " " what " an element, allowed " most)
  }
  /^[ \t]*(#|$)/ { next }
  ($1 == "kernels" || $1 == "kernels-of-each") && NF == 4 {
    i = ++n["kernels"]
    pattern["kernels", i] = $2
    limit["kernels", i] = $3
    most_kilobytes[i] = $4
    each[i] = $1 == "kernels-of-each"
    next
  }
  $1 == "vectors" { n["vectors"]++; pattern["vectors", n["vectors"]] = $2; next }
  $1 == "registers" { n[$1]++; pattern[$1, n[$1]] = $2; limit[$1, n[$1]] = $3; next }
  $1 == "instructions" && NF == 7 {
    i = ++n[$1]
    pattern[$1, i] = $2
    per[i] = $3
    allowed[i, "turn"] = $4
    allowed[i, "least"] = $5
    allowed[i, "most"] = $6
    allowed[i, "ptx"] = $7
    next
  }
  { fail("a line that is none: " $0) }
  END {
    while ((getline line < paths) > 0) {
      split(line, w, " ")
      least[w[1]] = w[2]
      most[w[1]] = w[3]
      turn[w[1]] = w[4]
    }
    while ((getline line < sizes) > 0) {
      split(line, w, " ")
      kilobytes[w[1]] = w[2] / 1000
    }
    while ((getline line < kernels) > 0) {
      split(line, w, " ")
      seen++
      printf "%3d registers", w[2]
      i = first_match("instructions", n["instructions"], w[1])
      if (i && w[1] in least) {
        used[i] = 1
        if (machine) {
          held(w[1], "a turn", turn[w[1]], per[i], allowed[i, "turn"])
          held(w[1], "at least", least[w[1]], per[i], allowed[i, "least"])
          held(w[1], "at most", most[w[1]], per[i], allowed[i, "most"])
        } else
          held(w[1], "by the PTX", least[w[1]], per[i], allowed[i, "ptx"])
      }
      print "  " w[1]
      group = group_of(w[1])
      if (group == "") fail(w[1] ": no kernels line for it in cuda/budget.txt")
      else {
        members[group]++
        size[group] += kilobytes[w[1]]
        row[group] = first_match("kernels", n["kernels"], w[1])
        if (!(w[1] in kilobytes)) fail(w[1] ": no size")
      }
      if (w[3] > 0) fail(w[1] ": " w[3] " bytes of stack, spilled ones among them")
      i = first_match("registers", n["registers"], w[1])
      if (!i) fail(w[1] ": no registers line for it in cuda/budget.txt")
      else if (w[2] > limit["registers", i]) fail(w[1] ": " w[2] " registers, allowed " limit["registers", i])
      if (first_match("vectors", n["vectors"], w[1]) && !(w[1] in least)) fail(w[1] ": no 16-byte load and store")
    }
    for (i = 1; i <= n["instructions"]; i++)
      if (!used[i]) fail("no kernel matches instructions " pattern["instructions", i])
    for (i = 1; i <= n["kernels"]; i++)
      if (!uses[i]) fail("no kernel matches kernels " pattern["kernels", i])
    for (group in members) {
      i = row[group]
      all += size[group]
      printf "%d of %d kernels, %d of %d kB: %s\n", members[group], limit["kernels", i], size[group], most_kilobytes[i], group
      if (members[group] > limit["kernels", i]) fail(members[group] " kernels of " group ", allowed " limit["kernels", i])
      if (size[group] > most_kilobytes[i]) fail(size[group] " kB of " group ", allowed " most_kilobytes[i])
    }
    printf "%d kernels, %d kB\n", seen, all
    if (seen + 0 == 0) fail("no kernels")
    for (i = 1; i <= failures; i++) print "over budget: " failure[i]
    exit failures > 0
  }' "$source/cuda/budget.txt"
