#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# instructions.sh SOURCE BUILD DRIVER COMPILER_ID COMPILER_VERSION BUILD_TYPE OBJDUMP: holds the instructions of
# small calls, and of the vector loops of AVX-512, within 3 % of tests/checks/instructions.txt; in a build for aarch64
# those of NEON's and SVE's loops, within 3 % of instructions_aarch64.txt.
#
# valgrind counts the calls of DRIVER (instructions.c) with the baseline and with AVX2; a count is the same on every
# machine. valgrind has no AVX-512. There the lengths of the loops are counted in the objects' disassembly, function by
# function, the shortest loop first (loops.awk). Fewer instructions fail as more do: what was gained is written down, or it is lost
# unseen. BUILD/instructions.txt has the new counts; copy it to tests/checks if the change is meant.
#
# The counts are those of one major version of one compiler (the file's line "compiler"), in a Release build.
# Any other build, or no valgrind, is a skip that says so.
set -eu
source=$1 build=$2 driver=$3 compiler="$4 ${5%%.*}" type=$6 objdump=$7
kernels=$build/CMakeFiles/tare_instance_
if [ -d "${kernels}avx512_f32.dir" ]; then
  expected=$source/tests/checks/instructions.txt isa=avx512 vector='%zmm' jump='^j'
elif "$objdump" -f "$build/libtare.so" | grep -q aarch64; then
  expected=$source/tests/checks/instructions_aarch64.txt isa=baseline
  vector='v[0-9]+[.][0-9]+[bhsd]|[^a-z]q[0-9]+,' jump='^(b|b[.][a-z]+|cbn?z|tbn?z)$'
else
  echo "the counts are those of x86-64 and aarch64"
  exit 77
fi
new=$build/instructions.txt
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

of_file=$(sed -n 's/^compiler //p' "$expected")
if [ "$compiler" != "$of_file" ] || [ "$type" != Release ]; then
  echo "the counts are those of $of_file, Release; this is $compiler, ${type:-no type}"
  exit 77
fi
if [ "$isa" = avx512 ] && ! command -v valgrind >/dev/null; then
  echo "valgrind is missing (apt-get install valgrind)"
  exit 77
fi

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

# loops OBJECT TYPE: the lengths of its vector loops.
loops() {
  "$objdump" -d --no-show-raw-insn "$1" | awk -v type="$2" -v vector="$vector" -v jump="$jump" -f "$source/tests/checks/loops.awk"
}

{
  sed -n '/^#/p' "$expected"
  echo "compiler $compiler"
  [ "$isa" != avx512 ] || count baseline
  if [ "$isa" != avx512 ]; then :;
  elif grep -qw avx2 /proc/cpuinfo; then count avx2;
  else echo "this CPU has no AVX2: its counts are skipped" >&2; fi
  for bits in 32 64; do
    object=${kernels}${isa}_f$bits.dir/cpu/instance.c.o
    [ -f "$object" ] || continue
    loops "$object" f$bits
  done
  object=${kernels}${isa}_all.dir/cpu/doubles.c.o
  [ ! -f "$object" ] || loops "$object" all
  vector='z[0-9]+[.]'
  for bits in 32 64; do
    object=${kernels}sve_f$bits.dir/cpu/instance.c.o
    [ ! -f "$object" ] || loops "$object" sve-f$bits
  done
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
