#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# instructions.sh SOURCE BUILD DRIVER COMPILER_ID COMPILER_VERSION BUILD_TYPE: holds the instructions of small
# calls, and of the vector loops of AVX-512, within 3 % of tests/checks/instructions.txt.
#
# valgrind counts the calls of DRIVER (instructions.c) with the baseline and with AVX2; a count is the same on every
# machine. valgrind has no AVX-512. There the lengths of the loops are counted in the objects' disassembly, function by
# function, the shortest loop first. Fewer instructions fail as more do: what was gained is written down, or it is lost
# unseen. BUILD/instructions.txt has the new counts; copy it to tests/checks if the change is meant.
#
# The counts are those of one major version of one compiler (the file's line "compiler"), for x86-64, in a Release build.
# Any other build, or no valgrind, is a skip that says so.
set -eu
source=$1 build=$2 driver=$3 compiler="$4 ${5%%.*}" type=$6
expected=$source/tests/checks/instructions.txt
new=$build/instructions.txt
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

of_file=$(sed -n 's/^compiler //p' "$expected")
if [ "$compiler" != "$of_file" ] || [ "$type" != Release ]; then
  echo "the counts are those of $of_file, Release; this is $compiler, ${type:-no type}"
  exit 77
fi
[ -d "$build/CMakeFiles/tare_instance_avx2_f32.dir" ] || { echo "the counts are those of x86-64"; exit 77; }
for tool in valgrind objdump; do
  command -v $tool >/dev/null || { echo "$tool is missing (apt-get install valgrind binutils)"; exit 77; }
done

# No "rep movsb", which counts each byte and which glibc takes on some machines only.
copies=glibc.cpu.x86_rep_movsb_threshold=1000000000:glibc.cpu.x86_rep_stosb_threshold=1000000000

# count ISA: "call NAME ISA instructions", a case a line.
count() {
  TARE_ISA=$1 OMP_NUM_THREADS=1 GLIBC_TUNABLES=$copies valgrind --tool=callgrind --toggle-collect=measure --dump-after=measure \
    --callgrind-out-file="$scratch/$1" "$driver" >"$scratch/names" 2>"$scratch/log" || { cat "$scratch/log" >&2; exit 1; }
  number=0
  while read -r name; do
    number=$((number + 1))
    echo "call $name $1 $(sed -n 's/^totals: //p' "$scratch/$1.$number")"
  done <"$scratch/names"
}

# loops OBJECT TYPE: "loops FUNCTION TYPE length...", the innermost loops with 512-bit registers of a function a line.
loops() {
  objdump -d --no-show-raw-insn "$1" | awk -v type="$2" '
    function number(hex,   i, value) {
      for (i = 1; i <= length(hex); i++) value = value * 16 + index("0123456789abcdef", substr(hex, i, 1)) - 1
      return value
    }
    function flush(   i, j, k, inner, line, swap) {
      kept = 0
      for (i = 1; i <= jumps; i++) {
        inner = vectors[last[i]] - vectors[first[i] - 1] >= 8
        for (j = 1; j <= jumps && inner; j++)
          if (j != i && first[j] >= first[i] && last[j] <= last[i] && \
              (first[j] > first[i] || last[j] < last[i] || j < i)) inner = 0
        if (inner) size[++kept] = last[i] - first[i] + 1
      }
      for (i = 2; i <= kept; i++)
        for (k = i; k > 1 && size[k] < size[k - 1]; k--) { swap = size[k]; size[k] = size[k - 1]; size[k - 1] = swap }
      line = ""
      for (i = 1; i <= kept; i++) line = line " " size[i]
      if (kept) print "loops " name " " type line
      jumps = n = 0
      split("", at)
    }
    /^[0-9a-f]+ <.*>:$/ { flush(); name = $2; gsub(/[<>:]/, "", name); next }
    /^ *[0-9a-f]+:\t/ {
      address = $1; sub(/:$/, "", address)
      at[address] = ++n
      vectors[n] = vectors[n - 1] + ($0 ~ /%zmm/)
      if ($2 ~ /^j/ && ($3 in at)) { first[++jumps] = at[$3]; last[jumps] = n }
    }
    END { flush() }'
}

{
  sed -n '/^#/p' "$expected"
  echo "compiler $compiler"
  count baseline
  if grep -qw avx2 /proc/cpuinfo; then count avx2; else echo "this CPU has no AVX2: its counts are skipped" >&2; fi
  for bits in 32 64; do
    object=$build/CMakeFiles/tare_instance_avx512_f$bits.dir/cpu/instance.c.o
    [ -f "$object" ] || continue
    loops "$object" f$bits
  done
  object=$build/CMakeFiles/tare_instance_avx512_all.dir/cpu/doubles.c.o
  [ ! -f "$object" ] || loops "$object" all
} >"$new"

awk -v limit=0.03 '
  FNR == 1 { file++ }
  /^#/ || $1 == "compiler" { next }
  { key = $1 " " $2 " " $3 }
  file == 1 { expected[key] = $0; next }
  !(key in expected) { print "new:     " key; bad++; next }
  {
    seen[key] = 1
    fields = split(expected[key], old, " ")
    lines++
    if (fields != NF) {
      print "BAD:     " key ": " NF - 3 " loops, not " fields - 3
      bad++
      next
    }
    for (i = 4; i <= NF; i++) {
      counts++
      change = $i / old[i] - 1
      if (change <= limit && change >= -limit) continue
      printf "%s %s: %d instead of %d (%+.1f %%)\n", (change > 0 ? "MORE:   " : "fewer:  "), key, $i, old[i], 100 * change
      bad++
    }
  }
  END {
    for (key in expected) if (!(key in seen)) {
      if (key ~ / avx2$/ && !(system("grep -qw avx2 /proc/cpuinfo") == 0)) continue
      print "missing: " key
      bad++
    }
    printf "%d counts in %d lines, %d beyond %d %%\n", counts, lines, bad, 100 * limit
    exit bad > 0
  }' "$expected" "$new" || {
  echo "if the change is meant: cp $new $expected"
  exit 1
}
